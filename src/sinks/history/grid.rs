//! The points of an answer: time spans of whatever tier, put into steps of equal length. Pure.

use super::measure::Nature;
use super::points::{Flow, Level, per_second};
use super::tier::Tier;
use crate::views::json::history::RangePoint;

/// Equal steps from a moment on, in milliseconds since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grid {
    pub(super) start_ms: u64,
    pub(super) step_ms: u64,
    pub(super) steps: usize,
}

/// A time span as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StoredSpan {
    pub(super) tier: Tier,
    pub(super) unix_ms: u64,
    pub(super) covered_ms: u64,
}

/// Three columns: a mean or a sum, and extremes where they differ from it.
pub(super) type Stored = (u64, Option<u64>, Option<u64>);

/// One step of one series, while it is put together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell {
    Level(Level),
    Flow(Flow, u64),
}

impl Grid {
    /// The steps that hold the time from one moment to another. They begin at multiples of the step, so that the same moment falls
    /// into the same step in every answer.
    pub(super) fn over(start_ms: u64, end_ms: u64, step_ms: u64) -> Grid {
        let start_ms = start_ms - start_ms % step_ms;
        let steps = end_ms.saturating_sub(start_ms).div_ceil(step_ms).max(1);
        Grid { start_ms, step_ms, steps: usize::try_from(steps).unwrap_or(usize::MAX) }
    }

    pub(super) fn end_ms(&self) -> u64 {
        self.start_ms + self.step_ms * self.steps as u64
    }

    /// The steps that a span is about. A sample stands for the time since the one before: where that was longer than a step, for more
    /// than one.
    pub(super) fn steps_of(&self, span: StoredSpan) -> std::ops::Range<usize> {
        let step = |ms: u64| usize::try_from(ms.saturating_sub(self.start_ms) / self.step_ms).unwrap_or(0);
        if span.unix_ms < self.start_ms {
            return 0..0;
        }
        let last = step(span.unix_ms);
        let since_ms = span.unix_ms.saturating_sub(span.covered_ms);
        let first = if !span.tier.is_finest() || since_ms < self.start_ms {
            last
        } else {
            (step(since_ms) + 1).min(last)
        };
        first.min(self.steps)..(last + 1).min(self.steps)
    }
}

impl Cell {
    pub(super) fn of(nature: Nature, (value, min, max): Stored, covered_ms: u64) -> Cell {
        match nature {
            Nature::Level => {
                let (min, max) = (min.unwrap_or(value), max.unwrap_or(value));
                Cell::Level(Level::spread(min, value, max, covered_ms))
            }
            Nature::Crest => Cell::Level(Level::of(value, value, covered_ms)),
            Nature::Flow => {
                let mean = per_second(value, covered_ms);
                let (rate_min, rate_max) = (min.unwrap_or(mean), max.unwrap_or(mean));
                Cell::Flow(Flow { total: value, rate_min, rate_max }, covered_ms.max(1))
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Cell) {
        match (self, other) {
            (Cell::Level(level), Cell::Level(other)) => level.merge(other),
            (Cell::Flow(flow, ms), Cell::Flow(other, other_ms)) => {
                flow.merge(other);
                *ms += other_ms;
            }
            // One answer is about one measure, and that has one nature.
            (Cell::Level(_), Cell::Flow(..)) | (Cell::Flow(..), Cell::Level(_)) => {}
        }
    }

    /// Rates are rounded where they are stored, so that the mean may lie a little outside: the extremes give way.
    pub(super) fn point(&self) -> RangePoint {
        let (min, mean, max) = match self {
            Cell::Level(level) => (level.min as f64, level.mean(), level.max as f64),
            Cell::Flow(flow, ms) => {
                (flow.rate_min as f64, flow.total as f64 * 1000.0 / *ms as f64, flow.rate_max as f64)
            }
        };
        RangePoint([min.min(mean), mean, max.max(mean)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(unix_ms: u64, covered_ms: u64) -> StoredSpan {
        StoredSpan { tier: Tier::Second, unix_ms, covered_ms }
    }

    #[test]
    fn steps_begin_at_multiples() {
        let grid = Grid::over(12_345, 15_001, 1000);
        assert_eq!(grid, Grid { start_ms: 12_000, step_ms: 1000, steps: 4 });
        assert_eq!(grid.end_ms(), 16_000);
        assert_eq!(Grid::over(5, 5, 1000).steps, 1);
    }

    #[test]
    fn a_sample_stands_for_the_time_since_the_one_before() {
        let grid = Grid::over(10_000, 20_000, 1000);
        let check = |unix_ms, covered_ms, expected: std::ops::Range<usize>| {
            assert_eq!(grid.steps_of(sample(unix_ms, covered_ms)), expected, "{unix_ms}");
        };
        check(12_500, 1000, 2..3);
        check(12_511, 1040, 2..3);
        check(12_480, 960, 2..3);
        // One sample was missed: no gap.
        check(14_500, 2000, 3..5);
        check(9_999, 1000, 0..0);
        check(10_500, 3000, 0..1);
        check(25_000, 1000, 10..10);
        let minute = StoredSpan { tier: Tier::Minute, unix_ms: 12_000, covered_ms: 60_000 };
        assert_eq!(grid.steps_of(minute), 2..3, "a span of a coarse tier is where it begins");
    }

    #[test]
    fn a_rate_is_what_flowed_by_the_time_it_took() {
        let mut cell = Cell::of(Nature::Flow, (3000, None, None), 1000);
        cell.merge(&Cell::of(Nature::Flow, (0, None, None), 2000));
        assert_eq!(cell.point(), RangePoint([0.0, 1000.0, 3000.0]));
        assert_eq!(Cell::of(Nature::Flow, (1, None, None), 3000).point().0[1], 1.0 / 3.0);
    }
}
