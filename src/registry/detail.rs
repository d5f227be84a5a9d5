//! What the daemon keeps beside totals, and the order in which it gives that up when its memory gets short.
//!
//! The idea is that a total is never the price of a detail: what can be given up is given up step by step while memory is short, each step
//! is shown, and comes back when there is room again. Buffers themselves cannot be: a free names nothing but an id.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Something that can be given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// Spans of single buffers and of bursts, and what waits to be exported of them.
    Spans,
    /// The search for leaks, and what it remembers of every process.
    Leaks,
    /// Processes that have ended, which stay visible for a while otherwise.
    EndedProcesses,
}

impl Detail {
    /// All of them, in the order in which they are given up: what is missed least goes first.
    pub const ALL: [Detail; 3] = [Detail::Spans, Detail::Leaks, Detail::EndedProcesses];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Detail::Spans => "spans",
            Detail::Leaks => "leaks",
            Detail::EndedProcesses => "ended_processes",
        }
    }
}

/// How short memory is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// There is room.
    Low,
    /// It is not far from the mark: nothing changes.
    Middling,
    /// The mark is reached.
    High,
}

impl Pressure {
    /// That of something of which so much is used, and as much as the mark is too much. A little below it details are not taken up again,
    /// as they would only be given up once more.
    pub fn of(used: u64, mark: u64) -> Pressure {
        match used {
            used if used >= mark => Pressure::High,
            used if used >= mark - mark / 8 => Pressure::Middling,
            _ => Pressure::Low,
        }
    }
}

/// What has been given up.
#[derive(Default, Debug)]
pub struct Details {
    /// As many of the first of [`Detail::ALL`].
    given_up: AtomicUsize,
}

impl Details {
    /// Whether it is kept.
    pub fn keeps(&self, detail: Detail) -> bool {
        detail as usize >= self.given_up.load(Relaxed)
    }

    /// Gives up one more, or takes up the last one again. Gives what has changed, and whether it is kept now.
    pub fn adapt(&self, pressure: Pressure) -> Option<(Detail, bool)> {
        let given_up = self.given_up.load(Relaxed);
        let (changed, now) = match pressure {
            Pressure::Low => (given_up.checked_sub(1)?, given_up - 1),
            Pressure::Middling => return None,
            Pressure::High => (given_up, given_up + 1),
        };
        let detail = *Detail::ALL.get(changed)?;
        self.given_up.store(now, Relaxed);
        Some((detail, pressure == Pressure::Low))
    }

    /// 1 for what is given up, by name.
    pub(super) fn rows(&self) -> [(&'static str, u64); Detail::ALL.len()] {
        Detail::ALL.map(|detail| (detail.name(), u64::from(!self.keeps(detail))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_go_in_their_order_and_come_back_in_the_other() {
        let details = Details::default();
        let adapt =
            |pressure, expected: Option<(Detail, bool)>| assert_eq!(details.adapt(pressure), expected);
        adapt(Pressure::Low, None);
        adapt(Pressure::High, Some((Detail::Spans, false)));
        adapt(Pressure::Middling, None);
        assert!(!details.keeps(Detail::Spans) && details.keeps(Detail::Leaks));
        adapt(Pressure::High, Some((Detail::Leaks, false)));
        adapt(Pressure::High, Some((Detail::EndedProcesses, false)));
        adapt(Pressure::High, None);
        assert_eq!(details.rows(), [("spans", 1), ("leaks", 1), ("ended_processes", 1)]);
        adapt(Pressure::Low, Some((Detail::EndedProcesses, true)));
        adapt(Pressure::Low, Some((Detail::Leaks, true)));
        assert_eq!(details.rows(), [("spans", 1), ("leaks", 0), ("ended_processes", 0)]);
        adapt(Pressure::Low, Some((Detail::Spans, true)));
        adapt(Pressure::Low, None);
    }

    #[test]
    fn a_little_below_the_mark_nothing_changes() {
        let check = |used, expected| assert_eq!(Pressure::of(used, 800), expected, "{used}");
        check(699, Pressure::Low);
        check(700, Pressure::Middling);
        check(799, Pressure::Middling);
        check(800, Pressure::High);
        assert_eq!(Pressure::of(0, 1), Pressure::Low);
    }
}
