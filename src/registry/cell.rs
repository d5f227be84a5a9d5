//! The counters of one process on one device in one memory type, published so that a reader sees them all at one instant.
//!
//! The idea is a sequence lock with a single writer: whoever holds the process's ledger publishes, readers retry while a publication is
//! under way, and nobody who writes ever waits for somebody who reads.

use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence,
};

use super::MemoryType;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// What one process holds and has done on one device in one memory type.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64),*
        }

        impl Counters {
            const WORDS: usize = [$(stringify!($field)),*].len();

            fn words(&self) -> [u64; Self::WORDS] {
                [$(self.$field),*]
            }

            fn from_words([$($field),*]: [u64; Self::WORDS]) -> Self {
                Self { $($field),* }
            }
        }
    };
}

counters! {
    /// Bytes held by buffers that the process reported one by one.
    reported_bytes,
    /// Bytes that tt-metal's shared-memory region shows for the process.
    region_bytes,
    /// 1 once the process has reported any buffer here: from then on its reports count, and the region only as a comparison.
    is_reported,
    /// 1 while a region has a figure for the process.
    is_in_region,
    /// The most that [`Counters::usage_bytes`] has ever been.
    peak_bytes,
    /// Live buffers.
    buffers,
    /// Allocations reported so far.
    allocations,
    /// Releases so far: frees, and what was reclaimed at the process's end.
    frees,
    /// Bytes allocated so far.
    allocated_bytes,
    /// Bytes released so far.
    freed_bytes,
    /// Buffers reclaimed at the process's end.
    orphaned_buffers,
    /// Bytes reclaimed at the process's end.
    orphaned_bytes,
    /// When the oldest live buffer was allocated, in the registry's monotonic nanoseconds plus one; 0 when there is none.
    oldest_ns_plus_one,
    /// The lower half of [`Counters::held_byte_ns`]: gigabytes would fill 64 bits within seconds.
    held_byte_ns_low,
    /// Its upper half.
    held_byte_ns_high,
    /// The moment up to which that is counted, in the registry's monotonic nanoseconds.
    held_until_ns,
}

impl Counters {
    /// Bytes held: per-buffer reports where there are any, the region's figure otherwise.
    pub fn usage_bytes(&self) -> u64 {
        if self.is_reported != 0 { self.reported_bytes } else { self.region_bytes }
    }

    /// The region's figure minus the reported one, where both are known.
    pub fn drift_bytes(&self) -> Option<i64> {
        (self.is_reported != 0 && self.is_in_region != 0)
            .then(|| self.region_bytes.cast_signed().wrapping_sub(self.reported_bytes.cast_signed()))
    }

    /// Bytes held times the nanoseconds for which they were, up to the last publication.
    pub(super) fn held_byte_ns(&self) -> u128 {
        u128::from(self.held_byte_ns_high) << 64 | u128::from(self.held_byte_ns_low)
    }

    /// The same up to a later moment, as nothing has changed since.
    pub(super) fn held_byte_ns_until(&self, now_ns: u64) -> u128 {
        let since_ns = now_ns.saturating_sub(self.held_until_ns);
        self.held_byte_ns() + u128::from(self.usage_bytes()) * u128::from(since_ns)
    }

    /// Counts what was held from the last publication to this one.
    pub(super) fn hold(&mut self, usage_bytes: u64, now_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.held_until_ns);
        self.set_held_byte_ns(self.held_byte_ns() + u128::from(usage_bytes) * u128::from(since_ns));
        self.held_until_ns = self.held_until_ns.max(now_ns);
    }

    fn set_held_byte_ns(&mut self, byte_ns: u128) {
        // Both halves, cut where they meet.
        (self.held_byte_ns_low, self.held_byte_ns_high) = (byte_ns as u64, (byte_ns >> 64) as u64);
    }

    /// The sum with another place's counters of the same process. The peaks add up as well: to an upper bound, as they need not have
    /// been at one time.
    pub fn with(mut self, other: &Counters) -> Counters {
        let peak_bytes = self.peak_bytes.saturating_add(other.peak_bytes);
        let region_bytes = self.usage_bytes().saturating_add(other.usage_bytes());
        self.absorb(other);
        // What a region alone tells counts as well as what was reported.
        Counters { peak_bytes, reported_bytes: region_bytes, region_bytes, ..self }
    }

    /// Adds another process's counters: sums (a count of bytes that leaves 64 bits begins again, as counters do), flags that hold if any holds, and the oldest of both. The peaks do not add up and stay
    /// as they are.
    pub(super) fn absorb(&mut self, other: &Counters) {
        let held_byte_ns = self.held_byte_ns() + other.held_byte_ns();
        *self = Counters {
            reported_bytes: self.reported_bytes.saturating_add(other.reported_bytes),
            region_bytes: self.region_bytes.saturating_add(other.region_bytes),
            is_reported: self.is_reported | other.is_reported,
            is_in_region: self.is_in_region | other.is_in_region,
            peak_bytes: self.peak_bytes,
            buffers: self.buffers.saturating_add(other.buffers),
            allocations: self.allocations.saturating_add(other.allocations),
            frees: self.frees.saturating_add(other.frees),
            allocated_bytes: self.allocated_bytes.wrapping_add(other.allocated_bytes),
            freed_bytes: self.freed_bytes.wrapping_add(other.freed_bytes),
            orphaned_buffers: self.orphaned_buffers.saturating_add(other.orphaned_buffers),
            orphaned_bytes: self.orphaned_bytes.wrapping_add(other.orphaned_bytes),
            oldest_ns_plus_one: match (self.oldest_ns_plus_one, other.oldest_ns_plus_one) {
                (0, only) | (only, 0) => only,
                (left, right) => left.min(right),
            },
            held_until_ns: self.held_until_ns.max(other.held_until_ns),
            ..Counters::default()
        };
        self.set_held_byte_ns(held_byte_ns);
    }

    /// When the oldest live buffer was allocated, in the registry's monotonic nanoseconds.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.oldest_ns_plus_one.checked_sub(1)
    }
}

/// [`Counters`] as readers see them.
#[derive(Debug)]
pub struct Cell {
    device: u16,
    memory_type: MemoryType,
    sequence: AtomicU32,
    words: [AtomicU64; Counters::WORDS],
}

impl Cell {
    pub(super) fn new(device: u16, memory_type: MemoryType) -> Self {
        Self {
            device,
            memory_type,
            sequence: AtomicU32::new(0),
            words: [const { AtomicU64::new(0) }; Counters::WORDS],
        }
    }

    /// The device's index.
    pub fn device(&self) -> u16 {
        self.device
    }

    /// The memory type.
    pub fn memory_type(&self) -> MemoryType {
        self.memory_type
    }

    /// Replaces what readers see. Only the holder of the process's ledger may call it: there is one writer at a time.
    pub(super) fn publish(&self, counters: &Counters) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        for (word, value) in self.words.iter().zip(counters.words()) {
            word.store(value, Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// The counters, all of one instant.
    pub fn read(&self) -> Counters {
        loop {
            let before = self.sequence.load(Acquire);
            let words = std::array::from_fn(|index| self.words[index].load(Relaxed));
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                return Counters::from_words(words);
            }
            // The writer may have been descheduled between its two steps; on few cores spinning would keep it off the processor.
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a_reader_never_sees_half_a_publication() {
        let cell = Cell::new(0, MemoryType::Dram);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for value in 0..20_000 {
                    cell.publish(&Counters::from_words([value; Counters::WORDS]));
                }
                done.store(true, Release);
            });
            while !done.load(Acquire) {
                let words = cell.read().words();
                assert!(words.iter().all(|word| *word == words[0]), "torn: {words:?}");
            }
        });
        assert_eq!(cell.read().allocations, 19_999);
    }

    #[test]
    fn reports_win_over_the_region() {
        let region_only = Counters { region_bytes: 7, is_in_region: 1, ..Counters::default() };
        assert_eq!((region_only.usage_bytes(), region_only.drift_bytes()), (7, None));
        let both = Counters { reported_bytes: 9, is_reported: 1, ..region_only };
        assert_eq!((both.usage_bytes(), both.drift_bytes()), (9, Some(-2)));
    }
}
