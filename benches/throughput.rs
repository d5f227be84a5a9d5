//! Reports over the socket: how many a second the daemon takes, beside the limit and beside the seed.

use std::rc::Rc;

use super::clients::{CLIENTS, Fleet, Plan, TURN_FRAMES, Way};
use super::measure::Spread;
use super::report::{self, Figure, Finding, Goal, Report};
use super::servers::{Server, Subject};
use super::{Bench, Row};

/// What a client sends before the first measured round: it warms the server up and tells how much a round may hold.
const WARM_UP_EVENTS_EACH: u64 = 200 * TURN_FRAMES;

/// One frame per send(): the cost is mostly the kernel's, and the limit is near.
pub(super) fn single(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    compare(bench, row, 1, Goal::AtLeast(0.85))
}

/// 64 frames per send(): the kernel costs little, and what remains is the server's own.
pub(super) fn batched(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    compare(bench, row, 64, Goal::AtLeast(0.20))
}

fn compare(bench: &Bench, row: &Row, batch: usize, goal: Goal) -> anyhow::Result<Report> {
    let start = |subject: Subject| {
        let server = Rc::new(Server::start(bench, subject)?);
        Contender::start(bench, server, subject.name(), Way::Frames { batch })
    };
    let (mut limit, mut ttmem, mut seed) =
        (start(Subject::Limit)?, start(Subject::Ttmem)?, start(Subject::Seed)?);
    for _ in 0..bench.effort.rounds {
        for contender in [&mut limit, &mut ttmem, &mut seed] {
            contender.round(bench)?;
        }
    }
    let findings = vec![
        Finding {
            name: "ttmem / limit",
            spread: Spread::of_ratios(&ttmem.rates, &limit.rates),
            goal: Some(goal),
        },
        Finding { name: "ttmem / seed", spread: Spread::of_ratios(&ttmem.rates, &seed.rates), goal: None },
    ];
    let subjects = vec![limit.figures()?, ttmem.figures()?, seed.figures()?];
    Ok(Report::new(row, subjects, findings))
}

/// One server through all its rounds.
pub(super) struct Contender {
    pub(super) server: Rc<Server>,
    name: &'static str,
    way: Way,
    /// What each client sends in a round: the slowest of the three would need minutes for what the fastest does in one
    /// second, so each gets what it can do in about the same time.
    events_each: u64,
    /// Events per second, by round.
    pub(super) rates: Vec<f64>,
    events: u64,
    cpu_seconds: f64,
}

impl Contender {
    pub(super) fn start(
        bench: &Bench,
        server: Rc<Server>,
        name: &'static str,
        way: Way,
    ) -> anyhow::Result<Self> {
        let mut contender = Self {
            server,
            name,
            way,
            events_each: WARM_UP_EVENTS_EACH,
            rates: Vec::new(),
            events: 0,
            cpu_seconds: 0.0,
        };
        contender.round(bench)?;
        let each_per_second = contender.rates[0] / CLIENTS as f64;
        let events_each = bench.events_each.unwrap_or((each_per_second * bench.effort.seconds) as u64);
        Ok(Self {
            events_each: events_each.next_multiple_of(TURN_FRAMES),
            rates: Vec::new(),
            events: 0,
            cpu_seconds: 0.0,
            ..contender
        })
    }

    pub(super) fn round(&mut self, bench: &Bench) -> anyhow::Result<()> {
        let plan = Plan { clients: CLIENTS, role: "client", count_each: self.events_each, way: self.way };
        let fleet = Fleet::connect(bench, &self.server.socket, plan)?;
        let events = self.events_each * CLIENTS as u64;
        let counted_before = self.server.counted()?;
        let cpu_before = self.server.cpu_seconds()?;
        let elapsed = fleet.run()?;
        self.cpu_seconds += self.server.cpu_seconds()? - cpu_before;
        self.server.expect_counted(counted_before, events)?;
        self.events += events;
        self.rates.push(events as f64 / elapsed.as_secs_f64());
        Ok(())
    }

    pub(super) fn figures(&self) -> anyhow::Result<report::Subject> {
        let rate = Spread::of(&self.rates);
        let figure = |name, value| Figure { name, value };
        Ok(report::Subject {
            name: self.name.to_owned(),
            figures: vec![
                figure("events_per_second", rate.median),
                figure("lowest", rate.lowest),
                figure("highest", rate.highest),
                figure("cpu_seconds_per_million", self.cpu_seconds * 1e6 / self.events as f64),
                figure("peak_resident_mb", self.server.peak_resident_mb()?),
            ],
        })
    }
}
