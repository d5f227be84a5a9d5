//! Reports over the socket while everything is exported over OTLP, beside the same without: what it costs whoever reports.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;

use anyhow::ensure;

use super::clients::Way;
use super::measure::Spread;
use super::report::{Finding, Goal, Report};
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

/// What found no room in the daemon's queues, from the text of /metrics.
fn lost(metrics: &str) -> f64 {
    let is_loss = |line: &&str| {
        line.starts_with("ttmem_spans_omitted_total{reason=\"queue\"}")
            || line.starts_with("ttmem_otlp_dropped_total{")
    };
    metrics.lines().filter(is_loss).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
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
