//! Whose message it is. The kernel says who the peer is; a frame's own claim is believed only where the kernel bears it out.

use std::sync::Arc;

use rustix::process::Pid;

use super::Context;
use super::peer::{Peer, open_pidfd};
use super::processes::{Attachment, Tracked, has_ended};
use super::procfs::ProcessFacts;
use crate::registry::{Rejection, Source};

/// Claims that a session remembers: a parent with as many live forks on one socket is beyond any real program.
const CLAIMS_MAX: usize = 1024;

/// The processes that one session's messages belong to.
pub(super) struct Attribution {
    context: Arc<Context>,
    peer: Peer,
    facts: ProcessFacts,
    /// Claimed pid and process; the peer's own first, once it has reported anything.
    claims: Vec<(u32, Attachment)>,
}

impl Attribution {
    pub(super) fn new(context: Arc<Context>, peer: Peer) -> Self {
        // Read now, because the peer may be gone by the time its first report is.
        let facts = ProcessFacts::read(peer.pid);
        Self { context, peer, facts, claims: Vec::new() }
    }

    pub(super) fn peer_pid(&self) -> u32 {
        self.peer.pid
    }

    /// The pid to look the process up by: 0 and an odd one mean the peer.
    pub(super) fn claim(&self, process_id: i32) -> u32 {
        match u32::try_from(process_id) {
            Ok(0) | Err(_) => self.peer.pid,
            Ok(pid) => pid,
        }
    }

    /// The process that a claimed pid stands for in this session.
    pub(super) fn process(&mut self, claimed: u32) -> Arc<Tracked> {
        if let Some((_, attachment)) = self.claims.iter().find(|(pid, _)| *pid == claimed) {
            // The peer's own end is its session's affair; a fork that has ended gives its pid back to whoever comes next.
            if claimed == self.peer.pid || !attachment.tracked().has_ended() {
                return Arc::clone(attachment.tracked());
            }
            self.claims.retain(|(pid, _)| *pid != claimed);
        }
        let attachment = self.resolve(claimed);
        let tracked = Arc::clone(attachment.tracked());
        if self.claims.len() == CLAIMS_MAX {
            self.claims.truncate(1);
        }
        self.claims.push((claimed, attachment));
        tracked
    }

    fn resolve(&mut self, claimed: u32) -> Attachment {
        let processes = &self.context.processes;
        if self.context.policy.trust_claimed_pids {
            return processes.simulate(claimed, self.peer.uid);
        }
        // A client in a container names the pid that it has there.
        if claimed != self.peer.pid && !self.facts.namespace_pids.contains(&claimed) {
            if let Some(relative) = self.same_user(claimed) {
                return relative;
            }
            self.context.registry.events().reject(Rejection::ClaimedPid);
        }
        let pidfd = self.peer.pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok());
        processes.track(self.peer.pid, self.peer.uid, pidfd, &self.facts, Source::Socket)
    }

    /// A live process of the peer's user and pid namespace: a fork that kept its parent's socket.
    fn same_user(&self, claimed: u32) -> Option<Attachment> {
        if self.facts.namespace_pids.len() > 1 {
            // The claim is a pid of the peer's namespace; the daemon's process of that number is another.
            return None;
        }
        let pidfd = open_pidfd(Pid::from_raw(claimed.cast_signed())?).filter(|pidfd| !has_ended(pidfd))?;
        let facts = ProcessFacts::read(claimed);
        let is_relative = facts.effective_uid == Some(self.peer.uid) && facts.namespace_pids.len() <= 1;
        is_relative.then(|| {
            self.context.processes.track(claimed, self.peer.uid, Some(pidfd), &facts, Source::Socket)
        })
    }
}
