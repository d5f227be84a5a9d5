//! Follows the kernel driver: which cards come and go, and which processes hold one open without reporting anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::process::Pid;
use tracing::{info, warn};

use super::Context;
use super::devices::Inventoried;
use super::driver::{Card, Driver, Holders};
use super::numbering::{Numbered, renumbered};
use super::peer::open_pidfd;
use super::procfs::{ProcessFacts, user_name};
use crate::registry::{DEVICES_MAX, Untracked, UntrackedProcess};

/// How often the driver is looked at. Its list of processes costs it a lock that opening a card takes too.
const INTERVAL: Duration = Duration::from_secs(1);
/// Different things that are said in the log: one for each card and a few more.
const SAID_MAX: usize = DEVICES_MAX as usize + 8;
/// Processes of one card that are named; all are counted.
const UNTRACKED_NAMED_MAX: usize = 64;

/// What the driver showed when it was last looked at.
pub(super) struct Inventory {
    context: Arc<Context>,
    driver: Driver,
    /// The cards by the driver's number, each as it was when it appeared.
    cards: BTreeMap<u16, (Option<u64>, Card)>,
    /// What has been said in the log, so that it is said once.
    said: BTreeSet<String>,
}

impl Inventory {
    pub(super) fn new(context: Arc<Context>, driver: Driver) -> Self {
        Self { context, driver, cards: BTreeMap::new(), said: BTreeSet::new() }
    }

    /// Looks at once, and then again and again until told to stop.
    pub(super) fn follow(mut self, stop: &Receiver<()>) {
        loop {
            self.look();
            let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(INTERVAL) else { return };
        }
    }

    fn look(&mut self) {
        match self.driver.ordinals() {
            Ok(ordinals) => self.meet(&ordinals),
            // The cards stay what they were.
            Err(error) => self.say_once(format!("cannot see what the kernel driver shows: {error}")),
        }
        let holders: BTreeMap<u16, Holders> = self
            .cards
            .keys()
            .filter_map(|ordinal| Some((*ordinal, self.driver.holders(*ordinal)?)))
            .collect();
        if holders.values().any(|holders| holders.has_hidden) {
            self.say_once(
                "processes of other pid namespaces hold a device; run the daemon in the host's (hostPID: true, \
                 --pid=host) to see them"
                    .into(),
            );
        }
        let untracked = |ordinal| holders.get(ordinal).map(|holders| self.untracked(holders));
        let cards = self.cards.iter().map(|(ordinal, (_, card))| {
            (*ordinal, Inventoried { card: card.clone(), untracked: untracked(ordinal) })
        });
        let places = self.context.devices.take_inventory(&cards.collect());
        self.find_renumbered(&places, &holders);
        for (ordinal, _) in places.iter().filter(|(_, device)| device.is_none()) {
            self.say_once(format!(
                "card {ordinal} is none of the devices that processes report about: its number is another chip's"
            ));
        }
    }

    /// Looks for processes that number the cards otherwise than the host does.
    fn find_renumbered(&mut self, places: &BTreeMap<u16, Option<u16>>, holders: &BTreeMap<u16, Holders>) {
        let numbered = self.cards.iter().map(|(ordinal, (_, card))| {
            let device = places.get(ordinal).copied().flatten();
            (*ordinal, Numbered { card, device, holders: holders.get(ordinal) })
        });
        let found = renumbered(&numbered.collect(), |pid| self.context.processes.devices_of(pid));
        for device in found.keys() {
            self.say_once(format!(
                "a process reports about device {device} and holds another card alone: it is shown some of the cards \
                 (TT_VISIBLE_DEVICES), and what it holds counts under its own number; renumbered in /api/v1/devices names it"
            ));
        }
        self.context.devices.take_renumbered(found);
    }

    /// Takes note of cards that have come or gone.
    fn meet(&mut self, ordinals: &BTreeSet<u16>) {
        self.cards.retain(|ordinal, _| {
            let is_there = ordinals.contains(ordinal);
            if !is_there {
                warn!(card = ordinal, "the kernel driver shows this card no longer");
            }
            is_there
        });
        for ordinal in ordinals {
            let appearance = self.driver.appearance(*ordinal);
            let known = self.cards.get(ordinal);
            if known.is_none_or(|(before, _)| *before != appearance) {
                let card = self.driver.card(*ordinal);
                let (card_type, pci_bus_id) = (card.card_type.as_deref(), card.pci_bus_id.as_deref());
                info!(card = ordinal, card_type, pci_bus_id, "the kernel driver shows a card");
                self.cards.insert(*ordinal, (appearance, card));
            }
        }
    }

    /// Those of a card's processes that no report and no region is about.
    fn untracked(&self, holders: &Holders) -> Untracked {
        let is_untracked = |pid: &&u32| !self.context.processes.is_tracked(**pid);
        let pids: Vec<u32> = holders.pids.iter().filter(is_untracked).copied().collect();
        let named = pids.iter().take(UNTRACKED_NAMED_MAX).filter_map(|pid| self.name(*pid)).collect();
        Untracked { processes: pids.len() as u64, named }
    }

    fn name(&self, pid: u32) -> Option<UntrackedProcess> {
        let pidfd = open_pidfd(Pid::from_raw(pid.cast_signed())?).ok()??;
        let facts = ProcessFacts::of(pid, &pidfd, &self.context.arguments);
        Some(UntrackedProcess { pid, name: facts.name?, user: user_name(facts.effective_uid?) })
    }

    fn say_once(&mut self, what: String) {
        if self.said.len() < SAID_MAX && !self.said.contains(&what) {
            warn!("{what}");
            self.said.insert(what);
        }
    }
}
