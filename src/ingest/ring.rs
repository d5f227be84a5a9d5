//! The rings of one connection: memory that its process writes reports into, and this session's thread reads.
//!
//! The idea is that nothing in the mapping is believed. The daemon makes the memory, seals its size, keeps its own heads and judges only
//! copies; whatever a client writes there ends at most its own session.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;
use ttmem_wire::ring::{self, Consumer, RingError};
use ttmem_wire::{FrameError, Geometry, Header, RECORD_BYTES};

use super::processes::{RingHold, Tracked};
use super::stream::watch;
use crate::mapping::Shared;
use crate::registry::{Registry, RingRefusal};

/// Between two looks at rings that have just been empty.
const REST: Duration = Duration::from_millis(1);
/// Looks in a row that find nothing before the reader sleeps: only then does a report cost its client a system call, to wake it.
const RESTS_MAX: u32 = 20;

/// How much memory the rings of each user take, and how much they may.
pub(super) struct RingMemory {
    registry: Arc<Registry>,
    user_bytes_max: u64,
    by_user: Mutex<HashMap<u32, u64>>,
}

/// Memory that is counted for a user.
pub(super) struct Grant {
    memory: Arc<RingMemory>,
    uid: u32,
    bytes: u64,
}

impl RingMemory {
    pub(super) fn new(registry: Arc<Registry>, user_bytes_max: u64) -> Arc<RingMemory> {
        Arc::new(RingMemory { registry, user_bytes_max, by_user: Mutex::default() })
    }

    /// Memory for rings of one of the user's processes, if it may have so much.
    pub(super) fn grant(self: &Arc<Self>, uid: u32, bytes: u64) -> Result<Grant, RingRefusal> {
        if self.user_bytes_max == 0 {
            return Err(RingRefusal::Off);
        }
        let mut by_user = self.by_user.lock();
        let used = by_user.get(&uid).copied().unwrap_or(0);
        if used + bytes > self.user_bytes_max {
            return Err(RingRefusal::UserMemory);
        }
        by_user.insert(uid, used + bytes);
        self.registry.events().grant_rings(bytes);
        Ok(Grant { memory: Arc::clone(self), uid, bytes })
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.memory.registry.events().reclaim_rings(self.bytes);
        let mut by_user = self.memory.by_user.lock();
        if let Some(used) = by_user.get_mut(&self.uid) {
            *used -= self.bytes;
            if *used == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

/// What a ring's reader found that its writer must not do.
pub(super) enum RingFault {
    /// A tail that cannot be.
    Ring(RingError),
    /// A record that is no message.
    Record(FrameError),
}

/// The reader of one connection's rings.
pub(super) struct Rings {
    memory: Shared,
    geometry: Geometry,
    consumers: Vec<Consumer>,
    wake: AsyncFd<OwnedFd>,
    pace: Pace,
    /// Done when the process has ended.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Records that have been copied and are not applied yet.
    copied: Vec<Header>,
    _hold: RingHold,
    _grant: Grant,
}

/// Where the reader of a connection's rings is, as it is stored.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Debug)]
pub(super) struct RingsImage {
    rings: u32,
    records: u32,
    heads: Vec<u64>,
    losts: Vec<u64>,
}

impl RingsImage {
    fn fresh(geometry: Geometry) -> RingsImage {
        let nothing = vec![0; geometry.rings() as usize];
        RingsImage {
            rings: geometry.rings(),
            records: geometry.records(),
            heads: nothing.clone(),
            losts: nothing,
        }
    }
}

/// How the reader waits.
enum Pace {
    /// Not until there is nothing.
    Reading {
        rests: u32,
    },
    Resting {
        rests: u32,
        sleep: Pin<Box<Sleep>>,
    },
    Asleep,
}

/// Why the reader has something to do.
pub(super) enum Reason {
    /// There may be records.
    Look,
    /// The process has ended: what it has left is all there will be.
    ProcessEnd,
}

impl Rings {
    /// Records that are copied in one turn: a quarter of a millisecond's work, before the other sessions of the thread come. They are
    /// one entry of the journal, and fit into the smallest of its files.
    pub(super) const TURN_RECORDS: u64 = 4096;

    /// Makes rings for a process out of what its user has been granted.
    pub(super) fn new(grant: Grant, process: &Arc<Tracked>, geometry: Geometry) -> io::Result<Rings> {
        let memory = Shared::create_for_both("ttmem-rings", geometry.words() * size_of::<u64>())?;
        ring::initialise(memory.words(), geometry);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Rings::of(memory, wake, &RingsImage::fresh(geometry), geometry, Arc::clone(process), grant)
    }

    /// Rings that a daemon before this one has made, and where it was in them.
    pub(super) fn restore(
        memory: &Arc<RingMemory>,
        process: Arc<Tracked>,
        uid: u32,
        image: &RingsImage,
        [rings, wake]: [OwnedFd; 2],
    ) -> io::Result<Rings> {
        let geometry = Geometry::new(image.rings, image.records);
        let geometry = geometry.filter(|_| image.heads.len() == image.rings as usize);
        let geometry =
            geometry.ok_or_else(|| io::Error::other("what is known of the rings contradicts itself"))?;
        let grant = memory.grant(uid, geometry.bytes());
        let grant =
            grant.map_err(|refusal| io::Error::other(format!("rings are refused: {}", refusal.name())))?;
        let memory = Shared::adopt(rings, geometry.words() * size_of::<u64>())?;
        ring::wake(memory.words());
        let rings = Rings::of(memory, wake, image, geometry, process, grant)?;
        rings.give_back_room();
        Ok(rings)
    }

    fn of(
        memory: Shared,
        wake: OwnedFd,
        image: &RingsImage,
        geometry: Geometry,
        process: Arc<Tracked>,
        grant: Grant,
    ) -> io::Result<Rings> {
        let hold = process.hold();
        let places = (0..).zip(image.heads.iter().zip(&image.losts));
        let consumers = places.map(|(ring, (head, lost))| Consumer::resume(geometry, ring, *head, *lost));
        Ok(Rings {
            geometry,
            consumers: consumers.collect(),
            memory,
            wake: watch(wake, Interest::READABLE)?,
            pace: Pace::Reading { rests: 0 },
            _hold: hold,
            end: Box::pin(async move { process.wait_for_end().await }),
            copied: Vec::new(),
            _grant: grant,
        })
    }

    /// Where the reader is.
    pub(super) fn image(&self) -> RingsImage {
        RingsImage {
            rings: self.geometry.rings(),
            records: self.geometry.records(),
            heads: self.consumers.iter().map(Consumer::head).collect(),
            losts: self.consumers.iter().map(Consumer::lost).collect(),
        }
    }

    /// What has been copied is safe: its room is the writers' again.
    pub(super) fn give_back_room(&self) {
        for consumer in &self.consumers {
            consumer.give_back(self.memory.words());
        }
    }

    /// The records that are copied and not applied yet.
    pub(super) fn copied(&self) -> &[Header] {
        &self.copied
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// What the client gets: the memory, and what wakes the reader.
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.memory.descriptor(), self.wake.get_ref().as_fd()]
    }

    /// Where the next record stands among the bytes of all records.
    pub(super) fn offset(&self) -> u64 {
        self.consumers.iter().map(Consumer::head).fold(0, u64::wrapping_add).wrapping_mul(RECORD_BYTES as u64)
    }

    /// Whether copied records wait to be applied.
    pub(super) fn has_backlog(&self) -> bool {
        !self.copied.is_empty()
    }

    /// Waits until there may be something; before the client has switched, for nothing but its end.
    pub(super) fn poll(&mut self, task: &mut TaskContext<'_>, is_switched: bool) -> Poll<io::Result<Reason>> {
        if self.end.as_mut().poll(task).is_ready() {
            return Poll::Ready(Ok(Reason::ProcessEnd));
        }
        if !is_switched {
            return Poll::Pending;
        }
        if matches!(self.pace, Pace::Reading { .. }) {
            return Poll::Ready(Ok(Reason::Look));
        }
        // Whoever waits for room wakes a reader that only rests, too.
        if let Poll::Ready(woken) = self.wake.poll_read_ready(task) {
            let mut woken = woken?;
            // Whatever the count is, and even if there is none: it is looked.
            let _ = rustix::io::read(woken.get_inner(), &mut [0; 8]);
            woken.clear_ready();
            ring::wake(self.memory.words());
            self.pace = Pace::Reading { rests: 0 };
        } else if let Pace::Resting { rests, sleep } = &mut self.pace {
            ready!(sleep.as_mut().poll(task));
            self.pace = Pace::Reading { rests: *rests };
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Reason::Look))
    }

    /// Copies what is there, for one turn, and gives the number of reports that the client has counted as lost.
    pub(super) fn copy(&mut self) -> Result<u64, RingFault> {
        let fault = &mut None;
        let copied = &mut self.copied;
        let before = copied.len();
        let drained = ring::drain(self.memory.words(), &mut self.consumers, Self::TURN_RECORDS, |record| {
            note(record, copied, fault);
        });
        let drained = drained.map_err(RingFault::Ring)?;
        self.rest_after(self.copied.len() - before)?;
        fault.take().map_or(Ok(drained.lost), |error| Err(RingFault::Record(error)))
    }

    /// Copies what is there, for one turn, when no more will come.
    pub(super) fn copy_rest(&mut self) -> Result<u64, RingFault> {
        let fault = &mut None;
        let copied = &mut self.copied;
        let drained =
            ring::drain_rest(self.memory.words(), &mut self.consumers, Self::TURN_RECORDS, |record| {
                note(record, copied, fault);
            });
        let drained = drained.map_err(RingFault::Ring)?;
        fault.take().map_or(Ok(drained.lost), |error| Err(RingFault::Record(error)))
    }

    /// The copied records, to be applied; what is too much for one turn is to be given back.
    pub(super) fn take_copied(&mut self) -> Vec<Header> {
        std::mem::take(&mut self.copied)
    }

    pub(super) fn give_back(&mut self, copied: Vec<Header>) {
        self.copied = copied;
    }

    /// After a look that found nothing a short rest, and after many of them sleep.
    fn rest_after(&mut self, records: usize) -> Result<(), RingFault> {
        let Pace::Reading { rests } = self.pace else { return Ok(()) };
        self.pace = if records > 0 {
            Pace::Reading { rests: 0 }
        } else if rests < RESTS_MAX {
            Pace::Resting { rests: rests + 1, sleep: Box::pin(tokio::time::sleep(REST)) }
        } else if ring::prepare_sleep(self.memory.words(), &mut self.consumers).map_err(RingFault::Ring)? {
            Pace::Asleep
        } else {
            Pace::Reading { rests: 0 }
        };
        Ok(())
    }
}

/// Keeps what a record says; after one that says nothing, no more.
fn note(record: &ttmem_wire::Record, copied: &mut Vec<Header>, fault: &mut Option<FrameError>) {
    match record.header() {
        Ok(header) if fault.is_none() => copied.push(header),
        Ok(_) => {}
        Err(error) => *fault = fault.or(Some(error)),
    }
}
