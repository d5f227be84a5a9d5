//! One process's story so far: what its root span will say, and what has been said in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Event;

use crate::registry::{MemoryType, Process, ProcessMemory, Time};
use crate::views::trace::{self, Host, Interval, ProcessIds, RootEnd};

/// Events of one root span: more would be read by nobody, and a span is one message.
const EVENTS_MAX: usize = 64;
/// A peak is news when it is more than a quarter above the one that was told last.
const PEAK_STEP_DIVISOR: u64 = 4;
/// How long after its first report a process's first interval ends: its trace context has come by then, if one comes.
const FIRST_INTERVAL_NS: u64 = 1_000_000_000;

/// What is known of a process that has not ended.
pub(super) struct Story {
    pub(super) about: trace::Process,
    events: Vec<Event>,
    events_dropped: u32,
    has_failed: bool,
    interval_start_ns: u64,
    interval_due_ns: u64,
    /// As it was at the end of the last interval.
    before: Vec<ProcessMemory>,
    places: BTreeMap<(u16, MemoryType), Place>,
}

/// What has been noticed about a process's memory in one place.
#[derive(Default)]
struct Place {
    /// The peak as it was at the last look.
    peak_bytes: u64,
    peak_told_bytes: u64,
}

impl Story {
    /// Begins when something is told of the process: from now on its spans are in the trace that it has said, or in its own.
    pub(super) fn new(host: &Host, process: &Arc<Process>) -> Story {
        let ids = ProcessIds::new(host, process, process.settle_trace());
        let first_seen_ns = process.first_seen_ns();
        Story {
            about: trace::Process { process: Arc::clone(process), ids },
            events: Vec::new(),
            events_dropped: 0,
            has_failed: false,
            interval_start_ns: first_seen_ns,
            interval_due_ns: first_seen_ns.saturating_add(FIRST_INTERVAL_NS),
            before: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    /// An allocation failed.
    pub(super) fn fail(&mut self, event: Event) {
        self.has_failed = true;
        self.add(event);
    }

    /// Something is to be known about the process.
    pub(super) fn add(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event);
        } else {
            self.events_dropped = self.events_dropped.saturating_add(1);
        }
    }

    /// Tells of the peaks that were not exceeded since the last look.
    pub(super) fn look(&mut self, time: Time) {
        self.notice_peaks(time.monotonic_ns, time, |place, peak_bytes| place.peak_bytes == peak_bytes);
    }

    fn notice_peaks(&mut self, at_ns: u64, time: Time, is_settled: fn(&Place, u64) -> bool) {
        for now in self.about.process.memory() {
            let place = self.places.entry((now.device, now.memory_type)).or_default();
            let peak_bytes = now.counters.peak_bytes;
            let is_news = peak_bytes > place.peak_told_bytes + place.peak_told_bytes / PEAK_STEP_DIVISOR;
            let is_told = is_news && is_settled(place, peak_bytes);
            place.peak_bytes = peak_bytes;
            if is_told {
                place.peak_told_bytes = peak_bytes;
                self.add(trace::peak_event(&now, at_ns, time));
            }
        }
    }

    /// Whether the interval has lasted long enough.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.interval_due_ns
    }

    /// Ends the interval, and begins the next one: its span.
    pub(super) fn end_interval(&mut self, interval_ns: u64, time: Time) -> Span {
        let now = self.about.process.memory();
        let before = std::mem::replace(&mut self.before, now.clone());
        let (start_ns, end_ns) = (self.interval_start_ns, time.monotonic_ns);
        self.interval_start_ns = end_ns;
        self.interval_due_ns = end_ns.saturating_add(interval_ns);
        self.about.interval(&Interval { start_ns, end_ns, before, now }, time)
    }

    /// The whole story.
    pub(super) fn end(mut self, host: &Host, end: RootEnd, end_ns: u64, time: Time) -> Span {
        self.notice_peaks(end_ns, time, |_, _| true);
        let events = (self.events, self.events_dropped);
        self.about.root(host, end, end_ns, self.has_failed, events, time)
    }
}
