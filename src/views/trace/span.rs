//! Spans: a process from its first report to its end, and below it what it did with device memory.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::attributes::{self as key, device, float, number, numbers, text};
use super::ids::{Host, ProcessIds, SpanId};
use crate::registry::{
    self, AllocationFailure, BurstAllocated, BurstHeld, BurstPart, Container, Counters, End, MemoryType,
    Orphaned, Orphans, ProcessMemory, Release, Suspicion, Time,
};

/// The flags of a span that says whether its parent is of another process (`HAS_IS_REMOTE`, `IS_REMOTE`), and that it is recorded.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
const RECORDED: u32 = 1;
/// Places that one span tells of singly: every memory type of sixteen devices is more than one process uses.
const PLACES_MAX: usize = 64;

/// A process whose spans are made.
pub struct Process {
    /// Who it is.
    pub process: Arc<registry::Process>,
    /// The ids of its spans.
    pub ids: ProcessIds,
}

/// How a root span came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RootEnd {
    /// The process ended and still held this.
    Exit(Orphaned),
    /// The daemon stops; the process goes on.
    DaemonStopped,
}

/// A part of a process's life.
#[derive(Clone, Debug)]
pub struct Interval {
    /// When it began, in monotonic nanoseconds.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// What the process had done by then.
    pub before: Vec<ProcessMemory>,
    /// What it has done now.
    pub now: Vec<ProcessMemory>,
}

impl Process {
    /// The span of the whole process.
    pub fn root(
        &self,
        host: &Host,
        end: RootEnd,
        end_ns: u64,
        has_failed: bool,
        (events, dropped_events): (Vec<Event>, u32),
        time: Time,
    ) -> Span {
        let info = self.process.info();
        let memory = self.process.memory();
        let devices = memory.chunk_by(|left, right| left.device == right.device);
        let mut attributes = vec![
            number(key::PROCESS_PID, u64::from(self.process.pid())),
            text(key::PROCESS_NAME, &info.name),
            text(key::PROCESS_OWNER, &info.user),
            text(key::HOST_NAME, &host.name),
            numbers(key::DEVICES, devices.map(|device| device[0].device)),
            number(key::BOOT_TIME, self.process.first_seen_ns()),
        ];
        attributes.extend(info.cgroup.as_ref().map(|cgroup| text(key::PROCESS_CGROUP, cgroup)));
        attributes.extend(info.container.iter().flat_map(|container| container_attributes(container)));
        let (name, orphaned) = match end {
            RootEnd::Exit(orphaned) => ("process_exit", orphaned),
            RootEnd::DaemonStopped => ("daemon_stopped", Orphaned::default()),
        };
        attributes.push(text(key::TRACKING_END, name));
        let error = match (orphaned.buffers > 0, has_failed) {
            (_, true) => Some(("allocation_failed", "an allocation failed".to_owned())),
            (true, false) => {
                let Orphaned { buffers, bytes } = orphaned;
                Some(("memory_held", format!("ended with {buffers} buffers held, {bytes} bytes")))
            }
            (false, false) => None,
        };
        attributes.push(number(key::BUFFERS_ORPHANED, orphaned.buffers));
        attributes.push(number(key::MEMORY_ORPHANED, orphaned.bytes));
        attributes.extend(error.as_ref().map(|(kind, _)| text(key::ERROR_TYPE, kind)));
        attributes.extend(done(&sum(&memory), &Counters::default()));
        let status = match error {
            Some((_, message)) => Status { message, code: StatusCode::Error.into() },
            None => Status { message: String::new(), code: StatusCode::Ok.into() },
        };
        let (parent, flags) = match self.ids.parent {
            Some((parent, flags)) => (parent.to_vec(), HAS_IS_REMOTE | IS_REMOTE | u32::from(flags)),
            None => (Vec::new(), HAS_IS_REMOTE | RECORDED),
        };
        Span {
            parent_span_id: parent,
            flags,
            events,
            dropped_events_count: dropped_events,
            status: Some(status),
            ..self.span(
                self.ids.root_id,
                format!("process {}", info.name),
                self.process.first_seen_ns(),
                end_ns,
                attributes,
                time,
            )
        }
    }

    /// What the process has done in a part of its life, and holds at its end.
    pub fn interval(&self, interval: &Interval, time: Time) -> Span {
        let id = self.ids.moment("interval", interval.start_ns);
        let mut attributes: Vec<_> = done(&sum(&interval.now), &sum(&interval.before)).into();
        attributes.push(number(key::BOOT_TIME, interval.start_ns));
        let places = interval.now.iter().filter(|place| place.counters.peak_bytes > 0);
        let events = places.clone().take(PLACES_MAX).map(|place| {
            let mut attributes = place_of(place.device, place.memory_type);
            let same = |other: &&ProcessMemory| {
                (other.device, other.memory_type) == (place.device, place.memory_type)
            };
            let before = interval.before.iter().find(same).map(|place| place.counters).unwrap_or_default();
            attributes.extend(done(&place.counters, &before));
            event("memory", interval.end_ns, attributes, time)
        });
        let events = events.collect();
        let dropped = places.count().saturating_sub(PLACES_MAX) as u32;
        let span = self.child(id, "interval", (interval.start_ns, interval.end_ns), attributes, time);
        Span { events, dropped_events_count: dropped, ..span }
    }

    /// One buffer.
    pub fn buffer(&self, release: &Release, time: Time) -> Span {
        let Release { id, size_bytes, allocated_ns, released_ns, device, memory_type, end } = *release;
        let mut attributes = place_of(device, memory_type);
        attributes.extend([
            number(key::BUFFER_SIZE, size_bytes),
            text(key::BUFFER_ID, &format!("{id:#x}")),
            text(key::BUFFER_END, end_name(end)),
            number(key::BOOT_TIME, allocated_ns),
        ]);
        let name = match memory_type {
            MemoryType::Dram => "buffer dram",
            MemoryType::L1 => "buffer l1",
            MemoryType::L1Small => "buffer l1_small",
            MemoryType::Trace => "buffer trace",
            MemoryType::Cb => "buffer cb",
            MemoryType::Kernel => "buffer kernel",
            MemoryType::SystemMemory => "buffer system_memory",
        };
        let span = self.child(self.ids.buffer(release), name, (allocated_ns, released_ns), attributes, time);
        if end == End::ProcessExit { in_error(span, "held when the process ended") } else { span }
    }

    /// Many allocations in a short time.
    pub fn burst(&self, burst: &BurstAllocated, time: Time) -> Span {
        let (buffers, bytes) = burst
            .parts
            .iter()
            .fold((0, 0), |(buffers, bytes), part| (buffers + part.buffers, bytes + part.bytes));
        let attributes = vec![
            number(key::BUFFER_COUNT, buffers),
            number(key::MEMORY_ALLOCATED, bytes),
            number(key::BOOT_TIME, burst.first_ns),
        ];
        let events = burst.parts.iter().take(PLACES_MAX).map(|part| {
            let BurstPart { device, memory_type, buffers, bytes } = *part;
            let mut attributes = place_of(device, memory_type);
            attributes.extend([number(key::BUFFER_COUNT, buffers), number(key::MEMORY_ALLOCATED, bytes)]);
            event("memory", burst.last_ns, attributes, time)
        });
        let events = events.collect();
        let id = self.ids.moment("burst", burst.first_ns);
        let span = self.child(id, "burst of allocations", (burst.first_ns, burst.last_ns), attributes, time);
        Span { events, dropped_events_count: burst.parts.len().saturating_sub(PLACES_MAX) as u32, ..span }
    }

    /// The buffers of a burst, until the last of them was released.
    pub fn held(&self, burst: &BurstHeld, time: Time) -> Span {
        let attributes = vec![
            number(key::BUFFER_COUNT, burst.buffers),
            number(key::MEMORY_USAGE, burst.bytes),
            number(key::BUFFERS_ORPHANED, burst.orphaned_buffers),
            number(key::MEMORY_ORPHANED, burst.orphaned_bytes),
            number(key::BOOT_TIME, burst.first_ns),
        ];
        let id = self.ids.moment("held", burst.first_ns);
        let span =
            self.child(id, "buffers of a burst", (burst.first_ns, burst.released_ns), attributes, time);
        if burst.orphaned_buffers > 0 { in_error(span, "held when the process ended") } else { span }
    }

    /// The orphans that have no spans of their own.
    pub fn more_orphans(&self, orphans: &Orphans, end_ns: u64, time: Time) -> Option<Span> {
        if orphans.more_buffers == 0 {
            return None;
        }
        let attributes = vec![
            number(key::BUFFERS_ORPHANED, orphans.more_buffers),
            number(key::MEMORY_ORPHANED, orphans.more_bytes),
            number(key::BOOT_TIME, orphans.more_oldest_ns),
        ];
        let id = self.ids.moment("orphans", orphans.more_oldest_ns);
        let span =
            self.child(id, "more orphaned buffers", (orphans.more_oldest_ns, end_ns), attributes, time);
        Some(in_error(span, "held when the process ended"))
    }

    fn child(
        &self,
        id: SpanId,
        name: &str,
        (start_ns, end_ns): (u64, u64),
        attributes: Vec<KeyValue>,
        time: Time,
    ) -> Span {
        let span = self.span(id, name.to_owned(), start_ns, end_ns, attributes, time);
        Span { parent_span_id: self.ids.root_id.to_vec(), flags: HAS_IS_REMOTE | RECORDED, ..span }
    }

    fn span(
        &self,
        id: SpanId,
        name: String,
        start_ns: u64,
        end_ns: u64,
        attributes: Vec<KeyValue>,
        time: Time,
    ) -> Span {
        Span {
            trace_id: self.ids.trace_id.to_vec(),
            span_id: id.to_vec(),
            name,
            kind: SpanKind::Internal.into(),
            // Another thread's message may have been read a little before the one that the process was first heard of by.
            start_time_unix_nano: time.unix_ns_of(start_ns.max(self.process.first_seen_ns())),
            end_time_unix_nano: time.unix_ns_of(end_ns),
            attributes,
            ..Span::default()
        }
    }
}

fn in_error(span: Span, message: &str) -> Span {
    Span { status: Some(Status { message: message.to_owned(), code: StatusCode::Error.into() }), ..span }
}

/// An allocation failed.
pub fn failure_event(failure: &AllocationFailure, time: Time) -> Event {
    event("allocation failed", failure.at_ns, failure_attributes(failure), time)
}

pub(super) fn failure_attributes(failure: &AllocationFailure) -> Vec<KeyValue> {
    let mut attributes = place_of(failure.device, failure.memory_type);
    attributes.extend([
        text(key::REASON, failure.reason().name()),
        number(key::REQUESTED, failure.requested_bytes),
        number(key::LARGEST_FREE_BLOCK, failure.largest_free_block_bytes),
        number(key::FREE, failure.free_bytes),
    ]);
    attributes
}

/// More is held than ever before.
pub fn peak_event(place: &ProcessMemory, at_ns: u64, time: Time) -> Event {
    let mut attributes = place_of(place.device, place.memory_type);
    attributes.push(number(key::MEMORY_PEAK, place.counters.peak_bytes));
    event("peak reached", at_ns, attributes, time)
}

/// What is held looks like a leak.
pub fn leak_event(suspicion: &Suspicion, time: Time) -> Event {
    event("leak suspected", suspicion.since_ns.unwrap_or(time.monotonic_ns), leak_attributes(suspicion), time)
}

pub(super) fn leak_attributes(suspicion: &Suspicion) -> Vec<KeyValue> {
    let mut attributes = place_of(suspicion.device, suspicion.memory_type);
    attributes.push(number(key::GROWTH, suspicion.growth.bytes));
    attributes.push(number(key::GROWTH_BUFFERS, suspicion.growth.buffers));
    attributes.push(float(key::LEAK_SCORE, suspicion.score));
    attributes.push(text(key::LEAK_EVIDENCE, &suspicion.evidence));
    attributes
}

fn event(name: &str, at_ns: u64, attributes: Vec<KeyValue>, time: Time) -> Event {
    let time_unix_nano = time.unix_ns_of(at_ns);
    Event { time_unix_nano, name: name.to_owned(), attributes, dropped_attributes_count: 0 }
}

fn place_of(index: u16, memory_type: MemoryType) -> Vec<KeyValue> {
    let mut attributes: Vec<_> = device(index).into();
    attributes.push(text(key::MEMORY_TYPE, memory_type.name()));
    attributes
}

/// What counters say that was not so before.
fn done(now: &Counters, before: &Counters) -> [KeyValue; 7] {
    [
        number(key::MEMORY_USAGE, now.usage_bytes()),
        number(key::MEMORY_PEAK, now.peak_bytes),
        number(key::BUFFER_COUNT, now.buffers),
        number(key::ALLOCATIONS, now.allocations.saturating_sub(before.allocations)),
        number(key::FREES, now.frees.saturating_sub(before.frees)),
        number(key::MEMORY_ALLOCATED, now.allocated_bytes.wrapping_sub(before.allocated_bytes)),
        number(key::MEMORY_FREED, now.freed_bytes.wrapping_sub(before.freed_bytes)),
    ]
}

/// All places together. The peaks of several places need not have been at one time: their sum is an upper bound.
fn sum(memory: &[ProcessMemory]) -> Counters {
    memory.iter().fold(Counters::default(), |sum, place| sum.with(&place.counters))
}

fn end_name(end: End) -> &'static str {
    match end {
        End::Freed => "freed",
        End::Replaced => "replaced",
        End::DeviceClosed => "device_closed",
        End::ProcessExit => "process_exit",
    }
}
/// Which container a process runs in, as far as it is known.
fn container_attributes(container: &Container) -> Vec<KeyValue> {
    let names = container.names();
    let attributes = [
        (key::CONTAINER_ID, Some(container.id())),
        (key::POD_UID, container.pod_uid()),
        (key::POD_NAMESPACE, names.map(|names| names.namespace.as_str())),
        (key::POD_NAME, names.map(|names| names.pod.as_str())),
        (key::POD_CONTAINER, names.map(|names| names.container.as_str())),
    ];
    attributes.into_iter().filter_map(|(key, value)| Some(text(key, value?))).collect()
}
