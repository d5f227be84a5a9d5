//! The metrics that the daemon keeps about itself: their names, for those who keep them, and their rows of the table.

use super::{Kind, Metric, Samples};

/// Version and revision.
pub const BUILD_INFO: &str = "ttmem_build_info";
/// The previous scrape's duration.
pub const SCRAPE_DURATION: &str = "ttmem_scrape_duration_seconds";
/// Whether the last reload worked.
pub const RELOAD_SUCCESSFUL: &str = "ttmem_config_last_reload_successful";
/// When a reload last worked.
pub const RELOAD_TIME: &str = "ttmem_config_last_reload_success_timestamp_seconds";
/// Which layers of the sandbox are in force.
pub const SANDBOX: &str = "ttmem_sandbox_active";
/// What a collector has accepted.
pub const OTLP_EXPORTED: &str = "ttmem_otlp_exported_total";
/// What no collector will see.
pub const OTLP_DROPPED: &str = "ttmem_otlp_dropped_total";
/// Requests that failed.
pub const OTLP_FAILURES: &str = "ttmem_otlp_export_failures_total";
/// What waits or is on its way.
pub const OTLP_QUEUE_ITEMS: &str = "ttmem_otlp_queue_items";
/// The memory that it takes.
pub const OTLP_QUEUE_BYTES: &str = "ttmem_otlp_queue_bytes";
/// Points that the history has.
pub const HISTORY_SAMPLES: &str = "ttmem_history_samples_total";
/// Events that the history has.
pub const HISTORY_EVENTS: &str = "ttmem_history_events_total";
/// What the history will never have.
pub const HISTORY_DROPPED: &str = "ttmem_history_dropped_total";
/// Attempts to write that failed.
pub const HISTORY_ERRORS: &str = "ttmem_history_errors_total";
/// Samples that wait for the writer.
pub const HISTORY_QUEUE_ITEMS: &str = "ttmem_history_queue_items";
/// The database's room on the disk.
pub const HISTORY_SIZE_BYTES: &str = "ttmem_history_size_bytes";
/// When it was last written to.
pub const HISTORY_LAST_WRITE: &str = "ttmem_history_last_write_timestamp_seconds";
/// Whether the state outlives the daemon.
pub const STATE_KEPT: &str = "ttmem_state_kept";
/// The journal's size.
pub const STATE_JOURNAL_BYTES: &str = "ttmem_state_journal_bytes";
/// The checkpoint's size.
pub const STATE_CHECKPOINT_BYTES: &str = "ttmem_state_checkpoint_bytes";
/// How long it took.
pub const STATE_CHECKPOINT_DURATION: &str = "ttmem_state_checkpoint_duration_seconds";
/// When it was made.
pub const STATE_CHECKPOINT_TIME: &str = "ttmem_state_checkpoint_timestamp_seconds";
/// Those that failed.
pub const STATE_FAILURES: &str = "ttmem_state_checkpoint_failures_total";
/// What could not be believed.
pub const STATE_DAMAGED: &str = "ttmem_state_damaged_files_total";
/// How long the start took that went on from them.
pub const STATE_RECOVERY_DURATION: &str = "ttmem_state_recovery_duration_seconds";

/// Their rows, in the order of the exposition.
pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: SCRAPE_DURATION,
        kind: Kind::Gauge,
        unit: "s",
        labels: &[],
        help: "Time that the previous scrape took to answer.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: RELOAD_SUCCESSFUL,
        kind: Kind::Gauge,
        unit: "1",
        labels: &[],
        help: "Whether the configuration was accepted when it was last read.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: RELOAD_TIME,
        kind: Kind::Gauge,
        unit: "s",
        labels: &[],
        help: "Time since the epoch at which a configuration was last accepted.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: SANDBOX,
        kind: Kind::Gauge,
        unit: "1",
        labels: &["layer"],
        help: "Whether that layer of the sandbox is in force: 0 where the setting or the kernel does without it.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: OTLP_EXPORTED,
        kind: Kind::Counter,
        unit: "{item}",
        labels: &["signal"],
        help: "Spans, data points and log records that the collector has accepted; absent while OTLP is off.",
        opentelemetry: Some("otel.sdk.exporter.{item}.exported"),
        samples: Samples::Daemon,
    },
    Metric {
        name: OTLP_DROPPED,
        kind: Kind::Counter,
        unit: "{item}",
        labels: &["signal", "reason"],
        help: "Spans, data points and log records that were given up; absent while OTLP is off.",
        opentelemetry: Some("otel.sdk.exporter.{item}.exported"),
        samples: Samples::Daemon,
    },
    Metric {
        name: OTLP_FAILURES,
        kind: Kind::Counter,
        unit: "{request}",
        labels: &["signal", "reason"],
        help: "Requests that failed; most are tried again. Absent while OTLP is off.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: OTLP_QUEUE_ITEMS,
        kind: Kind::Gauge,
        unit: "{item}",
        labels: &["signal"],
        help: "Spans, data points and log records that wait or are on their way; absent while OTLP is off.",
        opentelemetry: Some("otel.sdk.exporter.{item}.inflight"),
        samples: Samples::Daemon,
    },
    Metric {
        name: OTLP_QUEUE_BYTES,
        kind: Kind::Gauge,
        unit: "By",
        labels: &["signal"],
        help: "Memory that they take, estimated; absent while OTLP is off.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_SAMPLES,
        kind: Kind::Counter,
        unit: "{sample}",
        labels: &["tier"],
        help: "Points written to the history, by the time that each stands for; absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_EVENTS,
        kind: Kind::Counter,
        unit: "{event}",
        labels: &[],
        help: "Events written to the history; absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_DROPPED,
        kind: Kind::Counter,
        unit: "{item}",
        labels: &["reason"],
        help: "What the history misses: samples (queue), events (moments), or both as the disk failed for long (storage). Absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_ERRORS,
        kind: Kind::Counter,
        unit: "{error}",
        labels: &["reason"],
        help: "Attempts to write to the history that failed; they are made again. Absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_QUEUE_ITEMS,
        kind: Kind::Gauge,
        unit: "{item}",
        labels: &[],
        help: "Samples that wait for the history's writer; absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_SIZE_BYTES,
        kind: Kind::Gauge,
        unit: "By",
        labels: &[],
        help: "Room that the history takes on the disk; absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: HISTORY_LAST_WRITE,
        kind: Kind::Gauge,
        unit: "s",
        labels: &[],
        help: "Time since the epoch at which the history was last written to; absent while there is none.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_KEPT,
        kind: Kind::Gauge,
        unit: "1",
        labels: &[],
        help: "Whether what is known outlives the daemon, as state_dir wants; absent without one.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_JOURNAL_BYTES,
        kind: Kind::Gauge,
        unit: "By",
        labels: &[],
        help: "Journal that no checkpoint has yet; absent without a state_dir.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_CHECKPOINT_BYTES,
        kind: Kind::Gauge,
        unit: "By",
        labels: &[],
        help: "The last checkpoint's size; absent without a state_dir.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_CHECKPOINT_DURATION,
        kind: Kind::Gauge,
        unit: "s",
        labels: &[],
        help: "Time that the last checkpoint took to make, beside everything else; absent without a state_dir.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_CHECKPOINT_TIME,
        kind: Kind::Gauge,
        unit: "s",
        labels: &[],
        help: "Time since the epoch at which the last checkpoint was made, 0 before the first; absent without a state_dir.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_FAILURES,
        kind: Kind::Counter,
        unit: "{checkpoint}",
        labels: &[],
        help: "Checkpoints that could not be made; absent without a state_dir.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_DAMAGED,
        kind: Kind::Counter,
        unit: "{file}",
        labels: &[],
        help: "Files of the state directory that could not be believed at the start, whole or in part; absent without one.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
    Metric {
        name: STATE_RECOVERY_DURATION,
        kind: Kind::Gauge,
        unit: "s",
        labels: &[],
        help: "Time that this daemon took to go on where the one before it ended, 0 if it began with nothing; absent without a state_dir.",
        opentelemetry: None,
        samples: Samples::Daemon,
    },
];
