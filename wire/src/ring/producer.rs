//! The writer's end of one ring: no system call, no lock, no allocation.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::geometry::{Geometry, Place, asleep};
use super::{Record, Word};

/// The ring has no room. The caller waits for the reader, or counts the report as lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// What the only writer of a ring knows about it.
#[derive(Debug)]
pub struct Producer {
    place: Place,
    position: u64,
    /// Up to here there was room when the reader was last looked at.
    limit: u64,
}

impl Producer {
    /// Goes on where the ring's last writer stopped, which has to have been seen to stop.
    pub fn new<W: Word>(words: &[W], geometry: Geometry, ring: u32) -> Producer {
        let place = geometry.ring(ring);
        let position = u64::from_le(place.tail(words).load(Acquire));
        Producer { place, position, limit: position }
    }

    /// How many records this ring has seen.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How far the reader is, as far as it has given room back.
    pub fn reader<W: Word>(&self, words: &[W]) -> u64 {
        u64::from_le(self.place.head(words).load(Relaxed))
    }

    /// Publishes a record; [`Full`] where [`Producer::make_room`] has to look at the reader first.
    #[inline]
    pub fn push<W: Word>(&mut self, words: &[W], record: &Record) -> Result<(), Full> {
        if self.position == self.limit {
            return Err(Full);
        }
        for (place, word) in self.place.record(words, self.position).iter().zip(record.words) {
            place.store(word.to_le(), Relaxed);
        }
        self.position = self.position.wrapping_add(1);
        // After this store the record is there, and before it nothing is: whoever is killed between two instructions leaves a whole ring.
        self.place.tail(words).store(self.position.to_le(), Release);
        Ok(())
    }

    /// Looks how far the reader has come, and gives whether there is room. A second reader, of the caller's own, may stand at
    /// `other_head`: what it has not read stays too. The room is granted in quarters of the ring, so that the caller looks after both
    /// readers often enough.
    #[cold]
    pub fn make_room<W: Word>(&mut self, words: &[W], other_head: Option<u64>) -> bool {
        let head = u64::from_le(self.place.head(words).load(Acquire));
        let used_of = |head: u64| self.position.wrapping_sub(head);
        let used = other_head.map_or(used_of(head), |other| used_of(head).max(used_of(other)));
        // A head beyond the tail is a reader's mistake; it never makes room.
        let free = self.place.records().saturating_sub(used);
        self.limit = self.position.wrapping_add(free.min(self.place.records() / 4));
        free > 0
    }
}

/// Counts reports that did not fit into a ring, by its only writer.
pub fn count_lost<W: Word>(words: &[W], geometry: Geometry, ring: u32, reports: u64) {
    let lost = geometry.ring(ring).lost(words);
    lost.store(u64::from_le(lost.load(Relaxed)).wrapping_add(reports).to_le(), Release);
}

/// Whether the reader sleeps and this thread is the one to wake it; to be asked after every record. The fence stands between the
/// store of the tail and the load of the flag, as another one stands between the reader's store of the flag and its last look at the
/// tails: one of the two sees the other.
#[inline]
pub fn wants_wake<W: Word>(words: &[W]) -> bool {
    W::fence(SeqCst);
    asleep(words).load(Relaxed) != 0 && asleep(words).swap(0, Relaxed) != 0
}
