//! From samples and moments to events: what a person looks for afterwards. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::rollup::Span;
use super::sample::Sample;
use crate::registry::{AllocationFailure, FailureReason, MemoryType, Moment, Process, Suspicion, Time};

/// A kind of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    DaemonStarted,
    DaemonStopped,
    SourceAppeared,
    ProcessStarted,
    ProcessEnded,
    MemoryOrphaned,
    OutOfMemory,
    LeakSuspected,
}

impl Kind {
    pub(super) const ALL: [Kind; 8] = [
        Kind::DaemonStarted,
        Kind::DaemonStopped,
        Kind::SourceAppeared,
        Kind::ProcessStarted,
        Kind::ProcessEnded,
        Kind::MemoryOrphaned,
        Kind::OutOfMemory,
        Kind::LeakSuspected,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::DaemonStarted => "daemon_started",
            Kind::DaemonStopped => "daemon_stopped",
            Kind::SourceAppeared => "source_appeared",
            Kind::ProcessStarted => "process_started",
            Kind::ProcessEnded => "process_ended",
            Kind::MemoryOrphaned => "memory_orphaned",
            Kind::OutOfMemory => "out_of_memory",
            Kind::LeakSuspected => "leak_suspected",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) unix_ms: u64,
    pub(super) device: Option<u16>,
    pub(super) memory_type: Option<MemoryType>,
    pub(super) process: Option<Arc<Process>>,
    /// What else there is to say, by name.
    pub(super) figures: Map<String, Value>,
}

/// How the daemon that wrote before this one ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Predecessor {
    /// Whether it said that it stops.
    pub(super) has_stopped: bool,
    /// When it last wrote.
    pub(super) last_unix_ms: u64,
}

/// Which failures are told as one: those of a sample that differ in their figures alone.
type FailureKey = (u64, u16, MemoryType, bool);

/// What has been told already.
#[derive(Default)]
pub(super) struct Events {
    /// The source of each device's capacity.
    sources: BTreeMap<u16, Option<&'static str>>,
    /// Processes that live, as far as has been told, by serial number.
    living: HashMap<u64, Arc<Process>>,
    /// Ends that are told when it is known how, or when that has been waited for.
    ended: Vec<Ended>,
}

/// The end of a process, without its exit.
struct Ended {
    process: Arc<Process>,
    seen_for_seconds: f64,
    unix_ms: u64,
    samples: u32,
}

/// Samples for which an end waits for word of its exit: the kernel tells when the process's parent has asked.
const EXIT_SAMPLES: u32 = 2;

impl Events {
    /// What a sample tells that the one before did not.
    pub(super) fn take(&mut self, sample: &Sample) -> Vec<Event> {
        let mut events = Vec::new();
        for (device, source) in &sample.devices {
            if self.sources.insert(*device, *source) != Some(*source) {
                let source = source.unwrap_or("reports");
                let event =
                    Event::new(Kind::SourceAppeared, unix_ms(sample.time), [("source", json!(source))]);
                events.push(Event { device: Some(*device), ..event });
            }
        }
        for process in sample.processes.iter().filter(|process| !process.has_ended()) {
            self.begin(process, sample.time, &mut events);
        }
        self.fail(sample, &mut events);
        for moment in &sample.moments {
            match moment {
                Moment::Ended(process, at_ns) => {
                    self.begin(process, sample.time, &mut events);
                    self.end(process, *at_ns, sample.time, &mut events);
                }
                Moment::LeakSuspected(suspicion) => events.push(Event::suspected(suspicion, sample.time)),
                Moment::Failed(..) => {}
            }
        }
        // Ends of which there was no word, as too much happened at once.
        let lost: Vec<_> = self.living.values().filter(|process| process.has_ended()).cloned().collect();
        for process in lost {
            self.end(&process, sample.time.monotonic_ns, sample.time, &mut events);
        }
        events.extend(self.tell_ends(EXIT_SAMPLES));
        events.sort_by_key(|event| event.unix_ms);
        events
    }

    /// What has been waited for, as nothing more will come.
    pub(super) fn finish(&mut self) -> Vec<Event> {
        self.tell_ends(0)
    }

    fn tell_ends(&mut self, samples_max: u32) -> Vec<Event> {
        let is_due = |ended: &mut Ended| {
            ended.samples += 1;
            ended.process.exit().is_some() || ended.samples > samples_max
        };
        let due = self.ended.extract_if(.., is_due);
        let told = due.map(|Ended { process, seen_for_seconds, unix_ms, .. }| {
            let exit = process.exit().map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
            let figures = [("exit", json!(exit)), ("seen_for_seconds", json!(seen_for_seconds))];
            Event::of(&process, Kind::ProcessEnded, unix_ms, figures)
        });
        told.collect()
    }

    fn begin(&mut self, process: &Arc<Process>, time: Time, events: &mut Vec<Event>) {
        if self.living.insert(process.serial(), Arc::clone(process)).is_some() {
            return;
        }
        let user = [("user", json!(process.info().user)), ("source", json!(process.info().source.name()))];
        let seen_ms = unix_ms_of(time, process.first_seen_ns());
        events.push(Event::of(process, Kind::ProcessStarted, seen_ms, user));
    }

    fn end(&mut self, process: &Arc<Process>, at_ns: u64, time: Time, events: &mut Vec<Event>) {
        if self.living.remove(&process.serial()).is_none() {
            return;
        }
        let ended_ms = unix_ms_of(time, at_ns);
        let seen_for_seconds = Time { monotonic_ns: at_ns, ..time }.seconds_since(process.first_seen_ns());
        self.ended.push(Ended {
            process: Arc::clone(process),
            seen_for_seconds,
            unix_ms: ended_ms,
            samples: 0,
        });
        for place in process.memory().iter().filter(|place| place.counters.orphaned_buffers > 0) {
            let figures = [
                ("bytes", json!(place.counters.orphaned_bytes)),
                ("buffers", json!(place.counters.orphaned_buffers)),
            ];
            let event = Event::of(process, Kind::MemoryOrphaned, ended_ms, figures);
            events.push(Event { device: Some(place.device), memory_type: Some(place.memory_type), ..event });
        }
    }

    /// The failures of a sample. A program that tries again in a loop is one event with a count.
    fn fail(&mut self, sample: &Sample, events: &mut Vec<Event>) {
        let mut failures: BTreeMap<FailureKey, (&Arc<Process>, AllocationFailure, u64)> = BTreeMap::new();
        for moment in &sample.moments {
            let Moment::Failed(process, failure) = moment else { continue };
            self.begin(process, sample.time, events);
            let is_fragmented = failure.reason() == FailureReason::Fragmented;
            let key = (process.serial(), failure.device, failure.memory_type, is_fragmented);
            let (_, last, count) = failures.entry(key).or_insert((process, *failure, 0));
            (*last, *count) = (*failure, *count + 1);
        }
        for (process, failure, count) in failures.into_values() {
            let figures = [
                ("reason", json!(failure.reason().name())),
                ("requested_bytes", json!(failure.requested_bytes)),
                ("largest_free_block_bytes", json!(failure.largest_free_block_bytes)),
                ("free_bytes", json!(failure.free_bytes)),
                ("count", json!(count)),
            ];
            let at_ms = unix_ms_of(sample.time, failure.at_ns);
            let event = Event::of(process, Kind::OutOfMemory, at_ms, figures);
            events.push(Event {
                device: Some(failure.device),
                memory_type: Some(failure.memory_type),
                ..event
            });
        }
    }
}

impl Event {
    fn new<const N: usize>(kind: Kind, unix_ms: u64, figures: [(&str, Value); N]) -> Event {
        let figures = figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Event { kind, unix_ms, device: None, memory_type: None, process: None, figures }
    }

    fn of<const N: usize>(
        process: &Arc<Process>,
        kind: Kind,
        unix_ms: u64,
        figures: [(&str, Value); N],
    ) -> Event {
        Event { process: Some(Arc::clone(process)), ..Event::new(kind, unix_ms, figures) }
    }

    fn suspected(suspicion: &Suspicion, time: Time) -> Event {
        let figures = [
            ("score", json!(suspicion.score)),
            ("growth_bytes", json!(suspicion.growth.bytes)),
            ("growth_seconds", json!(suspicion.growth_ns as f64 / 1e9)),
            ("evidence", json!(suspicion.evidence)),
        ];
        let (device, memory_type) = (Some(suspicion.device), Some(suspicion.memory_type));
        let event = Event::of(&suspicion.process, Kind::LeakSuspected, unix_ms(time), figures);
        Event { device, memory_type, ..event }
    }

    /// The daemon runs; what is known of the one before it is told too.
    pub(super) fn started(version: &str, before: Option<Predecessor>, unix_ms: u64) -> Event {
        let mut event = Event::new(Kind::DaemonStarted, unix_ms, [("version", json!(version))]);
        if let Some(before) = before {
            let away = unix_ms.saturating_sub(before.last_unix_ms) as f64 / 1000.0;
            event.figures.insert("away_seconds".to_owned(), json!(away));
            event.figures.insert("previous_stopped".to_owned(), json!(before.has_stopped));
        }
        event
    }

    pub(super) fn stopped(unix_ms: u64) -> Event {
        Event::new(Kind::DaemonStopped, unix_ms, [])
    }
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Unwritten {
    pub(super) spans: Vec<Span>,
    pub(super) events: Vec<Event>,
}

fn unix_ms(time: Time) -> u64 {
    time.unix_ns / 1_000_000
}

fn unix_ms_of(time: Time, monotonic_ns: u64) -> u64 {
    time.unix_ns_of(monotonic_ns) / 1_000_000
}
