//! What one client that floods costs the others: eight that report, alone and beside one that sends without pause.
//!
//! The idea is to tell the daemon's part from the scheduler's. A ninth busy process takes its share of the processors whatever the server does,
//! so the same is done to a server that only receives and discards; and to the daemon with and without a limit on reports a second.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::clients::{CLIENTS, Fleet, Plan, TURN_FRAMES, Way};
use super::measure::Spread;
use super::report::{Figure, Finding, Goal, Report, Subject};
use super::servers::{self, OwnedChild, Server};
use super::{Bench, Row};

/// As the field's clients report.
const WAY: Way = Way::Frames { batch: 1 };
/// Reports of one client before the first round.
const WARM_UP_EVENTS_EACH: u64 = 200 * TURN_FRAMES;
/// The flood runs for so long before a round: whoever has a limit has a second's worth that may come at once.
const FLOOD_LEAD: Duration = Duration::from_millis(1200);

/// One server, and the rates of the eight in its rounds.
struct Contender {
    server: Server,
    name: &'static str,
    events_each: u64,
    alone: Vec<f64>,
    beside: Vec<f64>,
}

/// The eight alone and beside the flood, in turns.
pub(super) fn beside_a_flood(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let mut contenders = Vec::new();
    for (subject, name) in [
        (servers::Subject::Limit, "limit"),
        (servers::Subject::Ttmem, "no limit on reports"),
        (servers::Subject::TtmemLimited, "default limits"),
    ] {
        let server = Server::start(bench, subject)?;
        let warm_up = rate(bench, &server, WARM_UP_EVENTS_EACH)?;
        let events_each = ((warm_up * bench.effort.seconds) as u64 / CLIENTS as u64).max(TURN_FRAMES);
        let events_each = events_each.next_multiple_of(TURN_FRAMES);
        contenders.push(Contender { server, name, events_each, alone: Vec::new(), beside: Vec::new() });
    }
    for _ in 0..bench.effort.rounds {
        for contender in &mut contenders {
            contender.alone.push(rate(bench, &contender.server, contender.events_each)?);
            let flood = start_flood(bench, &contender.server)?;
            thread::sleep(FLOOD_LEAD);
            contender.beside.push(rate(bench, &contender.server, contender.events_each)?);
            drop(flood);
        }
    }
    let kept = |number: usize| {
        let Contender { beside, alone, .. } = &contenders[number];
        Spread::of_ratios(beside, alone)
    };
    let findings = vec![
        Finding {
            name: "kept beside a flood, with a server that only receives",
            spread: kept(0),
            goal: None,
        },
        Finding { name: "kept beside a flood, no limit on reports", spread: kept(1), goal: None },
        Finding {
            name: "kept beside a flood, default limits",
            spread: kept(2),
            goal: Some(Goal::AtLeast(0.90)),
        },
    ];
    Ok(Report::new(row, contenders.iter().map(figures).collect(), findings))
}

/// Events a second of the eight, from the common start to the last one's EOF.
fn rate(bench: &Bench, server: &Server, events_each: u64) -> anyhow::Result<f64> {
    let plan = Plan { clients: CLIENTS, role: "client", count_each: events_each, way: WAY };
    let elapsed = Fleet::connect(bench, &server.socket, plan)?.run()?;
    Ok((events_each * CLIENTS as u64) as f64 / elapsed.as_secs_f64())
}

/// One that floods until it is dropped.
fn start_flood(bench: &Bench, server: &Server) -> anyhow::Result<OwnedChild> {
    let mut command = Command::new(&bench.exe);
    command.args(["bench", "--role", "flood", "--socket"]).arg(&server.socket);
    OwnedChild::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

fn figures(contender: &Contender) -> Subject {
    let figure = |name, value| Figure { name, value };
    Subject {
        name: contender.name.to_owned(),
        figures: vec![
            figure("events_per_second_alone", Spread::of(&contender.alone).median),
            figure("events_per_second_beside", Spread::of(&contender.beside).median),
        ],
    }
}
