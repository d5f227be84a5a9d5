//! The only mutable state: which process holds which buffer on which device, and what has happened so far.
//!
//! Ingest changes it in [`Batch`]es, one process at a time; everything else reads an immutable [`Snapshot`]. Time is a parameter.

mod memory_type;

mod events;
mod exemplars;
mod histogram;
mod image;

mod buffers;
mod by_size;
mod cell;
mod container;
mod device;
mod index;
mod kernel;
mod ledger;
mod page;
mod process;
mod reporter;

mod feed;
mod telling;

mod census;
mod listing;
pub mod metrics;
mod snapshot;
mod suspicion;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use container::EndedContainers;
use feed::Feed;
use parking_lot::Mutex;
use telling::Telling;

pub use cell::{Cell, Counters};
pub use census::{CENSUS_AGES, CensusClass, Held, SizeClass, census_age_ns};
pub use container::{Container, ContainerMemory, ContainerNames, ContainerSnapshot};
pub use device::{Arch, Banks, DEVICES_MAX, Device, DeviceInfo, DeviceMemory, Untracked, UntrackedProcess};
pub use events::{ConnectionLayout, Event, EventCounters, EventSnapshot, Loss, Omission, Rejection};
pub use exemplars::{Exemplar, Exemplars, PlaceExemplars};
pub use feed::{AllocationFailure, Ending, FEED_OCCURRENCES_MAX, FailureReason, Occurrence, RejectedPeer};
pub use histogram::{HistogramSnapshot, Scale};
pub use image::{ImageError, RegistryImage};
pub use kernel::{KernelKind, KernelTally};
pub use ledger::{Allocated, BUFFER_BYTES_MAX, Batch, CELL_BYTES_MAX, PROCESS_BUFFERS_MAX, Refusal};
pub use listing::{BufferFilter, BufferPage, BufferSnapshot, Cursor};
pub use memory_type::MemoryType;
pub use page::{HOLDERS_MAX, Page, Pages};
pub use process::{Identity, Process, ProcessInfo, Rendering, Source, TraceContext};
pub use reporter::Reporter;
pub use snapshot::{
    DeviceSnapshot, MemorySnapshot, ProcessMemory, ProcessSnapshot, Reported, Snapshot, Time,
};
pub use suspicion::{SUSPECTED_SCORE, Suspicion};
pub use telling::{
    BurstAllocated, BurstHeld, BurstPart, End, FeedPolicy, ORPHANS_TOLD_MAX, Orphans, Release,
};

/// Counters of processes that are no longer shown, by device and memory type.
type Retired = BTreeMap<(u16, MemoryType), Counters>;

/// Which processes there are. Replaced as a whole at every birth and retirement, so that a reader needs no lock and sees a
/// process either among the living or in the sums of the retired, never in both or neither.
#[derive(Default)]
struct World {
    processes: Vec<Arc<Process>>,
    retired: Arc<Retired>,
    ended_containers: Arc<EndedContainers>,
}

/// Everything the daemon knows.
pub struct Registry {
    devices: Box<[OnceLock<Arc<Device>>]>,
    world: ArcSwap<World>,
    /// Serialises changes to `world`, and finds a process by who it is.
    births: Mutex<Births>,
    events: EventCounters,
    /// Whom to tell, and of what.
    feed: Option<(Feed, FeedPolicy)>,
    exemplars: ArcSwap<Exemplars>,
    suspicions: ArcSwap<Vec<Suspicion>>,
    started_ns: u64,
    pages: Option<Pages>,
}

#[derive(Default)]
struct Births {
    known: HashMap<Identity, Arc<Process>>,
    count: u64,
}

impl Registry {
    /// An empty one, at a moment in monotonic nanoseconds: since then it counts. No other process can read it.
    pub fn new(started_ns: u64) -> Self {
        Self::with_pages(started_ns, None)
    }

    /// An empty one whose published half lies in pages, if there are any.
    pub fn with_pages(started_ns: u64, pages: Option<Pages>) -> Self {
        Self {
            devices: (0..DEVICES_MAX).map(|_| OnceLock::new()).collect(),
            world: ArcSwap::default(),
            births: Mutex::default(),
            events: EventCounters::default(),
            feed: None,
            exemplars: ArcSwap::default(),
            suspicions: ArcSwap::default(),
            started_ns,
            pages,
        }
    }

    /// The pages that other processes can map.
    pub fn pages(&self) -> Option<&Pages> {
        self.pages.as_ref()
    }

    /// The same, with somebody who wants to hear what happens.
    #[must_use]
    pub fn told(self, policy: FeedPolicy) -> Self {
        Self { feed: Some((Feed::new(), policy)), ..self }
    }

    /// The device of that index, below [`DEVICES_MAX`]; it is known from now on.
    pub fn device(&self, index: u16) -> &Arc<Device> {
        self.devices[usize::from(index)].get_or_init(|| Arc::new(Device::new(index, self.pages())))
    }

    /// The device of that index, if it is known.
    pub fn known_device(&self, index: u16) -> Option<&Arc<Device>> {
        self.devices.get(usize::from(index))?.get()
    }

    /// Every known device, by index.
    pub fn devices(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.devices.iter().filter_map(OnceLock::get)
    }

    /// The process of that identity; it is known from now on.
    pub fn process(&self, identity: Identity, now_ns: u64, info: ProcessInfo) -> Arc<Process> {
        let mut births = self.births.lock();
        if let Some(process) = births.known.get(&identity) {
            return Arc::clone(process);
        }
        births.count += 1;
        let process = Arc::new(Process::new(identity, info, births.count, now_ns, self.telling()));
        births.known.insert(identity, Arc::clone(&process));
        // An ended process of the same pid would have the same labels, and a scrape may not say two things of one series.
        self.change_world(
            &mut births,
            |other| other.has_ended() && other.pid() == identity.pid,
            Some(&process),
        );
        process
    }

    /// What a new ledger tells of; nothing where nobody listens.
    fn telling(&self) -> Option<Telling> {
        self.feed.as_ref().map(|(_, policy)| Telling::new(*policy))
    }

    /// The process of that identity, if it is known.
    pub fn known_process(&self, identity: Identity) -> Option<Arc<Process>> {
        self.births.lock().known.get(&identity).cloned()
    }

    /// Every process that is shown, in the order of their first reports.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.world().processes.clone()
    }

    /// The names of a container have been found, or that it has none.
    pub fn settle_containers(&self, id: &str, names: Option<&ContainerNames>) {
        let world = self.world();
        let of_processes = world.processes.iter().filter_map(|process| process.info().container.as_ref());
        let ended = world.ended_containers.entries().map(|(container, _, _)| container);
        for container in of_processes.chain(ended).filter(|container| container.id() == id) {
            container.settle(names.cloned());
        }
    }

    /// Starts changes to what a process holds. Other batches of the same process wait until this one is dropped.
    pub fn batch<'a>(&'a self, process: &'a Arc<Process>, now_ns: u64) -> Batch<'a> {
        Batch::new(self, process, now_ns)
    }

    /// The process is gone: reclaims what it held, as orphaned. Gives the number of buffers and bytes.
    pub fn end(&self, process: &Arc<Process>, now_ns: u64) -> Orphaned {
        if !self.batch(process, now_ns).end() {
            return Orphaned::default();
        }
        process.mark_ended(now_ns);
        self.events.count(Event::ProcessEnd, 1);
        process.cells().iter().map(|cell| cell.read()).fold(Orphaned::default(), |sum, counters| Orphaned {
            buffers: sum.buffers + counters.orphaned_buffers,
            bytes: sum.bytes + counters.orphaned_bytes,
        })
    }

    /// Stops showing processes that ended at least `linger_ns` ago; their counters stay in the devices' sums.
    pub fn retire(&self, now_ns: u64, linger_ns: u64) {
        let is_due = |process: &Process| {
            process.ended_ns().is_some_and(|ended| now_ns.saturating_sub(ended) >= linger_ns)
        };
        if self.world().processes.iter().any(|process| is_due(process)) {
            self.change_world(&mut self.births.lock(), is_due, None);
        }
    }

    /// Replaces the world by one without some ended processes and with a new one.
    fn change_world(
        &self,
        births: &mut Births,
        is_due: impl Fn(&Process) -> bool,
        born: Option<&Arc<Process>>,
    ) {
        let world = self.world.load();
        let (due, mut processes): (Vec<_>, Vec<_>) =
            world.processes.iter().cloned().partition(|process| is_due(process));
        processes.extend(born.cloned());
        let mut retired = Arc::clone(&world.retired);
        let mut ended_containers = Arc::clone(&world.ended_containers);
        for process in &due {
            births.known.remove(&process.identity());
            for cell in process.cells().iter() {
                let sums = Arc::make_mut(&mut retired);
                sums.entry((cell.device(), cell.memory_type())).or_default().absorb(&cell.read());
            }
            if let Some(container) = &process.info().container {
                let cells = process.cells();
                let places = cells.iter().map(|cell| (cell.device(), cell.memory_type(), cell.read()));
                Arc::make_mut(&mut ended_containers).absorb(container, process.first_seen_ns(), places);
            }
        }
        if due.iter().any(|process| process.info().container.is_some()) {
            let living = processes.iter().filter_map(|process| process.info().container.as_deref());
            Arc::make_mut(&mut ended_containers).forget(living);
        }
        self.world.store(Arc::new(World { processes, retired, ended_containers }));
    }

    /// The counters of what has come in.
    pub fn events(&self) -> &EventCounters {
        &self.events
    }

    /// Everything, at one instant. Takes no lock that a report could wait for.
    pub fn snapshot(&self, time: Time) -> Snapshot {
        Snapshot::take(self, time)
    }

    /// Tells of something, if anybody listens.
    pub fn tell(&self, occurrence: impl FnOnce() -> Occurrence) {
        if let Some((feed, _)) = &self.feed {
            feed.tell(occurrence(), &self.events);
        }
    }

    /// Hands over what a ledger has to tell of single buffers and of bursts.
    fn tell_of(&self, process: &Arc<Process>, telling: &mut Telling) {
        let Some((feed, _)) = &self.feed else { return };
        for (omission, count) in Omission::ALL.iter().zip(&mut telling.omitted) {
            if *count > 0 {
                self.events.omit(*omission, std::mem::take(count));
            }
        }
        for burst in telling.allocated.drain(..) {
            feed.tell(Occurrence::BurstAllocated(Arc::clone(process), Box::new(burst)), &self.events);
        }
        if !telling.releases.is_empty() {
            feed.tell_released(process, telling.releases.drain(..), &self.events);
        }
        for burst in telling.released.drain(..) {
            feed.tell(Occurrence::BurstReleased(Arc::clone(process), Box::new(burst)), &self.events);
        }
        telling.relax();
    }

    /// Takes all that there is to hear; what it is taken into keeps its room from call to call.
    pub fn hear(&self, into: &mut Vec<Occurrence>) {
        if let Some((feed, _)) = &self.feed {
            feed.take(into);
        }
    }

    /// Comes back when there is something to hear.
    pub async fn news(&self) {
        match &self.feed {
            Some((feed, _)) => feed.arrival().await,
            None => std::future::pending().await,
        }
    }

    /// Closes bursts of allocations to which nothing has been added for a while, and gives the processes that live.
    pub fn settle(&self, now_ns: u64) -> Vec<Arc<Process>> {
        let world = self.world();
        let living: Vec<_> = world.processes.iter().filter(|process| !process.has_ended()).cloned().collect();
        for process in &living {
            self.batch(process, now_ns).settle();
        }
        living
    }

    /// Adds exemplars whose spans a collector has.
    pub fn exemplify(&self, exported: &[(u16, MemoryType, Exemplar)]) {
        if exported.is_empty() {
            return;
        }
        self.exemplars.rcu(|exemplars| {
            let mut exemplars = Exemplars::clone(exemplars);
            for (device, memory_type, exemplar) in exported {
                exemplars.add(*device, *memory_type, *exemplar);
            }
            exemplars
        });
    }

    /// Replaces what is suspected of leaking, the surest first, and tells of what was not suspected before.
    pub fn suspect(&self, suspicions: Vec<Suspicion>) {
        let before = self.suspicions.swap(Arc::new(suspicions.clone()));
        for suspicion in suspicions.into_iter().filter(Suspicion::is_suspected) {
            let is_known = before.iter().any(|known| known.is_suspected() && known.is_about_same(&suspicion));
            if !is_known {
                self.tell(|| Occurrence::LeakSuspected(Box::new(suspicion)));
            }
        }
    }

    fn event_snapshot(&self) -> EventSnapshot {
        let mut events = self.events.snapshot();
        if self.feed.is_none() {
            events.omitted.clear();
        }
        events
    }

    fn world(&self) -> arc_swap::Guard<Arc<World>> {
        self.world.load()
    }
}

/// What was reclaimed from a process at its end.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Orphaned {
    /// Buffers.
    pub buffers: u64,
    /// Bytes.
    pub bytes: u64,
}
