//! Which slot holds a buffer: a hash index that grows and shrinks a segment at a time.
//!
//! The idea is extendible hashing. A table that is full is split in two by one more bit of the hash, so growing never moves more than one
//! segment's entries, however many there are: no report waits for a large table to be copied, and no moment exists at which the old
//! table and one of twice its size are both there.

use hashbrown::HashTable;

/// Places of a full-grown segment: splitting one takes some ten microseconds, and it is large enough to be mapped for itself
/// (see `heap`), so that its memory goes back to the system as soon as it is freed.
const SEGMENT_PLACES_LOG2: u32 = 13;
/// Entries of a full-grown segment: the table fills seven of eight places.
const SEGMENT_ENTRIES_MAX: usize = (1 << SEGMENT_PLACES_LOG2) / 8 * 7;
/// The hash's bits that a segment's own table does not place by.
const DEPTH_MAX: u32 = u32::BITS - SEGMENT_PLACES_LOG2;
/// A table this small is not worth shrinking.
const SHRINKABLE_CAPACITY_MIN: usize = 128;
/// A table is shrunk when no more than one of so many places is in use, to twice what it needs: it can neither grow nor shrink again
/// before many more reports have paid for it.
const SHRINK_PLACES_PER_ENTRY: usize = 8;

/// Eight bytes and one of the table's own for each place: a slot, and enough of the hash to move it without looking at the record.
#[derive(Clone, Copy)]
struct Entry {
    slot: u32,
    hash: u32,
}

impl Entry {
    /// The table wants its place from the low bits and its tag from the top seven.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

#[derive(Default)]
struct Segment {
    entries: HashTable<Entry>,
    /// How many directory bits all of its entries share.
    depth: u32,
}

impl Segment {
    fn of_depth(depth: u32) -> Segment {
        Segment { entries: HashTable::with_capacity(SEGMENT_ENTRIES_MAX), depth }
    }

    fn insert(&mut self, entry: Entry) {
        self.entries.insert_unique(Entry::spread(entry.hash), entry, |entry| Entry::spread(entry.hash));
    }
}

/// Slots by the hash of what they hold.
#[derive(Default)]
pub(super) struct Index {
    /// The segment for each value of the directory bits; its length is a power of two, or 0 before the first entry.
    directory: Vec<u32>,
    segments: Vec<Segment>,
    len: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot among those of that hash that is the wanted one.
    pub(super) fn find(&self, hash: u32, mut is_wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        let segment = &self.segments[self.segment_of(hash)?];
        let matches = |entry: &Entry| entry.hash == hash && is_wanted(entry.slot);
        segment.entries.find(Entry::spread(hash), matches).map(|entry| entry.slot)
    }

    /// Adds a slot that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        let mut segment = self.segment_of(hash).unwrap_or_else(|| self.begin());
        while self.is_to_be_split(segment) {
            self.split(segment);
            segment = self.segment_of(hash).unwrap_or(segment);
        }
        self.segments[segment].insert(Entry { slot, hash });
        self.len += 1;
    }

    /// Removes a slot that is there.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let Some(segment) = self.segment_of(hash) else { return };
        let entries = &mut self.segments[segment].entries;
        let Ok(entry) = entries.find_entry(Entry::spread(hash), |entry| entry.slot == slot) else { return };
        entry.remove();
        self.len -= 1;
        let capacity = entries.capacity();
        if capacity >= SHRINKABLE_CAPACITY_MIN && entries.len() * SHRINK_PLACES_PER_ENTRY <= capacity {
            entries.shrink_to(2 * entries.len(), |entry| Entry::spread(entry.hash));
        }
    }

    fn segment_of(&self, hash: u32) -> Option<usize> {
        let bits = hash >> SEGMENT_PLACES_LOG2;
        let place = bits as usize & self.directory.len().wrapping_sub(1);
        self.directory.get(place).map(|segment| *segment as usize)
    }

    /// Makes the first segment: the directory is empty until something is to be found in it.
    #[cold]
    fn begin(&mut self) -> usize {
        self.segments.push(Segment::default());
        self.directory.push(0);
        0
    }

    fn is_to_be_split(&self, segment: usize) -> bool {
        let segment = &self.segments[segment];
        segment.entries.len() >= SEGMENT_ENTRIES_MAX && segment.depth < DEPTH_MAX
    }

    /// Deals a segment's entries out to two by the next bit of their hashes.
    #[cold]
    fn split(&mut self, segment: usize) {
        let depth = self.segments[segment].depth;
        if self.directory.len() == 1 << depth {
            self.directory.extend_from_within(..);
        }
        let full = std::mem::replace(&mut self.segments[segment], Segment::of_depth(depth + 1));
        let sibling = self.segments.len();
        self.segments.push(Segment::of_depth(depth + 1));
        let belongs_to_sibling = |bits: u32| bits >> depth & 1 == 1;
        for (bits, place) in (0..).zip(&mut self.directory) {
            if *place as usize == segment && belongs_to_sibling(bits) {
                *place = sibling as u32;
            }
        }
        for entry in full.entries {
            let half = if belongs_to_sibling(entry.hash >> SEGMENT_PLACES_LOG2) { sibling } else { segment };
            self.segments[half].insert(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads a number over all bits, as the real hash does.
    fn hash_of(number: u32) -> u32 {
        let mixed = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) as u32 ^ mixed as u32
    }

    fn places(index: &Index) -> usize {
        index.segments.iter().map(|segment| segment.entries.num_buckets()).sum()
    }

    #[test]
    fn every_slot_is_found_through_growing_and_shrinking() {
        const SLOTS: u32 = 100_000;
        let mut index = Index::default();
        for slot in 0..SLOTS {
            index.insert(hash_of(slot), slot);
        }
        assert_eq!(index.len(), SLOTS as usize);
        assert!(index.segments.len() >= SLOTS as usize / SEGMENT_ENTRIES_MAX);
        let find = |index: &Index, slot| index.find(hash_of(slot), |found| found == slot);
        assert!((0..SLOTS).all(|slot| find(&index, slot) == Some(slot)));
        for slot in (0..SLOTS).filter(|slot| slot % 100 != 0) {
            index.remove(hash_of(slot), slot);
        }
        for slot in 0..SLOTS {
            assert_eq!(find(&index, slot), (slot % 100 == 0).then_some(slot));
        }
    }

    #[test]
    fn no_entry_costs_more_places_than_a_table_that_has_just_doubled() {
        let mut index = Index::default();
        let mut most = 0;
        for slot in 0..200_000 {
            index.insert(hash_of(slot), slot);
            if slot >= 20_000 {
                most = most.max(places(&index) * 100 / index.len());
            }
        }
        assert!(most <= 240, "{most} places for 100 entries");
    }

    #[test]
    fn what_is_removed_gives_its_places_back() {
        let mut index = Index::default();
        for slot in 0..200_000 {
            index.insert(hash_of(slot), slot);
        }
        let before = places(&index);
        for slot in 1000..200_000 {
            index.remove(hash_of(slot), slot);
        }
        assert!(places(&index) < before / 20, "{} of {before} places", places(&index));
    }

    #[test]
    fn hashes_that_are_all_the_same_split_no_further_than_there_are_bits() {
        let mut index = Index::default();
        for slot in 0..SEGMENT_ENTRIES_MAX as u32 + 10 {
            index.insert(7, slot);
        }
        assert_eq!(index.find(7, |slot| slot == 3), Some(3));
        assert!(index.segments.len() <= 1 + DEPTH_MAX as usize);
    }
}
