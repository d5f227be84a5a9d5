//! Memory that looks as if it leaked: what the analysis has found, for everybody who tells of it.

use std::sync::Arc;

use super::{Held, MemoryType, Process, SizeClass};

/// A score from which on a leak is suspected, and told of.
pub const SUSPECTED_SCORE: f64 = 0.5;

/// What a process holds of one device's memory, and why it may be a leak.
#[derive(Clone, Debug)]
pub struct Suspicion {
    /// Who holds it.
    pub process: Arc<Process>,
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// How sure it is: above 0, below 1.
    pub score: f64,
    /// The sizes that grow, if it is some alone.
    pub size_class: Option<SizeClass>,
    /// What has been added to what is held for long.
    pub growth: Held,
    /// In how many nanoseconds.
    pub growth_ns: u64,
    /// The same in words.
    pub evidence: String,
    /// Since when it is suspected, in monotonic nanoseconds; `None` below [`SUSPECTED_SCORE`].
    pub since_ns: Option<u64>,
}

impl Suspicion {
    /// Whether there is reason enough to tell somebody.
    pub fn is_suspected(&self) -> bool {
        self.since_ns.is_some()
    }

    /// Whether another one is about the same memory.
    pub(super) fn is_about_same(&self, other: &Suspicion) -> bool {
        let place =
            |suspicion: &Suspicion| (suspicion.process.serial(), suspicion.device, suspicion.memory_type);
        place(self) == place(other)
    }

    /// How fast it grows.
    pub fn bytes_per_second(&self) -> f64 {
        self.growth.bytes as f64 / (self.growth_ns as f64 / 1e9)
    }
}
