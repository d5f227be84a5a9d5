//! How long a report keeps its client, and how soon a scrape shows it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ttmem_wire::Kind;

use super::clients;
use super::http::Http;
use super::measure::{Spread, quantile};
use super::report::{Figure, Finding, Report, Subject};
use super::servers::{self, Server};
use super::{Bench, Row};

/// Between two reports: a client that does something else meanwhile, and not so long that the processor goes to sleep.
const PAUSE: Duration = Duration::from_micros(5);
/// What each report is about.
const BUFFER_BYTES: u64 = 1024 * 1024;
/// Scrapes after one ALLOC before it counts as lost.
const ATTEMPTS_MAX: u32 = 1_000;
/// The family that shows it.
const USAGE_PATH: &str = "/metrics?name[]=ttmem_device_memory_usage_bytes";

/// One send() of one frame, on a client that has the socket for itself, to the daemon and to a server that discards.
pub(super) fn report(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let mut limit = Sender::start(bench, servers::Subject::Limit)?;
    let mut ttmem = Sender::start(bench, servers::Subject::Ttmem)?;
    for _ in 0..bench.effort.rounds {
        limit.round(bench.effort.queries)?;
        ttmem.round(bench.effort.queries)?;
    }
    let finding = Finding {
        name: "a report to ttmem / a bare send(), medians",
        spread: Spread::of_ratios(&ttmem.medians, &limit.medians),
        goal: None,
    };
    Ok(Report::new(row, vec![limit.figures("bare send()")?, ttmem.figures("ttmem")?], vec![finding]))
}

struct Sender {
    server: Server,
    stream: UnixStream,
    times_us: Vec<f64>,
    medians: Vec<f64>,
    cpu_seconds: f64,
}

impl Sender {
    fn start(bench: &Bench, subject: servers::Subject) -> anyhow::Result<Self> {
        let server = Server::start(bench, subject)?;
        let stream = clients::connect(&server.socket)?;
        Ok(Self { server, stream, times_us: Vec::new(), medians: Vec::new(), cpu_seconds: 0.0 })
    }

    fn round(&mut self, reports: usize) -> anyhow::Result<()> {
        let kinds = [Kind::Alloc, Kind::Free].into_iter().cycle().take(reports.next_multiple_of(2));
        let cpu_before = self.server.cpu_seconds()?;
        let mut times_us = Vec::with_capacity(reports);
        for kind in kinds {
            let size_bytes = if kind == Kind::Alloc { BUFFER_BYTES } else { 0 };
            let frame = clients::frame(kind, clients::own_pid(), 0, 1, size_bytes);
            let begin = Instant::now();
            self.stream.write_all(&frame)?;
            let sent = Instant::now();
            times_us.push((sent - begin).as_secs_f64() * 1e6);
            while sent.elapsed() < PAUSE {
                std::hint::spin_loop();
            }
        }
        self.cpu_seconds += self.server.cpu_seconds()? - cpu_before;
        self.medians.push(Spread::of(&times_us).median);
        self.times_us.append(&mut times_us);
        Ok(())
    }

    fn figures(mut self, name: &str) -> anyhow::Result<Subject> {
        self.times_us.sort_by(f64::total_cmp);
        let figure = |name, value| Figure { name, value };
        Ok(Subject {
            name: name.to_owned(),
            figures: vec![
                figure("p50_us", quantile(&self.times_us, 0.5)),
                figure("p99_us", quantile(&self.times_us, 0.99)),
                figure("p99.9_us", quantile(&self.times_us, 0.999)),
                figure("max_us", quantile(&self.times_us, 1.0)),
                figure("cpu_seconds_per_million", self.cpu_seconds * 1e6 / self.times_us.len() as f64),
                figure("peak_resident_mb", self.server.peak_resident_mb()?),
            ],
        })
    }
}

/// An ALLOC, then scrapes of one family until the answer holds it.
pub(super) fn metrics(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let server = Server::start(bench, servers::Subject::Ttmem)?;
    let mut stream = clients::connect(&server.socket)?;
    let mut http = server.http()?;
    let mut times_us = Vec::new();
    let cpu_before = server.cpu_seconds_exact()?;
    let times = bench.effort.queries / 10 * bench.effort.rounds as usize;
    for _ in 0..times {
        let begin = Instant::now();
        stream.write_all(&clients::frame(Kind::Alloc, clients::own_pid(), 0, 1, BUFFER_BYTES))?;
        until_shown(&mut http, BUFFER_BYTES)?;
        times_us.push(begin.elapsed().as_secs_f64() * 1e6);
        stream.write_all(&clients::frame(Kind::Free, clients::own_pid(), 0, 1, 0))?;
        until_shown(&mut http, 0)?;
    }
    let cpu_seconds = server.cpu_seconds_exact()? - cpu_before;
    times_us.sort_by(f64::total_cmp);
    let figure = |name, value| Figure { name, value };
    let subject = Subject {
        name: "ttmem".to_owned(),
        figures: vec![
            figure("p50_us", quantile(&times_us, 0.5)),
            figure("p99_us", quantile(&times_us, 0.99)),
            figure("p99.9_us", quantile(&times_us, 0.999)),
            figure("max_us", quantile(&times_us, 1.0)),
            figure("cpu_seconds_per_million", cpu_seconds * 1e6 / times_us.len() as f64),
            figure("peak_resident_mb", server.peak_resident_mb()?),
        ],
    };
    Ok(Report::new(row, vec![subject], Vec::new()))
}

fn until_shown(http: &mut Http, usage_bytes: u64) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS_MAX {
        let text = http.get(USAGE_PATH)?;
        let mut lines = text.lines();
        if let Some(sample) = lines.find(|line| line.contains("{device=\"0\",memory_type=\"dram\"}")) {
            let (_, value) = sample.rsplit_once(' ').context("a sample without a value")?;
            if value.parse::<u64>()? == usage_bytes {
                return Ok(());
            }
        }
    }
    ensure!(false, "{ATTEMPTS_MAX} scrapes do not show {usage_bytes} bytes");
    Ok(())
}
