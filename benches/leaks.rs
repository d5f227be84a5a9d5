//! How soon leaks are seen, and how often something is taken for one: simulated days of several workloads, with leaks and without.
//!
//! The idea is that only the clock is simulated. Buffers go into a real registry, at times of the simulation, and what is judged is what
//! the daemon judges: the census of a process, every ten seconds.

use std::collections::BinaryHeap;
use std::cmp::Reverse;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::analysis::{Detector, Sighting};
use crate::registry::{Identity, MemoryType, Process, ProcessInfo, Registry, Source, Suspicion};

const SECOND_NS: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;
/// How often the daemon looks.
const LOOK_SECONDS: u64 = 10;

/// What a simulated process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Workload {
    /// Loads a model in a minute, then serves: work of seconds, a load that rises and falls by half over six hours.
    Server,
    /// The same with sessions of a quarter of an hour on average, which hold more the longer they last.
    Sessions,
    /// Steps of a second, an evaluation of five minutes each half hour.
    Training,
    /// A cache that misses ever more rarely, and is full after about an hour.
    Cache,
    /// A new model every two hours, of which the one before is unloaded after a minute.
    Reloads,
    /// Three models, one an hour, each loaded in five minutes.
    Models,
}

impl Workload {
    pub(crate) const ALL: [Workload; 6] = [
        Workload::Server,
        Workload::Sessions,
        Workload::Training,
        Workload::Cache,
        Workload::Reloads,
        Workload::Models,
    ];

    fn name(self) -> &'static str {
        match self {
            Workload::Server => "server",
            Workload::Sessions => "sessions",
            Workload::Training => "training",
            Workload::Cache => "cache",
            Workload::Reloads => "reloads",
            Workload::Models => "models",
        }
    }
}

/// What a process forgets, beside its work.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Leak {
    /// How fast, on average.
    pub(crate) bytes_per_minute: f64,
    /// In buffers of which size.
    pub(crate) buffer_bytes: u64,
    /// From when on.
    pub(crate) start_seconds: u64,
}

/// A process, its clock and what it will free.
struct Simulation {
    registry: Registry,
    process: Arc<Process>,
    workload: Workload,
    random: Random,
    seconds: u64,
    next_id: u64,
    /// When which buffer is freed.
    ends: BinaryHeap<Reverse<(u64, u64)>>,
    cached: u64,
    leaked_bytes: f64,
}

impl Simulation {
    fn new(workload: Workload, seed: u64) -> Simulation {
        let registry = Registry::new(0);
        let identity = Identity { pid: 1, start_ticks: 1 };
        let info = ProcessInfo {
            name: workload.name().to_owned(),
            uid: 0,
            user: "root".to_owned(),
            cgroup: None,
            container: None,
            start_time_seconds: None,
            source: Source::Socket,
        };
        let process = registry.process(identity, 0, info);
        let random = Random { state: FixedState::with_seed(seed), count: 0 };
        let ends = BinaryHeap::new();
        Simulation { registry, process, workload, random, seconds: 0, next_id: 0, ends, cached: 0, leaked_bytes: 0.0 }
    }

    /// A second of it.
    fn step(&mut self, leak: Option<Leak>) {
        self.release();
        match self.workload {
            Workload::Server => self.serve(),
            Workload::Sessions => self.serve_sessions(),
            Workload::Training => self.train(),
            Workload::Cache => self.cache(),
            Workload::Reloads => self.reload(),
            Workload::Models => self.load_models(),
        }
        if let Some(leak) = leak.filter(|leak| self.seconds >= leak.start_seconds) {
            self.forget(leak);
        }
        self.seconds += 1;
    }

    fn release(&mut self) {
        let mut batch = self.registry.batch(&self.process, self.seconds * SECOND_NS);
        while let Some(Reverse((end, id))) = self.ends.peek().copied().filter(|Reverse((end, _))| *end <= self.seconds) {
            debug_assert!(end <= self.seconds);
            self.ends.pop();
            batch.free(0, id).expect("it was allocated");
        }
    }

    /// Allocates a buffer that lives for so many seconds, or for ever.
    fn hold(&mut self, size_bytes: u64, lifetime_seconds: Option<f64>) {
        self.next_id += 1;
        let mut batch = self.registry.batch(&self.process, self.seconds * SECOND_NS);
        batch.allocate(0, MemoryType::Dram, self.next_id, size_bytes).expect("there is no limit");
        if let Some(lifetime) = lifetime_seconds {
            // A simulated lifetime is far below 2^64 seconds.
            let end = self.seconds + (lifetime as u64).max(1);
            self.ends.push(Reverse((end, self.next_id)));
        }
    }

    /// Half of the load comes and goes within six hours.
    fn load(&self) -> f64 {
        1.0 + 0.5 * (self.seconds as f64 / (6.0 * 3600.0) * std::f64::consts::TAU).sin()
    }

    fn load_weights(&mut self, since: u64, during_seconds: u64, lifetime_seconds: Option<f64>) {
        if self.seconds.wrapping_sub(since) < during_seconds {
            for _ in 0..240 / during_seconds.min(240) {
                self.hold(32 * MIB, lifetime_seconds);
            }
        }
    }

    fn serve(&mut self) {
        self.load_weights(0, 60, None);
        for _ in 0..self.random.poisson(5.0 * self.load()) {
            let size_bytes = 65_536 << self.random.below(5);
            let lifetime = self.random.exponential(4.0);
            self.hold(size_bytes, Some(lifetime));
        }
    }

    fn serve_sessions(&mut self) {
        self.load_weights(0, 60, None);
        for _ in 0..self.random.poisson(0.2 * self.load()) {
            let lifetime = self.random.exponential(900.0);
            // What a session holds grows with it: half of it comes later.
            for _ in 0..4 {
                self.hold(2 * MIB, Some(lifetime));
            }
        }
    }

    fn train(&mut self) {
        self.load_weights(0, 120, None);
        for _ in 0..6 {
            self.hold(24 * MIB, Some(1.0));
        }
        if self.seconds % 1800 < 20 {
            for _ in 0..4 {
                self.hold(8 * MIB, Some(300.0));
            }
        }
    }

    fn cache(&mut self) {
        const ENTRIES: u64 = 4000;
        self.load_weights(0, 60, None);
        let miss_rate = 2.0 * (1.0 - self.cached as f64 / ENTRIES as f64);
        let misses = self.random.poisson(miss_rate).min(ENTRIES - self.cached);
        for _ in 0..misses {
            self.hold(512 << 10, None);
        }
        self.cached += misses;
    }

    fn reload(&mut self) {
        let since = self.seconds / 7200 * 7200;
        self.load_weights(since, 60, Some(7260.0));
        self.serve();
    }

    fn load_models(&mut self) {
        let since = self.seconds / 3600 * 3600;
        if self.seconds < 3 * 3600 {
            self.load_weights(since, 300, None);
        }
    }

    fn forget(&mut self, leak: Leak) {
        self.leaked_bytes += leak.bytes_per_minute / 60.0 * self.random.exponential(1.0);
        while self.leaked_bytes >= leak.buffer_bytes as f64 {
            self.leaked_bytes -= leak.buffer_bytes as f64;
            self.hold(leak.buffer_bytes, None);
        }
    }

    fn look(&self, detector: &mut Detector) -> Vec<Suspicion> {
        let now_ns = self.seconds * SECOND_NS;
        let (process, memory) = (Arc::clone(&self.process), self.process.memory());
        let classes = process.census(now_ns);
        detector.look(&[Sighting { process, memory, classes }], now_ns)
    }
}

/// A generator whose numbers follow from a seed alone: the hash of how many there were.
struct Random {
    state: FixedState,
    count: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.state.hash_one(self.count)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Above 0, up to 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        let (floor, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > floor {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// What became of a simulated process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Outcome {
    /// When it was first suspected, after its leak began or, without one, after its start.
    pub(crate) suspected_after_seconds: Option<u64>,
    /// How long it was suspected without a leak.
    pub(crate) falsely_seconds: u64,
    /// How often a suspicion arose without a leak.
    pub(crate) false_alarms: u32,
}

/// Runs a workload for so many hours.
pub(crate) fn simulate(workload: Workload, leak: Option<Leak>, seed: u64, hours: u64) -> Outcome {
    let mut simulation = Simulation::new(workload, seed);
    let mut detector = Detector::default();
    let mut outcome = Outcome { suspected_after_seconds: None, falsely_seconds: 0, false_alarms: 0 };
    let mut was_suspected = false;
    while simulation.seconds < hours * 3600 {
        simulation.step(leak);
        if simulation.seconds % LOOK_SECONDS != 0 {
            continue;
        }
        let is_suspected = simulation.look(&mut detector).iter().any(Suspicion::is_suspected);
        let leaks_since = leak.map_or(u64::MAX, |leak| leak.start_seconds);
        if is_suspected && simulation.seconds >= leaks_since {
            outcome.suspected_after_seconds.get_or_insert(simulation.seconds - leaks_since);
        } else if is_suspected {
            outcome.falsely_seconds += LOOK_SECONDS;
            outcome.false_alarms += u32::from(!was_suspected);
        }
        was_suspected = is_suspected;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore]
    fn detail() {
        for workload in [Workload::Models, Workload::Sessions, Workload::Cache] {
            let mut simulation = Simulation::new(workload, 1);
            let mut detector = Detector::default();
            let mut was = String::new();
            while simulation.seconds < 12 * 3600 {
                simulation.step(None);
                if simulation.seconds % 10 == 0 {
                    let s = simulation.look(&mut detector);
                    let now = s.iter().filter(|s| s.is_suspected()).map(|s| format!("{:.2} {}", s.score, s.evidence)).collect::<String>();
                    if now != was { println!("{workload:?} {}: {now}", simulation.seconds / 60); was = now; }
                }
            }
        }
    }

    #[test]
    #[ignore]
    fn explore() {
        for workload in Workload::ALL {
            let o: Vec<_> = (0..3).map(|seed| simulate(workload, None, seed, 12)).collect();
            println!("{workload:?} none: alarms {:?} falsely {:?}", o.iter().map(|o| o.false_alarms).collect::<Vec<_>>(), o.iter().map(|o| o.falsely_seconds / 60).collect::<Vec<_>>());
            for (rate, size) in [(0.1, 65536), (1.0, 65536), (10.0, 1 << 20), (1.0, 1 << 20), (10.0, 32 << 20)] {
                for start in [0, 3 * 3600] {
                    let leak = Leak { bytes_per_minute: rate * MIB as f64, buffer_bytes: size, start_seconds: start };
                    let o: Vec<_> = (0..3).map(|seed| simulate(workload, Some(leak), seed, 12).suspected_after_seconds.map(|s| s / 60)).collect();
                    println!("{workload:?} {rate} MiB/min {size} from {start}: minutes {o:?}");
                }
            }
        }
    }
}
