//! One run: does what the plan says to processes and daemon, keeps the model in step, and compares.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use ttmem_wire::{Header, Kind, Layout, Reply, Totals, encode_request};

use super::fleet::{Speech, Worker};
use super::model::Model;
use super::plan::{self, Operation};
use super::report::Report;
use super::scraper::Scraper;
use super::supervisor::Supervisor;
use super::tally::Tally;
use super::told::{self, FRAME_DEVICES, Told};
use super::worker::Manner;
use crate::cli::random::Random;

/// Processes at once.
const WORKERS_MAX: usize = 12;
/// Connections of one process.
const CONNECTIONS_MAX: usize = 3;
/// Operations that are told when something goes wrong.
const RECENT_MAX: usize = 30;
/// Differences that are told.
const DIFFERENCES_MAX: usize = 20;
/// How long the end of a process, or a library that reports everything anew, may take to be seen.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// One line of a flood is so many allocations, and as many frees.
const FLOOD_UNIT: u64 = 32;
/// Devices whose totals are asked for: all that anything is reported about.
const DEVICES: u16 = FRAME_DEVICES + 2;
const LAYOUTS: [Layout; 3] = [Layout::Bytes72, Layout::Bytes112, Layout::Bytes144];
const MANNERS: [Manner; 4] = [Manner::Batched(1), Manner::Batched(3), Manner::Batched(64), Manner::Torn];
const GARBAGE: [&str; 3] = ["unknown_type", "padding", "tail"];

/// A run.
pub(super) struct Drill {
    random: Random,
    supervisor: Supervisor,
    /// A connection on which nothing but questions is sent, for as long as all daemons together live.
    control: UnixStream,
    scraper: Scraper,
    model: Model,
    workers: Vec<Worker>,
    pub(super) tally: Tally,
    recent: VecDeque<String>,
    /// Whether a process has ended by whose word alone it is known what it sent: nobody can ask any more whether that has been read.
    may_be_unread: bool,
}

impl Drill {
    /// Starts the daemon in a directory.
    pub(super) fn start(directory: &Path, seed: u64) -> anyhow::Result<Drill> {
        let supervisor = Supervisor::start(directory)?;
        let control = UnixStream::connect(supervisor.socket())?;
        control.set_read_timeout(Some(PATIENCE))?;
        let scraper = Scraper::start(supervisor.http())?;
        let mut drill = Drill {
            random: Random::new(seed),
            supervisor,
            control,
            scraper,
            model: Model::default(),
            workers: Vec::new(),
            tally: Tally::new(),
            recent: VecDeque::new(),
            may_be_unread: false,
        };
        drill.totals()?;
        Ok(drill)
    }

    /// What happened last, for whoever looks for the reason of a failure.
    pub(super) fn recent(&self) -> String {
        self.recent.iter().fold(String::new(), |text, line| text + "  " + line + "\n")
    }

    /// Draws one operation and does it.
    pub(super) fn step(&mut self) -> anyhow::Result<()> {
        let operation = plan::draw(&mut self.random, self.tally.operations);
        self.note(format!("{operation:?}"));
        self.tally.operations += 1;
        match operation {
            Operation::Spawn => self.spawn()?,
            Operation::Burst => self.burst()?,
            Operation::Flood => self.flood()?,
            Operation::Connect => self.connect()?,
            Operation::Close => self.close()?,
            Operation::CloseDevice => self.close_device()?,
            Operation::RaiseHeir => self.raise_heir()?,
            Operation::Leave => self.leave()?,
            Operation::Kill => self.kill()?,
            Operation::KillUnread => self.kill_unread()?,
            Operation::Stop => self.stop()?,
            Operation::Continue => self.resume()?,
            Operation::Garbage => self.garbage()?,
            Operation::HalfFrame => self.half_frame()?,
            Operation::Compare => self.compare()?,
            Operation::Freeze => self.freeze()?,
            Operation::KillDaemon => self.kill_daemon()?,
            Operation::KillDaemonUnderLoad => self.kill_daemon_under_load()?,
            Operation::Upgrade => self.upgrade()?,
        }
        self.scraper.check()
    }

    /// Ends all processes and compares once more: nothing may be left.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.note("the end".to_owned());
        self.compare()?;
        while let Some(worker) = self.workers.pop() {
            self.ended(&worker);
            worker.kill()?;
        }
        self.compare()?;
        self.scraper.check()?;
        self.tally.scrapes = self.scraper.scrapes();
        ensure!(self.model.usage().is_empty(), "the model holds something without processes");
        Ok(())
    }

    fn note(&mut self, line: String) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }

    /// Adds to what is noted of the operation under way.
    fn detail(&mut self, detail: &str) {
        if let Some(last) = self.recent.back_mut() {
            // Writing into a String cannot fail.
            let _ = write!(last, " {detail}");
        }
    }

    /// One of the workers that can be told something.
    fn pick(&mut self, is_fit: impl Fn(&Worker) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.workers.len()).filter(|index| is_fit(&self.workers[*index])).collect();
        let index = *fit.get(plan::index(&mut self.random, fit.len()))?;
        let pid = self.workers[index].pid();
        self.detail(&format!("of {pid}"));
        Some(index)
    }

    fn spawn(&mut self) -> anyhow::Result<()> {
        if self.workers.len() >= WORKERS_MAX {
            return Ok(());
        }
        let speech = plan::one_of(&mut self.random, &[Speech::Frames, Speech::Frames, Speech::Library]);
        let mut worker = Worker::start(&self.supervisor.socket(), speech)?;
        self.detail(&format!("{speech:?} {}", worker.pid()));
        self.tally.processes += 1;
        if speech == Speech::Library {
            worker.do_now(&format!("library {}", plan::one_of(&mut self.random, &["rings", "frames"])))?;
        }
        self.workers.push(worker);
        let index = self.workers.len() - 1;
        if speech == Speech::Frames {
            self.open(index)?;
        }
        self.report(index)
    }

    fn open(&mut self, index: usize) -> anyhow::Result<()> {
        let layout = plan::one_of(&mut self.random, &LAYOUTS);
        let worker = &mut self.workers[index];
        let name = worker.names;
        worker.names += 1;
        worker.connections.push(name);
        worker.do_now(&format!("open {name} {}", layout.frame_bytes()))?;
        Ok(())
    }

    fn burst(&mut self) -> anyhow::Result<()> {
        match self.pick(|worker| !worker.is_stopped) {
            Some(index) => self.report(index),
            None => Ok(()),
        }
    }

    /// Lets a worker, or its heir, report something.
    fn report(&mut self, index: usize) -> anyhow::Result<()> {
        let worker = &mut self.workers[index];
        let pid = worker.pid();
        if let Some(heir) = worker.heir.filter(|_| self.random.between(0, 2) == 0) {
            return self.report_as_heir(index, heir);
        }
        let held = self.model.processes.entry(pid).or_default();
        if worker.speech == Speech::Library {
            let reports = plan::library_burst(&mut self.random, held, &mut worker.names);
            return self.say(index, pid, "send 0 1", &reports);
        }
        let connection = plan::one_of(&mut self.random, &worker.connections);
        let has_sums = connection == worker.connections[0];
        let reports = plan::burst(&mut self.random, held, connection, has_sums);
        let manner = plan::one_of(&mut self.random, &MANNERS);
        self.say(index, pid, &format!("send {connection} {manner}"), &reports)
    }

    fn report_as_heir(&mut self, index: usize, heir: u32) -> anyhow::Result<()> {
        let held = self.model.processes.entry(heir).or_default();
        let reports = plan::burst(&mut self.random, held, self.workers[index].connections[0], false);
        self.say(index, heir, "bequeath", &reports)
    }

    fn say(&mut self, index: usize, pid: u32, how: &str, reports: &[Report]) -> anyhow::Result<()> {
        self.detail(&format!("{how} ({} reports)", reports.len()));
        let before = self.model.rejected.values().sum::<u64>();
        for report in reports {
            self.model.apply(pid, report);
        }
        self.tally.reports += reports.len() as u64;
        self.tally.bad_inputs += self.model.rejected.values().sum::<u64>() - before;
        let line = reports.iter().fold(how.to_owned(), |line, report| line + " " + &report.text());
        self.workers[index].do_now(&line)?;
        Ok(())
    }

    fn flood(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(is_ready_for_frames) else { return Ok(()) };
        self.begin_flood(index)?;
        self.workers[index].finish()?;
        self.tally.fault("floods");
        Ok(())
    }

    /// Lets a worker flood, and does not wait for it.
    fn begin_flood(&mut self, index: usize) -> anyhow::Result<()> {
        let worker = &mut self.workers[index];
        let connection = plan::one_of(&mut self.random, &worker.connections);
        let report = plan::flooded(&mut self.random, connection);
        let rounds = self.random.between(10, 300);
        self.model.flood(worker.pid(), &report, rounds * FLOOD_UNIT);
        self.tally.reports += rounds * FLOOD_UNIT * 2;
        worker.begin(&format!("flood {connection} {rounds} {}", report.text()))
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let fit = |worker: &Worker| is_ready_for_frames(worker) && worker.connections.len() < CONNECTIONS_MAX;
        match self.pick(fit) {
            Some(index) => self.open(index),
            None => Ok(()),
        }
    }

    /// Closes a connection, which frees nothing. The first one stays while there is an heir.
    fn close(&mut self) -> anyhow::Result<()> {
        let fit = |worker: &Worker| is_ready_for_frames(worker) && worker.connections.len() > 1;
        let Some(index) = self.pick(fit) else { return Ok(()) };
        let worker = &mut self.workers[index];
        // Sums go on over another connection.
        worker.do_now("sync")?;
        let place =
            if worker.heir.is_some() { 1 } else { plan::index(&mut self.random, worker.connections.len()) };
        let name = worker.connections.remove(place);
        worker.do_now(&format!("close {name}"))?;
        Ok(())
    }

    fn close_device(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(|worker| !worker.is_stopped) else { return Ok(()) };
        let (worker, device) = (&self.workers[index], self.random.between(0, u64::from(DEVICES) - 1) as u16);
        let connection = (worker.speech == Speech::Frames).then(|| worker.connections[0]);
        let (pid, held) = (worker.pid(), self.model.processes.entry(worker.pid()).or_default());
        let reports = plan::device_close(held, connection, device);
        self.tally.fault("devices closed");
        self.say(index, pid, &format!("send {} 64", connection.unwrap_or(0)), &reports)
    }

    fn raise_heir(&mut self) -> anyhow::Result<()> {
        let fit = |worker: &Worker| is_ready_for_frames(worker) && worker.heir.is_none();
        let Some(index) = self.pick(fit) else { return Ok(()) };
        let worker = &mut self.workers[index];
        let pid = worker.do_now(&format!("heir {}", worker.connections[0]))?;
        let heir = pid.parse().context("an heir without a pid")?;
        worker.heir = Some(heir);
        self.tally.fault("forks that go on with their parent's connection");
        self.report_as_heir(index, heir)?;
        // The kernel vouches for it while it lives, so the daemon has to meet it before it may end.
        self.workers[index].do_now("sync")?;
        Ok(())
    }

    /// A worker that has ended, or is about to: so has its heir.
    fn ended(&mut self, worker: &Worker) {
        self.model.end(worker.pid());
        if let Some(heir) = worker.heir {
            self.model.end(heir);
        }
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(|worker| !worker.is_stopped) else { return Ok(()) };
        let worker = self.workers.swap_remove(index);
        self.ended(&worker);
        self.may_be_unread = true;
        self.tally.fault("processes that end with all they hold");
        worker.leave()
    }

    /// Kills a worker when all is read, and measures until it is reclaimed.
    fn kill(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(|worker| worker.heir.is_none()) else { return Ok(()) };
        self.settle()?;
        let worker = self.workers.swap_remove(index);
        let holds = self.model.processes.get(&worker.pid()).is_some_and(|held| !held.usage().is_empty());
        self.ended(&worker);
        let expected = self.expected_totals();
        let instant = Instant::now();
        worker.kill()?;
        self.tally.fault("processes killed");
        if holds {
            self.wait_for_totals(&expected)?;
            self.tally.reclaimed(instant.elapsed());
        }
        Ok(())
    }

    /// Kills a worker while what it has sent may still be unread.
    fn kill_unread(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(|worker| !worker.is_stopped) else { return Ok(()) };
        self.report(index)?;
        let worker = self.workers.swap_remove(index);
        self.ended(&worker);
        self.may_be_unread = true;
        self.tally.fault("processes killed with reports on their way");
        worker.kill()
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(|worker| !worker.is_stopped) else { return Ok(()) };
        let worker = &mut self.workers[index];
        worker.do_now("sync")?;
        worker.signal(Signal::STOP)?;
        worker.is_stopped = true;
        self.tally.fault("processes stopped for a while");
        Ok(())
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(|worker| worker.is_stopped) else { return Ok(()) };
        let worker = &mut self.workers[index];
        worker.signal(Signal::CONT)?;
        worker.is_stopped = false;
        Ok(())
    }

    fn garbage(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(is_ready_for_frames) else { return Ok(()) };
        let reason = plan::one_of(&mut self.random, &GARBAGE);
        self.detail(reason);
        self.workers[index].do_now(&format!("garbage {reason}"))?;
        self.model.reject(reason);
        self.tally.bad_inputs += 1;
        self.tally.fault("connections with garbage");
        Ok(())
    }

    fn half_frame(&mut self) -> anyhow::Result<()> {
        let Some(index) = self.pick(is_ready_for_frames) else { return Ok(()) };
        let bytes = self.random.between(1, 71);
        self.workers[index].do_now(&format!("half {bytes}"))?;
        self.model.reject("truncated");
        self.tally.bad_inputs += 1;
        self.tally.fault("connections that end inside a frame");
        Ok(())
    }

    /// The daemon stands still for a while, in which others go on reporting.
    fn freeze(&mut self) -> anyhow::Result<()> {
        self.supervisor.signal(Signal::STOP)?;
        for _ in 0..self.random.between(0, 3) {
            self.burst()?;
        }
        thread::sleep(Duration::from_millis(self.random.between(10, 700)));
        self.supervisor.signal(Signal::CONT)?;
        self.tally.fault("daemon stopped for a while");
        Ok(())
    }

    /// Kills the daemon when all is read, and measures until the next one says exactly the same.
    fn kill_daemon(&mut self) -> anyhow::Result<()> {
        self.settle()?;
        let expected = self.expected_totals();
        let instant = self.supervisor.kill()?;
        self.supervisor.launch()?;
        self.wait_for_totals(&expected)?;
        self.tally.recovered(instant.elapsed());
        self.tally.fault("daemon killed");
        self.supervisor.wait_until_ready()?;
        self.compare()
    }

    /// Kills the daemon, perhaps several times and perhaps before it is up again, while processes flood it.
    fn kill_daemon_under_load(&mut self) -> anyhow::Result<()> {
        let mut flooding = BTreeSet::new();
        for _ in 0..self.random.between(1, 4) {
            flooding.extend(self.pick(is_ready_for_frames));
        }
        for index in &flooding {
            self.begin_flood(*index)?;
        }
        for _ in 0..self.random.between(1, 4) {
            thread::sleep(Duration::from_micros(self.random.between(0, 60_000)));
            self.supervisor.kill()?;
            self.supervisor.launch()?;
            self.tally.fault("daemon killed under load");
        }
        self.supervisor.wait_until_ready()?;
        for index in flooding {
            self.workers[index].finish()?;
        }
        self.compare()
    }

    /// Ends the daemon as an upgrade does. What is reported before the next one starts waits in the sockets.
    fn upgrade(&mut self) -> anyhow::Result<()> {
        self.burst()?;
        self.supervisor.terminate()?;
        for _ in 0..self.random.between(0, 2) {
            self.burst()?;
        }
        self.supervisor.launch()?;
        self.supervisor.wait_until_ready()?;
        self.tally.fault("daemon upgraded");
        self.compare()
    }

    /// Waits until the daemon has read everything: each process asks on each of its connections. What is stopped asked before.
    fn settle(&mut self) -> anyhow::Result<()> {
        for worker in self.workers.iter_mut().filter(|worker| !worker.is_stopped) {
            worker.do_now("sync")?;
        }
        let live: BTreeSet<u32> =
            self.workers.iter().flat_map(|worker| [Some(worker.pid()), worker.heir]).flatten().collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ghosts: Vec<u32> = told::alive(&self.supervisor.http())?.difference(&live).copied().collect();
            if ghosts.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.tally.ghosts += ghosts.len() as u64;
                bail!("processes that have ended are taken for alive: {ghosts:?}");
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Compares what the daemon says of everything with the model.
    fn compare(&mut self) -> anyhow::Result<()> {
        self.settle()?;
        self.tally.resident(self.supervisor.resident_bytes()?);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = Told::read(&self.supervisor.http())?;
            self.tally.refused += told.excuse(&mut self.model).map_err(anyhow::Error::msg)?;
            let differences = told.differences(&self.model);
            if differences.exact.is_empty() && differences.library.is_empty() {
                self.tally.comparisons += 1;
                self.may_be_unread = false;
                return Ok(());
            }
            let is_final = !differences.exact.is_empty() && !self.may_be_unread;
            if is_final || Instant::now() > deadline {
                self.tally.lost += differences.lost;
                self.tally.ghosts += differences.ghosts;
                let all: Vec<String> = differences.exact.into_iter().chain(differences.library).collect();
                let shown = all[..all.len().min(DIFFERENCES_MAX)].join("\n  ");
                bail!("the daemon and the model differ in {} places:\n  {shown}", all.len());
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn expected_totals(&self) -> Vec<Totals> {
        let usage = self.model.usage();
        let of = |device, name| usage.get(&(device, name)).map_or(0, |usage| usage.bytes);
        let totals = (0..DEVICES).map(|device| Totals {
            dram_bytes: of(device, "dram"),
            l1_bytes: of(device, "l1"),
            l1_small_bytes: of(device, "l1_small"),
            trace_bytes: of(device, "trace"),
            cb_bytes: of(device, "cb"),
            kernel_bytes: of(device, "kernel"),
        });
        totals.collect()
    }

    /// Asks until all totals are as expected.
    fn wait_for_totals(&mut self, expected: &[Totals]) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let totals = self.totals()?;
            if totals == expected {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the totals stay {totals:?}, expected {expected:?}");
            }
        }
    }

    /// What is in use on each device, asked over the connection that no daemon's end may close.
    fn totals(&mut self) -> anyhow::Result<Vec<Totals>> {
        let layout = Layout::Bytes144;
        let questions = (0..DEVICES).flat_map(|device| {
            let question = Header { device_id: device.into(), ..Header::request(Kind::Query) };
            encode_request(&question, layout).to_vec()
        });
        self.control.write_all(&questions.collect::<Vec<u8>>())?;
        let mut answers = vec![0; layout.frame_bytes() * usize::from(DEVICES)];
        self.control.read_exact(&mut answers).context("a connection was closed by a restart")?;
        let replies = answers.chunks_exact(layout.frame_bytes());
        replies.map(|answer| Ok(Reply::decode(answer, layout)?.totals)).collect()
    }
}

/// Whether a worker can be told something about its own connections.
fn is_ready_for_frames(worker: &Worker) -> bool {
    !worker.is_stopped && worker.speech == Speech::Frames
}
