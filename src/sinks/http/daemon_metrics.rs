//! The metrics that the daemon keeps about itself, in the `prometheus` crate: their number is fixed and nobody waits for them.

use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, Gauge, GaugeVec, Opts, Registry, TextEncoder};

use crate::registry::metrics::{daemon, metric};

/// The daemon's own metrics.
pub struct DaemonMetrics {
    registry: Registry,
    scrape_duration_seconds: Gauge,
    reload_successful: Gauge,
    reload_timestamp_seconds: Gauge,
}

impl DaemonMetrics {
    /// Registers them, with what is known at the start.
    pub fn new(version: &str, revision: &str) -> prometheus::Result<DaemonMetrics> {
        let registry = Registry::new();
        let build_info = GaugeVec::new(
            opts(daemon::BUILD_INFO),
            metric(daemon::BUILD_INFO).map_or(&[], |metric| metric.labels),
        )?;
        build_info.with_label_values(&[version, revision]).set(1.0);
        registry.register(Box::new(build_info))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let gauge = |name| {
            let gauge = Gauge::with_opts(opts(name))?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let scrape_duration_seconds = gauge(daemon::SCRAPE_DURATION)?;
        let reload_successful = gauge(daemon::RELOAD_SUCCESSFUL)?;
        let reload_timestamp_seconds = gauge(daemon::RELOAD_TIME)?;
        Ok(DaemonMetrics { registry, scrape_duration_seconds, reload_successful, reload_timestamp_seconds })
    }

    /// A configuration was accepted.
    pub fn reloaded(&self, unix_seconds: f64) {
        self.reload_successful.set(1.0);
        self.reload_timestamp_seconds.set(unix_seconds);
    }

    /// A configuration was refused; the one before stays in force.
    pub fn reload_failed(&self) {
        self.reload_successful.set(0.0);
    }

    /// A scrape took so long.
    pub(super) fn scraped(&self, seconds: f64) {
        self.scrape_duration_seconds.set(seconds);
    }

    /// Their text, and the number of samples in it.
    pub(super) fn encode(&self) -> prometheus::Result<(Vec<u8>, u64)> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        let samples =
            text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
        Ok((text, samples as u64))
    }
}

/// Name and help as the table has them.
fn opts(name: &'static str) -> Opts {
    Opts::new(name, metric(name).map_or(name, |metric| metric.help))
}
