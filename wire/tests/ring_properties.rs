//! The rings against queues, for any run of pushes, turns and losses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use proptest::collection::vec;
use proptest::prelude::*;
use ttmem_wire::ring::{self, Consumer, Producer};
use ttmem_wire::{Geometry, Header, Kind, Record};

#[derive(Clone, Debug)]
enum Step {
    /// A thread reports, or loses the report where its ring is full.
    Push(usize),
    /// The reader takes up to so many.
    Turn(u64),
    /// A thread ends, and another takes its ring over.
    HandOver(usize),
}

fn steps(rings: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..rings).prop_map(Step::Push),
        2 => (0..40_u64).prop_map(Step::Turn),
        1 => (0..rings).prop_map(Step::HandOver),
    ];
    vec(step, 0..400)
}

proptest! {
    #[test]
    fn rings_are_queues_that_are_emptied_in_the_order_of_their_reports(
        (rings, steps) in (1..5_usize).prop_flat_map(|rings| (Just(rings), steps(rings))),
        records in prop::sample::select(vec![8_u32, 16, 64]),
    ) {
        let geometry = Geometry::new(rings as u32, records).unwrap();
        let words: Vec<AtomicU64> = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
        ring::initialise(&words, geometry);
        let producer = |ring: usize| Producer::new(&words, geometry, ring as u32);
        let mut producers: Vec<Producer> = (0..rings).map(producer).collect();
        let mut consumers: Vec<Consumer> =
            (0..geometry.rings()).map(|ring| Consumer::new(geometry, ring)).collect();
        let (mut queue, mut used) = (VecDeque::new(), vec![0_u32; rings]);
        let (mut lost, mut told) = (0, 0);
        for (order, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(ring) => {
                    let header = Header { buffer_id: ring as u64, ..Header::request(Kind::Free) };
                    let record = Record::new(&header, order as u64);
                    let producer = &mut producers[ring];
                    let is_pushed = producer.push(&words, &record).is_ok()
                        || producer.make_room(&words, None) && producer.push(&words, &record).is_ok();
                    prop_assert_eq!(is_pushed, used[ring] < records);
                    if is_pushed {
                        used[ring] += 1;
                        queue.push_back((ring as u64, order as u64));
                    } else {
                        lost += 1;
                        ring::count_lost(&words, geometry, ring as u32, 1);
                    }
                }
                Step::Turn(records_max) => {
                    let expected: Vec<_> =
                        queue.drain(..queue.len().min(records_max as usize)).collect();
                    let mut taken = Vec::new();
                    let drained = ring::drain(&words, &mut consumers, records_max, |record| {
                        taken.push((record.header().unwrap().buffer_id, record.order()));
                    });
                    for (ring, _) in &expected {
                        used[*ring as usize] -= 1;
                    }
                    prop_assert_eq!(taken, expected);
                    told += drained.unwrap().lost;
                }
                Step::HandOver(ring) => producers[ring] = producer(ring),
            }
        }
        let drained = ring::drain_all(&words, &mut consumers, |_| {}).unwrap();
        prop_assert_eq!((drained.records as usize, told + drained.lost), (queue.len(), lost));
    }
}
