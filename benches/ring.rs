//! Reports through rings: what they cost the client, and how many the daemon takes.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use rustix::net::{SendFlags, send};
use ttmem_client::{BufferType, Client, Options};
use ttmem_wire::{Kind, RECORD_BYTES};

use super::clients::{self, Way, ring_client};
use super::measure::{Spread, quantile};
use super::report::{self, Figure, Finding, Goal, Report};
use super::servers::{Server, Subject};
use super::throughput::Contender;
use super::{Bench, Row};

/// Reports in one go: less than a ring holds, so that no report waits. What is measured is a program that does something else too.
const BURST: usize = 2048;
/// Of these a round has many.
const BURSTS: usize = 50;
const FLUSH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// How many reports the daemon takes a second.
pub(super) fn throughput(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let server = Rc::new(Server::start(bench, Subject::Ttmem)?);
    let frames = Way::Frames { batch: 64 };
    let mut frames = Contender::start(bench, Rc::clone(&server), "64 frames/send()", frames)?;
    let mut rings = Contender::start(bench, server, "rings", Way::Ring)?;
    for _ in 0..bench.effort.rounds {
        frames.round(bench)?;
        rings.round(bench)?;
    }
    let spread = Spread::of_ratios(&rings.rates, &frames.rates);
    let finding = Finding { name: "rings / frames", spread, goal: None };
    Ok(Report::new(row, vec![frames.figures()?, rings.figures()?], vec![finding]))
}

/// What one report costs its thread.
pub(super) fn cost(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    let daemon = Server::start(bench, Subject::Ttmem)?;
    let limit = Server::start(bench, Subject::Limit)?;
    let ring = ring_client(&daemon.socket)?;
    let options = Options { socket: daemon.socket.clone(), uses_rings: false, ..Options::default() };
    let batched = Client::with_options(options);
    let bare = clients::connect(&limit.socket)?;
    let frame = clients::frame(Kind::Alloc, 0, 0, 1, 4096);
    let mut copies = vec![0_u8; BURST * RECORD_BYTES];
    let record = [7_u8; RECORD_BYTES];

    let mut subjects = [
        Costs::new("ring"),
        Costs::new("socket, batched"),
        Costs::new("bare send()"),
        Costs::new("bare copy"),
        Costs::new("clock alone"),
    ];
    for _ in 0..bench.effort.rounds {
        let [of_ring, of_batched, of_send, of_copy, of_clock] = &mut subjects;
        of_ring.round(|index| report(&ring, index), || flush(&ring))?;
        of_batched.round(|index| report(&batched, index), || flush(&batched))?;
        let send_one = |_| {
            // One that fails is seen by the next.
            let _ = black_box(send(&bare, &frame, SendFlags::NOSIGNAL));
        };
        of_send.round(send_one, || Ok(()))?;
        let copy_one = |index: usize| {
            let place = index % BURST * RECORD_BYTES;
            black_box(&mut copies)[place..place + RECORD_BYTES].copy_from_slice(black_box(&record));
        };
        of_copy.round(copy_one, || Ok(()))?;
        of_clock.round(|index| _ = black_box(index), || Ok(()))?;
    }
    let [of_ring, of_batched, .., of_clock] = &subjects;
    let findings = vec![
        of_ring.finding("a report through the ring, ns at the median", of_clock, 50.0),
        of_ring.gross("the same with the reading of the clock"),
        of_batched.finding("a report that goes over the socket, ns at the median", of_clock, 150.0),
        of_batched.gross("the same with the reading of the clock"),
    ];
    Ok(Report::new(row, subjects.iter_mut().map(Costs::figures).collect(), findings))
}

/// A working set of 64 buffers, of which each is allocated and freed in turn.
fn report(client: &Client, index: usize) {
    let id = (index / 2 % 64) as u64;
    if index.is_multiple_of(2) {
        client.allocated(0, BufferType::Dram, id, 4096);
    } else {
        client.freed(0, id);
    }
}

fn flush(client: &Client) -> anyhow::Result<()> {
    anyhow::ensure!(client.flush(FLUSH_TIMEOUT), "the daemon does not take the reports");
    Ok(())
}

/// What one way to report has cost.
struct Costs {
    name: &'static str,
    /// Of each call, the reading of the clock included.
    times_ns: Vec<f64>,
    /// Of each burst in which no clock was read between the calls, for one call.
    means_ns: Vec<f64>,
    /// The median call, by round.
    medians_ns: Vec<f64>,
}

impl Costs {
    fn new(name: &'static str) -> Costs {
        Costs { name, times_ns: Vec::new(), means_ns: Vec::new(), medians_ns: Vec::new() }
    }

    fn round(
        &mut self,
        mut call: impl FnMut(usize),
        mut settle: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut times_ns = Vec::with_capacity(BURST * BURSTS);
        for _ in 0..BURSTS {
            let begin = Instant::now();
            (0..BURST).for_each(&mut call);
            self.means_ns.push(begin.elapsed().as_nanos() as f64 / BURST as f64);
            settle()?;
            for index in 0..BURST {
                let begin = Instant::now();
                call(index);
                times_ns.push(begin.elapsed().as_nanos() as f64);
            }
            settle()?;
        }
        self.medians_ns.push(Spread::of(&times_ns).median);
        self.times_ns.append(&mut times_ns);
        Ok(())
    }

    /// The median call without what reading the clock takes in the same round: that is how the figure would be if it could be taken
    /// without a clock.
    fn finding(&self, name: &'static str, clock: &Costs, goal_ns: f64) -> Finding {
        let net_ns = self.medians_ns.iter().zip(&clock.medians_ns).map(|(gross, clock)| gross - clock);
        Finding { name, spread: Spread::of(&net_ns.collect::<Vec<_>>()), goal: Some(Goal::AtMost(goal_ns)) }
    }

    fn gross(&self, name: &'static str) -> Finding {
        Finding { name, spread: Spread::of(&self.medians_ns), goal: None }
    }

    fn figures(&mut self) -> report::Subject {
        self.times_ns.sort_by(f64::total_cmp);
        let figure = |name, fraction| Figure { name, value: quantile(&self.times_ns, fraction) };
        report::Subject {
            name: self.name.to_owned(),
            figures: vec![
                Figure { name: "mean_ns", value: Spread::of(&self.means_ns).median },
                figure("p50_ns", 0.5),
                figure("p99_ns", 0.99),
                figure("p99.9_ns", 0.999),
                figure("max_ns", 1.0),
            ],
        }
    }
}
