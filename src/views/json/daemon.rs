//! How it stands with the daemon itself, beyond what devices hold: the answer to /api/v1/daemon.
//!
//! The idea is that this says what the daemon's own metrics say, so that there is one account of it: it is made from their values by name.

use serde::{Deserialize, Serialize};

use crate::registry::metrics::daemon::{
    HISTORY_DROPPED, HISTORY_LAST_WRITE, HISTORY_QUEUE_ITEMS, HISTORY_SIZE_BYTES, STATE_CHECKPOINT_BYTES,
    STATE_CHECKPOINT_TIME, STATE_DAMAGED, STATE_FAILURES, STATE_JOURNAL_BYTES, STATE_KEPT,
    STATE_RECOVERY_DURATION,
};

/// The answer to /api/v1/daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// When this was so, in seconds since the epoch.
    pub timestamp_seconds: f64,
    /// Its process, in its own pid namespace.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// What outlives it; absent without a directory for state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<State>,
    /// What was; absent where none is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub history: Option<History>,
}

/// What outlives the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Whether it does, as is wanted.
    pub kept: bool,
    /// The journal that no checkpoint has yet; absent, like what follows, where none could be begun.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub journal_bytes: Option<u64>,
    /// The last checkpoint's size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint_bytes: Option<u64>,
    /// When it was made, in seconds since the epoch; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint_timestamp_seconds: Option<f64>,
    /// Checkpoints that could not be made.
    pub checkpoint_failures_total: u64,
    /// Files that could not be believed at the start.
    pub damaged_files: u64,
    /// How long this daemon took to go on where the one before it ended; absent if it began with nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery_seconds: Option<f64>,
}

/// The history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Its room on the disk.
    pub size_bytes: u64,
    /// When it was last written to, in seconds since the epoch; absent before that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_write_timestamp_seconds: Option<f64>,
    /// Samples that wait for the writer.
    pub queue_items: u64,
    /// Points and events that it misses.
    pub dropped_total: u64,
}

impl Daemon {
    /// What a daemon's own metrics say; `value` gives the sum of the samples that one of them has, if it has any.
    pub fn of(
        timestamp_seconds: f64,
        pid: u32,
        version: &str,
        value: impl Fn(&str) -> Option<f64>,
    ) -> Daemon {
        let whole = |name: &str| value(name).map(|value| value as u64);
        let since_the_start = |name: &str| value(name).filter(|value| *value > 0.0);
        let state = value(STATE_KEPT).map(|kept| State {
            kept: kept > 0.0,
            journal_bytes: whole(STATE_JOURNAL_BYTES),
            checkpoint_bytes: whole(STATE_CHECKPOINT_BYTES),
            checkpoint_timestamp_seconds: since_the_start(STATE_CHECKPOINT_TIME),
            checkpoint_failures_total: whole(STATE_FAILURES).unwrap_or_default(),
            damaged_files: whole(STATE_DAMAGED).unwrap_or_default(),
            recovery_seconds: since_the_start(STATE_RECOVERY_DURATION),
        });
        let history = whole(HISTORY_SIZE_BYTES).map(|size_bytes| History {
            size_bytes,
            last_write_timestamp_seconds: since_the_start(HISTORY_LAST_WRITE),
            queue_items: whole(HISTORY_QUEUE_ITEMS).unwrap_or_default(),
            dropped_total: whole(HISTORY_DROPPED).unwrap_or_default(),
        });
        Daemon { timestamp_seconds, pid, version: version.to_owned(), state, history }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_metric_is_absent() {
        let daemon = Daemon::of(1.0, 7, "1", |_| None);
        assert_eq!((daemon.state, daemon.history), (None, None));
        let failed = Daemon::of(1.0, 7, "1", |name| (name == STATE_KEPT).then_some(0.0));
        let state = failed.state.expect("wanted");
        assert!(!state.kept && state.journal_bytes.is_none() && state.recovery_seconds.is_none());
    }

    #[test]
    fn times_that_are_not_yet_are_absent() {
        let daemon = Daemon::of(1.0, 7, "1", |name| {
            Some(match name {
                STATE_CHECKPOINT_TIME | STATE_RECOVERY_DURATION => 0.0,
                HISTORY_LAST_WRITE => 1.5,
                _ => 3.0,
            })
        });
        let (state, history) = (daemon.state.expect("kept"), daemon.history.expect("kept"));
        assert_eq!((state.checkpoint_timestamp_seconds, state.recovery_seconds), (None, None));
        assert_eq!((history.last_write_timestamp_seconds, history.dropped_total), (Some(1.5), 3));
    }
}
