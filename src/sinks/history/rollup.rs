//! From samples to the points of every tier. Time is a parameter, and nothing here waits.
//!
//! The idea is that a sample goes into the open time span of each tier, and that a span is done when a sample belongs to another one:
//! a later one, or an earlier one after somebody has set the clock back. Nothing is sorted and nothing is replaced, so that a clock
//! that jumps makes spans overlap at worst.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::points::{Flow, Level, Point, ReportedPoint};
use super::sample::{FLOWS, Figures, Sample};
use super::tier::Tier;
use crate::registry::{MemoryType, Process, Time};
use crate::sinks::sampler::SAMPLE_INTERVAL_MS;

/// Samples that are further apart leave a gap: what was in between is not known.
const SAMPLE_GAP_MS: u64 = 5 * SAMPLE_INTERVAL_MS;

const NS_PER_MS: u64 = 1_000_000;

/// Which place a figure is about. Devices come before processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key {
    /// The process's serial number; `None` for the device as a whole.
    pub(super) process: Option<u64>,
    pub(super) device: u16,
    pub(super) memory_type: MemoryType,
}

/// A time span of a tier that is done.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) tier: Tier,
    /// When it began, and for the finest tier when it ended, in milliseconds since the epoch.
    pub(super) unix_ms: u64,
    /// For how much of it something is known.
    pub(super) covered_ms: u64,
    pub(super) points: BTreeMap<Key, (Option<Arc<Process>>, Point)>,
}

/// What a figure was at the sample before.
#[derive(Clone, Copy)]
struct Baseline {
    peak_bytes: u64,
    flows: [u64; FLOWS],
    /// The number of that sample.
    sample: u64,
}

/// The open spans.
#[derive(Default)]
pub(super) struct Rollup {
    samples: u64,
    previous: Option<Time>,
    baselines: BTreeMap<Key, Baseline>,
    open: [Option<Span>; Tier::ALL.len()],
}

impl Rollup {
    /// Takes in a sample and gives the spans that are done. The first one only says where things begin.
    pub(super) fn take(&mut self, sample: &Sample) -> Vec<Span> {
        self.samples += 1;
        let previous = self.previous.replace(sample.time);
        let elapsed_ms = previous.map(|previous| {
            // Of whole milliseconds, so that what many samples cover is what lies between the first and the last.
            let ms = |time: Time| time.monotonic_ns / NS_PER_MS;
            ms(sample.time).saturating_sub(ms(previous)).max(1)
        });
        let points = self.points(&sample.figures, elapsed_ms);
        self.baselines.retain(|_, baseline| baseline.sample == self.samples);
        let Some(elapsed_ms) = elapsed_ms else { return Vec::new() };
        let (unix_ms, covered_ms) = (sample.time.unix_ns / NS_PER_MS, covered_ms(elapsed_ms));
        let mut done = Vec::new();
        for (tier, open) in Tier::ALL.into_iter().zip(&mut self.open) {
            let begin_ms = tier.begin_ms(unix_ms);
            done.extend(open.take_if(|open| open.unix_ms != begin_ms));
            let span = Span { tier, unix_ms: begin_ms, covered_ms: 0, points: BTreeMap::new() };
            let span = open.get_or_insert(span);
            span.add(covered_ms, &points);
            if tier.is_finest() {
                done.extend(open.take());
            }
        }
        done
    }

    /// All spans that are open, as nothing more will come.
    pub(super) fn finish(&mut self) -> Vec<Span> {
        self.open.iter_mut().filter_map(Option::take).collect()
    }

    fn points(
        &mut self,
        figures: &[Figures],
        elapsed_ms: Option<u64>,
    ) -> Vec<(Key, Option<Arc<Process>>, Point)> {
        let mut points = Vec::with_capacity(figures.len());
        for figures in figures {
            let process = figures.owner.as_ref().map(|process| process.serial());
            let key = Key { process, device: figures.device, memory_type: figures.memory_type };
            let baseline = self.baselines.get(&key).copied();
            // A process that has ended is shown for a while; it is over with the first sample that says so.
            if figures.is_final && baseline.is_none() {
                continue;
            }
            if !figures.is_final {
                let flows = figures.reported.map_or([0; FLOWS], |reported| reported.flows);
                let baseline = Baseline { peak_bytes: figures.peak_bytes, flows, sample: self.samples };
                self.baselines.insert(key, baseline);
            }
            if let Some(elapsed_ms) = elapsed_ms {
                points.push((key, figures.owner.clone(), point(figures, baseline, elapsed_ms)));
            }
        }
        points
    }
}

impl Span {
    fn add(&mut self, covered_ms: u64, points: &[(Key, Option<Arc<Process>>, Point)]) {
        self.covered_ms += covered_ms;
        for (key, owner, point) in points {
            self.points
                .entry(*key)
                .and_modify(|(_, known)| known.merge(point))
                .or_insert_with(|| (owner.clone(), *point));
        }
    }
}

/// For how long a sample stands: since the one before, unless that is too long ago.
fn covered_ms(elapsed_ms: u64) -> u64 {
    if elapsed_ms > SAMPLE_GAP_MS { SAMPLE_INTERVAL_MS } else { elapsed_ms }
}

/// What was so since the sample before. What is new began with nothing.
fn point(figures: &Figures, baseline: Option<Baseline>, elapsed_ms: u64) -> Point {
    let covered_ms = covered_ms(elapsed_ms);
    let before = baseline.map_or((0, [0; FLOWS]), |baseline| (baseline.peak_bytes, baseline.flows));
    // The peak is exact between samples: where it has risen, this is how high it was.
    let max = if figures.peak_bytes > before.0 { figures.peak_bytes } else { figures.usage_bytes };
    let reported = figures.reported.map(|reported| ReportedPoint {
        buffers: Level::of(reported.buffers, reported.buffers, covered_ms),
        flows: std::array::from_fn(|flow| {
            let since = reported.flows[flow].saturating_sub(before.1[flow]);
            let flow = Flow::of(since, elapsed_ms);
            // What flowed in a gap belongs to the gap.
            let total = u128::from(since) * u128::from(covered_ms) / u128::from(elapsed_ms);
            Flow { total: u64::try_from(total).unwrap_or(u64::MAX), ..flow }
        }),
    });
    Point { usage: Level::of(figures.usage_bytes, max, covered_ms), peak_bytes: figures.peak_bytes, reported }
}
