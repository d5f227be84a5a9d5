//! What must hold for any bytes whatever. The fuzzers call these with bytes of their choice, `cargo test` with their seeds and with
//! random ones.

use std::sync::atomic::{AtomicU64, Ordering};

use ttmem_wire::ring::{self, Consumer, Producer};
use ttmem_wire::{
    Detection, FRAME_BYTES_MAX, FrameError, Geometry, HEADER_BYTES, Header, Kind, Layout, Record, Reply,
    decode_request, detect, encode_request,
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

/// Rings of a fuzzed process; more would only make the mapping larger.
const RINGS_MAX: u32 = 4;
/// Bytes of one step: what is done, in which ring, where and with what.
const STEP_BYTES: usize = 8;

/// A ring's reader takes what writers published in their order, once each; one that writes what it likes anywhere in the mapping ends the
/// reading or makes it take odd records, and nothing else.
///
/// The first byte says how many rings there are; steps follow.
pub fn ring(data: &[u8]) {
    let Some((rings, steps)) = data.split_first() else { return };
    let geometry = Geometry::nearest(u32::from(*rings) % RINGS_MAX + 1, 0);
    let words: Vec<AtomicU64> = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
    ring::initialise(&words[..], geometry);
    let mut process = Process::new(geometry, &words);
    for step in steps.as_chunks::<STEP_BYTES>().0 {
        if !process.step(step) {
            return;
        }
    }
    process.finish();
}

/// A process whose reports are numbered one after the other, and who reads them.
struct Process<'a> {
    words: &'a [AtomicU64],
    geometry: Geometry,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    published: u64,
    taken: u64,
    lost: u64,
    /// Whether nothing but the writers' own code has touched the mapping.
    is_honest: bool,
}

impl<'a> Process<'a> {
    fn new(geometry: Geometry, words: &'a [AtomicU64]) -> Self {
        let rings = 0..geometry.rings();
        Process {
            words,
            geometry,
            producers: rings.clone().map(|ring| Producer::new(words, geometry, ring)).collect(),
            consumers: rings.map(|ring| Consumer::new(geometry, ring)).collect(),
            published: 0,
            taken: 0,
            lost: 0,
            is_honest: true,
        }
    }

    /// Does one thing; false once the reader has given the process up.
    fn step(&mut self, &[what, ring, low, high, value @ ..]: &[u8; STEP_BYTES]) -> bool {
        let ring = u32::from(ring) % self.geometry.rings();
        let place = u16::from_le_bytes([low, high]);
        match what % 8 {
            0..=2 => self.publish(ring, u64::from(place % 64)),
            3 => self.take(u64::from(place % 32)),
            4 => {
                ring::count_lost(self.words, self.geometry, ring, u64::from(place));
                self.lost = self.lost.wrapping_add(u64::from(place));
                true
            }
            5 => {
                let awake = ring::prepare_sleep(self.words, &mut self.consumers);
                assert!(!self.is_honest || awake == Ok(self.published == self.taken));
                ring::wake(self.words);
                awake.is_ok()
            }
            6 => true,
            _ => {
                let index = usize::from(place) % self.words.len();
                let number = u64::from(u32::from_le_bytes(value));
                // Small numbers, those around the largest, and those of both halves.
                let value =
                    [number & 0xff, number.wrapping_neg(), number << 32 | number][usize::from(what >> 3) % 3];
                self.words[index].store(value, Ordering::Relaxed);
                self.is_honest = false;
                true
            }
        }
    }

    fn publish(&mut self, ring: u32, count: u64) -> bool {
        let producer = &mut self.producers[ring as usize];
        for _ in 0..count {
            let record = Record::new(&report(), self.published);
            if producer.push(self.words, &record).is_err() {
                if !producer.make_room(self.words, None) {
                    break;
                }
                producer.push(self.words, &record).expect("there is room");
            }
            self.published += 1;
        }
        true
    }

    fn take(&mut self, records_max: u64) -> bool {
        let mut orders = Vec::new();
        let drained =
            ring::drain(self.words, &mut self.consumers, records_max, |record| orders.push(record.order()));
        assert!(orders.len() as u64 <= records_max);
        self.note(&orders);
        match drained {
            Ok(drained) => {
                assert_eq!(drained.records, orders.len() as u64);
                assert!(!self.is_honest || drained.lost == std::mem::take(&mut self.lost));
                true
            }
            Err(error) => {
                assert!(!self.is_honest, "{error}");
                false
            }
        }
    }

    /// Nobody writes any more: all that is there is taken.
    fn finish(&mut self) {
        let mut orders = Vec::new();
        let drained = ring::drain_all(self.words, &mut self.consumers, |record| orders.push(record.order()));
        let room = u64::from(self.geometry.rings()) * u64::from(self.geometry.records());
        assert!(orders.len() as u64 <= room, "more than there is room for");
        self.note(&orders);
        if self.is_honest {
            assert!(drained.is_ok());
            assert_eq!(self.taken, self.published, "every report arrives");
        }
    }

    fn note(&mut self, orders: &[u64]) {
        if self.is_honest {
            assert!(
                orders.iter().copied().eq(self.taken..self.taken + orders.len() as u64),
                "in their order, once each"
            );
        }
        self.taken += orders.len() as u64;
    }
}

fn report() -> Header {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = Kind::Alloc as u8;
    Header::decode(&bytes).expect("a report about nothing")
}
