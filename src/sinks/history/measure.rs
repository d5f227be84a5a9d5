//! What can be asked of the past, and which columns tell it.

/// One figure of every series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measure {
    MemoryUsage,
    MemoryPeak,
    Buffers,
    AllocatedBytes,
    FreedBytes,
    Allocations,
    Frees,
}

/// What a column's figures are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Nature {
    /// So at a moment.
    Level,
    /// The most so far, which has no spread.
    Crest,
    /// A sum over the time, told as a rate.
    Flow,
}

impl Measure {
    pub(super) const ALL: [Measure; 7] = [
        Measure::MemoryUsage,
        Measure::MemoryPeak,
        Measure::Buffers,
        Measure::AllocatedBytes,
        Measure::FreedBytes,
        Measure::Allocations,
        Measure::Frees,
    ];

    /// Its name in requests.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Measure::MemoryUsage => "memory_usage",
            Measure::MemoryPeak => "memory_peak",
            Measure::Buffers => "buffers",
            Measure::AllocatedBytes => "allocated_bytes",
            Measure::FreedBytes => "freed_bytes",
            Measure::Allocations => "allocations",
            Measure::Frees => "frees",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Measure> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }

    /// Its unit in OpenTelemetry's spelling.
    pub(super) const fn unit(self) -> &'static str {
        match self {
            Measure::MemoryUsage | Measure::MemoryPeak => "By",
            Measure::Buffers => "{buffer}",
            Measure::AllocatedBytes | Measure::FreedBytes => "By/s",
            Measure::Allocations => "{allocation}/s",
            Measure::Frees => "{free}/s",
        }
    }

    pub(super) const fn nature(self) -> Nature {
        match self {
            Measure::MemoryUsage | Measure::Buffers => Nature::Level,
            Measure::MemoryPeak => Nature::Crest,
            _ => Nature::Flow,
        }
    }

    /// The columns with its mean or sum, its lowest and its highest value.
    pub(super) const fn columns(self) -> &'static str {
        match self {
            Measure::MemoryUsage => "usage_bytes, usage_bytes_min, usage_bytes_max",
            Measure::MemoryPeak => "peak_bytes, NULL, NULL",
            Measure::Buffers => "buffers, buffers_min, buffers_max",
            Measure::AllocatedBytes => "allocated_bytes, allocated_bytes_min, allocated_bytes_max",
            Measure::FreedBytes => "freed_bytes, freed_bytes_min, freed_bytes_max",
            Measure::Allocations => "allocations, allocations_min, allocations_max",
            Measure::Frees => "frees, frees_min, frees_max",
        }
    }
}
