//! Whose message it is. The kernel says who the peer is; a frame's own claim is believed only where the kernel bears it out.

use std::io;
use std::sync::Arc;

use rustix::process::Pid;
use tracing::warn;

use super::Context;
use super::diary::Diary;
use super::note::{Counted, Note};
use super::peer::{Peer, open_pidfd};
use super::processes::{Attachment, Sighting, Tracked, has_ended};
use super::procfs::{ProcessFacts, effective_uid_of};
use super::recovery::Recorded;
use crate::clock;
use crate::registry::{Identity, Rejection, Source, Time};

/// Claims that a session remembers: a parent with as many live forks on one socket is beyond any real program.
const CLAIMS_MAX: usize = 1024;

/// The processes that one session's messages belong to.
pub(super) struct Attribution {
    context: Arc<Context>,
    peer: Peer,
    facts: ProcessFacts,
    claims: Vec<Claim>,
    diary: Arc<Diary>,
    /// The journal's entry that is being applied.
    order: u64,
    /// Where processes are read about instead of being looked up.
    recorded: Option<Recorded>,
}

/// What a claimed pid stands for.
struct Claim {
    pid: u32,
    attachment: Attachment,
}

impl Attribution {
    pub(super) fn new(context: Arc<Context>, mut peer: Peer, diary: Arc<Diary>) -> Self {
        // Read now, because the peer may be gone by the time its first report is.
        let pidfd = peer.pidfd.as_deref();
        let facts =
            pidfd.map(|pidfd| ProcessFacts::of(peer.pid, pidfd, &context.arguments)).unwrap_or_default();
        if context.policy.trust_claimed_pids {
            // What it simulates does not end with it, and ten thousand of them are to fit under a usual limit of open files.
            peer.pidfd = None;
        }
        Self { context, peer, facts, claims: Vec::new(), diary, order: 0, recorded: None }
    }

    /// That of a session of a daemon before this one, with the processes that it had found: as the peer was then.
    pub(super) fn restore(
        context: Arc<Context>,
        mut peer: Peer,
        facts: ProcessFacts,
        claims: Vec<(u32, Attachment)>,
        diary: Arc<Diary>,
    ) -> Self {
        if context.policy.trust_claimed_pids {
            peer.pidfd = None;
        }
        let claims = claims.into_iter().map(|(pid, attachment)| Claim { pid, attachment }).collect();
        Self { context, peer, facts, claims, diary, order: 0, recorded: None }
    }

    /// That of a session which is only recorded.
    pub(super) fn recorded(
        context: Arc<Context>,
        pid: u32,
        uid: u32,
        facts: ProcessFacts,
        recorded: Recorded,
    ) -> Self {
        let (peer, recorded) = (Peer { pid, uid, pidfd: None }, Some(recorded));
        Self { context, peer, facts, claims: Vec::new(), diary: Arc::default(), order: 0, recorded }
    }

    /// What is attributed next was received in the journal's entry of that order.
    pub(super) fn begin(&mut self, order: Option<u64>) {
        self.order = order.unwrap_or(self.order);
    }

    /// Writes down who the peer is, before anything is read of it.
    pub(super) fn introduce(&self, time: Time) {
        let (peer_pid, peer_uid, facts) = (self.peer.pid, self.peer.uid, self.facts.clone());
        self.diary.note(time, &Note::Opened { peer_pid, peer_uid, facts });
    }

    pub(super) fn peer_pid(&self) -> u32 {
        self.peer.pid
    }

    /// What the peer's process is called, as far as that could be read.
    pub(super) fn peer_name(&self) -> &str {
        self.facts.name.as_deref().unwrap_or("unknown")
    }

    pub(super) fn peer_uid(&self) -> u32 {
        self.peer.uid
    }

    /// Whether the peer is in the daemon's own pid namespace, and so sees every process that the daemon does.
    pub(super) fn peer_sees_processes(&self) -> bool {
        self.facts.is_in_own_namespace()
    }

    /// The pid to look the process up by: 0, an odd one, and a pid that the peer has in a namespace of its own mean the peer.
    pub(super) fn claim(&self, process_id: i32) -> u32 {
        match u32::try_from(process_id) {
            Ok(0) | Err(_) => self.peer.pid,
            Ok(pid) if pid != self.peer.pid && !self.trusts() && self.facts.namespace_pids.contains(&pid) => {
                self.peer.pid
            }
            Ok(pid) => pid,
        }
    }

    /// Whether the process of a claimed pid has been found already. Finding it costs more than any message.
    pub(super) fn knows(&self, claimed: u32) -> bool {
        self.claims.iter().any(|claim| claim.pid == claimed)
    }

    /// The peer's process, if it has been found already and its end can be seen.
    pub(super) fn watched_peer(&self) -> Option<Arc<Tracked>> {
        let claim = self.claims.iter().find(|claim| claim.pid == self.peer.pid)?;
        Some(Arc::clone(claim.attachment.tracked())).filter(|tracked| tracked.is_watched())
    }

    /// The process that a claimed pid stands for in this session, in a message that was read at that time.
    pub(super) fn process(&mut self, claimed: u32, time: Time) -> io::Result<Arc<Tracked>> {
        if let Some(recorded) = &self.recorded {
            // One whose start nobody knew is told apart by its connection, as far from the real ones as those are that were given then.
            let start_ticks = self.facts.start_ticks.unwrap_or(u64::MAX / 2);
            let peer = Identity { pid: self.peer.pid, start_ticks };
            return Ok(recorded.process(claimed, self.order, peer, &self.facts, self.peer.uid));
        }
        let now_ns = time.monotonic_ns;
        if let Some(known) = self.claims.iter().position(|claim| claim.pid == claimed) {
            let tracked = Arc::clone(self.claims[known].attachment.tracked());
            if claimed == self.peer.pid || self.trusts() || !tracked.has_ended() {
                return Ok(tracked);
            }
            // What a fork sent before its end is its own; only a live process that has its pid now is another.
            let Some(successor) = self.same_user(claimed, now_ns)? else { return Ok(tracked) };
            let successor_process = Arc::clone(successor.tracked());
            self.write_down(claimed, &successor_process, false, time);
            self.claims[known].attachment = successor;
            return Ok(successor_process);
        }
        let (attachment, is_rejected) = self.resolve(claimed, now_ns)?;
        let tracked = Arc::clone(attachment.tracked());
        self.write_down(claimed, &tracked, is_rejected, time);
        if self.claims.len() >= CLAIMS_MAX {
            self.forget_ended();
        }
        self.claims.push(Claim { pid: claimed, attachment });
        Ok(tracked)
    }

    fn write_down(&self, pid: u32, tracked: &Tracked, is_rejected: bool, time: Time) {
        let identity = tracked.process().identity();
        self.diary.note(time, &Note::Claimed { since: self.order, pid, identity, is_rejected });
    }

    fn trusts(&self) -> bool {
        self.context.policy.trust_claimed_pids
    }

    /// Makes room for claims. Simulated processes live as long as they are remembered, so they stay.
    fn forget_ended(&mut self) {
        if self.trusts() {
            return;
        }
        self.claims.retain(|claim| !claim.attachment.tracked().has_ended());
        // All alive: those found longest ago are found again if they are named again.
        let surplus = self.claims.len().saturating_sub(CLAIMS_MAX / 2);
        self.claims.drain(..surplus);
    }

    /// The process, and whether a claim was not borne out.
    fn resolve(&mut self, claimed: u32, now_ns: u64) -> io::Result<(Attachment, bool)> {
        let processes = &self.context.processes;
        if self.trusts() {
            return Ok((processes.simulate(claimed, self.peer.uid, now_ns)?, false));
        }
        let is_crowded = claimed != self.peer.pid && self.is_crowded_out(claimed);
        if is_crowded {
            self.tell_crowded(claimed);
        } else if claimed != self.peer.pid {
            if let Some(relative) = self.same_user(claimed, now_ns)? {
                return Ok((relative, false));
            }
            self.context.registry.events().reject(Rejection::ClaimedPid);
        }
        let Peer { pid, uid, pidfd } = &self.peer;
        let (pid, uid, pidfd) = (*pid, *uid, pidfd.clone());
        let sighting =
            Sighting { pid, uid, pidfd, facts: &self.facts, source: Source::Socket, seen_ns: now_ns };
        Ok((processes.track(sighting)?, claimed != pid && !is_crowded))
    }

    /// Whether it is another process of the peer's user, which has as many as it may.
    fn is_crowded_out(&self, claimed: u32) -> bool {
        let (processes, uid) = (&self.context.processes, self.peer.uid);
        !processes.is_tracked(claimed) && !processes.has_room(uid) && effective_uid_of(claimed) == Some(uid)
    }

    fn tell_crowded(&self, claimed: u32) {
        self.context.count(Counted::UserProcessesMax);
        let rejection = Rejection::UserProcessesMax;
        if let Some(suppressed) = self.context.throttle.admit(rejection.name(), clock::monotonic_ns()) {
            let Peer { pid: peer, uid, .. } = self.peer;
            warn!(
                peer,
                uid,
                claimed,
                suppressed,
                "too many processes of one user; what this one reports counts for its sender; raise user_processes_max if they are wanted"
            );
        }
    }

    /// A live process of the peer's user, both in the daemon's pid namespace: a fork that kept its parent's socket.
    fn same_user(&self, claimed: u32, now_ns: u64) -> io::Result<Option<Attachment>> {
        let Some(pid) = Pid::from_raw(claimed.cast_signed()) else { return Ok(None) };
        // In a namespace of its own the claim is a pid of that one; the daemon's process of that number is another.
        if !self.facts.is_in_own_namespace() || effective_uid_of(claimed) != Some(self.peer.uid) {
            return Ok(None);
        }
        let Some(pidfd) = open_pidfd(pid)?.filter(|pidfd| !has_ended(pidfd)) else { return Ok(None) };
        let facts = ProcessFacts::of(claimed, &pidfd, &self.context.arguments);
        if facts.effective_uid != Some(self.peer.uid) || !facts.is_in_own_namespace() {
            return Ok(None);
        }
        let (uid, pidfd) = (self.peer.uid, Some(Arc::new(pidfd)));
        let sighting =
            Sighting { pid: claimed, uid, pidfd, facts: &facts, source: Source::Socket, seen_ns: now_ns };
        self.context.processes.track(sighting).map(Some)
    }
}
