//! What metrics and labels are called in OpenTelemetry, by its conventions for hardware, processes, Kubernetes and exporters.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

use super::super::exposition::FamilyHead;
use crate::registry::metrics::{self, Kind, Metric};

/// What the conventions say of a GPU holds for these devices.
const HARDWARE_TYPE: &str = "gpu";
const VENDOR: &str = "Tenstorrent";

pub(super) const UTILIZATION_HELP: &str = "Share of a device's memory that is held.";

/// Where the part of a name stands that a signal decides.
const ITEM: &str = "{item}";

/// What kind of number a metric is, in OpenTelemetry's distinction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Instrument {
    /// Not to be added up.
    Gauge,
    /// Goes up and down, and sums make sense.
    UpDownCounter,
    /// Only goes up.
    Counter,
    /// A distribution.
    Histogram,
}

/// A metric's name, unit and kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    name: &'static str,
    pub(super) unit: &'static str,
    pub(super) instrument: Instrument,
}

/// The daemon's own process, as the `prometheus` crate's collector names it.
const PROCESS: &[(&str, Name)] = &[
    (
        "process_cpu_seconds_total",
        Name { name: "process.cpu.time", unit: "s", instrument: Instrument::Counter },
    ),
    (
        "process_resident_memory_bytes",
        Name { name: "process.memory.usage", unit: "By", instrument: Instrument::UpDownCounter },
    ),
    (
        "process_virtual_memory_bytes",
        Name { name: "process.memory.virtual", unit: "By", instrument: Instrument::UpDownCounter },
    ),
    (
        "process_open_fds",
        Name {
            name: "process.unix.file_descriptor.count",
            unit: "{file_descriptor}",
            instrument: Instrument::UpDownCounter,
        },
    ),
    (
        "process_threads",
        Name { name: "process.thread.count", unit: "{thread}", instrument: Instrument::UpDownCounter },
    ),
];

/// A label, and the attribute that says the same; what is not here is an attribute of ours.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("device", "hw.id"),
    ("board", "hw.model"),
    ("asic_id", "hw.serial_number"),
    ("memory_type", "tenstorrent.memory.type"),
    ("pid", "process.pid"),
    ("process", "process.executable.name"),
    ("user", "process.owner"),
    ("reason", "error.type"),
    ("container_id", "container.id"),
];

/// The name of a family; none for what OpenTelemetry says otherwise, or not at all.
pub(super) fn of(head: &FamilyHead<'_>) -> Option<Name> {
    if let Some((_, name)) = PROCESS.iter().find(|(known, _)| *known == head.name) {
        return Some(*name);
    }
    let Metric { opentelemetry, unit, kind, .. } = metrics::metric(head.name)?;
    let name = (*opentelemetry)?;
    let instrument = match kind {
        Kind::Counter => Instrument::Counter,
        Kind::Histogram => Instrument::Histogram,
        // The conventions for hardware have bytes as counters that go up and down, so that devices can be added up.
        Kind::Gauge if name.starts_with("hw.") => Instrument::UpDownCounter,
        Kind::Gauge => Instrument::Gauge,
    };
    Some(Name { name, unit, instrument })
}

impl Name {
    /// What /metrics leaves to PromQL.
    pub(super) fn utilization() -> Name {
        Name { name: "hw.gpu.memory.utilization", unit: "1", instrument: Instrument::Gauge }
    }

    /// The name, for one kind of item where it depends on that.
    pub(super) fn for_item(&self, item: Option<&str>) -> Cow<'static, str> {
        match item {
            Some(item) => Cow::Owned(self.name.replace(ITEM, item)),
            None => Cow::Borrowed(self.name),
        }
    }
}

/// What the conventions call an item of a signal.
pub(super) fn item(signal: &str) -> Option<&'static str> {
    match signal {
        "traces" => Some("span"),
        "metrics" => Some("metric_data_point"),
        "logs" => Some("log"),
        _ => None,
    }
}

/// Adds what a label says. One without a value says nothing.
pub(super) fn add_attributes(label: &str, value: &str, attributes: &mut Vec<KeyValue>) {
    if value.is_empty() {
        return;
    }
    let name = ATTRIBUTES.iter().find(|(known, _)| *known == label).map(|(_, name)| *name);
    match (label, name) {
        ("pid", Some(name)) => attributes.push(attribute(name, number(value))),
        // It is in the name already.
        ("signal", _) => {}
        ("device", Some(name)) => {
            attributes.push(attribute(name, text(value)));
            attributes.push(attribute("hw.type", text(HARDWARE_TYPE)));
        }
        ("board", Some(name)) => {
            attributes.push(attribute(name, text(value)));
            attributes.push(attribute("hw.vendor", text(VENDOR)));
        }
        (_, Some(name)) => attributes.push(attribute(name, text(value))),
        (_, None) => {
            let dotted = label.replace('_', ".");
            let name = if dotted.starts_with("k8s.") { dotted } else { format!("tenstorrent.{dotted}") };
            attributes.push(attribute(&name, text(value)));
        }
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn number(value: &str) -> Value {
    value.parse().map_or_else(|_| text(value), Value::IntValue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_says_the_same() {
        let reference = include_str!("../../../METRICS.md");
        for (label, attribute) in ATTRIBUTES {
            assert!(reference.contains(&format!("| `{label}` | `{attribute}`")), "{label}");
        }
        for (_, Name { name, .. }) in PROCESS {
            assert!(reference.contains(&format!("`{name}`")), "{name}");
        }
        assert!(reference.contains(&format!("`{}`", Name::utilization().name)));
    }
}
