//! What comes in: the field's clients over the socket, tt-metal's regions, and the ends of processes.
//!
//! The idea is a few threads, each with its own event loop, between which connections are dealt out: a connection stays on its thread,
//! so its messages are applied in order, and threads meet only where two of them report for one process.

mod cgroup;
mod peer;
mod procfs;

mod attribution;
mod containers;
mod kubelet;
mod processes;
mod reporters;

mod allowance;
mod apply;
mod conversation;
mod dump;
mod places;
mod ring;
mod session;
mod statements;
mod stream;

mod diary;
mod foreign;
mod memory;
mod note;
mod recovery;
mod resumption;
mod store;
mod turns;

mod replay;

mod assignments;
mod devices;
mod driver;
mod exit;
mod inventory;
mod numbering;
mod region;
mod regions;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tracing::{error, warn};
use ttmem_wire::{BufferTypes, Layout};

use crate::clock;
use crate::config::{Config, SocketBufferTypes, SocketLayout};
use crate::registry::{BufferLimits, Container, Occurrence, Registry, RejectedPeer, Rejection, Time};
use crate::socket::{BACKLOG, Socket};
use crate::throttle::{self, Throttle};
use allowance::{Allowances, Pause};
use apply::Applier;
use assignments::Assignments;
use attribution::Attribution;
use containers::{Containers, NameSources};
use conversation::Conversation;
pub use devices::Devices;
use diary::Diaries;
use driver::Driver;
use inventory::Inventory;
use memory::Compaction;
pub use memory::Memory;
use note::{Counted, Note};
use peer::{Peer, PeerError};
use places::Places;
use processes::Processes;
use procfs::ArgumentsReader;
use recovery::Quiet;
pub use recovery::RecoveryError;
use regions::Regions;
use ring::RingMemory;
use session::Session;
use stream::Stream;

pub use foreign::{ForeignProcess, ForeignRegion, holders, process, recovered, region};
pub use replay::Replay;

/// How long sessions may take to apply what has been sent when the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before taking connections again when there is no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all of ingest shares.
struct Context {
    registry: Arc<Registry>,
    processes: Arc<Processes>,
    devices: Arc<Devices>,
    throttle: Arc<Throttle>,
    policy: Policy,
    arguments: ArgumentsReader,
    diaries: Diaries,
    clients: AtomicU32,
    places: Arc<Places>,
    allowances: Arc<Allowances>,
    ring_memory: Arc<RingMemory>,
    /// Which run of the daemon this is, among all that a client may come to.
    instance: u64,
}

impl Context {
    /// Nobody is connected yet. Processes are watched on that runtime.
    fn new(
        config: &Config,
        registry: Arc<Registry>,
        devices: Arc<Devices>,
        runtime: Handle,
        diaries: Diaries,
        quiet: Quiet,
    ) -> io::Result<Arc<Context>> {
        let throttle = Arc::new(if quiet == Quiet::Yes { Throttle::muted() } else { Throttle::default() });
        let named = diaries.common();
        let settled = Box::new(move |container: &Container| {
            let names = container.names().cloned();
            let names = names.map(|names| (names.namespace, names.pod, names.container));
            named.note(now(), &Note::Named { id: container.id().to_owned(), names });
        });
        let sources = NameSources {
            log_directory: config.container_log_dir.clone(),
            pods_socket: config.kubelet_pods_socket.clone(),
        };
        let containers = Containers::start(sources, Arc::clone(&registry), Arc::clone(&throttle), settled)?;
        let processes = Processes::new(
            Arc::clone(&registry),
            Arc::clone(&throttle),
            containers,
            diaries.common(),
            config.trust_claimed_pids,
            config.user_processes_max(),
            runtime,
        );
        let policy = Policy::new(config);
        let arguments = ArgumentsReader::start(config.process_environment)?;
        let (clients, places) = (AtomicU32::new(0), Places::new(config.user_clients_max()));
        let allowances =
            Allowances::new(config.connection_reports_per_second_max, config.user_reports_per_second_max);
        let ring_memory = RingMemory::new(Arc::clone(&registry), config.ring_memory_max_bytes);
        let instance = clock::unix_ns();
        Ok(Arc::new(Context {
            registry,
            processes,
            devices,
            throttle,
            policy,
            arguments,
            diaries,
            clients,
            places,
            allowances,
            ring_memory,
            instance,
        }))
    }

    /// Counts what no message says, here and in the journal.
    fn count(&self, counted: Counted) {
        counted.count(self.registry.events());
        self.diaries.common().note(now(), &Note::Counted(counted));
    }

    /// A connection could not be served; its client is not at fault.
    fn refuse(&self, error: &PeerError) {
        self.count(match error {
            PeerError::Hidden => Counted::HiddenPeer,
            PeerError::Io(_) => Counted::Connection,
        });
        if let Some(suppressed) = self.throttle.admit("connection", clock::monotonic_ns()) {
            warn!(%error, suppressed, "connection not served");
        }
    }

    /// The peer's user has as many connections as it may.
    fn refuse_user(&self, peer: &Peer) {
        let (rejection, now_ns) = (Rejection::UserClientsMax, clock::monotonic_ns());
        self.registry.events().reject(rejection);
        if let Some(suppressed) = self.throttle.admit(rejection.name(), now_ns) {
            let Peer { pid: peer, uid, .. } = *peer;
            self.tell_rejected(peer, rejection, suppressed, now_ns);
            warn!(
                peer,
                uid,
                suppressed,
                "connection refused: too many clients of one user; raise user_clients_max if they are wanted"
            );
        }
    }

    /// The peer is not read for a while, as it reports faster than it may.
    fn slow_down(&self, peer: u32, uid: u32, pause: Pause) {
        let Pause { limit, duration } = pause;
        self.registry.events().throttle(limit, duration);
        if let Some(suppressed) = self.throttle.admit(limit.name(), clock::monotonic_ns()) {
            let (limit, pause_seconds) = (limit.setting(), duration.as_secs_f64());
            warn!(
                peer,
                uid,
                limit,
                pause_seconds,
                suppressed,
                "client is read more slowly than it reports, and waits; raise that limit if so many reports are wanted"
            );
        }
    }

    /// Tells of a peer that was refused, where its line in the log was admitted.
    fn tell_rejected(&self, pid: u32, reason: Rejection, suppressed: u64, at_ns: u64) {
        self.registry.tell(|| Occurrence::Rejected(RejectedPeer { pid, reason, suppressed, at_ns }));
    }
}

/// How many live buffers the registry may remember.
pub fn buffer_limits(config: &Config) -> BufferLimits {
    BufferLimits { buffers_max: config.buffers_max, user_buffers_max: config.user_buffers_max() }
}

/// How the socket's messages are read.
struct Policy {
    layout: Option<Layout>,
    buffer_types: Option<BufferTypes>,
    trust_claimed_pids: bool,
    clients_max: u32,
}

impl Policy {
    fn new(config: &Config) -> Policy {
        Policy {
            layout: match config.socket_layout {
                SocketLayout::Auto => None,
                SocketLayout::Bytes72 => Some(Layout::Bytes72),
                SocketLayout::Bytes112 => Some(Layout::Bytes112),
                SocketLayout::Bytes144 => Some(Layout::Bytes144),
            },
            buffer_types: match config.socket_buffer_types {
                SocketBufferTypes::Auto => None,
                SocketBufferTypes::Seed => Some(BufferTypes::Seed),
                SocketBufferTypes::Metal => Some(BufferTypes::Metal),
            },
            trust_claimed_pids: config.trust_claimed_pids,
            clients_max: config.clients_max,
        }
    }
}

/// The running ingest.
pub struct Ingest {
    threads: Vec<EventLoop>,
    accepting: tokio::task::JoinHandle<()>,
    followers: Vec<Follower>,
    compaction: Option<Compaction>,
    stopping: watch::Sender<bool>,
    context: Arc<Context>,
    /// Ends, with this, whoever may be waiting for others and is not waited for.
    _running: mpsc::Sender<()>,
}

/// A connection that a supervisor has kept, and the name that it was given.
pub type KeptConnection = (String, OwnedFd);

impl Ingest {
    /// Starts to take connections on a socket and to follow the other sources.
    pub fn start(
        config: &Config,
        registry: Arc<Registry>,
        devices: Arc<Devices>,
        socket: Socket,
        memory: Memory,
        kept: Vec<KeptConnection>,
    ) -> anyhow::Result<Ingest> {
        let threads = (0..config.ingest_threads).map(EventLoop::start).collect::<io::Result<Vec<_>>>()?;
        let Memory { journal, state, .. } = memory;
        let diaries = Diaries::new(journal.clone(), state.next_session)?;
        let runtime = threads[0].handle.clone();
        let context = Context::new(config, registry, devices, runtime, diaries, Quiet::No)?;
        let (stopping, stop) = watch::channel(false);
        let handles: Vec<Handle> = threads.iter().map(|thread| thread.handle.clone()).collect();
        resumption::resume(&context, state, kept, &handles, &stop)?;
        let compaction = journal.map(|journal| Compaction::start(journal, config.clone())).transpose()?;
        let accepting = threads[0].handle.spawn(accept_all(Arc::clone(&context), socket, handles, stop));
        let mut followers = Vec::new();
        let (running, is_over) = mpsc::channel();
        if let Some(directory) = &config.shm_dir {
            let regions = Regions::new(Arc::clone(&context), directory.clone());
            let interval = Duration::from_millis(config.shm_interval_ms);
            followers.push(Follower::start("ttmem-regions", move |stop| regions.follow(interval, stop))?);
        }
        let (proc_directory, sys_directory) = (config.driver_proc_dir.clone(), config.driver_sys_dir.clone());
        if proc_directory.is_some() || sys_directory.is_some() {
            let inventory = Inventory::new(Arc::clone(&context), Driver { proc_directory, sys_directory });
            followers.push(Follower::start("ttmem-driver", move |stop| inventory.follow(stop))?);
        }
        if let Some(socket) = config.kubelet_resources_socket.clone() {
            let assignments = Assignments::new(Arc::clone(&context), socket);
            std::thread::Builder::new()
                .name("ttmem-kubelet".into())
                .spawn(move || assignments.follow(&is_over))?;
        }
        Ok(Ingest { threads, accepting, followers, compaction, stopping, context, _running: running })
    }

    /// Takes the connections that wait already and no more, applies what has been sent, and ends.
    pub async fn drain(self) {
        self.stopping.send_replace(true);
        let all_closed = async {
            // It can only have ended by a panic, which has been reported.
            let _ = self.accepting.await;
            while self.context.clients.load(Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, all_closed).await.is_err() {
            warn!(
                clients = self.context.clients.load(Relaxed),
                "stopping without having read all that clients sent"
            );
        }
        self.context.diaries.flush().await;
        for thread in self.threads {
            thread.stop();
        }
        for follower in self.followers {
            follower.stop();
        }
        if let Some(compaction) = self.compaction {
            compaction.stop();
        }
    }
}

fn now() -> Time {
    let (monotonic_ns, unix_ns) = clock::now();
    Time { monotonic_ns, unix_ns }
}

/// A thread that looks at a source again and again, until its sender is gone.
struct Follower {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Follower {
    fn start(name: &str, follow: impl FnOnce(&mpsc::Receiver<()>) + Send + 'static) -> io::Result<Follower> {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || follow(&stopped))?;
        Ok(Follower { stop, thread })
    }

    fn stop(self) {
        drop(self.stop);
        // It can only have ended by a panic, which has been reported.
        let _ = self.thread.join();
    }
}

/// A thread with an event loop of its own.
struct EventLoop {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl EventLoop {
    fn start(number: u32) -> io::Result<EventLoop> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(format!("ttmem-ingest-{number}")).spawn(move || {
            // Ends when told to, or when the sender is gone.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(EventLoop { handle, stop, thread })
    }

    fn stop(self) {
        drop(self.stop);
        // It can only have ended by a panic, which has been reported.
        let _ = self.thread.join();
    }
}

/// Takes connections until the daemon stops, and deals them out to the threads.
async fn accept_all(
    context: Arc<Context>,
    socket: Socket,
    threads: Vec<Handle>,
    stopping: watch::Receiver<bool>,
) {
    let listener = match socket.listener().try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return error!(%error, "cannot watch the socket; no client will be served"),
    };
    let mut stop = stopping.clone();
    let mut deal = threads.iter().enumerate().cycle();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            // Taken from this thread's event loop again, as it is to live on another's.
            accepted = listener.accept() => accepted.and_then(|(stream, _)| stream.into_std()),
        };
        match (accepted, deal.next()) {
            (Ok(stream), Some(thread)) => serve(&context, stream, thread, &stopping),
            (Err(error), _) if is_exhaustion(&error) => {
                context.count(Counted::Connection);
                if let Some(suppressed) = context.throttle.admit("exhaustion", clock::monotonic_ns()) {
                    warn!(%error, suppressed, "cannot take a connection; raise the limit of open files (LimitNOFILE)");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The peer went away between its connect and our accept; anything else that lasts must not keep this thread busy.
            (Err(_), _) | (_, None) => tokio::task::yield_now().await,
        }
    }
    drop(listener);
    // The next daemon finds those that wait at a socket which outlives this one, and knows for longer what they report.
    if !socket.is_adopted() {
        take_waiting(socket.listener(), |stream| {
            if let Some(thread) = deal.next() {
                serve(&context, stream, thread, &stopping);
            }
        });
    }
}

/// Takes the connections that wait already: their clients have sent without knowing that nobody had looked yet.
fn take_waiting(listener: &std::os::unix::net::UnixListener, mut serve: impl FnMut(UnixStream)) {
    // No more than these can have waited, however fast others follow.
    for _ in 0..=BACKLOG {
        let taken = listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        match taken {
            Ok(stream) => serve(stream),
            // Its client has gone already, and the next one may not have.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return warn!(%error, "stopping without having taken all that clients sent"),
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn serve(
    context: &Arc<Context>,
    stream: UnixStream,
    (number, thread): (usize, &Handle),
    stopping: &watch::Receiver<bool>,
) {
    let clients_max = context.policy.clients_max;
    if context.clients.fetch_add(1, Relaxed) >= clients_max {
        context.clients.fetch_sub(1, Relaxed);
        context.count(Counted::ClientsMax);
        let now_ns = clock::monotonic_ns();
        if let Some(suppressed) = context.throttle.admit("clients_max", now_ns) {
            let peer = Peer::of(&stream).map_or(0, |peer| peer.pid);
            context.tell_rejected(peer, Rejection::ClientsMax, suppressed, now_ns);
            warn!(
                peer,
                clients_max,
                suppressed,
                "connection refused: too many clients; raise clients_max if they are wanted"
            );
        }
        return;
    }
    let (context, stopping) = (Arc::clone(context), stopping.clone());
    thread.spawn(async move {
        if let Err(error) = converse(&context, stream, number, stopping).await {
            context.refuse(&error);
        }
        context.clients.fetch_sub(1, Relaxed);
    });
}

async fn converse(
    context: &Arc<Context>,
    stream: UnixStream,
    thread: usize,
    stopping: watch::Receiver<bool>,
) -> Result<(), PeerError> {
    let peer = Peer::of(&stream)?;
    let Some(_place) = context.places.take(peer.uid) else {
        context.refuse_user(&peer);
        return Ok(());
    };
    let diary = Arc::new(context.diaries.open(thread));
    let attribution = Attribution::new(Arc::clone(context), peer, Arc::clone(&diary));
    // Before anything is read: whoever goes on with the connection has to know whose it is, and then has to have it.
    attribution.introduce(now());
    if let Err(error) = diary.keep(stream.as_fd()).await
        && let Some(suppressed) = context.throttle.admit("keep", clock::monotonic_ns())
    {
        warn!(%error, suppressed, "the supervisor cannot keep a connection; it will break when the daemon is started again");
    }
    let applier = Applier::new(Arc::clone(context), attribution);
    let conversation = Conversation::new(Arc::clone(context), applier, now())?;
    Session::new(Arc::clone(context), Stream::new(stream)?, conversation, diary).run(stopping).await;
    Ok(())
}
