//! What the rest of the daemon can hear of as it happens: a bounded queue that the reporting path never waits for.
//!
//! The idea is two vectors of fixed capacity that change places: a batch adds what it has to tell under one short lock, the listener
//! takes everything at once, and nobody allocates. What finds no room is counted and gone.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::telling::{BurstAllocated, BurstHeld, Orphans, Release};
use super::{EventCounters, MemoryType, Omission, Orphaned, Process, Rejection, Suspicion};

/// Occurrences that may wait: a tenth of a second at the rate of spans that one collector is known to take.
pub const FEED_OCCURRENCES_MAX: usize = 32 * 1024;
/// Places that single buffers leave to what happens rarely and matters more: ends, failures, bursts.
const RESERVED_PLACES: usize = FEED_OCCURRENCES_MAX / 8;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Occurrence {
    /// A buffer that the policy wants to be told of was released.
    Released(Arc<Process>, Release),
    /// A process has allocated many buffers in a short time and keeps them.
    BurstAllocated(Arc<Process>, Box<BurstAllocated>),
    /// All buffers of a burst have been released.
    BurstReleased(Arc<Process>, Box<BurstHeld>),
    /// A device had no room for what a process asked for.
    Failed(Arc<Process>, AllocationFailure),
    /// What a process holds looks like a leak, and did not before.
    LeakSuspected(Box<Suspicion>),
    /// A process is gone.
    Ended(Arc<Process>, Box<Ending>),
    /// A peer's message or connection was refused. Told as rarely as it is logged.
    Rejected(RejectedPeer),
}

/// An allocation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocationFailure {
    /// The device's index.
    pub device: u16,
    /// The memory that was asked for.
    pub memory_type: MemoryType,
    /// Bytes asked for.
    pub requested_bytes: u64,
    /// The largest free block in bytes.
    pub largest_free_block_bytes: u64,
    /// All that was free, in bytes.
    pub free_bytes: u64,
    /// When, in monotonic nanoseconds.
    pub at_ns: u64,
}

impl AllocationFailure {
    /// Why it failed: what is free in total would have been enough, or not.
    pub fn reason(&self) -> FailureReason {
        if self.free_bytes >= self.requested_bytes {
            FailureReason::Fragmented
        } else {
            FailureReason::Exhausted
        }
    }
}

/// Why an allocation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureReason {
    /// Less was free than was asked for.
    Exhausted,
    /// Enough was free, but not in one block.
    Fragmented,
}

impl FailureReason {
    /// Both of them, in the order of their numbers.
    pub const ALL: [FailureReason; 2] = [FailureReason::Exhausted, FailureReason::Fragmented];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            FailureReason::Exhausted => "exhausted",
            FailureReason::Fragmented => "fragmented",
        }
    }
}

/// A process's end.
#[derive(Clone, Default, Debug)]
pub struct Ending {
    /// When, in monotonic nanoseconds.
    pub at_ns: u64,
    /// All that it still held.
    pub orphaned: Orphaned,
    /// What of that is told in detail.
    pub orphans: Orphans,
    /// The bursts of which it still held buffers.
    pub bursts: Vec<BurstHeld>,
}

/// A peer that was not believed or not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RejectedPeer {
    /// Its process id; 0 if it is not known.
    pub pid: u32,
    /// Why.
    pub reason: Rejection,
    /// How many of the same kind were passed over since the last one that was told.
    pub suppressed: u64,
    /// When, in monotonic nanoseconds.
    pub at_ns: u64,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Feed {
    waiting: Mutex<Vec<Occurrence>>,
    arrived: Notify,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new(Vec::with_capacity(FEED_OCCURRENCES_MAX)), arrived: Notify::new() }
    }

    /// Adds something that happens rarely.
    pub(super) fn tell(&self, occurrence: Occurrence, events: &EventCounters) {
        self.add(std::iter::once(occurrence), FEED_OCCURRENCES_MAX, events);
    }

    /// Adds released buffers.
    pub(super) fn tell_released(
        &self,
        process: &Arc<Process>,
        releases: impl ExactSizeIterator<Item = Release>,
        events: &EventCounters,
    ) {
        let released = releases.map(|release| Occurrence::Released(Arc::clone(process), release));
        self.add(released, FEED_OCCURRENCES_MAX - RESERVED_PLACES, events);
    }

    fn add(
        &self,
        occurrences: impl ExactSizeIterator<Item = Occurrence>,
        places: usize,
        events: &EventCounters,
    ) {
        let mut waiting = self.waiting.lock();
        let (told, room) = (occurrences.len(), places.saturating_sub(waiting.len()));
        let was_empty = waiting.is_empty();
        waiting.extend(occurrences.take(room));
        drop(waiting);
        if told > room {
            events.omit(Omission::Queue, (told - room) as u64);
        }
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Takes all that waits, and leaves an empty vector in its place.
    pub(super) fn take(&self, into: &mut Vec<Occurrence>) {
        into.clear();
        into.reserve(FEED_OCCURRENCES_MAX);
        std::mem::swap(&mut *self.waiting.lock(), into);
    }

    /// Comes back when something waits.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }
}
