//! The rings that the process's threads write into: at first memory of our own, then what the server has made.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ttmem_wire::Geometry;
use ttmem_wire::ring::{self, Producer};

use crate::handover;
use crate::mapping::Mapping;
use crate::wake::Wake;

/// A word with its own pair of cache lines, because threads would slow each other down otherwise.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Apart(pub(crate) AtomicU64);

/// One set of rings. The last one belongs to no thread: those that find no ring of their own take turns in it.
#[derive(Debug)]
pub(crate) struct Lanes {
    memory: Memory,
    geometry: Geometry,
    wake: Arc<Wake>,
    common: Mutex<Producer>,
    /// For each ring, whether its thread is in the middle of a report.
    busy: Box<[Apart]>,
    /// How far the list of what is held has read each ring, where the server reads them too.
    observed: Option<Box<[Apart]>>,
}

#[derive(Debug)]
enum Memory {
    Own(Box<[AtomicU64]>),
    Servers(Mapping),
}

impl Lanes {
    /// Rings that only this process knows, read by the thread that `wake` wakes.
    pub(crate) fn own(geometry: Geometry, wake: Arc<Wake>) -> Lanes {
        // Zeros that nobody has touched take no memory yet, which is why they are not made one by one.
        // SAFETY: a word of zeros is an atomic.
        let words = unsafe { Box::<[AtomicU64]>::new_zeroed_slice(geometry.words()).assume_init() };
        ring::initialise(&words, geometry);
        Lanes::new(Memory::Own(words), geometry, wake, None)
    }

    /// Rings that the server reads.
    pub(crate) fn servers(mapping: Mapping, geometry: Geometry, wake: Wake) -> Lanes {
        Lanes::new(Memory::Servers(mapping), geometry, Arc::new(wake), Some(one_each(geometry)))
    }

    fn new(memory: Memory, geometry: Geometry, wake: Arc<Wake>, observed: Option<Box<[Apart]>>) -> Lanes {
        let words = memory.words();
        let common = Mutex::new(Producer::new(words, geometry, geometry.rings() - 1));
        Lanes { memory, geometry, wake, common, busy: one_each(geometry), observed }
    }

    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn is_servers(&self) -> bool {
        self.observed.is_some()
    }

    /// The ring that threads without one of their own share.
    pub(crate) fn common_ring(&self) -> u32 {
        self.geometry.rings() - 1
    }

    pub(crate) fn common(&self) -> MutexGuard<'_, Producer> {
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever reads.
    pub(crate) fn wake(&self) {
        self.wake.ring();
    }

    /// How far our own second reader is.
    pub(crate) fn observed(&self, ring: u32) -> Option<u64> {
        self.observed.as_ref().map(|observed| observed[ring as usize].0.load(Acquire))
    }

    pub(crate) fn set_observed(&self, ring: u32, head: u64) {
        if let Some(observed) = &self.observed {
            observed[ring as usize].0.store(head, Release);
        }
    }

    /// Ends a report that has begun.
    #[inline]
    pub(crate) fn end(&self, ring: u32) {
        handover::end(&self.busy[ring as usize].0);
    }
}

fn one_each(geometry: Geometry) -> Box<[Apart]> {
    (0..geometry.rings()).map(|_| Apart::default()).collect()
}

impl Memory {
    #[inline]
    fn words(&self) -> &[AtomicU64] {
        match self {
            Memory::Own(words) => words,
            Memory::Servers(mapping) => mapping.words(),
        }
    }
}

/// Which rings are in force, and what all threads draw their numbers from.
#[derive(Debug)]
pub(crate) struct Board {
    /// The order of the next report, over all threads.
    order: Apart,
    /// Changes when other rings come into force.
    epoch: Apart,
    current: Mutex<Arc<Lanes>>,
    /// Rings whose threads have ended, and the first that no thread has had.
    free: Mutex<(Vec<u32>, u32)>,
    /// Set by a thread that has waited for room in vain.
    pub(crate) is_stalled: AtomicBool,
}

impl Board {
    pub(crate) fn new(lanes: Lanes) -> Board {
        Board {
            order: Apart::default(),
            epoch: Apart::default(),
            current: Mutex::new(Arc::new(lanes)),
            free: Mutex::default(),
            is_stalled: AtomicBool::new(false),
        }
    }

    /// A place for a thread: the number of its ring, in any set that has as many.
    pub(crate) fn take_place(&self) -> u32 {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (returned, next) = &mut *free;
        returned.pop().unwrap_or_else(|| {
            *next += 1;
            *next - 1
        })
    }

    pub(crate) fn give_place_back(&self, place: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(place);
    }

    /// The rings in force, and the epoch that they are of.
    pub(crate) fn current(&self) -> (Arc<Lanes>, u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&current), self.epoch.0.load(Relaxed))
    }

    /// Begins a report: its number, if the rings of that epoch are still in force; otherwise the report has to begin anew.
    #[inline]
    pub(crate) fn begin(&self, lanes: &Lanes, ring: u32, epoch: u64) -> Option<u64> {
        handover::begin(&self.order.0, &self.epoch.0, &lanes.busy[ring as usize].0, epoch)
    }

    /// Puts other rings into force, and gives the old ones when no thread writes into them any more.
    pub(crate) fn replace(&self, lanes: Arc<Lanes>, wait: impl Fn()) -> Arc<Lanes> {
        let old = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            let old = std::mem::replace(&mut *current, lanes);
            handover::end_epoch(&self.order.0, &self.epoch.0);
            old
        };
        for busy in &old.busy {
            while handover::is_busy(&busy.0) {
                wait();
            }
        }
        old
    }
}
