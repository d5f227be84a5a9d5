//! The metrics that the daemon keeps about itself, in the `prometheus` crate: their number is fixed and nobody waits for them.

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::registry::metrics::{Kind, Value, daemon, metric};
use crate::views::exposition::{Exposition, FamilyHead, Selection};

/// The daemon's own metrics.
pub struct DaemonMetrics {
    registry: Registry,
    scrape_duration_seconds: Gauge,
    reload_successful: Gauge,
    reload_timestamp_seconds: Gauge,
    started_seconds: f64,
    reloads: Mutex<Reloads>,
}

/// How the last reading of each part of the configuration went; the metric says whether both went well.
struct Reloads {
    is_settings_ok: bool,
    is_web_ok: bool,
}

impl DaemonMetrics {
    /// Registers them, with what is known at the start; the time is in seconds since the epoch.
    pub fn new(version: &str, revision: &str, started_seconds: f64) -> prometheus::Result<DaemonMetrics> {
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
        Ok(DaemonMetrics {
            registry,
            scrape_duration_seconds,
            reload_successful,
            reload_timestamp_seconds,
            started_seconds,
            reloads: Mutex::new(Reloads { is_settings_ok: true, is_web_ok: true }),
        })
    }

    /// Says once which layers of the sandbox are in force.
    pub fn sandboxed(&self, layers: &[(&str, bool)]) -> prometheus::Result<()> {
        let labels = metric(daemon::SANDBOX).map_or(&[][..], |metric| metric.labels);
        let active = GaugeVec::new(opts(daemon::SANDBOX), labels)?;
        for (layer, is_active) in layers {
            active.with_label_values(&[layer]).set(f64::from(u8::from(*is_active)));
        }
        self.register(Box::new(active))
    }

    /// Metrics that another part of the daemon keeps.
    pub(in crate::sinks) fn register(&self, collector: Box<dyn Collector>) -> prometheus::Result<()> {
        self.registry.register(collector)
    }

    /// The settings were accepted.
    pub fn reloaded(&self, unix_seconds: f64) {
        self.tell(|reloads| reloads.is_settings_ok = true);
        self.reload_timestamp_seconds.set(unix_seconds);
    }

    /// The settings were refused; those before stay in force.
    pub fn reload_failed(&self) {
        self.tell(|reloads| reloads.is_settings_ok = false);
    }

    /// The web configuration was accepted.
    pub(super) fn web_reloaded(&self, unix_seconds: f64) {
        self.tell(|reloads| reloads.is_web_ok = true);
        self.reload_timestamp_seconds.set(unix_seconds);
    }

    /// The web configuration was refused; the one before stays in force.
    pub(super) fn web_reload_failed(&self) {
        self.tell(|reloads| reloads.is_web_ok = false);
    }

    fn tell(&self, change: impl FnOnce(&mut Reloads)) {
        let mut reloads = self.reloads.lock();
        change(&mut reloads);
        self.reload_successful.set(f64::from(u8::from(reloads.is_settings_ok && reloads.is_web_ok)));
    }

    /// A scrape took so long.
    pub(super) fn scraped(&self, seconds: f64) {
        self.scrape_duration_seconds.set(seconds);
    }

    /// The sum of the samples that one of some families has, by its name; `None` where it has none.
    pub(super) fn values(&self) -> impl Fn(&str) -> Option<f64> {
        let families = self.registry.gather();
        move |name| {
            let family = families.iter().find(|family| family.name() == name)?;
            let is_counter = family.get_field_type() == MetricType::COUNTER;
            let value = |metric: &Metric| {
                if is_counter { metric.get_counter().get_value() } else { metric.get_gauge().get_value() }
            };
            Some(family.get_metric().iter().map(value).sum())
        }
    }

    /// Their values now, those that are wanted.
    pub(super) fn gather(&self, selection: &Selection) -> Gathered {
        let mut families = self.registry.gather();
        families.retain(|family| selection.wants(family.name()));
        Gathered { families, started_seconds: self.started_seconds }
    }
}

/// Values of the daemon's own metrics at one instant.
pub(super) struct Gathered {
    families: Vec<MetricFamily>,
    started_seconds: f64,
}

impl Gathered {
    /// How many samples they are in a format.
    pub(super) fn samples<E: Exposition>(&self, format: &E) -> u64 {
        let samples = |family: &MetricFamily| {
            let created = format.has_created_samples() && family.get_field_type() == MetricType::COUNTER;
            family.get_metric().len() as u64 * if created { 2 } else { 1 }
        };
        self.families.iter().map(samples).sum()
    }

    /// Appends them to an exposition.
    pub(super) fn write<E: Exposition>(&self, to: &mut E) {
        for family in &self.families {
            // The crate's collectors have no other types.
            let is_counter = family.get_field_type() == MetricType::COUNTER;
            let kind = if is_counter { Kind::Counter } else { Kind::Gauge };
            to.family(&FamilyHead::new(family.name(), family.help(), kind));
            for metric in family.get_metric() {
                let pairs: Vec<_> =
                    metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                let value = if is_counter {
                    metric.get_counter().get_value()
                } else {
                    metric.get_gauge().get_value()
                };
                to.sample(&E::labels(&pairs), Value::Float(value), self.started_seconds);
            }
        }
    }
}

/// Name and help as the table has them.
fn opts(name: &'static str) -> Opts {
    Opts::new(name, metric(name).map_or(name, |metric| metric.help))
}
