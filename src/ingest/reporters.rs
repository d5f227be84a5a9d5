//! The clients within one process: each may begin anew, and what it reported before is then told from what the others have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::registry::Reporter;

/// Clients of a process that are told apart: a program has a handful, and one that makes a new one again and again must not make the daemon
/// remember them all. What finds no place counts to those that do not say who they are.
const REPORTERS_MAX: usize = 1024;
const _: () = assert!(REPORTERS_MAX <= Reporter::COUNT_MAX);

/// A client as it is stored: what it calls itself, and its generation. Its place is that among the others.
pub(super) type ClientImage = (u64, u64);

/// A client of a process.
pub(super) struct ProcessClient {
    /// What it calls itself; 0 for all that say nothing.
    name: u64,
    reporter: Reporter,
    /// The highest number with which it has said that it begins anew. What sessions of another generation still bring counts no more.
    generation: AtomicU64,
}

impl ProcessClient {
    fn new(name: u64, place: usize) -> Arc<ProcessClient> {
        let reporter = Reporter::at(place as u16);
        Arc::new(ProcessClient { name, reporter, generation: AtomicU64::new(0) })
    }

    pub(super) fn name(&self) -> u64 {
        self.name
    }

    pub(super) fn reporter(&self) -> Reporter {
        self.reporter
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// Begins a generation, if it is none of the past; to be called while the process's ledger is held.
    pub(super) fn renew(&self, number: u64) -> bool {
        self.generation.fetch_max(number, SeqCst) < number
    }
}

/// All clients of a process that have said who they are, behind the one for those that have not.
pub(super) struct Reporters(Mutex<Vec<Arc<ProcessClient>>>);

impl Default for Reporters {
    fn default() -> Self {
        Self(Mutex::new(vec![ProcessClient::new(0, 0)]))
    }
}

impl Reporters {
    /// All of them, as they are stored.
    pub(super) fn image(&self) -> Vec<ClientImage> {
        self.0.lock().iter().map(|client| (client.name, client.generation())).collect()
    }

    /// Those that were stored, in the places that they had.
    pub(super) fn restore(stored: &[ClientImage]) -> Reporters {
        let reporters = Reporters::default();
        for (name, generation) in stored.iter().take(REPORTERS_MAX) {
            reporters.named(*name).renew(*generation);
        }
        reporters
    }

    /// The client that calls itself that.
    pub(super) fn named(&self, name: u64) -> Arc<ProcessClient> {
        let mut clients = self.0.lock();
        if let Some(known) = clients.iter().find(|client| client.name == name) {
            return Arc::clone(known);
        }
        if clients.len() >= REPORTERS_MAX {
            return Arc::clone(&clients[0]);
        }
        let client = ProcessClient::new(name, clients.len());
        clients.push(Arc::clone(&client));
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_up_to_a_bound() {
        let reporters = Reporters::default();
        let nobody = reporters.named(0).reporter();
        let first = reporters.named(7);
        assert_ne!(first.reporter(), nobody);
        assert!(Arc::ptr_eq(&first, &reporters.named(7)));
        for name in 0..2 * REPORTERS_MAX as u64 {
            let client = reporters.named(1 << 32 | name);
            assert_eq!(client.reporter() == nobody, name as usize >= REPORTERS_MAX - 2, "{name}");
        }
        assert_eq!(reporters.named(7).reporter(), first.reporter());
    }

    #[test]
    fn a_generation_of_the_past_begins_nothing() {
        let reporters = Reporters::default();
        let (one, other) = (reporters.named(1), reporters.named(2));
        assert!(one.renew(5) && !one.renew(5) && !one.renew(4));
        assert!(other.renew(1), "each counts for itself");
        assert_eq!((one.generation(), other.generation()), (5, 1));
    }
}
