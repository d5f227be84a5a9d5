//! Questions over the socket: how long an answer takes, and how soon it knows what was just reported.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::ensure;
use ttmem_wire::{Kind, Reply};

use super::clients;
use super::measure::{Spread, quantile};
use super::report::{self, Figure, Finding, Goal, Report};
use super::servers::{Server, Subject};
use super::{Bench, Row};

/// Questions before the clock starts, in each round.
const WARM_UP_QUERIES: usize = 1_000;

/// What the server holds meanwhile.
const BUFFERS: u64 = 1_000;
const BUFFER_BYTES: u64 = 1024 * 1024;

/// Questions after one ALLOC before it counts as lost.
const ATTEMPTS_MAX: u32 = 1_000;

/// A QUERY and its answer, one at a time.
pub(super) fn round_trip(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    compare(bench, row, Some(Goal::AtMost(1.0)), Client::query)
}

/// An ALLOC, then QUERY until the answer holds it.
pub(super) fn visibility(bench: &Bench, row: &Row) -> anyhow::Result<Report> {
    compare(bench, row, None, Client::allocate_and_see)
}

type Exchange = fn(&mut Client) -> anyhow::Result<f64>;

fn compare(bench: &Bench, row: &Row, goal: Option<Goal>, exchange: Exchange) -> anyhow::Result<Report> {
    let mut blocking = Contender::start(bench, Subject::Blocking)?;
    let mut epoll = Contender::start(bench, Subject::Epoll)?;
    let mut ttmem = Contender::start(bench, Subject::Ttmem)?;
    for _ in 0..bench.effort.rounds {
        for contender in [&mut blocking, &mut epoll, &mut ttmem] {
            contender.round(bench.effort.queries, exchange)?;
        }
    }
    let finding = |name, numerator: &Contender, denominator: &Contender, goal| Finding {
        name,
        spread: Spread::of_ratios(&numerator.medians, &denominator.medians),
        goal,
    };
    let findings = vec![
        finding("ttmem / blocking, medians", &ttmem, &blocking, goal),
        finding("ttmem / epoll, medians", &ttmem, &epoll, None),
        finding("epoll / blocking, medians", &epoll, &blocking, None),
    ];
    Ok(Report::new(row, vec![blocking.figures()?, epoll.figures()?, ttmem.figures()?], findings))
}

/// One server through all its rounds.
struct Contender {
    server: Server,
    client: Client,
    /// Microseconds of every exchange.
    times_us: Vec<f64>,
    /// The median, by round.
    medians: Vec<f64>,
    /// What the server has used for them.
    cpu_seconds: f64,
}

impl Contender {
    fn start(bench: &Bench, subject: Subject) -> anyhow::Result<Self> {
        let server = Server::start(bench, subject)?;
        let client = Client::connect(&server)?;
        Ok(Self { server, client, times_us: Vec::new(), medians: Vec::new(), cpu_seconds: 0.0 })
    }

    fn round(&mut self, exchanges: usize, exchange: Exchange) -> anyhow::Result<()> {
        for _ in 0..WARM_UP_QUERIES {
            exchange(&mut self.client)?;
        }
        let mut times_us = Vec::with_capacity(exchanges);
        let cpu_before = self.server.cpu_seconds()?;
        for _ in 0..exchanges {
            times_us.push(exchange(&mut self.client)?);
        }
        self.cpu_seconds += self.server.cpu_seconds()? - cpu_before;
        self.medians.push(Spread::of(&times_us).median);
        self.times_us.append(&mut times_us);
        Ok(())
    }

    fn figures(&mut self) -> anyhow::Result<report::Subject> {
        self.times_us.sort_by(f64::total_cmp);
        let figure = |name, fraction| Figure { name, value: quantile(&self.times_us, fraction) };
        Ok(report::Subject {
            name: self.server.subject.name().to_owned(),
            figures: vec![
                figure("p50_us", 0.5),
                figure("p99_us", 0.99),
                figure("p99.9_us", 0.999),
                figure("max_us", 1.0),
                Figure {
                    name: "cpu_seconds_per_million",
                    value: self.cpu_seconds * 1e6 / self.times_us.len() as f64,
                },
                Figure { name: "peak_resident_mb", value: self.server.peak_resident_mb()? },
            ],
        })
    }
}

/// A blocking client of device 0.
pub(super) struct Client {
    stream: UnixStream,
    /// Bytes in DRAM that the server is known to hold.
    held_bytes: u64,
    next_id: u64,
}

impl Client {
    /// Connects and allocates what the server holds while it is asked.
    pub(super) fn connect(server: &Server) -> anyhow::Result<Self> {
        let mut client = Self { stream: clients::connect(&server.socket)?, held_bytes: 0, next_id: 1 };
        for _ in 0..BUFFERS {
            client.allocate()?;
        }
        let answered = client.ask()?;
        ensure!(
            answered == client.held_bytes,
            "`{}` answers {answered} bytes where {} were allocated",
            server.subject.name(),
            client.held_bytes
        );
        Ok(client)
    }

    /// One question; microseconds until the answer.
    pub(super) fn query(&mut self) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let answered = self.ask()?;
        let elapsed = begin.elapsed();
        ensure!(answered == self.held_bytes, "the answer changed while nothing happened");
        Ok(elapsed.as_secs_f64() * 1e6)
    }

    /// Allocates a buffer; microseconds until an answer holds it. Then frees it.
    fn allocate_and_see(&mut self) -> anyhow::Result<f64> {
        let begin = Instant::now();
        let id = self.allocate()?;
        let mut attempts = 0;
        while self.ask()? != self.held_bytes {
            attempts += 1;
            ensure!(attempts < ATTEMPTS_MAX, "an allocation never shows in the answers");
        }
        let elapsed = begin.elapsed();
        self.send(Kind::Free, id, 0)?;
        self.held_bytes -= BUFFER_BYTES;
        Ok(elapsed.as_secs_f64() * 1e6)
    }

    fn allocate(&mut self) -> anyhow::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(Kind::Alloc, id, BUFFER_BYTES)?;
        self.held_bytes += BUFFER_BYTES;
        Ok(id)
    }

    /// Asks for device 0; its bytes in DRAM.
    fn ask(&mut self) -> anyhow::Result<u64> {
        self.send(Kind::Query, 0, 0)?;
        let mut answer = [0; clients::LAYOUT.frame_bytes()];
        self.stream.read_exact(&mut answer)?;
        Ok(Reply::decode(&answer, clients::LAYOUT)?.totals.dram_bytes)
    }

    fn send(&mut self, kind: Kind, buffer_id: u64, size_bytes: u64) -> anyhow::Result<()> {
        let frame = clients::frame(kind, clients::own_pid(), 0, buffer_id, size_bytes);
        self.stream.write_all(&frame)?;
        Ok(())
    }
}
