//! Every format of /metrics is taken by those who ask for it: real Prometheus in each of its protocols, the strict OpenMetrics parser.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::prometheus::Prometheus;
use support::{Daemon, Metrics, Peer, installed_peer, request, wait_for};

/// Prometheus' name of a protocol, the job that uses it, and what the daemon must answer it with.
const PROTOCOLS: [(&str, &str, &str); 4] = [
    ("PrometheusText0.0.4", "text004", "text/plain; version=0.0.4"),
    ("PrometheusText1.0.0", "text100", "text/plain; version=1.0.0"),
    ("OpenMetricsText1.0.0", "openmetrics", "application/openmetrics-text; version=1.0.0"),
    ("PrometheusProto", "protobuf", "application/vnd.google.protobuf"),
];

/// What Prometheus 3.5 and 2.42 say that they accept when left alone.
const ACCEPTED_BY_3_5: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
const ACCEPTED_BY_2_42: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Less than the daemon needs for any process: its counters alone take half of it.
const PROCESS_BYTES_MIN: f64 = 256.0;

/// A daemon with a process that has buffers of three sizes, one of them freed, and a name that has to be escaped.
fn busy_daemon() -> (Daemon, Peer) {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "metal");
    for (id, size) in [(1, 1000), (2, 5000), (3, 1_000_000)] {
        client.ask(&format!(r#"{{"op":"allocate","device":0,"type":"dram","size":{size},"id":{id}}}"#));
    }
    client.ask(r#"{"op":"free","id":1,"device":0}"#);
    client.ask(r#"{"op":"query","device":0}"#);
    (daemon, client)
}

fn scrape(daemon: &Daemon, headers: &str, query: &str) -> support::Response {
    let head = format!("GET /metrics{query} HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\n{headers}\r\n");
    request(daemon.http(), &head)
}

#[test]
fn prometheus_reads_every_protocol_and_native_histograms() {
    let (daemon, client) = busy_daemon();
    let jobs = PROTOCOLS.map(|(protocol, job, _)| {
        format!(
            "{{job_name: {job}, scrape_interval: 1s, scrape_protocols: [{protocol}], always_scrape_classic_histograms: true, \
             static_configs: [{{targets: ['{}']}}]}}",
            daemon.http()
        )
    });
    let configuration = format!("scrape_configs: [{}]\n", jobs.join(", "));
    let prometheus = Prometheus::start_with(&configuration, &["--enable-feature=native-histograms"]);
    for (_, job, _) in PROTOCOLS {
        let is_up = || prometheus.value(&format!(r#"up{{job="{job}"}}"#)).filter(|up| *up == 1.0);
        wait_for(&format!("{job} to be scraped"), is_up);
        let value = |promql: &str| {
            prometheus.value(&promql.replace("JOB", &format!(r#"job="{job}",device="0",memory_type="dram""#)))
        };
        assert_eq!(value("ttmem_device_memory_usage_bytes{JOB}"), Some(1_005_000.0), "{job}");
        let pid = client.pid();
        assert_eq!(
            value(&format!(r#"ttmem_process_memory_usage_bytes{{JOB,pid="{pid}"}}"#)),
            Some(1_005_000.0),
            "{job}"
        );
        assert_eq!(value("ttmem_device_allocations_total{JOB}"), Some(3.0), "{job}");
        assert_eq!(value("ttmem_buffer_size_bytes_count{JOB}"), Some(3.0), "{job}");
        assert_eq!(value(r#"ttmem_buffer_size_bytes_bucket{JOB,le=~"16384(\\.0)?"}"#), Some(2.0), "{job}");
    }
    // Only protobuf carries native histograms, and they are whole: sizes of 1000, 5000 and 1000000 bytes, one lifetime.
    let native = r#"{job="protobuf",device="0",memory_type="dram"}"#;
    let value =
        |promql: &str| prometheus.value(&promql.replace("IT", &format!("ttmem_buffer_size_bytes{native}")));
    assert_eq!((value("histogram_count(IT)"), value("histogram_sum(IT)")), (Some(3.0), Some(1_006_000.0)));
    assert_eq!(value("histogram_fraction(512, 1024, IT) * 3").map(f64::round), Some(1.0));
    assert_eq!(value("histogram_fraction(4096, 8192, IT) * 3").map(f64::round), Some(1.0));
    assert_eq!(value("histogram_fraction(524288, 1048576, IT) * 3").map(f64::round), Some(1.0));
    assert_eq!(
        prometheus.value(&format!("histogram_count(ttmem_buffer_lifetime_seconds{native})")),
        Some(1.0)
    );
    assert_eq!(prometheus.value(r#"histogram_count(ttmem_buffer_size_bytes{job="text004"})"#), None);
    assert!(prometheus.complaints().is_empty(), "{:?}", prometheus.complaints());
}

#[test]
fn the_strict_openmetrics_parser_accepts_it() {
    let (daemon, _client) = busy_daemon();
    let body = scrape(&daemon, "Accept: application/openmetrics-text; version=1.0.0\r\n", "").body;
    let parse = |body: &str| {
        const SCRIPT: &str = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; \
            families = list(parse(sys.stdin.read())); \
            print(len(families), sum(f.unit == 'bytes' for f in families), sum(s.name.endswith('_created') for f in families for s in f.samples))";
        let mut python = Command::new(installed_peer("openmetrics/bin/python"))
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (is_accepted, told, complaint) = parse(&body);
    assert!(is_accepted, "{complaint}");
    let numbers: Vec<usize> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let families = body.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(numbers[0], families);
    assert!(numbers[1] > 5 && numbers[2] > 20, "units and beginnings: {told}");
    // And it would have noticed.
    assert!(!parse(body.trim_end_matches("# EOF\n")).0, "the end is missing");
    assert!(!parse(&body.replace("_total{", "{")).0, "counters without _total");
}

#[test]
fn each_scraper_gets_the_format_that_it_prefers() {
    let (daemon, _client) = busy_daemon();
    let check = |accept: &str, expected: &str| {
        let response = scrape(&daemon, &format!("Accept: {accept}\r\n"), "");
        let told = response.header("content-type").unwrap_or_default();
        assert!(response.status == 200 && told.starts_with(expected), "{accept}: {told}");
        assert_eq!(response.header("vary"), Some("Accept, Accept-Encoding"));
    };
    check(ACCEPTED_BY_3_5, "application/openmetrics-text; version=1.0.0");
    check(ACCEPTED_BY_2_42, "application/openmetrics-text; version=1.0.0");
    check(
        "text/plain;version=0.0.4;q=0.2,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3",
        "text/plain; version=1.0.0",
    );
    check("text/html", "text/plain; version=0.0.4");
    for (_, _, content_type) in PROTOCOLS {
        let asked = content_type.strip_suffix("protobuf").map_or(content_type.to_owned(), |_| {
            format!("{content_type};proto=io.prometheus.client.MetricFamily;encoding=delimited")
        });
        if !content_type.contains("protobuf") {
            check(&asked, content_type);
        }
    }
}

#[test]
fn a_body_is_compressed_for_who_asks_for_it() {
    let (daemon, _client) = busy_daemon();
    let curl = |encoding: &str| {
        let url = format!("http://{}/metrics", daemon.http());
        let output = Command::new("curl")
            .args(["-sS", "-H", &format!("Accept-Encoding: {encoding}"), &url])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let plain = curl("identity");
    let gzip = curl("gzip;q=0.8, identity;q=0.1");
    assert_eq!(gzip[..2], [0x1f, 0x8b], "the mark of gzip");
    assert!(gzip.len() * 3 < plain.len(), "{} of {} bytes", gzip.len(), plain.len());
    let mut gunzip =
        Command::new("gzip").args(["-dc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gunzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&gzip).unwrap());
    let unpacked = String::from_utf8(gunzip.wait_with_output().unwrap().stdout).unwrap();
    writer.join().unwrap();
    assert_eq!(Metrics::parse(&unpacked).usage(0, "dram"), Some(1_005_000.0));
    assert_eq!(curl("zstd")[..4], [0x28, 0xb5, 0x2f, 0xfd], "the mark of zstd");
}

#[test]
fn families_can_be_selected_and_mistakes_are_named() {
    let (daemon, _client) = busy_daemon();
    let response = scrape(&daemon, "", "?name[]=ttmem_device_processes&name[]=process_threads");
    let families: Vec<&str> = response.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert_eq!(families, ["ttmem_device_processes gauge", "process_threads gauge"]);
    let check = |headers: &str, query: &str, expected: &str| {
        let response = scrape(&daemon, headers, query);
        assert_eq!(response.status, 400, "{}", response.body);
        assert!(response.body.contains(expected), "{}", response.body);
    };
    check("", "?collect[]=device", "name[]");
    check("X-Prometheus-Scrape-Timeout-Seconds: soon\r\n", "", "x-prometheus-scrape-timeout-seconds");
    assert_eq!(scrape(&daemon, "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n", "").status, 200);
}

#[test]
fn a_thousand_short_lived_processes_leave_no_series_behind() {
    let daemon = Daemon::start(&[
        // Each round is another connection, and a thread that serves its first needs memory once.
        "--ingest-threads",
        "1",
        "--trust-claimed-pids",
        "--processes-max",
        "10",
        "--process-linger-seconds",
        "0",
    ]);
    let samples = |metrics: &Metrics| metrics.text.lines().filter(|line| !line.starts_with('#')).count();
    let settled = |live: f64| {
        daemon.wait_for_metrics("the processes to be gone", |metrics| {
            metrics.sum("ttmem_device_processes", &[]) == live
                && metrics.values("ttmem_process_info", &[]).is_empty()
        })
    };
    let run = |first_pid: i32| {
        let mut connection = support::frames::Connection::open(&daemon, 72);
        let frames: Vec<_> = (0..500)
            .map(|pid| support::frames::Frame {
                process_id: first_pid + pid,
                ..support::frames::Frame::alloc(0, 4096, 1)
            })
            .collect();
        connection.send(&frames);
        connection.query(0);
        let metrics = daemon.metrics();
        assert_eq!(metrics.values("ttmem_process_info", &[]).len(), 10, "no more than processes_max");
        assert_eq!(metrics.value("ttmem_process_suppressed", &[("device", "0")]), Some(490.0));
        let suppressed =
            metrics.sum("ttmem_process_suppressed_memory_usage_bytes", &[("memory_type", "dram")]);
        let own = metrics.sum("ttmem_process_memory_usage_bytes", &[("memory_type", "dram")]);
        assert_eq!(Some(suppressed + own), metrics.usage(0, "dram"), "sums stay exact");
    };
    run(100_000);
    let before = samples(&settled(0.0));
    // What is used for the first time needs memory once; after some rounds there is nothing new.
    let resident = |metrics: &Metrics| metrics.value("process_resident_memory_bytes", &[]).unwrap();
    let rounds = (2..=8).map(|round| {
        run(round * 100_000);
        resident(&settled(0.0))
    });
    let resident: Vec<f64> = rounds.collect();
    let grown = resident[6] - resident[2];
    assert!(grown < 2000.0 * PROCESS_BYTES_MIN, "{grown} bytes more for 2000 processes that are gone");
    let after = settled(0.0);
    assert_eq!(samples(&after), before, "those that followed left nothing");
    assert_eq!(after.sum("ttmem_device_orphaned_buffers_total", &[("memory_type", "dram")]), 4000.0);
}
