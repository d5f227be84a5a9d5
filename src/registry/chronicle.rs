//! What is worth remembering and happens rarely, kept until the history's writer comes for it: ends of processes, failed allocations,
//! suspected leaks.
//!
//! The idea is a bounded list beside the feed of the spans. That one tells of buffers as well and has one listener, who is fast; this
//! one is emptied once a second by somebody who writes to a disk.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{AllocationFailure, Process, Suspicion};

/// Moments that may wait: a host ends and fails less in a second, unless something runs wild.
pub const CHRONICLE_MOMENTS_MAX: usize = 4096;
/// Places that failures leave to ends: a program that tries again in a loop must not hide who ended.
const RESERVED_PLACES: usize = CHRONICLE_MOMENTS_MAX / 4;

/// Something to remember.
#[derive(Clone, Debug)]
pub enum Moment {
    /// A device had no room for what a process asked for.
    Failed(Arc<Process>, AllocationFailure),
    /// What a process holds looks like a leak, and did not before.
    LeakSuspected(Box<Suspicion>),
    /// A process is gone; when, in monotonic nanoseconds.
    Ended(Arc<Process>, u64),
}

/// The list.
#[derive(Default, Debug)]
pub(super) struct Chronicle(Mutex<Waiting>);

#[derive(Default, Debug)]
struct Waiting {
    moments: Vec<Moment>,
    lost: u64,
}

impl Chronicle {
    /// Adds a moment, or counts it where there is no room.
    pub(super) fn note(&self, moment: Moment) {
        let places = match moment {
            Moment::Failed(..) | Moment::LeakSuspected(..) => CHRONICLE_MOMENTS_MAX - RESERVED_PLACES,
            Moment::Ended(..) => CHRONICLE_MOMENTS_MAX,
        };
        let mut waiting = self.0.lock();
        if waiting.moments.len() < places {
            waiting.moments.push(moment);
        } else {
            waiting.lost += 1;
        }
    }

    /// Takes all of them, and how many found no room since the last time.
    pub(super) fn take(&self) -> (Vec<Moment>, u64) {
        let Waiting { moments, lost } = std::mem::take(&mut *self.0.lock());
        (moments, lost)
    }
}
