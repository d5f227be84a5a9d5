//! The history's account of itself: what was written, what was not, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts};

use super::store::{Trouble, Written};
use super::tier::Tier;
use crate::registry::metrics::{daemon, metric};

/// Why something is missing from the history: the `reason` label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Miss {
    /// A sample found the writer's queue full.
    Queue,
    /// Moments that happened faster than they are kept for the next sample.
    Moments,
    /// What could not be written for so long that no more could wait.
    Storage,
}

impl Miss {
    const ALL: [Miss; 3] = [Miss::Queue, Miss::Moments, Miss::Storage];

    const fn name(self) -> &'static str {
        match self {
            Miss::Queue => "queue",
            Miss::Moments => "moments",
            Miss::Storage => "storage",
        }
    }
}

/// Counters that the sampler and the writer raise.
#[derive(Default, Debug)]
pub(super) struct Account {
    samples: [AtomicU64; Tier::ALL.len()],
    events: AtomicU64,
    dropped: [AtomicU64; Miss::ALL.len()],
    errors: [AtomicU64; Trouble::ALL.len()],
    pub(super) queue_items: AtomicU64,
    pub(super) size_bytes: AtomicU64,
    last_write_ms: AtomicU64,
}

impl Account {
    pub(super) fn miss(&self, reason: Miss, count: u64) {
        self.dropped[reason as usize].fetch_add(count, Relaxed);
    }

    pub(super) fn fail(&self, trouble: Trouble) {
        self.errors[trouble as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn wrote(&self, written: &Written, unix_ms: u64) {
        for (counter, samples) in self.samples.iter().zip(written.samples) {
            counter.fetch_add(samples, Relaxed);
        }
        self.events.fetch_add(written.events, Relaxed);
        self.last_write_ms.store(unix_ms, Relaxed);
    }
}

/// Makes families from the account as it is when somebody asks.
pub(super) struct OwnMetrics {
    account: Arc<Account>,
    /// For the registry, which wants to know the families beforehand.
    descriptions: Vec<Desc>,
}

struct Families {
    samples: IntCounterVec,
    events: IntCounterVec,
    dropped: IntCounterVec,
    errors: IntCounterVec,
    queue_items: GaugeVec,
    size_bytes: GaugeVec,
    last_write_seconds: GaugeVec,
}

impl OwnMetrics {
    pub(super) fn new(account: Arc<Account>) -> prometheus::Result<OwnMetrics> {
        let families = Families::new()?;
        let descriptions = families.all().iter().flat_map(|family| family.desc()).cloned().collect();
        Ok(OwnMetrics { account, descriptions })
    }
}

impl Collector for OwnMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // They could be made before, and nothing about them has changed.
        let Ok(families) = Families::new() else { return Vec::new() };
        families.fill(&self.account);
        families.all().iter().flat_map(|family| family.collect()).collect()
    }
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let labels = |name: &str| metric(name).map_or(&[][..], |metric| metric.labels);
        let opts = |name: &str| Opts::new(name, metric(name).map_or(name, |metric| metric.help));
        let counter = |name| IntCounterVec::new(opts(name), labels(name));
        let gauge = |name| GaugeVec::new(opts(name), labels(name));
        Ok(Families {
            samples: counter(daemon::HISTORY_SAMPLES)?,
            events: counter(daemon::HISTORY_EVENTS)?,
            dropped: counter(daemon::HISTORY_DROPPED)?,
            errors: counter(daemon::HISTORY_ERRORS)?,
            queue_items: gauge(daemon::HISTORY_QUEUE_ITEMS)?,
            size_bytes: gauge(daemon::HISTORY_SIZE_BYTES)?,
            last_write_seconds: gauge(daemon::HISTORY_LAST_WRITE)?,
        })
    }

    fn all(&self) -> [&dyn Collector; 7] {
        let Families { samples, events, dropped, errors, queue_items, size_bytes, last_write_seconds } = self;
        [samples, events, dropped, errors, queue_items, size_bytes, last_write_seconds]
    }

    fn fill(&self, account: &Account) {
        for (tier, counter) in Tier::ALL.iter().zip(&account.samples) {
            self.samples.with_label_values(&[tier.name()]).inc_by(counter.load(Relaxed));
        }
        self.events.with_label_values::<&str>(&[]).inc_by(account.events.load(Relaxed));
        for (reason, counter) in Miss::ALL.iter().zip(&account.dropped) {
            self.dropped.with_label_values(&[reason.name()]).inc_by(counter.load(Relaxed));
        }
        for (trouble, counter) in Trouble::ALL.iter().zip(&account.errors) {
            self.errors.with_label_values(&[trouble.name()]).inc_by(counter.load(Relaxed));
        }
        self.queue_items.with_label_values::<&str>(&[]).set(account.queue_items.load(Relaxed) as f64);
        self.size_bytes.with_label_values::<&str>(&[]).set(account.size_bytes.load(Relaxed) as f64);
        // No write, no time.
        let last_ms = account.last_write_ms.load(Relaxed);
        if last_ms > 0 {
            self.last_write_seconds.with_label_values::<&str>(&[]).set(last_ms as f64 / 1000.0);
        }
    }
}
