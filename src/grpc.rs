//! What a unary gRPC call adds to an HTTP/2 request: the frame around a message. What its status means is for each caller to say.

use hyper::body::Bytes;

/// A frame's head: whether the message is compressed, and its length.
const HEAD_BYTES: usize = 5;
/// A message without a field, framed.
pub(crate) const EMPTY_FRAME: &[u8] = &[0; HEAD_BYTES];

/// A message as gRPC sends it.
pub(crate) fn frame(message: &[u8], is_compressed: bool) -> std::io::Result<Bytes> {
    let length = u32::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + message.len());
    frame.push(u8::from(is_compressed));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    Ok(Bytes::from(frame))
}

/// The one message of an answer that was not asked to be compressed; `None` for anything else.
pub(crate) fn message(body: &Bytes) -> Option<Bytes> {
    match body.get(..HEAD_BYTES) {
        Some([0, length @ ..]) if body.len() - HEAD_BYTES == length_of(length) => {
            Some(body.slice(HEAD_BYTES..))
        }
        _ => None,
    }
}

fn length_of(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let framed = frame(b"abc", false).expect("short");
        assert_eq!(framed.as_ref(), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(message(&framed).expect("a frame").as_ref(), b"abc");
        assert_eq!(frame(b"", false).expect("short"), EMPTY_FRAME);
        for wrong in [&b"\0\0\0\0"[..], b"\0\0\0\0\x02a", b"\x01\0\0\0\x01a", b""] {
            assert_eq!(message(&Bytes::copy_from_slice(wrong)), None, "{wrong:?}");
        }
    }
}
