//! A snapshot in Prometheus' text format 0.0.4, straight from the METRICS table.
//!
//! The idea is that labels are rendered once per device, memory type and process, and each family then only writes its name, the
//! rendered labels and a number.

use std::fmt::Write;

use crate::registry::metrics::{METRICS, Metric, Rows, Samples, Value};
use crate::registry::{
    DeviceSnapshot, HistogramSnapshot, MemorySnapshot, ProcessMemory, ProcessSnapshot, Snapshot,
};

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Bytes that a sample takes, generously.
const SAMPLE_BYTES: usize = 160;

/// Appends every family of the table that has samples. `daemon_series` is the number of samples that the caller adds for metrics it
/// keeps itself.
pub fn encode(snapshot: &Snapshot, daemon_series: u64, out: &mut String) {
    let series = Series::of(snapshot);
    let mut encoder = Encoder { out, scopes: Scopes { daemon: daemon_series, ..Scopes::default() } };
    encoder.out.reserve(series.process_memory.len() * SAMPLE_BYTES * 5);
    for metric in METRICS {
        encoder.family(metric, snapshot, &series);
    }
}

/// Samples by what they are about.
#[derive(Default)]
struct Scopes {
    device: u64,
    process: u64,
    daemon: u64,
}

/// The rendered labels, beside what they belong to.
struct Series<'a> {
    devices: Vec<(String, &'a DeviceSnapshot)>,
    device_memory: Vec<(String, &'a MemorySnapshot)>,
    processes: Vec<(String, &'a ProcessSnapshot)>,
    process_memory: Vec<(String, &'a ProcessMemory)>,
}

impl<'a> Series<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let devices =
            snapshot.devices.iter().map(|device| (format!("device=\"{}\"", device.index), device)).collect();
        let device_memory = snapshot.devices.iter().flat_map(|device| {
            device.memory.iter().map(|memory| {
                (format!("device=\"{}\",memory_type=\"{}\"", device.index, memory.memory_type.name()), memory)
            })
        });
        let processes: Vec<_> =
            snapshot.processes.iter().map(|process| (process_labels(process), process)).collect();
        let process_memory = processes.iter().flat_map(|(labels, process)| {
            process.memory.iter().map(move |memory| {
                (
                    format!(
                        "device=\"{}\",memory_type=\"{}\",{labels}",
                        memory.device,
                        memory.memory_type.name()
                    ),
                    memory,
                )
            })
        });
        Series {
            devices,
            device_memory: device_memory.collect(),
            process_memory: process_memory.collect(),
            processes,
        }
    }
}

fn process_labels(process: &ProcessSnapshot) -> String {
    let mut labels = format!("pid=\"{}\",process=\"", process.process.pid());
    escape(&process.process.info().name, &mut labels);
    labels.push('"');
    labels
}

struct Encoder<'a> {
    out: &'a mut String,
    scopes: Scopes,
}

impl Encoder<'_> {
    fn family(&mut self, metric: &'static Metric, snapshot: &Snapshot, series: &Series<'_>) {
        let mut family = Family { metric, out: self.out, samples: 0 };
        let scope = match metric.samples {
            Samples::Memory(value) => {
                family.each(&series.device_memory, value);
                &mut self.scopes.device
            }
            Samples::MemoryHistogram(histogram) => {
                for (labels, memory) in &series.device_memory {
                    // Twenty-six series for a memory type that nobody has used would say nothing.
                    if let Some(histogram) = histogram(memory).filter(|histogram| histogram.count() > 0) {
                        family.histogram(labels, histogram);
                    }
                }
                &mut self.scopes.device
            }
            Samples::Drift(value) => {
                for (labels, memory) in &series.device_memory {
                    if let Some(value) = value(memory) {
                        family.sample("", &[labels, ",source=\"shm\""], value);
                    }
                }
                &mut self.scopes.device
            }
            Samples::Device(value) => {
                family.each(&series.devices, value);
                &mut self.scopes.device
            }
            Samples::DeviceInfo => {
                for (labels, device) in &series.devices {
                    family.sample("", &[labels, &device_info_labels(device)], Value::Unsigned(1));
                }
                &mut self.scopes.device
            }
            Samples::ProcessMemory(value) => {
                family.each(&series.process_memory, value);
                &mut self.scopes.process
            }
            Samples::Process(value) => {
                family.each(&series.processes, value);
                &mut self.scopes.process
            }
            Samples::ProcessInfo => {
                for (labels, process) in &series.processes {
                    family.sample("", &[labels, &process_info_labels(process)], Value::Unsigned(1));
                }
                &mut self.scopes.process
            }
            Samples::Rows(rows) => {
                family.rows("", rows(snapshot));
                &mut self.scopes.daemon
            }
            Samples::Connections(rows) => {
                family.rows("transport=\"socket\",", rows(snapshot));
                &mut self.scopes.daemon
            }
            Samples::Series => {
                let Scopes { device, process, daemon } = self.scopes;
                let scopes = [("device", device), ("process", process), ("daemon", daemon + 3)];
                family.rows("", &scopes);
                return;
            }
            // The daemon appends these itself.
            Samples::Daemon => return,
        };
        *scope += family.samples;
    }
}

/// One family on its way out; its header is written with its first sample.
struct Family<'a> {
    metric: &'static Metric,
    out: &'a mut String,
    samples: u64,
}

impl Family<'_> {
    fn each<T>(&mut self, series: &[(String, &T)], value: fn(&T) -> Option<Value>) {
        for (labels, source) in series {
            if let Some(value) = value(source) {
                self.sample("", &[labels], value);
            }
        }
    }

    fn rows(&mut self, prefix: &str, rows: Rows<'_>) {
        let label = self.metric.labels.last().copied().unwrap_or_default();
        for (name, value) in rows {
            self.sample("", &[prefix, label, "=\"", name, "\""], Value::Unsigned(*value));
        }
    }

    fn histogram(&mut self, labels: &str, histogram: &HistogramSnapshot) {
        for (bound, count) in histogram.classic() {
            let mut le = String::from(",le=\"");
            push_float(&mut le, bound);
            le.push('"');
            self.sample("_bucket", &[labels, &le], Value::Unsigned(count));
        }
        self.sample("_bucket", &[labels, ",le=\"+Inf\""], Value::Unsigned(histogram.count()));
        self.sample("_sum", &[labels], Value::Float(histogram.sum()));
        self.sample("_count", &[labels], Value::Unsigned(histogram.count()));
    }

    fn sample(&mut self, suffix: &str, labels: &[&str], value: Value) {
        if self.samples == 0 {
            let Metric { name, help, kind, .. } = self.metric;
            for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind.name(), "\n"] {
                self.out.push_str(part);
            }
        }
        self.samples += 1;
        self.out.push_str(self.metric.name);
        self.out.push_str(suffix);
        self.out.push('{');
        for part in labels {
            self.out.push_str(part);
        }
        self.out.push_str("} ");
        match value {
            Value::Unsigned(value) => self.out.push_str(itoa::Buffer::new().format(value)),
            Value::Signed(value) => self.out.push_str(itoa::Buffer::new().format(value)),
            Value::Float(value) => push_float(self.out, value),
        }
        self.out.push('\n');
    }
}

fn device_info_labels(device: &DeviceSnapshot) -> String {
    let info = &device.info;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let values = [
        ("arch", info.arch.map(|arch| arch.name().to_owned()).unwrap_or_default()),
        ("board", text(&info.board)),
        ("asic_id", text(&info.asic_id)),
        ("pci_bus_id", text(&info.pci_bus_id)),
        ("capacity_source", info.capacity_source.unwrap_or_default().to_owned()),
    ];
    more_labels(&values)
}

fn process_info_labels(process: &ProcessSnapshot) -> String {
    let info = process.process.info();
    more_labels(&[("user", info.user.clone()), ("source", info.source.name().to_owned())])
}

fn more_labels(values: &[(&str, String)]) -> String {
    let mut labels = String::new();
    for (name, value) in values {
        labels.push(',');
        labels.push_str(name);
        labels.push_str("=\"");
        escape(value, &mut labels);
        labels.push('"');
    }
    labels
}

/// A label's value as the format wants it: backslash, quote and line feed escaped. Other control characters are legal there, but no
/// terminal should get them from a process's name.
pub fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            other => out.push(other),
        }
    }
}

fn push_float(out: &mut String, value: f64) {
    // Writing into a String cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Identity, MemoryType, ProcessInfo, Registry, Source, Time};

    const NOW: Time = Time { monotonic_ns: 3_000_000_000, unix_ns: 1_700_000_000_000_000_000 };

    fn text(registry: &Registry) -> String {
        let mut out = String::new();
        encode(&registry.snapshot(NOW), 0, &mut out);
        out
    }

    fn process(name: &str) -> ProcessInfo {
        ProcessInfo {
            name: name.into(),
            uid: 0,
            user: "root".into(),
            cgroup: None,
            start_time_seconds: Some(1_699_999_999.5),
            source: Source::Socket,
        }
    }

    #[test]
    fn names_that_processes_give_themselves_cannot_break_the_format() {
        let check = |value: &str, expected: &str| {
            let mut out = String::new();
            escape(value, &mut out);
            assert_eq!(out, expected);
        };
        check("a\"} 1\nfake{b=\"", "a\\\"} 1\\nfake{b=\\\"");
        check("back\\slash", "back\\\\slash");
        check("\x1b[31mred\0", "\u{fffd}[31mred\u{fffd}");
    }

    #[test]
    fn a_family_without_samples_is_not_mentioned() {
        let registry = Registry::default();
        assert!(!text(&registry).contains("ttmem_device"));
        registry.device(3);
        let body = text(&registry);
        assert!(
            body.contains("ttmem_device_memory_usage_bytes{device=\"3\",memory_type=\"dram\"} 0\n"),
            "{body}"
        );
        assert!(!body.contains("ttmem_device_memory_limit_bytes"), "unknown capacity is no sample");
        assert!(!body.contains("ttmem_device_oldest_buffer_timestamp_seconds"), "there is no oldest buffer");
    }

    #[test]
    fn every_family_of_a_process_is_there() {
        let registry = Registry::default();
        let owner = registry.process(Identity { pid: 42, start_ticks: 1 }, || process("llama"));
        registry.batch(&owner, 1_000_000_000).allocate(0, MemoryType::Dram, 1, 5000).expect("new");
        let body = text(&registry);
        for line in [
            "ttmem_device_memory_usage_bytes{device=\"0\",memory_type=\"dram\"} 5000\n",
            "ttmem_process_memory_usage_bytes{device=\"0\",memory_type=\"dram\",pid=\"42\",process=\"llama\"} 5000\n",
            "ttmem_process_info{pid=\"42\",process=\"llama\",user=\"root\",source=\"socket\"} 1\n",
            "ttmem_process_start_time_seconds{pid=\"42\",process=\"llama\"} 1699999999.5\n",
            "ttmem_device_oldest_buffer_timestamp_seconds{device=\"0\",memory_type=\"dram\"} 1699999998\n",
            "ttmem_buffer_size_bytes_bucket{device=\"0\",memory_type=\"dram\",le=\"4096\"} 0\n",
            "ttmem_buffer_size_bytes_bucket{device=\"0\",memory_type=\"dram\",le=\"16384\"} 1\n",
            "ttmem_buffer_size_bytes_sum{device=\"0\",memory_type=\"dram\"} 5000\n",
            "ttmem_device_processes{device=\"0\"} 1\n",
            "ttmem_client_connections{transport=\"socket\",layout=\"72\"} 0\n",
        ] {
            assert!(body.contains(line), "{line} is missing from:\n{body}");
        }
    }

    #[test]
    fn the_number_of_series_is_the_number_of_samples() {
        let registry = Registry::default();
        let owner = registry.process(Identity { pid: 42, start_ticks: 1 }, || process("llama"));
        registry.batch(&owner, 1).allocate(0, MemoryType::Dram, 1, 5000).expect("new");
        let body = text(&registry);
        let samples = body.lines().filter(|line| !line.starts_with('#')).count() as u64;
        let told = body
            .lines()
            .filter_map(|line| line.strip_prefix("ttmem_series")?.split_once(' ')?.1.parse::<u64>().ok());
        assert_eq!(told.sum::<u64>(), samples);
    }
}
