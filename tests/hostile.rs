//! Peers that do what no client should, by mistake or on purpose: it is counted and logged, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use support::frames::{
    CB_ALLOC, CB_FREE, Connection, FRAME_BYTES, Frame, KERNEL_LOAD, KERNEL_UNLOAD, QUERY, RESPONSE,
};
use support::{Daemon, Metrics, Peer, exposition};

/// The largest buffer and the largest sum of one process that are believed.
const BUFFER_BYTES_MAX: u64 = 1 << 40;
const SUM_BYTES_MAX: u64 = 1 << 48;

/// Every rejection so far that is not 0.
fn rejections(metrics: &Metrics) -> Vec<(String, f64)> {
    let families = exposition::read(&metrics.text).unwrap();
    let rejected = families.into_iter().find(|family| family.name == "ttmem_events_rejected_total").unwrap();
    let rows = rejected.samples.into_iter().map(|sample| (sample.labels["reason"].clone(), sample.value));
    rows.filter(|(_, count)| *count > 0.0).collect()
}

fn lines(daemon: &Daemon, message: &str) -> Vec<Value> {
    daemon.log().into_iter().filter(|line| line["message"] == message).collect()
}

#[test]
fn a_thousand_clients_at_once() {
    const PROCESSES: u64 = 4;
    const CONNECTIONS: u64 = 250;
    const SIZE: u64 = 4096;
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut crowds: Vec<Peer> = (0..PROCESSES).map(|_| Peer::unconnected(&daemon)).collect();
    for (crowd, client) in crowds.iter_mut().zip(["seed", "python", "metal", "metal"]) {
        let come = json!({
            "op": "crowd", "count": CONNECTIONS, "client": client, "device": 0, "type": "dram", "size": SIZE,
        });
        crowd.ask(&come.to_string());
    }
    let total = (PROCESSES * CONNECTIONS * SIZE) as f64;
    let metrics = daemon.wait_for_metrics("a thousand reports", |metrics| {
        metrics.usage(0, "dram") == Some(total) && metrics.events("alloc") == 1000.0
    });
    metrics.assert_adds_up();
    assert_eq!(metrics.sum("ttmem_client_connections", &[]), 1000.0, "and all of them are still there");
    for crowd in &crowds {
        let held = metrics.process_usage(crowd.pid(), 0, "dram");
        assert_eq!(held, Some((CONNECTIONS * SIZE) as f64), "ids that collide are different buffers");
    }
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(PROCESSES as f64));
    assert_eq!(Connection::open(&daemon, 72).query(0).dram(), PROCESSES * CONNECTIONS * SIZE);
    assert_eq!(rejections(&metrics), []);
    drop(crowds);
    let metrics = daemon.wait_for_metrics("all to be gone", |metrics| {
        metrics.usage(0, "dram") == Some(0.0) && metrics.sum("ttmem_client_connections", &[]) == 0.0
    });
    let orphaned = metrics.sum("ttmem_device_orphaned_bytes_total", &[]);
    assert_eq!(orphaned, total);
}

#[test]
fn a_client_that_stops_in_mid_frame_delays_nobody() {
    // All on one thread.
    let daemon = Daemon::start(&["--ingest-threads", "1"]);
    let buffers = |first_id: u64| [Frame::alloc(0, 1000, first_id), Frame::alloc(0, 1000, first_id + 1)];
    let mut stopped = Vec::new();
    for (index, frame_bytes) in FRAME_BYTES.into_iter().enumerate() {
        for (more, stop_at) in [1, 39, 71, frame_bytes + 1, 2 * frame_bytes - 1].into_iter().enumerate() {
            let mut connection = Connection::open(&daemon, frame_bytes);
            let frames = buffers(100 * (index as u64 + 1) + 10 * more as u64);
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes(frame_bytes)).collect();
            connection.send_bytes(&bytes[..stop_at]);
            stopped.push((connection, bytes[stop_at..].to_vec()));
        }
    }
    for frame_bytes in FRAME_BYTES {
        let mut other = Connection::open(&daemon, frame_bytes);
        other.send(&[Frame::alloc(1, 1, 1), Frame::free(1, 1)]);
        assert_eq!(other.query(1).dram(), 0);
    }
    daemon.metrics().assert_adds_up();

    // What was begun can still be finished.
    let count = stopped.len() as u64;
    for (connection, rest) in &mut stopped {
        connection.send_bytes(rest);
    }
    for (connection, _) in &mut stopped {
        connection.query(0);
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics.usage(0, "dram"), Some((2000 * count) as f64));
    assert_eq!(rejections(&metrics), []);
}

/// Sends bytes that cannot be frames. The connection is closed, the reason counted, and a line names peer, reason and byte.
#[track_caller]
fn check_lost(what: &str, bytes: &[u8], reason: &str, offset: usize, applied: f64) {
    let daemon = Daemon::start(&[]);
    let mut other = Connection::open(&daemon, 144);
    other.query(0);
    let mut connection = Connection { stream: daemon.connect(), frame_bytes: 0 };
    connection.send_bytes(bytes);
    assert!(connection.read_to_end().is_empty(), "{what}: there was no question");
    let metrics = daemon.metrics();
    assert_eq!(rejections(&metrics), [(reason.to_owned(), 1.0)], "{what}");
    assert_eq!(metrics.events("alloc"), applied, "{what}: what stands before the bad frame counts");
    assert_eq!(metrics.sum("ttmem_device_memory_usage_bytes", &[]), 4096.0 * applied, "{what}");
    metrics.assert_adds_up();
    let lines = lines(&daemon, "framing lost; connection closed");
    assert_eq!(lines.len(), 1, "{what}");
    let told = ["peer", "reason", "offset", "suppressed"].map(|key| lines[0][key].clone());
    let expected = [json!(std::process::id()), json!(reason), json!(offset), json!(0)];
    assert_eq!(told, expected, "{what}");
    assert_eq!(other.query(0).kind(), RESPONSE, "{what}: nobody else notices");
}

#[test]
fn bytes_that_are_no_frames_end_their_connection_alone() {
    check_lost("a browser", b"GET / HTTP/1.1\r\nHost: ttmem\r\n\r\n", "unknown_type", 0, 0.0);
    check_lost("nothing but ones", &[0xff; 200], "unknown_type", 0, 0.0);
    check_lost("nothing but zeros", &[0], "unknown_type", 0, 0.0);
    for frame_bytes in FRAME_BYTES {
        let place = |what: &str| format!("{what} in frames of {frame_bytes} bytes");
        let good = |count: u64| -> Vec<u8> {
            (0..count).flat_map(|id| Frame::alloc(0, 4096, id).bytes(frame_bytes)).collect()
        };
        // In the first frame, and in one after which the size of frames is known.
        for before in [0, 3] {
            let start = before as usize * frame_bytes;
            let applied = before as f64;
            let bad = |offset: usize, byte: u8| {
                let mut bytes = good(before + 1);
                bytes[start + offset] = byte;
                bytes
            };
            for pad in [1, 3, 17, 19] {
                check_lost(&place("a pad"), &bad(pad, 1), "padding", start + pad, applied);
            }
            check_lost(&place("a tail"), &bad(40, 9), "tail", start + 40, applied);
            check_lost(&place("a tail's end"), &bad(71, 0x80), "tail", start + 71, applied);
        }
        for byte in [0, 19, 0xff] {
            let mut bytes = good(4);
            bytes[3 * frame_bytes] = byte;
            check_lost(&place("a type"), &bytes, "unknown_type", 3 * frame_bytes, 3.0);
        }
    }
    // The second frame does not begin where any frame could end, so the first cannot be one.
    let mut bytes = Frame::alloc(0, 4096, 1).bytes(144);
    bytes[80] = 1;
    check_lost("a frame of 80 bytes", &bytes, "tail", 80, 0.0);
    bytes[80] = 0;
    bytes[112] = 19;
    check_lost("no type at 112", &bytes, "unknown_type", 112, 0.0);
}

#[test]
fn a_message_that_cannot_be_is_skipped_and_the_connection_goes_on() {
    let alloc = |device, size| Frame::alloc(device, size, 1);
    let cb = |kind, size| Frame { kind, size, ..Frame::default() };
    let cases = [
        (alloc(-1, 4096), "device_out_of_range"),
        (alloc(1024, 4096), "device_out_of_range"),
        (alloc(65_536, 4096), "device_out_of_range"),
        (alloc(i32::MIN, 4096), "device_out_of_range"),
        (alloc(i32::MAX, 4096), "device_out_of_range"),
        (Frame::free(-1, 1), "device_out_of_range"),
        (Frame { device: 1024, ..cb(CB_ALLOC, 4096) }, "device_out_of_range"),
        (alloc(0, 0), "zero_size"),
        (cb(CB_ALLOC, 0), "zero_size"),
        (cb(KERNEL_LOAD, 0), "zero_size"),
        (alloc(0, u64::MAX), "size_too_large"),
        (alloc(0, 1 << 63), "size_too_large"),
        (alloc(0, BUFFER_BYTES_MAX + 1), "size_too_large"),
        (cb(CB_ALLOC, u64::MAX), "size_too_large"),
        (cb(CB_FREE, u64::MAX), "size_too_large"),
        (cb(KERNEL_LOAD, BUFFER_BYTES_MAX + 1), "size_too_large"),
        (cb(KERNEL_UNLOAD, 1 << 63), "size_too_large"),
        (Frame { buffer_type: 5, ..alloc(0, 4096) }, "buffer_type"),
        (Frame { buffer_type: 255, ..alloc(0, 4096) }, "buffer_type"),
        (Frame { buffer_type: 3, ..cb(KERNEL_LOAD, 4096) }, "buffer_type"),
        (cb(4, 0), "unexpected_type"),
        (cb(7, 0), "unexpected_type"),
    ];
    let daemon = Daemon::start(&[]);
    let mut counts = std::collections::BTreeMap::<&str, f64>::new();
    for frame_bytes in FRAME_BYTES {
        let mut connection = Connection::open(&daemon, frame_bytes);
        connection.query(0);
        for (frame, reason) in cases {
            connection.send(&[frame, Frame::alloc(1, 10, 2), Frame::free(1, 2)]);
            assert_eq!(connection.query(0).dram(), 0, "{frame:?}");
            *counts.entry(reason).or_default() += 1.0;
        }
    }
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    let counted: Vec<(String, f64)> =
        counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
    let mut told = rejections(&metrics);
    told.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(told, counted);
    assert_eq!(metrics.sum("ttmem_device_memory_usage_bytes", &[]), 0.0);
    assert_eq!(metrics.sum("ttmem_device_memory_peak_bytes", &[]), 10.0, "nothing else was ever counted");
    assert_eq!(metrics.values("ttmem_device_processes", &[]).len(), 1, "device 1, and none that cannot be");
    for line in lines(&daemon, "message rejected") {
        assert_eq!(line["peer"], std::process::id(), "{line}");
        assert_eq!(line["offset"].as_u64().unwrap() % 8, 0, "where the frame begins: {line}");
    }
}

#[test]
fn a_line_names_the_byte_at_which_a_skipped_message_begins() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, 112);
    connection.send(&[
        Frame::alloc(0, 1, 1),
        Frame::alloc(0, 0, 2),
        Frame::alloc(0, 1, 3),
        Frame::alloc(0, 0, 4),
    ]);
    connection.query(0);
    let offsets: Vec<Value> =
        lines(&daemon, "message rejected").into_iter().map(|line| line["offset"].clone()).collect();
    assert_eq!(offsets, [json!(112), json!(3 * 112)]);
}

#[test]
fn a_question_about_a_device_that_cannot_be_is_answered_with_nothing() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    for frame_bytes in FRAME_BYTES {
        let mut connection = Connection::open(&daemon, frame_bytes);
        connection.send(&[Frame::alloc(0, 4096, 1)]);
        for device in [-1, 1024, i32::MIN] {
            let reply = connection.query(device);
            assert!(reply.0[40..].iter().all(|byte| *byte == 0), "device {device}");
        }
        assert_eq!(connection.query(0).dram(), 4096);
    }
    assert_eq!(daemon.metrics().rejected("device_out_of_range"), 9.0);
}

#[test]
fn the_largest_sizes_are_believed_and_no_sum_wraps() {
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, 144);
    let fits = SUM_BYTES_MAX / BUFFER_BYTES_MAX;
    let frames: Vec<Frame> = (0..fits + 100).map(|id| Frame::alloc(1023, BUFFER_BYTES_MAX, id)).collect();
    connection.send(&frames);
    assert_eq!(connection.query(1023).dram(), SUM_BYTES_MAX);
    connection.send(&[Frame { kind: CB_ALLOC, ..frames[0] }]);
    let totals = connection.query(1023);
    assert_eq!((totals.dram(), totals.u64_at(72)), (SUM_BYTES_MAX, BUFFER_BYTES_MAX));
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.rejected("size_too_large"), 100.0, "what comes on top is refused");
    assert_eq!(metrics.usage(1023, "dram"), Some(SUM_BYTES_MAX as f64));
    assert_eq!(metrics.value("ttmem_device_buffers", &[("memory_type", "dram")]), Some(fits as f64));

    // What was refused cannot be freed either; all the rest can.
    let frees: Vec<Frame> = (0..fits + 100).map(|id| Frame::free(1023, id)).collect();
    connection.send(&frees);
    assert_eq!(connection.query(1023).dram(), 0);
    let metrics = daemon.metrics();
    assert_eq!(metrics.rejected("unknown_free"), 100.0);
    let dram = [("memory_type", "dram")];
    assert_eq!(metrics.value("ttmem_device_freed_bytes_total", &dram), Some(SUM_BYTES_MAX as f64));
}

#[test]
fn a_storm_of_unknown_frees_is_counted_and_changes_nothing() {
    const COUNT: u64 = 100_000;
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, 72);
    connection.send(&[Frame::alloc(0, 4096, u64::MAX), Frame::alloc(5, 512, u64::MAX - 1)]);
    for first in (0..COUNT).step_by(1000) {
        let frees: Vec<Frame> = (first..first + 1000).map(|id| Frame::free((id % 7) as i32, id)).collect();
        connection.send(&frees);
    }
    assert_eq!(connection.query(0).dram(), 4096);
    assert_eq!(connection.query(5).dram(), 512);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(rejections(&metrics), [("unknown_free".to_owned(), COUNT as f64)]);
    assert_eq!(metrics.events("free"), COUNT as f64);
    assert_eq!(metrics.sum("ttmem_device_frees_total", &[]), 0.0);
    assert_eq!(lines(&daemon, "message rejected").len(), 0, "what is normal is not news");
}

#[test]
fn a_storm_of_claimed_pids_is_charged_to_its_sender() {
    const COUNT: i32 = 3000;
    let daemon = Daemon::start(&[]);
    let mut connection = Connection::open(&daemon, 144);
    // Above any pid that a kernel gives out.
    let frames: Vec<Frame> = (0..COUNT)
        .map(|claim| Frame { process_id: i32::MAX - claim, ..Frame::alloc(0, 10, claim as u64) })
        .collect();
    connection.send(&frames);
    connection.send(&[Frame { process_id: -7, ..Frame::alloc(0, 10, COUNT as u64) }]);
    assert_eq!(connection.query(0).dram(), 10 * (COUNT as u64 + 1));
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(std::process::id(), 0, "dram"), Some(f64::from(10 * (COUNT + 1))));
    assert_eq!(metrics.values("ttmem_process_info", &[]).len(), 1, "no process was made up");
    assert!(metrics.rejected("claimed_pid") >= f64::from(COUNT));
}

/// Sends questions without reading an answer until no more can be sent, and gives the number of bytes that could. `others` is asked
/// whenever nothing can be sent, so that the daemon has run in the meantime.
fn ask_without_listening(stream: &mut UnixStream, others: &mut Connection, bytes_max: usize) -> usize {
    let questions = Frame { kind: QUERY, ..Frame::default() }.bytes(144).repeat(400);
    let mut sent = 0;
    let mut refused = 0;
    stream.set_nonblocking(true).unwrap();
    while sent < bytes_max && refused < 50 {
        match stream.write(&questions[sent % 144..]) {
            Ok(bytes) => {
                sent += bytes;
                refused = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                others.query(0);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn a_client_that_never_reads_its_answers_harms_itself_alone() {
    const CLIENTS: usize = 16;
    const SENT_BYTES_MAX: usize = 64 << 20;
    const GROWTH_BYTES_MAX: f64 = (32 << 20) as f64;
    let daemon = Daemon::start(&["--ingest-threads", "1"]);
    let mut others = Connection::open(&daemon, 144);
    others.send(&[Frame::alloc(0, 4096, 1)]);
    others.query(0);
    let memory = || daemon.metrics().value("process_resident_memory_bytes", &[]).unwrap();
    let before = memory();
    let mut deaf: Vec<(UnixStream, usize)> = (0..CLIENTS)
        .map(|_| {
            let mut stream = daemon.connect();
            let sent = ask_without_listening(&mut stream, &mut others, SENT_BYTES_MAX);
            (stream, sent)
        })
        .collect();
    for (_, sent) in &deaf {
        assert!(*sent < SENT_BYTES_MAX, "the daemon goes on taking questions whose answers nobody takes");
    }
    let growth = memory() - before;
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes for answers that nobody takes");
    assert_eq!(others.query(0).dram(), 4096);

    // Whoever listens in the end gets every answer.
    let (stream, sent) = &mut deaf[0];
    let questions = *sent / 144;
    let mut answers = vec![0; questions * 144];
    stream.read_exact(&mut answers).unwrap();
    assert!(answers.chunks(144).all(|answer| answer[0] == RESPONSE && answer[40..42] == [0, 0x10]));
    let begun = *sent % 144;
    stream.write_all(&Frame::query(0).bytes(144)[begun..]).unwrap();
    if begun > 0 {
        stream.read_exact(&mut answers[..144]).unwrap();
    }
    // And whoever goes without having listened is forgotten.
    drop(deaf);
    daemon
        .wait_for_metrics("all but one to go", |metrics| metrics.sum("ttmem_client_connections", &[]) == 1.0);
    assert_eq!(others.query(0).dram(), 4096);
}

#[test]
fn descriptors_that_a_client_attaches_are_nobodys() {
    let daemon = Daemon::start(&[]);
    let open = |metrics: &Metrics| metrics.value("process_open_fds", &[]).unwrap();
    let before = open(&daemon.metrics());
    let file = std::fs::File::open("/dev/null").unwrap();
    for frame_bytes in FRAME_BYTES {
        // All of it is there when the daemon looks, though the kernel hands it out piece by piece.
        daemon.freeze();
        let mut connection = Connection::open(&daemon, frame_bytes);
        for id in 0..3 {
            let frame = Frame::alloc(0, 4096, id).bytes(frame_bytes);
            let descriptors = [file.as_fd(); 4];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut attached = SendAncillaryBuffer::new(&mut space);
            assert!(attached.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let sent =
                sendmsg(&connection.stream, &[IoSlice::new(&frame)], &mut attached, SendFlags::empty());
            assert_eq!(sent, Ok(frame_bytes));
        }
        connection.send(&[Frame::query(0)]);
        daemon.thaw();
        assert_eq!(connection.reply().dram(), 3 * 4096, "in frames of {frame_bytes} bytes");
        assert!(connection.finish().is_empty());
    }
    // Thirty-six were attached; a connection or two may be open for the question itself.
    daemon.wait_for_metrics("the descriptors to be closed", |metrics| {
        metrics.sum("ttmem_client_connections", &[]) == 0.0 && open(metrics) < before + 5.0
    });
}

#[test]
fn a_client_too_many_is_told_off_and_the_others_stay() {
    let daemon = Daemon::start(&["--clients-max", "3"]);
    let mut clients: Vec<Connection> = FRAME_BYTES.map(|bytes| Connection::open(&daemon, bytes)).into();
    for client in &mut clients {
        client.send(&[Frame::alloc(0, 10, client.frame_bytes as u64)]);
        client.query(0);
    }
    for _ in 0..2 {
        let mut refused = Connection::open(&daemon, 144);
        assert!(refused.read_to_end().is_empty());
        // It may have been closed already, or not read: either way nothing of this counts.
        let _ = refused.stream.write_all(&Frame::alloc(0, 4096, 1).bytes(144));
    }
    for client in &mut clients {
        assert_eq!(client.query(0).dram(), 30);
    }
    let metrics = daemon.metrics();
    assert_eq!(rejections(&metrics), [("clients_max".to_owned(), 2.0)]);
    assert_eq!(metrics.sum("ttmem_client_connections", &[]), 3.0);
    let lines = lines(&daemon, "connection refused: too many clients; raise clients_max if they are wanted");
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["peer"], &lines[0]["clients_max"]), (&json!(std::process::id()), &json!(3)));
    assert_eq!(lines[0]["level"], "WARN");

    clients.pop();
    daemon.wait_for_metrics("room", |metrics| metrics.sum("ttmem_client_connections", &[]) == 2.0);
    // The place is given back a moment after the connection is no longer counted.
    let mut next = support::wait_for("a place", || {
        let mut next = Connection::open(&daemon, 72);
        next.stream.write_all(&Frame::query(0).bytes(72)).ok()?;
        let mut answer = [0; 72];
        next.stream.read_exact(&mut answer).ok()?;
        Some(next)
    });
    assert_eq!(next.query(0).dram(), 30, "a closed socket frees nothing");
}

#[test]
fn a_flood_of_bad_connections_does_not_flood_the_log() {
    const CONNECTIONS: usize = 1000;
    const LINES_PER_WINDOW: usize = 5;
    const WINDOW_SECONDS: u64 = 10;
    let daemon = Daemon::start(&[]);
    let mut good = Connection::open(&daemon, 144);
    good.send(&[Frame::alloc(0, 4096, 1), Frame::query(0)]);
    good.reply();
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut bad = Connection::open(&daemon, 144);
        let mut bytes = Frame::query(0).bytes(144);
        bytes[18] = 1;
        bad.send_bytes(&bytes);
        bad.read_to_end();
    }
    let windows = 1 + (start.elapsed().as_secs() / WINDOW_SECONDS) as usize;
    assert_eq!(
        rejections(&daemon.metrics()),
        [("padding".to_owned(), CONNECTIONS as f64)],
        "each is counted"
    );
    let log = daemon.log();
    let told: Vec<&Value> =
        log.iter().filter(|line| line["message"] == "framing lost; connection closed").collect();
    assert!(!told.is_empty() && told.len() <= LINES_PER_WINDOW * windows, "{} lines", told.len());
    assert!(log.len() <= told.len() + 3, "and nothing else but what is told at a start: {log:?}");
    for line in &told {
        assert_eq!((&line["peer"], &line["offset"]), (&json!(std::process::id()), &json!(18)), "{line}");
        assert!(line["suppressed"].is_u64(), "{line}");
    }
    assert_eq!(good.query(0).dram(), 4096);
}

#[test]
fn a_process_may_call_itself_what_it_likes() {
    let check = |name: &[u8], label: &str| {
        let daemon = Daemon::start(&[]);
        let mut client = Peer::unconnected(&daemon);
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        client.ask(&json!({"op": "be_called", "hex": hex}).to_string());
        client.ask(r#"{"op":"connect","client":"metal"}"#);
        client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
        client.ask(r#"{"op":"dump","what":"buffers"}"#);
        client.ask(r#"{"op":"query","device":0}"#);
        let metrics = daemon.metrics();
        let families =
            exposition::read(&metrics.text).unwrap_or_else(|problem| panic!("{label:?}: {problem}"));
        let held = families.iter().find(|family| family.name == "ttmem_process_memory_usage_bytes").unwrap();
        assert_eq!(held.samples.len(), 1, "{label:?}");
        assert_eq!(held.samples[0].labels["process"], label);
        assert_eq!(held.samples[0].labels["pid"], client.pid().to_string());
        assert_eq!(held.samples[0].value, 4096.0);
        let control = |character: char| character.is_control() && character != '\n';
        assert!(!metrics.text.contains(control), "{label:?}: nothing that a terminal would obey");
        let start = metrics.value("ttmem_process_start_time_seconds", &[]).unwrap();
        assert!(start > 1e9, "{label:?}: the name hides nothing else");

        let processes = daemon.json("/api/v1/processes");
        let name = String::from_utf8_lossy(name).into_owned();
        assert_eq!(processes["processes"][0]["process"], name);
        assert_eq!(daemon.wait_for_log("remaining memory")["process"], name, "in JSON, whatever it is");
    };
    check(b"quote\"} 1", "quote\"} 1");
    check(b"two\nfake{} 1", "two\nfake{} 1");
    check(b"back\\slash\\n", "back\\slash\\n");
    check(b"\x1b[31mred\x1b[0m", "\u{fffd}[31mred\u{fffd}[0m");
    check(b"\x01\x7f\r\t", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
    check(b"\xff\xfe", "\u{fffd}\u{fffd}");
    check(b"x\nUid:\t7 7 7 7", "x\nUid:\u{fffd}7 7 7 7");
    check(b"a) S 1 (b", "a) S 1 (b");
    check("käse,=".as_bytes(), "käse,=");
}
