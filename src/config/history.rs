//! What is kept of the past: how long, and how much of it.

use std::path::PathBuf;

use super::Config;
use super::settings::{Kind, Setting};
use super::values::Range;

/// The history, where there is a directory for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Where the database lies.
    pub directory: PathBuf,
    /// How much is kept.
    pub limits: HistoryLimits,
}

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// How long points of a second, of ten and of sixty are kept; those of 0 are not written.
    pub keep_seconds: [u64; 3],
    /// The room that the database takes, at most.
    pub size_bytes_max: u64,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { keep_seconds: [3600, 86_400, 2_592_000], size_bytes_max: 1 << 30 }
    }
}

impl Config {
    /// What is kept of the past; `None` where nothing is.
    pub fn history(&self) -> Option<HistoryConfig> {
        Some(HistoryConfig { directory: self.state_dir.clone()?, limits: self.history_limits })
    }
}

const SECTION: &str = "History";

/// Ten years.
const KEEP_SECONDS: Range = Range { min: 0, max: 315_360_000 };
/// Less would not hold an hour of a small host.
const SIZE_BYTES: Range = Range { min: 1 << 24, max: 1 << 40 };

pub(super) const KEEP_1S: Setting = Setting {
    key: "history_keep_1s_seconds",
    flag: "history-keep-1s-seconds",
    section: SECTION,
    value_name: "SECONDS",
    kind: Kind::Number(KEEP_SECONDS),
    default: "3600",
    reload: false,
    help: "Seconds for which a point for every second is kept",
    details: "0 to 315360000. 0: none is written. There is history only where state_dir names a directory.",
    apply: |config, text| {
        KEEP_SECONDS.parse(text).map(|seconds| config.history_limits.keep_seconds[0] = seconds)
    },
    show: |config| config.history_limits.keep_seconds[0].to_string(),
};

pub(super) const KEEP_10S: Setting = Setting {
    key: "history_keep_10s_seconds",
    flag: "history-keep-10s-seconds",
    section: SECTION,
    value_name: "SECONDS",
    kind: Kind::Number(KEEP_SECONDS),
    default: "86400",
    reload: false,
    help: "Seconds for which a point for every ten seconds is kept",
    details: "0 to 315360000. It holds the lowest, the mean and the highest value. 0: none is written.",
    apply: |config, text| {
        KEEP_SECONDS.parse(text).map(|seconds| config.history_limits.keep_seconds[1] = seconds)
    },
    show: |config| config.history_limits.keep_seconds[1].to_string(),
};

pub(super) const KEEP_60S: Setting = Setting {
    key: "history_keep_60s_seconds",
    flag: "history-keep-60s-seconds",
    section: SECTION,
    value_name: "SECONDS",
    kind: Kind::Number(KEEP_SECONDS),
    default: "2592000",
    reload: false,
    help: "Seconds for which a point for every minute is kept",
    details: "0 to 315360000. It holds the lowest, the mean and the highest value. Events are kept as long as the points \
              that are kept longest. 0: none is written.",
    apply: |config, text| {
        KEEP_SECONDS.parse(text).map(|seconds| config.history_limits.keep_seconds[2] = seconds)
    },
    show: |config| config.history_limits.keep_seconds[2].to_string(),
};

pub(super) const SIZE_MAX: Setting = Setting {
    key: "history_size_max_bytes",
    flag: "history-size-max-bytes",
    section: SECTION,
    value_name: "BYTES",
    kind: Kind::Number(SIZE_BYTES),
    default: "1073741824",
    reload: false,
    help: "Size of the history's database, at most",
    details: "16777216 to 1099511627776. Where it would be more, the oldest eighth of everything goes. docs/history.md \
              says how much a process takes.",
    apply: |config, text| SIZE_BYTES.parse(text).map(|bytes| config.history_limits.size_bytes_max = bytes),
    show: |config| config.history_limits.size_bytes_max.to_string(),
};
