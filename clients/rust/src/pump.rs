//! The background thread: connects, hands rings over, sends frames where there are none, and begins again when the server is gone.
//!
//! The idea is that threads always report into rings, and only what is read from them changes. Without a server, or with one that knows
//! frames alone, this thread reads the rings. When the server has offered rings, threads go over to those; this thread then reads them
//! beside the server, which costs a report nothing, and so knows at any time what another server would have to hear.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::{Duration, Instant};

use ttmem_wire::{DescriptorKind, Features, Header, Hello, HelloReply, Kind};

use crate::books::TURN_RECORDS;
use crate::client::Shared;
use crate::connection::{Connection, Incoming};
use crate::lanes::Lanes;
use crate::mapping::Mapping;
use crate::signals::Blocked;
use crate::wake::Wake;

/// Between two attempts to connect. A server that is there and does not move is tried less and less often, because each attempt may hold
/// threads up.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(200);
const RECONNECT_INTERVAL_MAX: Duration = Duration::from_secs(10);
/// So often a server that once knew HELLO may leave it unanswered before it is taken for one that does not.
const UNANSWERED_MAX: u32 = 3;
/// How long an answer to HELLO is waited for; a server that knows it answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);
/// Between two looks at rings that have just been empty, and how many of them before this thread sleeps.
const REST: Duration = Duration::from_millis(1);
const RESTS_MAX: u32 = 20;
/// How long what was reported may take to be sent when the client is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Starts the thread. Without it, reports are counted as lost.
pub(crate) fn start(shared: &Arc<Shared>) {
    let own = Arc::clone(shared);
    let signals = Blocked::all();
    let started = std::thread::Builder::new().name("ttmem-client".into()).spawn(move || {
        Pump::new(&own).run();
        own.stopped();
    });
    drop(signals);
    if started.is_err() {
        shared.stopped();
    }
}

/// How far a connection is.
enum Stage {
    /// The server was asked which run of it this is. What is reported meanwhile is kept.
    Asked { since: Instant },
    /// Reports go out as frames; the rings that the server has offered wait until all that is older has been sent.
    Frames { offer: Option<Lanes> },
    /// The server reads the rings.
    Rings,
}

struct Link {
    connection: Connection,
    stage: Stage,
    has_asked: bool,
    is_answered: bool,
}

struct Pump<'a> {
    shared: &'a Arc<Shared>,
    link: Option<Link>,
    next_attempt: Instant,
    /// How long after giving up a server that does not move it is tried again.
    interval: Duration,
    /// Questions in a row that a server has left unanswered.
    unanswered: u32,
    /// The run of the server that has heard of what this process held.
    instance: Option<u64>,
    /// Whether to ask. A server that closes the connection for it is not asked the next time.
    asks: bool,
    /// The flush that a question has been sent for.
    flush_asked: Option<u64>,
    rests: u32,
}

impl<'a> Pump<'a> {
    fn new(shared: &'a Arc<Shared>) -> Pump<'a> {
        Pump {
            shared,
            link: None,
            next_attempt: Instant::now(),
            interval: RECONNECT_INTERVAL,
            unanswered: 0,
            instance: None,
            asks: true,
            flush_asked: None,
            rests: 0,
        }
    }

    fn run(&mut self) {
        let mut closing = None;
        loop {
            // In this order: whoever closes wants a flush before.
            let is_closed = self.shared.is_closed();
            let flush_wanted = self.shared.flush_wanted.load(Acquire);
            self.shared.set_stuck(false);
            if self.shared.board().is_stalled.swap(false, AcqRel) && self.link.is_some() {
                self.give_up();
            }
            // First the connection: what is read from the rings without one is known as what is held, but not how it came about.
            if let Err(_gone) = self.advance() {
                self.disconnect();
            }
            let records = self.turn();
            if let Err(_gone) = self.send() {
                self.disconnect();
            }
            self.flush(flush_wanted);
            if is_closed {
                let since = *closing.get_or_insert_with(Instant::now);
                let is_flushed = self.shared.flush_done.load(Acquire) >= flush_wanted;
                if is_flushed || self.link.is_none() || since.elapsed() > CLOSE_TIMEOUT {
                    self.shared.socket.store(-1, Release);
                    return;
                }
            }
            self.wait(records);
        }
    }

    /// Asks a question behind all that was reported: when its answer is there, the server has applied that.
    fn flush(&mut self, wanted: u64) {
        let is_settled = match &self.link {
            Some(Link { stage: Stage::Frames { offer }, .. }) => offer.is_none(),
            Some(Link { stage: Stage::Rings, .. }) => true,
            _ => false,
        };
        if !is_settled || self.flush_asked.is_some() || self.shared.flush_done.load(Acquire) >= wanted {
            return;
        }
        let mut books = self.shared.books();
        if !books.holdings.is_replaying() && books.catch_up() {
            books.send(&Header::request(Kind::Query));
            drop(books);
            self.flush_asked = Some(wanted);
            if self.send().is_err() {
                self.disconnect();
            }
        }
    }

    /// Reads the rings, where it is this thread that has to.
    fn turn(&mut self) -> u64 {
        let mut books = self.shared.books();
        let records = books.turn();
        books.lost += self.shared.take_lost();
        if books.out.is_some() && books.lost > 0 {
            let lost = std::mem::take(&mut books.lost);
            books.send(&Header { size_bytes: lost, ..Header::request(Kind::Lost) });
        }
        records
    }

    /// Does for the connection what can be done now.
    fn advance(&mut self) -> io::Result<()> {
        if self.link.is_none() {
            self.connect();
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        match link.connection.receive() {
            Ok(Incoming::Answer(answer, descriptors)) => {
                let offer = offer(&answer, descriptors);
                self.take(answer.instance, offer);
            }
            Ok(Incoming::Totals) => {
                if let Some(asked) = self.flush_asked.take() {
                    self.shared.flush_done.fetch_max(asked, Release);
                }
            }
            Ok(Incoming::Nothing) => {}
            Err(error) => {
                // It may be one that does not know the question.
                if !link.is_answered {
                    self.asks = !link.has_asked;
                }
                return Err(error);
            }
        }
        match &self.link {
            Some(Link { stage: Stage::Asked { since }, .. }) if since.elapsed() > ANSWER_TIMEOUT => {
                self.unanswered += 1;
                if self.unanswered >= UNANSWERED_MAX {
                    self.begin(None, None);
                } else {
                    self.give_up();
                }
            }
            _ => {}
        }
        self.send()?;
        self.switch();
        self.send()
    }

    fn connect(&mut self) {
        let now = Instant::now();
        if now < self.next_attempt {
            return;
        }
        self.next_attempt = now + RECONNECT_INTERVAL;
        let Ok(connection) = Connection::open(&self.shared.options().socket) else { return };
        self.shared.socket.store(connection.as_raw_fd(), Release);
        let has_asked = std::mem::replace(&mut self.asks, true);
        let stage = Stage::Asked { since: now };
        self.link = Some(Link { connection, stage, has_asked, is_answered: false });
        if !has_asked {
            return self.begin(None, None);
        }
        let geometry = self.shared.geometry();
        let features = if self.shared.options().uses_rings { Features::RINGS } else { Features::default() };
        let (rings, records) = (geometry.rings(), geometry.records());
        let ask = Hello::Ask { features, rings, records, client: self.shared.identity() };
        let frame = ttmem_wire::encode_request(&ask.header(), ttmem_wire::Layout::Bytes144);
        if let Some(link) = &self.link
            && !link.connection.send(&frame).is_ok_and(|sent| sent == frame.len())
        {
            self.disconnect();
        }
        if self.instance.is_none() {
            // Whichever run it is, it has heard of nothing.
            self.begin(None, None);
        }
    }

    /// Heeds the server's answer.
    fn take(&mut self, instance: u64, offered: Option<Lanes>) {
        (self.unanswered, self.interval) = (0, RECONNECT_INTERVAL);
        if let Some(link) = &mut self.link {
            link.is_answered = true;
        }
        match &mut self.link {
            Some(Link { stage: Stage::Asked { .. }, .. }) => self.begin(Some(instance), offered),
            Some(Link { stage: Stage::Frames { offer }, .. }) => {
                *offer = offered;
                self.instance = Some(instance);
            }
            _ => {}
        }
    }

    /// Begins to send frames: first all that is held.
    fn begin(&mut self, instance: Option<u64>, offer: Option<Lanes>) {
        let Some(link) = &mut self.link else { return };
        link.stage = Stage::Frames { offer };
        let mut books = self.shared.books();
        books.out = Some(Vec::new());
        // The same server as before knows what this process held when the connection broke, and cannot know what it freed since. One
        // that does not answer may be the same.
        if self.instance.is_some() && (instance.is_none() || instance == self.instance) {
            books.send(&Hello::Renew { number: monotonic_ns(), client: self.shared.identity() }.header());
        }
        self.instance = instance.or(self.instance);
        // First, because it is refused behind the first span. One that has closed the connection for a HELLO would for this.
        if let Some(trace) = books.holdings.trace().filter(|_| link.has_asked) {
            books.send(&trace);
        }
        books.replay();
    }

    /// Goes over to the server's rings as soon as all that is older has been sent.
    fn switch(&mut self) {
        let Some(Link { stage: stage @ Stage::Frames { .. }, .. }) = &mut self.link else { return };
        let Stage::Frames { offer } = stage else { return };
        let mut books = self.shared.books();
        if !books.is_told() {
            return;
        }
        let Some(lanes) = offer.take() else { return };
        let lanes = Arc::new(lanes);
        self.shared.board().replace(Arc::clone(&lanes), std::thread::yield_now);
        books.move_to(lanes);
        books.send(&Hello::Switch.header());
        *stage = Stage::Rings;
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(link) = &self.link else { return Ok(()) };
        let mut books = self.shared.books();
        if let Some(out) = &mut books.out
            && !out.is_empty()
        {
            let sent = link.connection.send(out)?;
            out.drain(..sent);
        }
        books.replay_more();
        Ok(())
    }

    /// Gives up a server that does not move.
    fn give_up(&mut self) {
        self.disconnect();
        self.next_attempt = Instant::now() + self.interval;
        self.interval = (self.interval * 2).min(RECONNECT_INTERVAL_MAX);
    }

    /// Gives the connection up. Threads go back to rings of our own, and what is held is kept.
    fn disconnect(&mut self) {
        self.shared.socket.store(-1, Release);
        self.flush_asked = None;
        let Some(link) = self.link.take() else { return };
        self.next_attempt = Instant::now() + RECONNECT_INTERVAL;
        let mut books = self.shared.books();
        books.fall_silent();
        if matches!(link.stage, Stage::Rings) {
            let lanes = Arc::new(Lanes::own(self.shared.geometry(), Arc::clone(self.shared.waker())));
            self.shared.board().replace(Arc::clone(&lanes), std::thread::yield_now);
            books.move_to(lanes);
        }
    }

    /// Waits for something to do.
    fn wait(&mut self, records: u64) {
        self.rests = if records > 0 { 0 } else { self.rests + 1 };
        let is_reading = !matches!(&self.link, Some(Link { stage: Stage::Rings, .. }));
        if records == TURN_RECORDS || is_reading && records > 0 {
            return;
        }
        let rests = is_reading && self.rests <= RESTS_MAX;
        if !rests && !self.shared.books().prepare_sleep() {
            self.rests = 0;
            return;
        }
        let timeout = if rests { Some(REST) } else { self.deadline() };
        let is_full = self.shared.books().out.as_ref().is_some_and(|out| !out.is_empty());
        poll(self.shared.waker(), self.link.as_ref().map(|link| (&link.connection, is_full)), timeout);
        self.shared.waker().clear();
        if !rests {
            self.shared.books().wake();
        }
    }

    /// When something is due that nobody wakes this thread for.
    fn deadline(&self) -> Option<Duration> {
        match &self.link {
            None => Some(self.next_attempt.saturating_duration_since(Instant::now())),
            Some(Link { stage: Stage::Asked { since }, .. }) => {
                Some(ANSWER_TIMEOUT.saturating_sub(since.elapsed()))
            }
            Some(_) if self.shared.is_closed() => Some(REST),
            Some(_) => None,
        }
    }
}

/// A number that grows from one renewal to the next.
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time`, which outlives the call. The clock always exists.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// The rings that an answer brings, if it does and they are sound.
fn offer(answer: &HelloReply, descriptors: Vec<std::os::fd::OwnedFd>) -> Option<Lanes> {
    let geometry = answer.geometry.filter(|_| answer.features.has(Features::RINGS))?;
    let (mut memory, mut wake) = (None, None);
    for (descriptor, file) in answer.descriptors().iter().zip(descriptors) {
        match descriptor.kind {
            Some(DescriptorKind::Rings) => memory = Some(file),
            Some(DescriptorKind::RingsWake) => wake = Some(Wake::received(file)),
            _ => {}
        }
    }
    let mapping = Mapping::for_both(memory?.as_fd(), geometry.words()).ok()?;
    Some(Lanes::servers(mapping, geometry, wake?))
}

/// Sleeps until the thread is woken, the server says something or there is room to write, or the time is up.
fn poll(wake: &Wake, connection: Option<(&Connection, bool)>, timeout: Option<Duration>) {
    let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
    let socket = connection.map_or(entry(-1, 0), |(connection, is_full)| {
        entry(connection.as_raw_fd(), if is_full { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN })
    });
    let mut entries = [entry(wake.as_raw_fd(), libc::POLLIN), socket];
    // Rounded up, so that a deadline has passed when it has.
    let milliseconds =
        timeout.map_or(-1, |timeout| i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: the entries outlive the call, and their number is right. Whatever it returns, everything is looked at again.
    let _ = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, milliseconds) };
}
