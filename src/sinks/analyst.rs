//! Looks at everything that is held, again and again, and tells the registry what seems to leak.

use std::sync::Arc;

use super::sampler::{Listener, SAMPLE_INTERVAL_MS};
use crate::analysis::{Detector, Sighting};
use crate::registry::{Detail, Registry, Snapshot};

/// How often, in samples: a million buffers are counted in some milliseconds.
const LOOK_SAMPLES: u64 = 10_000 / SAMPLE_INTERVAL_MS;

/// Whoever looks, for the sampler.
pub fn listener(registry: Arc<Registry>) -> Listener {
    let mut detector = Detector::default();
    let mut samples = 0;
    Box::new(move |snapshot| {
        if !registry.events().details().keeps(Detail::Leaks) {
            // What it remembers of every process goes; the search begins anew when there is memory again.
            detector = Detector::default();
            return registry.suspect(Vec::new());
        }
        samples += 1;
        if samples == LOOK_SAMPLES {
            samples = 0;
            registry.suspect(detector.look(&sightings(snapshot), snapshot.time.monotonic_ns));
        }
    })
}

fn sightings(snapshot: &Snapshot) -> Vec<Sighting> {
    let living = snapshot.processes.iter().filter(|process| !process.has_ended);
    let sightings = living.map(|seen| Sighting {
        process: Arc::clone(&seen.process),
        memory: seen.memory.clone(),
        classes: seen.process.census(snapshot.time.monotonic_ns),
    });
    sightings.collect()
}
