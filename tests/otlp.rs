//! The export over OTLP to real collectors: what they receive is what a scrape says, and what they never receive is counted.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::certificates::Certificates;
use support::frames::{Connection, Frame};
use support::otlp::{Collector, Point, Received, Rotel, free_port};
use support::victoria_metrics::VictoriaMetrics;
use support::{Daemon, Directory, Metrics, Peer, ttmem, wait_for};

/// So often that no test waits for a reading.
const INTERVAL: [&str; 2] = ["--otlp-metric-interval-ms", "100"];

/// A daemon that exports to an endpoint.
fn exporting(protocol: &str, endpoint: &str, more: &[&str]) -> Daemon {
    let flags = [&["--otlp-protocol", protocol, "--otlp-endpoint", endpoint], &INTERVAL[..], more].concat();
    Daemon::start(&[&flags[..], &["--device", "0=n150"]].concat())
}

/// A client that holds a hundred megabytes.
fn client(daemon: &Daemon) -> Peer {
    let mut client = Peer::field_client(daemon, "metal");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":1048576,"id":1,"count":100}"#);
    client
}

/// The signal's account, as /metrics tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Account {
    exported: f64,
    dropped: f64,
    queued: f64,
}

fn account(metrics: &Metrics) -> Account {
    let signal = [("signal", "metrics")];
    Account {
        exported: metrics.value("ttmem_otlp_exported_total", &signal).unwrap(),
        dropped: metrics.sum("ttmem_otlp_dropped_total", &signal),
        queued: metrics.value("ttmem_otlp_queue_items", &signal).unwrap(),
    }
}

fn dropped(metrics: &Metrics, reason: &str) -> f64 {
    metrics.value("ttmem_otlp_dropped_total", &[("signal", "metrics"), ("reason", reason)]).unwrap()
}

fn failures(metrics: &Metrics, reason: &str) -> f64 {
    metrics.value("ttmem_otlp_export_failures_total", &[("signal", "metrics"), ("reason", reason)]).unwrap()
}

/// The point that has all these attributes.
fn point(points: &[Point], attributes: &[(&str, &str)]) -> Point {
    let has = |point: &&Point| {
        attributes.iter().all(|(name, value)| point.attributes.get(*name).is_some_and(|known| known == value))
    };
    let found: Vec<&Point> = points.iter().filter(has).collect();
    assert_eq!(found.len(), 1, "{attributes:?} of {points:?}");
    found[0].clone()
}

const DRAM: (&str, &str) = ("tenstorrent.memory.type", "dram");

#[test]
fn a_collector_hands_on_what_it_gets_over_both_protocols() {
    let mut sink = Collector::start();
    let rotel = Rotel::start(&sink);
    for (protocol, port, more) in
        [("grpc", rotel.grpc, &[][..]), ("http/protobuf", rotel.http, &["--otlp-compression", "gzip"])]
    {
        let daemon = exporting(protocol, &format!("http://127.0.0.1:{port}"), more);
        let client = client(&daemon);
        let pid = client.pid().to_string();
        let of_client = [DRAM, ("process.pid", pid.as_str())];
        let holds = |received: &Received| {
            let points = received.latest("tenstorrent.process.memory.usage");
            points.iter().any(|point| {
                point.attributes.get("process.pid") == Some(&pid) && point.value == 104_857_600.0
            })
        };
        let received = sink.wait_for("the client's memory to arrive", holds);
        let usage =
            point(&received.latest("hw.gpu.memory.usage"), &[DRAM, ("hw.id", "0"), ("hw.type", "gpu")]);
        assert_eq!((usage.kind.as_str(), usage.is_monotonic, usage.is_delta), ("sum", false, false));
        assert_eq!(usage.value, 104_857_600.0);
        let limit = point(&received.latest("hw.gpu.memory.limit"), &[DRAM]).value;
        let share = point(&received.latest("hw.gpu.memory.utilization"), &[DRAM]);
        assert_eq!((share.kind.as_str(), share.value), ("gauge", usage.value / limit));
        let allocated = point(&received.latest("tenstorrent.process.memory.allocated"), &of_client);
        assert!(allocated.is_monotonic && allocated.start_ns > 0 && allocated.start_ns <= allocated.time_ns);
        let sizes = point(&received.latest("tenstorrent.buffer.size"), &[DRAM]);
        assert_eq!((sizes.kind.as_str(), sizes.value), ("exponentialHistogram", 100.0));
        assert_eq!(
            sizes.body["positive"],
            json!({"offset": 19, "bucketCounts": ["100"]}),
            "(2^19, 2^20] bytes"
        );
        let resource = received.resource();
        assert_eq!((resource["service.name"].as_str(), resource["os.type"].as_str()), ("ttmem", "linux"));
        for name in ["service.version", "service.instance.id", "host.name", "host.arch"] {
            assert!(resource.contains_key(name), "{name} is missing: {resource:?}");
        }
        let account = account(&daemon.metrics());
        assert!(account.exported > 0.0 && account.dropped == 0.0, "{account:?}");
    }
}

#[test]
fn victoria_metrics_answers_what_a_scrape_says() {
    let victoria_metrics = VictoriaMetrics::start();
    let mut program = ttmem();
    program.env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", victoria_metrics.otlp_url());
    let directory = Directory::new();
    let shm = directory.join("shm");
    std::fs::create_dir(&shm).unwrap();
    let daemon =
        Daemon::launch(program, directory, &shm, &[&INTERVAL[..], &["--device", "0-1=n300"]].concat());
    let mut first = client(&daemon);
    first.ask(r#"{"op":"free","id":1,"count":7}"#);
    let mut second = Peer::field_client(&daemon, "seed");
    second.ask(r#"{"op":"allocate","device":1,"type":"l1","size":4096,"id":1,"count":9}"#);
    let scrape = daemon.wait_for_metrics("both to hold memory", |metrics| {
        metrics.usage(0, "dram") == Some(97_517_568.0) && metrics.usage(1, "l1") == Some(36_864.0)
    });
    let has_arrived = || {
        let held = victoria_metrics.query(r#"sum({__name__="hw.gpu.memory.usage"})"#);
        held.first().is_some_and(|(_, value)| *value == 97_554_432.0).then_some(())
    };
    wait_for("what they hold to arrive", has_arrived);

    let names = [
        ("device", "hw.id"),
        ("memory_type", "tenstorrent.memory.type"),
        ("pid", "process.pid"),
        ("process", "process.executable.name"),
        ("kind", "tenstorrent.kind"),
    ];
    let mut compared = 0;
    for (prometheus, opentelemetry) in opentelemetry_names() {
        // The answers to this test's own questions change these.
        if prometheus.contains("_otlp_") || scrape.values(&prometheus, &[]).is_empty() {
            continue;
        }
        let stored = victoria_metrics.query(&format!(r#"{{__name__="{opentelemetry}"}}"#));
        assert_eq!(
            stored.len(),
            scrape.values(&prometheus, &[]).len(),
            "{prometheus} {opentelemetry}: {stored:?}"
        );
        for (labels, value) in stored {
            let wanted = names.iter().filter_map(|(label, name)| Some((*label, labels.get(*name)?.as_str())));
            let wanted: Vec<(&str, &str)> = wanted.collect();
            // It keeps about sixteen digits.
            let is_stored = |known: &f64| (value - known).abs() <= known.abs() * 1e-15;
            let known = scrape.values(&prometheus, &wanted);
            assert!(known.iter().any(is_stored), "{prometheus} {wanted:?}: {value} is not {known:?}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} series were compared");
    let total = victoria_metrics.query(r#"sum({__name__="tenstorrent.memory.allocated","hw.id"="0"})"#);
    assert_eq!(total[0].1, scrape.sum("ttmem_device_allocated_bytes_total", &[("device", "0")]));
    let count = victoria_metrics.query(r#"{__name__="tenstorrent.buffer.size_count","hw.id"="1"}"#);
    assert_eq!(count[0].1, 9.0);
    assert_eq!(count[0].0["service.name"], "ttmem");
}

/// Gauges and counters by both their names, as METRICS.md has them.
fn opentelemetry_names() -> Vec<(String, String)> {
    let reference = include_str!("../METRICS.md");
    let rows =
        reference.lines().filter(|line| line.starts_with("| `ttmem_") && !line.contains("| histogram |"));
    let pairs = rows.filter_map(|row| {
        let cells: Vec<&str> =
            row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
        let name = cells[cells.len() - 1].trim_end_matches([' ', '|', '`']);
        (!name.is_empty()).then(|| (cells[0].to_owned(), name.to_owned()))
    });
    let pairs: Vec<_> = pairs.collect();
    assert!(pairs.len() > 20, "METRICS.md is read wrongly: {pairs:?}");
    pairs
}

#[test]
fn what_a_collector_misses_while_it_is_away_is_what_the_counters_say() {
    for protocol in ["grpc", "http/protobuf"] {
        let directory = Directory::new();
        let record = directory.join("record");
        let (http, grpc) = (free_port(), free_port());
        let mut collector = Collector::restart(http, grpc, &record);
        let endpoint = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        // A few readings fit into the queue.
        let daemon =
            exporting(protocol, &endpoint, &["--otlp-queue-items", "1000", "--otlp-timeout-ms", "5000"]);
        let mut client = client(&daemon);
        client.ask(r#"{"op":"free","id":1,"count":50}"#);
        collector.wait_for("some readings and spans", |received| {
            received.points("hw.gpu.memory.usage").len() > 3 && received.spans_count() > 0
        });
        // It takes nothing more, so that nothing is both accepted and unanswered when it ends.
        collector.answer(json!({"hang": true, "times": 100}));
        wait_for("a request to hang", || {
            (collector.attempts().len() > collector.received().0.len()).then_some(())
        });
        collector.kill();
        let away =
            daemon.wait_for_metrics("the queue to overflow", |metrics| dropped(metrics, "queue_full") > 0.0);
        assert!(account(&away).queued <= 1000.0);
        daemon.wait_for_log("OTLP: cannot export; it is tried again");

        let mut collector = Collector::restart(http, grpc, &record);
        let before = collector.received().0.len();
        collector.wait_for("readings to go on", |received| received.0.len() > before + 3);
        daemon.wait_for_log("OTLP: exporting again");
        // Whatever is still on its way at its end is sent or counted before it ends.
        let account = stop(daemon);
        let received = collector.received();
        let accepted = [("metrics", received.points_count()), ("traces", received.spans_count())];
        for (signal, items) in accepted {
            assert_eq!(
                account(signal),
                (items as f64, 0.0),
                "{protocol}: accepted is exported, no more and no less"
            );
        }
        assert!(received.spans_count() > 0, "the client's buffers came and went");
    }
}

/// Ends a daemon, and gives what its log says of a signal's exported items and of those that were lost to its end.
fn stop(daemon: Daemon) -> impl Fn(&str) -> (f64, f64) {
    let mut daemon = daemon;
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let log = daemon.log();
    move |signal| {
        let is_its =
            |line: &&Value| line["message"] == "OTLP: the export has ended" && line["signal"] == signal;
        let line = log.iter().find(is_its).unwrap_or_else(|| panic!("{signal}: {log:?}"));
        (line["exported"].as_f64().unwrap(), line["lost"].as_f64().unwrap())
    }
}

#[test]
fn a_collector_that_never_answers_times_out_and_holds_up_nothing() {
    for protocol in ["grpc", "http/protobuf"] {
        let mut collector = Collector::start();
        collector.answer(json!({"hang": true, "times": 1000}));
        let endpoint = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        let flags = ["--otlp-timeout-ms", "200", "--otlp-retry-ms", "1000", "--otlp-shutdown-ms", "300"];
        let daemon = exporting(protocol, &endpoint, &flags);
        let _client = client(&daemon);
        let metrics = daemon.wait_for_metrics("requests to time out and be given up", |metrics| {
            failures(metrics, "timeout") > 1.0 && dropped(metrics, "timeout") > 0.0
        });
        assert_eq!(metrics.usage(0, "dram"), Some(104_857_600.0));
        daemon.wait_for_log("OTLP: could not be exported for too long; dropped");
        let (exported, lost) = stop(daemon)("metrics");
        assert_eq!(exported, 0.0);
        assert!(lost > 0.0, "what was queued is told");
    }
}

#[test]
fn a_collector_that_asks_for_patience_gets_it() {
    let answers = [
        ("http/protobuf", json!({"status": 429, "headers": {"Retry-After": "1"}}), "throttled", 1.0),
        ("grpc", json!({"code": 14, "retry_delay_ms": 1200}), "throttled", 1.2),
        ("grpc", json!({"code": 8, "retry_delay_ms": 1100}), "throttled", 1.1),
        ("http/protobuf", json!({"status": 503}), "unavailable", 0.35),
        ("grpc", json!({"code": 14}), "unavailable", 0.35),
    ];
    for (protocol, answer, reason, seconds) in answers {
        let mut collector = Collector::start();
        collector.answer(answer.clone());
        let endpoint = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        let daemon = exporting(protocol, &endpoint, &[]);
        collector.wait_for("the second attempt", |received| !received.0.is_empty());
        let attempts = collector.attempts();
        assert!(attempts[1] - attempts[0] >= seconds, "{protocol} {answer}: {attempts:?}");
        let metrics = daemon.wait_for_metrics("the account", |metrics| account(metrics).exported > 0.0);
        assert_eq!(
            (failures(&metrics, reason), account(&metrics).dropped),
            (1.0, 0.0),
            "{protocol} {answer}"
        );
    }
}

#[test]
fn a_collector_that_asks_for_too_much_patience_is_given_up() {
    for (protocol, answer) in [
        ("http/protobuf", json!({"status": 503, "headers": {"Retry-After": u64::MAX.to_string()}})),
        ("grpc", json!({"code": 14, "retry_delay_ms": 300_000_000_000_000_i64})),
    ] {
        let mut collector = Collector::start();
        collector.answer(answer);
        let endpoint = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        let daemon = exporting(protocol, &endpoint, &[]);
        daemon.wait_for_metrics("the next request", |metrics| {
            dropped(metrics, "timeout") > 0.0 && account(metrics).exported > 0.0
        });
    }
}

#[test]
fn what_a_collector_refuses_is_dropped_at_once_and_counted() {
    for (protocol, answer) in [
        ("http/protobuf", json!({"status": 400})),
        ("grpc", json!({"code": 3})),
        ("grpc", json!({"code": 8})),
    ] {
        let mut collector = Collector::start();
        collector.answer(answer.clone());
        let endpoint = if protocol == "grpc" { collector.grpc_url() } else { collector.http_url() };
        let daemon = exporting(protocol, &endpoint, &[]);
        let metrics = daemon.wait_for_metrics("the account", |metrics| account(metrics).exported > 0.0);
        assert!(dropped(&metrics, "rejected") > 0.0, "{protocol} {answer}");
        assert_eq!(failures(&metrics, "rejected"), 1.0, "{protocol} {answer}");
        daemon.wait_for_log("OTLP: the collector refuses a request; its items are dropped");
        // Of a request that is accepted in part, the rest is exported.
        collector.answer(json!({"reject": 3}));
        let before = dropped(&metrics, "rejected");
        daemon.wait_for_metrics("three more", |metrics| dropped(metrics, "rejected") == before + 3.0);
        let line = daemon.wait_for_log("OTLP: the collector did not take everything");
        assert_eq!((line["items"].as_u64(), line["said"].as_str()), (Some(3), Some("not these")));
    }
}

#[test]
fn a_collector_behind_tls_sees_a_certificate_and_headers() {
    let directory = Directory::new();
    let certificates = Certificates::new(directory.path());
    certificates.signed("client", "DNS:ttmem");
    let mut collector = Collector::start_with(&["--tls", directory.path().to_str().unwrap()]);
    for (protocol, port) in [("grpc", collector.grpc), ("http/protobuf", collector.http)] {
        let endpoint = format!("https://localhost:{port}");
        let files = ["ca.crt", "client.crt", "client.key"].map(|name| certificates.path(name));
        let trust = ["--otlp-certificate", &files[0]];
        let identity = ["--otlp-client-certificate", &files[1], "--otlp-client-key", &files[2]];
        let headers = ["--otlp-headers", "authorization=Bearer%20secret,x-scope=a"];
        let daemon = exporting(
            protocol,
            &endpoint,
            &[&trust[..], &identity, &headers, &["--otlp-compression", "gzip"]].concat(),
        );
        let received = collector.wait_for("a request", |received| {
            received.0.last().is_some_and(|request| request["protocol"] == protocol)
        });
        let request = &received.0.last().unwrap()["headers"];
        assert_eq!(
            (request["authorization"].as_str(), request["x-scope"].as_str()),
            (Some("Bearer secret"), Some("a"))
        );
        if protocol != "grpc" {
            assert_eq!(request["content-encoding"], "gzip");
        }
        assert!(!std::fs::read_to_string(daemon.directory().join("log")).unwrap().contains("secret"));
        drop(daemon);

        // Without a certificate, and without trust, nothing gets through.
        for half in [&trust[..], &identity] {
            let daemon = exporting(protocol, &endpoint, half);
            daemon.wait_for_metrics("a failure", |metrics| failures(metrics, "connection") > 0.0);
            assert_eq!(account(&daemon.metrics()).exported, 0.0);
        }
    }
}

#[test]
fn differences_add_up_to_the_total() {
    let mut collector = Collector::start();
    let daemon = exporting("http/protobuf", &collector.http_url(), &["--otlp-temporality", "delta"]);
    let mut client = Peer::field_client(&daemon, "metal");
    for id in 1..=20 {
        client.ask(&format!(r#"{{"op":"allocate","device":0,"type":"dram","size":1000,"id":{id}}}"#));
    }
    let sum = |received: &Received, name: &str| -> f64 {
        let points = received.points(name).into_iter();
        points.filter(|point| point.attributes[DRAM.0] == "dram").map(|point| point.value).sum()
    };
    let received =
        collector.wait_for("all of it", |received| sum(received, "tenstorrent.memory.allocated") >= 20_000.0);
    let points: Vec<Point> = received.points("tenstorrent.memory.allocated");
    assert!(points.iter().all(|point| point.is_delta && point.is_monotonic));
    assert_eq!(sum(&received, "tenstorrent.memory.allocated"), 20_000.0);
    assert_eq!(sum(&received, "tenstorrent.buffer.size"), 20.0, "observations");
    let mut dram: Vec<&Point> = points.iter().filter(|point| point.attributes[DRAM.0] == "dram").collect();
    dram.sort_by_key(|point| point.time_ns);
    assert!(
        dram.windows(2).all(|pair| pair[0].time_ns == pair[1].start_ns),
        "each begins where the last one ended"
    );
}

#[test]
fn a_difference_that_finds_no_room_is_in_the_next_one() {
    let directory = Directory::new();
    let (http, grpc) = (free_port(), free_port());
    let endpoint = format!("http://127.0.0.1:{http}");
    let daemon =
        exporting("http/protobuf", &endpoint, &["--otlp-temporality", "delta", "--otlp-queue-items", "500"]);
    let mut client = Peer::field_client(&daemon, "metal");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":1000,"id":1,"count":10}"#);
    let full =
        daemon.wait_for_metrics("the queue to overflow", |metrics| dropped(metrics, "queue_full") > 0.0);
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":1000,"id":11,"count":10}"#);
    // What was allocated while there was no room is read, and refused, at least once.
    let before = dropped(&full, "queue_full");
    daemon.wait_for_metrics("more to overflow", |metrics| {
        metrics.usage(0, "dram") == Some(20_000.0) && dropped(metrics, "queue_full") > before + 500.0
    });
    let mut collector = Collector::restart(http, grpc, &directory.join("record"));
    let sum = |received: &Received| -> f64 {
        let points = received.points("tenstorrent.memory.allocated").into_iter();
        points.filter(|point| point.attributes[DRAM.0] == "dram").map(|point| point.value).sum()
    };
    collector.wait_for("all of it", |received| sum(received) == 20_000.0);
}

#[test]
fn thousands_of_processes_arrive_each_by_itself() {
    const PROCESSES: i32 = 3000;
    let mut collector = Collector::start();
    // The reading that counts is the one at the daemon's end.
    let flags = ["--processes-max", "5000", "--trust-claimed-pids", "--otlp-shutdown-ms", "30000"];
    let endpoint = collector.grpc_url();
    let rare =
        ["--otlp-metric-interval-ms", "86400000", "--otlp-protocol", "grpc", "--otlp-endpoint", &endpoint];
    let daemon = Daemon::start(&[&flags[..], &rare].concat());
    let mut connection = Connection::open(&daemon, 72);
    let frames =
        (0..PROCESSES).map(|number| Frame { process_id: 1_000_000 + number, ..Frame::alloc(0, 4096, 1) });
    connection.send(&frames.collect::<Vec<_>>());
    connection.query(0);
    let (exported, lost) = stop(daemon)("metrics");
    let usage = "tenstorrent.process.memory.usage";
    let received = collector.received();
    assert_eq!((received.points_count() as f64, lost), (exported, 0.0));
    let mut pids: Vec<String> =
        received.latest(usage).iter().map(|point| point.attributes["process.pid"].clone()).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), PROCESSES.cast_unsigned() as usize);
    assert!(!received.0.iter().any(|request| request.to_string().contains("otel.metric.overflow")));
}

#[test]
fn the_end_of_the_daemon_sends_what_is_left() {
    let mut collector = Collector::start();
    // No reading comes by itself after the first.
    let flags = ["--otlp-endpoint", &collector.http_url(), "--otlp-metric-interval-ms", "86400000"];
    let daemon = Daemon::start(&flags);
    collector.wait_for("the first reading", |received| received.0.len() == 1);
    let _client = client(&daemon);
    daemon.wait_for_metrics("the client", |metrics| metrics.usage(0, "dram") == Some(104_857_600.0));
    let (exported, lost) = stop(daemon)("metrics");
    let received = collector.received();
    assert_eq!(point(&received.latest("tenstorrent.memory.peak"), &[DRAM]).value, 104_857_600.0);
    assert_eq!((received.points_count() as f64, lost), (exported, 0.0));
}

#[test]
fn an_end_without_a_collector_is_bounded_and_told() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let daemon = exporting("http/protobuf", &endpoint, &["--otlp-shutdown-ms", "500"]);
    daemon.wait_for_metrics("failures", |metrics| failures(metrics, "connection") > 0.0);
    let begin = Instant::now();
    let (exported, lost) = stop(daemon)("metrics");
    assert!(begin.elapsed() < support::PATIENCE / 2);
    assert_eq!(exported, 0.0);
    assert!(lost > 0.0);
}

#[test]
fn without_an_endpoint_nothing_is_said_of_otlp() {
    let endpoint: &[&str] = &["--otlp-endpoint", "http://127.0.0.1:1"];
    for (name, value, flags) in
        [("OTEL_EXPORTER_OTLP_HEADERS", "a=b", &[][..]), ("OTEL_SDK_DISABLED", "true", endpoint)]
    {
        let mut program = ttmem();
        program.env(name, value);
        let directory = Directory::new();
        let shm = directory.join("shm");
        std::fs::create_dir(&shm).unwrap();
        let daemon = Daemon::launch(program, directory, &shm, flags);
        assert!(!daemon.metrics().text.contains("ttmem_otlp_"), "{name}");
    }
}

#[test]
fn a_malformed_setting_keeps_the_daemon_from_starting_and_says_why() {
    let directory = Directory::new();
    std::fs::write(directory.join("empty.pem"), "").unwrap();
    let empty = directory.join("empty.pem").to_str().unwrap().to_owned();
    let https = "https://localhost:1";
    let check = |variables: &[(&str, &str)], flags: &[&str], expected: &str| {
        let mut program = ttmem();
        program.envs(variables.iter().copied()).arg("serve").args(flags);
        let socket = directory.join("socket");
        let output = program.arg("--socket").arg(socket).args(["--listen", "127.0.0.1:0"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{variables:?} {flags:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
    };
    check(
        &[],
        &["--otlp-endpoint", "localhost:4317"],
        "--otlp-endpoint: \"localhost:4317\" is not an http or https URL",
    );
    check(&[], &["--otlp-protocol", "tcp"], "is not one of grpc, http/protobuf");
    check(&[("TTMEM_OTLP_HEADERS", "secret")], &[], "TTMEM_OTLP_HEADERS: entry 1 is not NAME=VALUE");
    check(
        &[("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")],
        &[],
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: \"soon\"",
    );
    check(&[("OTEL_METRICS_EXPORTER", "prometheus")], &[], "write otlp, or none");
    let missing = ["--otlp-endpoint", https, "--otlp-certificate", "/nowhere/ca.pem"];
    check(&[], &missing, "/nowhere/ca.pem: cannot be read");
    check(&[], &["--otlp-endpoint", https, "--otlp-certificate", &empty], "holds no certificate in PEM");
}

#[test]
fn check_config_shows_what_is_in_force_without_secrets() {
    let directory = Directory::new();
    std::fs::write(directory.join("ttmem.toml"), "otlp_headers = \"authorization=secret\"\n").unwrap();
    let variables = BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://b:4318/logs"),
    ]);
    let output =
        ttmem().envs(variables).arg("check-config").arg(directory.join("ttmem.toml")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("otlp_headers = \"authorization=(hidden)\"") && !said.contains("secret"), "{said}");
    assert!(
        said.contains("logs = \"http://b:4318/logs\"") && said.contains("traces = \"http://a:4318/\""),
        "{said}"
    );
}
