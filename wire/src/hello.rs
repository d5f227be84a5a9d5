//! HELLO: how a client asks for more than frames, and how the server hands it over.
//!
//! The idea is that asking costs nothing: the question is a request like any other, a server that does not know it passes over it, and
//! the client goes on with frames until an answer is there, if ever.

use crate::frame::split;
use crate::{Frame, Geometry, Header, Kind, Layout, ReplyError};

/// The version of what HELLO speaks of.
pub const HELLO_VERSION: i32 = 1;
/// Descriptors that one answer can carry.
pub const DESCRIPTORS_MAX: usize = 6;

const DESCRIPTOR_BYTES: usize = 16;
const COUNT_BYTES: usize = 8;

/// What else than frames there is: a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Features(pub u64);

impl Features {
    /// Rings in shared memory.
    pub const RINGS: Features = Features(1);
    /// The stats pages.
    pub const STATS_PAGE: Features = Features(1 << 1);

    /// Whether all of those are among these.
    pub const fn has(self, others: Features) -> bool {
        self.0 & others.0 == others.0
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, others: Features) -> Features {
        Features(self.0 | others.0)
    }
}

/// What a client says with a HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hello {
    /// It asks for features. The only HELLO that is answered.
    Ask {
        /// The features.
        features: Features,
        /// How many rings it would like; the server may give fewer.
        rings: u32,
        /// How many records it would like each of them to hold.
        records: u32,
        /// Who asks, among the clients of its process; 0 if it does not say.
        client: u64,
    },
    /// All that it reports from here on is in the rings: the server begins to read them now.
    Switch,
    /// It will report once more all that it holds: what the server knows of this client from before is to be forgotten.
    Renew {
        /// Grows from one renewal of the client to the next, whatever connections they come over.
        number: u64,
        /// As in an ASK.
        client: u64,
    },
    /// It says who it is, and asks for nothing.
    Identify {
        /// As in an ASK.
        client: u64,
    },
}

const ASK: u8 = 0;
const SWITCH: u8 = 1;
const RENEW: u8 = 2;
const IDENTIFY: u8 = 3;

impl Hello {
    /// The request.
    pub fn header(self) -> Header {
        let (step, size_bytes, buffer_id, client) = match self {
            Hello::Ask { features, rings, records, client } => {
                (ASK, features.0, pair(rings, records), client)
            }
            Hello::Switch => (SWITCH, 0, 0, 0),
            Hello::Renew { number, client } => (RENEW, number, 0, client),
            Hello::Identify { client } => (IDENTIFY, 0, 0, client),
        };
        Header {
            device_id: HELLO_VERSION,
            buffer_type: step,
            size_bytes,
            buffer_id,
            timestamp_ns: client,
            ..Header::request(Kind::Hello)
        }
    }

    /// What a request of this kind says; `None` if it says something of a later version.
    pub fn of(header: &Header) -> Option<Hello> {
        let client = header.timestamp_ns;
        match header.buffer_type {
            ASK => Some(Hello::Ask {
                features: Features(header.size_bytes),
                rings: (header.buffer_id >> 32) as u32,
                records: header.buffer_id as u32,
                client,
            }),
            SWITCH => Some(Hello::Switch),
            RENEW => Some(Hello::Renew { number: header.size_bytes, client }),
            IDENTIFY => Some(Hello::Identify { client }),
            _ => None,
        }
    }
}

/// What a descriptor is that comes with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum DescriptorKind {
    /// The memory of the rings, to be mapped for reading and writing.
    Rings = 1,
    /// The eventfd that wakes the rings' reader.
    RingsWake = 2,
    /// The page with every device's totals, to be mapped for reading.
    DevicePage = 3,
    /// The page with what every process holds, to be mapped for reading.
    ProcessPage = 4,
}

impl DescriptorKind {
    /// The kind with that number.
    pub const fn from_number(number: u32) -> Option<DescriptorKind> {
        match number {
            1 => Some(DescriptorKind::Rings),
            2 => Some(DescriptorKind::RingsWake),
            3 => Some(DescriptorKind::DevicePage),
            4 => Some(DescriptorKind::ProcessPage),
            _ => None,
        }
    }
}

/// A descriptor that comes with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// What it is; `None` if it is of a later version, and to be closed.
    pub kind: Option<DescriptorKind>,
    /// How large it is, if it is memory.
    pub size_bytes: u64,
}

/// The server's answer: one frame, and with its first byte the descriptors, in the order of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HelloReply {
    /// What the client gets.
    pub features: Features,
    /// How its rings are laid out, if it gets some.
    pub geometry: Option<Geometry>,
    /// Which run of the server this is: a client that comes back to another one finds nothing of what it has reported.
    pub instance: u64,
    count: usize,
    descriptors: [Descriptor; DESCRIPTORS_MAX],
}

impl HelloReply {
    /// An answer with these descriptors.
    ///
    /// # Panics
    ///
    /// If there are more than [`DESCRIPTORS_MAX`].
    pub fn new(
        features: Features,
        geometry: Option<Geometry>,
        instance: u64,
        list: &[(DescriptorKind, u64)],
    ) -> HelloReply {
        let mut reply = HelloReply::empty(features, geometry, instance);
        for (place, (kind, size_bytes)) in reply.descriptors[..list.len()].iter_mut().zip(list) {
            *place = Descriptor { kind: Some(*kind), size_bytes: *size_bytes };
        }
        reply.count = list.len();
        reply
    }

    /// The descriptors that come with it.
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors[..self.count]
    }

    /// Writes the answer. There is one layout with room for it.
    pub fn encode(&self) -> Frame {
        let geometry = self.geometry.map_or(0, |geometry| pair(geometry.rings(), geometry.records()));
        let header = Header {
            device_id: HELLO_VERSION,
            size_bytes: self.features.0,
            buffer_id: geometry,
            timestamp_ns: self.instance,
            ..Header::request(Kind::Hello)
        };
        let mut frame = Frame::new(&header, Layout::Bytes144);
        let (count, list) = frame.tail_mut().split_at_mut(COUNT_BYTES);
        count.copy_from_slice(&(self.count as u64).to_le_bytes());
        for (place, descriptor) in list.chunks_exact_mut(DESCRIPTOR_BYTES).zip(self.descriptors()) {
            let (kind, size) = place.split_at_mut(8);
            kind.copy_from_slice(&descriptor.kind.map_or(0, |kind| kind as u64).to_le_bytes());
            size.copy_from_slice(&descriptor.size_bytes.to_le_bytes());
        }
        frame
    }

    /// Reads an answer, in a client. Errors are the server's.
    ///
    /// # Panics
    ///
    /// If `frame` has not 144 bytes.
    pub fn decode(frame: &[u8]) -> Result<HelloReply, ReplyError> {
        let (header, body) = split::<{ Layout::Bytes144.frame_bytes() }>(frame);
        let header = Header::decode(header)?;
        if header.kind != Kind::Hello {
            return Err(ReplyError::NotAReply(header.kind));
        }
        let (words, _) = body.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let geometry = Geometry::new((header.buffer_id >> 32) as u32, header.buffer_id as u32);
        let mut reply = HelloReply::empty(Features(header.size_bytes), geometry, header.timestamp_ns);
        reply.count = usize::try_from(word(0)).map_or(DESCRIPTORS_MAX, |count| count.min(DESCRIPTORS_MAX));
        for (index, place) in reply.descriptors.iter_mut().enumerate() {
            let kind = u32::try_from(word(1 + 2 * index)).ok().and_then(DescriptorKind::from_number);
            *place = Descriptor { kind, size_bytes: word(2 + 2 * index) };
        }
        Ok(reply)
    }

    const fn empty(features: Features, geometry: Option<Geometry>, instance: u64) -> HelloReply {
        let none = Descriptor { kind: None, size_bytes: 0 };
        HelloReply { features, geometry, instance, count: 0, descriptors: [none; DESCRIPTORS_MAX] }
    }
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

const _: () = {
    let room = Layout::Bytes144.frame_bytes() - crate::HEADER_BYTES;
    assert!(COUNT_BYTES + DESCRIPTORS_MAX * DESCRIPTOR_BYTES == room);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode_request, encode_request};

    #[test]
    fn a_request_comes_back_and_fits_every_layout() {
        let features = Features::RINGS.with(Features::STATS_PAGE);
        for hello in [
            Hello::Ask { features, rings: 64, records: 4096, client: 7 },
            Hello::Switch,
            Hello::Renew { number: 1 << 40, client: u64::MAX },
            Hello::Identify { client: 1 << 63 },
        ] {
            for layout in Layout::ALL {
                let header = decode_request(&encode_request(&hello.header(), layout), layout);
                assert_eq!(header.map(|header| Hello::of(&header)), Ok(Some(hello)));
            }
        }
        let later = Header { buffer_type: 4, ..Hello::Switch.header() };
        assert_eq!(Hello::of(&later), None);
    }

    #[test]
    fn an_answer_comes_back_with_its_descriptors() {
        let list =
            [(DescriptorKind::Rings, 4096), (DescriptorKind::RingsWake, 0), (DescriptorKind::DevicePage, 9)];
        for length in 0..=list.len() {
            let reply = HelloReply::new(Features::RINGS, Geometry::new(3, 64), 5, &list[..length]);
            assert_eq!(HelloReply::decode(&reply.encode()), Ok(reply));
            assert_eq!(reply.descriptors().len(), length);
        }
    }

    #[test]
    fn what_a_later_server_adds_is_seen_and_not_understood() {
        let mut frame =
            HelloReply::new(Features(1 << 40), None, 0, &[(DescriptorKind::DevicePage, 7)]).encode().to_vec();
        frame[48] = 9;
        let reply = HelloReply::decode(&frame).expect("the form is the same");
        assert_eq!(reply.descriptors(), [Descriptor { kind: None, size_bytes: 7 }]);
        frame[40] = 200;
        assert_eq!(HelloReply::decode(&frame).expect("a count").descriptors().len(), DESCRIPTORS_MAX);
    }

    #[test]
    fn another_frame_is_no_answer() {
        let frame = encode_request(&Header::request(Kind::Alloc), Layout::Bytes144);
        assert_eq!(HelloReply::decode(&frame), Err(ReplyError::NotAReply(Kind::Alloc)));
    }
}
