//! The only mutable state: which process holds which buffer on which device, and what has happened so far.
//!
//! Ingest changes it in [`Batch`]es, one process at a time; everything else reads an immutable [`Snapshot`]. Time is a parameter.

mod memory_type;

mod detail;
mod events;
mod exemplars;
mod histogram;
mod image;

mod buffers;
mod by_size;
mod cell;
mod container;
mod device;
mod exit;
mod index;
mod kernel;
mod kubelet;
mod ledger;
mod page;
mod process;
mod reporter;
mod roll;
mod room;

mod chronicle;
mod feed;
mod telling;

mod census;
mod listing;
pub mod metrics;
mod snapshot;
mod suspicion;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use chronicle::Chronicle;
use container::EndedContainers;
use feed::Feed;
use ledger::Ledger;
use parking_lot::Mutex;
use roll::Roll;
use room::{Room, Rooms};
use telling::Telling;

pub use cell::{Cell, Counters};
pub use census::{CENSUS_AGES, CensusClass, Held, SizeClass, census_age_ns};
pub use chronicle::{CHRONICLE_MOMENTS_MAX, Moment};
pub use container::{Container, ContainerMemory, ContainerNames, ContainerSnapshot};
pub use detail::{Detail, Details, Pressure};
pub use device::{
    Arch, Banks, DEVICE_LINGER_NS, DEVICES_MAX, Device, DeviceInfo, DeviceMemory, Renumbered, Untracked,
    UntrackedProcess,
};
pub use events::{
    ConnectionLayout, Event, EventCounters, EventSnapshot, EventTally, Loss, Omission, RateLimit, Rejection,
    RingRefusal,
};
pub use exemplars::{Exemplar, Exemplars, PlaceExemplars};
pub use exit::Exit;
pub use feed::{AllocationFailure, Ending, FEED_OCCURRENCES_MAX, FailureReason, Occurrence, RejectedPeer};
pub use histogram::{HistogramSnapshot, Scale};
pub use image::{ImageError, RegistryImage};
pub use kernel::{KernelKind, KernelTally};
pub use kubelet::{Assigned, Kubelet, KubeletFailure, KubeletSnapshot, KubeletSource, SourceSnapshot};
pub use ledger::{Allocated, BUFFER_BYTES_MAX, Batch, CELL_BYTES_MAX, PROCESS_BUFFERS_MAX, Refusal};
pub use listing::{BufferFilter, BufferPage, BufferSnapshot, Cursor};
pub use memory_type::MemoryType;
pub use page::{HOLDERS_MAX, Page, Pages};
pub use process::{Identity, Process, ProcessInfo, Rendering, SlurmJob, SlurmSource, Source, TraceContext};
pub use reporter::Reporter;
pub use room::BufferLimits;
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
/// process either among the living or in the sums of the retired, never in both or neither. A birth costs the same however many
/// there are; a retirement looks at all of them, and takes all that are due.
#[derive(Default)]
struct World {
    processes: Roll,
    retired: Arc<Retired>,
    ended_containers: Arc<EndedContainers>,
}

/// Ended processes that are still shown: who starts and ends them without pause does not fill the memory. More than all that end at once
/// where ten thousand clients do.
const ENDED_PROCESSES_MAX: usize = 16_384;

/// Everything the daemon knows.
pub struct Registry {
    devices: Box<[OnceLock<Arc<Device>>]>,
    world: ArcSwap<World>,
    /// Serialises changes to `world`, and finds a process by who it is.
    births: Mutex<Births>,
    events: EventCounters,
    /// Whom to tell, and of what.
    feed: Option<(Feed, FeedPolicy)>,
    /// What is to be remembered, if anybody does.
    chronicle: Option<Chronicle>,
    exemplars: ArcSwap<Exemplars>,
    kubelet: Kubelet,
    suspicions: ArcSwap<Vec<Suspicion>>,
    started_ns: u64,
    pages: Option<Pages>,
    rooms: Arc<Rooms>,
}

#[derive(Default)]
struct Births {
    known: BTreeMap<Identity, Arc<Process>>,
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
            chronicle: None,
            exemplars: ArcSwap::default(),
            kubelet: Kubelet::default(),
            suspicions: ArcSwap::default(),
            started_ns,
            pages,
            rooms: Rooms::new(BufferLimits::NONE),
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

    /// The same with that many buffers at most.
    #[must_use]
    pub fn bounded(self, limits: BufferLimits) -> Self {
        Self { rooms: Rooms::new(limits), ..self }
    }

    /// The same, with somebody who remembers what happens.
    #[must_use]
    pub fn remembered(self) -> Self {
        Self { chronicle: Some(Chronicle::default()), ..self }
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
        let ledger = self.new_ledger(info.uid);
        let process = Arc::new(Process::new(identity, info, births.count, now_ns, ledger));
        births.known.insert(identity, Arc::clone(&process));
        // An ended process of the same pid would have the same labels, and a scrape may not say two things of one series.
        let namesakes =
            Identity { start_ticks: 0, ..identity }..=Identity { start_ticks: u64::MAX, ..identity };
        if births.known.range(namesakes).any(|(_, namesake)| namesake.has_ended()) {
            self.retire_those(&mut births, |other| other.has_ended() && other.pid() == identity.pid);
        }
        let world = self.world.load();
        self.world.store(Arc::new(World {
            processes: world.processes.with(Arc::clone(&process)),
            retired: Arc::clone(&world.retired),
            ended_containers: Arc::clone(&world.ended_containers),
        }));
        process
    }

    /// An empty ledger of a user's process; it tells nothing where nobody listens.
    fn new_ledger(&self, uid: u32) -> Ledger {
        let telling = self.feed.as_ref().map(|(_, policy)| Telling::new(*policy));
        Ledger::new(telling, Room::new(Arc::clone(&self.rooms), uid))
    }

    /// Buffers for which there is room taken: all that live, and some more.
    pub fn live_buffers(&self) -> u64 {
        self.rooms.taken()
    }

    /// The process of that identity, if it is known.
    pub fn known_process(&self, identity: Identity) -> Option<Arc<Process>> {
        self.births.lock().known.get(&identity).cloned()
    }

    /// Every process that is shown, in the order of their first reports.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.world().processes.iter().cloned().collect()
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

    /// The process is gone: nothing more is taken from it. [`Registry::end`] does the rest, which may take a while.
    pub fn close(&self, process: &Arc<Process>, now_ns: u64) {
        self.batch(process, now_ns).close();
    }

    /// The process is gone: reclaims what it held, as orphaned. Gives the number of buffers and bytes.
    pub fn end(&self, process: &Arc<Process>, now_ns: u64) -> Orphaned {
        if !self.batch(process, now_ns).end() {
            return Orphaned::default();
        }
        process.mark_ended(now_ns);
        self.events.count(Event::ProcessEnd, 1);
        self.note(|| Moment::Ended(Arc::clone(process), now_ns));
        process.cells().iter().map(|cell| cell.read()).fold(Orphaned::default(), |sum, counters| Orphaned {
            buffers: sum.buffers + counters.orphaned_buffers,
            bytes: sum.bytes + counters.orphaned_bytes,
        })
    }

    /// Stops showing processes that ended at least `linger_ns` ago, and the first of too many; their counters stay in the devices' sums.
    pub fn retire(&self, now_ns: u64, linger_ns: u64) {
        let ended = self.world().processes.iter().filter_map(|process| process.ended_ns()).collect();
        let crowded_out_ns = last_of_surplus(ended, ENDED_PROCESSES_MAX);
        let is_due = |process: &Process| {
            process.ended_ns().is_some_and(|ended| {
                now_ns.saturating_sub(ended) >= linger_ns || Some(ended) <= crowded_out_ns
            })
        };
        if self.world().processes.iter().any(|process| is_due(process)) {
            self.retire_those(&mut self.births.lock(), is_due);
        }
    }

    /// Looks which devices are in use. One that clients alone have named is not shown any more an hour after the last process that used it;
    /// what it has counted is there again when somebody names it again.
    pub fn review_devices(&self, now_ns: u64) {
        let (vouched, named): (Vec<_>, Vec<_>) =
            self.devices().partition(|device| device.info().is_vouched_for);
        vouched.into_iter().for_each(|device| device.note_use(true, now_ns));
        if named.is_empty() {
            return;
        }
        let mut is_used = vec![false; usize::from(DEVICES_MAX)];
        for process in self.world().processes.iter() {
            process.cells().iter().for_each(|cell| is_used[usize::from(cell.device())] = true);
        }
        named.into_iter().for_each(|device| device.note_use(is_used[usize::from(device.index())], now_ns));
    }

    /// Replaces the world by one without some ended processes.
    fn retire_those(&self, births: &mut Births, is_due: impl Fn(&Process) -> bool) {
        let world = self.world.load();
        let (due, processes): (Vec<_>, Vec<_>) =
            world.processes.iter().cloned().partition(|process| is_due(process));
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
        let processes = processes.into_iter().collect();
        self.world.store(Arc::new(World { processes, retired, ended_containers }));
    }

    /// The counters of what has come in.
    pub fn events(&self) -> &EventCounters {
        &self.events
    }

    /// What is known of the kubelet.
    pub fn kubelet(&self) -> &Kubelet {
        &self.kubelet
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

    /// Notes something to remember, if anybody does.
    fn note(&self, moment: impl FnOnce() -> Moment) {
        if let Some(chronicle) = &self.chronicle {
            chronicle.note(moment());
        }
    }

    /// Takes what has been noted since the last time, and how much of it was lost for lack of room.
    pub fn chronicle(&self) -> (Vec<Moment>, u64) {
        self.chronicle.as_ref().map(Chronicle::take).unwrap_or_default()
    }

    /// Hands over what a ledger has to tell of single buffers and of bursts.
    fn tell_of(&self, process: &Arc<Process>, telling: &mut Telling) {
        let Some((feed, _)) = &self.feed else { return };
        if !self.events.details().keeps(Detail::Spans) {
            self.events.omit(Omission::Memory, telling.hush());
        }
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
                self.note(|| Moment::LeakSuspected(Box::new(suspicion.clone())));
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

/// When the last of those ended that are too many; `None` where none are.
fn last_of_surplus(mut ended_ns: Vec<u64>, max: usize) -> Option<u64> {
    let last = ended_ns.len().checked_sub(max)?.checked_sub(1)?;
    Some(*ended_ns.select_nth_unstable(last).1)
}

/// What was reclaimed from a process at its end.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Orphaned {
    /// Buffers.
    pub buffers: u64,
    /// Bytes.
    pub bytes: u64,
}
