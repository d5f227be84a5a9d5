//! The shared rings: how a client's threads hand reports to the server through memory, and how the server takes them out.
//!
//! The idea is one ring per thread with one writer each, in one mapping. A record is published by one store of the ring's tail, so a
//! writer that is killed anywhere leaves nothing half done. Every record carries a number from a counter that all threads of the
//! process share, and the reader applies what it finds in the order of these numbers, so that a buffer may be allocated on one thread
//! and freed on another. The server trusts nothing in the mapping: it keeps its own heads, and judges only what it has copied.
//!
//! All code here works on a slice of [`Word`]s, so that the model checker runs it as it is.

mod consumer;
mod geometry;
mod producer;
mod word;

pub use consumer::{Consumer, Drained, RingError, drain, drain_all, drain_rest, prepare_sleep, wake};
pub use geometry::{
    Geometry, RING_RECORDS_MAX, RING_RECORDS_MIN, RINGS_MAGIC, RINGS_MAX, RINGS_VERSION, initialise,
};
pub use producer::{Full, Producer, count_lost, wants_wake};
pub use word::Word;

use crate::{FrameError, HEADER_BYTES, Header};

/// The size of a record: a frame's header and its order.
pub const RECORD_BYTES: usize = HEADER_BYTES + 8;

const HEADER_WORDS: usize = HEADER_BYTES / 8;
const RECORD_WORDS: usize = RECORD_BYTES / 8;

/// One report in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The first words are the header's bytes, and the last one is the order.
    words: [u64; RECORD_WORDS],
}

impl Record {
    /// The report, and the number that says what came before it.
    #[inline]
    pub fn new(header: &Header, order: u64) -> Record {
        let high = |field: i32| u64::from(field.cast_unsigned()) << 32;
        Record {
            words: [
                u64::from(header.kind as u8) | high(header.device_id),
                header.size_bytes,
                u64::from(header.buffer_type) | high(header.process_id),
                header.buffer_id,
                header.timestamp_ns,
                order,
            ],
        }
    }

    /// Its place among the reports of its process.
    #[inline]
    pub fn order(&self) -> u64 {
        self.words[HEADER_WORDS]
    }

    /// What it says. Errors are the client's.
    #[inline]
    pub fn header(&self) -> Result<Header, FrameError> {
        let mut bytes = [0; HEADER_BYTES];
        let (places, _) = bytes.as_chunks_mut::<8>();
        for (place, word) in places.iter_mut().zip(&self.words) {
            *place = word.to_le_bytes();
        }
        Header::decode(&bytes)
    }
}

const _: () = {
    assert!(HEADER_BYTES.is_multiple_of(8));
    assert!(RECORD_WORDS == HEADER_WORDS + 1);
    assert!(RECORD_BYTES == 48);
};

#[cfg(test)]
mod tests;
