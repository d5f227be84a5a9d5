//! Finds out which layout a connection speaks, from its first bytes alone.
//!
//! The idea is that a request is zero from byte 40 to its end and that no message type is zero, so the first byte that is not zero
//! at or after 40 is the start of the second frame: its place is the frame's size. How the bytes were cut into reads is invisible
//! here, so it cannot matter.

use crate::header::check_padding;
use crate::{FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Kind, Layout};

/// What the first bytes of a connection tell about its layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Detection {
    /// The bytes prove it: the first frame is complete, and more bytes cannot change the answer.
    Known(Layout),
    /// The bytes end exactly where a frame of this layout would. It is the layout if the peer now waits; if more bytes come, it may
    /// be a larger one.
    Candidate(Layout),
    /// The first frame is not complete.
    Incomplete,
}

/// Tells the layout of a connection from all bytes that it has brought so far.
///
/// Errors are the peer's and are reported as soon as the offending byte is there; their offset counts from the connection's start.
/// Nothing after byte 143 is looked at: [`crate::decode_request`] judges it.
pub fn detect(stream: &[u8]) -> Result<Detection, FrameError> {
    let stream = &stream[..stream.len().min(FRAME_BYTES_MAX)];
    if let Some(&byte) = stream.first() {
        Kind::decode(byte, 0)?;
    }
    check_padding(stream)?;
    let nonzero = stream.iter().enumerate().skip(HEADER_BYTES).find(|&(_, &byte)| byte != 0);
    let end = Layout::from_frame_bytes(stream.len());
    match (nonzero, end) {
        (Some((offset, &byte)), _) => {
            let layout = Layout::from_frame_bytes(offset).ok_or(FrameError::Tail { offset })?;
            Kind::decode(byte, offset)?;
            Ok(Detection::Known(layout))
        }
        (None, Some(Layout::Bytes144)) => Ok(Detection::Known(Layout::Bytes144)),
        (None, Some(layout)) => Ok(Detection::Candidate(layout)),
        (None, None) => Ok(Detection::Incomplete),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Header, encode_request};
    use std::vec::Vec;

    fn check(stream: &[u8], expected: Result<Detection, FrameError>) {
        assert_eq!(detect(stream), expected, "after {} bytes", stream.len());
    }

    fn two_frames(layout: Layout) -> Vec<u8> {
        let first = encode_request(&Header::request(Kind::DeviceInfoQuery), layout);
        let second = encode_request(&Header::request(Kind::Alloc), layout);
        [&first[..], &second[..]].concat()
    }

    #[test]
    fn one_byte_at_a_time() {
        for layout in Layout::ALL {
            let stream = two_frames(layout);
            for length in 0..=stream.len() {
                let expected = match length {
                    _ if length > layout.frame_bytes() => Detection::Known(layout),
                    72 => Detection::Candidate(Layout::Bytes72),
                    112 => Detection::Candidate(Layout::Bytes112),
                    144 => Detection::Known(Layout::Bytes144),
                    _ => Detection::Incomplete,
                };
                check(&stream[..length], Ok(expected));
            }
        }
    }

    #[test]
    fn a_fault_is_reported_when_its_byte_arrives() {
        for (offset, byte) in [(0, 99), (1, 1), (3, 1), (17, 1), (19, 1), (40, 1), (71, 1)]
            .into_iter()
            .chain([(72, 99), (73, 1), (111, 1), (112, 0xff), (113, 1), (143, 1)])
        {
            let mut stream = encode_request(&Header::request(Kind::Query), Layout::Bytes144).to_vec();
            stream[offset] = byte;
            assert!(detect(&stream[..offset]).is_ok(), "before byte {offset}");
            let expected = match offset {
                0 | 72 | 112 => FrameError::UnknownType { byte, offset },
                1..=19 => FrameError::Padding { offset },
                _ => FrameError::Tail { offset },
            };
            check(&stream[..=offset], Err(expected));
            check(&stream, Err(expected));
        }
    }

    #[test]
    fn the_byte_after_the_largest_frame_is_not_looked_at() {
        let mut stream = two_frames(Layout::Bytes144);
        stream[FRAME_BYTES_MAX] = 0xff;
        check(&stream, Ok(Detection::Known(Layout::Bytes144)));
    }
}
