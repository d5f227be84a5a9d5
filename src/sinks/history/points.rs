//! How what was so at single moments becomes what was so over a time: the arithmetic of the tiers, pure.
//!
//! The idea is that merging is exact: the mean is weighted by the time that it stands for, lows and highs are those of all parts, and
//! sums are sums. So it makes no difference in which steps a minute was put together.

use super::sample::FLOWS;

/// Something that is so at a moment: bytes in use, buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Level {
    pub(super) min: u64,
    pub(super) max: u64,
    /// Values times the milliseconds for which they stand.
    weighted: u128,
    weight_ms: u64,
}

/// Something that adds up: bytes allocated, frees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow {
    pub(super) total: u64,
    /// The slowest second's rate.
    pub(super) rate_min: u64,
    /// The fastest second's rate.
    pub(super) rate_max: u64,
}

/// One place over a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Point {
    pub(super) usage: Level,
    /// The most since counting began, as it was at the end.
    pub(super) peak_bytes: u64,
    pub(super) reported: Option<ReportedPoint>,
}

/// What only per-buffer reports can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ReportedPoint {
    pub(super) buffers: Level,
    pub(super) flows: [Flow; FLOWS],
}

impl Level {
    /// A value that stands for a time; it may have been higher for a moment.
    pub(super) fn of(value: u64, max: u64, ms: u64) -> Level {
        let ms = ms.max(1);
        Level { min: value, max: max.max(value), weighted: u128::from(value) * u128::from(ms), weight_ms: ms }
    }

    /// What a mean with its extremes stood for.
    pub(super) fn spread(min: u64, mean: u64, max: u64, ms: u64) -> Level {
        Level { min, max, ..Level::of(mean, max, ms) }
    }

    pub(super) fn mean(&self) -> f64 {
        self.weighted as f64 / self.weight_ms as f64
    }

    /// The mean as a whole number, which is never outside the extremes.
    pub(super) fn mean_rounded(&self) -> u64 {
        let weight = u128::from(self.weight_ms);
        u64::try_from((self.weighted + weight / 2) / weight).unwrap_or(u64::MAX).clamp(self.min, self.max)
    }

    pub(super) fn merge(&mut self, other: &Level) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.weighted += other.weighted;
        self.weight_ms += other.weight_ms;
    }
}

impl Flow {
    /// So much in so long.
    pub(super) fn of(total: u64, ms: u64) -> Flow {
        let rate = per_second(total, ms);
        Flow { total, rate_min: rate, rate_max: rate }
    }

    pub(super) fn merge(&mut self, other: &Flow) {
        self.total = self.total.saturating_add(other.total);
        self.rate_min = self.rate_min.min(other.rate_min);
        self.rate_max = self.rate_max.max(other.rate_max);
    }
}

impl Point {
    pub(super) fn merge(&mut self, other: &Point) {
        self.usage.merge(&other.usage);
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
        match (&mut self.reported, &other.reported) {
            (Some(reported), Some(other)) => {
                reported.buffers.merge(&other.buffers);
                reported.flows.iter_mut().zip(&other.flows).for_each(|(flow, other)| flow.merge(other));
            }
            // Reports began in the middle: what was before them is not known, and not 0.
            (reported @ None, other) => *reported = *other,
            (Some(_), None) => {}
        }
    }
}

/// A rate, rounded to whole numbers.
pub(super) fn per_second(total: u64, ms: u64) -> u64 {
    let ms = u128::from(ms.max(1));
    u64::try_from((u128::from(total) * 1000 + ms / 2) / ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever steps a time is put together, the result is the same, and lies within its extremes.
        #[test]
        fn merging_is_exact(values in prop::collection::vec((0..1u64 << 48, 0..1u64 << 40, 1..5000u64), 1..60), cut in 0..60usize) {
            let levels: Vec<_> = values.iter().map(|(value, above, ms)| Level::of(*value, value + above, *ms)).collect();
            let merged = |levels: &[Level]| {
                let (first, rest) = levels.split_first()?;
                let mut sum = *first;
                rest.iter().for_each(|level| sum.merge(level));
                Some(sum)
            };
            let (left, right) = levels.split_at(cut.min(levels.len()));
            let whole = merged(&levels).expect("one at least");
            let halves: Vec<_> = [merged(left), merged(right)].into_iter().flatten().collect();
            prop_assert_eq!(merged(&halves), Some(whole));
            prop_assert_eq!(whole.max, values.iter().map(|(value, above, _)| value + above).max().expect("one"));
            prop_assert_eq!(whole.min, values.iter().map(|(value, ..)| *value).min().expect("one"));
            prop_assert!(whole.min <= whole.mean_rounded() && whole.mean_rounded() <= whole.max);
        }
    }

    #[test]
    fn a_mean_is_weighted_by_time() {
        let mut level = Level::of(100, 100, 1000);
        level.merge(&Level::of(400, 900, 3000));
        assert_eq!((level.min, level.mean_rounded(), level.max), (100, 325, 900));
    }

    #[test]
    fn a_rate_is_rounded_to_the_nearest() {
        assert_eq!(per_second(1, 1003), 1);
        assert_eq!(per_second(1, 3000), 0);
        assert_eq!(per_second(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn what_was_before_the_first_report_is_not_zero() {
        let reported = ReportedPoint { buffers: Level::of(5, 5, 1000), flows: [Flow::of(7, 1000); FLOWS] };
        let silent = Point { usage: Level::of(1, 1, 1000), peak_bytes: 1, reported: None };
        let mut point = silent;
        point.merge(&Point { reported: Some(reported), ..silent });
        assert_eq!(point.reported, Some(reported));
        point.merge(&silent);
        assert_eq!(point.reported, Some(reported));
    }
}
