//! What must hold for any bytes whatever. The fuzzers call these with bytes of their choice, `cargo test` with their seeds and with
//! random ones.

use ttmem_wire::{
    Detection, FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Header, Kind, Layout, Reply, decode_request,
    detect, encode_request,
};

/// Decode, encode, decode is a fixpoint in every layout. Bytes that are missing at the end are zero.
pub fn frame(data: &[u8]) {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let given = data.len().min(FRAME_BYTES_MAX);
    bytes[..given].copy_from_slice(&data[..given]);
    for layout in Layout::ALL {
        let frame = &bytes[..layout.frame_bytes()];
        check_request(frame, layout);
        check_reply(frame, layout);
    }
}

fn check_request(frame: &[u8], layout: Layout) {
    match decode_request(frame, layout) {
        Ok(header) => {
            let encoded = encode_request(&header, layout);
            assert_eq!(encoded[..], *frame, "a request has one encoding");
            assert_eq!(decode_request(&encoded, layout), Ok(header));
            assert_eq!(frame[..HEADER_BYTES], header.encode());
        }
        Err(error) => check_fault(frame, error),
    }
}

/// The offset of an error is that of a byte that is wrong.
fn check_fault(frame: &[u8], error: FrameError) {
    let byte = frame[error.offset()];
    match error {
        FrameError::UnknownType { byte: named, .. } => {
            assert_eq!(named, byte);
            assert!(Kind::from_byte(byte).is_none());
        }
        FrameError::Padding { .. } | FrameError::Tail { .. } => assert_ne!(byte, 0),
    }
}

fn check_reply(frame: &[u8], layout: Layout) {
    if let Ok(reply) = Reply::decode(frame, layout) {
        assert!(!reply.kind.is_request());
        let encoded = reply.encode(layout);
        assert_eq!(Reply::decode(&encoded, layout), Ok(reply));
        assert_eq!(reply.encode(layout), encoded);
    }
}

/// A stream means the same however it is cut into reads, and its layout is the only one that its bytes allow.
///
/// The first eight bytes are the sizes of the reads, less one, in turn; the stream follows.
pub fn stream(data: &[u8]) {
    let Some((read_sizes, stream)) = data.split_first_chunk::<8>() else {
        return;
    };
    let mut whole = Receiver::default();
    whole.read(stream);
    let mut split = Receiver::default();
    let mut read = 0;
    for &size in read_sizes.iter().cycle() {
        let end = stream.len().min(read + usize::from(size) + 1);
        split.read(&stream[read..end]);
        if read < FRAME_BYTES_MAX {
            check_detection(&stream[..end]);
        }
        read = end;
        if read == stream.len() {
            break;
        }
    }
    assert_eq!(split, whole);
}

/// One end of a connection: bytes in any portions become messages.
#[derive(Default, PartialEq, Debug)]
struct Receiver {
    received: Vec<u8>,
    layout: Option<Layout>,
    decoded_bytes: usize,
    messages: Vec<Header>,
    /// The place in the stream and the reason.
    fault: Option<(usize, &'static str)>,
}

impl Receiver {
    fn read(&mut self, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        self.received.extend_from_slice(bytes);
        if self.layout.is_none() {
            match detect(&self.received) {
                Ok(Detection::Known(layout)) => self.layout = Some(layout),
                Ok(Detection::Candidate(_) | Detection::Incomplete) => {}
                Err(error) => self.fail(error, 0),
            }
        }
        if let Some(layout) = self.layout {
            self.decode(layout);
        }
    }

    fn decode(&mut self, layout: Layout) {
        while let Some(frame) = self.received[self.decoded_bytes..].get(..layout.frame_bytes()) {
            match decode_request(frame, layout) {
                Ok(header) => self.messages.push(header),
                Err(error) => return self.fail(error, self.decoded_bytes),
            }
            self.decoded_bytes += layout.frame_bytes();
        }
    }

    /// What was received after the fault depends on the reads, and nobody looks at it any more.
    fn fail(&mut self, error: FrameError, frame_start: usize) {
        let offset = frame_start + error.offset();
        self.fault = Some((offset, error.reason()));
        self.received.truncate(offset);
    }
}

/// Compares the answer for the beginning of a stream with that of trying the three layouts in turn.
fn check_detection(start: &[u8]) {
    let mut fitting = Layout::ALL.into_iter().filter(|&layout| fits(start, layout));
    let (smallest, larger) = (fitting.next(), fitting.next());
    match detect(start) {
        Ok(Detection::Known(layout)) => {
            assert_eq!((smallest, larger), (Some(layout), None), "{start:?}");
            assert!(start.len() >= layout.frame_bytes());
        }
        Ok(Detection::Candidate(layout)) => {
            assert_eq!(smallest, Some(layout), "{start:?}");
            assert!(larger.is_some());
            assert_eq!(start.len(), layout.frame_bytes());
        }
        Ok(Detection::Incomplete) => {
            assert!(smallest.is_some_and(|layout| start.len() < layout.frame_bytes()), "{start:?}");
        }
        Err(error) => {
            assert_eq!(smallest, None, "{start:?}");
            check_fault(start, error);
        }
    }
}

/// Whether a connection of this layout can begin so: a request, and then, before the end of the largest frame, a message type.
fn fits(start: &[u8], layout: Layout) -> bool {
    start.iter().take(FRAME_BYTES_MAX).take(layout.frame_bytes() + 1).enumerate().all(|(offset, &byte)| {
        match offset {
            _ if offset == 0 || offset == layout.frame_bytes() => Kind::from_byte(byte).is_some(),
            1..=3 | 17..=19 | HEADER_BYTES.. => byte == 0,
            _ => true,
        }
    })
}
