//! Which client within a process has reported a buffer: each may report anew what it holds, and must take nothing of the others' with it.
//!
//! The idea is that nearly every buffer has been reported by one client, whose place is in the buffer's record. Only a buffer that several
//! have reported, or one more often than the record can count, has its references here.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A client's place among those of its process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reporter(u16);

impl Reporter {
    /// How many can be told apart.
    pub const COUNT_MAX: usize = u16::MAX as usize;
    /// In a record: its references are counted apart.
    pub(super) const SEVERAL: Reporter = Reporter(u16::MAX);

    /// The client in that place, below [`Reporter::COUNT_MAX`]. The first is for all those that do not say who they are.
    pub fn at(place: u16) -> Reporter {
        debug_assert!(usize::from(place) < Reporter::COUNT_MAX);
        Reporter(place)
    }
}

impl Reporter {
    /// Its place.
    pub(super) fn place(self) -> u16 {
        self.0
    }

    /// The client in a place that was stored; `None` for none that there can be.
    pub(super) fn stored(place: u16) -> Option<Reporter> {
        (usize::from(place) < Reporter::COUNT_MAX).then_some(Reporter(place))
    }
}

/// Who has reported to a ledger so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Reporters {
    #[default]
    None,
    Only(Reporter),
    Several,
}

impl Reporters {
    #[inline]
    pub(super) fn add(&mut self, reporter: Reporter) {
        match self {
            Reporters::None => *self = Reporters::Only(reporter),
            Reporters::Only(known) if *known != reporter => *self = Reporters::Several,
            _ => {}
        }
    }
}

/// The references to buffers that are counted apart, by the slots of their records.
#[derive(Default)]
pub(super) struct References {
    by_slot: HashMap<u32, Vec<(Reporter, u32)>, RandomState>,
}

impl References {
    /// A reporter has so many more references to a buffer.
    pub(super) fn add(&mut self, slot: u32, reporter: Reporter, count: u32) {
        let shares = self.by_slot.entry(slot).or_default();
        match shares.iter_mut().find(|(known, _)| *known == reporter) {
            Some((_, references)) => *references = references.saturating_add(count),
            None => shares.push((reporter, count)),
        }
    }

    /// Takes away a reference, the reporter's own if it has one; true when it was the last.
    pub(super) fn remove(&mut self, slot: u32, reporter: Reporter) -> bool {
        let Some(shares) = self.by_slot.get_mut(&slot) else { return true };
        let own = shares.iter().position(|(known, _)| *known == reporter).unwrap_or(0);
        shares[own].1 -= 1;
        if shares[own].1 == 0 {
            shares.swap_remove(own);
        }
        shares.is_empty()
    }

    /// Takes away all references of a reporter; true when no other has any.
    pub(super) fn leave(&mut self, slot: u32, reporter: Reporter) -> bool {
        let Some(shares) = self.by_slot.get_mut(&slot) else { return true };
        shares.retain(|(known, _)| *known != reporter);
        shares.is_empty()
    }

    /// Whose they are.
    pub(super) fn of(&self, slot: u32) -> &[(Reporter, u32)] {
        self.by_slot.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// How many there are to a buffer.
    pub(super) fn total(&self, slot: u32) -> u32 {
        let shares = self.by_slot.get(&slot).map_or(&[][..], Vec::as_slice);
        shares.iter().fold(0, |sum, (_, references)| sum.saturating_add(*references))
    }

    /// The buffer has ended.
    pub(super) fn end(&mut self, slot: u32) {
        self.by_slot.remove(&slot);
    }
}
