//! Attributes: OpenTelemetry's names where its conventions have one, `tenstorrent.*` otherwise.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};

pub(super) const PROCESS_PID: &str = "process.pid";
pub(super) const PROCESS_NAME: &str = "process.executable.name";
pub(super) const PROCESS_OWNER: &str = "process.owner";
pub(super) const PROCESS_CGROUP: &str = "process.linux.cgroup";
pub(super) const CONTAINER_ID: &str = "container.id";
pub(super) const POD_UID: &str = "k8s.pod.uid";
pub(super) const POD_NAME: &str = "k8s.pod.name";
pub(super) const POD_NAMESPACE: &str = "k8s.namespace.name";
pub(super) const POD_CONTAINER: &str = "k8s.container.name";
pub(super) const HOST_NAME: &str = "host.name";
pub(super) const HW_ID: &str = "hw.id";
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const DEVICE: &str = "tenstorrent.device";
pub(super) const DEVICES: &str = "tenstorrent.devices";
pub(super) const MEMORY_TYPE: &str = "tenstorrent.memory.type";
pub(super) const MEMORY_USAGE: &str = "tenstorrent.memory.usage";
pub(super) const MEMORY_PEAK: &str = "tenstorrent.memory.peak";
pub(super) const MEMORY_ALLOCATED: &str = "tenstorrent.memory.allocated";
pub(super) const MEMORY_FREED: &str = "tenstorrent.memory.freed";
pub(super) const MEMORY_ORPHANED: &str = "tenstorrent.memory.orphaned";
pub(super) const ALLOCATIONS: &str = "tenstorrent.memory.allocations";
pub(super) const FREES: &str = "tenstorrent.memory.frees";
pub(super) const REQUESTED: &str = "tenstorrent.memory.requested";
pub(super) const FREE: &str = "tenstorrent.memory.free";
pub(super) const LARGEST_FREE_BLOCK: &str = "tenstorrent.memory.largest_free_block";
pub(super) const GROWTH: &str = "tenstorrent.memory.growth";
pub(super) const GROWTH_BUFFERS: &str = "tenstorrent.buffer.growth";
pub(super) const LEAK_SCORE: &str = "tenstorrent.leak.score";
pub(super) const LEAK_EVIDENCE: &str = "tenstorrent.leak.evidence";
pub(super) const BUFFER_ID: &str = "tenstorrent.buffer.id";
pub(super) const BUFFER_SIZE: &str = "tenstorrent.buffer.size";
pub(super) const BUFFER_END: &str = "tenstorrent.buffer.end";
pub(super) const BUFFER_COUNT: &str = "tenstorrent.buffer.count";
pub(super) const BUFFERS_ORPHANED: &str = "tenstorrent.buffer.orphaned";
pub(super) const TRACKING_END: &str = "tenstorrent.tracking.end";
/// Nanoseconds since the host's boot, as the span's id was derived from.
pub(super) const BOOT_TIME: &str = "tenstorrent.start.boottime";
pub(super) const REASON: &str = "tenstorrent.reason";
pub(super) const SUPPRESSED: &str = "tenstorrent.suppressed";

pub(super) fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(super) fn number(key: &str, value: u64) -> KeyValue {
    // A size that is larger than any machine's memory is refused long before this.
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

pub(super) fn float(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

pub(super) fn numbers(key: &str, values: impl IntoIterator<Item = u16>) -> KeyValue {
    let values = values.into_iter().map(|value| any(Value::IntValue(i64::from(value)))).collect();
    attribute(key, Value::ArrayValue(ArrayValue { values }))
}

/// A device's index, and the same as hw.*'s required id.
pub(super) fn device(index: u16) -> [KeyValue; 2] {
    [text(HW_ID, &index.to_string()), number(DEVICE, u64::from(index))]
}

/// The number that an attribute has.
pub(super) fn number_of(attributes: &[KeyValue], key: &str) -> Option<u64> {
    match value_of(attributes, key)? {
        Value::IntValue(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

/// The text that an attribute has.
pub(super) fn text_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    match value_of(attributes, key)? {
        Value::StringValue(value) => Some(value),
        _ => None,
    }
}

fn value_of<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}
