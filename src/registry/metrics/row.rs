//! What a row of the METRICS table is made of.

use crate::registry::{
    ContainerMemory, DeviceSnapshot, Exemplar, FailureReason, HistogramSnapshot, MemorySnapshot,
    ProcessMemory, ProcessSnapshot, Snapshot,
};

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name in Prometheus, unit and `_total` included.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its unit in OpenTelemetry's spelling (UCUM).
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// Its name in OpenTelemetry; `None` where it is a resource attribute or is not exported.
    pub opentelemetry: Option<&'static str>,
    /// Where its samples come from.
    pub samples: Samples,
}

/// A metric's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// The type's name in Prometheus.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// A sample's value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// A count or a number of bytes.
    Unsigned(u64),
    /// A difference.
    Signed(i64),
    /// Seconds.
    Float(f64),
}

/// Label values with a number, for families that have few series.
pub type Rows<'a> = &'a [(&'static str, u64)];

/// How a metric's samples are read. Each variant stands for a set of labels; `None` means that there is no sample.
#[derive(Clone, Copy, Debug)]
pub enum Samples {
    /// Per device and memory type.
    Memory(fn(&MemorySnapshot) -> Option<Value>),
    /// The same for a counter of allocations, with what one of them added to it: the last one with a span is its exemplar.
    Allocations(fn(&MemorySnapshot) -> Option<Value>, fn(&Exemplar) -> f64),
    /// Per device and memory type, a distribution.
    MemoryHistogram(fn(&MemorySnapshot) -> Option<&HistogramSnapshot>),
    /// Per device, memory type and reason of a failure.
    Failures(fn(&MemorySnapshot) -> Option<[u64; FailureReason::ALL.len()]>),
    /// Per device, memory type and other source.
    Drift(fn(&MemorySnapshot) -> Option<Value>),
    /// Per device.
    Device(fn(&DeviceSnapshot) -> Option<Value>),
    /// Always 1, with what is known about a device as labels.
    DeviceInfo,
    /// Per process, device and memory type.
    ProcessMemory(fn(&ProcessMemory) -> Option<Value>),
    /// Per process.
    Process(fn(&ProcessSnapshot) -> Option<Value>),
    /// Always 1, with what is known about a process as labels.
    ProcessInfo,
    /// Per device: the number of processes without series of their own, known only to the encoder.
    Suppressed,
    /// Per device and memory type: what those processes hold.
    SuppressedMemory,
    /// Per container, device and memory type.
    ContainerMemory(fn(&ContainerMemory) -> Option<Value>),
    /// One label with a fixed set of values.
    Rows(fn(&Snapshot) -> Rows<'_>),
    /// About the daemon: few samples, whose label values are made anew.
    Labelled(fn(&Snapshot) -> Vec<LabelledRow>),
    /// The same per container.
    Containers(fn(&Snapshot) -> Vec<LabelledRow>),
    /// Open connections: one row for each layout, over each transport.
    Connections(&'static [Transport]),
    /// The number of series of each scope in the same exposition: known only to the encoder.
    Series,
    /// About the daemon itself, which keeps the value outside the registry.
    Daemon,
}

/// The values of a metric's labels, in their order, with a sample's value.
pub type LabelledRow = (Vec<String>, Value);

/// A way in which reports come, and the rows of the connections that use it.
pub type Transport = (&'static str, fn(&Snapshot) -> Rows<'_>);
