//! What the journal comes to: a checkpoint and the entries after it, applied as they were applied when they came in.
//!
//! The idea is that there is one way in. A recorded conversation is a conversation like any other, on a registry of its own; only whose
//! message it is, is not looked up but read. The daemon's start and the making of a checkpoint are both this.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use ttmem_wire::Header;

use super::apply::Applier;
use super::attribution::Attribution;
use super::conversation::{Conversation, ConversationImage};
use super::diary::Diaries;
use super::note::{Birth, Note, Packed, memory_type};
use super::processes::Tracked;
use super::procfs::ProcessFacts;
use super::reporters::ClientImage;
use super::ring::RingsImage;
use super::{Context, Devices};
use crate::config::Config;
use crate::journal::{Entry, EntryKind, Found};
use crate::registry::{
    Container, ContainerNames, Identity, ImageError, ProcessInfo, Registry, RegistryImage, Source, Time,
};

/// What the content of a checkpoint is written as; another number is another version's.
const STATE_VERSION: u32 = 1;

/// The state of some hundred thousand buffers; the seal of a larger one has to be enough.
const SMALL_STATE_BYTES: usize = 4 << 20;
/// A byte is a number of up to 16 at the most.
const SMALL_STATE_DECODED_BYTES_MAX: usize = 16 * SMALL_STATE_BYTES;

/// Why what was stored is of no use. The daemon then begins with nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// It is not what this version writes.
    #[error("the checkpoint is of another version, or damaged: {0}")]
    Content(String),
    /// It says two things at once.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The environment's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All that a daemon has to know to go on.
#[derive(Serialize, Deserialize, Default)]
pub(super) struct State {
    version: u32,
    pub(super) registry: RegistryImage,
    /// The clients of each live process.
    pub(super) clients: Vec<(Identity, Vec<ClientImage>)>,
    pub(super) sessions: Vec<SessionImage>,
    pub(super) next_session: u64,
}

/// A connection that is open.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionImage {
    pub(super) number: u64,
    pub(super) peer_pid: u32,
    pub(super) peer_uid: u32,
    pub(super) facts: ProcessFacts,
    pub(super) claims: Vec<(u32, Identity)>,
    pub(super) rings: Option<RingsImage>,
    pub(super) conversation: ConversationImage,
}

impl State {
    /// As it is stored.
    pub(super) fn encode(&self) -> Result<Vec<u8>, RecoveryError> {
        let encoded = bincode::serde::encode_to_vec(self, bincode::config::standard());
        encoded.map_err(|error| RecoveryError::Content(error.to_string()))
    }

    fn decode(bytes: &[u8]) -> Result<State, RecoveryError> {
        let content = |error: bincode::error::DecodeError| RecoveryError::Content(error.to_string());
        let standard = bincode::config::standard();
        // What comes behind another version means something else.
        let (version, _): (u32, usize) =
            bincode::serde::decode_from_slice(bytes, standard).map_err(content)?;
        if version != STATE_VERSION {
            return Err(RecoveryError::Content(format!("its version is {version}")));
        }
        // Nor is memory taken for a length that nothing in so few bytes can have.
        let (state, _) = if bytes.len() <= SMALL_STATE_BYTES {
            bincode::serde::decode_from_slice(bytes, standard.with_limit::<SMALL_STATE_DECODED_BYTES_MAX>())
        } else {
            bincode::serde::decode_from_slice(bytes, standard)
        }
        .map_err(content)?;
        Ok(state)
    }
}

/// Applies what was found, and gives what it comes to.
pub(super) fn recover(found: &Found, config: &Config) -> Result<State, RecoveryError> {
    let state = match &found.checkpoint {
        Some(content) => State::decode(content)?,
        None => State { version: STATE_VERSION, next_session: 1, ..State::default() },
    };
    let first = found.entries.iter().next().map(|entry| entry.moment.monotonic_ns);
    let started_ns = found.checkpoint.as_ref().map_or(first.unwrap_or(0), |_| state.registry.started_ns());
    // Nothing runs on it: what is recorded has no sockets.
    let runtime = Builder::new_current_thread().enable_io().build()?;
    // The same is refused as when it came.
    let registry = Arc::new(Registry::new(started_ns).bounded(super::buffer_limits(config)));
    let quiet = Config { container_log_dir: None, ..config.clone() };
    let devices = Devices::new(Arc::clone(&registry));
    let handle = runtime.handle().clone();
    let context =
        Context::new(&quiet, Arc::clone(&registry), devices, handle, Diaries::default(), Quiet::Yes)?;
    let mut recovery = Recovery::begin(context, state, found)?;
    for entry in found.entries.iter() {
        recovery.apply(&entry);
    }
    Ok(recovery.finish(config))
}

/// Whether lines that a peer causes are left out of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quiet {
    No,
    Yes,
}

/// A recovery under way.
struct Recovery {
    context: Arc<Context>,
    world: Arc<World>,
    sessions: BTreeMap<u64, RecordedSession>,
    next_session: u64,
    last: Time,
}

struct RecordedSession {
    peer_pid: u32,
    peer_uid: u32,
    facts: ProcessFacts,
    conversation: Conversation,
    rings: Option<RingsImage>,
    /// Framing is lost: what was still received means nothing.
    is_refused: bool,
}

impl Recovery {
    fn begin(context: Arc<Context>, state: State, found: &Found) -> Result<Recovery, RecoveryError> {
        let mut containers = HashMap::new();
        context.registry.restore(state.registry, |stored, _| {
            let container = Arc::new(stored.clone());
            containers.insert(container.id().to_owned(), Arc::clone(&container));
            container
        })?;
        let mut world = World::new(Arc::clone(&context.registry), containers);
        let mut claims: HashMap<u64, Vec<RecordedClaim>> = HashMap::new();
        for session in &state.sessions {
            let known = session.claims.iter().map(|(pid, identity)| RecordedClaim {
                since: 0,
                pid: *pid,
                identity: *identity,
            });
            claims.entry(session.number).or_default().extend(known);
        }
        // A note about a message stands behind it, so all of them are read first.
        for entry in found.entries.iter().filter(|entry| entry.kind == EntryKind::Note) {
            match Note::decode(entry.bytes) {
                Some(Note::Claimed { since, pid, identity, .. }) => {
                    claims.entry(entry.session).or_default().push(RecordedClaim { since, pid, identity });
                }
                Some(Note::Born(birth)) => drop(world.births.insert(birth.identity, birth)),
                _ => {}
            }
        }
        for (identity, clients) in state.clients {
            if let Some(process) = context.registry.known_process(identity) {
                world.processes.get_mut().insert(identity, Tracked::recorded(process, &clients));
            }
        }
        world.claims = claims;
        let world = Arc::new(world);
        let mut recovery = Recovery {
            context,
            world,
            sessions: BTreeMap::new(),
            next_session: state.next_session,
            last: Time { monotonic_ns: 0, unix_ns: 0 },
        };
        for SessionImage { number, peer_pid, peer_uid, facts, conversation, rings, .. } in state.sessions {
            recovery.open(number, peer_pid, peer_uid, facts, conversation);
            if let Some(session) = recovery.sessions.get_mut(&number) {
                session.rings = rings;
            }
        }
        Ok(recovery)
    }

    fn open(
        &mut self,
        number: u64,
        peer_pid: u32,
        peer_uid: u32,
        facts: ProcessFacts,
        image: ConversationImage,
    ) {
        let recorded = Recorded { world: Arc::clone(&self.world), session: number };
        let context = &self.context;
        let attribution =
            Attribution::recorded(Arc::clone(context), peer_pid, peer_uid, facts.clone(), recorded);
        let applier = Applier::new(Arc::clone(context), attribution);
        // It has no descriptor, so nothing can be missing.
        let restored = Conversation::restore(Arc::clone(context), applier, image, self.last);
        let Ok(conversation) = restored else { return };
        let session =
            RecordedSession { peer_pid, peer_uid, facts, conversation, rings: None, is_refused: false };
        self.sessions.insert(number, session);
        self.next_session = self.next_session.max(number + 1);
    }

    fn apply(&mut self, entry: &Entry<'_>) {
        let time = Time { monotonic_ns: entry.moment.monotonic_ns, unix_ns: entry.moment.unix_ns };
        self.last = time;
        match entry.kind {
            EntryKind::Received => self.with_session(entry, |session| session.receive(entry.bytes, time)),
            EntryKind::Sent => self.with_session(entry, |session| {
                let out = &mut session.conversation.out;
                out.drain(..entry.sent_bytes().min(out.len()));
            }),
            EntryKind::Note => {
                // One of a version to come is left out: there is nothing better to do with it.
                if let Some(note) = Note::decode(entry.bytes) {
                    self.heed(entry, note, time);
                }
            }
        }
    }

    fn with_session(&mut self, entry: &Entry<'_>, act: impl FnOnce(&mut RecordedSession)) {
        if let Some(session) = self.sessions.get_mut(&entry.session) {
            session.conversation.applier.begin(Some(entry.order));
            act(session);
        }
    }

    fn heed(&mut self, entry: &Entry<'_>, note: Note, time: Time) {
        let registry = Arc::clone(&self.context.registry);
        match note {
            Note::Opened { peer_pid, peer_uid, facts } => {
                self.open(entry.session, peer_pid, peer_uid, facts, ConversationImage::fresh(&self.context));
            }
            Note::Silent => self.with_session(entry, |session| {
                let assumed = session.conversation.assume_layout(time);
                session.note_fault(assumed);
            }),
            Note::Resumed => self.with_session(entry, |session| session.resume(time)),
            Note::GaveRings(rings) => self.with_session(entry, |session| {
                session.conversation.has_rings = true;
                session.rings = Some(rings);
            }),
            Note::Answered => self.with_session(entry, |session| session.conversation.ask = None),
            Note::Records { lost, records, rings } => {
                registry.events().lose_many(crate::registry::Loss::Ring, lost);
                self.with_session(entry, |session| {
                    session.rings = Some(rings);
                    session.take_records(&records, time);
                });
            }
            Note::Claimed { is_rejected, .. } => {
                if is_rejected {
                    registry.events().reject(crate::registry::Rejection::ClaimedPid);
                }
            }
            Note::Closed { is_finished } => {
                if is_finished {
                    self.with_session(entry, |session| session.conversation.finish(time));
                }
                self.sessions.remove(&entry.session);
            }
            Note::Born(birth) => drop(self.world.tracked(birth.identity)),
            Note::Ended { identity } => {
                if let Some(tracked) = self.world.tracked(identity) {
                    registry.end(tracked.process(), time.monotonic_ns);
                    self.world.processes.lock().remove(&identity);
                }
            }
            Note::Region { identity, device, memory_type: kind, bytes } => {
                if let (Some(tracked), Some(kind)) = (self.world.tracked(identity), memory_type(kind)) {
                    let mut batch = registry.batch(tracked.process(), time.monotonic_ns);
                    // It was done then, so it can be done now.
                    let _ = batch.set_region(device, kind, bytes);
                }
            }
            Note::Named { id, names } => {
                let names =
                    names.map(|(namespace, pod, container)| ContainerNames { namespace, pod, container });
                self.world.settle(&id, names.as_ref());
            }
            Note::Counted(counted) => counted.count(registry.events()),
        }
    }

    /// Gives what there is now. Processes that ended long enough ago are among the sums, as they are in a daemon that runs.
    fn finish(self, config: &Config) -> State {
        let registry = &self.context.registry;
        let linger_ns = config.process_linger_seconds.saturating_mul(1_000_000_000);
        registry.retire(self.last.monotonic_ns, linger_ns);
        let processes = self.world.processes.lock();
        let clients = processes.iter().map(|(identity, tracked)| (*identity, tracked.clients()));
        let sessions = self.sessions.iter().filter(|(_, session)| !session.is_refused);
        State {
            version: STATE_VERSION,
            registry: registry.image(),
            clients: clients.collect(),
            next_session: self.next_session,
            sessions: sessions.map(|(number, session)| session.image(*number, &self.world)).collect(),
        }
    }
}

impl RecordedSession {
    fn receive(&mut self, bytes: &[u8], time: Time) {
        if self.is_refused {
            return;
        }
        let mut whole = self.conversation.take_carry();
        whole.extend_from_slice(bytes);
        // What is in the rings has to be read first, and when that was done is noted.
        if self.conversation.is_switched() {
            return self.conversation.keep(&whole);
        }
        let mut consumed = self.conversation.consume(&whole, time);
        while consumed.is_ok() && self.conversation.has_backlog() && !self.conversation.is_switched() {
            let backlog = self.conversation.take_carry();
            consumed = self.conversation.consume(&backlog, time);
        }
        self.note_fault(consumed);
    }

    fn resume(&mut self, time: Time) {
        if !self.is_refused {
            let carry = self.conversation.take_carry();
            let consumed = self.conversation.consume(&carry, time);
            self.note_fault(consumed);
        }
    }

    fn take_records(&mut self, records: &[Packed], time: Time) {
        // They were decoded before they were written down.
        let records: Vec<Header> =
            records.iter().filter_map(|record| Header::decode(&record.0).ok()).collect();
        let mut rest = &records[..];
        while let Ok(used @ 1..) = self.conversation.applier.apply_records(rest, time) {
            let _ = self.conversation.applier.take_hello();
            rest = &rest[used..];
        }
    }

    fn note_fault(&mut self, outcome: Result<(), super::apply::Fault>) {
        if let Err(fault) = outcome {
            self.conversation.refuse(&fault);
            self.is_refused = true;
        }
    }

    fn image(&self, number: u64, world: &World) -> SessionImage {
        let claims = world.claims.get(&number).into_iter().flatten();
        SessionImage {
            number,
            peer_pid: self.peer_pid,
            peer_uid: self.peer_uid,
            facts: self.facts.clone(),
            // The last of each pid.
            claims: claims
                .map(|claim| (claim.pid, claim.identity))
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect(),
            rings: self.rings.clone(),
            conversation: self.conversation.image(),
        }
    }
}

/// From which message on a claimed pid stood for a process.
struct RecordedClaim {
    since: u64,
    pid: u32,
    identity: Identity,
}

/// The processes that are recorded, instead of those that /proc shows.
struct World {
    registry: Arc<Registry>,
    /// In an order, so that the same journal is always the same checkpoint.
    processes: Mutex<BTreeMap<Identity, Arc<Tracked>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    births: HashMap<Identity, Birth>,
    claims: HashMap<u64, Vec<RecordedClaim>>,
}

/// A session's view of them.
pub(super) struct Recorded {
    world: Arc<World>,
    session: u64,
}

impl Recorded {
    /// Whose a message was that names a pid, in the entry of that order. A daemon that was killed before it wrote that down has shown
    /// it to nobody: then it is the peer's.
    pub(super) fn process(
        &self,
        claimed: u32,
        order: u64,
        peer: Identity,
        facts: &ProcessFacts,
        uid: u32,
    ) -> Arc<Tracked> {
        let mut claims = self.world.claims.get(&self.session).into_iter().flatten();
        let known = claims.rfind(|claim| claim.pid == claimed && claim.since <= order);
        let known = known.and_then(|claim| self.world.tracked(claim.identity));
        known.unwrap_or_else(|| self.world.stranger(peer, facts, uid))
    }
}

impl World {
    fn new(registry: Arc<Registry>, containers: HashMap<String, Arc<Container>>) -> World {
        let (processes, containers) = (Mutex::default(), Mutex::new(containers));
        World { registry, processes, containers, births: HashMap::new(), claims: HashMap::new() }
    }

    /// The process of that identity, born now if it has been born at all.
    fn tracked(&self, identity: Identity) -> Option<Arc<Tracked>> {
        if let Some(known) = self.processes.lock().get(&identity) {
            return Some(Arc::clone(known));
        }
        if let Some(process) = self.registry.known_process(identity) {
            return Some(Tracked::recorded(process, &[]));
        }
        let birth = self.births.get(&identity)?;
        let container = birth.container.as_ref().map(|(id, pod_uid, is_nameless)| {
            let mut containers = self.containers.lock();
            let container = containers
                .entry(id.clone())
                .or_insert_with(|| Arc::new(Container::new(id.clone(), pod_uid.clone())));
            if *is_nameless {
                container.settle(None);
            }
            Arc::clone(container)
        });
        let info = ProcessInfo {
            name: birth.name.clone(),
            uid: birth.uid,
            user: birth.user.clone(),
            cgroup: birth.cgroup.clone(),
            container,
            ns_pid: birth.ns_pid,
            slurm: birth.slurm.clone(),
            start_time_seconds: birth.start_time_seconds,
            source: birth.source,
        };
        Some(self.admit(identity, birth.seen_ns, info))
    }

    /// A peer of whom nothing but the connection was written down.
    fn stranger(&self, identity: Identity, facts: &ProcessFacts, uid: u32) -> Arc<Tracked> {
        if let Some(known) = self.tracked(identity) {
            return known;
        }
        let info = ProcessInfo {
            name: facts.name.clone().unwrap_or_else(|| "unknown".into()),
            uid,
            user: super::procfs::user_name(uid),
            cgroup: facts.cgroup.clone(),
            container: None,
            ns_pid: facts.inner_pid(),
            slurm: facts.slurm.clone(),
            start_time_seconds: facts.start_ticks.map(super::processes::start_time_seconds),
            source: Source::Socket,
        };
        self.admit(identity, crate::clock::monotonic_ns(), info)
    }

    fn admit(&self, identity: Identity, seen_ns: u64, info: ProcessInfo) -> Arc<Tracked> {
        let tracked = Tracked::recorded(self.registry.process(identity, seen_ns, info), &[]);
        self.processes.lock().insert(identity, Arc::clone(&tracked));
        tracked
    }

    fn settle(&self, id: &str, names: Option<&ContainerNames>) {
        if let Some(container) = self.containers.lock().get(id) {
            container.settle(names.cloned());
        }
    }
}
