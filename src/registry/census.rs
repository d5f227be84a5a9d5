//! How old what a process holds is, by size: the live buffers counted in classes of size and age.
//!
//! The idea is that nothing is kept for it while buffers come and go. Whoever wants to know walks the records, and a process's ledger is
//! held for a bounded number of them at a time, as in a listing: no report waits longer than that.

use super::buffers::Record;
use super::{MemoryType, Process};

/// Ages that are told apart.
pub const CENSUS_AGES: usize = 12;
/// The first of them: what is held for less is work in progress. Each further one is twice the one before, so the last is 34 hours.
const FIRST_AGE_NS: u64 = 60_000_000_000;
/// Records looked at while a ledger is held: about twenty microseconds.
const RECORDS_PER_HOLD: u32 = 4096;
/// Size classes: a size is below 2^64.
const SIZE_CLASSES: usize = 64;

/// The age of that number, in nanoseconds.
pub const fn census_age_ns(number: usize) -> u64 {
    FIRST_AGE_NS << number
}

/// Sizes from a power of two to below the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SizeClass(u8);

impl SizeClass {
    /// The class that a size belongs to.
    pub fn of(size_bytes: u64) -> SizeClass {
        // At most 63.
        SizeClass(size_bytes.checked_ilog2().unwrap_or(0) as u8)
    }

    /// The smallest size in it, in bytes.
    pub fn first_bytes(self) -> u64 {
        1 << self.0
    }

    /// The largest size in it, in bytes.
    pub fn last_bytes(self) -> u64 {
        self.first_bytes() | (self.first_bytes() - 1)
    }
}

/// Some buffers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Held {
    /// How many.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Held {
    /// Adds other buffers.
    pub fn add(&mut self, other: Held) {
        self.buffers = self.buffers.saturating_add(other.buffers);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// Those that are more than the others.
    pub fn less(self, other: Held) -> Held {
        Held {
            buffers: self.buffers.saturating_sub(other.buffers),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// What a process holds of one device's memory in buffers of similar size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CensusClass {
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// The sizes.
    pub size_class: SizeClass,
    /// All of it.
    pub held: Held,
    /// What of it is at least as old as each of the ages.
    pub older: [Held; CENSUS_AGES],
}

impl Process {
    /// Counts what it holds, by device, memory type, size and age. Buffers that come and go meanwhile may be in it or not.
    pub fn census(&self, now_ns: u64) -> Vec<CensusClass> {
        let mut tally = Tally::default();
        let mut first = 0;
        loop {
            let ledger = self.ledger();
            let slots = ledger.slots();
            let end = slots.min(first + RECORDS_PER_HOLD);
            for (_, memory_type, record) in ledger.live(first..end) {
                tally.count(memory_type, record, now_ns);
            }
            if end == slots {
                break;
            }
            first = end;
        }
        tally.finish()
    }
}

/// Counts by cell and size class; the ages are counted apart here, and summed at the end.
#[derive(Default)]
struct Tally(Vec<[Option<Box<CensusClass>>; SIZE_CLASSES]>);

impl Tally {
    fn count(&mut self, memory_type: MemoryType, record: &Record, now_ns: u64) {
        let (cell, size_class) = (usize::from(record.cell), SizeClass::of(record.size_bytes));
        if self.0.len() <= cell {
            self.0.resize_with(cell + 1, || [const { None }; SIZE_CLASSES]);
        }
        let class = self.0[cell][usize::from(size_class.0)].get_or_insert_with(|| {
            let (device, held, older) = (record.device, Held::default(), Default::default());
            Box::new(CensusClass { device, memory_type, size_class, held, older })
        });
        let buffer = Held { buffers: 1, bytes: record.size_bytes };
        class.held.add(buffer);
        let age = now_ns.saturating_sub(record.allocated_ns) / FIRST_AGE_NS;
        if let Some(reached) = age.checked_ilog2() {
            class.older[(reached as usize).min(CENSUS_AGES - 1)].add(buffer);
        }
    }

    fn finish(self) -> Vec<CensusClass> {
        let mut classes: Vec<_> = self.0.into_iter().flatten().flatten().map(|class| *class).collect();
        for class in &mut classes {
            for age in (1..CENSUS_AGES).rev() {
                let older = class.older[age];
                class.older[age - 1].add(older);
            }
        }
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MINUTE_NS, registry_with_process};
    use super::*;

    #[test]
    fn a_size_is_in_the_class_of_its_power_of_two() {
        for (size_bytes, first, last) in
            [(1, 1, 1), (2, 2, 3), (3, 2, 3), (4096, 4096, 8191), (u64::MAX, 1 << 63, u64::MAX)]
        {
            let class = SizeClass::of(size_bytes);
            assert_eq!((class.first_bytes(), class.last_bytes()), (first, last), "{size_bytes}");
        }
    }

    #[test]
    fn buffers_are_counted_by_size_and_age_through_any_number_of_holds() {
        let (registry, process) = registry_with_process();
        for minute in 0..10 {
            let mut batch = registry.batch(&process, minute * MINUTE_NS);
            for number in 0..1000 {
                let id = minute * 1000 + number;
                batch.allocate(0, MemoryType::Dram, id, 3000).expect("there is room");
            }
        }
        registry.batch(&process, 0).allocate(1, MemoryType::L1, 1, 64).expect("there is room");
        let classes = process.census(10 * MINUTE_NS);
        let [dram, l1] = &classes[..] else { panic!("{classes:?}") };
        assert_eq!(
            (dram.device, dram.memory_type, dram.size_class.first_bytes()),
            (0, MemoryType::Dram, 2048)
        );
        assert_eq!(dram.held, Held { buffers: 10_000, bytes: 30_000_000 });
        let older: Vec<u64> = dram.older.iter().map(|held| held.buffers / 1000).collect();
        assert_eq!(older, [10, 9, 7, 3, 0, 0, 0, 0, 0, 0, 0, 0], "at least 1, 2, 4 and 8 minutes old");
        assert_eq!((l1.device, l1.held.buffers, l1.older[3].buffers, l1.older[4].buffers), (1, 1, 1, 0));
    }
}
