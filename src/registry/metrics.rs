//! The METRICS table: the one place that says which metrics there are. Every format, the documentation and the tests are made from it.
//! A row holds what a person reads (name, help, unit), what a machine needs (type, labels, OpenTelemetry name) and where its samples come
//! from in a `Snapshot`. Adding a metric is adding a row here, and the increment that feeds it.

pub mod daemon;
mod row;

use super::{MemorySnapshot, ProcessMemory, Reported};

pub use row::{Kind, LabelledRow, Metric, Rows, Samples, Transport, Value};

const D: &[&str] = &["device", "memory_type"];
const P: &[&str] = &["device", "memory_type", "pid", "process"];
const K: &[&str] = &["device", "memory_type", "k8s_namespace_name", "k8s_pod_name", "k8s_container_name"];

/// Every metric, in the order of the exposition.
pub const METRICS: &[Metric] = &{
    let mut metrics = [OF_REGISTRY[0]; OF_REGISTRY.len() + daemon::METRICS.len()];
    let mut number = 0;
    while number < metrics.len() {
        let is_first = number < OF_REGISTRY.len();
        metrics[number] =
            if is_first { OF_REGISTRY[number] } else { daemon::METRICS[number - OF_REGISTRY.len()] };
        number += 1;
    }
    metrics
};

/// Those whose samples are in a snapshot, and what is known about the daemon.
const OF_REGISTRY: &[Metric] = &[
    Metric {
        name: daemon::BUILD_INFO,
        kind: Kind::Gauge,
        unit: "1",
        labels: &["version", "revision"],
        help: "Version of the running ttmem and the revision it was built from.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: "ttmem_device_info",
        kind: Kind::Gauge,
        unit: "1",
        labels: &["device", "arch", "board", "asic_id", "pci_bus_id", "capacity_source"],
        help: "What is known about a device; a label is empty where nothing tells.",
        opentelemetry: Some("tenstorrent.device.info"),
        samples: Samples::DeviceInfo,
    },
    Metric {
        name: "ttmem_device_memory_limit_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: D,
        help: "Memory that buffers can use on a device; absent where the capacity is not known.",
        opentelemetry: Some("hw.gpu.memory.limit"),
        samples: Samples::Memory(|memory| memory.limit_bytes.map(Value::Unsigned)),
    },
    Metric {
        name: "ttmem_device_memory_usage_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: D,
        help: "Memory held on a device: the sum over its processes in the same scrape.",
        opentelemetry: Some("hw.gpu.memory.usage"),
        samples: Samples::Memory(|memory| Some(Value::Unsigned(memory.usage_bytes))),
    },
    Metric {
        name: "ttmem_device_memory_peak_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: D,
        help: "Most memory held on a device at once since the daemon started, exact between scrapes.",
        opentelemetry: Some("tenstorrent.memory.peak"),
        samples: Samples::Memory(|memory| Some(Value::Unsigned(memory.peak_bytes))),
    },
    Metric {
        name: "ttmem_device_memory_largest_free_block_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: D,
        help: "Largest free block when an allocation last failed; absent until a client reports a failure.",
        opentelemetry: Some("tenstorrent.memory.largest_free_block"),
        samples: Samples::Memory(|memory| memory.largest_free_block_bytes.map(Value::Unsigned)),
    },
    Metric {
        name: "ttmem_device_buffers",
        kind: Kind::Gauge,
        unit: "{buffer}",
        labels: D,
        help: "Live buffers on a device.",
        opentelemetry: Some("tenstorrent.buffer.count"),
        samples: Samples::Memory(|memory| reported(memory, |reported| reported.counters.buffers)),
    },
    Metric {
        name: "ttmem_device_allocated_bytes_total",
        kind: Kind::Counter,
        unit: "By",
        labels: D,
        help: "Bytes allocated on a device so far.",
        opentelemetry: Some("tenstorrent.memory.allocated"),
        samples: Samples::Allocations(
            |memory| reported(memory, |reported| reported.counters.allocated_bytes),
            |buffer| buffer.size_bytes as f64,
        ),
    },
    Metric {
        name: "ttmem_device_freed_bytes_total",
        kind: Kind::Counter,
        unit: "By",
        labels: D,
        help: "Bytes released on a device so far, reclaimed ones included.",
        opentelemetry: Some("tenstorrent.memory.freed"),
        samples: Samples::Memory(|memory| reported(memory, |reported| reported.counters.freed_bytes)),
    },
    Metric {
        name: "ttmem_device_allocations_total",
        kind: Kind::Counter,
        unit: "{allocation}",
        labels: D,
        help: "Buffers allocated on a device so far.",
        opentelemetry: Some("tenstorrent.memory.allocations"),
        samples: Samples::Allocations(
            |memory| reported(memory, |reported| reported.counters.allocations),
            |_| 1.0,
        ),
    },
    Metric {
        name: "ttmem_device_frees_total",
        kind: Kind::Counter,
        unit: "{free}",
        labels: D,
        help: "Buffers released on a device so far, reclaimed ones included.",
        opentelemetry: Some("tenstorrent.memory.frees"),
        samples: Samples::Memory(|memory| reported(memory, |reported| reported.counters.frees)),
    },
    Metric {
        name: "ttmem_device_allocation_failures_total",
        kind: Kind::Counter,
        unit: "{failure}",
        labels: &["device", "memory_type", "reason"],
        help: "Allocations that clients report to have failed so far: exhausted, or fragmented where enough was free in total.",
        opentelemetry: Some("tenstorrent.memory.allocation.failures"),
        samples: Samples::Failures(|memory| memory.reported.is_some().then_some(memory.failures)),
    },
    Metric {
        name: "ttmem_buffer_size_bytes",
        kind: Kind::Histogram,
        unit: "By",
        labels: D,
        help: "Sizes of the buffers allocated so far.",
        opentelemetry: Some("tenstorrent.buffer.size"),
        samples: Samples::MemoryHistogram(|memory| memory.reported.as_ref().map(|reported| &reported.sizes)),
    },
    Metric {
        name: "ttmem_buffer_lifetime_seconds",
        kind: Kind::Histogram,
        unit: "s",
        labels: D,
        help: "Time from allocation to release of the buffers released so far; none for circular buffers and kernels.",
        opentelemetry: Some("tenstorrent.buffer.duration"),
        samples: Samples::MemoryHistogram(|memory| memory.reported.as_ref()?.lifetimes.as_ref()),
    },
    Metric {
        name: "ttmem_device_oldest_buffer_timestamp_seconds",
        kind: Kind::Gauge,
        unit: "s",
        labels: D,
        help: "Time since the epoch at which the oldest live buffer was allocated.",
        opentelemetry: Some("tenstorrent.buffer.oldest"),
        samples: Samples::Memory(|memory| {
            memory.reported.as_ref()?.oldest_timestamp_seconds.map(Value::Float)
        }),
    },
    Metric {
        name: "ttmem_device_processes",
        kind: Kind::Gauge,
        unit: "{process}",
        labels: &["device"],
        help: "Live processes that hold or have held memory on a device.",
        opentelemetry: Some("tenstorrent.process.count"),
        samples: Samples::Device(|device| Some(Value::Unsigned(device.processes))),
    },
    Metric {
        name: "ttmem_device_untracked_processes",
        kind: Kind::Gauge,
        unit: "{process}",
        labels: &["device"],
        help: "Processes that hold a device open and report nothing; absent where the kernel driver does not tell.",
        opentelemetry: Some("tenstorrent.process.untracked"),
        samples: Samples::Device(|device| {
            device.info.untracked.as_ref().map(|untracked| Value::Unsigned(untracked.processes))
        }),
    },
    Metric {
        name: "ttmem_device_renumbered_processes",
        kind: Kind::Gauge,
        unit: "{process}",
        labels: &["device"],
        help: "Processes that mean another card by this number, as far as it is certain; absent where the kernel driver does not tell.",
        opentelemetry: Some("tenstorrent.process.renumbered"),
        samples: Samples::Device(|device| {
            device.info.renumbered.as_ref().map(|renumbered| Value::Unsigned(renumbered.len() as u64))
        }),
    },
    Metric {
        name: "ttmem_device_orphaned_bytes_total",
        kind: Kind::Counter,
        unit: "By",
        labels: D,
        help: "Bytes that processes still held when they ended, reclaimed by the daemon.",
        opentelemetry: Some("tenstorrent.memory.orphaned"),
        samples: Samples::Memory(|memory| reported(memory, |reported| reported.counters.orphaned_bytes)),
    },
    Metric {
        name: "ttmem_device_orphaned_buffers_total",
        kind: Kind::Counter,
        unit: "{buffer}",
        labels: D,
        help: "Buffers that processes still held when they ended, reclaimed by the daemon.",
        opentelemetry: Some("tenstorrent.buffer.orphaned"),
        samples: Samples::Memory(|memory| reported(memory, |reported| reported.counters.orphaned_buffers)),
    },
    Metric {
        name: "ttmem_device_source_drift_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: &["device", "memory_type", "source"],
        help: "Another source's figure minus the reported one, over the processes that both know.",
        opentelemetry: Some("tenstorrent.memory.drift"),
        samples: Samples::Drift(|memory| memory.drift_bytes.map(Value::Signed)),
    },
    Metric {
        name: "ttmem_process_memory_usage_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: P,
        help: "Memory that a process holds on a device.",
        opentelemetry: Some("tenstorrent.process.memory.usage"),
        samples: Samples::ProcessMemory(|memory| Some(Value::Unsigned(memory.counters.usage_bytes()))),
    },
    Metric {
        name: "ttmem_process_memory_peak_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: P,
        help: "Most memory that a process has held on a device at once, exact between scrapes.",
        opentelemetry: Some("tenstorrent.process.memory.peak"),
        samples: Samples::ProcessMemory(|memory| Some(Value::Unsigned(memory.counters.peak_bytes))),
    },
    Metric {
        name: "ttmem_process_buffers",
        kind: Kind::Gauge,
        unit: "{buffer}",
        labels: P,
        help: "Live buffers of a process on a device.",
        opentelemetry: Some("tenstorrent.process.buffer.count"),
        samples: Samples::ProcessMemory(|memory| process_reported(memory, memory.counters.buffers)),
    },
    Metric {
        name: "ttmem_process_allocated_bytes_total",
        kind: Kind::Counter,
        unit: "By",
        labels: P,
        help: "Bytes that a process has allocated on a device so far.",
        opentelemetry: Some("tenstorrent.process.memory.allocated"),
        samples: Samples::ProcessMemory(|memory| process_reported(memory, memory.counters.allocated_bytes)),
    },
    Metric {
        name: "ttmem_process_leak_score",
        kind: Kind::Gauge,
        unit: "1",
        labels: P,
        help: "How sure it is that a process leaks memory: above 0, below 1, suspected from 0.5 on; absent where nothing looks like it.",
        opentelemetry: Some("tenstorrent.process.leak.score"),
        samples: Samples::ProcessMemory(|memory| memory.leak_score.map(Value::Float)),
    },
    Metric {
        name: "ttmem_process_info",
        kind: Kind::Gauge,
        unit: "1",
        labels: &[
            "pid",
            "process",
            "user",
            "source",
            "k8s_namespace_name",
            "k8s_pod_name",
            "k8s_container_name",
            "k8s_pod_uid",
            "container_id",
            "slurm_job_id",
            "slurm_step_id",
        ],
        help: "What is known about a process; source is how it was first heard of, and a label is empty where nothing tells.",
        opentelemetry: Some("tenstorrent.process.info"),
        samples: Samples::ProcessInfo,
    },
    Metric {
        name: "ttmem_process_start_time_seconds",
        kind: Kind::Gauge,
        unit: "s",
        labels: &["pid", "process"],
        help: "Time since the epoch at which a process started.",
        opentelemetry: None,
        samples: Samples::Process(|process| process.process.info().start_time_seconds.map(Value::Float)),
    },
    Metric {
        name: "ttmem_process_suppressed",
        kind: Kind::Gauge,
        unit: "{process}",
        labels: &["device"],
        help: "Processes on a device beyond the number that have series of their own.",
        opentelemetry: Some("tenstorrent.process.suppressed"),
        samples: Samples::Suppressed,
    },
    Metric {
        name: "ttmem_process_suppressed_memory_usage_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: D,
        help: "Memory held by the processes that have no series of their own; absent where all have.",
        opentelemetry: Some("tenstorrent.process.suppressed.memory.usage"),
        samples: Samples::SuppressedMemory,
    },
    Metric {
        name: "ttmem_container_memory_usage_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: K,
        help: "Memory that the processes of a container hold on a device; containers without names are summed.",
        opentelemetry: Some("tenstorrent.container.memory.usage"),
        samples: Samples::ContainerMemory(|memory| memory.usage_bytes.map(Value::Unsigned)),
    },
    Metric {
        name: "ttmem_container_memory_byte_seconds_total",
        kind: Kind::Counter,
        unit: "By.s",
        labels: K,
        help: "Memory that a container has held on a device times the seconds for which it did, ended processes included.",
        opentelemetry: Some("tenstorrent.container.memory.time"),
        samples: Samples::ContainerMemory(|memory| memory.byte_seconds.map(Value::Float)),
    },
    Metric {
        name: "ttmem_container_assigned_devices",
        kind: Kind::Gauge,
        unit: "{device}",
        labels: &["k8s_namespace_name", "k8s_pod_name", "k8s_container_name", "resource"],
        help: "Devices that the kubelet gave to a container, used or not; absent where its pod-resources API does not tell.",
        opentelemetry: Some("tenstorrent.container.device.assigned"),
        samples: Samples::Containers(|snapshot| snapshot.kubelet.assigned_rows()),
    },
    Metric {
        name: "ttmem_kubelet_sync_last_success_timestamp_seconds",
        kind: Kind::Gauge,
        unit: "s",
        labels: &["source"],
        help: "Time since the epoch at which the kubelet last told what it was asked for; absent until it does.",
        opentelemetry: Some("tenstorrent.kubelet.sync.last_success"),
        samples: Samples::Labelled(|snapshot| snapshot.kubelet.rows(|source| source.last_success_unix_ns)),
    },
    Metric {
        name: "ttmem_kubelet_sync_duration_seconds",
        kind: Kind::Gauge,
        unit: "s",
        labels: &["source"],
        help: "Time that the kubelet's last answer took.",
        opentelemetry: Some("tenstorrent.kubelet.sync.duration"),
        samples: Samples::Labelled(|snapshot| {
            snapshot.kubelet.rows(|source| source.last_success_unix_ns.map(|_| source.duration_ns))
        }),
    },
    Metric {
        name: "ttmem_kubelet_sync_failures_total",
        kind: Kind::Counter,
        unit: "{failure}",
        labels: &["source", "reason"],
        help: "Times that the kubelet did not tell what it was asked for; absent on a host without a kubelet.",
        opentelemetry: Some("tenstorrent.kubelet.sync.failures"),
        samples: Samples::Labelled(|snapshot| snapshot.kubelet.failure_rows()),
    },
    Metric {
        name: "ttmem_events_total",
        kind: Kind::Counter,
        unit: "{event}",
        labels: &["kind"],
        help: "Messages received and changes noticed so far.",
        opentelemetry: Some("tenstorrent.events"),
        samples: Samples::Rows(|snapshot| &snapshot.events.events),
    },
    Metric {
        name: "ttmem_events_rejected_total",
        kind: Kind::Counter,
        unit: "{event}",
        labels: &["reason"],
        help: "Messages, or claims in them, that were not believed.",
        opentelemetry: Some("tenstorrent.events.rejected"),
        samples: Samples::Rows(|snapshot| &snapshot.events.rejected),
    },
    Metric {
        name: "ttmem_events_lost_total",
        kind: Kind::Counter,
        unit: "{event}",
        labels: &["reason"],
        help: "Messages known to have been lost on their way.",
        opentelemetry: Some("tenstorrent.events.lost"),
        samples: Samples::Rows(|snapshot| &snapshot.events.lost),
    },
    Metric {
        name: "ttmem_spans_omitted_total",
        kind: Kind::Counter,
        unit: "{span}",
        labels: &["reason"],
        help: "Spans that were not made: small, short, rate by the policy; burst, orphans where one span tells of many; queue for lack of room, memory for lack of memory.",
        opentelemetry: Some("tenstorrent.spans.omitted"),
        samples: Samples::Rows(|snapshot| &snapshot.events.omitted),
    },
    Metric {
        name: "ttmem_client_connections",
        kind: Kind::Gauge,
        unit: "{connection}",
        labels: &["transport", "layout"],
        help: "Open connections of clients, by how reports come and by the frame size they speak.",
        opentelemetry: Some("tenstorrent.client.count"),
        samples: Samples::Connections(&[
            ("socket", |snapshot| &snapshot.events.connections),
            ("ring", |snapshot| &snapshot.events.ring_connections),
        ]),
    },
    Metric {
        name: "ttmem_ring_memory_bytes",
        kind: Kind::Gauge,
        unit: "By",
        labels: &[],
        help: "Memory of the host that the rings take in which clients report.",
        opentelemetry: Some("tenstorrent.client.ring.memory"),
        samples: Samples::Rows(|snapshot| &snapshot.events.ring_memory_bytes),
    },
    Metric {
        name: "ttmem_ring_refusals_total",
        kind: Kind::Counter,
        unit: "{request}",
        labels: &["reason"],
        help: "Requests for rings that were not granted: off, user_memory by the configuration; their clients report in frames.",
        opentelemetry: Some("tenstorrent.client.ring.refusals"),
        samples: Samples::Rows(|snapshot| &snapshot.events.ring_refusals),
    },
    Metric {
        name: "ttmem_client_throttled_seconds_total",
        kind: Kind::Counter,
        unit: "s",
        labels: &["limit"],
        help: "Time for which connections were not read because they, or those of their user, report faster than is configured.",
        opentelemetry: Some("tenstorrent.client.throttled"),
        samples: Samples::Labelled(|snapshot| {
            let limits = snapshot.events.throttled_ns.iter();
            limits.map(|(limit, ns)| (vec![(*limit).to_owned()], Value::Float(*ns as f64 / 1e9))).collect()
        }),
    },
    Metric {
        name: "ttmem_detail_degraded",
        kind: Kind::Gauge,
        unit: "1",
        labels: &["detail"],
        help: "Whether that detail is given up because memory is short; totals and live buffers are exact all the same.",
        opentelemetry: Some("tenstorrent.detail.degraded"),
        samples: Samples::Rows(|snapshot| &snapshot.events.degraded),
    },
    Metric {
        name: "ttmem_series",
        kind: Kind::Gauge,
        unit: "{series}",
        labels: &["scope"],
        help: "Samples in this exposition, by what they are about.",
        opentelemetry: None,
        samples: Samples::Series,
    },
];

/// The row of that name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

fn reported(memory: &MemorySnapshot, field: fn(&Reported) -> u64) -> Option<Value> {
    memory.reported.as_ref().map(|reported| Value::Unsigned(field(reported)))
}

fn process_reported(memory: &ProcessMemory, value: u64) -> Option<Value> {
    (memory.counters.is_reported != 0).then_some(Value::Unsigned(value))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write;

    use super::*;

    /// The table as a person reads it.
    fn reference() -> String {
        let mut text = String::from(
            "# Metrics\n\n\
             Generated from the METRICS table in `src/registry/metrics.rs`; `UPDATE_GOLDEN=1 cargo test --lib metrics` writes it again.\n\n\
             Units are UCUM's: By is bytes, s seconds, `{x}` a count of x. Memory types: dram, l1, l1_small, trace, cb, kernel and\n\
             system_memory, disjoint, so that sums over them are valid. A device that is known and empty says 0 for the first four; the\n\
             others appear once something has reported them. A process's `source` is socket or shm. `device` is the index that clients use.\n\n\
             | Metric | Type | Unit | Labels | What it says | OpenTelemetry |\n|---|---|---|---|---|---|\n",
        );
        for Metric { name, kind, unit, labels, help, opentelemetry, .. } in METRICS {
            let (kind, labels) = (kind.name(), labels.join(", "));
            let opentelemetry = opentelemetry.map(|name| format!("`{name}`")).unwrap_or_default();
            let _ = writeln!(text, "| `{name}` | {kind} | {unit} | {labels} | {help} | {opentelemetry} |");
        }
        text.push_str(
            "\nBeside them stand the `process_*` metrics of the daemon itself, as every exporter has them.\n\n\
             ## Over OTLP\n\n\
             The last column's names, with the same labels as attributes; a metric without one is not exported. `{item}` is span,\n\
             metric_data_point or log, in place of the label `signal`. Counters are monotonic sums; gauges are gauges, but for\n\
             `hw.gpu.memory.limit` and `hw.gpu.memory.usage`, which the conventions have as counters that go up and down; histograms are\n\
             exponential ones of scale 0, or have the bounds of /metrics. Only over OTLP there is `hw.gpu.memory.utilization`, usage divided by\n\
             limit. The daemon's own `process.cpu.time`, `process.memory.usage`, `process.memory.virtual`,\n\
             `process.unix.file_descriptor.count` and `process.thread.count` stand for its `process_*` metrics.\n\n\
             | Label | Attribute |\n|---|---|\n\
             | `device` | `hw.id`, and `hw.type` = gpu |\n\
             | `board` | `hw.model`, and `hw.vendor` = Tenstorrent |\n\
             | `asic_id` | `hw.serial_number` |\n\
             | `memory_type` | `tenstorrent.memory.type` |\n\
             | `pid` | `process.pid` |\n\
             | `process` | `process.executable.name` |\n\
             | `user` | `process.owner` |\n\
             | `reason` | `error.type` |\n\
             | `container_id` | `container.id` |\n\
             | `k8s_pod_name` and the like | `k8s.pod.name` and the like |\n\
             | any other | `tenstorrent.` and the label, with dots for underscores |\n",
        );
        text
    }

    #[test]
    fn the_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, reference()).expect("the project's folder is writable");
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), reference());
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut names = HashSet::new();
        for metric in METRICS {
            let Metric { name, kind, unit, help, .. } = metric;
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("ttmem_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                *kind == Kind::Counter,
                "{name}: _total is for counters, and only for them"
            );
            let base = name.trim_end_matches("_total");
            let units = [("_byte_seconds", "By.s"), ("_bytes", "By"), ("_seconds", "s")];
            let named = units.iter().find(|(suffix, _)| base.ends_with(suffix)).map(|(_, unit)| *unit);
            let is_named = units.iter().any(|(_, known)| known == unit);
            assert_eq!(named, is_named.then_some(*unit), "{name}: the unit is in the name");
            assert!(
                help.ends_with('.') && !help.contains('\n') && !help.contains('|'),
                "{name}: help is a sentence"
            );
        }
    }
}
