//! The names of the metrics that the daemon keeps about itself.

/// Version and revision.
pub const BUILD_INFO: &str = "ttmem_build_info";
/// The previous scrape's duration.
pub const SCRAPE_DURATION: &str = "ttmem_scrape_duration_seconds";
/// Whether the last reload worked.
pub const RELOAD_SUCCESSFUL: &str = "ttmem_config_last_reload_successful";
/// When a reload last worked.
pub const RELOAD_TIME: &str = "ttmem_config_last_reload_success_timestamp_seconds";
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
