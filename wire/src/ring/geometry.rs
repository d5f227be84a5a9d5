//! Where everything lies in the mapping.

use core::sync::atomic::Ordering::Relaxed;

use super::{RECORD_WORDS, Word};

/// The first eight bytes of the mapping: `ttmrings`.
pub const RINGS_MAGIC: u64 = u64::from_le_bytes(*b"ttmrings");
/// The version of the mapping's layout.
pub const RINGS_VERSION: u32 = 1;

/// Rings in one mapping: a thread has its own up to here, and the server looks at each of them in every turn.
pub const RINGS_MAX: u32 = 64;
/// Records of one ring, so that a mapping stays below 200 MiB.
pub const RING_RECORDS_MAX: u32 = 1 << 16;
/// The least with which every ring begins at a cache line; whoever wants to wait rarely asks for more.
pub const RING_RECORDS_MIN: u32 = 8;

/// Words of two cache lines: what different sides write lies so far apart, because processors fetch lines in pairs.
const APART_WORDS: usize = 128 / 8;

const MAGIC_WORD: usize = 0;
const VERSION_AND_RINGS_WORD: usize = 1;
const RECORDS_WORD: usize = 2;
const ASLEEP_WORD: usize = APART_WORDS;
const CONTROL_WORDS: usize = 2 * APART_WORDS;

const TAIL_WORD: usize = 0;
const LOST_WORD: usize = 1;
const HEAD_WORD: usize = APART_WORDS;
const RECORDS_AT_WORD: usize = 2 * APART_WORDS;

/// How many rings a mapping has, and of how many records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    rings: u32,
    records: u32,
}

impl Geometry {
    /// The geometry; `None` if one of the numbers is out of bounds or `records` is no power of two.
    pub const fn new(rings: u32, records: u32) -> Option<Geometry> {
        let is_sound = rings >= 1
            && rings <= RINGS_MAX
            && records >= RING_RECORDS_MIN
            && records <= RING_RECORDS_MAX
            && records.is_power_of_two();
        if is_sound { Some(Geometry { rings, records }) } else { None }
    }

    /// The nearest geometry to what a client asks for.
    pub fn nearest(rings: u32, records: u32) -> Geometry {
        let records = records.clamp(RING_RECORDS_MIN, RING_RECORDS_MAX);
        Geometry { rings: rings.clamp(1, RINGS_MAX), records: 1 << records.ilog2() }
    }

    /// How many rings there are.
    pub const fn rings(self) -> u32 {
        self.rings
    }

    /// How many records each has room for.
    pub const fn records(self) -> u32 {
        self.records
    }

    /// The size of the mapping in words.
    pub const fn words(self) -> usize {
        CONTROL_WORDS + self.rings as usize * self.ring_words()
    }

    /// The size of the mapping.
    pub const fn bytes(self) -> u64 {
        self.words() as u64 * 8
    }

    const fn ring_words(self) -> usize {
        RECORDS_AT_WORD + self.records as usize * RECORD_WORDS
    }

    /// The place of one ring.
    ///
    /// # Panics
    ///
    /// If there is no such ring.
    pub(super) fn ring(self, index: u32) -> Place {
        assert!(index < self.rings, "the caller counts its rings");
        Place { start: CONTROL_WORDS + index as usize * self.ring_words(), records: self.records }
    }
}

/// Where one ring lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: usize,
    records: u32,
}

impl Place {
    pub(super) fn records(self) -> u64 {
        u64::from(self.records)
    }

    #[inline(always)]
    pub(super) fn tail<W>(self, words: &[W]) -> &W {
        &words[self.start + TAIL_WORD]
    }

    #[inline(always)]
    pub(super) fn lost<W>(self, words: &[W]) -> &W {
        &words[self.start + LOST_WORD]
    }

    #[inline(always)]
    pub(super) fn head<W>(self, words: &[W]) -> &W {
        &words[self.start + HEAD_WORD]
    }

    /// The record at a position, which goes round and round.
    #[inline(always)]
    pub(super) fn record<W>(self, words: &[W], position: u64) -> &[W] {
        let index = (position & (self.records() - 1)) as usize;
        let at = self.start + RECORDS_AT_WORD + index * RECORD_WORDS;
        &words[at..at + RECORD_WORDS]
    }
}

/// The word that says that the reader sleeps.
#[inline(always)]
pub(super) fn asleep<W>(words: &[W]) -> &W {
    &words[ASLEEP_WORD]
}

/// Makes fresh memory, which is zero, a mapping of this geometry.
pub fn initialise<W: Word>(words: &[W], geometry: Geometry) {
    let version_and_rings = u64::from(RINGS_VERSION) | u64::from(geometry.rings) << 32;
    words[MAGIC_WORD].store(RINGS_MAGIC.to_le(), Relaxed);
    words[VERSION_AND_RINGS_WORD].store(version_and_rings.to_le(), Relaxed);
    words[RECORDS_WORD].store(u64::from(geometry.records).to_le(), Relaxed);
}

const _: () = {
    assert!(CONTROL_WORDS * 8 == 256 && ASLEEP_WORD * 8 == 128);
    assert!(HEAD_WORD * 8 == 128 && RECORDS_AT_WORD * 8 == 256);
    assert!(RECORDS_WORD < ASLEEP_WORD && LOST_WORD < HEAD_WORD);
    // Every ring begins at a pair of lines, as the mapping does.
    assert!((RING_RECORDS_MIN as usize * RECORD_WORDS).is_multiple_of(APART_WORDS));
    let largest = Geometry { rings: RINGS_MAX, records: RING_RECORDS_MAX };
    assert!(largest.bytes() < 200 * 1024 * 1024);
};
