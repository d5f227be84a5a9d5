//! The HTTP side, as a scraper, a probe, a script and a careless client see it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use support::frames::{ALLOCATION_FAILED, CB_ALLOC, Connection, Frame, KERNEL_LOAD};
use support::{Daemon, Directory, Metrics, PATIENCE, Peer, Response, exposition, request, wait_for};

/// Every metric that the socket alone gives reason for, with its type and its labels; what is known about the daemon's own process
/// comes on top.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    ("ttmem_build_info", "gauge", &["revision", "version"]),
    ("ttmem_device_info", "gauge", &["arch", "asic_id", "board", "capacity_source", "device", "pci_bus_id"]),
    ("ttmem_device_memory_limit_bytes", "gauge", &["device", "memory_type"]),
    ("ttmem_device_memory_usage_bytes", "gauge", &["device", "memory_type"]),
    ("ttmem_device_memory_peak_bytes", "gauge", &["device", "memory_type"]),
    ("ttmem_device_memory_largest_free_block_bytes", "gauge", &["device", "memory_type"]),
    ("ttmem_device_allocation_failures_total", "counter", &["device", "memory_type", "reason"]),
    ("ttmem_device_buffers", "gauge", &["device", "memory_type"]),
    ("ttmem_device_allocated_bytes_total", "counter", &["device", "memory_type"]),
    ("ttmem_device_freed_bytes_total", "counter", &["device", "memory_type"]),
    ("ttmem_device_allocations_total", "counter", &["device", "memory_type"]),
    ("ttmem_device_frees_total", "counter", &["device", "memory_type"]),
    ("ttmem_buffer_size_bytes", "histogram", &["device", "memory_type"]),
    ("ttmem_buffer_lifetime_seconds", "histogram", &["device", "memory_type"]),
    ("ttmem_device_oldest_buffer_timestamp_seconds", "gauge", &["device", "memory_type"]),
    ("ttmem_device_processes", "gauge", &["device"]),
    ("ttmem_device_orphaned_bytes_total", "counter", &["device", "memory_type"]),
    ("ttmem_device_orphaned_buffers_total", "counter", &["device", "memory_type"]),
    ("ttmem_process_memory_usage_bytes", "gauge", &["device", "memory_type", "pid", "process"]),
    ("ttmem_process_memory_peak_bytes", "gauge", &["device", "memory_type", "pid", "process"]),
    ("ttmem_process_buffers", "gauge", &["device", "memory_type", "pid", "process"]),
    ("ttmem_process_allocated_bytes_total", "counter", &["device", "memory_type", "pid", "process"]),
    (
        "ttmem_process_info",
        "gauge",
        &[
            "container_id",
            "k8s_container_name",
            "k8s_namespace_name",
            "k8s_pod_name",
            "k8s_pod_uid",
            "pid",
            "process",
            "slurm_job_id",
            "slurm_step_id",
            "source",
            "user",
        ],
    ),
    ("ttmem_process_start_time_seconds", "gauge", &["pid", "process"]),
    ("ttmem_ring_memory_bytes", "gauge", &[]),
    ("ttmem_ring_refusals_total", "counter", &["reason"]),
    ("ttmem_sandbox_active", "gauge", &["layer"]),
    ("ttmem_process_suppressed", "gauge", &["device"]),
    ("ttmem_process_suppressed_memory_usage_bytes", "gauge", &["device", "memory_type"]),
    ("ttmem_events_total", "counter", &["kind"]),
    ("ttmem_events_rejected_total", "counter", &["reason"]),
    ("ttmem_events_lost_total", "counter", &["reason"]),
    ("ttmem_client_connections", "gauge", &["layout", "transport"]),
    ("ttmem_client_throttled_seconds_total", "counter", &["limit"]),
    ("ttmem_detail_degraded", "gauge", &["detail"]),
    ("ttmem_series", "gauge", &["scope"]),
    ("ttmem_scrape_duration_seconds", "gauge", &[]),
    ("ttmem_config_last_reload_successful", "gauge", &[]),
    ("ttmem_config_last_reload_success_timestamp_seconds", "gauge", &[]),
];

/// A connection that stays open for several requests.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next answer; one to HEAD has no body, whatever its length says.
    fn answer(&mut self, is_to_head: bool) -> Response {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
        }
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: String::new() };
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; if is_to_head { 0 } else { length }];
        self.0.read_exact(&mut body).unwrap();
        response.body = String::from_utf8(body).unwrap();
        response
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: ttmem\r\n\r\n")
}

/// An error is told in the one form, with the status and a detail that says what is wrong.
#[track_caller]
fn check_problem(response: &Response, status: u16, title: &str, detail: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!((&problem["status"], &problem["title"]), (&json!(status), &json!(title)), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}: {detail}");
}

#[test]
fn probes_are_answered() {
    let daemon = Daemon::start(&[]);
    for path in ["/-/healthy", "/-/ready"] {
        let response = daemon.get(path);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
        assert!(
            response.body.starts_with("ttmem is ") && response.body.ends_with(".\n"),
            "{}",
            response.body
        );
    }
}

#[test]
fn the_page_leads_to_everything() {
    let directory = Directory::new();
    // With a past, which is not kept otherwise.
    let daemon = Daemon::start(&["--state-dir", directory.join("state").to_str().unwrap()]);
    let page = daemon.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let links: BTreeSet<&str> =
        page.body.split("href=\"").skip(1).map(|link| link.split('"').next().unwrap()).collect();
    for path in
        ["/metrics", "/api/v1/devices", "/api/v1/processes", "/api/v1/buffers", "/-/healthy", "/-/ready"]
    {
        assert!(links.contains(path), "{path}: {links:?}");
    }
    // The past is there once its database has been opened.
    wait_for("the past", || (daemon.get("/api/v1/events").status == 200).then_some(()));
    for path in links.into_iter().filter(|link| link.starts_with('/')) {
        assert_eq!(daemon.get(path).status, 200, "{path}");
    }
}

#[test]
fn nothing_is_cached_or_guessed() {
    let daemon = Daemon::start(&[]);
    for (path, media_type) in [
        ("/metrics", "text/plain; version=0.0.4;"),
        ("/api/v1/devices", "application/json"),
        ("/api/v1/processes", "application/json"),
        ("/api/v1/buffers", "application/json"),
    ] {
        let response = daemon.get(path);
        assert!(
            response.header("content-type").unwrap().starts_with(media_type),
            "{path}: {}",
            response.head
        );
        assert_eq!(response.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[test]
fn head_has_the_head_and_no_body() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    for path in ["/", "/metrics", "/api/v1/devices", "/api/v1/buffers", "/-/healthy", "/nowhere"] {
        let ask = |method: &str| {
            request(
                daemon.http(),
                &format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            )
        };
        let (head, full) = (ask("HEAD"), ask("GET"));
        assert_eq!(head.body, "", "{path}");
        assert_eq!((head.status, head.header("content-type")), (full.status, full.header("content-type")));
        let length: usize = head.header("content-length").unwrap().parse().unwrap();
        assert!(length > 0, "{path}: as long as it would be");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let daemon = Daemon::start(&[]);
    for path in ["/nowhere", "/metrics/", "/api/v1", "/api/v2/devices", "/-/", "//metrics"] {
        check_problem(&daemon.get(path), 404, "Not Found", path);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["/metrics", "/api/v1/devices", "/-/ready"] {
            let text = format!(
                "{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let response = request(daemon.http(), &text);
            check_problem(&response, 405, "Method Not Allowed", method);
            assert_eq!(response.header("allow"), Some("GET, HEAD"));
        }
    }
    let check = |path: &str, parameter: &str| {
        let response = daemon.get(path);
        check_problem(&response, 400, "Bad Request", parameter);
    };
    check("/api/v1/buffers?device=x", "device");
    check("/api/v1/buffers?device=-1", "device");
    check("/api/v1/buffers?device=1024", "device");
    check("/api/v1/buffers?device=", "device");
    check("/api/v1/buffers?pid=x", "pid");
    check("/api/v1/buffers?memory_type=hbm", "memory_type");
    check("/api/v1/buffers?memory_type=DRAM", "memory_type");
    check("/api/v1/buffers?min_age_seconds=-1", "min_age_seconds");
    check("/api/v1/buffers?min_age_seconds=nan", "min_age_seconds");
    check("/api/v1/buffers?min_age_seconds=inf", "min_age_seconds");
    check("/api/v1/buffers?limit=0", "limit");
    check("/api/v1/buffers?limit=10001", "limit");
    check("/api/v1/buffers?limit=99999999999999999999", "limit");
    check("/api/v1/buffers?cursor=next", "cursor");
    check("/api/v1/buffers?cursor=1-100000000", "cursor");
    check("/api/v1/buffers?devise=1", "devise");
    check("/api/v1/buffers?device=0&limit=x", "limit");
    check("/api/v1/processes?memory_type=dram", "memory_type");
    check("/api/v1/processes?pid=99999999999", "pid");
    check("/api/v1/devices?device=0", "device");
    check("/-/healthy?verbose=1", "verbose");
    check("/api/v1/buffers?%22%0a=1", "\\\"\\n");
}

#[test]
fn a_head_that_is_too_large_or_no_http_is_refused() {
    let daemon = Daemon::start(&[]);
    let refused = |text: &str, statuses: &[u16]| {
        let mut stream = TcpStream::connect(daemon.http()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be refused, and the connection reset, before all of it has been sent; the answer comes before the reset.
        let _ = stream.write_all(text.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status: u16 = answer.split_whitespace().nth(1).map_or(0, |status| status.parse().unwrap());
        let what = &text[..text.len().min(60)];
        assert!(statuses.contains(&status), "{what:?}: {answer:?}");
    };
    let padding = "x".repeat(1 << 20);
    refused(&format!("GET /metrics HTTP/1.1\r\nHost: a\r\nX-Padding: {padding}\r\n\r\n"), &[431]);
    refused(&format!("GET /{padding} HTTP/1.1\r\nHost: a\r\n\r\n"), &[414, 431]);
    let many: String = (0..2000).map(|number| format!("X-{number}: 1\r\n")).collect();
    refused(&format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{many}\r\n"), &[431]);
    refused("hello\r\n\r\n", &[400]);
    refused("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", &[400]);
    refused("GET /metrics HTTP/9.9\r\n\r\n", &[400, 505]);
    assert_eq!(daemon.get("/-/healthy").status, 200, "and the next is served");
}

#[test]
fn one_connection_serves_many_requests() {
    let daemon = Daemon::start(&["--device", "3=n150"]);
    let mut client = Client::connect(daemon.http());
    for _ in 0..3 {
        client.send(&get("/-/healthy"));
        assert_eq!(client.answer(false).body, "ttmem is healthy.\n");
    }
    // All at once, an error and a HEAD among them: answered in their order.
    client.send(&[get("/metrics"), get("/nowhere"), get("/-/ready")].concat());
    client.send("HEAD /metrics HTTP/1.1\r\nHost: ttmem\r\n\r\n");
    client.send(&get("/api/v1/devices"));
    let metrics = client.answer(false);
    assert_eq!(metrics.status, 200);
    exposition::read(&metrics.body).unwrap();
    assert_eq!(client.answer(false).status, 404);
    assert_eq!(client.answer(false).body, "ttmem is ready.\n");
    assert_eq!(client.answer(true).status, 200);
    let devices: Value = serde_json::from_str(&client.answer(false).body).unwrap();
    assert_eq!(devices["devices"][0]["device"], 3);
}

#[test]
fn large_heads_are_refused_and_bodies_are_not_unpacked() {
    let daemon = Daemon::start(&[]);
    // As many as arrive in one piece: what is cut off in the middle may be answered by a reset.
    let head = format!("GET /-/ready HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(request(daemon.http(), &head).status, 431);
    // Were it unpacked, it would be said to be no gzip.
    let packed = "POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Encoding: gzip\r\n\
                  Content-Length: 4\r\n\r\nbomb";
    assert_eq!(request(daemon.http(), packed).status, 405);
    assert_eq!(daemon.get("/-/ready").status, 200);
}

#[test]
fn a_client_that_does_not_finish_its_head_delays_nobody() {
    const SLOW: usize = 40;
    const DEAF: usize = 10;
    let daemon = Daemon::start(&[]);
    let mut slow: Vec<Client> = (0..SLOW).map(|_| Client::connect(daemon.http())).collect();
    for client in &mut slow {
        client.send("GET /-/healthy HTTP/1.1\r\nHost: tt");
    }
    // And some that do not read what they asked for.
    let mut deaf: Vec<Client> = (0..DEAF).map(|_| Client::connect(daemon.http())).collect();
    for client in &mut deaf {
        client.send(&get("/metrics").repeat(20));
    }
    for _ in 0..20 {
        assert_eq!(daemon.get("/-/healthy").status, 200);
        assert_eq!(daemon.get("/metrics").status, 200);
    }
    assert_eq!(Connection::open(&daemon, 72).query(0).dram(), 0, "nor any report");
}

#[test]
fn every_address_serves() {
    let daemon = Daemon::start(&["--listen", "127.0.0.2:0"]);
    let addresses: Vec<SocketAddr> = wait_for("two addresses", || {
        let lines = daemon.log().into_iter().filter(|line| line["message"] == "listening");
        let addresses: Vec<_> =
            lines.map(|line| line["address"].as_str().unwrap().parse().unwrap()).collect();
        (addresses.len() == 2).then_some(addresses)
    });
    for address in addresses {
        let text = "GET /-/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(request(address, text).status, 200, "{address}");
    }
}

#[test]
fn devices_and_processes_are_told_as_json() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut large = Peer::field_client(&daemon, "metal");
    let mut small = Peer::field_client(&daemon, "seed");
    large.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1,"count":2}"#);
    large.ask(r#"{"op":"free","id":2}"#);
    large.ask(r#"{"op":"allocate","device":0,"type":"system","size":1000000,"id":3}"#);
    large.ask(r#"{"op":"query","device":0}"#);
    small.ask(r#"{"op":"allocate","device":0,"type":"dram","size":100,"id":1}"#);
    small.ask(r#"{"op":"allocate","device":7,"type":"l1","size":50,"id":2}"#);
    small.ask(r#"{"op":"query","device":0}"#);

    let devices = daemon.json("/api/v1/devices");
    assert!(devices["timestamp_seconds"].as_f64().unwrap() > 1e9);
    let devices = devices["devices"].as_array().unwrap().clone();
    let known: Vec<&Value> = devices.iter().map(|device| &device["device"]).collect();
    assert_eq!(known, [0, 7]);
    let n150 = &devices[0];
    assert_eq!((&n150["arch"], &n150["board"]), (&json!("wormhole_b0"), &json!("n150")));
    assert_eq!(n150["capacity_source"], "product_table");
    assert_eq!(n150["processes"], 2);
    let dram =
        n150["memory"].as_array().unwrap().iter().find(|memory| memory["memory_type"] == "dram").unwrap();
    for (field, value) in [
        ("usage_bytes", 4196_u64),
        ("peak_bytes", 8192),
        ("limit_bytes", 12_871_236_864),
        ("buffers", 2),
        ("allocations_total", 3),
        ("frees_total", 1),
        ("allocated_bytes_total", 8292),
        ("freed_bytes_total", 4096),
        ("orphaned_buffers_total", 0),
    ] {
        assert_eq!(dram[field], value, "{field}: {dram}");
    }
    assert!(dram["oldest_buffer_timestamp_seconds"].as_f64().unwrap() > 1e9);
    let unknown = &devices[1];
    for absent in ["arch", "board", "asic_id", "pci_bus_id", "capacity_source"] {
        assert!(unknown.get(absent).is_none(), "{absent} is not known, so it is not told: {unknown}");
    }
    for memory in unknown["memory"].as_array().unwrap() {
        assert!(memory.get("limit_bytes").is_none(), "{memory}");
    }

    let pids = |path: &str| -> Vec<Value> {
        let processes = daemon.json(path);
        processes["processes"].as_array().unwrap().iter().map(|process| process["pid"].clone()).collect()
    };
    let (large_pid, small_pid) = (large.pid(), small.pid());
    assert_eq!(pids("/api/v1/processes"), [large_pid, small_pid], "most bytes first");
    assert_eq!(pids("/api/v1/processes?device=7"), [small_pid]);
    assert!(pids("/api/v1/processes?device=1").is_empty());
    assert_eq!(pids(&format!("/api/v1/processes?pid={large_pid}")), [large_pid]);
    assert!(pids("/api/v1/processes?pid=4294967295").is_empty());
    let processes = daemon.json(&format!("/api/v1/processes?pid={large_pid}"));
    let process = &processes["processes"][0];
    assert_eq!((&process["ended"], &process["source"]), (&json!(false), &json!("socket")));
    assert_eq!(process["device_usage_bytes"], 4096, "host memory is not the device's");
    assert_eq!(
        process["memory"],
        json!([
            {"device": 0, "memory_type": "dram", "usage_bytes": 4096, "peak_bytes": 8192, "buffers": 1,
             "allocated_bytes_total": 8192},
            {"device": 0, "memory_type": "system_memory", "usage_bytes": 1_000_000, "peak_bytes": 1_000_000,
             "buffers": 1, "allocated_bytes_total": 1_000_000},
        ])
    );
}

/// Pages through all buffers that a query asks for.
fn all_buffers(daemon: &Daemon, query: &str) -> (Vec<Value>, usize) {
    let (mut buffers, mut pages) = (Vec::new(), 0);
    let mut cursor = String::new();
    loop {
        let page = daemon.json(&format!("/api/v1/buffers?{query}{cursor}"));
        buffers.extend(page["buffers"].as_array().unwrap().clone());
        pages += 1;
        match page.get("next_cursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
            None => return (buffers, pages),
        }
    }
}

/// A daemon with 2,500 buffers: of two processes, on two devices, in two memory types.
fn daemon_with_buffers() -> (Daemon, Connection, Peer) {
    let daemon = Daemon::start(&[]);
    let mut own = Connection::open(&daemon, 144);
    let frames: Vec<Frame> = (0..1500)
        .map(|number| {
            let (device, buffer_type) = (number % 2, (number / 2 % 2) as u8);
            Frame { buffer_type, ..Frame::alloc(device, 16, 0xffff_0000_0000_0000 + number as u64) }
        })
        .collect();
    own.send(&frames);
    own.query(0);
    let mut other = Peer::field_client(&daemon, "seed");
    other.ask(r#"{"op":"allocate","device":0,"type":"dram","size":32,"id":1,"count":1000}"#);
    other.ask(r#"{"op":"query","device":0}"#);
    (daemon, own, other)
}

#[test]
fn buffers_are_listed_page_by_page() {
    let (daemon, _own, other) = daemon_with_buffers();
    let (own_pid, other_pid) = (std::process::id(), other.pid());
    for (query, pages) in [("limit=100", 25), ("limit=999", 3), ("limit=2500", 1), ("limit=10000", 1)] {
        let (buffers, found_pages) = all_buffers(&daemon, query);
        assert_eq!(buffers.len(), 2500, "{query}");
        let distinct: BTreeSet<(u64, u64, String)> = buffers
            .iter()
            .map(|buffer| {
                let id = buffer["buffer_id"].as_str().unwrap().to_owned();
                (buffer["pid"].as_u64().unwrap(), buffer["device"].as_u64().unwrap(), id)
            })
            .collect();
        assert_eq!(distinct.len(), 2500, "each once, {query}");
        assert!(found_pages == pages || found_pages == pages + 1, "{found_pages} pages, {query}");
    }
    let first = daemon.json("/api/v1/buffers");
    assert_eq!(first["buffers"].as_array().unwrap().len(), 100, "a page, unless asked for otherwise");
    let buffer = &first["buffers"][0];
    assert_eq!(buffer["buffer_id"], "0xffff000000000000", "no JSON number could hold it");
    for (field, value) in [
        ("pid", json!(own_pid)),
        ("device", json!(0)),
        ("memory_type", json!("dram")),
        ("size_bytes", json!(16)),
        ("references", json!(1)),
    ] {
        assert_eq!(buffer[field], value, "{field}: {buffer}");
    }
    assert!(buffer["age_seconds"].as_f64().unwrap() >= 0.0);
    assert!(buffer["allocated_timestamp_seconds"].as_f64().unwrap() > 1e9);

    let count = |query: &str| all_buffers(&daemon, &format!("{query}&limit=300")).0.len();
    assert_eq!(count(&format!("pid={own_pid}")), 1500);
    assert_eq!(count(&format!("pid={other_pid}")), 1000);
    assert_eq!(count("pid=4294967295"), 0);
    assert_eq!(count("device=0"), 1750);
    assert_eq!(count("device=1"), 750);
    assert_eq!(count("device=2"), 0);
    assert_eq!(count("memory_type=l1"), 750);
    assert_eq!(count("memory_type=trace"), 0);
    assert_eq!(count(&format!("device=1&memory_type=dram&pid={own_pid}")), 375);
    assert_eq!(count("min_age_seconds=0"), 2500);
    assert_eq!(count("min_age_seconds=86400"), 0);
    assert_eq!(count("min_age_seconds=1e300"), 0);
    assert_eq!(count("cursor=ffffffffffffffff-ffffffff"), 0, "behind everything");
}

#[test]
fn what_lives_through_a_listing_is_listed_once() {
    let (daemon, mut own, mut other) = daemon_with_buffers();
    let mut listed = Vec::new();
    let mut cursor = String::new();
    for round in 0.. {
        let page = daemon.json(&format!("/api/v1/buffers?limit=200{cursor}"));
        listed.extend(page["buffers"].as_array().unwrap().clone());
        let Some(next) = page.get("next_cursor") else { break };
        cursor = format!("&cursor={}", next.as_str().unwrap());
        // Meanwhile one in three goes and others come.
        let gone: Vec<Frame> = (0..50)
            .map(|number| 3 * (50 * round + number))
            .filter(|number| *number < 1500)
            .map(|number| Frame::free(number % 2, 0xffff_0000_0000_0000 + number as u64))
            .collect();
        let come: Vec<Frame> =
            (0..30).map(|number| Frame::alloc(4, 8, (30 * round + number) as u64)).collect();
        own.send(&gone);
        own.send(&come);
        own.query(0);
    }
    let survivors = listed.iter().filter(|buffer| {
        let id = u64::from_str_radix(&buffer["buffer_id"].as_str().unwrap()[2..], 16).unwrap();
        buffer["device"] != 4 && (id < 0xffff_0000_0000_0000 || id % 3 != 0)
    });
    let distinct: BTreeSet<String> =
        survivors.clone().map(|buffer| format!("{} {}", buffer["pid"], buffer["buffer_id"])).collect();
    // 0xffff_0000_0000_0000 is a multiple of three.
    assert_eq!((survivors.count(), distinct.len()), (2000, 2000));
    other.kill();
}

#[test]
fn the_exposition_has_every_metric_once_with_help_and_type() {
    let daemon = Daemon::start(&["--device", "0=n150", "--processes-max", "1"]);
    let mut small = Peer::field_client(&daemon, "metal");
    small.ask(r#"{"op":"allocate","device":1,"type":"dram","size":4096,"id":1}"#);
    small.ask(r#"{"op":"query","device":0}"#);
    let mut ended = Peer::field_client(&daemon, "metal");
    ended.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    ended.ask(r#"{"op":"query","device":0}"#);
    ended.kill();
    daemon.wait_for_metrics("its end", |metrics| metrics.events("process_end") == 1.0);
    let mut connection = Connection::open(&daemon, 144);
    let sizes = [1, 4096, 4097, 1 << 20, 1 << 30, 1 << 40];
    for (id, size) in sizes.into_iter().enumerate() {
        connection.send(&[Frame::alloc(1, size, id as u64)]);
    }
    connection.send(&[Frame::free(1, 0), Frame { kind: CB_ALLOC, ..Frame::alloc(1, 4096, 0) }]);
    connection.send(&[Frame { kind: KERNEL_LOAD, ..Frame::alloc(1, 4096, 0) }]);
    connection.send(&[Frame { kind: ALLOCATION_FAILED, ..Frame::alloc(1, 4096, 0) }]);
    connection.query(0);
    // The second scrape tells how long the first took.
    daemon.metrics();
    let text = daemon.metrics().text;
    let families = exposition::read(&text).unwrap();

    let promised: BTreeSet<&str> = FAMILIES.iter().map(|(name, ..)| *name).collect();
    let found: BTreeSet<&str> = families
        .iter()
        .map(|family| family.name.as_str())
        .filter(|name| !name.starts_with("process_"))
        .collect();
    assert_eq!(found, promised);
    for family in &families {
        assert!(!family.help.is_empty() && family.help.ends_with('.'), "{}: {}", family.name, family.help);
        assert_eq!(family.name.ends_with("_total"), family.kind == "counter", "{}", family.name);
        if let Some((name, kind, labels)) = FAMILIES.iter().find(|(name, ..)| *name == family.name) {
            assert_eq!((family.kind.as_str(), &family.label_names()[..]), (*kind, *labels), "{name}");
        }
    }
    let collected = families.iter().filter(|family| family.name.starts_with("process_")).count();
    assert!(collected >= 6, "the daemon's own process is there, too");

    let samples: usize = families.iter().map(|family| family.samples.len()).sum();
    let metrics = Metrics::parse(&text);
    assert_eq!(metrics.sum("ttmem_series", &[]), samples as f64, "the daemon counts its series");
    for family in families.iter().filter(|family| family.kind == "histogram") {
        check_histogram(family);
    }
}

/// Ten buckets at most, each with all of the one before, the last with all there is.
fn check_histogram(family: &exposition::Family) {
    let labels = |sample: &exposition::Sample| {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        labels
    };
    let part = |suffix: &str| {
        let name = format!("{}{suffix}", family.name);
        family.samples.iter().filter(move |sample| sample.name == name)
    };
    assert!(part("_count").count() > 0, "{}", family.name);
    for count in part("_count") {
        let buckets: Vec<&exposition::Sample> =
            part("_bucket").filter(|bucket| labels(bucket) == labels(count)).collect();
        let bounds: Vec<f64> = buckets
            .iter()
            .map(|bucket| bucket.labels["le"].replace("+Inf", "inf").parse().unwrap())
            .collect();
        assert!(bounds.is_sorted() && bounds.last() == Some(&f64::INFINITY), "{bounds:?}");
        assert!(buckets.len() <= 11, "{}: {} buckets", family.name, buckets.len());
        assert!(buckets.is_sorted_by_key(|bucket| bucket.value), "{}: {buckets:?}", family.name);
        assert_eq!(buckets.last().unwrap().value, count.value, "{}", family.name);
        assert_eq!(part("_sum").filter(|sum| labels(sum) == labels(count)).count(), 1);
    }
}

#[test]
fn every_scrape_adds_up_however_busy_the_clients_are() {
    let daemon = Daemon::start(&[]);
    let clients = ["seed", "python", "metal"].map(|client| Peer::field_client(&daemon, client));
    std::thread::scope(|scope| {
        let busy = clients.map(|mut client| {
            scope.spawn(move || {
                for _ in 0..5 {
                    client
                        .ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1,"count":5000}"#);
                    client.ask(r#"{"op":"free","id":1,"count":5000}"#);
                }
                client.ask(r#"{"op":"query","device":0}"#);
                client
            })
        });
        let mut peak = 0.0;
        while busy.iter().any(|client| !client.is_finished()) {
            let metrics = daemon.metrics();
            metrics.assert_adds_up();
            let dram = [("memory_type", "dram")];
            let value = |name| metrics.sum(name, &dram);
            let held = value("ttmem_device_allocated_bytes_total") - value("ttmem_device_freed_bytes_total");
            assert_eq!(held, value("ttmem_device_memory_usage_bytes"));
            let buffers = value("ttmem_device_allocations_total") - value("ttmem_device_frees_total");
            assert_eq!(buffers, value("ttmem_device_buffers"));
            assert!(value("ttmem_device_memory_peak_bytes") >= held);
            assert!(value("ttmem_device_memory_peak_bytes") >= peak, "a peak never falls");
            peak = value("ttmem_device_memory_peak_bytes");
        }
        // Kept until the end: what they hold would go with them.
        let _clients = busy.map(|client| client.join().unwrap());
        assert_eq!(daemon.metrics().usage(0, "dram"), Some(0.0));
    });
}

#[test]
fn a_large_scrape_comes_in_pieces_that_are_one_exposition() {
    const PROCESSES: i32 = 1000;
    let daemon = Daemon::start(&["--trust-claimed-pids"]);
    let mut connection = Connection::open(&daemon, 144);
    let held = |process_id| Frame { process_id, ..Frame::alloc(0, 4096, 1) };
    connection.send(&(10_000..10_000 + PROCESSES).map(held).collect::<Vec<_>>());
    assert_eq!(connection.query(0).dram(), 4096 * u64::from(PROCESSES.unsigned_abs()));
    let ask = |accept: &str| {
        let head = format!("Host: ttmem\r\nAccept: {accept}\r\nConnection: close");
        request(daemon.http(), &format!("GET /metrics HTTP/1.1\r\n{head}\r\n\r\n"))
    };
    for (accept, end) in [("text/plain", "\n"), ("application/openmetrics-text", "\n# EOF\n")] {
        let answer = ask(accept);
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{}", answer.head);
        assert_eq!(answer.header("content-length"), None);
        assert!(answer.body.len() > 300_000 && answer.body.ends_with(end));
        let samples = answer.body.lines().filter(|line| !line.starts_with('#')).count();
        let metrics = Metrics::parse(&answer.body);
        metrics.assert_adds_up();
        assert_eq!(metrics.sum("ttmem_series", &[]), samples as f64);
        assert_eq!(metrics.values("ttmem_process_info", &[]).len(), PROCESSES.unsigned_abs() as usize);
    }
    // Who gives up in the middle takes nothing with it.
    let mut hasty = TcpStream::connect(daemon.http()).unwrap();
    hasty.write_all(get("/metrics").as_bytes()).unwrap();
    hasty.read_exact(&mut [0; 1000]).unwrap();
    drop(hasty);
    assert_eq!(ask("text/plain").status, 200);
}

#[test]
fn a_peak_never_falls_though_processes_are_read_one_after_the_other() {
    const SIZE: u64 = 1 << 20;
    const OTHERS: i32 = 1000;
    let daemon = Daemon::start(&["--trust-claimed-pids", "--processes-max", "2"]);
    let mut connection = Connection::open(&daemon, 144);
    // Two processes, far apart, of which only one at a time holds a buffer.
    let (first, last) = (10_000, 10_001 + OTHERS);
    let hold = |process_id| Frame { process_id, ..Frame::alloc(0, SIZE, 1) };
    let release = |process_id| Frame { process_id, ..Frame::free(0, 1) };
    let other = |process_id| Frame { process_id, kind: CB_ALLOC, ..Frame::alloc(0, 1, 1) };
    let others: Vec<Frame> = (1..=OTHERS).map(|number| other(first + number)).collect();
    connection.send(&[&[hold(first)], &others[..], &[release(first), hold(last), release(last)]].concat());
    connection.query(0);
    let pause = others[0];
    let turns = [hold(first), pause, release(first), hold(last), pause, release(last)].repeat(50);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                connection.send(&turns);
                connection.query(0);
            }
        });
        let _ended = SetWhenDropped(&done);
        let dram = [("memory_type", "dram")];
        let peaks: Vec<(f64, f64)> = (0..300)
            .map(|_| {
                let metrics = daemon.metrics();
                let value = |name| metrics.value(name, &dram).unwrap();
                (value("ttmem_device_memory_usage_bytes"), value("ttmem_device_memory_peak_bytes"))
            })
            .collect();
        assert!(peaks.iter().all(|(usage, peak)| usage <= peak), "{peaks:?}");
        if let Some(fall) = peaks.windows(2).find(|scrapes| scrapes[0].1 > scrapes[1].1) {
            panic!("the most that was ever held became less; usage and peak of two scrapes: {fall:?}");
        }
    });
}

/// Tells another thread to end, even when this one fails.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
