//! What becomes of a process's life, told with time as a parameter.

use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::recorder::{Items, Recorder};
use super::*;
use crate::registry::{
    AllocationFailure, FeedPolicy, Held, Identity, MemoryType, ORPHANS_TOLD_MAX, Process, ProcessInfo,
    RejectedPeer, Rejection, Source, Suspicion, TraceContext,
};
use crate::views::trace::{Host, ProcessIds};

const SECOND_NS: u64 = 1_000_000_000;
const EPOCH_NS: u64 = 1_700_000_000 * SECOND_NS;
const MIB: u64 = 1 << 20;

/// A registry, whoever listens to it, and what has been told so far.
struct Stage {
    registry: Registry,
    recorder: Recorder,
    host: Arc<Host>,
    items: Items,
}

fn at(seconds: u64) -> Time {
    Time { monotonic_ns: seconds * SECOND_NS, unix_ns: EPOCH_NS + seconds * SECOND_NS }
}

impl Stage {
    fn new(spans_per_second_max: u32) -> Stage {
        let host = Arc::new(Host { name: "host7".into(), id: "id".into(), boot_id: "boot".into() });
        let registry = Registry::new(0).told(FeedPolicy {
            size_bytes_min: MIB,
            lifetime_ns_min: SECOND_NS,
            burst_gap_ns: SECOND_NS,
            burst_buffers_min: 50,
        });
        let policy = RecorderPolicy { spans_per_second_max, interval_ns: 100 * SECOND_NS };
        let recorder = Recorder::new(Arc::clone(&host), policy);
        Stage { registry, recorder, host, items: Items::default() }
    }

    fn process(&self, pid: u32, seconds: u64) -> Arc<Process> {
        let (uid, cgroup, start_time_seconds, source) = (1000, None, None, Source::Socket);
        let (name, user) = ("model".into(), "ml".into());
        let info = ProcessInfo {
            name,
            uid,
            user,
            cgroup,
            container: None,
            ns_pid: None,
            slurm: None,
            start_time_seconds,
            source,
        };
        self.registry.process(Identity { pid, start_ticks: 1 }, seconds * SECOND_NS, info)
    }

    fn allocate(&self, process: &Arc<Process>, id: u64, size_bytes: u64, seconds: u64) {
        let mut batch = self.registry.batch(process, seconds * SECOND_NS);
        batch.allocate(0, MemoryType::Dram, id, size_bytes).expect("new");
    }

    fn free(&self, process: &Arc<Process>, id: u64, seconds: u64) {
        self.registry.batch(process, seconds * SECOND_NS).free(0, id).expect("known");
    }

    fn fail(&self, process: &Arc<Process>, seconds: u64) {
        let failure = AllocationFailure {
            device: 0,
            memory_type: MemoryType::Dram,
            requested_bytes: 500,
            largest_free_block_bytes: 90,
            free_bytes: 100,
            at_ns: seconds * SECOND_NS,
        };
        self.registry.batch(process, failure.at_ns).fail(failure).expect("alive");
    }

    fn hear(&mut self, seconds: u64) {
        let mut heard = Vec::new();
        self.registry.hear(&mut heard);
        for occurrence in heard {
            self.recorder.hear(occurrence, at(seconds), &mut self.items);
        }
    }

    fn look(&mut self, seconds: u64) {
        let living = self.registry.settle(seconds * SECOND_NS);
        self.hear(seconds);
        self.recorder.look(&living, at(seconds), &mut self.items);
    }

    fn spans(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.items.spans)
    }

    fn ids(&self, process: &Process) -> ProcessIds {
        ProcessIds::new(&self.host, process, process.trace_context())
    }
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> &'a Value {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.unwrap_or_else(|| panic!("{key} in {attributes:?}")).value.as_ref();
    value.and_then(|value| value.value.as_ref()).expect("a value")
}

fn number(attributes: &[KeyValue], key: &str) -> i64 {
    match attribute(attributes, key) {
        Value::IntValue(number) => *number,
        other => panic!("{key} is {other:?}"),
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn code(span: &Span) -> StatusCode {
    span.status.as_ref().map(opentelemetry_proto::tonic::trace::v1::Status::code).expect("a status")
}

fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name.as_str()).collect()
}

#[test]
fn a_process_that_cleans_up_is_one_trace_that_went_well() {
    let mut stage = Stage::new(1000);
    let owner = stage.process(42, 10);
    stage.allocate(&owner, 7, 5 * MIB, 11);
    stage.free(&owner, 7, 14);
    stage.registry.end(&owner, 20 * SECOND_NS);
    stage.hear(21);
    let spans = stage.spans();
    assert_eq!(names(&spans), ["buffer dram", "process model"]);
    let [buffer, root] = &spans[..] else { panic!("two spans") };
    let ids = stage.ids(&owner);
    assert_eq!((&root.trace_id[..], &root.span_id[..]), (&ids.trace_id[..], &ids.root_id[..]));
    assert!(root.parent_span_id.is_empty());
    assert_eq!((&buffer.trace_id, &buffer.parent_span_id), (&root.trace_id, &root.span_id));
    let times = |span: &Span| (span.start_time_unix_nano - EPOCH_NS, span.end_time_unix_nano - EPOCH_NS);
    assert_eq!(times(root), (10 * SECOND_NS, 20 * SECOND_NS));
    assert_eq!(times(buffer), (11 * SECOND_NS, 14 * SECOND_NS));
    assert_eq!(code(root), StatusCode::Ok);
    assert_eq!(events(root), ["peak reached"]);
    assert_eq!(number(&root.attributes, "process.pid"), 42);
    assert_eq!(number(&buffer.attributes, "tenstorrent.buffer.size"), 5 << 20);
    assert_eq!(attribute(&buffer.attributes, "tenstorrent.buffer.end"), &Value::StringValue("freed".into()));
    assert!(stage.items.records.is_empty());
}

#[test]
fn memory_held_at_the_end_is_an_error_and_a_log_record() {
    let mut stage = Stage::new(1000);
    let owner = stage.process(42, 10);
    for id in 0..3 {
        stage.allocate(&owner, id, 100 + id, 11);
    }
    stage.registry.end(&owner, 12 * SECOND_NS);
    stage.hear(12);
    let spans = stage.spans();
    assert_eq!(names(&spans), ["buffer dram", "buffer dram", "buffer dram", "process model"]);
    assert!(spans.iter().all(|span| code(span) == StatusCode::Error));
    assert_eq!(number(&spans[3].attributes, "tenstorrent.buffer.orphaned"), 3);
    let [record] = &stage.items.records[..] else { panic!("one record") };
    assert_eq!((&record.trace_id, &record.span_id), (&spans[3].trace_id, &spans[3].span_id));
    assert_eq!(record.event_name, "tenstorrent.memory_orphaned");
}

#[test]
fn a_failed_allocation_is_an_event_an_error_and_a_log_record() {
    let mut stage = Stage::new(1000);
    let owner = stage.process(42, 10);
    stage.fail(&owner, 11);
    stage.registry.end(&owner, 12 * SECOND_NS);
    stage.hear(12);
    let [root] = &stage.spans()[..] else { panic!("the process alone") };
    assert_eq!((code(root), events(root)), (StatusCode::Error, vec!["allocation failed"]));
    let figures = &root.events[0].attributes;
    assert_eq!(number(figures, "tenstorrent.memory.requested"), 500);
    assert_eq!(number(figures, "tenstorrent.memory.largest_free_block"), 90);
    assert_eq!(attribute(figures, "tenstorrent.reason"), &Value::StringValue("exhausted".into()));
    let [record] = &stage.items.records[..] else { panic!("one record") };
    assert_eq!((record.severity_text.as_str(), &record.span_id), ("ERROR", &root.span_id));
}

#[test]
fn a_traceparent_makes_the_process_a_child() {
    let mut stage = Stage::new(1000);
    let owner = stage.process(42, 10);
    let context = TraceContext { trace_id: [7; 16], parent_id: [8; 8], flags: 1 };
    stage.registry.batch(&owner, 10 * SECOND_NS).join_trace(context).expect("the first");
    stage.registry.end(&owner, 20 * SECOND_NS);
    stage.hear(20);
    let [root] = &stage.spans()[..] else { panic!("the process alone") };
    assert_eq!((&root.trace_id[..], &root.parent_span_id[..]), (&[7; 16][..], &[8; 8][..]));
    assert_eq!(root.flags, 0x301, "recorded, and the parent is somebody else's");
}

#[test]
fn a_process_that_lives_is_told_of_in_intervals_and_no_span_is_told_twice() {
    let mut stage = Stage::new(1000);
    let owner = stage.process(42, 10);
    stage.allocate(&owner, 7, 5 * MIB, 10);
    for seconds in 10..=320 {
        stage.look(seconds);
    }
    stage.recorder.stop(&stage.registry.settle(400 * SECOND_NS), at(400), &mut stage.items);
    let spans = stage.spans();
    assert_eq!(names(&spans), ["interval", "interval", "interval", "interval", "process model"]);
    let bounds: Vec<_> = spans
        .iter()
        .map(|span| {
            [span.start_time_unix_nano, span.end_time_unix_nano].map(|ns| (ns - EPOCH_NS) / SECOND_NS)
        })
        .collect();
    assert_eq!(bounds, [[10, 11], [11, 111], [111, 211], [211, 311], [10, 400]]);
    assert_eq!(number(&spans[0].attributes, "tenstorrent.memory.allocations"), 1);
    assert_eq!(number(&spans[1].attributes, "tenstorrent.memory.allocations"), 0);
    assert_eq!(number(&spans[1].attributes, "tenstorrent.memory.usage"), 5 << 20);
    assert_eq!(
        attribute(&spans[4].attributes, "tenstorrent.tracking.end"),
        &Value::StringValue("daemon_stopped".into())
    );
    let mut ids: Vec<_> = spans.iter().map(|span| &span.span_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len());
}

#[test]
fn a_suspected_leak_is_told_once_and_again_after_it_was_none() {
    let mut stage = Stage::new(1000);
    let leaking = stage.process(1, 0);
    stage.allocate(&leaking, 1, 9 * MIB, 0);
    let suspicion = Suspicion {
        process: Arc::clone(&leaking),
        device: 0,
        memory_type: MemoryType::Dram,
        score: 0.7,
        size_class: None,
        growth: Held { buffers: 9, bytes: 9 * MIB },
        growth_ns: 100 * SECOND_NS,
        evidence: "It grew.".into(),
        since_ns: Some(100 * SECOND_NS),
    };
    let watched = Suspicion { score: 0.3, since_ns: None, ..suspicion.clone() };
    for suspected in [&watched, &suspicion, &suspicion, &watched, &suspicion] {
        stage.registry.suspect(vec![suspected.clone()]);
    }
    stage.hear(110);
    let [record, _] = &stage.items.records[..] else { panic!("{:?}", stage.items.records) };
    assert_eq!(record.event_name, "tenstorrent.leak_suspected");
    assert_eq!(record.trace_id, stage.ids(&leaking).trace_id);
    assert_eq!(record.time_unix_nano, EPOCH_NS + 100 * SECOND_NS);
    assert_eq!(number(&record.attributes, "tenstorrent.memory.growth"), 9 << 20);
    stage.registry.end(&leaking, 500 * SECOND_NS);
    stage.hear(500);
    let spans = stage.spans();
    let root = spans.iter().find(|span| span.name == "process model").expect("the process");
    assert_eq!(events(root).iter().filter(|event| **event == "leak suspected").count(), 2);
}

#[test]
fn a_loaded_model_is_two_spans_and_not_a_thousand() {
    let mut stage = Stage::new(1000);
    let owner = stage.process(42, 10);
    for id in 0..1000 {
        stage.allocate(&owner, id, 2 * MIB, 10 + id / 500);
    }
    stage.look(13);
    for id in 0..1000 {
        stage.free(&owner, id, 60);
    }
    stage.hear(60);
    let spans = stage.spans();
    assert_eq!(names(&spans), ["burst of allocations", "interval", "buffers of a burst"]);
    assert_eq!(number(&spans[0].attributes, "tenstorrent.buffer.count"), 1000);
    assert_eq!(number(&spans[0].attributes, "tenstorrent.memory.allocated"), 2000 << 20);
    assert_eq!(spans[2].end_time_unix_nano, EPOCH_NS + 60 * SECOND_NS);
    assert!(spans[2].status.is_none(), "all were freed");
}

#[test]
fn a_rate_bounds_single_buffers_and_leaks_come_through() {
    let mut stage = Stage::new(10);
    let owner = stage.process(42, 0);
    // Pauses keep them from being a burst.
    for id in 0..40 {
        stage.allocate(&owner, id, 2 * MIB, 2 * id);
    }
    for id in 0..20 {
        stage.free(&owner, id, 100);
    }
    stage.hear(100);
    assert_eq!((stage.spans().len(), stage.items.omitted), (10, 10));
    stage.registry.end(&owner, 101 * SECOND_NS);
    stage.hear(101);
    assert_eq!(stage.spans().len(), 20 + 1);
}

#[test]
fn a_large_leak_is_told_by_its_largest_buffers_and_a_sum() {
    let mut stage = Stage::new(10);
    let owner = stage.process(42, 0);
    for id in 0..250 {
        stage.allocate(&owner, id, 100 + id, 2 * id);
    }
    stage.registry.end(&owner, 1000 * SECOND_NS);
    stage.hear(1000);
    let spans = stage.spans();
    assert_eq!(spans.len(), ORPHANS_TOLD_MAX + 2);
    let more = spans.iter().find(|span| span.name == "more orphaned buffers").expect("a sum");
    assert_eq!(number(&more.attributes, "tenstorrent.buffer.orphaned"), 150);
}

#[test]
fn an_end_that_was_lost_is_told_from_the_counters() {
    let mut stage = Stage::new(10);
    let owner = stage.process(42, 0);
    stage.allocate(&owner, 1, 100, 0);
    stage.look(5);
    stage.registry.end(&owner, 6 * SECOND_NS);
    let mut lost = Vec::new();
    stage.registry.hear(&mut lost);
    stage.spans();
    let ended = stage.recorder.ended();
    stage.recorder.end_lost(&ended, at(7), &mut stage.items);
    stage.recorder.end_lost(&ended, at(8), &mut stage.items);
    let [root] = &stage.spans()[..] else { panic!("the process, once") };
    assert_eq!(
        (code(root), number(&root.attributes, "tenstorrent.memory.orphaned")),
        (StatusCode::Error, 100)
    );
}

#[test]
fn a_rejected_peer_is_a_log_record_without_a_trace() {
    let mut stage = Stage::new(10);
    let (pid, reason, suppressed, at_ns) = (42, Rejection::Padding, 3, SECOND_NS);
    stage.registry.tell(|| Occurrence::Rejected(RejectedPeer { pid, reason, suppressed, at_ns }));
    stage.hear(2);
    let [record] = &stage.items.records[..] else { panic!("one record") };
    assert_eq!((record.event_name.as_str(), record.trace_id.len()), ("tenstorrent.peer_rejected", 0));
    assert_eq!(number(&record.attributes, "tenstorrent.suppressed"), 3);
}
