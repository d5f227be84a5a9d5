//! One process: who it is, and the locked and the published half of what it holds.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use ttmem_wire::stats::{HolderDescription, Text};

use super::ledger::Ledger;
use super::page::Pages;
use super::{Cell, Container, Exit, KernelKind, KernelTally, MemoryType, ProcessMemory};

/// What makes a process the same one: a pid alone is used again. Those of one pid stand together in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The process id, as the daemon sees it.
    pub pid: u32,
    /// When it started, in clock ticks since the host did.
    pub start_ticks: u64,
}

/// How a process was first heard of: the `source` label.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// It reported over the socket.
    Socket,
    /// tt-metal's shared-memory region shows it.
    Region,
}

impl Source {
    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Socket => "socket",
            Source::Region => "shm",
        }
    }
}

/// The Slurm job that a process belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlurmJob {
    /// The job's number.
    pub job_id: u32,
    /// Its step: a number, or batch, extern, interactive.
    pub step_id: Option<String>,
    /// Who says so.
    pub source: SlurmSource,
}

/// How a Slurm job is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SlurmSource {
    /// The control group, which Slurm has made and the job cannot leave.
    Cgroup,
    /// The environment that the process was started with, which is whatever its user wrote.
    Environment,
}

impl SlurmSource {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            SlurmSource::Cgroup => "cgroup",
            SlurmSource::Environment => "environment",
        }
    }
}

/// What is read about a process once, when it is first seen.
#[derive(Clone, PartialEq, Debug)]
pub struct ProcessInfo {
    /// Its name.
    pub name: String,
    /// The user's numeric id.
    pub uid: u32,
    /// The user's name, or the id where there is none.
    pub user: String,
    /// Its control group's path.
    pub cgroup: Option<String>,
    /// The container that the control group belongs to.
    pub container: Option<Arc<Container>>,
    /// Its pid in its own pid namespace, where that is another than the daemon's.
    pub ns_pid: Option<u32>,
    /// The Slurm job that it belongs to.
    pub slurm: Option<SlurmJob>,
    /// When it started, in seconds since the epoch.
    pub start_time_seconds: Option<f64>,
    /// How it was first heard of.
    pub source: Source,
}

impl ProcessInfo {
    /// Of a process of which no more is known.
    pub fn new(name: &str, uid: u32, user: &str, source: Source) -> ProcessInfo {
        ProcessInfo {
            name: name.to_owned(),
            uid,
            user: user.to_owned(),
            cgroup: None,
            container: None,
            ns_pid: None,
            slurm: None,
            start_time_seconds: None,
            source,
        }
    }
}

/// What may be kept of a process's labels, rendered for a family of formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rendering {
    /// The text formats.
    Text,
    /// Prometheus' protobuf format.
    Protobuf,
}

impl Rendering {
    const COUNT: usize = 2;
}

/// A trace of somebody else that a process belongs to, as a W3C `traceparent` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// The trace's id, in the order of its hexadecimal digits.
    pub trace_id: [u8; 16],
    /// The parent span's id, likewise.
    pub parent_id: [u8; 8],
    /// The flags.
    pub flags: u8,
}

/// A process that holds or held memory.
pub struct Process {
    identity: Identity,
    info: ProcessInfo,
    /// Its place in the order of first reports.
    serial: u64,
    /// When it was first heard of, in monotonic nanoseconds.
    first_seen_ns: u64,
    ledger: Mutex<Ledger>,
    cells: ArcSwap<Vec<Arc<Cell>>>,
    /// When it ended, in monotonic nanoseconds plus one; 0 while it lives.
    ended_ns_plus_one: AtomicU64,
    /// How it ended, where the kernel tells.
    exit: OnceLock<Exit>,
    rendered: [OnceLock<Box<[u8]>>; Rendering::COUNT],
    /// Whose trace it is in: set once, by the first who says so or by the first span.
    trace: OnceLock<Option<TraceContext>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("identity", &self.identity)
            .field("name", &self.info.name)
            .finish_non_exhaustive()
    }
}

impl Process {
    pub(super) fn new(
        identity: Identity,
        info: ProcessInfo,
        serial: u64,
        first_seen_ns: u64,
        ledger: Ledger,
    ) -> Self {
        Self {
            identity,
            info,
            serial,
            first_seen_ns,
            ledger: Mutex::new(ledger),
            cells: ArcSwap::default(),
            ended_ns_plus_one: AtomicU64::new(0),
            exit: OnceLock::new(),
            rendered: Default::default(),
            trace: OnceLock::new(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What is known about it.
    pub fn info(&self) -> &ProcessInfo {
        &self.info
    }

    /// When it was first heard of, in monotonic nanoseconds.
    pub fn first_seen_ns(&self) -> u64 {
        self.first_seen_ns
    }

    /// Whether its end has been seen, and its memory reclaimed.
    pub fn has_ended(&self) -> bool {
        self.ended_ns().is_some()
    }

    /// How it ended, where the kernel tells.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.get().copied()
    }

    /// The kernel has told how it ended. It ends once.
    pub fn tell_exit(&self, exit: Exit) {
        let _ = self.exit.set(exit);
    }

    /// What a view has made of that which never changes about it, made when it is first asked for.
    pub fn rendered(&self, rendering: Rendering, render: impl FnOnce(&Process) -> Vec<u8>) -> &[u8] {
        self.rendered[rendering as usize].get_or_init(|| render(self).into_boxed_slice())
    }

    /// The buffers that it holds.
    pub fn buffers(&self) -> u64 {
        self.cells().iter().map(|cell| cell.read().buffers).sum()
    }

    /// The kernels it has loaded, by device and kind.
    pub fn kernels(&self) -> Vec<(u16, KernelKind, KernelTally)> {
        self.ledger().kernels()
    }

    /// Its place in the order of first reports.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The counters of what it holds, by device and memory type, as they are now.
    pub fn memory(&self) -> Vec<ProcessMemory> {
        let mut memory: Vec<_> = self.cells().iter().map(|cell| ProcessMemory::of(cell)).collect();
        memory.sort_unstable_by_key(|memory| (memory.device, memory.memory_type));
        memory
    }

    /// The trace of somebody else that it is in.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.trace.get().copied().flatten()
    }

    /// The same, and from now on nothing else: a span is about to say it.
    pub fn settle_trace(&self) -> Option<TraceContext> {
        *self.trace.get_or_init(|| None)
    }

    /// Puts it into a trace; false if it is in another one already.
    pub(super) fn join_trace(&self, context: TraceContext) -> bool {
        *self.trace.get_or_init(|| Some(context)) == Some(context)
    }

    pub(super) fn ended_ns(&self) -> Option<u64> {
        self.ended_ns_plus_one.load(Acquire).checked_sub(1)
    }

    pub(super) fn mark_ended(&self, now_ns: u64) {
        self.ended_ns_plus_one.store(now_ns.saturating_add(1), Release);
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    pub(super) fn cells(&self) -> arc_swap::Guard<Arc<Vec<Arc<Cell>>>> {
        self.cells.load()
    }

    /// A cell that readers see only when it has been added.
    pub(super) fn new_cell(&self, device: u16, memory_type: MemoryType, pages: Option<&Pages>) -> Cell {
        let holder = HolderDescription {
            pid: self.identity.pid,
            start_ticks: self.identity.start_ticks,
            start_unix_ns: self.info.start_time_seconds.map_or(0, |seconds| (seconds * 1e9) as u64),
            uid: self.info.uid,
            device,
            memory_type: memory_type as u8,
            name: Text::new(&self.info.name),
            user: Text::new(&self.info.user),
        };
        Cell::new(memory_type, &holder, pages)
    }

    pub(super) fn add_cell(&self, cell: &Arc<Cell>) {
        self.cells.rcu(|cells| {
            let mut cells = Vec::clone(cells);
            cells.push(Arc::clone(cell));
            cells
        });
    }
}
