//! What a thread reports with: its own ring, found without a lock, and given back when the thread ends.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ttmem_wire::ring::{Producer, count_lost, wants_wake};
use ttmem_wire::{Header, Record};

use crate::client::Shared;
use crate::fork;
use crate::lanes::Lanes;
use crate::options::Overrun;

/// How long the readers may stand still before the server is given up; the list of what is held makes room then.
const STALL_AFTER: Duration = Duration::from_millis(250);
/// How long a report waits for readers that stand still. After that our own thread does not run either, and it is lost, and counted, and
/// so are those that find no room until the thread runs again.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// So often a thread that waits only gives up the processor. Then it wakes the readers and sleeps, longer and longer, because those who
/// wait must not keep the readers from running.
const YIELDS_MAX: u64 = 16;
const WAIT_INTERVAL: Duration = Duration::from_micros(50);
const WAIT_INTERVALS_MAX: u32 = 20;

thread_local! {
    static LANES: RefCell<Vec<ThreadLane>> = const { RefCell::new(Vec::new()) };
}

/// Reports with the calling thread's ring.
#[inline]
pub(crate) fn report(shared: &Arc<Shared>, header: &Header) {
    let reported = LANES.try_with(|lanes| {
        // A report out of a report, from a signal handler or an allocator, finds it borrowed.
        let Ok(mut lanes) = lanes.try_borrow_mut() else { return false };
        match lanes.first_mut() {
            Some(lane) if lane.id == shared.id() => lane.report(shared, header),
            _ => find(&mut lanes, shared).report(shared, header),
        }
        true
    });
    if !matches!(reported, Ok(true)) {
        // The thread is at its end, and its ring with it.
        report_in_common(shared, header);
    }
}

/// The lane of one of several clients, which is put first.
#[cold]
fn find<'a>(lanes: &'a mut Vec<ThreadLane>, shared: &Arc<Shared>) -> &'a mut ThreadLane {
    lanes.retain(|lane| !lane.shared.is_closed());
    match lanes.iter().position(|lane| lane.id == shared.id()) {
        Some(index) => lanes.swap(0, index),
        None => lanes.insert(0, ThreadLane::new(Arc::clone(shared))),
    }
    &mut lanes[0]
}

#[cold]
fn report_in_common(shared: &Arc<Shared>, header: &Header) {
    let (lanes, epoch) = shared.board().current();
    let mut lane =
        ThreadLane { id: shared.id(), shared: Arc::clone(shared), place: None, lanes, epoch, producer: None };
    lane.report(shared, header);
}

/// One thread's way to report to one client.
struct ThreadLane {
    id: u64,
    shared: Arc<Shared>,
    /// `None` for one that lasts a single report.
    place: Option<u32>,
    lanes: Arc<Lanes>,
    epoch: u64,
    /// `None` where the thread has no ring of its own.
    producer: Option<(u32, Producer)>,
}

/// What came of an attempt.
enum Attempt {
    Done,
    /// Other rings are in force.
    Moved,
    Full,
}

impl ThreadLane {
    fn new(shared: Arc<Shared>) -> ThreadLane {
        let place = shared.board().take_place();
        let (lanes, epoch) = shared.board().current();
        let mut lane =
            ThreadLane { id: shared.id(), shared, place: Some(place), lanes, epoch, producer: None };
        lane.settle();
        lane
    }

    /// Takes the thread's ring in the current set.
    fn settle(&mut self) {
        let (words, geometry) = (self.lanes.words(), self.lanes.geometry());
        let ring = self.place.filter(|place| *place < self.lanes.common_ring());
        self.producer = ring.map(|ring| (ring, Producer::new(words, geometry, ring)));
    }

    #[cold]
    fn move_on(&mut self, shared: &Shared) {
        (self.lanes, self.epoch) = shared.board().current();
        self.settle();
    }

    #[inline]
    fn report(&mut self, shared: &Shared, header: &Header) {
        match self.attempt(shared, header) {
            Attempt::Done => {}
            Attempt::Moved => {
                self.move_on(shared);
                self.insist(shared, header);
            }
            Attempt::Full => self.insist(shared, header),
        }
    }

    /// One attempt; nothing in it waits.
    #[inline]
    fn attempt(&mut self, shared: &Shared, header: &Header) -> Attempt {
        let lanes = &*self.lanes;
        match &mut self.producer {
            Some((ring, producer)) => publish(shared, lanes, self.epoch, *ring, producer, header),
            None => publish(shared, lanes, self.epoch, lanes.common_ring(), &mut lanes.common(), header),
        }
    }

    /// Waits for room as long as the policy says, counted from when the readers last moved: behind others' reports it may wait longer.
    #[cold]
    fn insist(&mut self, shared: &Shared, header: &Header) {
        let mut since = Instant::now();
        let mut readers = self.readers();
        let mut intervals = 1;
        for attempt in 0_u64.. {
            match self.attempt(shared, header) {
                Attempt::Done => return,
                Attempt::Moved => {
                    self.move_on(shared);
                    continue;
                }
                Attempt::Full => {}
            }
            let readers_now = self.readers();
            if std::mem::replace(&mut readers, readers_now) != readers_now {
                since = Instant::now();
            }
            let waited = since.elapsed();
            if waited > WAIT_MAX {
                // The reports behind this one do not wait as well.
                shared.set_stuck(true);
            }
            if shared.overrun() == Overrun::Drop || shared.is_stuck() || !shared.is_running() {
                return self.lose(shared);
            }
            if waited > STALL_AFTER {
                shared.stall();
            }
            if attempt < YIELDS_MAX {
                std::thread::yield_now();
                continue;
            }
            self.lanes.wake();
            shared.wake();
            std::thread::sleep(WAIT_INTERVAL * intervals);
            intervals = (2 * intervals).min(WAIT_INTERVALS_MAX);
        }
    }

    /// How far both readers of the thread's ring are.
    fn readers(&self) -> (u64, Option<u64>) {
        let lanes = &*self.lanes;
        match &self.producer {
            Some((ring, producer)) => (producer.reader(lanes.words()), lanes.observed(*ring)),
            None => (lanes.common().reader(lanes.words()), lanes.observed(lanes.common_ring())),
        }
    }

    /// Counts a report as lost, where whoever reads the ring finds it.
    fn lose(&mut self, shared: &Shared) {
        let lanes = &self.lanes;
        let ring = self.producer.as_ref().map_or(lanes.common_ring(), |(ring, _)| *ring);
        let _common = self.producer.is_none().then(|| lanes.common());
        if shared.board().begin(lanes, ring, self.epoch).is_some() {
            count_lost(lanes.words(), lanes.geometry(), ring, 1);
            lanes.end(ring);
        } else {
            shared.lose(1);
        }
    }
}

/// Puts a report into a ring.
#[inline]
fn publish(
    shared: &Shared,
    lanes: &Lanes,
    epoch: u64,
    ring: u32,
    producer: &mut Producer,
    header: &Header,
) -> Attempt {
    let Some(order) = shared.board().begin(lanes, ring, epoch) else { return Attempt::Moved };
    let (words, record) = (lanes.words(), Record::new(header, order));
    let mut outcome = producer.push(words, &record);
    if outcome.is_err() && make_room(shared, lanes, ring, producer) {
        outcome = producer.push(words, &record);
    }
    let wakes = outcome.is_ok() && wants_wake(words);
    lanes.end(ring);
    if wakes {
        lanes.wake();
    }
    if outcome.is_ok() { Attempt::Done } else { Attempt::Full }
}

/// Looks how far the readers are, a few times on the way round the ring, and wakes the second one when it is needed.
#[cold]
fn make_room(shared: &Shared, lanes: &Lanes, ring: u32, producer: &mut Producer) -> bool {
    let observed = lanes.observed(ring);
    let has_room = producer.make_room(lanes.words(), observed);
    let behind = observed.map_or(0, |observed| producer.position().wrapping_sub(observed));
    if behind > u64::from(lanes.geometry().records() / 2) {
        shared.wake();
    }
    has_room
}

impl Drop for ThreadLane {
    fn drop(&mut self) {
        // In a fork the places are the parent's, and whoever held their lock is not here to release it.
        if let Some(place) = self.place
            && self.shared.generation() == fork::generation()
        {
            self.shared.board().give_place_back(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use ttmem_wire::Kind;

    use super::*;
    use crate::options::Options;

    /// More than there are rings.
    const THREADS: u64 = 6;
    /// Under Miri, where time passes slowly, so few that nobody has to wait for room.
    const REPORTS: u64 = if cfg!(miri) { 2 } else { 5_000 };

    fn allocate(shared: &Arc<Shared>, id: u64) {
        report(shared, &Header { buffer_id: id, size_bytes: 1, ..Header::request(Kind::Alloc) });
    }

    fn shared(overrun: Overrun) -> Arc<Shared> {
        let options = Options { overrun, rings: 4, ring_records: 8, ..Options::default() };
        Shared::new(options).expect("an eventfd")
    }

    fn buffers(shared: &Shared) -> u64 {
        let mut books = shared.books();
        books.catch_up();
        books.holdings.statistics().iter().map(|row| row.buffers).sum()
    }

    #[test]
    fn nothing_is_lost_while_other_rings_come_into_force() {
        let shared = shared(Overrun::Wait);
        let running = AtomicU64::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (shared, running) = (&shared, &running);
                scope.spawn(move || {
                    (0..REPORTS).for_each(|id| allocate(shared, thread * REPORTS + id));
                    running.fetch_sub(1, Ordering::Relaxed);
                });
            }
            while running.load(Ordering::Relaxed) > 0 {
                shared.books().turn();
                let lanes = Arc::new(Lanes::own(shared.geometry(), Arc::clone(shared.waker())));
                let mut books = shared.books();
                shared.board().replace(Arc::clone(&lanes), std::thread::yield_now);
                books.move_to(lanes);
            }
        });
        assert_eq!(buffers(&shared), THREADS * REPORTS);
        assert_eq!((shared.books().lost, shared.take_lost()), (0, 0));
    }

    #[test]
    fn a_thread_that_ends_leaves_its_ring_to_the_next() {
        let shared = shared(Overrun::Drop);
        for id in 0..REPORTS.min(200) {
            let own = Arc::clone(&shared);
            std::thread::spawn(move || allocate(&own, id)).join().expect("a report");
            assert_eq!(buffers(&shared), id + 1);
        }
        assert_eq!(shared.board().take_place(), 0, "one place is enough for threads that come one by one");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let shared = shared(Overrun::Drop);
        (0..20).for_each(|id| allocate(&shared, id));
        assert_eq!(buffers(&shared), 8);
        assert_eq!(shared.books().lost, 12);
    }

    #[test]
    fn behind_a_report_that_has_waited_in_vain_nobody_waits() {
        let shared = shared(Overrun::Wait);
        shared.set_stuck(true);
        (0..20).for_each(|id| allocate(&shared, id));
        assert!(!shared.board().is_stalled.load(Ordering::Relaxed), "a report that waits says so");
        assert_eq!((buffers(&shared), shared.books().lost), (8, 12));
    }

    #[test]
    fn each_client_has_rings_of_its_own() {
        let clients = [shared(Overrun::Drop), shared(Overrun::Drop)];
        for id in 0..4 {
            allocate(&clients[0], id);
            allocate(&clients[1], 2 * id);
            allocate(&clients[1], 2 * id + 1);
        }
        assert_eq!(clients.map(|shared| buffers(&shared)), [4, 8]);
    }
}
