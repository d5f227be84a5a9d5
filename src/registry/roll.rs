//! The processes that are shown, in the order of their first reports: a list that its owner replaces and that no reader sees change.
//!
//! The idea is that a list which is one longer shares everything with the one before. A segment has room for more processes than a list
//! counts: a birth fills the next place and counts one more, and whoever holds the older list goes on not to see it.

use std::sync::{Arc, OnceLock};

use super::Process;

/// Processes to a segment. A birth copies the list of segments once in so many times, and a host with few processes spends a kilobyte
/// on places that it does not use.
const SEGMENT_PROCESSES: usize = 64;

type Segment = [OnceLock<Arc<Process>>; SEGMENT_PROCESSES];

/// Which processes are shown.
#[derive(Clone, Default)]
pub(super) struct Roll {
    segments: Arc<Vec<Arc<Segment>>>,
    count: usize,
}

impl Roll {
    /// The same with one more process, which came after all others.
    ///
    /// # Panics
    ///
    /// If another list has been made longer out of this one: whoever makes them must go on from the longest.
    pub(super) fn with(&self, process: Arc<Process>) -> Roll {
        let mut longer = self.clone();
        longer.push(process);
        longer
    }

    fn push(&mut self, process: Arc<Process>) {
        let (segment, place) = (self.count / SEGMENT_PROCESSES, self.count % SEGMENT_PROCESSES);
        if place == 0 {
            let empty = Arc::new([const { OnceLock::new() }; SEGMENT_PROCESSES]);
            Arc::make_mut(&mut self.segments).push(empty);
        }
        let filled = self.segments[segment][place].set(process);
        assert!(filled.is_ok(), "two lists have been made longer out of one");
        self.count += 1;
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.since_segment(0)
    }

    /// Those of a serial number or a later one.
    pub(super) fn since(&self, serial: u64) -> impl Iterator<Item = &Arc<Process>> {
        let ends_before = |segment: &Arc<Segment>| {
            segment[SEGMENT_PROCESSES - 1].get().is_some_and(|process| process.serial() < serial)
        };
        self.since_segment(self.segments.partition_point(ends_before))
            .skip_while(move |process| process.serial() < serial)
    }

    fn since_segment(&self, first: usize) -> impl Iterator<Item = &Arc<Process>> {
        let places = self.segments[first..].iter().flat_map(|segment| segment.iter());
        places.take(self.count.saturating_sub(first * SEGMENT_PROCESSES)).filter_map(OnceLock::get)
    }
}

impl FromIterator<Arc<Process>> for Roll {
    fn from_iter<I: IntoIterator<Item = Arc<Process>>>(processes: I) -> Roll {
        let mut roll = Roll::default();
        processes.into_iter().for_each(|process| roll.push(process));
        roll
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, ProcessInfo, Source};
    use super::*;
    use crate::registry::ledger::Ledger;
    use crate::registry::room::{BufferLimits, Room, Rooms};

    fn process(serial: u64) -> Arc<Process> {
        let info = ProcessInfo::new("model", 0, "root", Source::Socket);
        let room = Room::new(Rooms::new(BufferLimits::NONE), info.uid);
        let ledger = Ledger::new(None, room);
        Arc::new(Process::new(Identity { pid: 1, start_ticks: serial }, info, serial, 0, ledger))
    }

    fn serials<'a>(processes: impl Iterator<Item = &'a Arc<Process>>) -> Vec<u64> {
        processes.map(|process| process.serial()).collect()
    }

    #[test]
    fn every_list_stays_as_it_was_while_longer_ones_are_made_of_it() {
        let last = 3 * SEGMENT_PROCESSES as u64 + 1;
        let mut lists = vec![Roll::default()];
        for serial in 1..=last {
            lists.push(lists[lists.len() - 1].with(process(serial)));
        }
        for (count, list) in lists.iter().enumerate() {
            assert_eq!(list.count(), count);
            assert_eq!(serials(list.iter()), (1..=count as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_list_is_taken_up_at_any_serial_number_also_behind_one_that_is_missing() {
        let whole: Roll = (1..=200).map(process).collect();
        let thinned: Roll = whole.iter().filter(|process| process.serial() % 3 != 0).cloned().collect();
        let shorter = thinned.clone();
        let _longer = (201..=300).fold(thinned, |roll, serial| roll.with(process(serial)));
        for serial in 0..310 {
            let expected: Vec<u64> = (1..=200).filter(|known| known % 3 != 0 && *known >= serial).collect();
            assert_eq!(serials(shorter.since(serial)), expected, "from {serial}");
        }
    }
}
