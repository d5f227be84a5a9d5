//! What clients say of devices and of themselves: how far the daemon believes a capacity, and what it logs of a note.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use support::Daemon;
use support::frames::{CAPACITY, Connection, DEVICE_INFO_QUERY, FRAME_BYTES, Frame, NOTE};
use support::raw_rings::RawRing;

const L1: u8 = 1;
/// Where a DEVICE_INFO_RESPONSE of 144 bytes has the L1 of a core.
const L1_PER_CORE_AT: usize = 116;
/// What the product table has for the L1 of an N150.
const N150_L1: u64 = 72 * 1_360_544;

fn capacity(device: i32, buffer_type: u8, size: u64, banks: u64) -> Frame {
    Frame { kind: CAPACITY, device, buffer_type, size, buffer_id: banks, ..Frame::default() }
}

/// What is shown of a device's L1: its capacity, and who says so.
fn shown(daemon: &Daemon, device: u16) -> (Option<f64>, String) {
    let label = device.to_string();
    let limit = [("device", label.as_str()), ("memory_type", "l1")];
    let limit = daemon.metrics().value("ttmem_device_memory_limit_bytes", &limit);
    let devices = daemon.json("/api/v1/devices");
    let device = devices["devices"].as_array().unwrap().iter().find(|row| row["device"] == device);
    let source = device.and_then(|device| device["capacity_source"].as_str()).unwrap_or_default();
    (limit, source.to_owned())
}

#[test]
fn a_capacity_is_believed_in_every_layout_and_outlives_its_teller() {
    let daemon = Daemon::start(&[]);
    for (frame_bytes, bytes) in FRAME_BYTES.into_iter().zip([1000, 2000, 3000]) {
        let mut connection = Connection::open(&daemon, frame_bytes);
        connection.send(&[capacity(2, L1, bytes, 10)]);
        connection.query(2);
        assert_eq!(shown(&daemon, 2), (Some(bytes as f64), "client".to_owned()));
    }
    let info = {
        let mut ring = RawRing::open(&daemon);
        ring.push(capacity(2, L1, 4000, 10));
        ring.connection.query(2);
        ring.connection.ask(Frame { kind: DEVICE_INFO_QUERY, device: 2, ..Frame::default() })
    };
    assert_eq!(info.u32_at(L1_PER_CORE_AT), 400);
    // The connections are closed, and what a chip has is no less for it.
    assert_eq!(shown(&daemon, 2), (Some(4000.0), "client".to_owned()));
    assert_eq!(daemon.metrics().events("capacity"), 4.0);
}

#[test]
fn a_capacity_that_cannot_be_is_refused_and_named() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut connection = Connection::open(&daemon, 144);
    for (frame, reason) in [
        (capacity(0, L1, 0, 0), "zero_size"),
        (capacity(0, L1, (1 << 40) + 1, 0), "size_too_large"),
        (capacity(0, 9, 4096, 0), "buffer_type"),
        (capacity(1024, L1, 4096, 0), "device_out_of_range"),
        (capacity(0, L1, N150_L1, 7), "capacity"),
        (capacity(0, L1, N150_L1, 4097), "capacity"),
        // A client that would have all alerts ring, and one that would have none.
        (capacity(0, L1, N150_L1 / 2 - 1, 0), "capacity"),
        (capacity(0, L1, N150_L1 * 2 + 1, 0), "capacity"),
    ] {
        let before = daemon.metrics().rejected(reason);
        connection.send(&[frame]);
        connection.query(0);
        assert_eq!(daemon.metrics().rejected(reason), before + 1.0, "{frame:?}");
        assert_eq!(shown(&daemon, 0), (Some(N150_L1 as f64), "product_table".to_owned()));
    }
    connection.send(&[capacity(0, L1, N150_L1 / 72 * 64, 64)]);
    connection.query(0);
    assert_eq!(shown(&daemon, 0), (Some((N150_L1 / 72 * 64) as f64), "client".to_owned()));
}

#[test]
fn what_the_operator_has_written_goes_before_a_client() {
    let directory = support::Directory::new();
    std::fs::create_dir(directory.join("shm")).unwrap();
    let config = directory.join("ttmem.toml");
    std::fs::write(&config, "[[device]]\nindex = 0\nl1_bytes = 5000\n").unwrap();
    let daemon = Daemon::start_in(directory, &["--config", config.to_str().unwrap()]);
    let mut connection = Connection::open(&daemon, 144);
    connection.send(&[capacity(0, L1, 4000, 0)]);
    connection.query(0);
    assert_eq!(shown(&daemon, 0), (Some(5000.0), "configuration".to_owned()));
}

#[test]
fn notes_are_throttled_and_unknown_ones_passed_over() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, 144);
    let note = |number| Frame { kind: NOTE, buffer_type: number, ..Frame::default() };
    connection.send(&[note(2); 20]);
    connection.send(&[note(0), note(200)]);
    connection.query(0);
    let lines = daemon.log().iter().filter(|line| line["note"] == "banks").count();
    assert_eq!((lines, daemon.metrics().events("note")), (5, 22.0));
    assert_eq!(daemon.metrics().sum("ttmem_events_rejected_total", &[]), 0.0);
}
