//! How soon leaks are seen, and how often something is taken for one: simulated days of several workloads and of one that was recorded,
//! with leaks and without.
//!
//! The idea is that only the clock is simulated. Buffers go into a real registry, at times of the simulation, and what is judged is what
//! the daemon judges: the census of a process, every ten seconds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::measure::Spread;
use super::recording::{Act, Playback};
use super::report::{Figure, Finding, Goal, Report, Subject};
use super::{Bench, Row};
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
    /// A cache that takes one entry after the other for an hour, and then throws the oldest away: like a leak until it is full.
    SteadyCache,
    /// A new model every two hours, of which the one before is unloaded after a minute.
    Reloads,
    /// Three models, one an hour, each loaded in five minutes.
    Models,
    /// What was recorded of a server with ttnn, again and again.
    Recorded,
}

impl Workload {
    pub(crate) const ALL: [Workload; 8] = [
        Workload::Server,
        Workload::Sessions,
        Workload::Training,
        Workload::Cache,
        Workload::SteadyCache,
        Workload::Reloads,
        Workload::Models,
        Workload::Recorded,
    ];

    fn name(self) -> &'static str {
        match self {
            Workload::Server => "server",
            Workload::Sessions => "sessions",
            Workload::Training => "training",
            Workload::Cache => "cache",
            Workload::SteadyCache => "steady cache",
            Workload::Reloads => "reloads",
            Workload::Models => "models",
            Workload::Recorded => "ttnn, recorded",
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
    playback: Playback,
    /// The buffers of the record that are live, and their ids here.
    played: HashMap<u32, u64>,
}

impl Simulation {
    fn new(workload: Workload, seed: u64) -> Simulation {
        let registry = Registry::new(0);
        let identity = Identity { pid: 1, start_ticks: 1 };
        let info = ProcessInfo::new(workload.name(), 0, "root", Source::Socket);
        let process = registry.process(identity, 0, info);
        let random = Random { state: FixedState::with_seed(seed), count: 0 };
        let ends = BinaryHeap::new();
        Simulation {
            registry,
            process,
            workload,
            random,
            seconds: 0,
            next_id: 0,
            ends,
            cached: 0,
            leaked_bytes: 0.0,
            playback: Playback::of_ttnn(),
            played: HashMap::new(),
        }
    }

    /// A second of it.
    fn step(&mut self, leak: Option<Leak>) {
        self.release();
        match self.workload {
            Workload::Server => self.serve(),
            Workload::Sessions => self.serve_sessions(),
            Workload::Training => self.train(),
            Workload::Cache => self.cache(),
            Workload::SteadyCache => self.cache_steadily(),
            Workload::Reloads => self.reload(),
            Workload::Models => self.load_models(),
            Workload::Recorded => self.play(),
        }
        if let Some(leak) = leak.filter(|leak| self.seconds >= leak.start_seconds) {
            self.forget(leak);
        }
        self.seconds += 1;
    }

    fn release(&mut self) {
        let mut batch = self.registry.batch(&self.process, self.seconds * SECOND_NS);
        while let Some(Reverse((_, id))) =
            self.ends.peek().copied().filter(|Reverse((end, _))| *end <= self.seconds)
        {
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

    fn cache_steadily(&mut self) {
        self.load_weights(0, 60, None);
        for _ in 0..self.random.poisson(1.0) {
            self.hold(512 << 10, Some(3600.0));
        }
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

    fn play(&mut self) {
        let random = &mut self.random;
        // Between four fifths and five quarters of the speed at which it was recorded.
        let pace = || 0.8 + 0.45 * random.unit();
        for (buffer, act) in self.playback.until(self.seconds as f64, pace) {
            match act {
                Act::Allocate(size_bytes) => {
                    self.hold(size_bytes, None);
                    self.played.insert(buffer, self.next_id);
                }
                Act::Free => {
                    let id = self.played.remove(&buffer).expect("it was allocated");
                    let mut batch = self.registry.batch(&self.process, self.seconds * SECOND_NS);
                    batch.free(0, id).expect("it was allocated");
                }
            }
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
        if !simulation.seconds.is_multiple_of(LOOK_SECONDS) {
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

/// Seeds that each workload is run with.
const SEEDS: u64 = 5;
/// How long each process lives.
const HOURS: u64 = 12;
/// Leaks begin with the process, and in the middle of its work.
const STARTS_SECONDS: [u64; 2] = [0, 3 * 3600];
/// A tenth of a MiB to ten in a minute, in small buffers and in large ones.
const LEAKS: [(f64, u64); 5] =
    [(0.1, 64 << 10), (1.0, 64 << 10), (1.0, 1 << 20), (10.0, 1 << 20), (10.0, 32 << 20)];

/// How soon leaks are suspected beside each workload, and how often without one.
pub(super) fn detection(_: &Bench, row: &Row) -> anyhow::Result<Report> {
    let mut delays_minutes = Vec::new();
    let (mut missed, mut false_alarms, mut hours) = (0_u32, 0, 0);
    let mut subjects = Vec::new();
    for workload in Workload::ALL {
        let mut without = Vec::new();
        let mut delays = Vec::new();
        for seed in 0..SEEDS {
            without.push(simulate(workload, None, seed, HOURS));
            for (mib_per_minute, buffer_bytes) in LEAKS {
                let bytes_per_minute = mib_per_minute * MIB as f64;
                for start_seconds in STARTS_SECONDS {
                    let leak = Leak { bytes_per_minute, buffer_bytes, start_seconds };
                    delays.push(simulate(workload, Some(leak), seed, HOURS).suspected_after_seconds);
                }
            }
        }
        hours += SEEDS * HOURS;
        let alarms: u32 = without.iter().map(|outcome| outcome.false_alarms).sum();
        false_alarms += alarms;
        missed += delays.iter().filter(|delay| delay.is_none()).count() as u32;
        let minutes: Vec<f64> = delays.iter().flatten().map(|seconds| *seconds as f64 / 60.0).collect();
        let spread = Spread::of(&minutes);
        delays_minutes.extend(minutes);
        subjects.push(Subject {
            name: workload.name().to_owned(),
            figures: vec![
                Figure { name: "detection_median_minutes", value: spread.median },
                Figure { name: "detection_max_minutes", value: spread.highest },
                Figure {
                    name: "leaks_missed",
                    value: delays.iter().filter(|delay| delay.is_none()).count() as f64,
                },
                Figure { name: "false_alarms", value: f64::from(alarms) },
                Figure {
                    name: "falsely_suspected_minutes",
                    value: without.iter().map(|outcome| outcome.falsely_seconds).sum::<u64>() as f64 / 60.0,
                },
            ],
        });
    }
    let alarms_per_1000_hours = f64::from(false_alarms) * 1000.0 / hours as f64;
    let finding = |name, values: Vec<f64>, goal| Finding { name, spread: Spread::of(&values), goal };
    let findings = vec![
        finding("minutes until a leak is suspected", delays_minutes, None),
        finding("leaks missed", vec![f64::from(missed)], Some(Goal::AtMost(0.0))),
        finding("false alarms in 1,000 hours of processes", vec![alarms_per_1000_hours], None),
    ];
    Ok(Report::new(row, subjects, findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS: u64 = 5;

    #[test]
    fn work_is_not_taken_for_a_leak() {
        for workload in Workload::ALL.into_iter().filter(|workload| *workload != Workload::SteadyCache) {
            let outcome = simulate(workload, None, 1, HOURS);
            assert_eq!((outcome.false_alarms, outcome.suspected_after_seconds), (0, None), "{workload:?}");
        }
    }

    #[test]
    fn a_leak_is_seen_beside_any_work_and_whenever_it_begins() {
        for workload in Workload::ALL {
            for start_seconds in [0, 3 * 3600] {
                let leak = Leak { bytes_per_minute: MIB as f64, buffer_bytes: 64 << 10, start_seconds };
                let delay = simulate(workload, Some(leak), 1, HOURS).suspected_after_seconds;
                assert!(delay.is_some_and(|seconds| seconds <= 45 * 60), "{workload:?}, {leak:?}: {delay:?}");
            }
        }
    }

    #[test]
    fn a_cache_that_fills_evenly_is_suspected_until_it_is_full() {
        let outcome = simulate(Workload::SteadyCache, None, 1, HOURS);
        assert_eq!(outcome.false_alarms, 1, "nobody can tell it from a leak");
        assert!(outcome.falsely_seconds < 3600, "full after an hour, clear soon after: {outcome:?}");
    }

    #[test]
    fn what_stops_growing_is_not_suspected_for_long() {
        let mut simulation = Simulation::new(Workload::Server, 1);
        let mut detector = Detector::default();
        let leak = Leak { bytes_per_minute: 10.0 * MIB as f64, buffer_bytes: MIB, start_seconds: 0 };
        let mut suspected_minutes = Vec::new();
        while simulation.seconds < HOURS * 3600 {
            let is_leaking = simulation.seconds < 2 * 3600;
            simulation.step(is_leaking.then_some(leak));
            if simulation.seconds.is_multiple_of(LOOK_SECONDS)
                && simulation.look(&mut detector).iter().any(Suspicion::is_suspected)
            {
                suspected_minutes.push(simulation.seconds / 60);
            }
        }
        let last = suspected_minutes.last().copied().expect("it leaked for two hours");
        assert!((120..180).contains(&last), "{last}");
    }
}
