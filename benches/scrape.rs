//! Scrapes: how long GET /metrics takes with many series, beside the `prometheus` crate's encoder on the same data.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::{Context, ensure};
use prometheus::{Encoder, GaugeVec, Opts, Registry, TextEncoder};
use ttmem_wire::Kind;

use super::clients;
use super::http::Http;
use super::measure::{Spread, quantile};
use super::report::{Figure, Finding, Goal, Report, Subject};
use super::servers::{self, Server};
use super::{Bench, Row};

const DEVICES: i32 = 4;

/// Processes that are claimed at a time when few are missing.
const PROCESSES_STEP: i32 = 20;

/// More than a process has on four devices: what is filled approaches the number that is wanted from below.
const SERIES_PER_PROCESS: usize = 24;

/// No real process has a pid above 2^22.
const FIRST_CLAIMED_PID: i32 = 1 << 22;

/// A bound for the filling: one series per process and device would already be enough.
const PROCESSES_MAX: i32 = 1 << 16;

/// 10,000 series, what a busy host with four devices shows.
pub(super) fn ten_thousand(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    compare(bench, row, 10_000, bench.effort.scrapes, bench.effort.encodings, Goal::AtMost(2.0))
}

/// 100,000 series.
pub(super) fn hundred_thousand(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    compare(bench, row, 100_000, bench.effort.scrapes / 5, 1, Goal::AtMost(20.0))
}

fn compare(
    bench: &Bench,
    row: &Row,
    series_least: usize,
    scrapes: usize,
    encodings: usize,
    goal: Goal,
) -> anyhow::Result<Report> {
    let server = Server::start(bench, servers::Subject::TtmemTrusting)?;
    let mut http = server.http()?;
    // The connection stays open: the claimed processes live as long as it does.
    let _filled = fill(&server, &mut http, series_least)?;
    let body = http.get("/metrics")?.to_owned();
    let series = samples(&body).count();
    let mirror = Mirror::of(&body)?;

    let mut ttmem = Times::default();
    let mut crate_encoder = Times::default();
    let mut cpu_ms = Vec::new();
    let mut text = Vec::new();
    for round in 0..=bench.effort.rounds {
        let cpu_before = server.cpu_seconds_exact()?;
        ttmem.round(scrapes, || http.fetch("/metrics").map(|_| ()))?;
        cpu_ms.push((server.cpu_seconds_exact()? - cpu_before) * 1e3 / scrapes as f64);
        crate_encoder.round(encodings, || mirror.encode(&mut text))?;
        if round == 0 {
            (ttmem, crate_encoder) = Default::default();
            cpu_ms.clear();
        }
    }
    let encoded = samples(std::str::from_utf8(&text)?).count();
    ensure!(encoded == series, "the crate's encoder wrote {encoded} series of {series}");

    let findings = vec![
        Finding { name: "scrape p99, ms", spread: Spread::of(&ttmem.p99s), goal: Some(goal) },
        Finding {
            name: "prometheus TextEncoder / scrape, medians",
            spread: Spread::of_ratios(&crate_encoder.medians, &ttmem.medians),
            goal: Some(Goal::AtLeast(20.0)),
        },
        Finding {
            name: "prometheus TextEncoder / processor time of a scrape",
            spread: Spread::of_ratios(&crate_encoder.medians, &cpu_ms),
            goal: None,
        },
    ];
    let cpu_median_ms = Spread::of(&cpu_ms).median;
    let resident_mb = server.peak_resident_mb()?;
    let subjects = vec![
        ttmem.figures("ttmem, whole scrape", series, body.len(), Some((cpu_median_ms, resident_mb))),
        crate_encoder.figures("prometheus, encoding only", series, text.len(), None),
    ];
    Ok(Report::new(row, subjects, findings))
}

/// Claims processes with a buffer on each device until /metrics has enough series.
pub(super) fn fill(server: &Server, http: &mut Http, series_least: usize) -> anyhow::Result<UnixStream> {
    let mut stream = clients::connect(&server.socket)?;
    let mut processes = 0;
    loop {
        // One look tells what a process adds, and how many are missing.
        let series = samples(http.get("/metrics")?).count();
        if series >= series_least {
            return Ok(stream);
        }
        ensure!(processes < PROCESSES_MAX, "{processes} claimed processes do not give {series_least} series");
        let missing = i32::try_from((series_least - series) / SERIES_PER_PROCESS)?;
        let more = missing.clamp(PROCESSES_STEP, PROCESSES_MAX);
        for pid in (FIRST_CLAIMED_PID + processes..).take(usize::try_from(more)?) {
            for device in 0..DEVICES {
                stream.write_all(&clients::frame(Kind::Alloc, pid, device, 1, 1024 * 1024))?;
            }
        }
        processes += more;
    }
}

pub(super) fn samples(body: &str) -> impl Iterator<Item = &str> {
    body.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Milliseconds of something that is done again and again.
#[derive(Default)]
struct Times {
    all: Vec<f64>,
    medians: Vec<f64>,
    p99s: Vec<f64>,
}

impl Times {
    fn round(&mut self, times: usize, mut act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut milliseconds = Vec::with_capacity(times);
        for _ in 0..times {
            let begin = Instant::now();
            act()?;
            milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        milliseconds.sort_by(f64::total_cmp);
        self.medians.push(quantile(&milliseconds, 0.5));
        self.p99s.push(quantile(&milliseconds, 0.99));
        self.all.append(&mut milliseconds);
        Ok(())
    }

    fn figures(
        mut self,
        name: &'static str,
        series: usize,
        body_bytes: usize,
        daemon: Option<(f64, f64)>,
    ) -> Subject {
        let (cpu_ms, resident_mb) = daemon.unwrap_or((f64::NAN, f64::NAN));
        self.all.sort_by(f64::total_cmp);
        let figure = |name, value| Figure { name, value };
        Subject {
            name: name.to_owned(),
            figures: vec![
                figure("p50_ms", quantile(&self.all, 0.5)),
                figure("p99_ms", quantile(&self.all, 0.99)),
                figure("p99.9_ms", quantile(&self.all, 0.999)),
                figure("max_ms", quantile(&self.all, 1.0)),
                figure("times", self.all.len() as f64),
                figure("series", series as f64),
                figure("body_bytes", body_bytes as f64),
                figure("cpu_ms", cpu_ms),
                figure("peak_resident_mb", resident_mb),
            ],
        }
    }
}

/// The same samples, held the way an exporter built on the `prometheus` crate holds them.
struct Mirror {
    registry: Registry,
}

impl Mirror {
    fn of(body: &str) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let mut families: HashMap<String, GaugeVec> = HashMap::new();
        for line in samples(body) {
            let sample = Sample::parse(line).with_context(|| format!("not a sample: {line}"))?;
            let names: Vec<&str> = sample.labels.iter().map(|(name, _)| name.as_str()).collect();
            let values: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
            if !families.contains_key(sample.name) {
                let family = GaugeVec::new(Opts::new(sample.name, "A sample of the scrape."), &names)?;
                registry.register(Box::new(family.clone()))?;
                families.insert(sample.name.to_owned(), family);
            }
            families[sample.name].get_metric_with_label_values(&values)?.set(sample.value);
        }
        Ok(Self { registry })
    }

    fn encode(&self, text: &mut Vec<u8>) -> anyhow::Result<()> {
        text.clear();
        TextEncoder::new().encode(&self.registry.gather(), text)?;
        Ok(())
    }
}

/// One line of the text format.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(String, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let name_bytes = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(name_bytes);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
                let (value, after) = unquote(quoted)?;
                labels.push((label.to_owned(), value));
                rest = after;
            }
            rest = &rest[1..];
        }
        let value = rest.trim().parse().ok()?;
        Some(Self { name, labels, value })
    }
}

/// A label's value up to its closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((offset, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[offset + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_read_back() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (line, name, labels, value) in [
            ("up 1", "up", vec![], 1.0),
            (
                "a_total{device=\"0\",process=\"x\\\"}\\\\,\\n\"} 2e3",
                "a_total",
                vec![label("device", "0"), label("process", "x\"}\\,\n")],
                2000.0,
            ),
            ("b{} +Inf", "b", vec![], f64::INFINITY),
        ] {
            assert_eq!(Sample::parse(line), Some(Sample { name, labels, value }));
        }
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for line in ["", "name", "a{b=\"c} 1", "a{b=\"c\"} x"] {
            assert_eq!(Sample::parse(line), None);
        }
    }
}
