//! The one place where the past begins: a snapshot every second, for whoever keeps or judges what comes after one another.
//!
//! Everything that looks at the course of things listens here, so that all of it has seen the same moments.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock;
use crate::registry::{Registry, Snapshot, Time};

/// The time between two samples.
pub const SAMPLE_INTERVAL_MS: u64 = 1000;
const INTERVAL_NS: u64 = SAMPLE_INTERVAL_MS * 1_000_000;
/// Samples are taken in the middle of the clock's seconds: one that comes a little late still belongs to its own second.
const PHASE_NS: u64 = INTERVAL_NS / 2;

/// Whoever hears of every sample. It runs on the sampler's thread and must not wait.
pub type Listener = Box<dyn FnMut(&Snapshot) + Send>;

/// The running sampler.
pub struct Sampler {
    /// Gone, it stops the thread.
    stop: mpsc::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Sampler {
    /// Starts to sample a registry.
    pub fn start(registry: Arc<Registry>, mut listeners: Vec<Listener>) -> io::Result<Sampler> {
        let (stop, stopping) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("ttmem-sampler".to_owned()).spawn(move || {
            let pause = || Duration::from_nanos(pause_ns(clock::unix_ns()));
            let mut goes_on = true;
            while goes_on {
                goes_on = stopping.recv_timeout(pause()) == Err(RecvTimeoutError::Timeout);
                // A last one when it is stopped, so that nothing that happened before is missing.
                let (monotonic_ns, unix_ns) = clock::now();
                let snapshot = registry.snapshot(Time { monotonic_ns, unix_ns });
                listeners.iter_mut().for_each(|listener| listener(&snapshot));
            }
            // What the listeners hold ends with them, before anybody is told.
            drop(listeners);
            // Whoever stops it may have given up waiting.
            let _ = end.send(());
        })?;
        Ok(Sampler { stop, ended })
    }

    /// Takes a last sample.
    pub async fn stop(self) {
        drop(self.stop);
        // The thread's end, however it came about.
        let _ = self.ended.await;
    }
}

/// How long to wait for the middle of the next second; a wait that ended a little early does not sample twice.
fn pause_ns(unix_ns: u64) -> u64 {
    let since_ns = (unix_ns + INTERVAL_NS - PHASE_NS) % INTERVAL_NS;
    let pause_ns = INTERVAL_NS - since_ns;
    if pause_ns < INTERVAL_NS / 10 { pause_ns + INTERVAL_NS } else { pause_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_in_the_middle_of_seconds() {
        let check = |now_ms: u64, expected_ms: u64| {
            assert_eq!(now_ms + pause_ns(now_ms * 1_000_000) / 1_000_000, expected_ms, "{now_ms}");
        };
        check(10_000, 10_500);
        check(10_500, 11_500);
        check(10_501, 11_500);
        check(11_400, 11_500);
        check(11_499, 12_500);
    }
}
