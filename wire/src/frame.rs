//! Whole frames: a request in, a request or a reply out.

use core::ops::Deref;

use crate::{FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Header, Layout};

/// The bytes of one frame, ready to be sent; they are what it dereferences to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    bytes: [u8; FRAME_BYTES_MAX],
    layout: Layout,
}

impl Frame {
    /// A frame that is zero behind its header.
    #[inline]
    pub(crate) fn new(header: &Header, layout: Layout) -> Frame {
        let mut frame = Frame { bytes: [0; FRAME_BYTES_MAX], layout };
        let place = frame.bytes.first_chunk_mut();
        header.write(place.expect("the largest frame is longer than a header"));
        frame
    }

    /// What follows the header.
    pub(crate) fn tail_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[HEADER_BYTES..self.layout.frame_bytes()]
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.layout.frame_bytes()]
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Reads one whole request. Errors are the peer's: an unknown type, or a byte that is not zero in the padding or after the header.
///
/// A server's answer that a client sends by mistake, with nothing after its header, is well formed: see [`crate::Kind::is_request`].
///
/// # Panics
///
/// If `frame` has not the size of the layout's frames: whoever cuts the stream into frames knows it.
#[inline]
pub fn decode_request(frame: &[u8], layout: Layout) -> Result<Header, FrameError> {
    match layout {
        Layout::Bytes72 => decode_sized::<{ Layout::Bytes72.frame_bytes() }>(frame),
        Layout::Bytes112 => decode_sized::<{ Layout::Bytes112.frame_bytes() }>(frame),
        Layout::Bytes144 => decode_sized::<{ Layout::Bytes144.frame_bytes() }>(frame),
    }
}

/// Writes one request.
#[inline]
pub fn encode_request(header: &Header, layout: Layout) -> Frame {
    Frame::new(header, layout)
}

/// The size is a constant here, so that the tail is checked in straight code without bounds.
#[inline(always)]
fn decode_sized<const FRAME_BYTES: usize>(frame: &[u8]) -> Result<Header, FrameError> {
    let (header, tail) = split::<FRAME_BYTES>(frame);
    let message = Header::decode(header)?;
    let (words, _) = tail.as_chunks::<8>();
    let bits = words.iter().fold(0, |bits, word| bits | u64::from_ne_bytes(*word));
    if bits != 0 {
        check_tail(frame)?;
    }
    Ok(message)
}

/// The header of a frame, and what follows it.
#[inline(always)]
pub(crate) fn split<const FRAME_BYTES: usize>(frame: &[u8]) -> (&[u8; HEADER_BYTES], &[u8]) {
    assert!(frame.len() == FRAME_BYTES, "a frame has the size of its layout");
    frame.split_first_chunk().expect("the compiler has checked that every frame is longer than its header")
}

/// Finds the first byte that is not zero after the header of a request.
#[cold]
fn check_tail(frame: &[u8]) -> Result<(), FrameError> {
    let nonzero = frame.iter().skip(HEADER_BYTES).position(|&byte| byte != 0);
    match nonzero {
        Some(index) => Err(FrameError::Tail { offset: HEADER_BYTES + index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn every_bit_of_a_requests_tail_must_be_zero() {
        for layout in Layout::ALL {
            let frame = encode_request(&Header::request(Kind::Free), layout);
            assert_eq!(decode_request(&frame, layout), Ok(Header::request(Kind::Free)));
            for bit in HEADER_BYTES * 8..layout.frame_bytes() * 8 {
                let mut bytes = frame.to_vec();
                let offset = bit / 8;
                bytes[offset] |= 1 << (bit % 8);
                let error = decode_request(&bytes, layout);
                assert_eq!(error, Err(FrameError::Tail { offset }));
            }
        }
    }

    #[test]
    #[should_panic(expected = "a frame has the size of its layout")]
    fn half_a_frame_is_the_callers_mistake() {
        let _ = decode_request(&[1; 71], Layout::Bytes72);
    }
}
