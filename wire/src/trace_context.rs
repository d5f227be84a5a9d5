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

/// The characters of a `traceparent` of version 00; later ones may go on behind a hyphen.
const TRACEPARENT_CHARACTERS: usize = 55;

impl TraceContext {
    /// What a `traceparent` says, as it stands in a header or in the environment variable TRACEPARENT. `None` if it is not a valid one.
    pub fn parse(traceparent: &str) -> Option<TraceContext> {
        let (known, rest) = traceparent.as_bytes().split_first_chunk::<TRACEPARENT_CHARACTERS>()?;
        let [version] = bytes_of(&known[..2])?;
        let trace_id = bytes_of(&known[3..35])?;
        let parent_id = bytes_of(&known[36..52])?;
        let [flags] = bytes_of(&known[53..])?;
        let has_hyphens = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let ends = rest.is_empty() || version > 0 && rest[0] == b'-';
        let is_valid = version != 0xff && has_hyphens && ends && trace_id != [0; 16] && parent_id != [0; 8];
        is_valid.then_some(TraceContext { trace_id, parent_id, flags })
    }

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

/// Bytes as pairs of lower-case hexadecimal digits, which are the only ones that W3C allows.
fn bytes_of<const COUNT: usize>(digits: &[u8]) -> Option<[u8; COUNT]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; COUNT];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_as_w3c_says_it_or_not_at_all() {
        const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::parse(VALID).expect("it is the example of W3C");
        let (first, last) = (&context.trace_id[..2], context.trace_id[15]);
        assert_eq!((first, last, context.flags), (&[0x4b, 0xf9][..], 0x36, 1));
        assert_eq!(context.parent_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 2, 0xb7]);
        for later in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-is-like",
        ] {
            assert_eq!(TraceContext::parse(later), Some(context), "{later}");
        }
        for invalid in [
            "",
            &VALID[1..],
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4gf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "\u{e9}\u{e9}-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(invalid), None, "{invalid}");
        }
    }

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
