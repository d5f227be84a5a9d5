//! One device's totals from the stats page: how long a read takes, quiet and while clients report, beside a QUERY.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Context;
use ttmem_client::Monitor;
use ttmem_wire::stats::DevicePage;

use super::clients::{CLIENTS, Fleet, Plan, TURN_FRAMES, Way};
use super::measure::{Spread, quantile};
use super::query::Client;
use super::report::{self, Figure, Finding, Goal, Report};
use super::servers::{Server, Subject};
use super::{Bench, Row};

/// Reads between two looks at the clock: one read takes less time than a look.
const BATCH_READS: u32 = 1_000;
/// The device that the clients report for.
const DEVICE: u16 = 0;
/// What a client sends while the page is read: all of them together need a twentieth of a second.
const EVENTS_EACH: u64 = 100 * TURN_FRAMES;

/// A read is timed by itself for its distribution, with the clock's own time in it, and in batches for what it takes without.
pub(super) fn read(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let server = Server::start(bench, Subject::Ttmem)?;
    let mut client = Client::connect(&server)?;
    let monitor = Monitor::connect(&server.socket).context("the daemon hands out no stats page")?;
    let page = monitor.devices()?;
    page.totals(DEVICE)?.context("the page does not know the device")?;
    let [mut clock, mut quiet, mut busy, mut query] =
        ["clock alone", "page", "page, 8 clients reporting", "QUERY"].map(Reading::new);
    let reads = bench.effort.queries;
    let plan =
        Plan { clients: CLIENTS, role: "client", count_each: EVENTS_EACH, way: Way::Frames { batch: 1 } };
    for _ in 0..bench.effort.rounds {
        clock.round(reads, || black_box(true));
        quiet.round(reads, || is_read(&page));
        let fleet = Fleet::connect(bench, &server.socket, plan)?;
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let reporting = scope.spawn(|| fleet.run());
            while !reporting.is_finished() {
                busy.round(reads, || is_read(&page));
            }
            let reported = reporting.join().ok().context("a thread has ended early")?;
            reported.map(|_| ())
        })?;
        query.times(reads, || Ok(client.query()? * 1e3))?;
    }
    let findings = vec![
        Finding { name: "page, ns", spread: Spread::of(&quiet.batch_ns), goal: Some(Goal::AtMost(100.0)) },
        Finding {
            name: "page with 8 clients reporting, ns",
            spread: Spread::of(&busy.batch_ns),
            goal: Some(Goal::AtMost(100.0)),
        },
        Finding {
            name: "QUERY / page, medians",
            spread: Spread::of_ratios(&query.medians, &quiet.medians),
            goal: None,
        },
    ];
    let subjects = [clock, quiet, busy, query].into_iter().map(Reading::figures).collect();
    Ok(Report::new(row, subjects, findings))
}

fn is_read(page: &DevicePage<'_>) -> bool {
    black_box(page.totals(black_box(DEVICE))).is_ok()
}

/// One way of reading through all rounds.
struct Reading {
    name: &'static str,
    /// Nanoseconds of single reads.
    times_ns: Vec<f64>,
    /// The median of single reads, by round.
    medians: Vec<f64>,
    /// Nanoseconds of a read in a batch, by round.
    batch_ns: Vec<f64>,
    /// Reads that were given up.
    given_up: u64,
}

impl Reading {
    fn new(name: &'static str) -> Self {
        Self { name, times_ns: Vec::new(), medians: Vec::new(), batch_ns: Vec::new(), given_up: 0 }
    }

    fn round(&mut self, reads: usize, read: impl Fn() -> bool) {
        let mut given_up = 0;
        let mut count = || given_up += u64::from(!read());
        let batches: Vec<f64> = (0..reads / BATCH_READS as usize)
            .map(|_| {
                let begin = Instant::now();
                (0..BATCH_READS).for_each(|_| count());
                begin.elapsed().as_nanos() as f64 / f64::from(BATCH_READS)
            })
            .collect();
        self.batch_ns.push(Spread::of(&batches).median);
        let single = || {
            let begin = Instant::now();
            count();
            Ok(begin.elapsed().as_nanos() as f64)
        };
        // Only an exchange over a connection can fail.
        let _ = self.times(reads, single);
        self.given_up += given_up;
    }

    fn times(&mut self, reads: usize, mut read: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<()> {
        let mut times = (0..reads).map(|_| read()).collect::<anyhow::Result<Vec<_>>>()?;
        self.medians.push(Spread::of(&times).median);
        self.times_ns.append(&mut times);
        Ok(())
    }

    fn figures(mut self) -> report::Subject {
        self.times_ns.sort_by(f64::total_cmp);
        let figure = |name, fraction| Figure { name, value: quantile(&self.times_ns, fraction) };
        report::Subject {
            name: self.name.to_owned(),
            figures: vec![
                figure("p50_ns", 0.5),
                figure("p99_ns", 0.99),
                figure("p99.9_ns", 0.999),
                figure("max_ns", 1.0),
                Figure { name: "given_up", value: self.given_up as f64 },
            ],
        }
    }
}
