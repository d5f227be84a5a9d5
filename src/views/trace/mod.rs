//! What happened, as OpenTelemetry's spans and log records: pure functions of occurrences, and the ids that anybody can compute.

mod attributes;
mod exemplar;
mod ids;
mod log;
mod span;

pub use exemplar::exemplar;
pub use ids::{Host, ProcessIds, SpanId, TraceId, hex};
pub use log::{allocation_failed, leak_suspected, orphaned, peer_rejected};
pub use span::{Interval, Process, RootEnd, failure_event, leak_event, peak_event};
