//! The accounts of the signals as metrics of the daemon.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::Outboxes;
use super::account::{Account, DropReason, FailureReason};
use crate::registry::metrics::{daemon, metric};

/// Makes families from the accounts as they are when somebody asks.
pub(super) struct OwnMetrics {
    outboxes: Outboxes,
    /// For the registry, which wants to know the families beforehand.
    descriptions: Vec<Desc>,
}

/// The families, filled.
struct Families {
    exported: IntCounterVec,
    dropped: IntCounterVec,
    failures: IntCounterVec,
    queue_items: IntGaugeVec,
    queue_bytes: IntGaugeVec,
}

impl OwnMetrics {
    pub(super) fn new(outboxes: Outboxes) -> prometheus::Result<OwnMetrics> {
        let families = Families::new()?;
        let descriptions = families.all().iter().flat_map(|family| family.desc()).cloned().collect();
        Ok(OwnMetrics { outboxes, descriptions })
    }
}

impl Collector for OwnMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // They could be made before, and nothing about them has changed.
        let Ok(families) = Families::new() else { return Vec::new() };
        for (signal, account) in self.outboxes.accounts() {
            families.fill(signal, &account);
        }
        families.all().iter().flat_map(|family| family.collect()).collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let labels = |name: &str| metric(name).map_or(&[][..], |metric| metric.labels);
        let opts = |name: &str| Opts::new(name, metric(name).map_or(name, |metric| metric.help));
        let counter = |name| IntCounterVec::new(opts(name), labels(name));
        let gauge = |name| IntGaugeVec::new(opts(name), labels(name));
        Ok(Families {
            exported: counter(daemon::OTLP_EXPORTED)?,
            dropped: counter(daemon::OTLP_DROPPED)?,
            failures: counter(daemon::OTLP_FAILURES)?,
            queue_items: gauge(daemon::OTLP_QUEUE_ITEMS)?,
            queue_bytes: gauge(daemon::OTLP_QUEUE_BYTES)?,
        })
    }

    fn all(&self) -> [&dyn Collector; 5] {
        [&self.exported, &self.dropped, &self.failures, &self.queue_items, &self.queue_bytes]
    }

    fn fill(&self, signal: &str, account: &Account) {
        self.exported.with_label_values(&[signal]).inc_by(account.exported);
        for reason in DropReason::ALL {
            let dropped = account.dropped_for(*reason);
            self.dropped.with_label_values(&[signal, reason.name()]).inc_by(dropped);
        }
        for reason in FailureReason::ALL {
            let failures = account.failures_for(*reason);
            self.failures.with_label_values(&[signal, reason.name()]).inc_by(failures);
        }
        self.queue_items.with_label_values(&[signal]).set(account.held.items.cast_signed());
        self.queue_bytes.with_label_values(&[signal]).set(account.held.bytes.cast_signed());
    }
}
