//! The rings under the model checker, which goes through every way in which threads can meet and memory can be late.
//!
//! Each model is the code that runs, over the checker's words. It fails when the code is weakened in a single place: no Release on the
//! tail, no Acquire on it, no fence on either side of the flag, one look at the tails instead of two. What the checker does not do is
//! to delay a load beyond a later store; only the Release and the Acquire of the head stand against that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::sync::atomic::Ordering;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;
use ttmem_wire::ring::{self, Consumer, Producer, Word, wants_wake};
use ttmem_wire::{Geometry, Header, Kind, Record};

/// Threads are stopped in mid-run at most this often; more finds nothing new and takes minutes.
const PREEMPTIONS_MAX: usize = 2;

struct LoomWord(AtomicU64);

impl Word for LoomWord {
    fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, ordering);
    }

    fn swap(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.swap(value, ordering)
    }

    fn add(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.fetch_add(value, ordering)
    }

    fn fence(ordering: Ordering) {
        fence(ordering);
    }
}

type Memory = Arc<Vec<LoomWord>>;

fn memory(geometry: Geometry) -> Memory {
    let words: Vec<LoomWord> = (0..geometry.words()).map(|_| LoomWord(AtomicU64::new(0))).collect();
    ring::initialise(&words, geometry);
    Arc::new(words)
}

/// A record that says the same in each of its fields, so that a torn one is seen.
fn record(order: u64) -> Record {
    let header =
        Header { size_bytes: order, buffer_id: order, timestamp_ns: order, ..Header::request(Kind::Alloc) };
    Record::new(&header, order)
}

fn order_of_whole(record: &Record) -> u64 {
    let (header, order) = (record.header().unwrap(), record.order());
    assert_eq!((header.size_bytes, header.buffer_id, header.timestamp_ns), (order, order, order), "torn");
    order
}

fn push(words: &Memory, producer: &mut Producer, order: u64) -> bool {
    loop {
        match producer.push(words, &record(order)) {
            Ok(()) => return true,
            Err(_) if producer.make_room(words, None) => {}
            Err(_) => return false,
        }
    }
}

fn take(words: &Memory, consumers: &mut [Consumer]) -> Vec<u64> {
    let mut orders = Vec::new();
    ring::drain(words, consumers, u64::MAX, |record| orders.push(order_of_whole(record))).unwrap();
    orders
}

/// A thread that reads, as the checker lets only threads that were started run in every order.
fn reader<T: 'static>(
    words: &Memory,
    geometry: Geometry,
    read: fn(&Memory, &mut [Consumer]) -> T,
) -> thread::JoinHandle<(T, Vec<Consumer>)> {
    let words = Arc::clone(words);
    thread::spawn(move || {
        let mut consumers: Vec<Consumer> =
            (0..geometry.rings()).map(|ring| Consumer::new(geometry, ring)).collect();
        (read(&words, &mut consumers), consumers)
    })
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}

#[test]
fn records_come_whole_and_in_order_while_the_ring_goes_round() {
    check(|| {
        let geometry = Geometry::new(1, 8).unwrap();
        let words = memory(geometry);
        let mut producer = Producer::new(&words, geometry, 0);
        for order in 0..7 {
            assert!(push(&words, &mut producer, order));
        }
        let writer = {
            let words = Arc::clone(&words);
            thread::spawn(move || (7..10).take_while(|order| push(&words, &mut producer, *order)).count())
        };
        let reader = reader(&words, geometry, take);
        let pushed = writer.join().unwrap() as u64;
        let (mut orders, mut consumers) = reader.join().unwrap();
        orders.extend(take(&words, &mut consumers));
        assert_eq!(orders, (0..7 + pushed).collect::<Vec<_>>());
        assert!(pushed >= 1);
    });
}

#[test]
fn no_wake_is_lost() {
    check(|| {
        let geometry = Geometry::new(1, 8).unwrap();
        let words = memory(geometry);
        let wakes = Arc::new(AtomicU64::new(0));
        let writer = {
            let (words, wakes) = (Arc::clone(&words), Arc::clone(&wakes));
            thread::spawn(move || {
                let mut producer = Producer::new(&words, geometry, 0);
                for order in 0..2 {
                    assert!(push(&words, &mut producer, order));
                    if wants_wake(&words) {
                        wakes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let reader = reader(&words, geometry, |words, consumers| {
            (take(words, consumers), ring::prepare_sleep(words, consumers).unwrap())
        });
        writer.join().unwrap();
        let ((mut orders, sleeps), mut consumers) = reader.join().unwrap();
        if sleeps && wakes.load(Ordering::Relaxed) == 0 {
            // Nobody has woken it, so it would sleep on: there must be nothing that it has not seen.
            let left = take(&words, &mut consumers);
            assert!(left.is_empty(), "{left:?} is there and the reader sleeps");
        } else {
            orders.extend(take(&words, &mut consumers));
            assert_eq!(orders, [0, 1]);
        }
    });
}

#[test]
fn what_one_thread_does_after_another_is_never_applied_before_it() {
    check(|| {
        let geometry = Geometry::new(2, 8).unwrap();
        let words = memory(geometry);
        let counter = Arc::new(AtomicU64::new(0));
        let is_handed_over = Arc::new(AtomicU64::new(0));
        let reader = reader(&words, geometry, take);
        let first = {
            let (words, counter, is_handed_over) =
                (Arc::clone(&words), Arc::clone(&counter), Arc::clone(&is_handed_over));
            thread::spawn(move || {
                let mut producer = Producer::new(&words, geometry, 0);
                assert!(push(&words, &mut producer, counter.fetch_add(1, Ordering::AcqRel)));
                is_handed_over.store(1, Ordering::Release);
            })
        };
        let second = {
            let (words, counter) = (Arc::clone(&words), Arc::clone(&counter));
            thread::spawn(move || {
                let is_after = is_handed_over.load(Ordering::Acquire) == 1;
                let order = counter.fetch_add(1, Ordering::AcqRel);
                let mut producer = Producer::new(&words, geometry, 1);
                assert!(push(&words, &mut producer, order));
                is_after.then_some(order)
            })
        };
        first.join().unwrap();
        let after = second.join().unwrap();
        let (mut orders, mut consumers) = reader.join().unwrap();
        orders.extend(take(&words, &mut consumers));
        assert_eq!(orders.len(), 2);
        if after.is_some() {
            assert_eq!(orders, [0, 1], "the free was applied before the allocation");
        }
    });
}
