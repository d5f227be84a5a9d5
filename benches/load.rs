//! What scraping costs those who report: the same reports with and without ten scrapes of 100,000 series a second.
//!
//! The idea is to count what the reading of a report takes of a processor, not how many are read: where clients and daemon keep every
//! core busy, what a scrape takes is missing somewhere, however little it disturbs. Both are told, and what the scrapes took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::clients::{CLIENTS, Fleet, Plan, TURN_FRAMES, Way};
use super::http::Http;
use super::measure::Spread;
use super::report::{Figure, Finding, Goal, Report, Subject};
use super::scrape;
use super::servers::{self, Server};
use super::{Bench, Row};

const SERIES: usize = 100_000;
const SCRAPE_INTERVAL: Duration = Duration::from_millis(100);

/// Frames to a send(): the daemon's own work is most of what a report costs then, and the clients' system calls the least.
const BATCH: usize = 64;

/// Reports of one client before the first round.
const WARM_UP_EVENTS_EACH: u64 = 2_000 * TURN_FRAMES;

/// Rounds have to hold several scrapes.
const ROUND_SECONDS_MIN: f64 = 0.5;

/// Reports with and without scrapes, in turns.
pub(super) fn scraped(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let server = Server::start(bench, servers::Subject::TtmemTrusting)?;
    let mut http = server.http()?;
    let _filled = scrape::fill(&server, &mut http, SERIES)?;
    let warm_up = round(bench, &server, WARM_UP_EVENTS_EACH, None)?;
    let seconds = bench.effort.seconds.max(ROUND_SECONDS_MIN);
    let events_each =
        ((warm_up.events_per_second * seconds) as u64 / CLIENTS as u64).next_multiple_of(TURN_FRAMES);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..bench.effort.rounds {
        without.push(round(bench, &server, events_each, None)?);
        with.push(round(bench, &server, events_each, Some(&mut http))?);
    }
    let each = |rounds: &[Round], value: fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<f64>>();
    let ratios = |value| Spread::of_ratios(&each(&with, value), &each(&without, value));
    let cores = thread::available_parallelism()?.get() as f64;
    let left = with.iter().map(|round| 1.0 - round.other_cpu_seconds / round.seconds / cores);
    let findings = vec![
        Finding {
            name: "ingest's processor time for a report, scraped / not scraped",
            spread: ratios(|round| round.ingest_cpu_seconds / round.events as f64),
            goal: Some(Goal::AtMost(1.05)),
        },
        Finding {
            name: "reports taken, scraped / not scraped",
            spread: ratios(|round| round.events_per_second),
            goal: None,
        },
        Finding {
            name: "share of the processors that the answers leave, without what reading them takes",
            spread: Spread::of(&left.collect::<Vec<_>>()),
            goal: None,
        },
    ];
    let subjects = vec![figures("not scraped", &server, &without)?, figures("scraped", &server, &with)?];
    Ok(Report::new(row, subjects, findings))
}

#[derive(Default)]
struct Round {
    events_per_second: f64,
    events: u64,
    seconds: f64,
    /// Of the threads that read reports.
    ingest_cpu_seconds: f64,
    /// Of the daemon's other threads, which answer scrapes.
    other_cpu_seconds: f64,
    scrapes: u64,
    /// From the request to the last byte, summed.
    scrape_seconds: f64,
}

fn round(bench: &Bench, server: &Server, events_each: u64, http: Option<&mut Http>) -> anyhow::Result<Round> {
    let plan =
        Plan { clients: CLIENTS, role: "client", count_each: events_each, way: Way::Frames { batch: BATCH } };
    let fleet = Fleet::connect(bench, &server.socket, plan)?;
    let events = events_each * CLIENTS as u64;
    let counted_before = server.counted()?;
    let other_cpu_seconds = || anyhow::Ok(server.cpu_seconds_exact()? - server.ingest_cpu_seconds()?);
    let (ingest_before, other_before) = (server.ingest_cpu_seconds()?, other_cpu_seconds()?);
    let is_over = AtomicBool::new(false);
    let (elapsed, scraped) = thread::scope(|scope| {
        let scraper = http.map(|http| scope.spawn(|| scrape_until(http, &is_over)));
        let elapsed = fleet.run();
        is_over.store(true, Ordering::Relaxed);
        (elapsed, scraper.map(thread::ScopedJoinHandle::join))
    });
    let seconds = elapsed?.as_secs_f64();
    let other_cpu_seconds = other_cpu_seconds()? - other_before;
    server.expect_counted(counted_before, events)?;
    // A report that was still to be read is part of its round; asking for the count is not.
    let ingest_cpu_seconds = server.ingest_cpu_seconds()? - ingest_before;
    let (scrapes, scrape_seconds) = match scraped {
        Some(Ok(scraped)) => scraped?,
        Some(Err(_)) => anyhow::bail!("the scraper panicked"),
        None => (0, 0.0),
    };
    let events_per_second = events as f64 / seconds;
    Ok(Round {
        events_per_second,
        events,
        seconds,
        ingest_cpu_seconds,
        other_cpu_seconds,
        scrapes,
        scrape_seconds,
    })
}

/// Scrapes at a steady rate; how often, and how long it took altogether.
fn scrape_until(http: &mut Http, is_over: &AtomicBool) -> anyhow::Result<(u64, f64)> {
    let (mut scrapes, mut seconds, mut due) = (0, 0.0, Instant::now());
    while !is_over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        http.fetch("/metrics")?;
        seconds += begin.elapsed().as_secs_f64();
        scrapes += 1;
        due += SCRAPE_INTERVAL;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok((scrapes, seconds))
}

fn figures(name: &str, server: &Server, rounds: &[Round]) -> anyhow::Result<Subject> {
    let rates: Vec<f64> = rounds.iter().map(|round| round.events_per_second).collect();
    let sum = |value: fn(&Round) -> f64| rounds.iter().map(value).sum::<f64>();
    let (events, seconds) = (sum(|round| round.events as f64), sum(|round| round.seconds));
    let scrapes = sum(|round| round.scrapes as f64);
    let figure = |name, value| Figure { name, value };
    Ok(Subject {
        name: name.to_owned(),
        figures: vec![
            figure("events_per_second", Spread::of(&rates).median),
            figure("scrapes_per_second", scrapes / seconds),
            figure("scrape_mean_ms", sum(|round| round.scrape_seconds) * 1e3 / scrapes),
            figure("ingest_cpu_seconds_per_million", sum(|round| round.ingest_cpu_seconds) * 1e6 / events),
            figure("other_cpu_seconds", sum(|round| round.other_cpu_seconds)),
            figure("peak_resident_mb", server.peak_resident_mb()?),
        ],
    })
}
