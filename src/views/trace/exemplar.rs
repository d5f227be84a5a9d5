//! A buffer's span as an exemplar of the distributions and counters that the buffer was counted in.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::attributes::{self as key, number_of, text_of};
use crate::registry::{Exemplar, MemoryType};

/// The place and the figures of a buffer's span; `None` for a span that is about anything else.
pub fn exemplar(span: &Span) -> Option<(u16, MemoryType, Exemplar)> {
    let size_bytes = number_of(&span.attributes, key::BUFFER_SIZE)?;
    let device = u16::try_from(number_of(&span.attributes, key::DEVICE)?).ok()?;
    let memory_type = MemoryType::from_name(text_of(&span.attributes, key::MEMORY_TYPE)?)?;
    let exemplar = Exemplar {
        trace_id: span.trace_id.as_slice().try_into().ok()?,
        span_id: span.span_id.as_slice().try_into().ok()?,
        size_bytes,
        lifetime_ns: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        at_unix_ns: span.end_time_unix_nano,
    };
    Some((device, memory_type, exemplar))
}
