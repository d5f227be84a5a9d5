//! The place of a process in a trace, as a W3C `traceparent` says it, in the fields of a TRACE_CONTEXT.

use crate::{Header, Kind};

/// What a `traceparent` says: which trace, which span of it is the parent, and its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TraceContext {
    /// The 16 bytes of the trace's id, in the order of its hexadecimal digits.
    pub trace_id: [u8; 16],
    /// The 8 bytes of the parent span's id, in the order of its hexadecimal digits.
    pub parent_id: [u8; 8],
    /// The flags; bit 0 says that the trace is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// What a TRACE_CONTEXT says. `None` if an id is all zero, which W3C calls invalid: the peer is at fault.
    pub fn decode(message: &Header) -> Option<TraceContext> {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&message.size_bytes.to_le_bytes());
        trace_id[8..].copy_from_slice(&message.buffer_id.to_le_bytes());
        let parent_id = message.timestamp_ns.to_le_bytes();
        let is_valid = trace_id != [0; 16] && parent_id != [0; 8];
        is_valid.then_some(TraceContext { trace_id, parent_id, flags: message.buffer_type })
    }

    /// The TRACE_CONTEXT that says this about the peer.
    pub fn encode(&self) -> Header {
        let half =
            |from: usize| u64::from_le_bytes(core::array::from_fn(|index| self.trace_id[from + index]));
        Header {
            size_bytes: half(0),
            buffer_id: half(8),
            timestamp_ns: u64::from_le_bytes(self.parent_id),
            buffer_type: self.flags,
            ..Header::request(Kind::TraceContext)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_stand_in_the_frame_as_in_the_traceparent() {
        let context = TraceContext {
            trace_id: core::array::from_fn(|index| 0x10 + index as u8),
            parent_id: core::array::from_fn(|index| 0xa0 + index as u8),
            flags: 1,
        };
        let frame = context.encode().encode();
        assert_eq!((&frame[8..16], &frame[24..32]), (&context.trace_id[..8], &context.trace_id[8..]));
        assert_eq!((&frame[32..40], frame[16]), (&context.parent_id[..], 1));
        assert_eq!(TraceContext::decode(&context.encode()), Some(context));
    }

    #[test]
    fn an_id_of_zeros_is_none() {
        let context = TraceContext { trace_id: [1; 16], parent_id: [2; 8], flags: 0 };
        for invalid in
            [TraceContext { trace_id: [0; 16], ..context }, TraceContext { parent_id: [0; 8], ..context }]
        {
            assert_eq!(TraceContext::decode(&invalid.encode()), None);
        }
    }
}
