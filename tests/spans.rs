//! Processes and their buffers as traces in a real collector: who is whose parent, what an end looks like, and what is left out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fmt::Write;
use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use support::frames::{ALLOCATION_FAILED, Connection, Frame, TRACE_CONTEXT};
use support::otlp::{Collector, Rotel};
use support::prometheus::Prometheus;
use support::trace::{Span, records, spans};
use support::{Daemon, Peer, wait_for};

const MIB: u64 = 1 << 20;
/// The year 2100, since the epoch.
const FAR_FUTURE_SECONDS: u64 = 4_102_444_800;

/// A daemon, the collector that it exports to, and what that one hands on.
struct Scene {
    daemon: Daemon,
    sink: Collector,
    _rotel: Rotel,
}

impl Scene {
    fn start(flags: &[&str]) -> Scene {
        let sink = Collector::start();
        let rotel = Rotel::start(&sink);
        let endpoint = format!("http://127.0.0.1:{}", rotel.grpc);
        let otlp = ["--otlp-protocol", "grpc", "--otlp-endpoint", &endpoint, "--otlp-batch-delay-ms", "50"];
        let daemon = Daemon::start(&[&otlp[..], &["--device", "0=n150"], flags].concat());
        Scene { daemon, sink, _rotel: rotel }
    }

    /// Waits until the collector has handed on spans that are as they should be.
    fn wait_for_spans(&mut self, what: &str, is_so: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        spans(&self.sink.wait_for(what, |received| is_so(&spans(received))))
    }

    /// Waits for a process's own span, and gives it and all that came with it.
    fn wait_for_root(&mut self, pid: u32) -> (Span, Vec<Span>) {
        let is_root =
            |span: &Span| span.name.starts_with("process ") && span.number("process.pid") == u64::from(pid);
        let all = self.wait_for_spans("a process's span", |spans| spans.iter().any(is_root));
        let root = all.iter().find(|span| is_root(span)).unwrap().clone();
        (root, all)
    }

    /// A process that reports as instrumented tt-metal does.
    fn client(&self) -> Peer {
        Peer::field_client(&self.daemon, "metal")
    }
}

/// Every buffer is told, however small and short-lived.
const EVERYTHING: &[&str] = &["--span-size-min-bytes", "0", "--span-lifetime-min-ms", "0"];

fn allocate(client: &mut Peer, size: u64, id: u64, count: u64) {
    let allocation =
        json!({"op": "allocate", "device": 0, "type": "dram", "size": size, "id": id, "count": count});
    client.ask(&allocation.to_string());
}

fn free(client: &mut Peer, id: u64, count: u64) {
    client.ask(&json!({"op": "free", "device": 0, "id": id, "count": count}).to_string());
}

/// Waits until all that the client has sent has been applied.
fn settle(client: &mut Peer) {
    client.ask(r#"{"op":"query","device":0}"#);
}

fn send(client: &mut Peer, frame: &Frame) {
    let mut hex = String::new();
    frame.bytes(144).iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
    client.ask(&json!({"op": "raw", "hex": hex}).to_string());
    settle(client);
}

/// A TRACE_CONTEXT with the ids of a traceparent, byte by byte.
fn trace_context(traceparent: &str) -> Frame {
    let parts: Vec<_> = traceparent.split('-').collect();
    let bytes = |text: &str| u64::from_le_bytes(u64::from_str_radix(text, 16).unwrap().to_be_bytes());
    Frame {
        kind: TRACE_CONTEXT,
        size: bytes(&parts[1][..16]),
        buffer_id: bytes(&parts[1][16..]),
        timestamp: bytes(parts[2]),
        buffer_type: u8::from_str_radix(parts[3], 16).unwrap(),
        ..Frame::default()
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// The first digits of a text's SHA-256, as anybody can compute them.
fn sha256(text: &str, digits: usize) -> String {
    let script = r#"printf %s "$1" | sha256sum"#;
    let output = Command::new("sh").args(["-c", script, "sh", text]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..digits].to_owned()
}

/// When a process started, in clock ticks since the host did.
fn start_ticks(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    after_name.split(' ').nth(19).unwrap().to_owned()
}

fn line_of(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[test]
fn a_process_is_a_trace_whose_ids_anybody_can_compute() {
    let mut scene = Scene::start(EVERYTHING);
    let mut client = scene.client();
    let pid = client.pid();
    allocate(&mut client, 3 * MIB, 0x1000, 1);
    settle(&mut client);
    let told = scene.daemon.json(&format!("/api/v1/processes?pid={pid}"))["processes"][0].clone();
    let ticks = start_ticks(pid);
    free(&mut client, 0x1000, 1);
    client.finish();

    let (root, all) = scene.wait_for_root(pid);
    assert_eq!((root.status.as_str(), root.parent_id.as_str()), ("OK", ""));
    assert_eq!(root.attributes["tenstorrent.devices"], r#"{"values":[{"intValue":"0"}]}"#);
    assert_eq!(root.attributes["tenstorrent.tracking.end"], "process_exit");
    assert_eq!(root.event("peak reached").attributes["tenstorrent.memory.peak"], (3 * MIB).to_string());
    let [buffer] = named(&all, "buffer dram")[..] else { panic!("{all:?}") };
    assert_eq!((&buffer.trace_id, &buffer.parent_id), (&root.trace_id, &root.span_id));
    assert_eq!(buffer.number("tenstorrent.buffer.size"), 3 * MIB);
    assert_eq!(buffer.attributes["tenstorrent.buffer.id"], "0x1000");
    assert_eq!(buffer.attributes["tenstorrent.buffer.end"], "freed");
    assert_eq!((buffer.attributes["hw.id"].as_str(), buffer.number("tenstorrent.device")), ("0", 0));
    assert!(root.start_ns <= buffer.start_ns && buffer.end_ns <= root.end_ns);

    // What the API said before anything was exported.
    assert_eq!((&told["trace_id"], &told["span_id"]), (&json!(root.trace_id), &json!(root.span_id)));
    // The same from public facts alone.
    let host = Some(line_of("/etc/machine-id")).filter(|id| !id.is_empty());
    let host = host.unwrap_or_else(|| line_of("/proc/sys/kernel/hostname"));
    let boot = line_of("/proc/sys/kernel/random/boot_id");
    let about = format!("ttmem/{host}/{boot}/{pid}/{ticks}");
    assert_eq!(sha256(&format!("{about}/trace"), 32), root.trace_id);
    let first_seen = &root.attributes["tenstorrent.start.boottime"];
    assert_eq!(sha256(&format!("{about}/process/{first_seen}"), 16), root.span_id);
    let allocated = &buffer.attributes["tenstorrent.start.boottime"];
    assert_eq!(sha256(&format!("{about}/buffer/0/4096/{allocated}"), 16), buffer.span_id);
}

#[test]
fn a_process_killed_with_memory_held_is_an_error_and_a_log_record() {
    let mut scene = Scene::start(&[]);
    let mut client = scene.client();
    let pid = client.pid();
    allocate(&mut client, 5000, 1, 3);
    settle(&mut client);
    client.kill();
    let (root, all) = scene.wait_for_root(pid);
    assert_eq!(root.status, "ERROR");
    assert_eq!(root.attributes["error.type"], "memory_held");
    assert_eq!(
        (root.number("tenstorrent.buffer.orphaned"), root.number("tenstorrent.memory.orphaned")),
        (3, 15_000)
    );
    let buffers = named(&all, "buffer dram");
    assert_eq!(buffers.len(), 3, "what leaks is told, however small");
    assert!(buffers.iter().all(|span| span.status == "ERROR"
        && span.attributes["tenstorrent.buffer.end"] == "process_exit"
        && span.parent_id == root.span_id));
    let received = scene.sink.wait_for("a log record", |received| !records(received).is_empty());
    let [record] = &records(&received)[..] else { panic!("{received:?}") };
    assert_eq!(
        (record.event_name.as_str(), record.severity.as_str()),
        ("tenstorrent.memory_orphaned", "WARN")
    );
    assert_eq!((&record.trace_id, &record.span_id), (&root.trace_id, &root.span_id));
    assert!(record.body.contains("3 buffers") && record.body.contains("15000 bytes"), "{}", record.body);
}

#[test]
fn a_failed_allocation_is_counted_logged_and_seen_in_the_trace() {
    let mut scene = Scene::start(&[]);
    let mut client = scene.client();
    let pid = client.pid();
    let failure = |requested: u64, largest: u64, free: u64| Frame {
        kind: ALLOCATION_FAILED,
        size: requested,
        buffer_id: largest,
        timestamp: free,
        ..Frame::default()
    };
    send(&mut client, &failure(900, 100, 899));
    send(&mut client, &failure(900, 200, 900));
    let metrics = scene.daemon.metrics();
    let place = [("device", "0"), ("memory_type", "dram")];
    let failures = |reason| {
        metrics.value("ttmem_device_allocation_failures_total", &[&place[..], &[("reason", reason)]].concat())
    };
    assert_eq!((failures("exhausted"), failures("fragmented")), (Some(1.0), Some(1.0)));
    assert_eq!(metrics.value("ttmem_device_memory_largest_free_block_bytes", &place), Some(200.0));
    assert_eq!((metrics.events("allocation_failed"), metrics.usage(0, "dram")), (2.0, Some(0.0)));
    client.finish();
    let (root, _) = scene.wait_for_root(pid);
    assert_eq!(
        (root.status.as_str(), root.attributes["error.type"].as_str()),
        ("ERROR", "allocation_failed")
    );
    let figures = &root.event("allocation failed").attributes;
    let expected = [
        ("tenstorrent.reason", "exhausted"),
        ("tenstorrent.memory.requested", "900"),
        ("tenstorrent.memory.free", "899"),
        ("tenstorrent.memory.largest_free_block", "100"),
    ];
    assert!(expected.iter().all(|(name, value)| figures[*name] == *value), "{figures:?}");
    let received = scene.sink.wait_for("two log records", |received| records(received).len() == 2);
    let told: Vec<_> =
        records(&received).iter().map(|record| record.attributes["tenstorrent.reason"].clone()).collect();
    assert_eq!(told, ["exhausted", "fragmented"]);
    assert!(
        records(&received)
            .iter()
            .all(|record| record.severity == "ERROR" && record.trace_id == root.trace_id)
    );
}

#[test]
fn a_process_with_a_traceparent_is_part_of_that_trace() {
    let (trace_id, parent_id) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut scene = Scene::start(EVERYTHING);
    let mut client = scene.client();
    let pid = client.pid();
    let context = trace_context(&format!("00-{trace_id}-{parent_id}-01"));
    send(&mut client, &context);
    send(&mut client, &context);
    send(&mut client, &trace_context(&format!("00-{}-{parent_id}-01", "1".repeat(32))));
    send(&mut client, &Frame { buffer_id: 0, size: 0, ..context });
    allocate(&mut client, MIB, 7, 1);
    settle(&mut client);
    assert_eq!(scene.daemon.metrics().rejected("trace_context"), 2.0, "another trace, and no trace at all");
    let told = scene.daemon.json(&format!("/api/v1/processes?pid={pid}"))["processes"][0].clone();
    assert_eq!(told["trace_id"], json!(trace_id));
    free(&mut client, 7, 1);
    client.finish();
    let (root, all) = scene.wait_for_root(pid);
    assert_eq!((root.trace_id.as_str(), root.parent_id.as_str()), (trace_id, parent_id));
    let [buffer] = named(&all, "buffer dram")[..] else { panic!("{all:?}") };
    assert_eq!((buffer.trace_id.as_str(), &buffer.parent_id), (trace_id, &root.span_id));
}

#[test]
fn a_loaded_model_is_two_spans() {
    let mut scene = Scene::start(&["--span-burst-gap-ms", "2000"]);
    let mut client = scene.client();
    let pid = client.pid();
    allocate(&mut client, 2 * MIB, 1000, 400);
    settle(&mut client);
    let all = scene.wait_for_spans("the burst", |spans| !named(spans, "burst of allocations").is_empty());
    let burst = named(&all, "burst of allocations")[0].clone();
    assert_eq!(burst.number("tenstorrent.buffer.count"), 400);
    assert_eq!(burst.number("tenstorrent.memory.allocated"), 800 * MIB);
    assert_eq!(burst.events[0].attributes["tenstorrent.memory.type"], "dram");
    client.kill();
    let (root, all) = scene.wait_for_root(pid);
    let [held] = named(&all, "buffers of a burst")[..] else { panic!("{all:?}") };
    assert_eq!((held.number("tenstorrent.buffer.orphaned"), held.status.as_str()), (400, "ERROR"));
    assert_eq!((&held.trace_id, &held.parent_id), (&root.trace_id, &root.span_id));
    assert_eq!((held.start_ns, held.end_ns), (burst.start_ns, root.end_ns));
    assert!(named(&all, "buffer dram").is_empty());
    let omitted = [("reason", "burst")];
    assert_eq!(scene.daemon.metrics().value("ttmem_spans_omitted_total", &omitted), Some(400.0));
}

#[test]
fn what_the_policy_leaves_out_is_counted_by_reason() {
    let mut scene = Scene::start(&[
        "--span-size-min-bytes",
        "1000",
        "--span-lifetime-min-ms",
        "0",
        "--spans-per-second-max",
        "5",
    ]);
    let mut client = scene.client();
    let pid = client.pid();
    // Released by another read than they were allocated by, so that they have lived.
    for (size, id) in [(999, 100), (1000, 200)] {
        allocate(&mut client, size, id, 20);
        settle(&mut client);
        free(&mut client, id, 20);
        settle(&mut client);
    }
    client.finish();
    let (_, all) = scene.wait_for_root(pid);
    let metrics = scene.daemon.metrics();
    let omitted = |reason| metrics.value("ttmem_spans_omitted_total", &[("reason", reason)]).unwrap();
    let told = named(&all, "buffer dram").len() as f64;
    assert_eq!(omitted("small"), 20.0);
    assert_eq!(told + omitted("rate"), 20.0);
    assert!((5.0..20.0).contains(&told), "a slow machine refills the bucket, but not for all of them");
    assert_eq!((omitted("short"), omitted("queue")), (0.0, 0.0));
    let exported = metrics.value("ttmem_otlp_exported_total", &[("signal", "traces")]).unwrap();
    assert_eq!(metrics.sum("ttmem_otlp_dropped_total", &[("signal", "traces")]), 0.0);
    assert!(exported >= told, "{exported} {told}");
}

#[test]
fn a_process_that_lives_is_told_of_before_it_ends_and_closed_when_the_daemon_stops() {
    let mut scene = Scene::start(&["--span-interval-seconds", "1"]);
    let mut client = scene.client();
    let pid = client.pid();
    allocate(&mut client, MIB, 7, 3);
    settle(&mut client);
    let all = scene.wait_for_spans("two intervals", |spans| named(spans, "interval").len() >= 2);
    let intervals = named(&all, "interval");
    let told = scene.daemon.json(&format!("/api/v1/processes?pid={pid}"))["processes"][0].clone();
    for interval in &intervals {
        assert_eq!(
            (&json!(interval.trace_id), &json!(interval.parent_id)),
            (&told["trace_id"], &told["span_id"])
        );
        assert_eq!(interval.number("tenstorrent.memory.usage"), 3 * MIB);
    }
    assert_eq!(intervals[0].number("tenstorrent.memory.allocations"), 3);
    assert_eq!(intervals[1].number("tenstorrent.memory.allocations"), 0);
    assert_eq!(intervals[1].start_ns, intervals[0].end_ns);
    assert!(!all.iter().any(|span| span.name.starts_with("process ")), "it lives");
    scene.daemon.signal(Signal::TERM);
    scene.daemon.wait();
    let (root, _) = scene.wait_for_root(pid);
    assert_eq!(root.attributes["tenstorrent.tracking.end"], "daemon_stopped");
    assert_eq!((json!(root.span_id), root.status.as_str()), (told["span_id"].clone(), "OK"));
    drop(client);
}

#[test]
fn a_rejected_peer_is_a_log_record() {
    let mut scene = Scene::start(&[]);
    let mut connection = Connection::open(&scene.daemon, 72);
    connection.send(&[Frame::alloc(2000, 1, 1)]);
    connection.query(0);
    let received = scene.sink.wait_for("a log record", |received| !records(received).is_empty());
    let [record] = &records(&received)[..] else { panic!("{received:?}") };
    assert_eq!((record.event_name.as_str(), record.severity.as_str()), ("tenstorrent.peer_rejected", "WARN"));
    assert_eq!(record.attributes["tenstorrent.reason"], "device_out_of_range");
    assert_eq!(record.attributes["process.pid"], std::process::id().to_string());
    assert_eq!(record.trace_id, "");
}

#[test]
fn prometheus_gives_back_exemplars_of_spans_that_the_collector_has() {
    let mut scene = Scene::start(EVERYTHING);
    let configuration = format!(
        "scrape_configs: [{{job_name: ttmem, scrape_interval: 1s, static_configs: [{{targets: ['{}']}}]}}]\n",
        scene.daemon.http()
    );
    let prometheus = |flags: &[&str]| Prometheus::start_with(&configuration, flags);
    let plain = prometheus(&["--enable-feature=exemplar-storage"]);
    let native = prometheus(&["--enable-feature=exemplar-storage,native-histograms"]);
    let mut client = scene.client();
    allocate(&mut client, 3 * MIB, 7, 1);
    settle(&mut client);
    assert!(!openmetrics(&scene.daemon).contains(" # {"), "nothing has been exported");
    free(&mut client, 7, 1);
    settle(&mut client);
    let all = scene.wait_for_spans("the buffer", |spans| !named(spans, "buffer dram").is_empty());
    let buffer = named(&all, "buffer dram")[0].clone();
    let marked =
        wait_for("exemplars", || Some(openmetrics(&scene.daemon)).filter(|text| text.contains(" # {")));
    let ids = format!("# {{trace_id=\"{}\",span_id=\"{}\"}} ", buffer.trace_id, buffer.span_id);
    let lines: Vec<_> = marked.lines().filter(|line| line.contains(&ids)).collect();
    let in_bucket = |family: &str| lines.iter().filter(|line| line.starts_with(family)).count();
    assert_eq!(in_bucket("ttmem_buffer_size_bytes_bucket"), 1, "{lines:?}");
    assert_eq!(in_bucket("ttmem_buffer_lifetime_seconds_bucket"), 1);
    assert_eq!(
        (in_bucket("ttmem_device_allocations_total"), in_bucket("ttmem_device_allocated_bytes_total")),
        (1, 1)
    );
    for (prometheus, sizes) in
        [(&plain, "ttmem_buffer_size_bytes_bucket"), (&native, "ttmem_buffer_size_bytes")]
    {
        for family in [sizes, "ttmem_device_allocations_total"] {
            let found = wait_for("Prometheus to have the exemplar", || {
                let path = format!("query_exemplars?query={family}&start=0&end={FAR_FUTURE_SECONDS}");
                let data = prometheus.api(&path);
                let series = data.as_array().unwrap().iter();
                series.flat_map(|series| series["exemplars"].as_array().unwrap().clone()).next()
            });
            assert_eq!(found["labels"]["span_id"], json!(buffer.span_id), "{family}");
            assert_eq!(found["labels"]["trace_id"], json!(buffer.trace_id));
            let value: f64 = found["value"].as_str().unwrap().parse().unwrap();
            assert_eq!(value, if family == sizes { 3.0 * MIB as f64 } else { 1.0 });
        }
    }
}

/// A scrape in the format that has exemplars.
fn openmetrics(daemon: &Daemon) -> String {
    let head =
        "GET /metrics HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\nAccept: application/openmetrics-text";
    support::request(daemon.http(), &format!("{head}\r\n\r\n")).body
}

#[test]
fn every_buffer_that_ends_is_exported_or_counted_as_left_out() {
    const ROUNDS: u64 = 6;
    const BUFFERS: u64 = 500;
    let flags = [EVERYTHING, &["--spans-per-second-max", "1000000"]].concat();
    let mut scene = Scene::start(&flags);
    let mut connection = Connection::open(&scene.daemon, 144);
    for _ in 0..ROUNDS {
        let allocations: Vec<_> = (1..=BUFFERS).map(|id| Frame::alloc(0, 4096, id)).collect();
        connection.send(&allocations);
        connection.query(0);
        let frees: Vec<_> = (1..=BUFFERS).map(|id| Frame::free(0, id)).collect();
        connection.send(&frees);
        connection.query(0);
    }
    let metrics = scene.daemon.metrics();
    let omitted = metrics.sum("ttmem_spans_omitted_total", &[]);
    let told = (ROUNDS * BUFFERS) as usize - omitted as usize;
    let all = scene.wait_for_spans("all that was told", |spans| named(spans, "buffer dram").len() >= told);
    assert_eq!(named(&all, "buffer dram").len(), told);
    let metrics = scene.daemon.metrics();
    assert_eq!(metrics.sum("ttmem_spans_omitted_total", &[]), omitted, "nothing was left out later");
    assert_eq!(metrics.sum("ttmem_otlp_dropped_total", &[("signal", "traces")]), 0.0);
    assert_eq!(omitted, 0.0, "there is room for a few thousand");
}
