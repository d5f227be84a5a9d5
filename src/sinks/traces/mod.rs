//! What happens, told as OpenTelemetry's traces and logs: from the registry's feed to the outboxes of the export.
//!
//! In the order of the data: `recorder` (occurrences to spans and log records) and, for each process, its `story`. All of it runs on a
//! thread of its own.

mod recorder;
mod story;

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};

pub use recorder::RecorderPolicy;

use super::otlp::Outboxes;
use crate::clock;
use crate::registry::{FEED_OCCURRENCES_MAX, Occurrence, Omission, Registry, Time};
use crate::views::trace::Host;
use recorder::{Items, Recorder};

/// How often processes that live are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A process is not looked at in its first moments: what it says about its trace may not have come yet.
const YOUTH_NS: u64 = 1_000_000_000;

/// The running recorder.
pub struct Traces {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Traces {
    /// Starts to listen to a registry that tells.
    pub fn start(
        registry: Arc<Registry>,
        host: Arc<Host>,
        policy: RecorderPolicy,
        outboxes: Outboxes,
    ) -> io::Result<Traces> {
        let (stop, stopping) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let heard = Vec::with_capacity(FEED_OCCURRENCES_MAX);
        let listener = Listener { registry, recorder: Recorder::new(host, policy), outboxes, heard };
        thread::Builder::new().name("ttmem-traces".to_owned()).spawn(move || {
            runtime.block_on(listener.run(stopping));
            // Whoever stops it may have given up waiting.
            let _ = end.send(());
        })?;
        Ok(Traces { stop, ended })
    }

    /// Tells what is left, and ends the stories of the processes that live.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // The thread's end, however it came about.
        let _ = self.ended.await;
    }
}

struct Listener {
    registry: Arc<Registry>,
    recorder: Recorder,
    outboxes: Outboxes,
    heard: Vec<Occurrence>,
}

impl Listener {
    async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let registry = Arc::clone(&self.registry);
        loop {
            tokio::select! {
                biased;
                // A sender that is gone stops it too.
                _ = stopping.wait_for(|stop| *stop) => break,
                _ = look.tick() => self.look(),
                () = registry.news() => self.hear(),
            }
        }
        self.finish();
    }

    fn hear(&mut self) {
        let mut items = Items::default();
        self.registry.hear(&mut self.heard);
        let time = now();
        for occurrence in self.heard.drain(..) {
            self.recorder.hear(occurrence, time, &mut items);
        }
        self.hand_over(items);
    }

    fn look(&mut self) {
        let ended = self.recorder.ended();
        let time = now();
        let living = self.registry.settle(time.monotonic_ns);
        self.hear();
        let mut items = Items::default();
        self.recorder.end_lost(&ended, time, &mut items);
        self.recorder.look(&living, time, &mut items);
        self.hand_over(items);
    }

    fn finish(&mut self) {
        let time = now();
        let living = self.registry.settle(time.monotonic_ns);
        self.hear();
        let mut items = Items::default();
        self.recorder.stop(&living, time, &mut items);
        self.hand_over(items);
    }

    /// What finds no room in an outbox is dropped and counted there.
    fn hand_over(&self, items: Items) {
        if items.omitted > 0 {
            self.registry.events().omit(Omission::Rate, items.omitted);
        }
        if let Some(outbox) = &self.outboxes.traces {
            items.spans.into_iter().for_each(|span| {
                outbox.offer(span);
            });
        }
        if let Some(outbox) = &self.outboxes.logs {
            items.records.into_iter().for_each(|record| {
                outbox.offer(record);
            });
        }
    }
}

/// Which host this is, and which boot of it. One without an id is known by its name.
pub fn host() -> Host {
    let line = |path| fs::read_to_string(path).map(|content| content.trim().to_owned()).ok();
    let line = |path| line(path).filter(|line: &String| !line.is_empty());
    let name = line("/proc/sys/kernel/hostname").unwrap_or_else(|| "unknown".to_owned());
    Host {
        id: line("/etc/machine-id").unwrap_or_else(|| name.clone()),
        boot_id: line("/proc/sys/kernel/random/boot_id").unwrap_or_else(|| "unknown".to_owned()),
        name,
    }
}

fn now() -> Time {
    let (monotonic_ns, unix_ns) = clock::now();
    Time { monotonic_ns, unix_ns }
}

#[cfg(test)]
mod tests;
