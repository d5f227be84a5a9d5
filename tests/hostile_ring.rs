//! What a client can do to its rings, and what the protocol promises to one that is written by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::sync::atomic::Ordering;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate};
use rustix::io::Errno;
use rustix::process::Signal;
use support::frames::{ALLOC, Connection, Frame, QUERY, RESPONSE};
use support::raw_rings::{HELLO, LOST, RECORDS, RawRing, hello, receive};
use support::{Daemon, wait_for};

/// Another client of the same daemon, which must not notice anything.
struct Bystander(Connection);

impl Bystander {
    fn new(daemon: &Daemon) -> Bystander {
        let mut connection = Connection::open(daemon, 144);
        // It is of the same process, whose frees may name any device: so it has an id that nobody hits upon.
        connection.send(&[Frame::alloc(7, 70, 0x5ca1_ab1e_0dd1_7135)]);
        Bystander(connection)
    }

    #[track_caller]
    fn check(&mut self) {
        assert_eq!(self.0.query(7).dram(), 70);
    }
}

#[test]
fn records_are_applied_before_what_comes_over_the_socket() {
    let daemon = Daemon::start(&[]);
    let mut ring = RawRing::open(&daemon);
    for id in 0..10 * RECORDS {
        wait_for("room", || (ring.tail() - ring.head() < RECORDS).then_some(()));
        ring.push(Frame::alloc(0, 10, id));
        if id % 7 == 0 {
            assert_eq!(ring.connection.query(0).dram(), 10 * (id + 1));
        }
    }
    ring.push(Frame { kind: LOST, size: 5, ..Frame::default() });
    ring.connection.query(0);
    let metrics = daemon.metrics();
    let lost = metrics.value("ttmem_events_lost_total", &[("reason", "client")]);
    assert_eq!((lost, metrics.events("lost"), metrics.events("hello")), (Some(5.0), 1.0, 2.0));
    let connections = |transport| metrics.sum("ttmem_client_connections", &[("transport", transport)]);
    assert_eq!((connections("ring"), connections("socket")), (1.0, 0.0));
}

#[test]
fn the_memory_cannot_be_taken_away() {
    let daemon = Daemon::start(&[]);
    let ring = RawRing::open(&daemon);
    for bytes in [0, 4096, 1 << 20] {
        assert_eq!(ftruncate(&ring.memory, bytes), Err(Errno::PERM));
    }
    assert_eq!(fcntl_add_seals(&ring.memory, SealFlags::WRITE), Err(Errno::PERM));
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    assert!(fcntl_get_seals(&ring.memory).unwrap().contains(seals));
}

#[test]
fn a_tail_that_cannot_be_ends_its_own_session() {
    let daemon = Daemon::start(&[]);
    let mut bystander = Bystander::new(&daemon);
    let tails = [RECORDS + 1, u64::MAX, 1 << 63];
    for (tail, number) in tails.into_iter().zip(1..) {
        let mut ring = RawRing::open(&daemon);
        ring.push(Frame::alloc(0, 1, 1));
        assert_eq!(ring.connection.query(0).dram(), 1);
        ring.set_tail(tail.wrapping_add(1));
        ring.wake();
        assert!(ring.connection.read_to_end().is_empty());
        assert_eq!(daemon.metrics().rejected("ring"), f64::from(number));
        bystander.check();
    }
    let line = daemon.wait_for_log("framing lost; connection closed");
    assert_eq!((&line["reason"], &line["peer"]), (&"ring".into(), &std::process::id().into()));
}

#[test]
fn a_record_that_is_none_ends_its_own_session() {
    let daemon = Daemon::start(&[]);
    let mut bystander = Bystander::new(&daemon);
    for (word, value, reason) in [(0, 99, "unknown_type"), (0, 0x0101, "padding"), (2, 0x0100, "padding")] {
        let before = daemon.metrics().rejected(reason);
        let mut ring = RawRing::open(&daemon);
        ring.push(Frame::alloc(0, 3, 3));
        ring.push(Frame::alloc(0, 3, 4));
        ring.set_record(2, 0, u64::from(ALLOC));
        ring.set_record(2, word, value);
        ring.set_record(2, 5, 2);
        ring.set_tail(3);
        ring.wake();
        assert!(ring.connection.read_to_end().is_empty());
        let metrics = daemon.metrics();
        assert_eq!(metrics.rejected(reason), before + 1.0);
        bystander.check();
    }
    assert_eq!(daemon.metrics().events("alloc"), 1.0 + 3.0 * 2.0, "what stood before it is applied");
}

#[test]
fn what_makes_no_sense_in_a_ring_is_passed_over() {
    let daemon = Daemon::start(&[]);
    let mut ring = RawRing::open(&daemon);
    for kind in [QUERY, HELLO, RESPONSE] {
        ring.push(Frame { kind, ..Frame::default() });
    }
    ring.push(Frame { kind: ALLOC, device: 5000, size: 1, ..Frame::default() });
    ring.push(Frame::alloc(0, 1 << 50, 1));
    ring.push(Frame::alloc(0, 2, 2));
    let answer = ring.connection.query(0);
    assert_eq!(answer.dram(), 2, "the one in the ring is not answered");
    let metrics = daemon.metrics();
    let rejected = ["unexpected_type", "device_out_of_range", "size_too_large"];
    assert_eq!(rejected.map(|reason| metrics.rejected(reason)), [1.0; 3]);
}

#[test]
fn memory_that_changes_while_it_is_read_harms_nobody() {
    let daemon = Daemon::start(&[]);
    let mut bystander = Bystander::new(&daemon);
    for round in 0..20_u64 {
        let ring = RawRing::open(&daemon);
        let words = &ring.words;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                // All words of the mapping get values that are now and then a sound record, tail or head.
                let mut state = round;
                for word in (0..2000).flat_map(|_| words.iter()) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    word.store([1, 2, state >> 60, state][(state >> 40) as usize % 4], Ordering::Relaxed);
                }
            });
            while !writer.is_finished() {
                bystander.check();
                ring.wake();
            }
        });
    }
    bystander.check();
    daemon.metrics().assert_adds_up();
}

#[test]
fn a_daemon_that_is_told_to_stop_reads_the_rings_first() {
    let mut daemon = Daemon::start(&[]);
    let mut ring = RawRing::open(&daemon);
    ring.connection.query(0);
    daemon.freeze();
    (0..RECORDS).for_each(|id| ring.push(Frame::alloc(0, 1, id)));
    daemon.signal(Signal::TERM);
    daemon.thaw();
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(ring.head(), RECORDS);
}

#[test]
fn who_asks_for_nothing_gets_nothing_and_who_cannot_be_answered_goes_on() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, 144);
    // Bit 40 is of a later version.
    connection.send(&[hello(0, 1 << 40, 9, 9), Frame::alloc(0, 5, 5)]);
    let (reply, descriptors) = receive(&connection.stream);
    assert_eq!((reply[0], &reply[8..16], descriptors.len()), (HELLO, &[0; 8][..], 0));
    assert_eq!(connection.query(0).dram(), 5);
    // A step of a later version, and a switch without rings.
    connection.send(&[hello(9, 1, 1, 64), hello(1, 0, 0, 0), Frame::alloc(0, 6, 6)]);
    assert_eq!(connection.query(0).dram(), 11);
    for frame_bytes in [72, 112] {
        let mut small = Connection::open(&daemon, frame_bytes);
        small.send(&[hello(0, 1, 1, 64), Frame::alloc(1, 1, frame_bytes as u64), Frame::query(1)]);
        assert_eq!(small.reply().kind(), RESPONSE, "there is no room for the answer to HELLO");
    }
}

#[test]
fn memory_is_bounded_for_each_user() {
    let daemon = Daemon::start(&[]);
    // 64 rings of 65536 records are 192 MiB, of which five stay below a gibibyte.
    let mut granted = Vec::new();
    for _ in 0..7 {
        let mut connection = Connection::open(&daemon, 144);
        connection.send(&[hello(0, 1, 64, 65_536)]);
        let (reply, _) = receive(&connection.stream);
        granted.push((u64::from(reply[8]), connection));
    }
    assert_eq!(granted.iter().map(|(granted, _)| granted).sum::<u64>(), 5);
    let metrics = daemon.metrics();
    let refused = |reason| metrics.value("ttmem_ring_refusals_total", &[("reason", reason)]);
    assert_eq!((refused("user_memory"), refused("off")), (Some(2.0), Some(0.0)));
    let bytes_each = 256.0 + 64.0 * (256.0 + 48.0 * 65_536.0);
    assert_eq!(metrics.value("ttmem_ring_memory_bytes", &[]), Some(5.0 * bytes_each));
    granted.clear();
    daemon.wait_for_metrics("the memory of nobody's rings to go", |metrics| {
        metrics.value("ttmem_ring_memory_bytes", &[]) == Some(0.0)
    });
    wait_for("room again", || {
        let mut connection = Connection::open(&daemon, 144);
        connection.send(&[hello(0, 1, 64, 65_536)]);
        (receive(&connection.stream).0[8] == 1).then_some(())
    });
}

#[test]
fn who_renews_is_known_only_by_what_it_says_from_then_on() {
    let daemon = Daemon::start(&[]);
    let mut old = RawRing::open(&daemon);
    old.push(Frame::alloc(0, 100, 1));
    assert_eq!(old.connection.query(0).dram(), 100);
    let mut new = Connection::open(&daemon, 144);
    new.send(&[hello(2, 7, 0, 0), Frame::alloc(0, 10, 1)]);
    assert_eq!(new.query(0).dram(), 10);
    let mut late = Connection::open(&daemon, 144);
    late.send(&[hello(2, 6, 0, 0), Frame::alloc(0, 5000, 5)]);
    assert_eq!(late.query(0).dram(), 10, "one that was overtaken brings nothing");
    old.push(Frame::free(0, 1));
    old.push(Frame::alloc(0, 1000, 2));
    assert_eq!(old.connection.query(0).dram(), 10, "the older connection's reports count no more");
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.sum("ttmem_device_orphaned_buffers_total", &[]), 0.0);
}

/// A HELLO of a client that says who it is.
fn hello_of(client: u64, step: u8, number: u64) -> Frame {
    Frame { timestamp: client, ..hello(step, number, 0, 0) }
}

#[test]
fn a_client_that_says_who_it_is_renews_itself_alone() {
    const IDENTIFY: u8 = 3;
    let daemon = Daemon::start(&[]);
    let mut nameless = Connection::open(&daemon, 144);
    nameless.send(&[Frame::alloc(0, 1, 1), Frame::alloc(0, 1000, 9)]);
    assert_eq!(nameless.query(0).dram(), 1001);
    let mut one = Connection::open(&daemon, 144);
    one.send(&[hello_of(77, IDENTIFY, 0), Frame::alloc(0, 10, 2), Frame::alloc(0, 1000, 9)]);
    assert_eq!(one.query(0).dram(), 1011, "a buffer of two clients is one");
    let mut anew = Connection::open(&daemon, 144);
    anew.send(&[hello_of(77, 2, 1), Frame::alloc(0, 20, 2)]);
    assert_eq!(anew.query(0).dram(), 1021, "what the nameless have reported stays");
    one.send(&[Frame::free(0, 2), Frame::free(0, 1), Frame::alloc(0, 5000, 5)]);
    assert_eq!(one.query(0).dram(), 1021, "its older connection's reports count no more");
    let mut other = Connection::open(&daemon, 144);
    other.send(&[hello_of(78, 2, 1), Frame::alloc(0, 300, 3)]);
    assert_eq!(other.query(0).dram(), 1321, "the numbers of two clients have nothing to do with each other");
    nameless.send(&[hello(2, 1, 0, 0)]);
    assert_eq!(nameless.query(0).dram(), 320, "the nameless are one among others");
    // More names than are remembered, and a fork's pid, which is no client of this process: nobody is harmed.
    let names: Vec<Frame> = (0..5000).map(|name| hello_of(1 << 40 | name, IDENTIFY, 0)).collect();
    let mut crowd = Connection::open(&daemon, 144);
    crowd.send(&names);
    crowd.send(&[Frame::alloc(0, 4000, 4)]);
    assert_eq!(crowd.query(0).dram(), 4320);
    other.send(&[hello_of(78, 2, 2)]);
    assert_eq!(other.query(0).dram(), 4020);
    daemon.metrics().assert_adds_up();
}
