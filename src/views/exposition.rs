//! The METRICS table walked over a snapshot: which families there are and which samples each has, whatever the format.
//!
//! The idea is that labels are put together once, those of a device's memory per walk and those of a process at its birth, and every
//! family then hands a format its name, those labels and a number. The walk stops where a piece is large enough to be sent, and goes on
//! from there: the snapshot does not change meanwhile, so the pieces are one exposition.

use std::collections::HashSet;

use super::series::{Series, Shown, View, process_labels};
use crate::registry::metrics::{Kind, METRICS, Metric, Rows, Samples, Value};
use crate::registry::{DeviceSnapshot, HistogramSnapshot, ProcessSnapshot, Rendering, Snapshot, Time};

/// What is written before a piece is handed on: few system calls for a large answer, and little memory for many answers at once. Below
/// what the allocator maps for itself (see `heap`), so that a piece's memory is used again.
pub const PIECE_BYTES: usize = 56 * 1024;
/// Rows that are written between two looks at the size of the piece: few enough that even histograms go little beyond it.
const ROWS_AT_ONCE: usize = 16;

/// A format that families are written in.
pub trait Exposition {
    /// How the format keeps a set of labels: rendered once, written many times.
    type Labels: Send;

    /// Which of the renderings that are kept with a process is this format's.
    const RENDERING: Rendering;

    /// Renders labels.
    fn labels(pairs: &[(&str, &str)]) -> Self::Labels;

    /// Renders the first of the labels of a sample, which others follow.
    fn leading_labels(pairs: &[(&str, &str)]) -> Vec<u8>;

    /// Renders the last of the labels of a sample.
    fn closing_labels(pairs: &[(&str, &str)]) -> Vec<u8>;

    /// A family begins; its samples follow.
    fn family(&mut self, metric: &FamilyHead<'_>);

    /// Whether the beginnings of counters and distributions are samples of their own.
    fn has_created_samples(&self) -> bool;

    /// A gauge's or a counter's value. `since` is when a counter began, in seconds since the epoch.
    fn sample(&mut self, labels: &Self::Labels, value: Value, since: f64);

    /// The same with labels in two parts: the leading ones, which may be missing, and the closing ones.
    fn sample_in_parts(&mut self, leading: &[u8], closing: &[u8], value: Value, since: f64);

    /// A distribution.
    fn histogram(&mut self, labels: &Self::Labels, histogram: &HistogramSnapshot, since: f64);

    /// How many bytes are ready to be sent.
    fn ready_bytes(&self) -> usize;

    /// Takes what is ready to be sent.
    fn take(&mut self) -> Vec<u8>;

    /// Nothing follows: the rest of the exposition.
    fn finish(self) -> Vec<u8>;
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
    /// Its unit, as the name has it: bytes or seconds.
    pub unit: Option<&'static str>,
}

impl<'a> FamilyHead<'a> {
    /// The head of a family with that name; the unit is the one that the name ends in.
    pub fn new(name: &'a str, help: &'a str, kind: Kind) -> Self {
        let base = name.strip_suffix("_total").unwrap_or(name);
        let unit = ["bytes", "seconds"].into_iter().find(|unit| base.ends_with(unit));
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

    /// Writes wanted families that have samples, until so many bytes are ready or all have been written; whether there is more.
    pub fn advance(&mut self, to: &mut E, until_bytes: usize) -> bool {
        while let Some(metric) = METRICS.get(self.families) {
            if to.ready_bytes() >= until_bytes {
                return true;
            }
            if !self.selection.wants(metric.name) {
                self.families += 1;
                continue;
            }
            let rows_all = self.series.rows(&metric.samples);
            let end = rows_all.min(self.rows + ROWS_AT_ONCE);
            let view = View {
                snapshot: &self.snapshot,
                series: &self.series,
                shown: &self.shown,
                rows: self.rows..end,
            };
            let has_created = to.has_created_samples() && metric.kind != Kind::Gauge;
            let samples_each = 1 + u64::from(has_created);
            let mut family = Family { metric, to, samples: self.samples, samples_each };
            family.write(&view, &mut self.scopes);
            (self.rows, self.samples) = (end, family.samples);
            if end == rows_all {
                (self.families, self.rows, self.samples) = (self.families + 1, 0, 0);
            }
        }
        false
    }
}

/// Samples by what they are about.
#[derive(Default)]
struct Scopes {
    device: u64,
    process: u64,
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
            Samples::MemoryHistogram(histogram) => {
                for (labels, _, memory) in view.device_memory() {
                    // Twenty-six series for a memory type that nobody has used would say nothing.
                    if let Some(histogram) = histogram(memory).filter(|histogram| histogram.count() > 0) {
                        self.histogram(labels, histogram, started);
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
                for (leading, process, memory) in view.process_memory() {
                    if let Some(value) = value(memory) {
                        let since =
                            if is_counter { process.first_seen_seconds(snapshot.time) } else { started };
                        self.process_sample(leading, process, value, since);
                    }
                }
                &mut scopes.process
            }
            Samples::Process(value) => {
                for process in view.processes() {
                    if let Some(value) = value(process) {
                        self.process_sample(&[], process, value, started);
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
            Samples::Connections(rows) => {
                self.rows(&[("transport", "socket")], rows(snapshot), started);
                &mut scopes.daemon
            }
            Samples::Series => {
                let Scopes { device, process, daemon } = *scopes;
                let rows = [("device", device), ("process", process), ("daemon", daemon)];
                let own = rows.len() as u64;
                self.rows(&[], &[rows[0], rows[1], ("daemon", daemon + own)], started);
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
        let pid = process.process.pid().to_string();
        let pairs = [
            ("pid", pid.as_str()),
            ("process", &info.name),
            ("user", &info.user),
            ("source", info.source.name()),
        ];
        self.sample(&E::labels(&pairs), Value::Unsigned(1), since);
    }

    fn sample(&mut self, labels: &E::Labels, value: Value, since: f64) {
        self.begin();
        self.to.sample(labels, value, since);
    }

    fn process_sample(&mut self, leading: &[u8], process: &ProcessSnapshot, value: Value, since: f64) {
        self.begin();
        self.to.sample_in_parts(leading, process_labels::<E>(process), value, since);
    }

    fn histogram(&mut self, labels: &E::Labels, histogram: &HistogramSnapshot, since: f64) {
        self.begin();
        self.to.histogram(labels, histogram, since);
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
