//! Follows one group of buffers through time: it looks like a leak while that of it which is held for long keeps growing.
//!
//! The idea is to look at survivors alone, on several scales of time at once. What is older than a scale's age counts on that scale, so
//! work in progress does not, whatever its amount. A leak adds survivors in one window after the other, and all that it adds stays. A
//! model that is loaded adds them in one window, a cache ever more slowly, and a server with sessions loses as many as it gains. The
//! longest scale on which it holds is the strength of the evidence.

use crate::registry::{CENSUS_AGES, Held, census_age_ns};

/// Windows of a scale, each as long as its age.
const WINDOWS: usize = 7;
/// Scales: each tells what has reached its age in a window by what has not reached the next one.
pub(super) const SCALES: usize = CENSUS_AGES - 1;
/// Windows that have to have grown: one may be idle.
const GROWN_MIN: usize = WINDOWS - 1;
/// The part of the growth that one window may have: a load of something large is one step.
const STEP_MAX: f64 = 0.5;
/// Windows at both ends that are compared: what grows ever more slowly is a cache that fills.
const END_WINDOWS: usize = 3;
/// It has slowed down when the last ones have less than this part of the first ones' growth, ...
const STEADY_MIN: f64 = 0.8;
/// ... by so many standard deviations of what is counted.
const DEVIATIONS: f64 = 1.5;
/// The part of what has reached the scale's age that is still there: sessions end as others begin.
const KEPT_MIN: f64 = 0.7;
/// Less is not worth anybody's time: a hundredth of a card's L1.
const GROWTH_BYTES_MIN: u64 = 1 << 20;
/// How many scales below it are asked whether the growth goes on: it may come in bursts, which shorter ones do not see all the time.
const WITNESSES: usize = 2;
/// A witness contradicts when less than this part of what it should have seen has come.
const STALLED_MAX: f64 = 0.25;
/// And only if it should have seen at least so many: fewer may be missing by chance.
const FORESEEN_BUFFERS_MIN: f64 = 8.0;

/// What has grown on one scale.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Growth {
    /// The scale's number.
    pub(super) scale: usize,
    /// What was held for long before the windows.
    pub(super) before: Held,
    /// What has been added to it.
    pub(super) added: Held,
    /// Windows in which it grew.
    pub(super) windows_grown: usize,
    /// The part that is still there of what the windows have added; `None` where only bytes are known.
    pub(super) kept_ratio: Option<f64>,
}

impl Growth {
    /// All of the windows, of [`WINDOWS_ALL`].
    pub(super) const WINDOWS_ALL: usize = WINDOWS;

    /// How long the windows last together.
    pub(super) fn duration_ns(&self) -> u64 {
        census_age_ns(self.scale) * WINDOWS as u64
    }

    /// How sure it is that this is a leak: the longer it has lasted, the surer.
    pub(super) fn score(&self) -> f64 {
        // After 8, 15, 30 minutes and so on. Half is reached with the third: loading and warming up take less.
        const STRENGTHS: [f64; SCALES] = [0.25, 0.45, 0.65, 0.8, 0.9, 0.94, 0.96, 0.98, 0.99, 0.99, 0.99];
        // Without single buffers nobody knows what has been given back and taken again.
        let kept_ratio = self.kept_ratio.unwrap_or(0.8).min(1.0);
        let quality = kept_ratio * self.windows_grown as f64 / WINDOWS as f64;
        STRENGTHS[self.scale] * (0.5 + quality / 2.0)
    }
}

/// What is seen of a group at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survivors<'a> {
    /// Its buffers by age.
    Counted(&'a [Held; CENSUS_AGES]),
    /// Its bytes alone: what it has never been below for a while has survived that while.
    Total(u64),
}

/// The edge of a window.
#[derive(Clone, Copy, Debug)]
struct Edge {
    survivors: Held,
    /// Those that have become survivors in the window before it.
    arrived: Held,
}

/// One scale's memory.
#[derive(Clone, Debug)]
struct Scale {
    /// The oldest first.
    edges: Vec<Edge>,
    due_ns: u64,
    /// The least since the last edge, for [`Survivors::Total`].
    floor_bytes: u64,
    growth: Option<Growth>,
    is_slowing: bool,
}

impl Scale {
    fn new(number: usize, seen: Survivors<'_>, now_ns: u64) -> Scale {
        let edges = Vec::with_capacity(WINDOWS + 1);
        let mut scale =
            Scale { edges, due_ns: now_ns, floor_bytes: u64::MAX, growth: None, is_slowing: false };
        scale.look(number, seen, now_ns);
        scale
    }

    fn look(&mut self, number: usize, seen: Survivors<'_>, now_ns: u64) {
        if let Survivors::Total(bytes) = seen {
            self.floor_bytes = self.floor_bytes.min(bytes);
        }
        if now_ns < self.due_ns {
            return;
        }
        let window_ns = census_age_ns(number);
        if now_ns - self.due_ns > window_ns / 2 {
            // Nobody has looked for a while: the windows would not be of one length.
            self.edges.clear();
        }
        self.due_ns = now_ns + window_ns;
        if self.edges.len() > WINDOWS {
            self.edges.remove(0);
        }
        let edge = match seen {
            Survivors::Counted(older) => {
                Edge { survivors: older[number], arrived: older[number].less(older[number + 1]) }
            }
            Survivors::Total(bytes) => {
                let floor_bytes = std::mem::replace(&mut self.floor_bytes, bytes);
                let survivors = Held { buffers: 0, bytes: floor_bytes };
                let before = self.edges.last().map_or(survivors, |edge| edge.survivors);
                Edge { survivors, arrived: survivors.less(before) }
            }
        };
        self.edges.push(edge);
        self.judge(number, seen);
    }

    fn judge(&mut self, number: usize, seen: Survivors<'_>) {
        (self.growth, self.is_slowing) = (None, false);
        if !self.is_complete() {
            return;
        }
        let steps = self
            .edges
            .windows(2)
            .map(|pair| units(seen, pair[1].survivors) as f64 - units(seen, pair[0].survivors) as f64);
        let steps: Vec<f64> = steps.collect();
        let sum = steps.iter().sum::<f64>();
        let is_step = steps.iter().any(|step| *step > STEP_MAX * sum);
        self.is_slowing = !is_step && is_slowing(&steps, seen);
        let added = self.edges[WINDOWS].survivors.less(self.edges[0].survivors);
        let arrived = self.arrived();
        let kept_ratio = match seen {
            Survivors::Counted(_) => Some(added.buffers as f64 / arrived.buffers.max(1) as f64),
            Survivors::Total(_) => None,
        };
        let windows_grown = steps.iter().filter(|step| **step > 0.0).count();
        let is_leak = added.bytes >= GROWTH_BYTES_MIN
            && windows_grown >= GROWN_MIN
            && !is_step
            && !self.is_slowing
            && kept_ratio.is_none_or(|ratio| ratio >= KEPT_MIN);
        let before = self.edges[0].survivors;
        self.growth = is_leak.then_some(Growth { scale: number, before, added, windows_grown, kept_ratio });
    }

    /// Whether all windows have been seen.
    fn is_complete(&self) -> bool {
        self.edges.len() > WINDOWS
    }

    /// What the windows have brought, whether it has stayed or not.
    fn arrived(&self) -> Held {
        let mut sum = Held::default();
        self.edges[1..].iter().for_each(|edge| sum.add(edge.arrived));
        sum
    }

    /// Whether far less has come here of late than another scale's growth makes expect.
    fn contradicts(&self, number: usize, seen: Survivors<'_>, growth: &Growth) -> bool {
        if !self.is_complete() || self.growth.is_some() {
            return false;
        }
        let part = census_age_ns(number) as f64 / census_age_ns(growth.scale) as f64;
        let foreseen = units(seen, growth.added) as f64 * part;
        let foreseen_min = match seen {
            Survivors::Counted(_) => FORESEEN_BUFFERS_MIN,
            Survivors::Total(_) => GROWTH_BYTES_MIN as f64,
        };
        foreseen >= foreseen_min && (units(seen, self.arrived()) as f64) < STALLED_MAX * foreseen
    }
}

/// Whether the growth of the windows becomes less, by more than chance explains.
fn is_slowing(steps: &[f64], seen: Survivors<'_>) -> bool {
    let first = steps[..END_WINDOWS].iter().sum::<f64>();
    let last = steps[steps.len() - END_WINDOWS..].iter().sum::<f64>();
    let deviation = match seen {
        Survivors::Counted(_) => (first.abs() + last.abs()).sqrt(),
        // How many buffers the bytes are nobody knows; a quarter is what chance makes of thirty.
        Survivors::Total(_) => (first.abs() + last.abs()) / 8.0,
    };
    first > 0.0 && STEADY_MIN * first - last > DEVIATIONS * deviation
}

/// What is counted: buffers, where they are known.
fn units(seen: Survivors<'_>, held: Held) -> u64 {
    match seen {
        Survivors::Counted(_) => held.buffers,
        Survivors::Total(_) => held.bytes,
    }
}

/// The memory of all scales. The longer ones come with time.
#[derive(Clone, Debug)]
pub(super) struct Track {
    first_seen_ns: u64,
    scales: Vec<Scale>,
}

impl Track {
    pub(super) fn new(now_ns: u64) -> Track {
        Track { first_seen_ns: now_ns, scales: Vec::new() }
    }

    /// Takes in what is seen now; gives the growth on the longest scale that nothing contradicts.
    pub(super) fn look(&mut self, seen: Survivors<'_>, now_ns: u64) -> Option<Growth> {
        for (number, scale) in self.scales.iter_mut().enumerate() {
            scale.look(number, seen, now_ns);
        }
        let age_ns = now_ns.saturating_sub(self.first_seen_ns);
        let next = self.scales.len();
        // Begun half a window early, so that nothing has reached the scale's age yet.
        if next < SCALES && age_ns >= census_age_ns(next) / 2 || next == 0 {
            self.scales.push(Scale::new(next, seen, now_ns));
        }
        // What becomes slower on a longer scale does so too where a shorter one cannot tell.
        let first = self.scales.iter().rposition(|scale| scale.is_slowing).map_or(0, |slowing| slowing + 1);
        (first..self.scales.len()).rev().find_map(|number| {
            let growth = self.scales[number].growth?;
            let mut witnesses = number.saturating_sub(WITNESSES)..number;
            (!witnesses.any(|witness| self.scales[witness].contradicts(witness, seen, &growth)))
                .then_some(growth)
        })
    }
}
