//! A real Prometheus scrapes the daemon: what it stores is what the daemon says, and every scrape adds up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use support::exposition::{self, Family};
use support::frames::{Connection, Frame};
use support::prometheus::Prometheus;
use support::regions::{Sleeper, write_region};
use support::{Daemon, Peer, installed_peer, peers, wait_for};

/// Scrapes during which two clients allocate and free as fast as they can.
const BUSY_SCRAPES: f64 = 5.0;
/// The device that they use; the others have a quiet life.
const BUSY_DEVICE: i32 = 2;
/// What nobody expects a process to be called. The kernel keeps fifteen bytes.
const AWKWARD_NAME: &str = "a\"b\\c\nd{e=f},";

/// The families whose values change from one scrape to the next although nothing happens.
const RESTLESS: [&str; 2] = ["process_", "ttmem_scrape_duration_seconds"];

type SeriesKey = (String, BTreeMap<String, String>);

#[test]
fn prometheus_stores_what_the_daemon_says() {
    let daemon = Daemon::start(&["--device", "0=n150", "--device", "1=n300", "--shm-interval-ms", "10"]);
    let mut server = Peer::field_client(&daemon, "metal");
    server.ask(r#"{"op":"allocate","device":0,"type":"dram","size":1048576,"id":1,"count":100}"#);
    server.ask(r#"{"op":"allocate","device":0,"type":"l1_small","size":32,"id":1000}"#);
    server.ask(r#"{"op":"cb_allocate","device":1,"size":2048,"id":1}"#);
    server.ask(r#"{"op":"kernel_load","device":1,"size":512,"id":2}"#);
    let mut notebook = awkward_client(&daemon);
    notebook.ask(r#"{"op":"allocate","device":1,"type":"dram","size":5000,"id":1,"count":10}"#);
    notebook.ask(r#"{"op":"free","id":1,"device":1,"count":4}"#);
    let sleeper = Sleeper::start();
    let slots = [json!({"pid": server.pid(), "dram": 100}), sleeper.holding(4096)];
    write_region(&daemon.shm().join("tt_device_1_memory"), &json!({"device_id": 0, "processes": slots}));

    let prometheus = Prometheus::start(daemon.http());
    while_clients_are_busy(&daemon, || {
        let scrapes =
            || prometheus.value("sum(count_over_time(up[1h]))").filter(|count| *count >= BUSY_SCRAPES);
        wait_for("enough scrapes", scrapes);
        assert_every_scrape_adds_up(&prometheus);
        assert!(prometheus.value(r#"rate(ttmem_events_total{kind="alloc"}[1h])"#).unwrap() > 0.0);
        let busy = format!(r#"device="{BUSY_DEVICE}",memory_type="dram""#);
        assert!(
            prometheus.value(&format!("rate(ttmem_device_allocations_total{{{busy}}}[1h])")).unwrap() > 0.0
        );
        assert_eq!(
            prometheus.value(&format!("resets(ttmem_device_allocations_total{{{busy}}}[1h])")),
            Some(0.0)
        );
        assert!(
            prometheus.value(&format!("idelta(ttmem_device_freed_bytes_total{{{busy}}}[1h])")).unwrap() > 0.0
        );
    });
    daemon.wait_for_metrics("the busy clients to be gone", |metrics| {
        let connections = metrics.sum("ttmem_client_connections", &[("transport", "socket")]);
        let processes = metrics.value("ttmem_device_processes", &[("device", &BUSY_DEVICE.to_string())]);
        (connections, processes) == (2.0, Some(1.0))
    });
    // Nothing happens any more. A scrape may be under way; after the one that follows it both sides say the same.
    for _ in 0..2 {
        let last = prometheus.value("timestamp(up)").unwrap();
        wait_for("another scrape", || prometheus.value("timestamp(up)").filter(|time| *time > last));
    }
    let families = exposition::read(&daemon.get("/metrics").body).unwrap();
    assert_same_series(&prometheus, &families);
    assert_known_values(&prometheus, server.pid(), notebook.pid());
    assert_histograms_can_be_asked(&prometheus);
    assert_target_is_well(&prometheus, &families);
}

#[test]
fn promtool_finds_nothing() {
    let daemon = Daemon::start(&["--device", "0=n150", "--shm-interval-ms", "10"]);
    let mut client = awkward_client(&daemon);
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1,"count":5}"#);
    client.ask(r#"{"op":"free","id":1,"device":0}"#);
    client.ask(r#"{"op":"cb_allocate","device":0,"size":2048,"id":1}"#);
    let sleeper = Sleeper::start();
    let slots = [json!({"pid": client.pid(), "dram": 100}), sleeper.holding(4096)];
    write_region(&daemon.shm().join("tt_device_1_memory"), &json!({"device_id": 0, "processes": slots}));
    // Now every family that there is has samples.
    let is_complete = |text: &String| text.contains("ttmem_device_source_drift_bytes{");
    let body = wait_for("both sources to be seen", || Some(daemon.get("/metrics").body).filter(is_complete));
    let mut promtool = Command::new(installed_peer("bin/promtool"))
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
}

/// A client in the field's manner whose process has a name that needs every escape.
fn awkward_client(daemon: &Daemon) -> Peer {
    const RENAMED: &str = "import runpy, sys; open('/proc/self/comm', 'w').write(sys.argv.pop(1)); \
                           sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')";
    let mut command = Command::new("python3");
    command.args(["-c", RENAMED, AWKWARD_NAME]).arg(peers().join("field_clients.py"));
    let mut peer = Peer::start(command.arg("--socket").arg(daemon.socket()));
    peer.ask(r#"{"op":"connect","client":"metal"}"#);
    peer
}

/// Runs something while this process and another one allocate and free on one device without a pause.
fn while_clients_are_busy(daemon: &Daemon, run: impl FnOnce()) {
    /// Says that it is over, also when a check has failed.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let over = AtomicBool::new(false);
    let mut other = Peer::field_client(daemon, "metal");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(daemon, 144);
            // In steps of its own, so that a scrape finds it at any point of its way up and down.
            for round in 0_u64.. {
                let sizes = (0..50).map(|id| (id, 4096 * (1 + (round * 7 + id * 13) % 97)));
                let up: Vec<Frame> =
                    sizes.clone().map(|(id, size)| Frame::alloc(BUSY_DEVICE, size, id)).collect();
                let down: Vec<Frame> = sizes.map(|(id, _)| Frame::free(BUSY_DEVICE, id)).collect();
                for part in up.chunks(3).chain(down.chunks(5)) {
                    connection.send(part);
                }
                if over.load(Ordering::Acquire) {
                    break;
                }
            }
            connection.query(BUSY_DEVICE);
        });
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                other.ask(&format!(
                    r#"{{"op":"allocate","device":{BUSY_DEVICE},"type":"dram","size":333,"id":1,"count":200}}"#
                ));
                other.ask(&format!(r#"{{"op":"free","device":{BUSY_DEVICE},"id":1,"count":200}}"#));
            }
            other.ask(&format!(r#"{{"op":"query","device":{BUSY_DEVICE}}}"#));
        });
        let _over = Over(&over);
        run();
    });
}

fn assert_every_scrape_adds_up(prometheus: &Prometheus) {
    let processes = "sum by (device, memory_type) (ttmem_process_memory_usage_bytes)";
    let devices = "ttmem_device_memory_usage_bytes";
    for difference in [
        format!("{processes} != on (device, memory_type) {devices}"),
        format!("{processes} unless on (device, memory_type) {devices}"),
        format!("({devices} unless on (device, memory_type) {processes}) != 0"),
        format!("{devices} > on (device, memory_type) ttmem_device_memory_peak_bytes"),
        "ttmem_device_allocations_total - ttmem_device_frees_total != ttmem_device_buffers".to_owned(),
    ] {
        assert!(
            prometheus.query_range(&difference).is_empty(),
            "{difference}: {:?}",
            prometheus.query_range(&difference)
        );
    }
    // It has really looked while something happened.
    let usage = prometheus.query_range(&format!(r#"{devices}{{device="{BUSY_DEVICE}",memory_type="dram"}}"#));
    let seen: BTreeSet<u64> = usage[0].values.iter().map(|bytes| *bytes as u64).collect();
    assert!(seen.len() > 1, "{usage:?}");
}

/// Every series of the daemon is in Prometheus, no other is, and the values are the same.
fn assert_same_series(prometheus: &Prometheus, families: &[Family]) {
    let mut stored: BTreeMap<SeriesKey, f64> = BTreeMap::new();
    for series in prometheus.query(r#"{job="ttmem",__name__=~"(ttmem|process)_.*"}"#) {
        let mut labels = series.labels;
        labels.remove("job");
        labels.remove("instance");
        let name = labels.remove("__name__").unwrap();
        // OpenMetrics, which Prometheus prefers, says beside each counter since when it counts.
        let counts = |family: &Family| {
            let base = family.name.strip_suffix("_total").unwrap_or(&family.name);
            family.kind != "gauge" && name.strip_suffix("_created") == Some(base)
        };
        if !families.iter().any(counts) {
            stored.insert((name, normalized(labels)), series.values[0]);
        }
    }
    let samples = families.iter().flat_map(|family| &family.samples);
    let said: BTreeMap<SeriesKey, f64> = samples
        .map(|sample| {
            let labels = sample.labels.iter().filter(|(_, value)| !value.is_empty());
            let labels = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
            ((sample.name.clone(), normalized(labels)), sample.value)
        })
        .collect();
    let only_stored: Vec<_> = stored.keys().filter(|key| !said.contains_key(key)).collect();
    let only_said: Vec<_> = said.keys().filter(|key| !stored.contains_key(key)).collect();
    assert!(
        only_stored.is_empty() && only_said.is_empty(),
        "only stored: {only_stored:?}, only said: {only_said:?}"
    );
    for (key, value) in &said {
        let is_restless = RESTLESS.iter().any(|prefix| key.0.starts_with(prefix));
        assert!(is_restless || stored[key] == *value, "{key:?}: {} is not {value}", stored[key]);
    }
}

/// Prometheus writes a bucket's bound as a float.
fn normalized(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if let Some(bound) = labels.get_mut("le") {
        *bound = bound.replace("+Inf", "inf").parse::<f64>().unwrap().to_string();
    }
    labels
}

/// What the test itself knows, without the daemon's word for it.
fn assert_known_values(prometheus: &Prometheus, server: u32, notebook: u32) {
    let expected = [
        (r#"up{job="ttmem"}"#.to_owned(), 1.0),
        (r#"min_over_time(up{job="ttmem"}[1h])"#.to_owned(), 1.0),
        (r#"ttmem_device_memory_usage_bytes{device="0",memory_type="dram"}"#.into(), 104_857_600.0 + 4096.0),
        (r#"ttmem_device_memory_limit_bytes{device="0",memory_type="dram"}"#.into(), 12.0 * 1_072_603_072.0),
        (r#"ttmem_device_memory_usage_bytes{device="1",memory_type="dram"}"#.into(), 30_000.0),
        (r#"ttmem_device_memory_peak_bytes{device="1",memory_type="dram"}"#.into(), 50_000.0),
        (r#"ttmem_device_memory_usage_bytes{device="1",memory_type="cb"}"#.into(), 2048.0),
        (r#"ttmem_device_memory_usage_bytes{device="1",memory_type="kernel"}"#.into(), 512.0),
        (
            r#"ttmem_device_source_drift_bytes{device="0",memory_type="dram",source="shm"}"#.into(),
            100.0 - 104_857_600.0,
        ),
        (
            format!(r#"ttmem_process_memory_usage_bytes{{pid="{server}",device="0",memory_type="dram"}}"#),
            104_857_600.0,
        ),
        (
            format!(
                r#"ttmem_process_memory_usage_bytes{{pid="{server}",device="0",memory_type="l1_small"}}"#
            ),
            32.0,
        ),
        (format!(r#"ttmem_process_buffers{{pid="{notebook}"}}"#), 6.0),
        (format!(r#"count(ttmem_process_info{{pid="{notebook}",source="socket"}})"#), 1.0),
        ("sum(ttmem_series)".into(), prometheus.value("scrape_samples_scraped").unwrap()),
    ];
    for (promql, value) in expected {
        assert_eq!(prometheus.value(&promql), Some(value), "{promql}");
    }
    let named = prometheus.query(&format!(r#"ttmem_process_info{{pid="{notebook}"}}"#));
    assert_eq!(named[0].labels["process"], AWKWARD_NAME);
}

fn assert_histograms_can_be_asked(prometheus: &Prometheus) {
    let place = r#"device="1",memory_type="dram""#;
    // All ten lie between the bounds 4096 and 16384, and Prometheus takes them for evenly spread.
    let sizes = format!("histogram_quantile(0.5, ttmem_buffer_size_bytes_bucket{{{place}}})");
    assert_eq!(prometheus.value(&sizes), Some(4096.0 + (16_384.0 - 4096.0) / 2.0));
    let mean = format!("ttmem_buffer_size_bytes_sum{{{place}}} / ttmem_buffer_size_bytes_count{{{place}}}");
    assert_eq!(prometheus.value(&mean), Some(5000.0));
    let lived = format!("ttmem_buffer_lifetime_seconds_count{{{place}}}");
    assert_eq!(prometheus.value(&lived), Some(4.0));
    let lifetimes = format!("histogram_quantile(0.99, ttmem_buffer_lifetime_seconds_bucket{{{place}}})");
    assert!(prometheus.value(&lifetimes).unwrap() > 0.0);
    let rates = format!(
        r#"histogram_quantile(0.9, sum by (le) (rate(ttmem_buffer_size_bytes_bucket{{device="{BUSY_DEVICE}"}}[1h])))"#
    );
    let largest = 4096.0 * 97.0;
    assert!((0.0..=2.0 * largest).contains(&prometheus.value(&rates).unwrap()));
}

fn assert_target_is_well(prometheus: &Prometheus, families: &[Family]) {
    let targets = prometheus.api("targets?state=active");
    let target = &targets["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
    let complaints = prometheus.complaints();
    assert!(complaints.is_empty(), "{complaints:?}");
    let metadata = prometheus.api("metadata");
    for family in families {
        // OpenMetrics keeps a counter's suffix for its sample.
        let base = family.name.strip_suffix("_total").unwrap_or(&family.name);
        let known = &[&metadata[base][0], &metadata[&family.name][0]];
        let known = known.iter().find(|known| known.is_object()).unwrap_or_else(|| panic!("{metadata}"));
        let expected = (family.kind.as_str(), family.help.as_str());
        assert_eq!(
            (known["type"].as_str().unwrap(), known["help"].as_str().unwrap()),
            expected,
            "{}",
            family.name
        );
    }
}
