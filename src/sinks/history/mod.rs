//! What was: usage and events in a database, so that somebody who comes at night can see who took the memory, and since when.
//!
//! In the order of the data: `sample` (what is taken of a snapshot), `worker` (the thread), `rollup` (samples to time spans, by `points`)
//! and `events`, `store` (what is written, by `schema`) and `retention`; then `archive`, which reads.

mod account;
mod archive;
mod events;
mod grid;
mod highest;
mod measure;
mod points;
mod request;
mod retention;
mod rollup;
mod sample;
mod schema;
mod store;
mod tier;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::oneshot;

use super::http::Sources;
use super::sampler::Listener;
use crate::config::HistoryConfig;
use crate::registry::Registry;
pub use archive::{Archive, ArchiveError, OpenArchive};
pub use highest::{HighestUsage, start_of_day_ms};
pub use request::{EventRequest, RangeRequest};

use account::{Account, Miss, OwnMetrics};
use retention::Retention;
use sample::Sample;
use worker::Worker;

/// Samples that may wait for the writer: a minute, longer than a disk stands still that works.
const SAMPLES_WAITING_MAX: usize = 60;

/// Why there is no history: the environment's fault, told at the start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread.
    #[error("cannot start the history's thread: {0}")]
    Thread(#[from] io::Error),
    /// Its metrics clash with others, which is a bug.
    #[error("cannot make metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The running history.
pub struct History {
    ended: oneshot::Receiver<()>,
}

impl History {
    /// Starts to write, and gives what has to hear of every sample. The history ends after that has been dropped.
    pub fn start(config: &HistoryConfig, sources: &Arc<Sources>) -> Result<(History, Listener), StartError> {
        let account = Arc::new(Account::default());
        sources.metrics.register(Box::new(OwnMetrics::new(Arc::clone(&account))?))?;
        let retention = Retention {
            keep_ms: config.limits.keep_seconds.map(|seconds| seconds.saturating_mul(1000)),
            size_bytes_max: config.limits.size_bytes_max,
        };
        let boot = sources.host.boot_id.clone();
        let worker = Worker::new(config.directory.clone(), boot, retention, Arc::clone(&account));
        let (samples, waiting) = sync_channel(SAMPLES_WAITING_MAX);
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("ttmem-history".to_owned()).spawn(move || {
            worker.run(&waiting);
            // Whoever stops it may have given up waiting.
            let _ = end.send(());
        })?;
        Ok((History { ended }, listener(Arc::clone(&sources.registry), samples, account)))
    }

    /// Waits until all is written.
    pub async fn stop(self) {
        // The thread's end, however it came about.
        let _ = self.ended.await;
    }
}

fn listener(registry: Arc<Registry>, samples: SyncSender<Sample>, account: Arc<Account>) -> Listener {
    Box::new(move |snapshot| {
        let (moments, lost) = registry.chronicle();
        account.miss(Miss::Moments, lost);
        // Counted before, so that the writer never takes off what has not been added.
        account.queue_items.fetch_add(1, Relaxed);
        match samples.try_send(Sample::of(snapshot, moments)) {
            Ok(()) => {}
            Err(TrySendError::Full(sample)) => {
                account.queue_items.fetch_sub(1, Relaxed);
                account.miss(Miss::Queue, 1);
                account.miss(Miss::Moments, sample.moments.len() as u64);
            }
            // The writer never ends before its samples do.
            Err(TrySendError::Disconnected(_)) => {}
        }
    })
}

#[cfg(test)]
mod tests;
