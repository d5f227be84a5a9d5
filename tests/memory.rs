//! The daemon's own memory: what a burst of buffers takes, and that it goes back to the system.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;

use support::frames::{Connection, Frame};
use support::{Daemon, wait_for};

const FRAME_BYTES: usize = 72;
/// Enough that a buffer's share is not lost in what the daemon takes for itself.
const BURST: u64 = 400_000;
/// What the process had before the burst, and keeps.
const KEPT: u64 = 100;
/// What may be resident for each buffer: the design's figure.
const BYTES_PER_BUFFER_MAX: u64 = 64;

/// What the daemon's data takes; pages of its program come and go with the code that runs.
fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    };
    of("RssAnon:") + of("RssShmem:")
}

fn send(connection: &mut Connection, frame: impl Fn(u64) -> Frame, ids: std::ops::Range<u64>) {
    for begin in ids.clone().step_by(1000) {
        let frames: Vec<Frame> = (begin..ids.end.min(begin + 1000)).map(&frame).collect();
        connection.send(&frames);
    }
}

#[test]
fn a_burst_of_buffers_takes_little_memory_and_gives_it_back() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, FRAME_BYTES);
    let alloc = |id| Frame::alloc(0, 4096, id);
    send(&mut connection, alloc, 0..KEPT);
    assert_eq!(connection.query(0).dram(), KEPT * 4096);
    let before = resident_bytes(&daemon);

    send(&mut connection, alloc, KEPT..KEPT + BURST);
    assert_eq!(connection.query(0).dram(), (KEPT + BURST) * 4096);
    let taken = resident_bytes(&daemon) - before;
    // Less would mean that the buffers are not there.
    assert!(taken > BURST * 40 && taken < BURST * BYTES_PER_BUFFER_MAX, "{taken} bytes for {BURST} buffers");

    send(&mut connection, |id| Frame::free(0, id), KEPT..KEPT + BURST);
    assert_eq!(connection.query(0).dram(), KEPT * 4096);
    wait_for("the burst's memory to go back", || {
        (resident_bytes(&daemon).saturating_sub(before) < taken / 10).then_some(())
    });
}
