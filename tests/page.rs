//! The page on /, in a real browser: what it shows, what it survives, and what it must never do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::frames::{Connection, Frame};
use support::web::{HASH, http, start};
use support::{Daemon, Peer, installed_peer, peers};

const GIB: u64 = 1 << 30;
/// All that the page is made of may have so many bytes on its way.
const PAGE_BYTES_MAX: usize = 150 * 1024;
const PARTS: [&str; 3] = ["/", "/page.js", "/page.css"];
const DEVICES: i32 = 32;
const PROCESSES: i32 = 500;
/// Updates that are watched for what they cost.
const UPDATES: u64 = 8;
/// The page's thread may be busy with an update for so long, with all that belongs to it.
const BUSY_SECONDS_MAX: f64 = 0.05;
/// And with one task of it: what takes longer is felt.
const TASK_SECONDS_MAX: f64 = 0.05;
/// Buffers of one process, and how many of them come with the first page and with each other one.
const BUFFERS: u64 = 1_000_000;
const PAGE_ROWS: [u64; 2] = [500, 10_000];

/// A browser with one page open.
struct Browser(Peer);

impl Browser {
    fn start() -> Browser {
        let mut command = Command::new("node");
        Browser(Peer::start(command.arg(peers().join("page/browser.mjs")).arg(installed_peer("page"))))
    }

    /// A browser that shows a view, and what the daemon tells.
    fn at(daemon: &Daemon, view: &str) -> Browser {
        let mut browser = Browser::start();
        browser.show(daemon, view, &json!({}));
        browser
    }

    fn show(&mut self, daemon: &Daemon, view: &str, options: &Value) {
        let mut command = json!({ "op": "open", "url": format!("{}#/{view}", http(daemon, "/")) });
        command.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        assert_eq!(self.ask(&command), 200);
        self.wait_until_live();
    }

    fn ask(&mut self, command: &Value) -> Value {
        self.0.ask(&command.to_string())["value"].take()
    }

    /// Waits until an expression is true.
    fn wait(&mut self, script: &str) -> Value {
        self.ask(&json!({ "op": "wait", "script": script }))
    }

    fn wait_until_live(&mut self) {
        self.wait("document.querySelector('.connection.live') !== null");
    }

    /// Waits until a part of the page says something.
    fn wait_for_text(&mut self, selector: &str, text: &str) {
        self.wait(&format!("document.querySelector({selector:?})?.textContent.includes({text:?})"));
    }

    fn evaluate(&mut self, script: &str) -> Value {
        self.ask(&json!({ "op": "evaluate", "script": script }))
    }

    fn click(&mut self, selector: &str) {
        self.ask(&json!({ "op": "click", "selector": selector }));
    }

    fn press(&mut self, key: &str) {
        self.ask(&json!({ "op": "press", "key": key }));
    }

    /// For how long the page's thread has had the processor.
    fn busy_seconds(&mut self) -> f64 {
        self.ask(&json!({ "op": "report" }))["busy_seconds"].as_f64().unwrap()
    }

    /// From now on every task of the page's thread is noted.
    fn trace(&mut self) {
        self.ask(&json!({ "op": "trace" }));
    }

    /// For how long the longest of those tasks has had the processor.
    fn longest_task_seconds(&mut self) -> f64 {
        self.ask(&json!({ "op": "longest_task" })).as_f64().unwrap()
    }

    /// Nothing was asked of anybody else, and nothing went wrong.
    #[track_caller]
    fn check_report(&mut self) {
        let report = self.ask(&json!({ "op": "report" }));
        assert_eq!((&report["foreign"], &report["errors"]), (&json!([]), &json!([])), "{report}");
    }
}

#[test]
fn what_happens_is_seen_without_a_reload_down_to_the_buffer() {
    let daemon = Daemon::start(&["--device", "0=n150", "--state-dir", "state"]);
    let mut browser = Browser::at(&daemon, "");
    browser.wait_for_text("main", "Device 0");
    let mut client = Peer::field_client(&daemon, "seed");
    let allocate = |id: u64, size: u64| {
        json!({ "op": "allocate", "device": 0, "type": "dram", "size": size, "id": id }).to_string()
    };
    client.ask(&allocate(0x1234, 3 * GIB));
    browser.wait_for_text(".memory", "3.00 GiB / 12.0 GiB");
    client.ask(&allocate(0x5678, GIB));
    browser.wait_for_text(".memory", "4.00 GiB / 12.0 GiB");
    let said = browser.evaluate("document.querySelector('.bar').getAttribute('aria-label')");
    assert!(said.as_str().unwrap().starts_with("dram: 4.00 GiB of 12.0 GiB; python3"), "{said}");

    browser.click("section.card h2 a");
    browser.wait_for_text("h1", "Device 0");
    browser.click("tbody a");
    browser.wait_for_text("h1", "python3");
    browser.wait_for_text("section table", "0x1234");
    browser.wait_for_text("section table", "0x5678");
    assert_eq!(browser.evaluate("location.hash"), format!("#/processes/{}", client.pid()));

    let address = browser.evaluate("location.href");
    browser.ask(&json!({ "op": "open", "url": address }));
    browser.wait_for_text("h1", "python3");
    browser.click("nav a[href='#/events']");
    browser.wait_for_text("table", "Process started");
    client.kill();
    browser.wait_for_text("table", "Memory orphaned");
    browser.click("nav a[href='#/fits']");
    browser.wait_for_text("table", "fits");
    browser.click("nav a[href='#/daemon']");
    browser.wait_for_text("main", "events_total kind=alloc");
    browser.check_report();
}

#[test]
fn it_catches_up_when_the_daemon_was_away() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut browser = Browser::at(&daemon, "processes");
    browser.evaluate("globalThis.isTheSame = true");
    let address = daemon.http().to_string();
    let directory = daemon.kill();
    browser.wait_for_text(".connection", "Connection lost");
    let daemon = Daemon::start_in(directory, &["--listen", &address, "--device", "1=n150"]);
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(1, GIB, 1)]);
    browser.wait_until_live();
    browser.wait_for_text("tbody", "1.00 GiB");
    assert_eq!(browser.evaluate("globalThis.isTheSame"), true, "without a reload");
}

#[test]
fn what_processes_call_themselves_stays_text() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let names = [
        "<b id=owned>x",
        "\"'><i id=owned>",
        "a\nb\u{7}\u{1b}[1m",
        "\u{202e}gpj.exe",
        "&lt;javascript:",
        "{{7*7}}${7*7}",
    ];
    let mut clients: Vec<Peer> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let mut client = Peer::unconnected(&daemon);
        let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        client.ask(&json!({ "op": "be_called", "hex": hex }).to_string());
        client.ask(r#"{"op":"connect","client":"seed"}"#);
        let size = GIB + index as u64;
        client.ask(
            &json!({ "op": "allocate", "device": 0, "type": "dram", "size": size, "id": 1 }).to_string(),
        );
        clients.push(client);
    }
    let mut browser = Browser::at(&daemon, "");
    for view in ["devices", "devices/0", "processes", "leaks", "events", "fits"] {
        browser.evaluate(&format!("location.hash = '#/{view}'"));
        browser.wait(&format!(
            "document.querySelector('nav a[aria-current]').hash === '#/{}'",
            view.split('/').next().unwrap()
        ));
        assert_eq!(browser.evaluate("document.getElementById('owned')"), Value::Null, "{view}");
    }
    browser.evaluate("location.hash = '#/processes'");
    browser.wait(&format!("document.querySelectorAll('tbody a').length === {}", names.len()));
    let shown =
        browser.evaluate("[...document.querySelectorAll('tbody a bdi')].map((name) => name.textContent)");
    for name in ["<b id=owned>x", "\"'><i id=owned>", "&lt;javascript:", "{{7*7}}${7*7}"] {
        assert!(shown.as_array().unwrap().contains(&json!(name)), "{name}: {shown}");
    }
    for client in &clients {
        browser.evaluate(&format!("location.hash = '#/processes/{}'", client.pid()));
        browser.wait_for_text(".facts", &client.pid().to_string());
        assert_eq!(browser.evaluate("document.getElementById('owned')"), Value::Null);
    }
    browser.check_report();
}

/// A real suspicion takes half an hour to arise; what the API says of one is in its schema, and told to the page here.
#[test]
fn what_is_suspected_of_leaking_is_shown_with_its_evidence() {
    let daemon = Daemon::start(&[]);
    let leak = |pid: u32, score: f64| {
        json!({ "pid": pid, "process": format!("server-{pid}"), "user": "ml", "device": 3, "memory_type": "dram",
                "score": score, "suspected_timestamp_seconds": 1_794_999_000.0, "growth_bytes": 512 << 20, "growth_buffers": 512, "growth_seconds": 1800.0,
                "bytes_per_second": 298_261.0, "full_in_seconds": 36_000.0,
                "evidence": "grew in 7 of 7 windows of 4 minutes" })
    };
    let live = json!({ "timestamp_seconds": 1_795_000_000.0, "devices": [], "processes": [], "has_history": false,
                       "leaks": [leak(11, 0.9), leak(12, 0.2)] });
    let mut browser = Browser::start();
    let open = json!({ "op": "open", "url": format!("{}#/leaks", http(&daemon, "/")), "live": live });
    assert_eq!(browser.ask(&open), 200);
    browser.wait_for_text("main", "server-11");
    browser.wait_for_text("main", "grew in 7 of 7 windows");
    browser.wait_for_text("main", "17.1 MiB a minute; the device is full in 10 h");
    browser.wait_for_text("main", "server-12");
    browser.wait_for_text("nav", "Leaks1");
    assert_eq!(browser.ask(&json!({ "op": "axe" })), json!([]));
    if let Some(path) = std::env::var_os("TTMEM_TEST_SCREENSHOT") {
        browser.ask(&json!({ "op": "screenshot", "path": path.to_str().unwrap() }));
    }
}

#[test]
fn it_asks_for_the_password_and_works_with_it() {
    let (daemon, _certificates) = start(&format!("basic_auth_users:\n  alice: {HASH}\n"));
    for path in PARTS.into_iter().chain(["/api/v1/live"]) {
        assert_eq!(daemon.get(path).status, 401, "{path}");
    }
    let mut browser = Browser::start();
    browser.show(&daemon, "", &json!({ "user": "alice", "password": "correct horse" }));
    browser.check_report();
}

#[test]
fn it_can_be_used_by_keyboard_and_screen_reader() {
    let daemon = Daemon::start(&["--device", "0=n150", "--device", "1=p150", "--state-dir", "state"]);
    let mut client = Connection::open(&daemon, 144);
    let frames: Vec<Frame> = (0..100).map(|id| Frame::alloc((id % 2) as i32, 1 << 20, id + 1)).collect();
    client.send(&frames);
    client.query(0);
    let mut browser = Browser::start();
    let process = format!("processes/{}", std::process::id());
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 3840)] {
        for view in
            ["devices", "devices/0", "processes", &process, "leaks", "events", "fits", "daemon", "nothing"]
        {
            browser.show(&daemon, view, &json!({ "scheme": scheme, "width": width }));
            if view == process {
                browser.wait_for_text("section table", "1.00 MiB");
            }
            let violations = browser.ask(&json!({ "op": "axe" }));
            assert_eq!(violations, json!([]), "{view}, {scheme}, {width} pixels");
            let is_within = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.evaluate(is_within), true, "{view} is too wide for {width} pixels");
            browser.check_report();
        }
    }
    browser.show(&daemon, "devices", &json!({}));
    browser.press("Tab");
    assert_eq!(browser.evaluate("document.activeElement.id"), "skip");
    browser.press("Enter");
    assert_eq!(browser.evaluate("document.activeElement.textContent"), "Devices");
    let mut presses = 0;
    while browser.evaluate("document.activeElement.textContent") != "Device 1" {
        presses += 1;
        assert!(presses < 20, "the second device is not reached");
        browser.press("Tab");
    }
    browser.press("Enter");
    browser
        .wait("document.activeElement.textContent === 'Device 1' && document.activeElement.tagName === 'H1'");
}

#[test]
fn it_is_small_and_may_do_little() {
    let daemon = Daemon::start(&[]);
    let mut bytes = 0;
    for path in PARTS {
        let ask = |header: &str| {
            let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}\r\n");
            support::request(daemon.http(), &text)
        };
        let (plain, compressed) = (ask(""), ask("Accept-Encoding: gzip\r\n"));
        assert_eq!(
            (plain.header("content-encoding"), compressed.header("content-encoding")),
            (None, Some("gzip"))
        );
        let length =
            |answer: &support::Response| answer.header("content-length").unwrap().parse::<usize>().unwrap();
        assert!(length(&compressed) < length(&plain), "{path}");
        bytes += length(&compressed);
        let tag = plain.header("etag").unwrap();
        assert_eq!(ask(&format!("If-None-Match: {tag}\r\n")).status, 304, "{path}");
        assert_eq!(ask("If-None-Match: W/\"other\"\r\n").status, 200, "{path}");
        let policy = plain.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
    println!("the page has {bytes} bytes, compressed");
    assert!(bytes < PAGE_BYTES_MAX, "{bytes} bytes");
}

/// Every process changes at every update.
#[test]
fn it_keeps_up_with_many_devices_and_processes() {
    let flags: Vec<String> =
        (0..DEVICES).flat_map(|index| ["--device".to_owned(), format!("{index}=n150")]).collect();
    let mut arguments: Vec<&str> = flags.iter().map(String::as_str).collect();
    arguments.push("--trust-claimed-pids");
    let daemon = Daemon::start(&arguments);
    let mut client = Connection::open(&daemon, 144);
    let mut grow = |round: u64| {
        let frames: Vec<Frame> = (0..PROCESSES)
            .flat_map(|index| {
                // Both memory types have buffers of the one process.
                [0, 1].map(|buffer_type| {
                    let frame = Frame::alloc(index % DEVICES, 1 << 20, 2 * round + u64::from(buffer_type));
                    Frame { process_id: 1_000_000 + index, buffer_type, ..frame }
                })
            })
            .collect();
        client.send(&frames);
        client.query(0);
    };
    grow(1);
    let mut browser = Browser::at(&daemon, "devices");
    browser.trace();
    browser.evaluate("location.reload()");
    browser.wait_for_text("main", "Device 31");
    browser.wait_until_live();
    let longest = browser.longest_task_seconds();
    println!("the first view's longest task takes {:.1} ms of the processor", longest * 1e3);
    assert!(longest < TASK_SECONDS_MAX, "{longest} s");
    let first_ms = browser.evaluate("performance.now()");
    for view in ["devices", "processes"] {
        browser.evaluate(&format!("location.hash = '#/{view}'"));
        browser.wait_for_text("h1", if view == "devices" { "Devices" } else { "Processes" });
        browser.trace();
        let busy_before = browser.busy_seconds();
        let begin = if view == "devices" { 1 } else { 1 + UPDATES };
        for round in begin + 1..=begin + UPDATES {
            grow(round);
            let held = if view == "devices" {
                format!("document.querySelector('.memory').textContent.includes('{}.0 MiB')", round * 16)
            } else {
                let bytes = 2 * round;
                let text = if bytes < 10 { format!("{bytes}.00 MiB") } else { format!("{bytes}.0 MiB") };
                format!("document.querySelector('tbody').textContent.includes({text:?})")
            };
            browser.wait(&held);
        }
        let busy = (browser.busy_seconds() - busy_before) / UPDATES as f64;
        let longest = browser.longest_task_seconds();
        println!(
            "{view}: there after {first_ms} ms; an update takes {:.1} ms of the processor, its longest task {:.1} ms",
            busy * 1e3,
            longest * 1e3
        );
        assert!(busy < BUSY_SECONDS_MAX && longest < TASK_SECONDS_MAX, "{view}: {busy} s, {longest} s");
    }
    assert_eq!(browser.evaluate("document.querySelector('table').getAttribute('aria-rowcount')"), "501");
    browser.check_report();
}

#[test]
fn a_million_buffers_are_gone_through() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Connection::open(&daemon, 144);
    let ids: Vec<u64> = (1..=BUFFERS).collect();
    for ids in ids.chunks(10_000) {
        client.send(&ids.iter().map(|id| Frame::alloc(0, 4096, *id)).collect::<Vec<_>>());
    }
    client.query(0);
    let mut browser = Browser::at(&daemon, "nothing");
    browser.trace();
    browser.evaluate(&format!("location.hash = '#/processes/{}'", std::process::id()));
    let (mut last, mut pages) = (PAGE_ROWS[0], 1);
    let status = ".pager [role=status]";
    browser.wait_for_text(status, "1 to 500 of about 1,000,000");
    while last < BUFFERS {
        browser.wait("!document.querySelector('section[aria-label=\"Single buffers\"] .pager button:nth-of-type(2)').disabled");
        browser.click("section[aria-label='Single buffers'] .pager button:nth-of-type(2)");
        let first = last + 1;
        last = (last + PAGE_ROWS[1]).min(BUFFERS);
        pages += 1;
        browser.wait_for_text(status, &format!("{} to {}", grouped(first), grouped(last)));
        // Of ten thousand rows only those in sight are in the document.
        let rows =
            browser.evaluate("document.querySelectorAll('.frame[aria-label=Buffers] tbody tr').length");
        assert!(rows.as_u64().unwrap() < 100, "{rows}");
    }
    browser.evaluate("document.querySelector('.frame[aria-label=Buffers]').focus()");
    browser.press("End");
    browser.wait(&format!(
        "document.querySelector('.frame[aria-label=Buffers] tr[aria-rowindex=\"{}\"]') !== null",
        BUFFERS + 1
    ));
    let longest = browser.longest_task_seconds();
    println!("{pages} pages; the longest task takes {:.1} ms of the processor", longest * 1e3);
    assert!(longest < TASK_SECONDS_MAX, "{longest} s");
    browser.check_report();
}

fn grouped(number: u64) -> String {
    match (number / 1_000_000, number / 1_000 % 1_000, number % 1_000) {
        (0, 0, ones) => ones.to_string(),
        (0, thousands, ones) => format!("{thousands},{ones:03}"),
        (millions, thousands, ones) => format!("{millions},{thousands:03},{ones:03}"),
    }
}
