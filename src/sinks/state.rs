//! How it stands with what outlives the daemon, as metrics of the daemon.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge, Opts};

use super::http::DaemonMetrics;
use crate::journal::{Journal, JournalFigures};
use crate::registry::metrics::{daemon, metric};

/// Shows the figures of a journal from now on; where none could be begun, that nothing is kept.
pub fn show(journal: Option<Arc<Journal>>, metrics: &DaemonMetrics) -> prometheus::Result<()> {
    let Some(journal) = journal else {
        return metrics.register(Box::new(IntGauge::with_opts(opts(daemon::STATE_KEPT))?));
    };
    let descriptions = Families::new()?.all().iter().flat_map(|family| family.desc()).cloned().collect();
    metrics.register(Box::new(StateMetrics { journal, descriptions }))
}

/// Makes families from the figures as they are when somebody asks.
struct StateMetrics {
    journal: Arc<Journal>,
    /// For the registry, which wants to know the families beforehand.
    descriptions: Vec<Desc>,
}

struct Families {
    is_on: IntGauge,
    journal_bytes: IntGauge,
    checkpoint_bytes: IntGauge,
    checkpoint_duration: Gauge,
    checkpoint_time: Gauge,
    failures: IntCounter,
    damaged: IntCounter,
    recovery_duration: Gauge,
}

fn opts(name: &str) -> Opts {
    Opts::new(name, metric(name).map_or(name, |metric| metric.help))
}

impl Collector for StateMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // They could be made before, and nothing about them has changed.
        let Ok(families) = Families::new() else { return Vec::new() };
        families.fill(&self.journal.figures());
        families.all().iter().flat_map(|family| family.collect()).collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        Ok(Families {
            is_on: IntGauge::with_opts(opts(daemon::STATE_KEPT))?,
            journal_bytes: IntGauge::with_opts(opts(daemon::STATE_JOURNAL_BYTES))?,
            checkpoint_bytes: IntGauge::with_opts(opts(daemon::STATE_CHECKPOINT_BYTES))?,
            checkpoint_duration: Gauge::with_opts(opts(daemon::STATE_CHECKPOINT_DURATION))?,
            checkpoint_time: Gauge::with_opts(opts(daemon::STATE_CHECKPOINT_TIME))?,
            failures: IntCounter::with_opts(opts(daemon::STATE_FAILURES))?,
            damaged: IntCounter::with_opts(opts(daemon::STATE_DAMAGED))?,
            recovery_duration: Gauge::with_opts(opts(daemon::STATE_RECOVERY_DURATION))?,
        })
    }

    fn all(&self) -> [&dyn Collector; 8] {
        [
            &self.is_on,
            &self.journal_bytes,
            &self.checkpoint_bytes,
            &self.checkpoint_duration,
            &self.checkpoint_time,
            &self.failures,
            &self.damaged,
            &self.recovery_duration,
        ]
    }

    fn fill(&self, figures: &JournalFigures) {
        self.is_on.set(i64::from(figures.is_on));
        self.journal_bytes.set(figures.journal_bytes.cast_signed());
        self.checkpoint_bytes.set(figures.checkpoint_bytes.cast_signed());
        self.checkpoint_duration.set(figures.checkpoint_seconds);
        self.checkpoint_time.set(figures.checkpoint_unix_seconds);
        self.failures.inc_by(figures.failures);
        self.damaged.inc_by(figures.damaged_files);
        self.recovery_duration.set(figures.recovery_seconds);
    }
}
