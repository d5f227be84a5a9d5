//! The counters of one process on one device in one memory type, published so that a reader sees them all at one instant.
//!
//! The idea is that what is published lies in a row of the stats page: whoever holds the process's ledger publishes once, for readers
//! here and in other processes. Readers retry while a publication is under way, and nobody who writes ever waits for one who reads.

use ttmem_wire::stats::{self, HolderDescription, HolderState};

use super::MemoryType;
use super::image::ImageError;
use super::page::{HolderPlace, Pages};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        /// What one process holds and has done on one device in one memory type.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64),*
        }

        impl Counters {
            #[cfg(test)]
            const NAMES: &[&str] = &[$(stringify!($field)),*];
            const WORDS: usize = [$(stringify!($field)),*].len();

            fn words(&self) -> [u64; Self::WORDS] {
                [$(self.$field),*]
            }

            /// All of them, as they are stored.
            pub(super) fn to_words(self) -> Vec<u64> {
                self.words().into()
            }

            /// Those that were stored. A version with more of them finds 0 for the others.
            pub(super) fn of_words(stored: &[u64]) -> Result<Self, ImageError> {
                if stored.len() > Self::WORDS {
                    return Err(ImageError("a place has more counters than this version knows"));
                }
                let mut words = [0; Self::WORDS];
                words[..stored.len()].copy_from_slice(stored);
                Ok(Self::from_words(words))
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
    /// The lower half of the bytes held times the nanoseconds for which they were: gigabytes would fill 64 bits within seconds.
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
        let held_bytes = self.usage_bytes().saturating_add(other.usage_bytes());
        self.absorb(other);
        // What a region alone tells counts as well as what was reported.
        Counters { peak_bytes, reported_bytes: held_bytes, region_bytes: held_bytes, ..self }
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

/// [`Counters`] as readers see them, here and in other processes.
pub struct Cell {
    device: u16,
    memory_type: MemoryType,
    place: HolderPlace,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cell { device, memory_type, .. } = self;
        f.debug_struct("Cell")
            .field("device", device)
            .field("memory_type", memory_type)
            .finish_non_exhaustive()
    }
}

impl Cell {
    pub(super) fn new(memory_type: MemoryType, holder: &HolderDescription, pages: Option<&Pages>) -> Self {
        Self { device: holder.device, memory_type, place: HolderPlace::new(pages, holder) }
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
        stats::publish(self.place.row(), counters.words());
    }

    /// The process has ended: the counters are final. As for [`Self::publish`], there is one writer at a time.
    pub(super) fn end(&self) {
        stats::set_state(self.place.row(), HolderState::Ended);
    }

    /// The counters, all of one instant.
    pub fn read(&self) -> Counters {
        loop {
            if let Some(words) = stats::try_figures(self.place.row()) {
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
    use std::sync::atomic::Ordering::{Acquire, Release};

    use ttmem_wire::stats::{Figure, Text};

    use super::*;

    #[test]
    fn the_figures_of_a_row_are_the_counters_in_their_order() {
        assert_eq!(Counters::NAMES[..Figure::ALL.len()], Figure::ALL.map(Figure::name));
        assert_eq!(MemoryType::ALL.map(MemoryType::name), stats::MEMORY_TYPE_NAMES);
    }

    #[test]
    fn a_reader_never_sees_half_a_publication() {
        let holder = HolderDescription {
            pid: 1,
            start_ticks: 1,
            start_unix_ns: 0,
            uid: 0,
            device: 0,
            memory_type: 0,
            name: Text::new(""),
            user: Text::new(""),
        };
        let cell = Cell::new(MemoryType::Dram, &holder, None);
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
