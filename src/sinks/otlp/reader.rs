//! Reads the metrics at their interval and puts them into the outbox.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::Metric;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::outbox::Outbox;
use crate::config::{OtlpConfig, OtlpHistograms, OtlpTemporality};
use crate::sinks::http::Sources;
use crate::views::otlp::{Baseline, Choices, Readings};

/// Reads what a scrape would be told.
pub(super) struct Reader {
    sources: Arc<Sources>,
    outbox: Arc<Outbox<Metric>>,
    interval: Duration,
    choices: Choices,
    baseline: Baseline,
}

impl Reader {
    pub(super) fn new(config: &OtlpConfig, sources: Arc<Sources>, outbox: Arc<Outbox<Metric>>) -> Reader {
        let choices = Choices {
            has_delta_counters: config.temporality == OtlpTemporality::Delta,
            has_delta_histograms: config.temporality != OtlpTemporality::Cumulative,
            has_explicit_bounds: config.histograms == OtlpHistograms::Explicit,
        };
        let interval = Duration::from_millis(config.metric_interval_ms);
        Reader { sources, outbox, interval, choices, baseline: Baseline::default() }
    }

    /// Runs until the export stops, and then reads once more: the end of a short life is told too.
    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut interval = tokio::time::interval(self.interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => self.read(),
                _ = stopping.wait_for(|stop| *stop) => return self.read(),
            }
        }
    }

    /// Where there is no room for all of a reading it is dropped whole, and the next difference begins where this one would have.
    fn read(&mut self) {
        let make = |snapshot: &_| Readings::new(snapshot, self.choices, &self.baseline);
        let (metrics, next) = self.sources.write_to(make).finish();
        if self.outbox.offer_all(metrics) {
            self.baseline = next;
        }
    }
}
