//! Distributions of buffer sizes and lifetimes, in buckets that double.
//!
//! The idea is one set of counters for every format: bucket `i` holds the values in (2^(i-1), 2^i] of a unit, so the classic `le`
//! bounds that are powers of two are exact sums of buckets, and the finest ones are those of a native histogram with schema 0.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::image::{DistributionImage, ImageError};

/// The number of buckets: every u64 value has one.
const BUCKETS: usize = 65;

/// What a histogram counts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Bytes: bucket `i` ends at 2^i bytes.
    Bytes,
    /// Time: values are nanoseconds, bucket `i` ends at 2^(i-20) seconds, about a microsecond for the first.
    Seconds,
}

/// The lifetime buckets' first bound is 2^-20 s.
const SECONDS_EXPONENT_MIN: i32 = -20;
const NANOSECONDS_PER_SECOND: f64 = 1e9;

impl Scale {
    /// The bounds of the classic exposition, as exponents of two: ten at most, so that a device costs few series.
    pub const fn classic_exponents(self) -> &'static [i32] {
        match self {
            // 4 KiB to 1 GiB: from one tile page to one shard of a large model's weights.
            Scale::Bytes => &[12, 14, 16, 18, 20, 22, 24, 26, 28, 30],
            // 1 ms to 36 h: from an activation to a server's weights.
            Scale::Seconds => &[-10, -7, -4, -1, 2, 5, 8, 11, 14, 17],
        }
    }

    fn bucket(self, value: u64) -> usize {
        match self {
            Scale::Bytes => ceil_log2(value),
            Scale::Seconds => ceil_log2(ticks(value)),
        }
    }

    /// The exponent of the bucket that a number of bytes or nanoseconds falls into.
    pub(super) fn exponent_of(self, value: u64) -> i32 {
        self.exponent(self.bucket(value))
    }

    fn exponent(self, bucket: usize) -> i32 {
        // A bucket's number is at most 64.
        let exponent = i32::try_from(bucket).unwrap_or(i32::MAX);
        match self {
            Scale::Bytes => exponent,
            Scale::Seconds => exponent + SECONDS_EXPONENT_MIN,
        }
    }
}

/// Nanoseconds as units of 2^-20 seconds, rounded up.
fn ticks(nanoseconds: u64) -> u64 {
    if nanoseconds < 1 << 44 {
        return (nanoseconds << 20).div_ceil(1_000_000_000);
    }
    // Past five hours the product leaves u64, and the slower division no longer matters.
    let ticks = (u128::from(nanoseconds) << 20).div_ceil(1_000_000_000);
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn ceil_log2(value: u64) -> usize {
    (u64::BITS - value.saturating_sub(1).leading_zeros()) as usize
}

/// Observations noted by one thread, to be added to a histogram together: one atomic operation for each bucket instead of for each
/// observation.
#[derive(Debug)]
pub(super) struct Observations {
    scale: Scale,
    buckets: [u32; BUCKETS],
    /// A bit for each bucket that has any.
    noted: u128,
    sum: u64,
}

const _: () = assert!(BUCKETS <= u128::BITS as usize);

impl Observations {
    pub(super) fn new(scale: Scale) -> Self {
        Self { scale, buckets: [0; BUCKETS], noted: 0, sum: 0 }
    }

    pub(super) fn note(&mut self, value: u64) {
        let bucket = self.scale.bucket(value);
        self.buckets[bucket] += 1;
        self.noted |= 1 << bucket;
        self.sum = self.sum.wrapping_add(value);
    }
}

/// A histogram that many threads add to.
#[derive(Debug)]
pub(super) struct Histogram {
    scale: Scale,
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(scale: Scale) -> Self {
        Self { scale, buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }

    /// Adds observations that were noted elsewhere, and forgets them there.
    pub(super) fn absorb(&self, observations: &mut Observations) {
        if observations.noted == 0 {
            return;
        }
        while observations.noted != 0 {
            let bucket = observations.noted.trailing_zeros() as usize;
            observations.noted &= observations.noted - 1;
            let count = std::mem::take(&mut observations.buckets[bucket]);
            self.buckets[bucket].fetch_add(u64::from(count), Relaxed);
        }
        self.sum.fetch_add(std::mem::take(&mut observations.sum), Relaxed);
    }

    /// What is stored of it.
    pub(super) fn image(&self) -> DistributionImage {
        let buckets = self.buckets.iter().zip(0_u8..).map(|(bucket, number)| (number, bucket.load(Relaxed)));
        DistributionImage {
            buckets: buckets.filter(|(_, count)| *count > 0).collect(),
            sum: self.sum.load(Relaxed),
        }
    }

    /// Makes an empty one what a stored one was.
    pub(super) fn restore(&self, image: &DistributionImage) -> Result<(), ImageError> {
        for (bucket, count) in &image.buckets {
            let bucket = self.buckets.get(usize::from(*bucket)).ok_or(ImageError("a bucket is unknown"))?;
            bucket.store(*count, Relaxed);
        }
        self.sum.store(image.sum, Relaxed);
        Ok(())
    }

    pub(super) fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            scale: self.scale,
            buckets: std::array::from_fn(|index| self.buckets[index].load(Relaxed)),
            sum: self.sum.load(Relaxed),
        }
    }
}

/// A histogram at one instant.
#[derive(Clone, PartialEq, Debug)]
pub struct HistogramSnapshot {
    scale: Scale,
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl HistogramSnapshot {
    /// What it counts in.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the observations, in bytes or seconds.
    pub fn sum(&self) -> f64 {
        match self.scale {
            Scale::Bytes => self.sum as f64,
            Scale::Seconds => self.sum as f64 / NANOSECONDS_PER_SECOND,
        }
    }

    /// What has been observed since an earlier snapshot of the same histogram.
    pub fn since(&self, earlier: &HistogramSnapshot) -> HistogramSnapshot {
        HistogramSnapshot {
            scale: self.scale,
            buckets: std::array::from_fn(|index| self.buckets[index].saturating_sub(earlier.buckets[index])),
            sum: self.sum.wrapping_sub(earlier.sum),
        }
    }

    /// Runs of adjacent buckets that hold observations: the number of the first one in a native histogram of schema 0, and the counts.
    pub fn runs(&self) -> impl Iterator<Item = (i32, &[u64])> {
        let mut bucket = 0;
        self.buckets.chunk_by(|left, right| (*left == 0) == (*right == 0)).filter_map(move |run| {
            let first = bucket;
            bucket += run.len();
            (run[0] != 0).then(|| (self.scale.exponent(first), run))
        })
    }

    /// The classic buckets: (upper bound in bytes or seconds, number of observations at or below it).
    pub fn classic(&self) -> impl ExactSizeIterator<Item = (f64, u64)> + '_ {
        let (mut bucket, mut below) = (0, 0);
        self.scale.classic_exponents().iter().map(move |&exponent| {
            while bucket < BUCKETS && self.scale.exponent(bucket) <= exponent {
                below += self.buckets[bucket];
                bucket += 1;
            }
            (2f64.powi(exponent), below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let check = |scale: Scale, value: u64, exponent: i32| {
            assert_eq!(scale.exponent(scale.bucket(value)), exponent, "{scale:?} {value}");
        };
        check(Scale::Bytes, 1, 0);
        check(Scale::Bytes, 4096, 12);
        check(Scale::Bytes, 4097, 13);
        check(Scale::Bytes, u64::MAX, 64);
        check(Scale::Seconds, 0, -20);
        check(Scale::Seconds, 500_000_000, -1);
        check(Scale::Seconds, 500_000_001, 0);
        check(Scale::Seconds, 4_000_000_000, 2);
        check(Scale::Seconds, u64::MAX, 35);
    }

    #[test]
    fn runs_name_their_first_bucket_and_leave_out_what_is_empty() {
        let histogram = Histogram::new(Scale::Seconds);
        let mut observations = Observations::new(Scale::Seconds);
        for value in [500_000_000, 500_000_000, 900_000_000, 7_000_000_000] {
            observations.note(value);
        }
        histogram.absorb(&mut observations);
        let snapshot = histogram.snapshot();
        let runs: Vec<_> = snapshot.runs().map(|(first, counts)| (first, counts.to_vec())).collect();
        assert_eq!(runs, [(-1, vec![2, 1]), (3, vec![1])], "(0.25, 0.5], (0.5, 1] and (4, 8] seconds");
    }

    #[test]
    fn classic_buckets_are_cumulative_and_lose_nothing() {
        let histogram = Histogram::new(Scale::Bytes);
        let mut observations = Observations::new(Scale::Bytes);
        for size in [1, 4096, 4097, 1 << 30, (1 << 30) + 1] {
            observations.note(size);
        }
        histogram.absorb(&mut observations);
        histogram.absorb(&mut observations);
        let snapshot = histogram.snapshot();
        let classic: Vec<_> = snapshot.classic().collect();
        assert_eq!(classic.first(), Some(&(4096.0, 2)));
        assert_eq!(classic.last(), Some(&(1_073_741_824.0, 4)));
        assert!(classic.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        assert_eq!(snapshot.count(), 5);
        assert_eq!(snapshot.sum(), 2_147_491_843.0);
    }
}
