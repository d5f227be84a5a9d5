//! Samples through the rollup, the database and back, with time as the test wants it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::archive::{Archive, OpenArchive, sql_of_run};
use super::events::Unwritten;
use super::measure::Measure;
use super::request::RangeRequest;
use super::retention::Retention;
use super::rollup::{Rollup, Span};
use super::sample::{FLOWS, Figures, ReportedFigures, Sample};
use super::store::Store;
use super::tier::Tier;
use crate::registry::{Identity, MemoryType, Process, ProcessInfo, Registry, Source, Time};
use crate::views::json::history::RangePoint;

/// A multiple of an hour.
const START_MS: u64 = 1_795_003_200_000;
const KEEP_ALL: Retention = Retention { keep_ms: [u64::MAX; 3], size_bytes_max: u64::MAX };

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("ttmem-history-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    fn store(&self) -> Store {
        Store::open(&self.0, "boot").expect("a database in an empty directory")
    }

    fn archive(&self) -> OpenArchive {
        Archive::new(&self.0).open().expect("what has just been written")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn process(registry: &Registry, pid: u32) -> Arc<Process> {
    let info = ProcessInfo {
        name: format!("worker-{pid}"),
        uid: 0,
        user: "root".into(),
        cgroup: None,
        container: None,
        start_time_seconds: Some(1.5),
        source: Source::Socket,
        slurm: None,
        ns_pid: None,
    };
    registry.process(Identity { pid, start_ticks: 5 }, 0, info)
}

/// A device's DRAM at a moment; `monotonic_ms` goes on whatever the time of day does.
fn sample(monotonic_ms: u64, unix_ms: u64, usage_bytes: u64, peak_bytes: u64, allocated: u64) -> Sample {
    let reported = ReportedFigures { buffers: 1, flows: [allocated; FLOWS] };
    let figures = Figures {
        owner: None,
        device: 0,
        memory_type: MemoryType::Dram,
        usage_bytes,
        peak_bytes,
        reported: Some(reported),
        is_final: false,
    };
    Sample {
        time: Time { monotonic_ns: monotonic_ms * 1_000_000, unix_ns: unix_ms * 1_000_000 },
        figures: vec![figures],
        processes: Vec::new(),
        devices: Vec::new(),
        moments: Vec::new(),
    }
}

fn write(store: &mut Store, spans: Vec<Span>) {
    let unwritten = Unwritten { spans, events: Vec::new() };
    store.append(&unwritten).expect("a disk that works");
}

fn points(archive: &OpenArchive, query: &str) -> Vec<Option<[f64; 3]>> {
    let request = RangeRequest::parse(Some(query), START_MS).expect("a query that is right");
    let range = archive.range(&request).expect("a database that can be read");
    let series = range.results.first().map(|series| series.points.clone()).unwrap_or_default();
    series.into_iter().map(|point| point.map(|RangePoint(values)| values)).collect()
}

/// A query for so many seconds from the start on.
fn seconds(from: u64, to: u64, step: u64) -> String {
    let start = START_MS / 1000;
    format!("start={}&end={}&step={step}", start + from, start + to)
}

#[test]
fn a_peak_is_in_every_tier_and_a_gap_stays_one() {
    let directory = Directory::new("tiers");
    let (mut store, mut rollup) = (directory.store(), Rollup::default());
    for second in (0..180u64).filter(|second| !(70..150).contains(second)) {
        // One byte at every sample, and a thousand for a moment before the one of second 30.
        let peak_bytes = if second < 30 { 1 } else { 1000 };
        let at_ms = second * 1000 + 500;
        let spans = rollup.take(&sample(at_ms, START_MS + at_ms, 1, peak_bytes, second * 100));
        write(&mut store, spans);
    }
    write(&mut store, rollup.finish());
    let archive = directory.archive();
    let fine = points(&archive, &seconds(0, 180, 1));
    assert_eq!(fine[30], Some([1.0, 1.0, 1000.0]));
    assert_eq!((fine[69].is_some(), fine[70], fine[149], fine[150].is_some()), (true, None, None, true));
    let coarse = points(&archive, &seconds(0, 180, 10));
    assert_eq!(coarse[3], Some([1.0, 1.0, 1000.0]));
    assert_eq!((coarse[7], coarse[14]), (None, None));
    assert_eq!(points(&archive, &seconds(0, 180, 60))[0], Some([1.0, 1.0, 1000.0]));
    let rates = points(&archive, &format!("{}&series=allocated_bytes", seconds(0, 180, 60)));
    assert_eq!(rates[0], Some([100.0, 100.0, 100.0]));
}

#[test]
fn the_highest_of_a_day_is_of_that_day() {
    const HOUR: u64 = 3_600_000;
    let directory = Directory::new("highest");
    let (mut store, mut rollup) = (directory.store(), Rollup::default());
    // The most that was held for long was in use in hour 1; what was held for a moment in hour 20 is the most of the last day.
    for hour in 0..=30u64 {
        let (usage_bytes, peak_bytes) = match hour {
            0 => (2_000, 2_000),
            1 => (9_000, 9_000),
            20 => (3_000, 10_000),
            _ => (2_000, if hour < 20 { 9_000 } else { 10_000 }),
        };
        let at_ms = hour * HOUR + 500;
        write(&mut store, rollup.take(&sample(at_ms, START_MS + at_ms, usage_bytes, peak_bytes, 0)));
    }
    write(&mut store, rollup.finish());
    store.write_series_times().expect("a disk that works");
    let archive = directory.archive();
    let highest = |device, hours| {
        let found = archive.highest_usage(MemoryType::Dram, device, START_MS + hours * HOUR + 1_000);
        let found = found.expect("a database that can be read");
        let since_hours = found.since_unix_seconds.map(|since| (since - START_MS as f64 / 1000.0) / 3600.0);
        (since_hours, found.bytes_by_device.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(highest(None, 30), (Some(6.0), vec![(0, 10_000)]));
    assert_eq!(highest(Some(0), 19), (Some(1.0), vec![(0, 9_000)]));
    assert_eq!(highest(Some(1), 30), (None, vec![]));
    assert_eq!(highest(None, 70), (None, vec![]));
}

#[test]
fn a_clock_that_is_set_back_loses_nothing() {
    let directory = Directory::new("clock");
    let (mut store, mut rollup) = (directory.store(), Rollup::default());
    for second in 0..60u64 {
        let at_ms = second * 1000 + 500;
        // After half a minute, an hour back.
        let unix_ms = if second < 30 { START_MS + at_ms } else { START_MS + at_ms - 3_600_000 };
        write(&mut store, rollup.take(&sample(at_ms, unix_ms, second, second, 0)));
    }
    // And forth again, over what has been written already.
    for second in 60..90u64 {
        let unix_ms = START_MS + (second - 60) * 1000 + 500;
        write(&mut store, rollup.take(&sample(second * 1000 + 500, unix_ms, second, second, 0)));
    }
    write(&mut store, rollup.finish());
    let archive = directory.archive();
    let query = format!("start={}&end={}&step=1", START_MS / 1000 - 3600, START_MS / 1000 + 30);
    let points = points(&archive, &query);
    assert_eq!(points[30], Some([30.0, 30.0, 30.0]), "the hour before has what was written last");
    let overlap = points[3605].expect("two samples");
    assert_eq!(overlap, [5.0, 35.0, 65.0], "what overlaps is shown together");
    let check: String =
        store.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("sound");
    assert_eq!(check, "ok");
}

#[test]
fn what_is_old_goes_and_what_is_too_much() {
    let directory = Directory::new("retention");
    let (mut store, mut rollup) = (directory.store(), Rollup::default());
    let mut spans = Vec::new();
    for second in 0..4000u64 {
        let at_ms = second * 1000 + 500;
        spans.extend(rollup.take(&sample(at_ms, START_MS + at_ms, second, second, second)));
    }
    write(&mut store, spans);
    let count = |store: &Store, tier: Tier| -> i64 {
        let sql = format!("SELECT count(*) FROM samples_{0} JOIN spans_{0} ON seq = id >> 28", tier.name());
        store.connection.query_row(&sql, [], |row| row.get(0)).expect("a count")
    };
    let now_ms = START_MS + 4_000_000;
    let keep = Retention { keep_ms: [600_000, 1_200_000, u64::MAX], ..KEEP_ALL };
    for _ in 0..5 {
        store.prune(&keep, now_ms).expect("a disk that works");
    }
    assert_eq!((count(&store, Tier::Second), count(&store, Tier::TenSeconds)), (600, 119));
    assert_eq!(count(&store, Tier::Minute), 66);
    store.prune(&Retention { size_bytes_max: 1, ..keep }, now_ms).expect("a disk that works");
    assert_eq!((count(&store, Tier::Second), count(&store, Tier::Minute)), (525, 57));
    let orphans = "SELECT count(*) FROM samples_1s WHERE id >> 28 NOT IN (SELECT seq FROM spans_1s)";
    let orphans: i64 = store.connection.query_row(orphans, [], |row| row.get(0)).expect("a count");
    assert_eq!(orphans, 0);
}

#[test]
fn series_are_paged() {
    let directory = Directory::new("pages");
    let (mut store, mut rollup) = (directory.store(), Rollup::default());
    let registry = Registry::new(0);
    for second in 0..5u64 {
        let at_ms = second * 1000 + 500;
        let mut sample = sample(at_ms, START_MS + at_ms, 1, 1, 0);
        let of_device = sample.figures[0].clone();
        let of_processes =
            (1..=25).map(|pid| Figures { owner: Some(process(&registry, pid)), ..of_device.clone() });
        sample.figures.extend(of_processes);
        write(&mut store, rollup.take(&sample));
    }
    let archive = directory.archive();
    let (mut pids, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("{}&by=process&limit=10{cursor}", seconds(0, 5, 1));
        let request = RangeRequest::parse(Some(&query), START_MS).expect("a query that is right");
        let page = archive.range(&request).expect("a database that can be read");
        assert!(page.results.iter().all(|series| series.points.iter().flatten().count() == 4));
        pids.extend(page.results.iter().filter_map(|series| series.pid));
        let Some(next) = page.next_cursor else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pids, (1..=25).collect::<Vec<_>>());
    drop(store);
    // Another daemon goes on with the same series.
    let (mut store, mut rollup) = (directory.store(), Rollup::default());
    for second in 5..7u64 {
        let at_ms = second * 1000 + 500;
        let mut sample = sample(at_ms, START_MS + at_ms, 1, 1, 0);
        let of_device = sample.figures[0].clone();
        sample.figures.push(Figures { owner: Some(process(&registry, 7)), ..of_device });
        write(&mut store, rollup.take(&sample));
    }
    let series: i64 =
        store.connection.query_row("SELECT count(*) FROM series", [], |row| row.get(0)).expect("a count");
    assert_eq!(series, 26);
}

#[test]
fn a_question_reads_no_more_rows_than_it_is_about() {
    let directory = Directory::new("plan");
    let store = directory.store();
    for tier in Tier::ALL {
        for measure in Measure::ALL {
            let sql = format!("EXPLAIN QUERY PLAN {}", sql_of_run(tier, measure));
            let mut statement = store.connection.prepare(&sql).expect("a statement that is right");
            let steps = statement.query_map([0; 4], |row| row.get::<_, String>(3)).expect("a plan");
            let steps: Vec<String> = steps.map(|step| step.expect("a step")).collect();
            let [spans, samples] = &steps[..] else { panic!("{steps:?}") };
            let by_time = format!("SEARCH span USING COVERING INDEX spans_{}_by_time", tier.name());
            assert!(spans.starts_with(&by_time), "{spans}");
            assert!(samples.starts_with("SEARCH sample USING INTEGER PRIMARY KEY"), "{samples}");
        }
    }
}

/// A host with eight devices and twenty processes for a week: how large that is, and how long it takes to read.
#[test]
#[ignore = "it writes for a minute; run it for the figures of docs/history.md, in the release profile"]
fn a_week_is_measured() {
    let directory = Directory::new("week");
    let mut store = directory.store();
    let registry = Registry::new(0);
    let processes: Vec<_> = (1..=20).map(|pid| process(&registry, pid)).collect();
    let mut samples: BTreeMap<Tier, u64> = BTreeMap::new();
    for tier in Tier::ALL {
        let interval_ms = tier.interval_ms();
        let kept_ms = [3_600_000, 86_400_000, 604_800_000][tier as usize];
        let mut rollup = Rollup::default();
        let before = size(&directory.0);
        let mut spans = Vec::new();
        // One sample for each span: what a row takes does not depend on how many went into it, but on its figures.
        for index in 0..kept_ms / interval_ms {
            let at_ms = index * interval_ms + interval_ms / 2;
            let mut sample = sample(at_ms, START_MS + at_ms, 0, 0, 0);
            sample.figures = (0..8u16)
                .flat_map(|device| {
                    MemoryType::ALL[..4].iter().map(move |memory_type| (device, *memory_type, None))
                })
                .chain(processes.iter().enumerate().flat_map(|(number, process)| {
                    let device = (number % 8) as u16;
                    [MemoryType::Dram, MemoryType::L1]
                        .map(|memory_type| (device, memory_type, Some(Arc::clone(process))))
                }))
                .map(|(device, memory_type, owner)| {
                    let usage_bytes =
                        8_000_000_000 + (index * 7919 + u64::from(device) * 104_729) % 1000 * 4096;
                    let reported =
                        ReportedFigures { buffers: 1000 + index % 50, flows: [index * 12_345_678; FLOWS] };
                    let peak_bytes = 9_000_000_000;
                    Figures {
                        owner,
                        device,
                        memory_type,
                        usage_bytes,
                        peak_bytes,
                        reported: Some(reported),
                        is_final: false,
                    }
                })
                .collect();
            spans.extend(rollup.take(&sample).into_iter().filter(|span| span.tier == tier));
            if spans.len() == 500 {
                *samples.entry(tier).or_default() +=
                    spans.iter().map(|span| span.points.len() as u64).sum::<u64>();
                write(&mut store, std::mem::take(&mut spans));
            }
        }
        *samples.entry(tier).or_default() += spans.iter().map(|span| span.points.len() as u64).sum::<u64>();
        let began = Instant::now();
        write(&mut store, spans);
        store.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
        let bytes = size(&directory.0) - before;
        let count = samples[&tier];
        println!(
            "tier {}: {count} samples, {:.1} bytes each, last batch {:?}",
            tier.name(),
            bytes as f64 / count as f64,
            began.elapsed()
        );
    }
    let archive = directory.archive();
    let week = 604_800;
    for query in [
        "device=0",
        "device=0&memory_type=dram",
        "pid=7&memory_type=dram",
        "by=process&device=3&memory_type=dram",
    ] {
        for step in [600, 1200] {
            let query = format!("{}&{query}", seconds(0, week, step));
            let mut times: Vec<_> = (0..20)
                .map(|_| {
                    let began = Instant::now();
                    let points = points(&archive, &query);
                    assert!(points.iter().flatten().count() > 500);
                    began.elapsed()
                })
                .collect();
            times.sort_unstable();
            println!("{query}: median {:?}, slowest {:?}", times[10], times[19]);
        }
    }
}

fn size(directory: &Path) -> u64 {
    std::fs::metadata(directory.join(super::store::FILE_NAME)).map_or(0, |file| file.len())
}
