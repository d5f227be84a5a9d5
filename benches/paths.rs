//! The hot paths by themselves, each run a given number of times: what `tests/instructions.rs` counts.
//!
//! The idea is that nothing here depends on time, chance or another process, so that the processor's instructions can be counted, and
//! that they are counted for two numbers of rounds: the difference knows nothing of the start.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, ensure};
use ttmem_wire::ring::{self, Consumer, Producer, RING_RECORDS_MAX};
use ttmem_wire::stats::DevicePage;
use ttmem_wire::{BufferType, Geometry, Header, Kind, Layout, Record, encode_request};

use crate::ingest::Replay;
use crate::registry::{Identity, MemoryType, Pages, ProcessInfo, Registry, Source, Time};
use crate::views::exposition::{ByteFormat, Selection, expose};
use crate::views::protobuf::Protobuf;
use crate::views::text::{Dialect, Text};

/// Buffers that are live while frames are applied: more than the first levels of a table, fewer than would leave the cache.
const LIVE_BUFFERS: u64 = 1_000;
/// Frames in a read of a client that batches.
const BATCH_FRAMES: usize = 64;
/// Records pushed in a round.
const RING_RECORDS: u64 = 1_024;
/// Questions in a round.
const QUERIES: u64 = 100;

/// What is exposed: as many processes as one host has, each with as many kinds of memory as most have.
const PROCESSES: u32 = 16;
const DEVICES: u16 = 4;
const MEMORY_TYPES: [MemoryType; 2] = [MemoryType::Dram, MemoryType::L1];

/// One hot path.
pub(super) struct HotPath {
    /// What its line in tests/recorded/instructions.txt is called.
    pub(super) name: &'static str,
    /// Runs it in rounds, and says how often it has been gone in all.
    pub(super) run: fn(u32) -> anyhow::Result<u64>,
}

/// Every path that is counted.
pub(super) const HOT_PATHS: &[HotPath] = &[
    HotPath { name: "apply_frame_72_alone", run: |rounds| apply(rounds, Layout::Bytes72, 1) },
    HotPath { name: "apply_frame_72_of_64", run: |rounds| apply(rounds, Layout::Bytes72, BATCH_FRAMES) },
    HotPath { name: "apply_frame_144_of_64", run: |rounds| apply(rounds, Layout::Bytes144, BATCH_FRAMES) },
    HotPath { name: "push_ring_record", run: push_records },
    HotPath { name: "push_and_drain_ring_record", run: push_and_drain_records },
    HotPath { name: "answer_query", run: answer_queries },
    HotPath { name: "read_page_totals", run: read_totals },
    HotPath { name: "snapshot_series", run: take_snapshots },
    HotPath { name: "encode_series_text", run: |rounds| expose_text(rounds, Dialect::Prometheus) },
    HotPath { name: "encode_series_openmetrics", run: |rounds| expose_text(rounds, Dialect::OpenMetrics) },
    HotPath { name: "encode_series_protobuf", run: expose_protobuf },
];

/// Runs the path of that name, and says how often it has been gone.
pub(super) fn run(name: &str, rounds: u32) -> anyhow::Result<u64> {
    let path = HOT_PATHS.iter().find(|path| path.name == name).context("there is no such hot path")?;
    (path.run)(rounds)
}

const fn at(nanoseconds: u64) -> Time {
    Time { monotonic_ns: nanoseconds, unix_ns: nanoseconds }
}

/// Every live buffer is freed and comes again, so that each round finds what the one before has found.
fn apply(rounds: u32, layout: Layout, batch_frames: usize) -> anyhow::Result<u64> {
    let mut replay = Replay::new(Arc::new(registry()?), layout)?;
    let allocate = |buffer| frame(Kind::Alloc, buffer, layout);
    let fill: Vec<u8> = (0..LIVE_BUFFERS).flat_map(allocate).collect();
    replay.apply(&fill, at(0))?;
    let turnover = |buffer| [frame(Kind::Free, buffer, layout), allocate(buffer)];
    let round: Vec<u8> = (0..LIVE_BUFFERS).flat_map(turnover).flatten().collect();
    for _ in 0..rounds {
        for read in round.chunks(batch_frames * layout.frame_bytes()) {
            replay.apply(read, at(1))?;
        }
    }
    Ok(u64::from(rounds) * 2 * LIVE_BUFFERS)
}

/// Ids as allocators give them: addresses, in no order.
fn frame(kind: Kind, buffer: u64, layout: Layout) -> Vec<u8> {
    let buffer_id = buffer.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 28 << 5;
    let buffer_type = layout.buffer_types().encode(BufferType::Dram).unwrap_or_default();
    let message = Header { size_bytes: 2048, buffer_type, buffer_id, ..Header::request(kind) };
    encode_request(&message, layout).to_vec()
}

/// A report as a client makes it: the record, its place in the ring, and the look at whether the reader sleeps.
fn push(words: &[AtomicU64], producer: &mut Producer, order: u64) -> anyhow::Result<()> {
    let header = Header { size_bytes: 2048, buffer_id: black_box(order), ..Header::request(Kind::Alloc) };
    let record = Record::new(&header, order);
    if producer.push(words, &record).is_err() {
        ensure!(producer.make_room(words, None), "the ring is full");
        ensure!(producer.push(words, &record).is_ok(), "there was room");
    }
    black_box(ring::wants_wake(words));
    Ok(())
}

/// The largest ring takes all rounds, so that nobody has to empty it.
fn push_records(rounds: u32) -> anyhow::Result<u64> {
    let records = u64::from(rounds) * RING_RECORDS;
    ensure!(records <= u64::from(RING_RECORDS_MAX), "the ring has no room for so many rounds");
    let geometry = Geometry::nearest(1, RING_RECORDS_MAX);
    let words = zeroed(geometry.words());
    ring::initialise(&words, geometry);
    let mut producer = Producer::new(&words, geometry, 0);
    (0..records).try_for_each(|order| push(&words, &mut producer, order))?;
    Ok(records)
}

fn push_and_drain_records(rounds: u32) -> anyhow::Result<u64> {
    let geometry = Geometry::nearest(1, RING_RECORDS as u32);
    let words = zeroed(geometry.words());
    ring::initialise(&words, geometry);
    let mut producer = Producer::new(&words, geometry, 0);
    let mut consumers = [Consumer::new(geometry, 0)];
    for round in 0..u64::from(rounds) {
        let orders = round * RING_RECORDS..(round + 1) * RING_RECORDS;
        orders.into_iter().try_for_each(|order| push(&words, &mut producer, order))?;
        let mut drained = 0;
        ring::drain(&words, &mut consumers, u64::MAX, |record| {
            drained += u64::from(record.header().is_ok());
        })?;
        ensure!(drained == RING_RECORDS && producer.make_room(&words, None), "the ring is not empty");
    }
    Ok(u64::from(rounds) * RING_RECORDS)
}

fn zeroed(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn read_totals(rounds: u32) -> anyhow::Result<u64> {
    let pages = Pages::create()?;
    let registry = Registry::with_pages(0, Some(pages.clone()));
    registry.device(0);
    let page = DevicePage::open(pages.devices.words())?;
    for _ in 0..u64::from(rounds) * QUERIES {
        ensure!(black_box(page.totals(black_box(0)))?.is_some(), "the device is not on the page");
    }
    Ok(u64::from(rounds) * QUERIES)
}

fn answer_queries(rounds: u32) -> anyhow::Result<u64> {
    let mut replay = Replay::new(Arc::new(registry()?), Layout::Bytes72)?;
    replay.apply(&frame(Kind::Alloc, 1, Layout::Bytes72), at(0))?;
    let query = encode_request(&Header::request(Kind::Query), Layout::Bytes72);
    for _ in 0..u64::from(rounds) * QUERIES {
        let reply = replay.apply(&query, at(1))?;
        ensure!(reply.len() == query.len(), "the query has not been answered");
    }
    Ok(u64::from(rounds) * QUERIES)
}

/// As the daemon has it.
fn registry() -> anyhow::Result<Registry> {
    Ok(Registry::with_pages(0, Some(Pages::create()?)))
}

fn populated() -> anyhow::Result<Registry> {
    let registry = registry()?;
    for pid in 1..=PROCESSES {
        let info = ProcessInfo {
            name: format!("model-server-{pid}"),
            uid: 1000,
            user: "inference".to_owned(),
            cgroup: None,
            container: None,
            ns_pid: None,
            slurm: None,
            start_time_seconds: Some(1.0),
            source: Source::Socket,
        };
        let process = registry.process(Identity { pid, start_ticks: 1 }, 1, info);
        let mut batch = registry.batch(&process, 1);
        let places = (0..DEVICES).flat_map(|device| MEMORY_TYPES.map(|memory_type| (device, memory_type)));
        for (device, memory_type) in places {
            // The sizes of a model's shards; they fit by the registry's bounds.
            let _ = batch.allocate(device, memory_type, u64::from(pid), 123_456_789);
        }
    }
    Ok(registry)
}

/// Places of processes: what a snapshot's work grows with.
const PLACES: u64 = PROCESSES as u64 * DEVICES as u64 * MEMORY_TYPES.len() as u64;

fn take_snapshots(rounds: u32) -> anyhow::Result<u64> {
    let registry = populated()?;
    for _ in 0..rounds {
        let snapshot = black_box(registry.snapshot(at(2)));
        ensure!(snapshot.processes.len() == PROCESSES as usize, "a process is missing");
    }
    Ok(u64::from(rounds) * PLACES)
}

fn expose_text(rounds: u32, dialect: Dialect) -> anyhow::Result<u64> {
    expose_rounds(rounds, || Text::new(dialect))
}

fn expose_protobuf(rounds: u32) -> anyhow::Result<u64> {
    expose_rounds(rounds, Protobuf::default)
}

/// A scrape without HTTP: an exposition and the snapshot that it uses up.
fn expose_rounds<F: ByteFormat>(rounds: u32, format: impl Fn() -> F) -> anyhow::Result<u64> {
    let registry = populated()?;
    for _ in 0..rounds {
        ensure!(!black_box(exposed(&registry, format())).is_empty(), "nothing has been exposed");
    }
    // Whatever the format, the series are those of Prometheus' text, where each has its line.
    let text = exposed(&registry, Text::new(Dialect::Prometheus));
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#');
    Ok(u64::from(rounds) * lines.count() as u64)
}

fn exposed<F: ByteFormat>(registry: &Registry, mut format: F) -> Vec<u8> {
    let selection = Selection { names: HashSet::new(), processes_max: PROCESSES as usize };
    expose(registry.snapshot(at(2)), selection, 0, &mut format);
    format.finish()
}
