//! How cost grows: with the number of clients, of devices and of live buffers, each from one or a thousand to the most that is meant to work.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ttmem_wire::Kind;

use super::clients::{self, Fleet, Plan, Way};
use super::measure::{Spread, quantile};
use super::report::{Figure, Finding, Goal, Report, Subject};
use super::scrape::samples;
use super::servers::{self, Server};
use super::{Bench, Row};

const CLIENTS: [u64; 5] = [1, 10, 100, 1_000, 10_000];
const DEVICES: [u64; 5] = [1, 4, 16, 128, 1_024];
const BUFFERS: [u64; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Processes that hold the buffers.
const HOLDERS: usize = 4;
/// What each process frees and allocates again while cost is measured by clients or by devices.
const BUFFER_BYTES: u64 = 2 * 1024 * 1024;
/// Reports that are measured at each point, at least two of each client.
const EVENTS: u64 = 200_000;
/// Frames to a send() where there are fewer senders than frames.
const BATCH: usize = 64;
/// No real process has a pid above 2^22.
const FIRST_CLAIMED_PID: i32 = 1 << 22;
/// Descriptors beside one for each client.
const SPARE_DESCRIPTORS: u64 = 200;
/// Scrapes at each point; the median counts.
const SCRAPES: usize = 5;

/// The cost at one point.
struct Point {
    size: u64,
    cpu_seconds_per_million: f64,
    scrape_ms: f64,
    series: f64,
    resident_mb: f64,
}

impl Point {
    fn figures(&self) -> Vec<Figure> {
        let figure = |name, value| Figure { name, value };
        vec![
            figure("cpu_seconds_per_million", self.cpu_seconds_per_million),
            figure("scrape_ms", self.scrape_ms),
            figure("series", self.series),
            figure("resident_mb", self.resident_mb),
        ]
    }

    fn subject(&self, more: Vec<Figure>) -> Subject {
        Subject { name: readable(self.size), figures: self.figures().into_iter().chain(more).collect() }
    }
}

/// One process after the other reports, with one frame to a send(): the more there are, the less a read finds.
pub(super) fn clients(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let descriptors = raise_descriptors()?;
    let mut subjects = Vec::new();
    let mut points = Vec::new();
    for size in CLIENTS.into_iter().filter(|clients| clients + SPARE_DESCRIPTORS <= descriptors) {
        let server = Server::start(bench, servers::Subject::TtmemTrusting)?;
        let idle_mb = server.resident_mb()?;
        let cpu_before = server.cpu_seconds_exact()?;
        let mut streams = Vec::new();
        for pid in (FIRST_CLAIMED_PID..).take(usize::try_from(size)?) {
            let mut stream = clients::connect(&server.socket)?;
            stream.write_all(&clients::frame(Kind::Alloc, pid, 0, 1, BUFFER_BYTES))?;
            streams.push((pid, stream));
        }
        server.expect_counted(Some(0), size)?;
        let connect_cpu_us = (server.cpu_seconds_exact()? - cpu_before) * 1e6 / size as f64;
        let turns = (EVENTS / size / 2).max(1);
        let point = measure(&server, size, turns * size * 2, || {
            for _ in 0..turns {
                for (pid, stream) in &mut streams {
                    stream.write_all(&clients::frame(Kind::Free, *pid, 0, 1, 0))?;
                    stream.write_all(&clients::frame(Kind::Alloc, *pid, 0, 1, BUFFER_BYTES))?;
                }
            }
            Ok(())
        })?;
        let memory_bytes = (point.resident_mb - idle_mb) * 1e6 / size as f64;
        subjects.push(point.subject(vec![
            Figure { name: "connect_cpu_us", value: connect_cpu_us },
            Figure { name: "bytes_per_client", value: memory_bytes },
        ]));
        points.push(point);
    }
    Ok(Report::new(row, subjects, vec![growth(&points)]).grown(points.iter().map(|point| point.size)))
}

/// One process reports about one device after the other.
pub(super) fn devices(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let mut subjects = Vec::new();
    let mut points = Vec::new();
    for size in DEVICES {
        let server = Server::start(bench, servers::Subject::Ttmem)?;
        let mut stream = clients::connect(&server.socket)?;
        let indexes: Vec<i32> = (0..i32::try_from(size)?).collect();
        let frames = |kinds: &[Kind]| -> Vec<u8> {
            let frame = |index: i32, kind: Kind| {
                clients::frame(kind, clients::own_pid(), index, index.unsigned_abs().into(), BUFFER_BYTES)
            };
            indexes
                .iter()
                .flat_map(|index| kinds.iter().flat_map(move |kind| frame(*index, *kind).to_vec()))
                .collect()
        };
        stream.write_all(&frames(&[Kind::Alloc]))?;
        server.expect_counted(Some(0), size)?;
        let turn = frames(&[Kind::Free, Kind::Alloc]);
        let turns = EVENTS / size / 2;
        let send_bytes = BATCH * clients::LAYOUT.frame_bytes();
        let point = measure(&server, size, turns * size * 2, || {
            let mut unsent = Vec::new();
            for _ in 0..turns {
                unsent.extend_from_slice(&turn);
                while unsent.len() >= send_bytes {
                    stream.write_all(&unsent[..send_bytes])?;
                    unsent.drain(..send_bytes);
                }
            }
            Ok(stream.write_all(&unsent)?)
        })?;
        subjects.push(point.subject(Vec::new()));
        points.push(point);
    }
    Ok(Report::new(row, subjects, vec![growth(&points)]).grown(points.iter().map(|point| point.size)))
}

/// Processes allocate so many buffers, and free them all: what each costs in memory and time, and what is left afterwards.
pub(super) fn buffers(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let mut subjects = Vec::new();
    let mut points = Vec::new();
    let (mut bytes_at_most, mut spike, mut left_mb) = (f64::NAN, f64::NAN, f64::NAN);
    for size in BUFFERS.into_iter().filter(|buffers| *buffers <= bench.effort.buffers_max) {
        let server = Server::start(bench, servers::Subject::Ttmem)?;
        let idle_mb = server.resident_mb()?;
        let plan = Plan {
            clients: HOLDERS,
            role: "holder",
            count_each: size / HOLDERS as u64,
            way: Way::Frames { batch: BATCH },
        };
        let mut fleet = None;
        let point = measure(&server, size, size, || {
            fleet = Some(Fleet::connect(bench, &server.socket, plan)?);
            Ok(())
        })?;
        let bytes_each = (point.resident_mb - idle_mb) * 1e6 / size as f64;
        let peak_bytes_each = (server.peak_resident_mb()? - idle_mb) * 1e6 / size as f64;
        let cpu_before = server.cpu_seconds_exact()?;
        fleet.context("the holders were started")?.run()?;
        server.expect_counted(Some(size), size)?;
        let free_cpu = (server.cpu_seconds_exact()? - cpu_before) * 1e6 / size as f64;
        let after_mb = server.resident_mb()?;
        (bytes_at_most, spike, left_mb) = (bytes_each, peak_bytes_each / bytes_each, after_mb - idle_mb);
        subjects.push(point.subject(vec![
            Figure { name: "bytes_per_buffer", value: bytes_each },
            Figure { name: "at_peak", value: peak_bytes_each },
            Figure { name: "resident_mb_after", value: after_mb },
            Figure { name: "cpu_seconds_per_million_frees", value: free_cpu },
        ]));
        points.push(point);
    }
    let single = |name, value, goal| Finding { name, spread: Spread::of(&[value]), goal };
    let findings = vec![
        growth(&points),
        single("bytes per buffer at the last point", bytes_at_most, Some(Goal::AtMost(64.0))),
        single("memory at its peak / afterwards, at the last point", spike, Some(Goal::AtMost(1.5))),
        single("mb kept after the burst", left_mb, None),
    ];
    Ok(Report::new(row, subjects, findings).grown(points.iter().map(|point| point.size)))
}

/// Lets events be sent; the daemon's processor time until it has counted them, and what a scrape then takes.
fn measure(
    server: &Server,
    size: u64,
    events: u64,
    send: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Point> {
    let counted_before = server.counted()?;
    let cpu_before = server.cpu_seconds_exact()?;
    send()?;
    server.expect_counted(counted_before, events)?;
    let cpu_seconds = server.cpu_seconds_exact()? - cpu_before;
    let resident_mb = server.resident_mb()?;
    let mut http = server.http()?;
    let series = samples(http.get("/metrics")?).count();
    let mut times_ms = Vec::new();
    for _ in 0..SCRAPES {
        let begin = Instant::now();
        http.fetch("/metrics")?;
        times_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    Ok(Point {
        size,
        cpu_seconds_per_million: cpu_seconds * 1e6 / events as f64,
        scrape_ms: quantile(&times_ms, 0.5),
        series: series as f64,
        resident_mb,
    })
}

/// What an event costs at the last point against the first.
fn growth(points: &[Point]) -> Finding {
    let cost = |point: Option<&Point>| point.map_or(f64::NAN, |point| point.cpu_seconds_per_million);
    let ratio = cost(points.last()) / cost(points.first());
    Finding {
        name: "cost of a report at the last point / at the first",
        spread: Spread::of(&[ratio]),
        goal: None,
    }
}

/// As many descriptors as the system lets this process have: each client is one.
fn raise_descriptors() -> anyhow::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

fn readable(size: u64) -> String {
    match size {
        1_000_000.. => format!("{} million", size / 1_000_000),
        1_000.. if size.is_multiple_of(1_000) => format!("{},000", size / 1_000),
        _ => size.to_string(),
    }
}
