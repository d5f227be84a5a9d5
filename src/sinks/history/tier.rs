//! The tiers: how long the past is kept at which resolution.

/// One resolution, with tables of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Tier {
    /// Every sample.
    Second,
    /// Ten seconds.
    TenSeconds,
    /// A minute.
    Minute,
}

impl Tier {
    /// All of them, finest first.
    pub(super) const ALL: [Tier; 3] = [Tier::Second, Tier::TenSeconds, Tier::Minute];

    /// Its name in tables and labels.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Tier::Second => "1s",
            Tier::TenSeconds => "10s",
            Tier::Minute => "60s",
        }
    }

    pub(super) const fn interval_ms(self) -> u64 {
        match self {
            Tier::Second => 1000,
            Tier::TenSeconds => 10_000,
            Tier::Minute => 60_000,
        }
    }

    /// Whether each sample is a point of its own.
    pub(super) const fn is_finest(self) -> bool {
        matches!(self, Tier::Second)
    }

    /// Where the span begins that a moment belongs to; the finest tier keeps moments as they are.
    pub(super) const fn begin_ms(self, unix_ms: u64) -> u64 {
        if self.is_finest() { unix_ms } else { unix_ms - unix_ms % self.interval_ms() }
    }
}
