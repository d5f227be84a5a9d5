//! The memory that the daemon keeps: at rest, and with what a busy host shows.

use std::io::Write;

use ttmem_wire::Kind;

use super::clients;
use super::measure::Spread;
use super::report::{Figure, Finding, Goal, Report, Subject};
use super::scrape;
use super::servers::{self, Server};
use super::{Bench, Row};

const SERIES: usize = 10_000;
const BUFFERS: u64 = 100_000;
/// Processes that hold the buffers, in equal parts.
const HOLDERS: u64 = 10;
/// Below those that [`scrape::fill`] claims.
const FIRST_CLAIMED_PID: i32 = (1 << 22) - 1_000;
const BUFFER_BYTES: u64 = 4096;
/// What a scrape needs is part of it.
const SCRAPES: usize = 10;

/// Resident memory at rest, and with 10,000 series and 100,000 buffers after some scrapes.
pub(super) fn memory(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let server = Server::start(bench, servers::Subject::TtmemTrusting)?;
    let idle_mb = server.resident_mb()?;
    let mut http = server.http()?;
    let _filled = scrape::fill(&server, &mut http, SERIES)?;
    let mut stream = clients::connect(&server.socket)?;
    let mut buffers = Vec::new();
    for (pid, _) in (FIRST_CLAIMED_PID..).zip(0..HOLDERS) {
        for id in 1..=BUFFERS / HOLDERS {
            buffers.extend_from_slice(&clients::frame(Kind::Alloc, pid, 0, id * BUFFER_BYTES, BUFFER_BYTES));
        }
    }
    let counted_before = server.counted()?;
    stream.write_all(&buffers)?;
    server.expect_counted(counted_before, BUFFERS)?;
    for _ in 0..SCRAPES {
        http.fetch("/metrics")?;
    }
    let busy_mb = server.resident_mb()?;
    let series = scrape::samples(http.get("/metrics")?).count();
    let subject = |name: &str, resident_mb, series: usize, buffers| Subject {
        name: name.to_owned(),
        figures: vec![
            Figure { name: "resident_mb", value: resident_mb },
            Figure { name: "series", value: series as f64 },
            Figure { name: "buffers", value: buffers },
        ],
    };
    let finding = |name, value, goal| Finding { name, spread: Spread::of(&[value]), goal: Some(goal) };
    Ok(Report::new(
        row,
        vec![subject("idle", idle_mb, 0, 0.0), subject("busy", busy_mb, series, BUFFERS as f64)],
        vec![
            finding("resident, idle, mb", idle_mb, Goal::AtMost(12.0)),
            finding("resident, 10,000 series and 100,000 buffers, mb", busy_mb, Goal::AtMost(32.0)),
        ],
    ))
}
