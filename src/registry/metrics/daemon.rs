//! The names of the metrics that the daemon keeps itself, for those who keep them.

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
