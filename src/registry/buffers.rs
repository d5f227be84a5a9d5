//! The live buffers of one process: found by (device, id), listed per device and memory type in the order of their allocation.
//!
//! The idea is a slab of 40-byte records plus an index of (slot, hash) pairs: by arithmetic 55 bytes a buffer at ten million (2^24
//! places of nine bytes in the index), and growing the index touches no record, because the hash stands beside the slot. The records
//! of one cell form a list in the order of allocation, so the oldest buffer is known at once and a process's end walks exactly what
//! is to be reclaimed.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;
/// Records per chunk. No chunk but a small first one ever moves, so growth copies nothing.
const CHUNK: usize = 1024;

/// One live buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) size_bytes: u64,
    pub(super) allocated_ns: u64,
    pub(super) references: u32,
    previous: u32,
    next: u32,
    pub(super) device: u16,
    pub(super) cell: u16,
}

const _: () = assert!(size_of::<Record>() == 40);

/// The two ends of a cell's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    oldest: u32,
    newest: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE }
    }
}

#[derive(Clone, Copy)]
struct IndexEntry {
    slot: u32,
    hash: u32,
}

impl IndexEntry {
    /// The table wants its bucket from the low bits and its tag from the top seven.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// Where a record lies until it is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot(u32);

#[derive(Default)]
pub(super) struct Buffers {
    chunks: Vec<Vec<Record>>,
    index: HashTable<IndexEntry>,
    /// The first of the vacated slots, which are chained by `next`.
    vacant: Option<u32>,
    hasher: RandomState,
}

impl Buffers {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, device: u16, id: u64) -> Option<Slot> {
        let hash = self.hash(device, id);
        let matches = |entry: &IndexEntry| {
            let record = self.record(entry.slot);
            entry.hash == hash && record.id == id && record.device == device
        };
        self.index.find(IndexEntry::spread(hash), matches).map(|entry| Slot(entry.slot))
    }

    pub(super) fn get(&self, slot: Slot) -> &Record {
        self.record(slot.0)
    }

    pub(super) fn add_reference(&mut self, slot: Slot) {
        let record = self.record_mut(slot.0);
        record.references = record.references.saturating_add(1);
    }

    /// Takes one reference away; true when it was the last.
    pub(super) fn remove_reference(&mut self, slot: Slot) -> bool {
        let record = self.record_mut(slot.0);
        record.references -= 1;
        record.references == 0
    }

    /// Adds a buffer that is not there yet, as the newest of its list.
    pub(super) fn insert(
        &mut self,
        list: &mut List,
        device: u16,
        cell: u16,
        id: u64,
        size_bytes: u64,
        allocated_ns: u64,
    ) {
        let record = Record {
            id,
            size_bytes,
            allocated_ns,
            references: 1,
            previous: list.newest,
            next: NONE,
            device,
            cell,
        };
        let slot = self.place(record);
        match list.newest {
            NONE => list.oldest = slot,
            newest => self.record_mut(newest).next = slot,
        }
        list.newest = slot;
        let hash = self.hash(device, id);
        let entry = IndexEntry { slot, hash };
        self.index.insert_unique(IndexEntry::spread(hash), entry, |entry| IndexEntry::spread(entry.hash));
    }

    /// Removes a buffer from the index and its list.
    pub(super) fn remove(&mut self, list: &mut List, slot: Slot) -> Record {
        let record = *self.record(slot.0);
        let hash = self.hash(record.device, record.id);
        if let Ok(entry) = self.index.find_entry(IndexEntry::spread(hash), |entry| entry.slot == slot.0) {
            entry.remove();
        }
        match record.previous {
            NONE => list.oldest = record.next,
            previous => self.record_mut(previous).next = record.next,
        }
        match record.next {
            NONE => list.newest = record.previous,
            next => self.record_mut(next).previous = record.previous,
        }
        self.vacate(slot.0);
        record
    }

    /// The oldest buffer of a list.
    pub(super) fn oldest(&self, list: &List) -> Option<&Record> {
        (list.oldest != NONE).then(|| self.record(list.oldest))
    }

    /// A list's buffers, oldest first.
    pub(super) fn iter(&self, list: &List) -> impl Iterator<Item = &Record> {
        let mut slot = list.oldest;
        std::iter::from_fn(move || {
            let record = (slot != NONE).then(|| self.record(slot))?;
            slot = record.next;
            Some(record)
        })
    }

    /// One more than the highest slot that was ever in use.
    pub(super) fn slots(&self) -> u32 {
        (self.chunks.len().saturating_sub(1) * CHUNK + self.chunks.last().map_or(0, Vec::len)) as u32
    }

    /// Live buffers in a range of slots: a slot keeps its number while buffers come and go.
    pub(super) fn live(&self, slots: Range<u32>) -> impl Iterator<Item = (u32, &Record)> {
        slots.map(|slot| (slot, self.record(slot))).filter(|(_, record)| record.references > 0)
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self { hasher: self.hasher.clone(), ..Self::default() };
    }

    fn place(&mut self, record: Record) -> u32 {
        if let Some(slot) = self.vacant {
            self.vacant = Some(self.record(slot).next).filter(|next| *next != NONE);
            *self.record_mut(slot) = record;
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it is needed: most processes hold few buffers, and there may be ten thousand of them.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(record);
        (chunk * CHUNK + self.chunks[chunk].len() - 1) as u32
    }

    fn vacate(&mut self, slot: u32) {
        if self.index.is_empty() {
            // A burst that has ended, or a process at rest: nothing is left to keep.
            match &mut self.chunks[..] {
                [only] => {
                    only.clear();
                    self.vacant = None;
                }
                _ => self.clear(),
            }
            return;
        }
        let next = self.vacant.unwrap_or(NONE);
        let record = self.record_mut(slot);
        record.references = 0;
        record.next = next;
        self.vacant = Some(slot);
    }

    fn hash(&self, device: u16, id: u64) -> u32 {
        // The upper half of a 64-bit hash is as good as the whole for tables that fit into memory.
        (self.hasher.hash_one((device, id)) >> 32) as u32
    }

    fn record(&self, slot: u32) -> &Record {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    fn record_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_the_order_of_allocation_through_any_removal() {
        let mut buffers = Buffers::default();
        let mut list = List::default();
        for id in 0..5 {
            buffers.insert(&mut list, 1, 0, id, 10 + id, 100 + id);
        }
        for id in [0, 4, 2] {
            let slot = buffers.find(1, id).expect("inserted above");
            assert_eq!(buffers.remove(&mut list, slot).size_bytes, 10 + id);
        }
        assert_eq!(buffers.oldest(&list).map(|record| record.id), Some(1));
        buffers.insert(&mut list, 1, 0, 9, 19, 109);
        assert_eq!(buffers.iter(&list).map(|record| record.id).collect::<Vec<_>>(), [1, 3, 9]);
        assert_eq!(buffers.live(0..buffers.slots()).count(), 3);
        assert!(buffers.find(2, 1).is_none(), "another device");
    }

    #[test]
    fn an_empty_table_holds_no_memory_of_its_burst() {
        let mut buffers = Buffers::default();
        let mut list = List::default();
        for id in 0..10_000 {
            buffers.insert(&mut list, 0, 0, id, 1, 0);
        }
        for id in 0..10_000 {
            let slot = buffers.find(0, id).expect("inserted above");
            buffers.remove(&mut list, slot);
        }
        assert_eq!((buffers.len(), buffers.chunks.len(), buffers.index.capacity()), (0, 0, 0));
        assert!(buffers.oldest(&list).is_none());
        assert_eq!(buffers.live(0..buffers.slots()).count(), 0);
    }
}
