//! The only mutable state: which process holds which buffer on which device, and what has happened so far.
//!
//! Ingest changes it in [`Batch`]es, one process at a time; everything else reads an immutable [`Snapshot`]. Time is a parameter.

mod memory_type;

mod events;
mod histogram;

mod buffers;
mod cell;
mod device;
mod index;
mod ledger;
mod process;

mod listing;
pub mod metrics;
mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use cell::{Cell, Counters};
pub use device::{Arch, Banks, DEVICES_MAX, Device, DeviceInfo, DeviceMemory, Untracked, UntrackedProcess};
pub use events::{ConnectionLayout, Event, EventCounters, EventSnapshot, Loss, Rejection};
pub use histogram::{HistogramSnapshot, Scale};
pub use ledger::{
    Allocated, BUFFER_BYTES_MAX, Batch, CELL_BYTES_MAX, KernelKind, KernelTally, PROCESS_BUFFERS_MAX, Refusal,
};
pub use listing::{BufferFilter, BufferPage, BufferSnapshot, Cursor};
pub use memory_type::MemoryType;
pub use process::{Identity, Process, ProcessInfo, Rendering, Source};
pub use snapshot::{
    DeviceSnapshot, MemorySnapshot, ProcessMemory, ProcessSnapshot, Reported, Snapshot, Time,
};

/// Counters of processes that are no longer shown, by device and memory type.
type Retired = BTreeMap<(u16, MemoryType), Counters>;

/// Which processes there are. Replaced as a whole at every birth and retirement, so that a reader needs no lock and sees a
/// process either among the living or in the sums of the retired, never in both or neither.
#[derive(Default)]
struct World {
    processes: Vec<Arc<Process>>,
    retired: Arc<Retired>,
}

/// Everything the daemon knows.
pub struct Registry {
    devices: Box<[OnceLock<Arc<Device>>]>,
    world: ArcSwap<World>,
    /// Serialises changes to `world`, and finds a process by who it is.
    births: Mutex<Births>,
    events: EventCounters,
    started_ns: u64,
}

#[derive(Default)]
struct Births {
    known: HashMap<Identity, Arc<Process>>,
    count: u64,
}

impl Registry {
    /// An empty one, at a moment in monotonic nanoseconds: since then it counts.
    pub fn new(started_ns: u64) -> Self {
        Self {
            devices: (0..DEVICES_MAX).map(|_| OnceLock::new()).collect(),
            world: ArcSwap::default(),
            births: Mutex::default(),
            events: EventCounters::default(),
            started_ns,
        }
    }

    /// The device of that index, below [`DEVICES_MAX`]; it is known from now on.
    pub fn device(&self, index: u16) -> &Arc<Device> {
        self.devices[usize::from(index)].get_or_init(|| Arc::new(Device::new(index)))
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
        let process = Arc::new(Process::new(identity, info, births.count, now_ns));
        births.known.insert(identity, Arc::clone(&process));
        // An ended process of the same pid would have the same labels, and a scrape may not say two things of one series.
        self.change_world(
            &mut births,
            |other| other.has_ended() && other.pid() == identity.pid,
            Some(&process),
        );
        process
    }

    /// Starts changes to what a process holds. Other batches of the same process wait until this one is dropped.
    pub fn batch<'a>(&'a self, process: &'a Process, now_ns: u64) -> Batch<'a> {
        Batch::new(self, process, now_ns)
    }

    /// The process is gone: reclaims what it held, as orphaned. Gives the number of buffers and bytes.
    pub fn end(&self, process: &Process, now_ns: u64) -> Orphaned {
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
        for process in &due {
            births.known.remove(&process.identity());
            for cell in process.cells().iter() {
                let sums = Arc::make_mut(&mut retired);
                sums.entry((cell.device(), cell.memory_type())).or_default().absorb(&cell.read());
            }
        }
        self.world.store(Arc::new(World { processes, retired }));
    }

    /// The counters of what has come in.
    pub fn events(&self) -> &EventCounters {
        &self.events
    }

    /// Everything, at one instant. Takes no lock that a report could wait for.
    pub fn snapshot(&self, time: Time) -> Snapshot {
        Snapshot::take(self, time)
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
