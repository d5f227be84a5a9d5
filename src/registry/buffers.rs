//! The live buffers of one process: found by (device, id), listed per device and memory type in the order of their allocation.
//!
//! The idea is a slab of 40-byte records in chunks that never move, found through an [`Index`] of (slot, hash) pairs. The records of one
//! cell form a list in the order of allocation, so the oldest buffer is known at once and a process's end walks exactly what is to be
//! reclaimed. New records go to the lowest chunk with room, so that after a burst the high ones become empty, and an empty chunk is
//! freed.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;

use super::index::Index;
use super::reporter::{References, Reporter};

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;
/// No chunk: the one that was being filled has become empty.
const NOWHERE: usize = usize::MAX;
/// Records per chunk: 160 KiB, large enough to be mapped for itself (see `heap`) with a fortieth lost to the pages' ends.
const CHUNK: usize = 4096;
/// Records that an empty table keeps its place for: most processes hold few buffers, and there may be ten thousand of them.
const KEPT_RECORDS_MAX: usize = 64;

/// One live buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) size_bytes: u64,
    pub(super) allocated_ns: u64,
    /// Those of the reporter, and not 0 while the buffer lives.
    references: u16,
    reporter: Reporter,
    previous: u32,
    next: u32,
    pub(super) device: u16,
    pub(super) cell: u16,
}

const _: () = assert!(size_of::<Record>() == 40);

/// What is said of a buffer when it is added.
pub(super) struct NewBuffer {
    pub(super) device: u16,
    pub(super) cell: u16,
    pub(super) id: u64,
    pub(super) size_bytes: u64,
    pub(super) allocated_ns: u64,
    pub(super) reporter: Reporter,
}

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

/// Where a record lies until it is removed, and the hash that it was found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    number: u32,
    hash: u32,
}

/// Records beside each other, and those of them that are vacant.
struct Chunk {
    records: Vec<Record>,
    /// The first of the vacated slots, which are chained by `next`.
    vacant: u32,
    live: u32,
}

impl Chunk {
    const EMPTY: Chunk = Chunk { records: Vec::new(), vacant: NONE, live: 0 };

    fn is_full(&self) -> bool {
        self.live as usize == CHUNK
    }
}

#[derive(Default)]
pub(super) struct Buffers {
    /// No chunk moves but the first, which grows as it is needed.
    chunks: Vec<Chunk>,
    /// The chunk that new records go to while it has room, or [`NOWHERE`].
    filling: usize,
    /// The other chunks with live and with vacant records.
    roomy: BTreeSet<usize>,
    /// Chunks without records, whose memory has been given back.
    holes: BTreeSet<usize>,
    /// The memory of a chunk that has become empty, so that a process at a chunk's edge does not pay for one again and again.
    spare: Vec<Record>,
    /// Where several have reported a buffer.
    references: References,
    index: Index,
    hasher: RandomState,
}

impl Buffers {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, device: u16, id: u64) -> Option<Slot> {
        let is_wanted = |slot| {
            let record = self.record(slot);
            record.id == id && record.device == device
        };
        let hash = self.hash(device, id);
        self.index.find(hash, is_wanted).map(|number| Slot { number, hash })
    }

    pub(super) fn get(&self, slot: Slot) -> &Record {
        self.record(slot.number)
    }

    pub(super) fn add_reference(&mut self, slot: Slot, reporter: Reporter) {
        let record = self.record_mut(slot.number);
        if record.reporter == reporter && record.references < u16::MAX {
            record.references += 1;
        } else {
            self.count_apart(slot.number, reporter);
        }
    }

    #[cold]
    fn count_apart(&mut self, slot: u32, reporter: Reporter) {
        let record = self.record_mut(slot);
        if record.reporter != Reporter::SEVERAL {
            let (known, references) = (record.reporter, u32::from(record.references));
            (record.reporter, record.references) = (Reporter::SEVERAL, 1);
            self.references.add(slot, known, references);
        }
        self.references.add(slot, reporter, 1);
    }

    /// Takes one reference away, the reporter's own if it has one; true when it was the last.
    pub(super) fn remove_reference(&mut self, slot: Slot, reporter: Reporter) -> bool {
        let record = self.record_mut(slot.number);
        if record.reporter == Reporter::SEVERAL {
            return self.references.remove(slot.number, reporter);
        }
        record.references -= 1;
        record.references == 0
    }

    /// How many references there are to the buffer in a slot.
    pub(super) fn references(&self, slot: u32) -> u32 {
        let record = self.record(slot);
        if record.reporter == Reporter::SEVERAL {
            self.references.total(slot)
        } else {
            u32::from(record.references)
        }
    }

    /// Takes away all of a reporter's references to a list's buffers. Gives the buffers to which no other has any: they are to be removed.
    pub(super) fn leave(&mut self, list: &List, reporter: Reporter) -> Vec<Slot> {
        let mut left = Vec::new();
        let mut number = list.oldest;
        while number != NONE {
            let record = *self.record(number);
            let is_last = match record.reporter {
                Reporter::SEVERAL => self.references.leave(number, reporter),
                known => known == reporter,
            };
            if is_last {
                left.push(Slot { number, hash: self.hash(record.device, record.id) });
            }
            number = record.next;
        }
        left
    }

    /// Adds a buffer that is not there yet, as the newest of its list.
    pub(super) fn insert(
        &mut self,
        list: &mut List,
        NewBuffer { device, cell, id, size_bytes, allocated_ns, reporter }: NewBuffer,
    ) {
        let record = Record {
            id,
            size_bytes,
            allocated_ns,
            references: 1,
            reporter,
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
        self.index.insert(self.hash(device, id), slot);
    }

    /// Adds one that was stored, with the references that it had: at least one, each of a reporter of its own.
    pub(super) fn restore(&mut self, list: &mut List, buffer: NewBuffer, references: &[(Reporter, u32)]) {
        self.insert(list, buffer);
        let slot = list.newest;
        match references {
            [(_, count)] if *count <= u32::from(u16::MAX) => self.record_mut(slot).references = *count as u16,
            several => {
                self.record_mut(slot).reporter = Reporter::SEVERAL;
                several.iter().for_each(|(reporter, count)| self.references.add(slot, *reporter, *count));
            }
        }
    }

    /// A list's buffers, oldest first, with the references to them as they are stored.
    pub(super) fn with_references(&self, list: &List) -> impl Iterator<Item = (&Record, Vec<(u16, u32)>)> {
        let mut slot = list.oldest;
        std::iter::from_fn(move || {
            let record = (slot != NONE).then(|| self.record(slot))?;
            let references = if record.reporter == Reporter::SEVERAL {
                self.references.of(slot).iter().map(|(reporter, count)| (reporter.place(), *count)).collect()
            } else {
                vec![(record.reporter.place(), u32::from(record.references))]
            };
            slot = record.next;
            Some((record, references))
        })
    }

    /// Removes a buffer from the index and its list.
    pub(super) fn remove(&mut self, list: &mut List, slot: Slot) -> Record {
        let record = *self.record(slot.number);
        self.index.remove(slot.hash, slot.number);
        if record.reporter == Reporter::SEVERAL {
            self.references.end(slot.number);
        }
        match record.previous {
            NONE => list.oldest = record.next,
            previous => self.record_mut(previous).next = record.next,
        }
        match record.next {
            NONE => list.newest = record.previous,
            next => self.record_mut(next).previous = record.previous,
        }
        self.vacate(slot.number);
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

    /// One more than the highest slot that may be in use.
    pub(super) fn slots(&self) -> u32 {
        (self.chunks.len().saturating_sub(1) * CHUNK
            + self.chunks.last().map_or(0, |last| last.records.len())) as u32
    }

    /// Live buffers in a range of slots: a slot keeps its number while buffers come and go.
    pub(super) fn live(&self, slots: Range<u32>) -> impl Iterator<Item = (u32, &Record)> {
        let record = |slot: u32| self.chunks.get(slot as usize / CHUNK)?.records.get(slot as usize % CHUNK);
        slots.filter_map(move |slot| Some((slot, record(slot)?))).filter(|(_, record)| record.references > 0)
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self { hasher: self.hasher.clone(), ..Self::default() };
    }

    fn place(&mut self, record: Record) -> u32 {
        if self.chunks.get(self.filling).is_none_or(Chunk::is_full) {
            let known = self.roomy.pop_first().or_else(|| self.holes.pop_first());
            self.filling = known.unwrap_or(self.chunks.len());
            self.prepare();
        }
        let chunk = &mut self.chunks[self.filling];
        chunk.live += 1;
        if chunk.vacant == NONE {
            chunk.records.push(record);
            return (self.filling * CHUNK + chunk.records.len() - 1) as u32;
        }
        let slot = chunk.vacant;
        let place = &mut chunk.records[slot as usize % CHUNK];
        chunk.vacant = place.next;
        *place = record;
        slot
    }

    /// Gives the chunk that is to be filled its memory, if it has none.
    fn prepare(&mut self) {
        if self.filling == self.chunks.len() {
            self.chunks.push(Chunk::EMPTY);
        }
        let records = &mut self.chunks[self.filling].records;
        if self.filling > 0 && records.capacity() == 0 {
            *records = std::mem::take(&mut self.spare);
            records.reserve_exact(CHUNK);
        }
    }

    fn vacate(&mut self, slot: u32) {
        let number = slot as usize / CHUNK;
        let chunk = &mut self.chunks[number];
        if chunk.is_full() && number != self.filling {
            self.roomy.insert(number);
        }
        chunk.live -= 1;
        let record = &mut chunk.records[slot as usize % CHUNK];
        record.references = 0;
        record.next = chunk.vacant;
        chunk.vacant = slot;
        if chunk.live == 0 {
            self.empty(number);
        }
    }

    /// Gives back the memory of a chunk that holds nothing any more.
    fn empty(&mut self, number: usize) {
        if self.index.is_empty() {
            match &mut self.chunks[..] {
                [only] if only.records.capacity() <= KEPT_RECORDS_MAX => {
                    only.records.clear();
                    only.vacant = NONE;
                }
                _ => self.clear(),
            }
            return;
        }
        let mut records = std::mem::replace(&mut self.chunks[number], Chunk::EMPTY).records;
        if records.capacity() == CHUNK {
            records.clear();
            self.spare = records;
        }
        self.roomy.remove(&number);
        self.holes.insert(number);
        while self.chunks.last().is_some_and(|last| last.live == 0) {
            self.chunks.pop();
            self.holes.remove(&self.chunks.len());
        }
        if number == self.filling {
            self.filling = NOWHERE;
        }
    }

    fn hash(&self, device: u16, id: u64) -> u32 {
        // The upper half of a 64-bit hash is as good as the whole for tables that fit into memory.
        (self.hasher.hash_one((device, id)) >> 32) as u32
    }

    fn record(&self, slot: u32) -> &Record {
        &self.chunks[slot as usize / CHUNK].records[slot as usize % CHUNK]
    }

    fn record_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.chunks[slot as usize / CHUNK].records[slot as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(device: u16, id: u64, size_bytes: u64, allocated_ns: u64) -> NewBuffer {
        NewBuffer { device, cell: 0, id, size_bytes, allocated_ns, reporter: Reporter::default() }
    }

    #[test]
    fn lists_keep_the_order_of_allocation_through_any_removal() {
        let mut buffers = Buffers::default();
        let mut list = List::default();
        for id in 0..5 {
            buffers.insert(&mut list, buffer(1, id, 10 + id, 100 + id));
        }
        for id in [0, 4, 2] {
            let slot = buffers.find(1, id).expect("inserted above");
            assert_eq!(buffers.remove(&mut list, slot).size_bytes, 10 + id);
        }
        assert_eq!(buffers.oldest(&list).map(|record| record.id), Some(1));
        buffers.insert(&mut list, buffer(1, 9, 19, 109));
        assert_eq!(buffers.iter(&list).map(|record| record.id).collect::<Vec<_>>(), [1, 3, 9]);
        assert_eq!(buffers.live(0..buffers.slots()).count(), 3);
        assert!(buffers.find(2, 1).is_none(), "another device");
    }

    /// Chunks that have memory, the spare one included.
    fn chunks_with_memory(buffers: &Buffers) -> usize {
        let records = buffers.chunks.iter().map(|chunk| &chunk.records);
        records.chain([&buffers.spare]).filter(|records| records.capacity() > 0).count()
    }

    fn insert(buffers: &mut Buffers, list: &mut List, ids: Range<u64>) {
        for id in ids {
            buffers.insert(list, buffer(0, id, 1, 0));
        }
    }

    fn remove(buffers: &mut Buffers, list: &mut List, ids: impl Iterator<Item = u64>) {
        for id in ids {
            let slot = buffers.find(0, id).expect("it is there");
            buffers.remove(list, slot);
        }
    }

    #[test]
    fn an_empty_table_holds_no_memory_of_its_burst() {
        let (mut buffers, mut list) = (Buffers::default(), List::default());
        insert(&mut buffers, &mut list, 0..10_000);
        remove(&mut buffers, &mut list, 0..10_000);
        assert_eq!((buffers.len(), buffers.chunks.len(), chunks_with_memory(&buffers)), (0, 0, 0));
        assert!(buffers.oldest(&list).is_none());
        assert_eq!(buffers.live(0..buffers.slots()).count(), 0);
    }

    #[test]
    fn what_outlives_a_burst_does_not_keep_its_memory() {
        let (mut buffers, mut list) = (Buffers::default(), List::default());
        insert(&mut buffers, &mut list, 0..100_000);
        assert_eq!(chunks_with_memory(&buffers), 100_000usize.div_ceil(CHUNK));
        remove(&mut buffers, &mut list, 100..99_900);
        assert_eq!(chunks_with_memory(&buffers), 3, "the first, the last and the spare one");
        let live: Vec<u64> = buffers.live(0..buffers.slots()).map(|(_, record)| record.id).collect();
        assert_eq!(live, (0..100).chain(99_900..100_000).collect::<Vec<_>>());
        insert(&mut buffers, &mut list, 200_000..300_000);
        assert_eq!(buffers.slots(), 25 * CHUNK as u32, "vacated slots come first, then the holes");
    }

    #[test]
    fn a_table_is_what_a_map_would_be_after_any_sequence() {
        use std::collections::BTreeMap;
        let (mut buffers, mut list) = (Buffers::default(), List::default());
        let mut model = BTreeMap::new();
        let mut state = 1u64;
        // A linear congruential generator, whose upper bits are as random as this needs.
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for step in 0..400_000u64 {
            // It grows, shrinks to nearly nothing, and grows again.
            let grows = random(100) < if step / 100_000 % 2 == 0 { 80 } else { 20 };
            let id = random(60_000);
            match (grows, model.contains_key(&id)) {
                (true, false) => {
                    buffers.insert(&mut list, buffer(0, id, step + 1, step));
                    model.insert(id, step + 1);
                }
                (false, true) => {
                    let slot = buffers.find(0, id).expect("it is in the model");
                    assert_eq!(Some(buffers.remove(&mut list, slot).size_bytes), model.remove(&id));
                }
                (_, is_there) => assert_eq!(buffers.find(0, id).is_some(), is_there),
            }
        }
        let live = buffers.live(0..buffers.slots()).map(|(_, record)| (record.id, record.size_bytes));
        assert_eq!(live.collect::<BTreeMap<_, _>>(), model);
        assert_eq!(buffers.iter(&list).count(), model.len());
        assert!(buffers.iter(&list).is_sorted_by_key(|record| record.allocated_ns));
    }
}
