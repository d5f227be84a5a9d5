//! Looks at everything that is held, again and again, and tells the registry what seems to leak.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::analysis::{Detector, Sighting};
use crate::clock;
use crate::registry::{Registry, Time};

/// How often. A million buffers are counted in some milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Starts it. It ends when it is stopped, or whoever could do so is gone.
pub fn start(registry: Arc<Registry>, mut stopping: watch::Receiver<bool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("ttmem-analyst".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut detector = Detector::default();
            let mut look = tokio::time::interval(LOOK_INTERVAL);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = stopping.wait_for(|stop| *stop) => break,
                    _ = look.tick() => observe(&registry, &mut detector),
                }
            }
        });
    })?;
    Ok(())
}

fn observe(registry: &Registry, detector: &mut Detector) {
    let (monotonic_ns, unix_ns) = clock::now();
    let snapshot = registry.snapshot(Time { monotonic_ns, unix_ns });
    let living = snapshot.processes.into_iter().filter(|process| !process.has_ended);
    let sightings: Vec<_> = living
        .map(|seen| {
            let classes = seen.process.census(monotonic_ns);
            Sighting { process: seen.process, memory: seen.memory, classes }
        })
        .collect();
    registry.suspect(detector.look(&sightings, monotonic_ns));
}
