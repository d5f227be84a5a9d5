//! The one thread that writes: samples in, rows out. Whatever goes wrong on the disk stays here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

use tracing::{error, info, warn};

use super::account::{Account, Miss};
use super::events::{Event, Events, Unwritten};
use super::retention::Retention;
use super::rollup::Rollup;
use super::sample::Sample;
use super::store::{self, Store, StoreError, Trouble};
use crate::clock;
use crate::throttle::Throttle;

/// After a failure, the next attempt: soon enough for a disk that somebody clears, and no load on one that is not.
const RETRY_MS: u64 = 10_000;
/// How often the past is forgotten.
const PRUNE_MS: u64 = 60_000;
/// Points that wait for a disk that fails, about fifty megabytes: a minute and more of a busy host, an hour of a small one.
const POINTS_MAX: usize = 200_000;
/// Events that wait likewise.
const EVENTS_MAX: usize = 20_000;

const NS_PER_MS: u64 = 1_000_000;

/// What the thread works with.
pub(super) struct Worker {
    pub(super) directory: PathBuf,
    pub(super) boot: String,
    pub(super) retention: Retention,
    pub(super) account: Arc<Account>,
    rollup: Rollup,
    events: Events,
    unwritten: Unwritten,
    store: Option<Store>,
    /// Monotonic milliseconds.
    retry_at_ms: u64,
    prune_at_ms: u64,
    /// Until the database has been opened once, nobody has been told that the daemon started.
    is_announced: bool,
    throttle: Throttle,
}

impl Worker {
    pub(super) fn new(
        directory: PathBuf,
        boot: String,
        retention: Retention,
        account: Arc<Account>,
    ) -> Worker {
        Worker {
            directory,
            boot,
            retention,
            account,
            rollup: Rollup::default(),
            events: Events::default(),
            unwritten: Unwritten::default(),
            store: None,
            retry_at_ms: 0,
            prune_at_ms: 0,
            is_announced: false,
            throttle: Throttle::default(),
        }
    }

    /// Writes until nobody samples any more.
    pub(super) fn run(mut self, samples: &Receiver<Sample>) {
        self.write(clock::monotonic_ns() / NS_PER_MS, clock::unix_ns() / NS_PER_MS);
        for sample in samples {
            self.account.queue_items.fetch_sub(1, Relaxed);
            self.take(&sample);
        }
        self.finish();
    }

    fn take(&mut self, sample: &Sample) {
        let spans = self.rollup.take(sample);
        self.unwritten.spans.extend(spans.into_iter().filter(|span| self.retention.keeps(span.tier)));
        self.unwritten.events.extend(self.events.take(sample));
        let (now_ms, unix_ms) = (sample.time.monotonic_ns / NS_PER_MS, sample.time.unix_ns / NS_PER_MS);
        if now_ms >= self.retry_at_ms {
            self.write(now_ms, unix_ms);
        }
        self.trim();
    }

    fn finish(mut self) {
        let (now_ms, unix_ms) = (clock::monotonic_ns() / NS_PER_MS, clock::unix_ns() / NS_PER_MS);
        let spans = self.rollup.finish();
        self.unwritten.spans.extend(spans.into_iter().filter(|span| self.retention.keeps(span.tier)));
        self.unwritten.events.extend(self.events.finish());
        self.unwritten.events.push(Event::stopped(unix_ms));
        self.write(now_ms, unix_ms);
        if let Some(mut store) = self.store.take()
            && let Err(error) = store.write_series_times().and_then(|()| store.close())
        {
            warn!(directory = %self.directory.display(), %error, "the history was not closed in order");
        }
    }

    /// Writes what waits. One damaged file is set aside, and the next one written to.
    fn write(&mut self, now_ms: u64, unix_ms: u64) {
        let mut written = self.try_write(now_ms, unix_ms);
        if let Err(error) = &written
            && error.trouble() == Trouble::Unusable
        {
            self.account.fail(Trouble::Unusable);
            self.store = None;
            written = match store::set_aside(&self.directory, unix_ms / 1000) {
                Ok(aside) => {
                    error!(file = %aside.display(), %error, "the history cannot be used; it was set aside under this name");
                    self.is_announced = false;
                    self.try_write(now_ms, unix_ms)
                }
                Err(failure) => Err(failure.into()),
            };
        }
        let Err(error) = written else { return };
        self.retry_at_ms = now_ms + RETRY_MS;
        self.account.fail(error.trouble());
        if let Some(suppressed) = self.throttle.admit("history", now_ms * NS_PER_MS) {
            let file = self.directory.join(store::FILE_NAME);
            warn!(file = %file.display(), %error, suppressed, "the history cannot be written; trying again");
        }
    }

    fn try_write(&mut self, now_ms: u64, unix_ms: u64) -> Result<(), StoreError> {
        if self.store.is_none() {
            self.store = Some(Store::open(&self.directory, &self.boot)?);
        }
        let Some(store) = &mut self.store else { return Ok(()) };
        if !self.is_announced {
            let started = Event::started(env!("CARGO_PKG_VERSION"), store.predecessor()?, unix_ms);
            self.unwritten.events.insert(0, started);
            self.is_announced = true;
            info!(file = %self.directory.join(store::FILE_NAME).display(), "keeping history");
        }
        let written = store.append(&self.unwritten)?;
        self.unwritten = Unwritten::default();
        self.account.wrote(&written, unix_ms);
        if now_ms >= self.prune_at_ms {
            store.prune(&self.retention, unix_ms)?;
            self.prune_at_ms = now_ms + PRUNE_MS;
        }
        self.account.size_bytes.store(store.size_bytes(), Relaxed);
        Ok(())
    }

    /// Lets go of the oldest where too much waits.
    fn trim(&mut self) {
        let Unwritten { spans, events } = &mut self.unwritten;
        let mut points: usize = spans.iter().map(|span| span.points.len()).sum();
        let mut excess_spans = 0;
        while points > POINTS_MAX {
            points -= spans[excess_spans].points.len();
            excess_spans += 1;
        }
        let dropped: usize = spans.drain(..excess_spans).map(|span| span.points.len()).sum();
        let excess_events = events.len().saturating_sub(EVENTS_MAX);
        events.drain(..excess_events);
        self.account.miss(Miss::Storage, (dropped + excess_events) as u64);
    }
}
