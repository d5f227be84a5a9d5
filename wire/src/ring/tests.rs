//! The layout, and what each end does by itself.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use std::vec::Vec;

use super::*;
use crate::Kind;

fn memory(geometry: Geometry) -> Vec<AtomicU64> {
    let words: Vec<AtomicU64> = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
    initialise(&words, geometry);
    words
}

fn record(buffer_id: u64, order: u64) -> Record {
    Record::new(&Header { buffer_id, ..Header::request(Kind::Free) }, order)
}

fn consumers(geometry: Geometry) -> Vec<Consumer> {
    (0..geometry.rings()).map(|ring| Consumer::new(geometry, ring)).collect()
}

fn taken(words: &[AtomicU64], consumers: &mut [Consumer], records_max: u64) -> Vec<u64> {
    let mut orders = Vec::new();
    let drained =
        drain(words, consumers, records_max, |record| orders.push(record.order())).expect("sound rings");
    assert_eq!(drained.records, orders.len() as u64);
    orders
}

#[test]
fn the_bytes_lie_where_the_document_says() {
    let geometry = Geometry::new(2, 8).expect("in bounds");
    assert_eq!(geometry.bytes(), 256 + 2 * (256 + 8 * 48));
    let words = memory(geometry);
    let header = Header {
        device_id: -2,
        size_bytes: 0x0102_0304_0506_0708,
        buffer_type: 3,
        process_id: 77,
        buffer_id: 9,
        timestamp_ns: 10,
        ..Header::request(Kind::Alloc)
    };
    let mut producer = Producer::new(&words, geometry, 1);
    assert!(producer.make_room(&words, None));
    assert_eq!(producer.push(&words, &Record::new(&header, 0x55)), Ok(()));
    count_lost(&words, geometry, 1, 6);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(&bytes[..8], b"ttmrings");
    assert_eq!((u64_at(8), u64_at(16)), (1 | 2 << 32, 8));
    let ring = 256 + (256 + 8 * 48);
    assert_eq!((u64_at(ring), u64_at(ring + 8), u64_at(ring + 128)), (1, 6, 0));
    assert_eq!(bytes[ring + 256..ring + 296], header.encode());
    assert_eq!(u64_at(ring + 296), 0x55);
}

#[test]
fn a_full_ring_takes_no_more_until_it_is_read() {
    let geometry = Geometry::new(1, 8).expect("in bounds");
    let words = memory(geometry);
    let (mut producer, mut consumers) = (Producer::new(&words, geometry, 0), consumers(geometry));
    let mut fill = |order: &mut u64| {
        loop {
            match producer.push(&words, &record(*order, *order)) {
                Ok(()) => *order += 1,
                Err(Full) if producer.make_room(&words, None) => {}
                Err(Full) => return,
            }
        }
    };
    let mut order = 0;
    fill(&mut order);
    assert_eq!(order, 8);
    assert_eq!(taken(&words, &mut consumers, 3), [0, 1, 2]);
    fill(&mut order);
    assert_eq!(order, 11);
    assert_eq!(taken(&words, &mut consumers, 100), (3..11).collect::<Vec<_>>());
}

#[test]
fn what_the_second_reader_has_not_read_stays() {
    let geometry = Geometry::new(1, 8).expect("in bounds");
    let words = memory(geometry);
    let mut producer = Producer::new(&words, geometry, 0);
    for order in 0..8 {
        assert!(producer.make_room(&words, Some(0)));
        assert_eq!(producer.push(&words, &record(1, order)), Ok(()));
    }
    assert_eq!(taken(&words, &mut consumers(geometry), 100).len(), 8);
    assert!(!producer.make_room(&words, Some(0)));
    assert!(producer.make_room(&words, Some(1)));
}

#[test]
fn reports_of_several_threads_come_in_their_order() {
    let geometry = Geometry::new(3, 8).expect("in bounds");
    let words = memory(geometry);
    let mut producers: Vec<Producer> = (0..3).map(|ring| Producer::new(&words, geometry, ring)).collect();
    let mut consumers = consumers(geometry);
    for (ring, order) in [(0, 3), (1, 1), (1, 4), (2, 2), (1, 6), (0, 7)] {
        let producer = &mut producers[ring];
        producer.make_room(&words, None);
        producer.push(&words, &record(0, order)).expect("there is room");
    }
    assert_eq!(taken(&words, &mut consumers, 4), [1, 2, 3, 4]);
    assert_eq!(taken(&words, &mut consumers, 4), [6, 7]);
    assert_eq!(taken(&words, &mut consumers, 4), Vec::<u64>::new());
}

#[test]
fn a_writer_that_claims_too_much_is_found_out() {
    let geometry = Geometry::new(2, 8).expect("in bounds");
    for tail in [9, u64::MAX, 1 << 63] {
        let words = memory(geometry);
        geometry.ring(1).tail(&words).store(tail, Relaxed);
        let error = drain(&words, &mut consumers(geometry), 100, |_| panic!("nothing is there"));
        assert_eq!(error, Err(RingError { ring: 1, tail, head: 0 }));
        let error = prepare_sleep(&words, &mut consumers(geometry));
        assert_eq!(error, Err(RingError { ring: 1, tail, head: 0 }));
    }
}

#[test]
fn a_tail_that_goes_back_is_found_out() {
    let geometry = Geometry::new(1, 8).expect("in bounds");
    let (words, mut consumers) = (memory(geometry), consumers(geometry));
    let mut producer = Producer::new(&words, geometry, 0);
    for order in [0, 1] {
        producer.make_room(&words, None);
        producer.push(&words, &record(0, order)).expect("there is room");
    }
    assert_eq!(taken(&words, &mut consumers, 1), [0]);
    geometry.ring(0).tail(&words).store(1, Relaxed);
    let error = drain_all(&words, &mut consumers, |_| panic!("nothing is there"));
    assert_eq!(error, Err(RingError { ring: 0, tail: 1, head: 1 }));
}

#[test]
fn orders_that_make_no_sense_harm_only_their_own_ring() {
    let geometry = Geometry::new(1, 8).expect("in bounds");
    let words = memory(geometry);
    let mut producer = Producer::new(&words, geometry, 0);
    for order in [u64::MAX, 5, 7, 0] {
        producer.make_room(&words, None);
        producer.push(&words, &record(0, order)).expect("there is room");
    }
    let mut consumers = consumers(geometry);
    assert_eq!(taken(&words, &mut consumers, 100), Vec::<u64>::new(), "they wait for the end");
    let drained = drain_all(&words, &mut consumers, |_| {}).expect("a sound ring");
    assert_eq!(drained.records, 4);
}

#[test]
fn lost_reports_are_told_once() {
    let geometry = Geometry::new(2, 8).expect("in bounds");
    let (words, mut consumers) = (memory(geometry), consumers(geometry));
    count_lost(&words, geometry, 0, 2);
    count_lost(&words, geometry, 1, 3);
    let drained = |consumers: &mut [Consumer]| drain(&words, consumers, 9, |_| {}).expect("sound rings").lost;
    assert_eq!((drained(&mut consumers), drained(&mut consumers)), (5, 0));
}

#[test]
fn only_one_wakes_a_sleeper_and_none_one_that_has_work() {
    let geometry = Geometry::new(1, 8).expect("in bounds");
    let (words, mut consumers) = (memory(geometry), consumers(geometry));
    assert!(!wants_wake(&words));
    assert_eq!(prepare_sleep(&words, &mut consumers), Ok(true));
    assert_eq!((wants_wake(&words), wants_wake(&words)), (true, false));
    let mut producer = Producer::new(&words, geometry, 0);
    producer.make_room(&words, None);
    producer.push(&words, &record(0, 0)).expect("there is room");
    assert_eq!(prepare_sleep(&words, &mut consumers), Ok(false));
    assert!(!wants_wake(&words));
}

#[test]
fn geometries_are_bounded() {
    for (rings, records, is_sound) in [
        (0, 8, false),
        (1, 8, true),
        (64, 65_536, true),
        (65, 8, false),
        (1, 4, false),
        (1, 9, false),
        (1, 131_072, false),
    ] {
        assert_eq!(Geometry::new(rings, records).is_some(), is_sound, "{rings} of {records}");
        let nearest = Geometry::nearest(rings, records);
        assert_eq!(Geometry::new(nearest.rings(), nearest.records()), Some(nearest));
        assert!(!is_sound || (nearest.rings(), nearest.records()) == (rings, records));
    }
}
