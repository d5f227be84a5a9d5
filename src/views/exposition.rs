//! The METRICS table walked over a snapshot: which families there are and which samples each has, whatever the format.
//!
//! The idea is that labels are put together once, those of a device's memory per walk and those of a process at its birth, and every
//! family then hands a format its name, those labels and a number. The walk stops where a piece is large enough to be sent, and goes on
//! from there: the snapshot does not change meanwhile, so the pieces are one exposition.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeBounds;

use super::series::{Place, Series, Shown, View};
use super::trace::hex;
use crate::registry::metrics::{Kind, LabelledRow, METRICS, Metric, Rows, Samples, Value};
use crate::registry::{
    Container, ContainerNames, DeviceSnapshot, Exemplar, FailureReason, HistogramSnapshot, PlaceExemplars,
    Process, ProcessSnapshot, Snapshot, Time,
};

/// What is written before a piece is handed on: few system calls for a large answer, and little memory for many answers at once. Below
/// what the allocator maps for itself (see `heap`), so that a piece's memory is used again.
pub const PIECE_BYTES: usize = 56 * 1024;
/// Rows that are written between two looks at the size of the piece: few enough that even histograms go little beyond it.
const ROWS_AT_ONCE: usize = 16;

/// A format that families are written in.
pub trait Exposition {
    /// How the format keeps a set of labels: rendered once, written many times.
    type Labels: Send;

    /// Renders labels.
    fn labels(pairs: &[(&str, &str)]) -> Self::Labels;

    /// Renders the labels of a device's memory for samples about processes, once per walk, where the format has a use for that.
    fn leading_labels(pairs: &[(&str, &str)]) -> Vec<u8> {
        let _ = pairs;
        Vec::new()
    }

    /// A family begins; its samples follow.
    fn family(&mut self, metric: &FamilyHead<'_>);

    /// Whether the beginnings of counters and distributions are samples of their own.
    fn has_created_samples(&self) -> bool;

    /// A gauge's or a counter's value. `since` is when a counter began, in seconds since the epoch.
    fn sample(&mut self, labels: &Self::Labels, value: Value, since: f64);

    /// The same about a process, and about what it holds in one place if that is said. A format of bytes writes labels that it rendered
    /// once; this is for the others.
    fn process_sample(&mut self, place: Option<&Place<'_>>, process: &Process, value: Value, since: f64) {
        let mut index = itoa::Buffer::new();
        let pid = process.pid().to_string();
        let own = [("pid", pid.as_str()), ("process", process.info().name.as_str())];
        let labels = match place {
            Some(place) => Self::labels(&[place.pairs(&mut index), own].concat()),
            None => Self::labels(&own),
        };
        self.sample(&labels, value, since);
    }

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

/// A format whose expositions are sent as bytes, in pieces where they are large.
pub trait ByteFormat: Exposition {
    /// How many bytes are ready to be sent.
    fn ready_bytes(&self) -> usize;

    /// Takes what is ready to be sent.
    fn take(&mut self) -> Vec<u8>;

    /// Nothing follows: the rest of the exposition.
    fn finish(self) -> Vec<u8>;
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

/// A walk over the table, from one piece to the next.
pub struct Walk<E: Exposition> {
    snapshot: Snapshot,
    selection: Selection,
    shown: Shown,
    series: Series<E>,
    scopes: Scopes,
    /// The families that have been written.
    families: usize,
    /// What has been written of the next one.
    rows: usize,
    samples: u64,
}

impl<E: Exposition> Walk<E> {
    /// Begins a walk. `daemon_series` is the number of samples that the caller adds for metrics it keeps itself.
    pub fn new(snapshot: Snapshot, selection: Selection, daemon_series: u64) -> Self {
        let shown = Shown::of(&snapshot, selection.processes_max);
        let series = Series::of(&snapshot, &shown);
        let scopes = Scopes { daemon: daemon_series, ..Scopes::default() };
        Walk { snapshot, selection, shown, series, scopes, families: 0, rows: 0, samples: 0 }
    }

    /// Writes some rows of the next wanted family; whether there may be more.
    fn step(&mut self, to: &mut E) -> bool {
        let Some(metric) = METRICS.get(self.families) else { return false };
        if !self.selection.wants(metric.name) {
            self.families += 1;
            return true;
        }
        let rows_all = self.series.rows(&metric.samples);
        let end = rows_all.min(self.rows + ROWS_AT_ONCE);
        let view =
            View { snapshot: &self.snapshot, series: &self.series, shown: &self.shown, rows: self.rows..end };
        let has_created = to.has_created_samples() && metric.kind != Kind::Gauge;
        let samples_each = 1 + u64::from(has_created);
        let mut family = Family { metric, to, samples: self.samples, samples_each };
        family.write(&view, &mut self.scopes);
        (self.rows, self.samples) = (end, family.samples);
        if end == rows_all {
            (self.families, self.rows, self.samples) = (self.families + 1, 0, 0);
        }
        true
    }
}

impl<E: ByteFormat> Walk<E> {
    /// Writes wanted families that have samples, until so many bytes are ready or all have been written; whether there is more.
    pub fn advance(&mut self, to: &mut E, until_bytes: usize) -> bool {
        while self.step(to) {
            if to.ready_bytes() >= until_bytes {
                return true;
            }
        }
        false
    }
}

/// Writes every wanted family of the table that has samples, at once. `daemon_series` is the number of samples that the caller adds for
/// metrics it keeps itself.
pub fn expose<E: Exposition>(snapshot: Snapshot, selection: Selection, daemon_series: u64, to: &mut E) {
    let mut walk = Walk::new(snapshot, selection, daemon_series);
    while walk.step(to) {}
}

/// Samples by what they are about.
#[derive(Default)]
struct Scopes {
    device: u64,
    process: u64,
    container: u64,
    daemon: u64,
}

/// One family on its way out; its head is written with its first sample.
struct Family<'a, E> {
    metric: &'static Metric,
    to: &'a mut E,
    samples: u64,
    /// Two where the beginning of a counter or a distribution is a sample of its own.
    samples_each: u64,
}

impl<E: Exposition> Family<'_, E> {
    fn write(&mut self, view: &View<'_, E>, scopes: &mut Scopes) {
        let (snapshot, shown, before) = (view.snapshot, view.shown, self.samples);
        let started = snapshot.started_seconds();
        let scope = match self.metric.samples {
            Samples::Memory(value) => {
                for (labels, _, memory) in view.device_memory() {
                    self.optional(labels, value(memory), started);
                }
                &mut scopes.device
            }
            Samples::Allocations(value, added) => {
                for (labels, device, memory) in view.device_memory() {
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
                for (labels, device, memory) in view.device_memory() {
                    // Twenty-six series for a memory type that nobody has used would say nothing.
                    if let Some(histogram) = histogram(memory).filter(|histogram| histogram.count() > 0) {
                        let exemplars = snapshot.exemplars.of(device.index, memory.memory_type);
                        self.histogram(labels, histogram, exemplars, started);
                    }
                }
                &mut scopes.device
            }
            Samples::Failures(failures) => {
                for (_, device, memory) in view.device_memory() {
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
                for (_, device, memory) in view.device_memory() {
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
                for (labels, device) in view.devices() {
                    self.optional(labels, value(device), started);
                }
                &mut scopes.device
            }
            Samples::DeviceInfo => {
                for (_, device) in view.devices() {
                    self.device_info(device, started);
                }
                &mut scopes.device
            }
            Samples::ProcessMemory(value) => {
                // A gauge has no beginning.
                let is_counter = self.metric.kind == Kind::Counter;
                for (place, process, memory) in view.process_memory() {
                    if let Some(value) = value(memory) {
                        let since =
                            if is_counter { process.first_seen_seconds(snapshot.time) } else { started };
                        self.process_sample(Some(&place), process, value, since);
                    }
                }
                &mut scopes.process
            }
            Samples::Process(value) => {
                for process in view.processes() {
                    if let Some(value) = value(process) {
                        self.process_sample(None, process, value, started);
                    }
                }
                &mut scopes.process
            }
            Samples::ProcessInfo => {
                for process in view.processes() {
                    self.process_info(process, started);
                }
                &mut scopes.process
            }
            Samples::ContainerMemory(value) => {
                for (labels, since, memory) in view.container_memory() {
                    self.optional(labels, value(memory), since);
                }
                &mut scopes.container
            }
            Samples::Suppressed => {
                for (labels, device) in view.devices() {
                    let suppressed = shown.on(device.index).map_or(0, |crowded| crowded.suppressed);
                    self.sample(labels, Value::Unsigned(suppressed), started);
                }
                &mut scopes.process
            }
            Samples::SuppressedMemory => {
                for (labels, device, memory) in view.device_memory() {
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
            Samples::Labelled(rows) => {
                self.labelled(rows(snapshot), started);
                &mut scopes.daemon
            }
            Samples::Containers(rows) => {
                self.labelled(rows(snapshot), started);
                &mut scopes.container
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
                let own = others.len() as u64 + 1;
                self.rows(&[], &[&others[..], &[("daemon", daemon + own)]].concat(), started);
                return;
            }
            // The caller adds these.
            Samples::Daemon => return,
        };
        *scope += self.samples - before;
    }

    fn optional(&mut self, labels: &E::Labels, value: Option<Value>, since: f64) {
        if let Some(value) = value {
            self.sample(labels, value, since);
        }
    }

    fn rows(&mut self, labels: &[(&str, &str)], rows: Rows<'_>, since: f64) {
        for (name, value) in rows {
            // What has no labels has one row, without a name.
            let own = self.metric.labels.last().map(|label| (*label, *name));
            let pairs: Vec<_> = labels.iter().copied().chain(own).collect();
            self.sample(&E::labels(&pairs), Value::Unsigned(*value), since);
        }
    }

    fn labelled(&mut self, rows: Vec<LabelledRow>, since: f64) {
        for (values, value) in rows {
            let pairs: Vec<_> =
                self.metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
            self.sample(&E::labels(&pairs), value, since);
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
        let slurm_job = info.slurm.as_ref().map(|job| job.job_id.to_string());
        let slurm_step = info.slurm.as_ref().and_then(|job| job.step_id.as_deref());
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
            ("slurm_job_id", slurm_job.as_deref().unwrap_or_default()),
            ("slurm_step_id", slurm_step.unwrap_or_default()),
        ];
        self.sample(&E::labels(&pairs), Value::Unsigned(1), since);
    }

    fn sample(&mut self, labels: &E::Labels, value: Value, since: f64) {
        self.begin();
        self.to.sample(labels, value, since);
    }

    fn process_sample(
        &mut self,
        place: Option<&Place<'_>>,
        process: &ProcessSnapshot,
        value: Value,
        since: f64,
    ) {
        self.begin();
        self.to.process_sample(place, &process.process, value, since);
    }

    fn marked(&mut self, labels: &E::Labels, value: Value, since: f64, mark: &Mark) {
        self.begin();
        self.to.marked_sample(labels, value, since, mark);
    }

    fn histogram(
        &mut self,
        labels: &E::Labels,
        histogram: &HistogramSnapshot,
        exemplars: Option<&PlaceExemplars>,
        since: f64,
    ) {
        self.begin();
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
        // Buckets, the one without a bound, sum and count; one sample has been counted already.
        self.samples += histogram.classic().len() as u64 + 2;
    }

    /// Counts a sample, and writes the head before the first.
    #[inline]
    fn begin(&mut self) {
        if self.samples == 0 {
            let Metric { name, help, kind, .. } = *self.metric;
            self.to.family(&FamilyHead::new(name, help, kind));
        }
        self.samples += self.samples_each;
    }
}

/// Kubernetes' names of a container as labels; never `pod` or `namespace`, which Prometheus would rename when it adds its own.
pub(super) fn kubernetes_labels(names: Option<&ContainerNames>) -> [(&'static str, &str); 3] {
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
