//! Log records: what an operator searches for.

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::attributes::{self as key, any, number, text};
use super::span::{Process, failure_attributes, leak_attributes};
use crate::registry::{AllocationFailure, FailureReason, Orphaned, RejectedPeer, Suspicion, Time};

/// A device had no room.
pub fn allocation_failed(
    process: &Process,
    failure: &AllocationFailure,
    suppressed: u64,
    time: Time,
) -> LogRecord {
    let AllocationFailure { device, memory_type, requested_bytes, free_bytes, .. } = *failure;
    let memory = memory_type.name();
    let largest = failure.largest_free_block_bytes;
    let body = match failure.reason() {
        FailureReason::Exhausted => {
            format!(
                "out of memory: {requested_bytes} bytes of {memory} wanted on device {device}, {free_bytes} free"
            )
        }
        FailureReason::Fragmented => format!(
            "out of memory: {requested_bytes} bytes of {memory} wanted on device {device}, {free_bytes} free, \
             but no more than {largest} in one block"
        ),
    };
    let mut attributes = failure_attributes(failure);
    attributes.push(number(key::SUPPRESSED, suppressed));
    about(process, record("allocation_failed", SeverityNumber::Error, body, failure.at_ns, attributes, time))
}

/// A process ended and held memory.
pub fn orphaned(process: &Process, orphaned: Orphaned, at_ns: u64, suppressed: u64, time: Time) -> LogRecord {
    let Orphaned { buffers, bytes } = orphaned;
    let body = format!("process ended with {buffers} buffers held, {bytes} bytes; reclaimed them");
    let attributes = vec![
        number(key::BUFFERS_ORPHANED, buffers),
        number(key::MEMORY_ORPHANED, bytes),
        number(key::SUPPRESSED, suppressed),
    ];
    about(process, record("memory_orphaned", SeverityNumber::Warn, body, at_ns, attributes, time))
}

/// What a process holds looks like a leak.
pub fn leak_suspected(process: &Process, suspicion: &Suspicion, suppressed: u64, time: Time) -> LogRecord {
    let Suspicion { device, memory_type, evidence, .. } = suspicion;
    let body = format!("leak of {} on device {device} suspected: {evidence}", memory_type.name());
    let at_ns = suspicion.since_ns.unwrap_or(time.monotonic_ns);
    let mut attributes = leak_attributes(suspicion);
    attributes.push(number(key::SUPPRESSED, suppressed));
    about(process, record("leak_suspected", SeverityNumber::Warn, body, at_ns, attributes, time))
}

/// A peer was not believed or not served.
pub fn peer_rejected(peer: &RejectedPeer, time: Time) -> LogRecord {
    let RejectedPeer { pid, reason, suppressed, at_ns } = *peer;
    let body = format!("peer rejected: {}", reason.name());
    let attributes = vec![
        number(key::PROCESS_PID, u64::from(pid)),
        text(key::REASON, reason.name()),
        number(key::SUPPRESSED, suppressed),
    ];
    record("peer_rejected", SeverityNumber::Warn, body, at_ns, attributes, time)
}

/// With the process and its span.
fn about(process: &Process, mut record: LogRecord) -> LogRecord {
    record.attributes.push(number(key::PROCESS_PID, u64::from(process.process.pid())));
    record.attributes.push(text(key::PROCESS_NAME, &process.process.info().name));
    let (trace_id, span_id) = (process.ids.trace_id.to_vec(), process.ids.root_id.to_vec());
    LogRecord { trace_id, span_id, flags: 1, ..record }
}

fn record(
    event_name: &str,
    severity: SeverityNumber,
    body: String,
    at_ns: u64,
    attributes: Vec<KeyValue>,
    time: Time,
) -> LogRecord {
    let severity_text = if severity == SeverityNumber::Error { "ERROR" } else { "WARN" };
    LogRecord {
        time_unix_nano: time.unix_ns_of(at_ns),
        observed_time_unix_nano: time.unix_ns,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        body: Some(any(Value::StringValue(body))),
        attributes,
        event_name: format!("tenstorrent.{event_name}"),
        ..LogRecord::default()
    }
}
