//! Which processes live: each is watched through its pidfd, and its memory is reclaimed when it ends.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{debug, info};

use super::containers::Containers;
use super::diary::Diary;
use super::exit::exit_of;
use super::note::{Birth, Note};
use super::now;
use super::peer::open_pidfd;
use super::places::{Place, Places};
use super::procfs::{ProcessFacts, start_ticks_of, ticks_to_ns, user_name};
use super::reporters::{ClientImage, ProcessClient, Reporters};
use super::stream::watch;
use super::throttle::Throttle;
use crate::registry::{
    Container, Identity, MemoryType, Process, ProcessInfo, ProcessMemory, Registry, Source, Time,
};

/// How long after a process's end its sockets may still be read before what it holds is reclaimed. Its own sockets are at their
/// end much sooner; one that it shared with a fork never is.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);

/// More buffers than these are reclaimed on another thread: ten million take a tenth of a second.
const BUFFERS_RECLAIMED_INLINE: u64 = 50_000;

/// Looks at how a process ended, and the time between them: its parent may have something better to do than to ask.
const EXIT_LOOKS: u32 = 20;
const EXIT_INTERVAL: Duration = Duration::from_millis(50);

/// A process as it was seen, and all that is known about it at that moment.
pub(super) struct Sighting<'a> {
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// `None` when it is gone already.
    pub(super) pidfd: Option<Arc<OwnedFd>>,
    pub(super) facts: &'a ProcessFacts,
    pub(super) source: Source,
    /// When what it was heard of by was read, in monotonic nanoseconds.
    pub(super) seen_ns: u64,
}

/// A process, and what is needed to see its end.
pub(super) struct Tracked {
    process: Arc<Process>,
    /// `None` for a process that was gone before it could be looked at, and for a simulated one.
    pidfd: Option<AsyncFd<Arc<OwnedFd>>>,
    sessions: AtomicU32,
    /// Rings that this process writes into and that have not been read to their end.
    rings: AtomicU32,
    drained: Notify,
    /// Its clients, of which there may be several.
    reporters: Reporters,
    /// Among its user's processes; none for one that is only recorded.
    _place: Option<Place>,
}

impl Tracked {
    /// One that is only recorded, or whose end has come already: nobody watches it.
    pub(super) fn recorded(process: Arc<Process>, clients: &[ClientImage]) -> Arc<Tracked> {
        Tracked::new(process, None, clients, None)
    }

    fn new(
        process: Arc<Process>,
        pidfd: Option<AsyncFd<Arc<OwnedFd>>>,
        clients: &[ClientImage],
        place: Option<Place>,
    ) -> Arc<Tracked> {
        Arc::new(Tracked {
            process,
            pidfd,
            sessions: AtomicU32::new(0),
            rings: AtomicU32::new(0),
            drained: Notify::new(),
            reporters: Reporters::restore(clients),
            _place: place,
        })
    }

    /// Its clients as they are stored.
    pub(super) fn clients(&self) -> Vec<ClientImage> {
        self.reporters.image()
    }

    pub(super) fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Whether it has ended, be it reclaimed already or not.
    pub(super) fn has_ended(&self) -> bool {
        self.process.has_ended() || self.pidfd.as_ref().is_some_and(|pidfd| has_ended(pidfd.get_ref()))
    }

    fn started_at(&self, start_ticks: Option<u64>) -> bool {
        start_ticks == Some(self.process.identity().start_ticks)
    }

    /// The client of it that calls itself that.
    pub(super) fn client(&self, name: u64) -> Arc<ProcessClient> {
        self.reporters.named(name)
    }

    /// Whether its end can be seen.
    pub(super) fn is_watched(&self) -> bool {
        self.pidfd.is_some()
    }

    /// A ring of this process: its end waits until the hold is dropped.
    pub(super) fn hold(self: &Arc<Self>) -> RingHold {
        self.rings.fetch_add(1, SeqCst);
        RingHold(Arc::clone(self))
    }

    async fn wait_for_rings(&self) {
        loop {
            let drained = self.drained.notified();
            if self.rings.load(SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }

    pub(super) async fn wait_for_end(&self) {
        if let Some(pidfd) = &self.pidfd {
            // An error can only mean that the runtime is shutting down.
            let _ = pidfd.ready(Interest::READABLE).await;
        }
    }

    /// How it ended, if the kernel tells before long.
    async fn learn_exit(&self) {
        let Some(pidfd) = &self.pidfd else { return };
        for _ in 0..EXIT_LOOKS {
            if let Some(exit) = exit_of(pidfd.get_ref()) {
                return self.process.tell_exit(exit);
            }
            tokio::time::sleep(EXIT_INTERVAL).await;
        }
    }

    async fn wait_for_sessions(&self) {
        loop {
            let drained = self.drained.notified();
            if self.sessions.load(SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }
}

/// A session that may still bring messages of a process. While there is one, the process's end waits a moment.
pub(super) struct Attachment(Arc<Tracked>);

impl Attachment {
    fn new(tracked: Arc<Tracked>) -> Self {
        tracked.sessions.fetch_add(1, SeqCst);
        Self(tracked)
    }

    pub(super) fn tracked(&self) -> &Arc<Tracked> {
        &self.0
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.0.sessions.fetch_sub(1, SeqCst) == 1 {
            self.0.drained.notify_waiters();
        }
    }
}

/// A ring that may still hold messages of a process. It is read to its end as soon as the process has ended, so that is waited for.
pub(super) struct RingHold(Arc<Tracked>);

impl Drop for RingHold {
    fn drop(&mut self) {
        if self.0.rings.fetch_sub(1, SeqCst) == 1 {
            self.0.drained.notify_waiters();
        }
    }
}

/// The live processes by pid.
pub(super) struct Processes {
    registry: Arc<Registry>,
    throttle: Arc<Throttle>,
    containers: Containers,
    diary: Diary,
    /// Whether processes are simulated.
    trusts: bool,
    /// Where the watches run.
    runtime: Handle,
    live: Mutex<HashMap<u32, Arc<Tracked>>>,
    /// How many each user has: a process takes a descriptor for as long as it lives.
    places: Arc<Places>,
    /// Processes whose start time cannot be known are told apart by a number that no start time reaches.
    unknown_starts: AtomicU64,
}

impl Processes {
    pub(super) fn new(
        registry: Arc<Registry>,
        throttle: Arc<Throttle>,
        containers: Containers,
        diary: Diary,
        trusts: bool,
        user_processes_max: u32,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            throttle,
            containers,
            diary,
            trusts,
            runtime,
            live: Mutex::default(),
            places: Places::new(user_processes_max),
            unknown_starts: AtomicU64::new(0),
        })
    }

    /// The process that was sighted; watched from now on.
    pub(super) fn track(self: &Arc<Self>, sighting: Sighting<'_>) -> io::Result<Attachment> {
        let mut live = self.live.lock();
        let entry = match live.entry(sighting.pid) {
            // While its pidfd says that it lives, nobody else can have its pid.
            Entry::Occupied(known)
                if !known.get().has_ended() || known.get().started_at(sighting.facts.start_ticks) =>
            {
                return Ok(Attachment::new(Arc::clone(known.get())));
            }
            entry => entry,
        };
        let tracked = self.admit(sighting)?;
        entry.insert_entry(Arc::clone(&tracked));
        drop(live);
        // Attached before it is watched, so that an end that has come already waits for the caller's messages.
        let attachment = Attachment::new(Arc::clone(&tracked));
        self.runtime.spawn(Arc::clone(self).watch(tracked));
        Ok(attachment)
    }

    /// A process that nobody can look up, for simulations and recorded sessions: it lives as long as a session names it.
    pub(super) fn simulate(self: &Arc<Self>, pid: u32, uid: u32, seen_ns: u64) -> io::Result<Attachment> {
        let mut live = self.live.lock();
        if let Some(known) = live.get(&pid) {
            return Ok(Attachment::new(Arc::clone(known)));
        }
        let facts = ProcessFacts { name: Some("simulated".into()), ..ProcessFacts::default() };
        let tracked =
            self.admit(Sighting { pid, uid, pidfd: None, facts: &facts, source: Source::Socket, seen_ns })?;
        live.insert(pid, Arc::clone(&tracked));
        drop(live);
        let attachment = Attachment::new(Arc::clone(&tracked));
        self.runtime.spawn(Arc::clone(self).watch_simulated(tracked));
        Ok(attachment)
    }

    /// Whether another process of a user may be watched that has no connection of its own. One with a connection always is: those are bounded.
    pub(super) fn has_room(&self, uid: u32) -> bool {
        self.places.take(uid).is_some()
    }

    /// Whether a live process of that pid is known.
    pub(super) fn is_tracked(&self, pid: u32) -> bool {
        self.live.lock().get(&pid).is_some_and(|tracked| !tracked.has_ended())
    }

    /// The devices on which a live process of that pid holds memory.
    pub(super) fn devices_of(&self, pid: u32) -> BTreeSet<u16> {
        let tracked = self.live.lock().get(&pid).cloned();
        let memory = tracked.map(|tracked| tracked.process.memory()).unwrap_or_default();
        let held = memory.iter().filter(|memory| {
            memory.memory_type != MemoryType::SystemMemory && memory.counters.usage_bytes() > 0
        });
        held.map(|memory| memory.device).collect()
    }

    async fn watch_simulated(self: Arc<Self>, tracked: Arc<Tracked>) {
        loop {
            tracked.wait_for_sessions().await;
            let mut live = self.live.lock();
            // Another session may have named it in the meantime.
            if tracked.sessions.load(SeqCst) == 0 {
                live.remove(&tracked.process.pid());
                break;
            }
        }
        self.end(&tracked);
    }

    fn admit(&self, sighting: Sighting<'_>) -> io::Result<Arc<Tracked>> {
        let Sighting { pid, uid, pidfd, facts, source, seen_ns } = sighting;
        let start_ticks =
            facts.start_ticks.unwrap_or_else(|| u64::MAX - self.unknown_starts.fetch_add(1, Relaxed));
        let pidfd = {
            let _context = self.runtime.enter();
            pidfd.map(|pidfd| watch(pidfd, Interest::READABLE)).transpose()?
        };
        let info = ProcessInfo {
            name: facts.name.clone().unwrap_or_else(|| "unknown".into()),
            uid,
            user: user_name(uid),
            cgroup: facts.cgroup.clone(),
            container: facts.cgroup.as_deref().and_then(|path| self.containers.of(path)),
            ns_pid: facts.inner_pid(),
            slurm: facts.slurm.clone(),
            start_time_seconds: facts.start_ticks.map(start_time_seconds),
            source,
        };
        let process = self.registry.process(Identity { pid, start_ticks }, seen_ns, info);
        self.write_down(&process, seen_ns);
        Ok(Tracked::new(process, pidfd, &[], Some(self.places.keep(uid))))
    }

    fn write_down(&self, process: &Process, seen_ns: u64) {
        let info = process.info().clone();
        let container = info.container.as_deref();
        let container = container.map(|container| {
            (container.id().to_owned(), container.pod_uid().map(str::to_owned), container.is_nameless())
        });
        let birth = Birth {
            identity: process.identity(),
            name: info.name,
            uid: info.uid,
            user: info.user,
            cgroup: info.cgroup,
            container,
            ns_pid: info.ns_pid,
            slurm: info.slurm,
            start_time_seconds: info.start_time_seconds,
            source: info.source,
            seen_ns,
        };
        self.diary.note(now(), &Note::Born(birth));
    }

    /// Takes up the processes of a registry that was restored. Those that have ended meanwhile end when [`Self::watch_restored`] is
    /// called: what they sent may still be in their connections.
    pub(super) fn restore(&self, clients: &[(Identity, Vec<ClientImage>)]) -> io::Result<()> {
        let _context = self.runtime.enter();
        let mut live = self.live.lock();
        for process in self.registry.processes().into_iter().filter(|process| !process.has_ended()) {
            let identity = process.identity();
            let of_it = clients.iter().find(|(known, _)| *known == identity);
            let of_it = of_it.map_or(&[][..], |(_, clients)| clients);
            if is_unknown_start(identity.start_ticks) {
                let number = u64::MAX - identity.start_ticks;
                self.unknown_starts.fetch_max(number + 1, Relaxed);
            }
            let pidfd = still_alive(identity)?.map(|pidfd| watch(pidfd, Interest::READABLE)).transpose()?;
            let place = self.places.keep(process.info().uid);
            live.insert(identity.pid, Tracked::new(process, pidfd, of_it, Some(place)));
        }
        Ok(())
    }

    /// A container that was stored.
    pub(super) fn container(&self, stored: &Container, cgroup: Option<&str>) -> Arc<Container> {
        self.containers.restore(stored, cgroup)
    }

    /// A process that a session of the daemon before this one had found.
    pub(super) fn attach(&self, identity: Identity) -> Option<Attachment> {
        let live = self.live.lock();
        let tracked = live.get(&identity.pid).filter(|tracked| tracked.process.identity() == identity);
        if let Some(tracked) = tracked {
            return Some(Attachment::new(Arc::clone(tracked)));
        }
        drop(live);
        let ended = self.registry.known_process(identity)?;
        Some(Attachment::new(Tracked::recorded(ended, &[])))
    }

    /// Begins to watch what was restored, when its sessions are there.
    pub(super) fn watch_restored(self: &Arc<Self>) {
        for tracked in self.live.lock().values() {
            let (processes, tracked) = (Arc::clone(self), Arc::clone(tracked));
            if self.trusts && tracked.pidfd.is_none() {
                self.runtime.spawn(processes.watch_simulated(tracked));
            } else {
                self.runtime.spawn(processes.watch(tracked));
            }
        }
    }

    /// What regions showed when the registry was stored.
    pub(super) fn in_regions(&self) -> Vec<(Arc<Tracked>, ProcessMemory)> {
        let live = self.live.lock();
        let places = live.values().flat_map(|tracked| {
            tracked.process.memory().into_iter().map(|place| (Arc::clone(tracked), place))
        });
        places.filter(|(_, place)| place.counters.is_in_region != 0).collect()
    }

    async fn watch(self: Arc<Self>, tracked: Arc<Tracked>) {
        tracked.wait_for_end().await;
        // What the process has sent before it ended is still in its rings and sockets.
        tracked.wait_for_rings().await;
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, tracked.wait_for_sessions()).await;
        if tracked.process.buffers() < BUFFERS_RECLAIMED_INLINE {
            self.end(&tracked);
        } else {
            let (processes, tracked) = (Arc::clone(&self), Arc::clone(&tracked));
            // A panic in it ends the daemon.
            let _ = tokio::task::spawn_blocking(move || processes.end(&tracked)).await;
        }
        self.forget(&tracked);
        tracked.learn_exit().await;
    }

    /// Its pid may be somebody else's by now.
    fn forget(&self, tracked: &Arc<Tracked>) {
        let mut live = self.live.lock();
        if live.get(&tracked.process.pid()).is_some_and(|current| Arc::ptr_eq(current, tracked)) {
            live.remove(&tracked.process.pid());
        }
    }

    fn end(&self, tracked: &Tracked) {
        let process = &tracked.process;
        // What has been received before this is taken, and what is received after it is refused: by this daemon as by the next one.
        let ended = Note::Ended { identity: process.identity() };
        let close = |time: Time| self.registry.close(process, time.monotonic_ns);
        let now_ns = self.diary.note_between_turns(&ended, close).monotonic_ns;
        let orphaned = self.registry.end(process, now_ns);
        let (pid, name) = (process.pid(), process.info().name.as_str());
        if orphaned.buffers == 0 {
            debug!(pid, process = name, "process ended");
        } else if let Some(suppressed) = self.throttle.admit("process_end", now_ns) {
            let (buffers, bytes) = (orphaned.buffers, orphaned.bytes);
            info!(
                pid,
                process = name,
                buffers,
                bytes,
                suppressed,
                "process ended with memory held; reclaimed it"
            );
        }
    }
}

pub(super) fn start_time_seconds(start_ticks: u64) -> f64 {
    now().unix_seconds_of(ticks_to_ns(start_ticks))
}

/// No process has started that many ticks after its host.
fn is_unknown_start(start_ticks: u64) -> bool {
    start_ticks > u64::MAX / 2
}

/// A descriptor of the process of that identity, if it lives.
fn still_alive(identity: Identity) -> io::Result<Option<Arc<OwnedFd>>> {
    let Some(pid) = Pid::from_raw(identity.pid.cast_signed()) else { return Ok(None) };
    let Some(pidfd) = open_pidfd(pid)?.filter(|pidfd| !has_ended(pidfd)) else { return Ok(None) };
    // Read behind the descriptor: a pid that was used again in between shows another start.
    let is_it = start_ticks_of(identity.pid) == Some(identity.start_ticks);
    Ok(is_it.then(|| Arc::new(pidfd)))
}

/// Whether the process behind a pidfd has ended; one that nobody has waited for yet counts as ended.
pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(ready) if ready > 0)
}
