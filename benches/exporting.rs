//! Reports over the socket while everything is exported over OTLP, beside the same without: what it costs whoever reports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use ttmem_wire::{Header, Kind, Layout, encode_request};

use super::clients::Way;
use super::measure::Spread;
use super::report::{self, Figure, Finding, Goal, Report};
use super::servers::{Server, Subject};
use super::throughput::Contender;
use super::{Bench, Row};

/// Frames per send(): the kernel costs little, so that what the export costs the daemon shows.
const BATCH: usize = 64;

/// Takes turns between a daemon that exports and one that does not.
pub(super) fn beside_none(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let collector = collect()?;
    let start = |subject: Subject| {
        let server = Rc::new(Server::start(bench, subject)?);
        Contender::start(bench, server, subject.name(), Way::Frames { batch: BATCH })
    };
    let mut without = start(Subject::Ttmem)?;
    let mut with = start(Subject::TtmemExporting(collector))?;
    for _ in 0..bench.effort.rounds {
        without.round(bench)?;
        with.round(bench)?;
    }
    let lost = lost(with.server.http()?.get("/metrics")?);
    ensure!(lost == 0.0, "the exporting daemon had no room for {lost} spans and other items");
    let findings = vec![Finding {
        name: "exporting / ttmem",
        spread: Spread::of_ratios(&with.rates, &without.rates),
        goal: Some(Goal::AtLeast(0.95)),
    }];
    Ok(Report::new(row, vec![without.figures()?, with.figures()?], findings))
}

/// Spans told in a second: what the goal asks for.
const SPANS_PER_SECOND: u64 = 200_000;
/// Buffers that are allocated, and then released, at a time: more bytes than the daemon reads at once, so that each of them has lived.
const SPANS_AT_A_TIME: u64 = 1000;
/// How long the daemon may take to export what it was told.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// One client whose every buffer becomes a span, at a steady rate; what the collector has of them.
pub(super) fn every_buffer(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let server = Server::start(bench, Subject::TtmemTelling(collect()?))?;
    let (allocations, frees) = turn();
    let mut client = UnixStream::connect(&server.socket)?;
    let mut shares = Vec::new();
    let (mut exported_before, mut lost_before) = (0.0, 0.0);
    for _ in 0..bench.effort.rounds {
        let turns = ((SPANS_PER_SECOND as f64 * bench.effort.seconds) as u64).div_ceil(SPANS_AT_A_TIME);
        let start = Instant::now();
        for turn in 0..turns {
            let due = Duration::from_secs_f64((turn * SPANS_AT_A_TIME) as f64 / SPANS_PER_SECOND as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
            client.write_all(&allocations)?;
            client.write_all(&frees)?;
        }
        let told = (turns * SPANS_AT_A_TIME) as f64;
        let (exported, lost) = settled(&server, exported_before + lost_before + told)?;
        shares.push(((exported - exported_before) / told).min(1.0));
        (exported_before, lost_before) = (exported, lost);
    }
    let figure = |name, value| Figure { name, value };
    let figures = vec![
        figure("exported_spans", exported_before),
        figure("lost_spans", lost_before),
        figure("cpu_seconds_per_million", server.cpu_seconds()? * 1e6 / exported_before),
        figure("peak_resident_mb", server.peak_resident_mb()?),
    ];
    let subjects = vec![report::Subject { name: server.subject.name().to_owned(), figures }];
    let goal = Some(Goal::AtLeast(1.0));
    Ok(Report::new(
        row,
        subjects,
        vec![Finding { name: "exported / told", spread: Spread::of(&shares), goal }],
    ))
}

/// What an hour brings at the default policy's most spans a second, told as fast as in [`every_buffer`].
const AN_HOUR_OF_SPANS: u64 = 3600 * SPANS_PER_SECOND_DEFAULT;
const SPANS_PER_SECOND_DEFAULT: u64 = 1000;
/// What a queue may hold unless it is configured.
const QUEUE_BYTES_DEFAULT: f64 = (64 << 20) as f64;

/// An hour's spans with nobody to take them: what the daemon then holds.
pub(super) fn collector_away(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    // A port that was free a moment ago, and at which nobody listens.
    let away = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let server = Server::start(bench, Subject::TtmemTelling(away))?;
    let before_mb = server.peak_resident_mb()?;
    let (allocations, frees) = turn();
    let mut client = UnixStream::connect(&server.socket)?;
    let start = Instant::now();
    for turn in 0..AN_HOUR_OF_SPANS / SPANS_AT_A_TIME {
        let due = Duration::from_secs_f64((turn * SPANS_AT_A_TIME) as f64 / SPANS_PER_SECOND as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
        client.write_all(&allocations)?;
        client.write_all(&frees)?;
    }
    let deadline = Instant::now() + EXPORT_TIMEOUT;
    let (held, lost) = loop {
        let mut http = server.http()?;
        let metrics = http.get("/metrics")?;
        let held = sum(metrics, &["ttmem_otlp_queue_items{signal=\"traces\"}"]);
        // Metrics and log records that nobody takes are dropped too.
        let of_traces = metrics.lines().filter(|line| line.contains("signal=\"traces\""));
        let of_traces: String = of_traces.map(|line| format!("{line}\n")).collect();
        let lost =
            sum(metrics, &["ttmem_spans_omitted_total{"]) + sum(&of_traces, &["ttmem_otlp_dropped_total{"]);
        if held + lost >= AN_HOUR_OF_SPANS as f64 {
            break (held, lost);
        }
        ensure!(Instant::now() < deadline, "of {AN_HOUR_OF_SPANS} spans {held} are held and {lost} lost");
        thread::sleep(Duration::from_millis(10));
    };
    let grown_mb = server.peak_resident_mb()? - before_mb;
    let figure = |name, value| Figure { name, value };
    let figures = vec![
        figure("held_spans", held),
        figure("dropped_spans", lost),
        figure("grown_mb", grown_mb),
        figure("queue_mb", QUEUE_BYTES_DEFAULT / 1e6),
    ];
    let subjects = vec![report::Subject { name: server.subject.name().to_owned(), figures }];
    let bounded = Finding {
        name: "memory grown / queue's bound",
        spread: Spread::of(&[grown_mb * 1e6 / QUEUE_BYTES_DEFAULT]),
        goal: Some(Goal::AtMost(1.5)),
    };
    Ok(Report::new(row, subjects, vec![bounded]))
}

/// The frames of one turn: buffers that are allocated, and their frees.
fn turn() -> (Vec<u8>, Vec<u8>) {
    let frames = |kind| -> Vec<u8> {
        let header = |id| Header { buffer_id: id, size_bytes: 4096, ..Header::request(kind) };
        let ids = 1..=SPANS_AT_A_TIME;
        ids.flat_map(|id| encode_request(&header(id), Layout::Bytes144).to_vec()).collect()
    };
    (frames(Kind::Alloc), frames(Kind::Free))
}

/// Waits until so many spans have been exported or lost, and gives both. Spans of the process itself may be among them.
fn settled(server: &Server, told: f64) -> anyhow::Result<(f64, f64)> {
    let deadline = Instant::now() + EXPORT_TIMEOUT;
    loop {
        let mut http = server.http()?;
        let metrics = http.get("/metrics")?;
        let exported = sum(metrics, &["ttmem_otlp_exported_total{signal=\"traces\"}"]);
        let left_out = ["ttmem_spans_omitted_total{", "ttmem_otlp_dropped_total{"];
        let lost = sum(metrics, &left_out);
        if exported + lost >= told {
            return Ok((exported, lost));
        }
        ensure!(Instant::now() < deadline, "of {told} spans {exported} were exported and {lost} lost");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The sum of the samples that begin so, from the text of /metrics.
fn sum(metrics: &str, beginnings: &[&str]) -> f64 {
    let is_wanted = |line: &&str| beginnings.iter().any(|beginning| line.starts_with(beginning));
    metrics.lines().filter(is_wanted).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// What found no room in the daemon's queues, from the text of /metrics.
fn lost(metrics: &str) -> f64 {
    sum(metrics, &["ttmem_spans_omitted_total{reason=\"queue\"}", "ttmem_otlp_dropped_total{"])
}

/// A collector that says yes to everything, for as long as this process runs.
fn collect() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks is made again.
            thread::spawn(move || accept(&stream));
        }
    });
    Ok(address)
}

fn accept(stream: &TcpStream) -> std::io::Result<()> {
    let (mut requests, mut answers) = (BufReader::new(stream), stream);
    loop {
        let mut body_bytes = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(length) = header.strip_prefix("content-length:") {
                body_bytes = length.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut requests.by_ref().take(body_bytes), &mut std::io::sink())?;
        answers.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n",
        )?;
    }
}
