//! What shared memory is made of: words of 64 bits that are read and written whole.

use core::sync::atomic::{self, AtomicU64, Ordering};

/// A 64-bit word that several threads or processes use at once. The model checker has its own.
pub trait Word {
    /// Reads it.
    fn load(&self, ordering: Ordering) -> u64;
    /// Writes it.
    fn store(&self, value: u64, ordering: Ordering);
    /// Writes it and gives what was there.
    fn swap(&self, value: u64, ordering: Ordering) -> u64;
    /// Adds to it and gives what was there.
    fn add(&self, value: u64, ordering: Ordering) -> u64;
    /// A fence for all words.
    fn fence(ordering: Ordering);
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self, ordering: Ordering) -> u64 {
        AtomicU64::load(self, ordering)
    }

    #[inline(always)]
    fn store(&self, value: u64, ordering: Ordering) {
        AtomicU64::store(self, value, ordering);
    }

    #[inline(always)]
    fn swap(&self, value: u64, ordering: Ordering) -> u64 {
        AtomicU64::swap(self, value, ordering)
    }

    #[inline(always)]
    fn add(&self, value: u64, ordering: Ordering) -> u64 {
        self.fetch_add(value, ordering)
    }

    #[inline(always)]
    fn fence(ordering: Ordering) {
        atomic::fence(ordering);
    }
}
