//! The METRICS table walked over a snapshot: which families there are and which samples each has, whatever the format.
//!
//! The idea is that labels are put together once per device, memory type and process, and every family then hands a format its
//! name, those labels and a number.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeBounds;

use super::trace::hex;
use crate::registry::metrics::{Kind, METRICS, Metric, Rows, Samples, Value};
use crate::registry::{
    Container, ContainerMemory, ContainerNames, DeviceSnapshot, Exemplar, FailureReason, HistogramSnapshot,
    MemorySnapshot, MemoryType, PlaceExemplars, ProcessMemory, ProcessSnapshot, Snapshot, Time,
};

/// A format that families are written in.
pub trait Exposition {
    /// How the format keeps a set of labels: rendered once, written many times.
    type Labels;

    /// Renders labels.
    fn labels(pairs: &[(&str, &str)]) -> Self::Labels;

    /// A family begins; its samples follow.
    fn family(&mut self, metric: &FamilyHead<'_>);

    /// Whether the beginnings of counters and distributions are samples of their own.
    fn has_created_samples(&self) -> bool;

    /// A gauge's or a counter's value. `since` is when a counter began, in seconds since the epoch.
    fn sample(&mut self, labels: &Self::Labels, value: Value, since: f64);

    /// A distribution.
    fn histogram(&mut self, labels: &Self::Labels, histogram: &HistogramSnapshot, since: f64);

    /// A counter's value with an exemplar, where the format has a place for one.
    fn marked_sample(&mut self, labels: &Self::Labels, value: Value, since: f64, mark: &Mark) {
        let _ = mark;
        self.sample(labels, value, since);
    }

    /// A distribution with the exemplars of its buckets, where the format has places for them.
    fn marked_histogram(
        &mut self,
        labels: &Self::Labels,
        histogram: &HistogramSnapshot,
        since: f64,
        marks: &BTreeMap<i32, Mark>,
    ) {
        let _ = marks;
        self.histogram(labels, histogram, since);
    }
}

/// An exemplar as a format writes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Mark {
    /// The ids, as hexadecimal digits.
    pub trace_id: String,
    /// Likewise.
    pub span_id: String,
    /// What was observed, or added to a counter.
    pub value: f64,
    /// When, in nanoseconds since the epoch.
    pub at_unix_ns: u64,
}

impl Mark {
    fn new(exemplar: &Exemplar, value: f64) -> Mark {
        let (trace_id, span_id) = (hex(&exemplar.trace_id), hex(&exemplar.span_id));
        Mark { trace_id, span_id, value, at_unix_ns: exemplar.at_unix_ns }
    }

    /// The last of the marks in the buckets of a range of exponents.
    pub fn last_in(marks: &BTreeMap<i32, Mark>, exponents: impl RangeBounds<i32>) -> Option<&Mark> {
        marks.range(exponents).map(|(_, mark)| mark).max_by_key(|mark| mark.at_unix_ns)
    }
}

/// What stands at the head of a family.
#[derive(Clone, Copy, Debug)]
pub struct FamilyHead<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it says.
    pub help: &'a str,
    /// Its type.
    pub kind: Kind,
    /// Its unit, as the name has it: bytes, seconds or one times the other.
    pub unit: Option<&'static str>,
}

impl<'a> FamilyHead<'a> {
    /// The head of a family with that name; the unit is the one that the name ends in.
    pub fn new(name: &'a str, help: &'a str, kind: Kind) -> Self {
        let base = name.strip_suffix("_total").unwrap_or(name);
        let unit = ["byte_seconds", "bytes", "seconds"].into_iter().find(|unit| base.ends_with(unit));
        FamilyHead { name, help, kind, unit }
    }
}

/// What a scraper wants to see.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Families by name; empty means all.
    pub names: HashSet<String>,
    /// Processes that have series of their own, per device.
    pub processes_max: usize,
}

impl Selection {
    /// Whether a family is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }
}

/// Writes every wanted family of the table that has samples. `daemon_series` is the number of samples that the caller adds for
/// metrics it keeps itself.
pub fn expose<E: Exposition>(snapshot: &Snapshot, selection: &Selection, daemon_series: u64, to: &mut E) {
    let shown = Shown::of(snapshot, selection.processes_max);
    let series: Series<'_, E> = Series::of(snapshot, &shown);
    let mut scopes = Scopes { daemon: daemon_series, ..Scopes::default() };
    for metric in METRICS {
        let mut family = Family { metric, to, samples: 0, is_wanted: selection.wants(metric.name) };
        family.write(snapshot, &shown, &series, &mut scopes);
    }
}

/// Samples by what they are about.
#[derive(Default)]
struct Scopes {
    device: u64,
    process: u64,
    container: u64,
    daemon: u64,
}

/// Which processes have series of their own on which device. Ranked by their peak: it only grows, so the choice is steady, and whoever
/// holds much is among them.
struct Shown {
    /// Devices on which everybody has.
    crowded: Vec<CrowdedDevice>,
}

struct CrowdedDevice {
    device: u16,
    shown: HashSet<usize>,
    suppressed: u64,
    suppressed_bytes: [u64; MemoryType::COUNT],
}

impl Shown {
    fn of(snapshot: &Snapshot, processes_max: usize) -> Shown {
        let crowded = snapshot
            .devices
            .iter()
            .filter_map(|device| CrowdedDevice::of(device.index, snapshot, processes_max));
        Shown { crowded: crowded.collect() }
    }

    fn on(&self, device: u16) -> Option<&CrowdedDevice> {
        self.crowded.iter().find(|crowded| crowded.device == device)
    }

    fn shows(&self, process: usize, device: u16) -> bool {
        self.on(device).is_none_or(|crowded| crowded.shown.contains(&process))
    }
}

impl CrowdedDevice {
    fn of(device: u16, snapshot: &Snapshot, processes_max: usize) -> Option<CrowdedDevice> {
        let here = |process: &'_ ProcessSnapshot| {
            let from = process.memory.partition_point(|memory| memory.device < device);
            let to = process.memory.partition_point(|memory| memory.device <= device);
            from..to
        };
        let mut ranked: Vec<_> =
            snapshot.processes.iter().enumerate().filter(|(_, process)| !here(process).is_empty()).collect();
        if ranked.len() <= processes_max {
            return None;
        }
        ranked.sort_by_key(|(_, process)| {
            let peak: u64 =
                process.memory[here(process)].iter().map(|memory| memory.counters.peak_bytes).sum();
            (process.has_ended, std::cmp::Reverse(peak))
        });
        let suppressed = ranked.split_off(processes_max);
        let mut suppressed_bytes = [0; MemoryType::COUNT];
        for memory in suppressed.iter().flat_map(|(_, process)| &process.memory[here(process)]) {
            suppressed_bytes[memory.memory_type.index()] += memory.counters.usage_bytes();
        }
        let shown = ranked.into_iter().map(|(index, _)| index).collect();
        Some(CrowdedDevice { device, shown, suppressed: suppressed.len() as u64, suppressed_bytes })
    }
}

/// Rendered labels, beside what they belong to.
struct Series<'a, E: Exposition> {
    devices: Vec<(E::Labels, &'a DeviceSnapshot)>,
    device_memory: Vec<(E::Labels, &'a DeviceSnapshot, &'a MemorySnapshot)>,
    processes: Vec<(E::Labels, &'a ProcessSnapshot)>,
    process_memory: Vec<(E::Labels, &'a ProcessSnapshot, &'a ProcessMemory)>,
    /// With the beginning of each container's counters, in seconds since the epoch.
    container_memory: Vec<(E::Labels, f64, &'a ContainerMemory)>,
}

impl<'a, E: Exposition> Series<'a, E> {
    fn of(snapshot: &'a Snapshot, shown: &Shown) -> Self {
        let mut index = itoa::Buffer::new();
        let mut series = Series {
            devices: Vec::with_capacity(snapshot.devices.len()),
            device_memory: Vec::new(),
            processes: Vec::with_capacity(snapshot.processes.len()),
            process_memory: Vec::new(),
            container_memory: Vec::new(),
        };
        for device in &snapshot.devices {
            let index = index.format(device.index);
            series.devices.push((E::labels(&[("device", index)]), device));
            for memory in &device.memory {
                let labels = E::labels(&[("device", index), ("memory_type", memory.memory_type.name())]);
                series.device_memory.push((labels, device, memory));
            }
        }
        let mut pid = itoa::Buffer::new();
        for (place, process) in snapshot.processes.iter().enumerate() {
            let pid = pid.format(process.process.pid());
            let name = process.process.info().name.as_str();
            let before = series.process_memory.len();
            for memory in process.memory.iter().filter(|memory| shown.shows(place, memory.device)) {
                let device = index.format(memory.device);
                let memory_type = memory.memory_type.name();
                let pairs =
                    [("device", device), ("memory_type", memory_type), ("pid", pid), ("process", name)];
                series.process_memory.push((E::labels(&pairs), process, memory));
            }
            if series.process_memory.len() > before {
                series.processes.push((E::labels(&[("pid", pid), ("process", name)]), process));
            }
        }
        for container in &snapshot.containers {
            let names = kubernetes_labels(container.names.as_ref());
            let since = snapshot.time.unix_seconds_of(container.since_ns);
            for memory in &container.memory {
                let place =
                    [("device", index.format(memory.device)), ("memory_type", memory.memory_type.name())];
                let labels = E::labels(&[&place[..], &names[..]].concat());
                series.container_memory.push((labels, since, memory));
            }
        }
        series
    }
}

/// One family on its way out; its head is written with its first sample.
struct Family<'a, E> {
    metric: &'static Metric,
    to: &'a mut E,
    samples: u64,
    is_wanted: bool,
}

impl<E: Exposition> Family<'_, E> {
    fn write(&mut self, snapshot: &Snapshot, shown: &Shown, series: &Series<'_, E>, scopes: &mut Scopes) {
        let started = snapshot.started_seconds();
        let scope = match self.metric.samples {
            Samples::Memory(value) => {
                for (labels, _, memory) in &series.device_memory {
                    self.optional(labels, value(memory), started);
                }
                &mut scopes.device
            }
            Samples::Allocations(value, added) => {
                for (labels, device, memory) in &series.device_memory {
                    let Some(value) = value(memory) else { continue };
                    let exemplars = snapshot.exemplars.of(device.index, memory.memory_type);
                    match exemplars.and_then(PlaceExemplars::last) {
                        Some(exemplar) => {
                            self.marked(labels, value, started, &Mark::new(exemplar, added(exemplar)));
                        }
                        None => self.sample(labels, value, started),
                    }
                }
                &mut scopes.device
            }
            Samples::MemoryHistogram(histogram) => {
                for (labels, device, memory) in &series.device_memory {
                    // Twenty-six series for a memory type that nobody has used would say nothing.
                    if let Some(histogram) = histogram(memory).filter(|histogram| histogram.count() > 0) {
                        let exemplars = snapshot.exemplars.of(device.index, memory.memory_type);
                        self.histogram(labels, histogram, exemplars, started);
                    }
                }
                &mut scopes.device
            }
            Samples::Failures(failures) => {
                for (_, device, memory) in &series.device_memory {
                    let index = device.index.to_string();
                    let counts = failures(memory).into_iter().flatten();
                    for (reason, count) in FailureReason::ALL.into_iter().zip(counts) {
                        let pairs = [
                            ("device", index.as_str()),
                            ("memory_type", memory.memory_type.name()),
                            ("reason", reason.name()),
                        ];
                        self.sample(&E::labels(&pairs), Value::Unsigned(count), started);
                    }
                }
                &mut scopes.device
            }
            Samples::Drift(value) => {
                for (_, device, memory) in &series.device_memory {
                    if let Some(value) = value(memory) {
                        let index = device.index.to_string();
                        let pairs = [
                            ("device", index.as_str()),
                            ("memory_type", memory.memory_type.name()),
                            ("source", "shm"),
                        ];
                        self.sample(&E::labels(&pairs), value, started);
                    }
                }
                &mut scopes.device
            }
            Samples::Device(value) => {
                for (labels, device) in &series.devices {
                    self.optional(labels, value(device), started);
                }
                &mut scopes.device
            }
            Samples::DeviceInfo => {
                for (_, device) in &series.devices {
                    self.device_info(device, started);
                }
                &mut scopes.device
            }
            Samples::ProcessMemory(value) => {
                for (labels, process, memory) in &series.process_memory {
                    self.optional(labels, value(memory), process.first_seen_seconds(snapshot.time));
                }
                &mut scopes.process
            }
            Samples::Process(value) => {
                for (labels, process) in &series.processes {
                    self.optional(labels, value(process), started);
                }
                &mut scopes.process
            }
            Samples::ProcessInfo => {
                for (_, process) in &series.processes {
                    self.process_info(process, started);
                }
                &mut scopes.process
            }
            Samples::ContainerMemory(value) => {
                for (labels, since, memory) in &series.container_memory {
                    self.optional(labels, value(memory), *since);
                }
                &mut scopes.container
            }
            Samples::Suppressed => {
                for (labels, device) in &series.devices {
                    let suppressed = shown.on(device.index).map_or(0, |crowded| crowded.suppressed);
                    self.sample(labels, Value::Unsigned(suppressed), started);
                }
                &mut scopes.process
            }
            Samples::SuppressedMemory => {
                for (labels, device, memory) in &series.device_memory {
                    let bytes = shown
                        .on(device.index)
                        .map(|crowded| crowded.suppressed_bytes[memory.memory_type.index()]);
                    self.optional(labels, bytes.map(Value::Unsigned), started);
                }
                &mut scopes.process
            }
            Samples::Rows(rows) => {
                self.rows(&[], rows(snapshot), started);
                &mut scopes.daemon
            }
            Samples::Connections(transports) => {
                for (transport, rows) in transports {
                    self.rows(&[("transport", transport)], rows(snapshot), started);
                }
                &mut scopes.daemon
            }
            Samples::Series => {
                let Scopes { device, process, container, daemon } = *scopes;
                let others = [("device", device), ("process", process), ("container", container)];
                let own = if self.is_wanted { others.len() as u64 + 1 } else { 0 };
                self.rows(&[], &[&others[..], &[("daemon", daemon + own)]].concat(), started);
                return;
            }
            // The caller adds these.
            Samples::Daemon => return,
        };
        *scope += self.samples;
    }

    fn optional(&mut self, labels: &E::Labels, value: Option<Value>, since: f64) {
        if let Some(value) = value {
            self.sample(labels, value, since);
        }
    }

    fn rows(&mut self, labels: &[(&str, &str)], rows: Rows<'_>, since: f64) {
        let label = self.metric.labels.last().copied().unwrap_or_default();
        for (name, value) in rows {
            let pairs: Vec<_> = labels.iter().copied().chain([(label, *name)]).collect();
            self.sample(&E::labels(&pairs), Value::Unsigned(*value), since);
        }
    }

    fn device_info(&mut self, device: &DeviceSnapshot, since: f64) {
        let info = &device.info;
        let index = device.index.to_string();
        self.sample(
            &E::labels(&[
                ("device", &index),
                ("arch", info.arch.map_or("", |arch| arch.name())),
                ("board", info.board.as_deref().unwrap_or_default()),
                ("asic_id", info.asic_id.as_deref().unwrap_or_default()),
                ("pci_bus_id", info.pci_bus_id.as_deref().unwrap_or_default()),
                ("capacity_source", info.capacity_source.unwrap_or_default()),
            ]),
            Value::Unsigned(1),
            since,
        );
    }

    fn process_info(&mut self, process: &ProcessSnapshot, since: f64) {
        let info = process.process.info();
        let process_id = process.process.pid().to_string();
        let container = info.container.as_deref();
        let [namespace, pod, name] = kubernetes_labels(container.and_then(Container::names));
        let pairs = [
            ("pid", process_id.as_str()),
            ("process", &info.name),
            ("user", &info.user),
            ("source", info.source.name()),
            namespace,
            pod,
            name,
            ("k8s_pod_uid", container.and_then(Container::pod_uid).unwrap_or_default()),
            ("container_id", container.map_or("", Container::id)),
        ];
        self.sample(&E::labels(&pairs), Value::Unsigned(1), since);
    }

    fn sample(&mut self, labels: &E::Labels, value: Value, since: f64) {
        if self.begin() {
            self.to.sample(labels, value, since);
        }
    }

    fn marked(&mut self, labels: &E::Labels, value: Value, since: f64, mark: &Mark) {
        if self.begin() {
            self.to.marked_sample(labels, value, since, mark);
        }
    }

    fn histogram(
        &mut self,
        labels: &E::Labels,
        histogram: &HistogramSnapshot,
        exemplars: Option<&PlaceExemplars>,
        since: f64,
    ) {
        if self.begin() {
            match exemplars {
                Some(exemplars) => {
                    let scale = histogram.scale();
                    let buckets = exemplars.buckets(scale).iter();
                    let marks = buckets
                        .map(|(exponent, exemplar)| (*exponent, Mark::new(exemplar, exemplar.value(scale))));
                    self.to.marked_histogram(labels, histogram, since, &marks.collect());
                }
                None => self.to.histogram(labels, histogram, since),
            }
        }
        // Buckets, the one without a bound, sum and count; one sample has been counted already.
        self.samples += if self.is_wanted { histogram.classic().count() as u64 + 2 } else { 0 };
    }

    /// Counts a sample, and writes the head before the first; false if the family is not wanted.
    fn begin(&mut self) -> bool {
        if self.is_wanted && self.samples == 0 {
            let Metric { name, help, kind, .. } = *self.metric;
            self.to.family(&FamilyHead::new(name, help, kind));
        }
        if self.is_wanted {
            self.samples += 1 + u64::from(self.to.has_created_samples() && self.metric.kind != Kind::Gauge);
        }
        self.is_wanted
    }
}

/// Kubernetes' names of a container as labels; never `pod` or `namespace`, which Prometheus would rename when it adds its own.
fn kubernetes_labels(names: Option<&ContainerNames>) -> [(&'static str, &str); 3] {
    let name = |of: fn(&ContainerNames) -> &String| names.map_or("", |names| of(names).as_str());
    [
        ("k8s_namespace_name", name(|names| &names.namespace)),
        ("k8s_pod_name", name(|names| &names.pod)),
        ("k8s_container_name", name(|names| &names.container)),
    ]
}

/// Seconds since the epoch of a moment of the registry's clock.
impl ProcessSnapshot {
    fn first_seen_seconds(&self, now: Time) -> f64 {
        now.unix_seconds_of(self.process.first_seen_ns())
    }
}

impl Snapshot {
    fn started_seconds(&self) -> f64 {
        self.time.unix_seconds_of(self.started_ns)
    }
}
