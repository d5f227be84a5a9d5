//! What is told as spans: the policy, in one screen.

use super::settings::{Kind, Setting};
use super::values::Range;

/// What is told of processes and their buffers, where traces or logs are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpansConfig {
    /// Smaller buffers have no spans of their own.
    pub size_bytes_min: u64,
    /// Buffers that lived shorter have none either.
    pub lifetime_ms_min: u64,
    /// Spans of single buffers in a second, at most.
    pub per_second_max: u32,
    /// So many allocations that follow closely and are kept have one span together.
    pub burst_buffers_min: u64,
    /// How closely they follow.
    pub burst_gap_ms: u64,
    /// How often a process that lives is told of.
    pub interval_seconds: u64,
}

impl Default for SpansConfig {
    fn default() -> Self {
        Self {
            size_bytes_min: 1 << 20,
            lifetime_ms_min: 1000,
            per_second_max: 1000,
            burst_buffers_min: 100,
            burst_gap_ms: 1000,
            interval_seconds: 300,
        }
    }
}

const SECTION: &str = "Spans";

/// The largest buffer that is believed.
const SIZE_BYTES: Range = Range { min: 0, max: 1 << 40 };
/// A day.
const MILLISECONDS: Range = Range { min: 0, max: 86_400_000 };
/// More than one collector takes.
const PER_SECOND: Range = Range { min: 1, max: 1_000_000 };
/// As many buffers as one process may have.
const BUFFERS: Range = Range { min: 2, max: 1 << 24 };
/// Allocations a minute apart do not belong together.
const GAP_MS: Range = Range { min: 1, max: 60_000 };
/// A day.
const SECONDS: Range = Range { min: 1, max: 86_400 };

pub(super) const SIZE_MIN: Setting = Setting {
    key: "span_size_min_bytes",
    flag: "span-size-min-bytes",
    section: SECTION,
    value_name: "BYTES",
    kind: Kind::Number(SIZE_BYTES),
    default: "1048576",
    reload: false,
    help: "Smallest buffer with a span of its own",
    details: "0 to 1099511627776. What a process still holds when it ends has spans whatever its size: the \
              largest hundred one by one, the rest together. What this and the next three settings leave \
              out is counted in ttmem_spans_omitted_total.",
    apply: |config, text| SIZE_BYTES.parse(text).map(|bytes| config.spans.size_bytes_min = bytes),
    show: |config| config.spans.size_bytes_min.to_string(),
};

pub(super) const LIFETIME_MIN: Setting = Setting {
    key: "span_lifetime_min_ms",
    flag: "span-lifetime-min-ms",
    section: SECTION,
    value_name: "MILLISECONDS",
    kind: Kind::Number(MILLISECONDS),
    default: "1000",
    reload: false,
    help: "Shortest lifetime of a buffer with a span of its own",
    details: "0 to 86400000. The default leaves activations out and keeps weights, caches and what is \
              forgotten.",
    apply: |config, text| MILLISECONDS.parse(text).map(|time| config.spans.lifetime_ms_min = time),
    show: |config| config.spans.lifetime_ms_min.to_string(),
};

pub(super) const PER_SECOND_MAX: Setting = Setting {
    key: "spans_per_second_max",
    flag: "spans-per-second-max",
    section: SECTION,
    value_name: "COUNT",
    kind: Kind::Number(PER_SECOND),
    default: "1000",
    reload: false,
    help: "Spans of single buffers in a second, at most",
    details: "1 to 1000000. Spans of processes, bursts, intervals and leaks are not limited by it.",
    apply: |config, text| PER_SECOND.parse(text).map(|count| config.spans.per_second_max = count),
    show: |config| config.spans.per_second_max.to_string(),
};

pub(super) const BURST_MIN: Setting = Setting {
    key: "span_burst_min_buffers",
    flag: "span-burst-min-buffers",
    section: SECTION,
    value_name: "COUNT",
    kind: Kind::Number(BUFFERS),
    default: "100",
    reload: false,
    help: "Buffers that have one span together when they come in a burst",
    details: "2 to 16777216. A burst is a run of allocations of which so many are still held at its end, \
              as when a model is loaded: one span tells when they came, another how long they stayed.",
    apply: |config, text| BUFFERS.parse(text).map(|count| config.spans.burst_buffers_min = count),
    show: |config| config.spans.burst_buffers_min.to_string(),
};

pub(super) const BURST_GAP: Setting = Setting {
    key: "span_burst_gap_ms",
    flag: "span-burst-gap-ms",
    section: SECTION,
    value_name: "MILLISECONDS",
    kind: Kind::Number(GAP_MS),
    default: "1000",
    reload: false,
    help: "Pause that ends a burst of allocations",
    details: "1 to 60000.",
    apply: |config, text| GAP_MS.parse(text).map(|time| config.spans.burst_gap_ms = time),
    show: |config| config.spans.burst_gap_ms.to_string(),
};

pub(super) const INTERVAL: Setting = Setting {
    key: "span_interval_seconds",
    flag: "span-interval-seconds",
    section: SECTION,
    value_name: "SECONDS",
    kind: Kind::Number(SECONDS),
    default: "300",
    reload: false,
    help: "Seconds between two spans about a process that lives",
    details: "1 to 86400. Each says what the process holds and has done since the one before: a process's \
              own span comes only when it ends.",
    apply: |config, text| SECONDS.parse(text).map(|time| config.spans.interval_seconds = time),
    show: |config| config.spans.interval_seconds.to_string(),
};
