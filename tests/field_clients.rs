//! The clients that are in the field, quirks included, against the real daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use support::frames::{
    ALLOC, Connection, DEVICE_INFO_QUERY, DEVICE_INFO_RESPONSE, FRAME_BYTES, Frame, QUERY, RESPONSE,
};
use support::{Daemon, Peer, peers, wait_for};

/// Every client and the size of its frames.
const CLIENTS: [(&str, usize); 3] = [("seed", 72), ("python", 112), ("metal", 144)];

/// A user other than root who owns nothing; what Linux calls nobody.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A device's totals, as the client itself is answered. What the client sent before has been applied then.
fn query(client: &mut Peer, device: i32) -> Value {
    client.ask(&json!({"op": "query", "device": device}).to_string())
}

fn allocate(client: &mut Peer, device: i32, memory_type: &str, size: u64, id: u64) {
    let allocation = json!({"op": "allocate", "device": device, "type": memory_type, "size": size, "id": id});
    client.ask(&allocation.to_string());
}

fn free(client: &mut Peer, id: u64) {
    client.ask(&json!({"op": "free", "id": id}).to_string());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The bytes that the client is answered, that many.
fn receive(client: &mut Peer, bytes: usize) -> Vec<u8> {
    let answer = client.ask(&json!({"op": "recv", "bytes": bytes}).to_string());
    assert_eq!(answer["closed"], false, "{answer}");
    unhex(answer["hex"].as_str().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

#[test]
fn the_seeds_free_names_neither_process_nor_device() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "seed");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    client.ask(r#"{"op":"allocate","device":0,"type":"l1_small","size":32,"id":2}"#);
    client.ask(r#"{"op":"allocate","device":0,"type":"trace","size":64,"id":3}"#);
    let totals = client.ask(r#"{"op":"query","device":0}"#);
    assert_eq!((totals["type"].as_u64(), totals["dram"].as_u64()), (Some(4), Some(4096)));
    assert_eq!((totals["l1_small"].as_u64(), totals["trace"].as_u64()), (Some(32), Some(64)));
    client.ask(r#"{"op":"free","id":1}"#);
    assert_eq!(client.ask(r#"{"op":"query","device":0}"#)["dram"], 0);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(client.pid(), 0, "l1_small"), Some(32.0));
}

#[test]
fn a_free_for_device_0_finds_the_buffer_where_it_is() {
    let daemon = Daemon::start(&[]);
    for client in ["seed", "python"] {
        let mut client = Peer::field_client(&daemon, client);
        allocate(&mut client, 3, "dram", 4096, 7);
        allocate(&mut client, 3, "l1", 512, 8);
        assert_eq!(query(&mut client, 3)["dram"], 4096);
        free(&mut client, 7);
        let totals = query(&mut client, 3);
        assert_eq!((totals["dram"].as_u64(), totals["l1"].as_u64()), (Some(0), Some(512)));
        free(&mut client, 8);
        query(&mut client, 3);
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        assert_eq!(metrics.usage(3, "l1"), Some(0.0));
        assert_eq!(metrics.usage(0, "dram"), None, "nobody has allocated on device 0");
        assert_eq!(metrics.rejected("unknown_free"), 0.0);
    }
}

#[test]
fn a_free_that_fits_two_buffers_is_counted_and_nothing_is_guessed() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "python");
    for device in [2, 3] {
        allocate(&mut client, device, "dram", 4096, 7);
    }
    free(&mut client, 7);
    for device in [2, 3] {
        assert_eq!(query(&mut client, device)["dram"], 4096);
    }
    assert_eq!(daemon.metrics().rejected("ambiguous_free"), 1.0);

    // On the device that it names there is no doubt.
    allocate(&mut client, 0, "dram", 1024, 7);
    free(&mut client, 7);
    assert_eq!(query(&mut client, 0)["dram"], 0);
    assert_eq!(query(&mut client, 2)["dram"], 4096);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.rejected("ambiguous_free"), 1.0);
    assert_eq!(metrics.rejected("unknown_free"), 0.0);
}

#[test]
fn processes_that_count_their_buffers_alike_hold_different_ones() {
    for (name, _) in CLIENTS {
        let daemon = Daemon::start(&[]);
        let mut first = Peer::field_client(&daemon, name);
        let mut second = Peer::field_client(&daemon, name);
        for id in 1..=3 {
            allocate(&mut first, 0, "dram", 1000, id);
            allocate(&mut second, 0, "dram", 10, id);
        }
        query(&mut first, 0);
        assert_eq!(query(&mut second, 0)["dram"], 3030);
        free(&mut first, 2);
        assert_eq!(query(&mut first, 0)["dram"], 2030);
        free(&mut second, 3);
        assert_eq!(query(&mut second, 0)["dram"], 2020);
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        assert_eq!(metrics.process_usage(first.pid(), 0, "dram"), Some(2000.0));
        assert_eq!(metrics.process_usage(second.pid(), 0, "dram"), Some(20.0));
        assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(2.0));
    }
}

#[test]
fn an_address_allocated_twice_counts_once_and_is_freed_twice() {
    for (name, _) in CLIENTS {
        let daemon = Daemon::start(&[]);
        let mut client = Peer::field_client(&daemon, name);
        let address = 0xffff_8000_0000_1000;
        allocate(&mut client, 0, "l1", 4096, address);
        allocate(&mut client, 0, "l1", 4096, address);
        assert_eq!(query(&mut client, 0)["l1"], 4096);
        let buffers = daemon.json("/api/v1/buffers");
        assert_eq!(buffers["buffers"][0]["references"], 2, "{buffers}");
        assert_eq!(buffers["buffers"][0]["buffer_id"], "0xffff800000001000");
        free(&mut client, address);
        assert_eq!(query(&mut client, 0)["l1"], 4096, "{name} holds it still");
        free(&mut client, address);
        assert_eq!(query(&mut client, 0)["l1"], 0);
        free(&mut client, address);
        assert_eq!(query(&mut client, 0)["l1"], 0);
        let metrics = daemon.metrics();
        assert_eq!(metrics.rejected("unknown_free"), 1.0, "the third free has nothing to free");
        let l1 = [("memory_type", "l1")];
        assert_eq!(metrics.value("ttmem_device_allocations_total", &l1), Some(1.0));
        assert_eq!(metrics.value("ttmem_device_frees_total", &l1), Some(1.0));
    }
}

#[test]
fn an_address_that_comes_again_with_another_size_tells_of_a_lost_free() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "metal");
    allocate(&mut client, 0, "dram", 4096, 9);
    allocate(&mut client, 0, "dram", 8192, 9);
    assert_eq!(query(&mut client, 0)["dram"], 8192);
    allocate(&mut client, 0, "l1", 8192, 9);
    let totals = query(&mut client, 0);
    assert_eq!((totals["dram"].as_u64(), totals["l1"].as_u64()), (Some(0), Some(8192)));
    free(&mut client, 9);
    assert_eq!(query(&mut client, 0)["l1"], 0);
    let metrics = daemon.metrics();
    assert_eq!(metrics.value("ttmem_events_lost_total", &[("reason", "free")]), Some(2.0));
    assert_eq!(metrics.rejected("unknown_free"), 0.0);
}

#[test]
fn a_free_of_a_buffer_never_seen_is_counted_and_harmless() {
    let daemon = Daemon::start(&[]);
    for (before, (name, _)) in CLIENTS.into_iter().enumerate() {
        let mut client = Peer::field_client(&daemon, name);
        free(&mut client, 77);
        assert_eq!(query(&mut client, 0)["dram"], 0);
        allocate(&mut client, 0, "dram", 4096, 1);
        free(&mut client, 77);
        assert_eq!(query(&mut client, 0)["dram"], 4096);
        free(&mut client, 1);
        assert_eq!(query(&mut client, 0)["dram"], 0);
        assert_eq!(daemon.metrics().rejected("unknown_free"), 2.0 * (before as f64 + 1.0));
    }
    let complaints: Vec<_> = daemon.log().into_iter().filter(|line| line["level"] != "INFO").collect();
    assert!(complaints.is_empty(), "what is normal is no news: {complaints:?}");
}

#[test]
fn a_buffer_type_means_what_its_client_means_by_it() {
    let check = |frame_bytes: usize, options: &[&str], expected: [&str; 5]| {
        let daemon = Daemon::start(options);
        let mut connection = Connection::open(&daemon, frame_bytes);
        for buffer_type in 0..5 {
            let size = 1 << buffer_type;
            let frame = Frame { buffer_type, ..Frame::alloc(0, size, u64::from(buffer_type)) };
            connection.send(&[frame]);
        }
        let totals = connection.query(0);
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        let place = format!("{frame_bytes} bytes, {options:?}");
        let memory_types = ["dram", "l1", "l1_small", "trace", "system_memory"];
        for (index, memory_type) in memory_types.into_iter().enumerate() {
            let named = expected.iter().enumerate().filter(|(_, name)| **name == memory_type);
            let bytes: u64 = named.map(|(buffer_type, _)| 1 << buffer_type).sum();
            let known = metrics.usage(0, memory_type);
            if memory_type == "system_memory" {
                assert_eq!(known, (bytes > 0).then_some(bytes as f64), "{place}: {memory_type}");
            } else {
                assert_eq!(known, Some(bytes as f64), "{place}: {memory_type}");
                assert_eq!(totals.u64_at(40 + 8 * index), bytes, "{place}: {memory_type} in the answer");
            }
        }
        assert_eq!(metrics.rejected("buffer_type"), 0.0);
        connection.send(&[Frame { buffer_type: 5, ..Frame::alloc(0, 4096, 5) }]);
        connection.query(0);
        let metrics = daemon.metrics();
        assert_eq!(metrics.rejected("buffer_type"), 1.0, "{place}: 5 is no memory");
        assert_eq!(metrics.sum("ttmem_device_memory_usage_bytes", &[]), 31.0, "{place}");
    };
    let seed = ["dram", "l1", "l1_small", "trace", "trace"];
    let metal = ["dram", "l1", "system_memory", "l1_small", "trace"];
    check(72, &[], seed);
    check(112, &[], seed);
    check(144, &[], metal);
    for frame_bytes in FRAME_BYTES {
        check(frame_bytes, &["--socket-buffer-types", "seed"], seed);
        check(frame_bytes, &["--socket-buffer-types", "metal"], metal);
    }
}

#[test]
fn host_memory_is_never_added_to_the_devices() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "metal");
    allocate(&mut client, 0, "system", 1 << 30, 1);
    allocate(&mut client, 0, "l1_small", 32, 2);
    let totals = query(&mut client, 0);
    assert_eq!(totals["l1_small"], 32);
    for total in ["dram", "l1", "trace", "cb", "kernel"] {
        assert_eq!(totals[total], 0, "{total}");
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(client.pid(), 0, "system_memory"), Some(f64::from(1 << 30)));
    assert_eq!(metrics.process_usage(client.pid(), 0, "l1_small"), Some(32.0));
    assert_eq!(daemon.json("/api/v1/processes")["processes"][0]["device_usage_bytes"], 32);
    free(&mut client, 1);
    query(&mut client, 0);
    assert_eq!(daemon.metrics().usage(0, "system_memory"), Some(0.0));
}

#[test]
fn circular_buffers_and_kernels_go_by_the_sizes_that_their_frees_carry() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "metal");
    // Programs use the same addresses one after the other: the id says nothing.
    for size in [4096, 2048, 1024] {
        client.ask(&json!({"op": "cb_allocate", "device": 0, "size": size, "id": 1}).to_string());
    }
    for (kind, size) in [("application", 300), ("fabric", 20), ("dispatch", 1)] {
        client
            .ask(&json!({"op": "kernel_load", "device": 0, "size": size, "id": 1, "kind": kind}).to_string());
    }
    let totals = query(&mut client, 0);
    assert_eq!((totals["cb"].as_u64(), totals["kernel"].as_u64()), (Some(7168), Some(321)));
    assert_eq!(totals["l1"], 0, "each kind of memory is counted by itself");

    client.ask(r#"{"op":"cb_free","device":0,"size":2048,"id":1}"#);
    client.ask(r#"{"op":"kernel_unload","device":0,"size":300,"id":1}"#);
    let totals = query(&mut client, 0);
    assert_eq!((totals["cb"].as_u64(), totals["kernel"].as_u64()), (Some(5120), Some(21)));

    // More than there is, nothing at all, and the wrong device: nothing goes below zero, and nothing is guessed.
    client.ask(r#"{"op":"cb_free","device":0,"size":5121,"id":1}"#);
    client.ask(r#"{"op":"cb_free","device":0,"size":0,"id":1}"#);
    client.ask(r#"{"op":"kernel_unload","device":1,"size":21,"id":1}"#);
    let totals = query(&mut client, 0);
    assert_eq!((totals["cb"].as_u64(), totals["kernel"].as_u64()), (Some(5120), Some(21)));

    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.rejected("unknown_free"), 2.0);
    assert_eq!(metrics.rejected("zero_size"), 1.0);
    let held = [("cb", 5120.0, 2.0), ("kernel", 21.0, 2.0)];
    for (memory_type, bytes, buffers) in held {
        assert_eq!(metrics.process_usage(client.pid(), 0, memory_type), Some(bytes));
        let labels = [("device", "0"), ("memory_type", memory_type)];
        assert_eq!(metrics.value("ttmem_device_buffers", &labels), Some(buffers));
    }
    for (kind, count) in [("cb_alloc", 3.0), ("cb_free", 3.0), ("kernel_load", 3.0), ("kernel_unload", 2.0)] {
        assert_eq!(metrics.events(kind), count, "{kind}");
    }
}

#[test]
fn dumps_go_to_the_log() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "metal");
    let mut other = Peer::field_client(&daemon, "seed");
    allocate(&mut client, 2, "dram", 4096, 0x10);
    allocate(&mut client, 2, "dram", 1024, 0x20);
    query(&mut client, 2);
    allocate(&mut other, 0, "l1_small", 32, 1);
    query(&mut other, 0);
    client.ask(r#"{"op":"kernel_load","device":2,"size":300,"id":1,"kind":"fabric"}"#);
    client.ask(r#"{"op":"kernel_load","device":2,"size":200,"id":2,"kind":"fabric"}"#);
    client.ask(r#"{"op":"kernel_load","device":2,"size":50,"id":3,"kind":"dispatch"}"#);
    client.ask(r#"{"op":"dump","what":"buffers"}"#);
    client.ask(r#"{"op":"dump","what":"kernels"}"#);
    query(&mut client, 2);

    let log = daemon.log();
    let lines = |message: &str, keys: &[&str]| -> Vec<Value> {
        let lines = log.iter().filter(|line| line["message"] == message);
        lines.map(|line| keys.iter().map(|key| line[*key].clone()).collect()).collect()
    };
    let (pid, other_pid) = (client.pid(), other.pid());
    assert_eq!(
        lines("remaining memory", &["pid", "device", "memory_type", "usage_bytes", "buffers"]),
        [
            json!([pid, 2, "dram", 5120, 2]),
            json!([pid, 2, "kernel", 550, 3]),
            json!([other_pid, 0, "l1_small", 32, 1]),
        ]
    );
    assert_eq!(
        lines("remaining buffer", &["pid", "device", "memory_type", "buffer_id", "size_bytes"]),
        [
            json!([pid, 2, "dram", 0x10, 4096]),
            json!([pid, 2, "dram", 0x20, 1024]),
            json!([other_pid, 0, "l1_small", 1, 32]),
        ]
    );
    assert_eq!(
        lines("remaining kernels", &["pid", "device", "kind", "kernels", "bytes"]),
        [json!([pid, 2, "fabric", 2, 500]), json!([pid, 2, "dispatch", 1, 50])]
    );
}

#[test]
fn capacities_are_told_as_far_as_they_are_known() {
    let daemon = Daemon::start(&["--device", "0=n150", "--device", "4=p100"]);
    let mut python = Peer::field_client(&daemon, "python");
    let mut metal = Peer::field_client(&daemon, "metal");
    allocate(&mut python, 7, "dram", 4096, 1);
    query(&mut python, 7);
    let ask = |client: &mut Peer, device: i32| {
        client.ask(&json!({"op": "device_info", "device": device}).to_string())
    };
    for client in [&mut python, &mut metal] {
        let check = |answer: &Value, device: i32, expected: &[(&str, u64)]| {
            assert_eq!(answer["type"], DEVICE_INFO_RESPONSE, "{answer}");
            assert_eq!(answer["device"], device, "{answer}");
            for (field, value) in expected {
                assert_eq!(answer[*field], *value, "device {device}, {field}: {answer}");
            }
        };
        let n150 = [
            ("total_dram_size", 12_871_236_864),
            ("total_l1_size", 97_959_168),
            ("arch_type", 2),
            ("num_dram_channels", 12),
            ("dram_size_per_channel", 1_072_603_072),
            ("l1_size_per_core", 1_360_544),
            ("is_available", 1),
            ("num_devices", 3),
        ];
        check(&ask(client, 0), 0, &n150);
        // A bank of 4 GB does fit into 32 bits; a device's sum needs more.
        let p100 =
            [("total_dram_size", 29_938_900_096), ("arch_type", 3), ("dram_size_per_channel", 4_276_985_728)];
        check(&ask(client, 4), 4, &p100);
        let unknown_capacity =
            [("total_dram_size", 0), ("total_l1_size", 0), ("arch_type", 0), ("is_available", 1)];
        check(&ask(client, 7), 7, &unknown_capacity);
        let unknown_device = [("total_dram_size", 0), ("is_available", 0), ("num_devices", 3)];
        check(&ask(client, 9), 9, &unknown_device);
        check(&ask(client, -1), -1, &unknown_device);
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics.rejected("device_out_of_range"), 0.0, "-1 is a question like any other");
    let limit = |device| metrics.values("ttmem_device_memory_limit_bytes", &[("device", device)]);
    assert_eq!(limit("0"), [12_871_236_864.0, 97_959_168.0]);
    assert!(limit("7").is_empty(), "an unknown capacity is no sample, not 0");

    // The smallest frame has no place for any of it.
    let mut seed = Peer::field_client(&daemon, "seed");
    let answer = ask(&mut seed, 0);
    assert_eq!((answer["type"].as_u64(), answer["device"].as_u64()), (Some(7), Some(0)));
    assert_eq!((answer["dram"].as_u64(), answer["trace"].as_u64()), (Some(0), Some(0)));
}

#[test]
fn an_answer_has_the_size_of_its_connections_frames() {
    let daemon = Daemon::start(&["--device", "1=n150"]);
    for frame_bytes in FRAME_BYTES {
        let mut connection = Connection::open(&daemon, frame_bytes);
        let info = Frame { kind: DEVICE_INFO_QUERY, device: 1, ..Frame::default() };
        let buffer = Frame::alloc(1, 4096, 1);
        let frames = [buffer, Frame::query(1), info, Frame::query(2), Frame::free(1, 1), Frame::query(1)];
        connection.send(&frames);
        let answers = connection.finish();
        assert_eq!(answers.len(), 4 * frame_bytes, "four questions in frames of {frame_bytes} bytes");
        let answers: Vec<&[u8]> = answers.chunks(frame_bytes).collect();
        let kinds: Vec<u8> = answers.iter().map(|answer| answer[0]).collect();
        assert_eq!(kinds, [RESPONSE, DEVICE_INFO_RESPONSE, RESPONSE, RESPONSE]);
        let totals: Vec<u64> = answers.iter().map(|answer| u64_at(answer, 40)).collect();
        assert_eq!(totals, [4096, 0, 0, 0], "in the order of the questions");
        let total_dram_bytes = match frame_bytes {
            72 => None,
            112 => Some(72),
            _ => Some(88),
        };
        if let Some(offset) = total_dram_bytes {
            assert_eq!(u64_at(answers[1], offset), 12_871_236_864, "in frames of {frame_bytes} bytes");
            assert!(answers[0][72..].iter().all(|byte| *byte == 0), "a RESPONSE holds totals alone");
        }
    }
}

#[test]
fn a_client_that_asks_once_and_waits_is_answered() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut holder = Connection::open(&daemon, 144);
    holder.send(&[Frame::alloc(0, 4096, 1)]);
    holder.query(0);
    for frame_bytes in FRAME_BYTES {
        let mut connection = Connection::open(&daemon, frame_bytes);
        assert_eq!(connection.query(0).dram(), 4096, "in {frame_bytes} bytes");
        // And goes on as it began.
        assert_eq!(connection.query(0).dram(), 4096, "in {frame_bytes} bytes, once more");
        assert!(connection.finish().is_empty(), "no more than it asked for");

        let mut connection = Connection::open(&daemon, frame_bytes);
        let info = connection.ask(Frame { kind: DEVICE_INFO_QUERY, device: -1, ..Frame::default() });
        assert_eq!((info.kind(), info.device()), (DEVICE_INFO_RESPONSE, -1));
        if frame_bytes > 72 {
            assert_eq!(info.u32_at(if frame_bytes == 112 { 108 } else { 124 }), 1, "one device");
        }
    }
    assert_eq!(daemon.metrics().sum("ttmem_events_rejected_total", &[]), 0.0);
}

#[test]
fn a_first_report_counts_without_a_second() {
    let daemon = Daemon::start(&[]);
    let mut clients = CLIENTS.map(|(name, _)| Peer::field_client(&daemon, name));
    for (device, (client, (name, _))) in clients.iter_mut().zip(CLIENTS).enumerate() {
        let device = device as u16;
        allocate(client, i32::from(device), "dram", 4096, 1);
        let what = format!("a single ALLOC of {name}");
        daemon.wait_for_metrics(&what, |metrics| metrics.usage(device, "dram") == Some(4096.0));
        // What comes later neither repeats it nor loses its place.
        allocate(client, i32::from(device), "l1", 512, 2);
        let totals = query(client, i32::from(device));
        assert_eq!((totals["dram"].as_u64(), totals["l1"].as_u64()), (Some(4096), Some(512)), "{name}");
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics.events("alloc"), 6.0);
    for layout in ["72", "112", "144"] {
        assert_eq!(
            metrics.value("ttmem_client_connections", &[("transport", "socket"), ("layout", layout)]),
            Some(1.0),
            "{layout}"
        );
    }
}

#[test]
fn a_single_report_and_goodbye_counts() {
    let daemon = Daemon::start(&[]);
    for (device, frame_bytes) in FRAME_BYTES.into_iter().enumerate() {
        let mut connection = Connection::open(&daemon, frame_bytes);
        connection.send(&[Frame::alloc(device as i32, 4096, 1)]);
        assert!(connection.finish().is_empty());
        assert_eq!(daemon.metrics().usage(device as u16, "dram"), Some(4096.0), "in {frame_bytes} bytes");
    }
    assert_eq!(daemon.metrics().rejected("truncated"), 0.0);
}

#[test]
fn a_byte_at_a_time_is_as_good_as_all_at_once() {
    let daemon = Daemon::start(&[]);
    for (device, (name, frame_bytes)) in CLIENTS.into_iter().enumerate() {
        let device = device as i32;
        let mut client = Peer::field_client(&daemon, name);
        let l1 = Frame { buffer_type: 1, ..Frame::alloc(device, 512, 2) };
        let frames = [
            Frame::alloc(device, 4096, 1),
            l1,
            Frame::free(device, 2),
            Frame::query(device),
            Frame::query(9),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes(frame_bytes)).collect();
        client.ask(&json!({"op": "dribble", "hex": hex(&bytes)}).to_string());
        let answers = receive(&mut client, 2 * frame_bytes);
        assert_eq!((answers[0], u64_at(&answers, 40), u64_at(&answers, 48)), (RESPONSE, 4096, 0), "{name}");
        assert_eq!((answers[frame_bytes], answers[frame_bytes + 4]), (RESPONSE, 9), "{name}");
    }
    assert_eq!(daemon.metrics().sum("ttmem_events_rejected_total", &[]), 0.0);
}

#[test]
fn a_dribbled_first_question_is_answered_once_and_whole() {
    let daemon = Daemon::start(&[]);
    let mut holder = Connection::open(&daemon, 144);
    holder.send(&[Frame::alloc(0, 4096, 1)]);
    holder.query(0);
    for (name, frame_bytes) in CLIENTS {
        let mut client = Peer::field_client(&daemon, name);
        client.ask(&json!({"op": "dribble", "hex": hex(&Frame::query(0).bytes(frame_bytes))}).to_string());
        let answer = receive(&mut client, frame_bytes);
        assert_eq!((answer[0], u64_at(&answer, 40)), (RESPONSE, 4096), "{name}");
        // If there were a byte too many, the next answer would begin with it.
        assert_eq!(query(&mut client, 0)["type"], RESPONSE, "{name}");
        assert_eq!(query(&mut client, 0)["dram"], 4096, "{name}");
    }
    let metrics = daemon.metrics();
    assert_eq!(metrics.events("query"), 10.0, "each question is counted once");
    assert_eq!(metrics.sum("ttmem_events_rejected_total", &[]), 0.0);
}

#[test]
fn a_fixed_layout_reads_no_other() {
    for (name, frame_bytes) in CLIENTS {
        let size = frame_bytes.to_string();
        let daemon = Daemon::start(&["--socket-layout", &size]);
        let mut client = Peer::field_client(&daemon, name);
        assert_eq!(query(&mut client, 0)["type"], RESPONSE);
        allocate(&mut client, 0, "dram", 4096, 1);
        assert_eq!(query(&mut client, 0)["dram"], 4096);
        let connections = |layout| {
            daemon.metrics().value("ttmem_client_connections", &[("transport", "socket"), ("layout", layout)])
        };
        assert_eq!((connections(&size), connections("undetected")), (Some(1.0), Some(0.0)));

        // Any other size does not fit, and is told so.
        for other_bytes in FRAME_BYTES.into_iter().filter(|other| *other != frame_bytes) {
            let mut other = Connection::open(&daemon, other_bytes);
            other.send(&[Frame::alloc(1, 10, 1), Frame::alloc(1, 10, 2), Frame::alloc(1, 10, 3)]);
            other.read_to_end();
        }
        let metrics = daemon.metrics();
        assert_eq!(metrics.rejected("tail") + metrics.rejected("unknown_type"), 2.0, "{name}");
        assert_eq!(query(&mut client, 0)["dram"], 4096, "{name} does not notice");
    }
}

#[test]
fn a_forked_child_is_known_on_its_parents_socket() {
    // The seed's FREE names no process: its children cannot free.
    for (name, _) in CLIENTS {
        let daemon = Daemon::start(&[]);
        let mut parent = Peer::field_client(&daemon, name);
        allocate(&mut parent, 0, "dram", 4096, 1);
        let child = parent.ask(r#"{"op":"fork_allocate","device":0,"type":"dram","size":512,"id":1}"#);
        let child = child["child_pid"].as_u64().unwrap() as u32;
        assert_eq!(query(&mut parent, 0)["dram"], 4608, "{name}");
        free(&mut parent, 1);
        assert_eq!(query(&mut parent, 0)["dram"], 512, "{name} frees its own buffer of that id");
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        assert_eq!(metrics.process_usage(parent.pid(), 0, "dram"), Some(0.0));
        assert_eq!(metrics.process_usage(child, 0, "dram"), Some(512.0));
        assert_eq!(metrics.rejected("claimed_pid"), 0.0);
        parent.ask(r#"{"op":"end_child"}"#);
        let metrics = daemon.wait_for_metrics("the child's memory to be reclaimed", |metrics| {
            metrics.usage(0, "dram") == Some(0.0)
        });
        assert_eq!(metrics.sum("ttmem_device_orphaned_bytes_total", &[]), 512.0);
        assert_eq!(query(&mut parent, 0)["dram"], 0, "the parent's socket goes on");
    }
}

#[test]
fn a_burst_of_50_000_frames_is_counted_to_the_last() {
    const COUNT: u64 = 50_000;
    for (name, _) in CLIENTS {
        let daemon = Daemon::start(&[]);
        let mut client = Peer::field_client(&daemon, name);
        let burst =
            json!({"op": "allocate", "device": 0, "type": "dram", "size": 2048, "id": 1, "count": COUNT});
        client.ask(&burst.to_string());
        assert_eq!(query(&mut client, 0)["dram"], 2048 * COUNT, "{name}");
        let dram = [("device", "0"), ("memory_type", "dram")];
        let metrics = daemon.metrics();
        assert_eq!(metrics.value("ttmem_device_buffers", &dram), Some(COUNT as f64));
        client.ask(&json!({"op": "free", "id": 1, "count": COUNT}).to_string());
        assert_eq!(query(&mut client, 0)["dram"], 0, "{name}");
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        assert_eq!(metrics.value("ttmem_device_frees_total", &dram), Some(COUNT as f64));
        assert_eq!(metrics.value("ttmem_device_memory_peak_bytes", &dram), Some(2048.0 * COUNT as f64));
        assert_eq!(metrics.sum("ttmem_events_rejected_total", &[]), 0.0);
    }
}

/// A client claims a pid: its memory is its own then, the claimed process is not heard of, and the claim is counted.
#[track_caller]
fn check_refused_claim(daemon: &Daemon, client: &mut Peer, claimed: i64) {
    let before = daemon.metrics().rejected("claimed_pid");
    client.ask(&json!({"op": "connect", "client": "metal", "process_id": claimed}).to_string());
    allocate(client, 0, "dram", 4096, 1);
    query(client, 0);
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(client.pid(), 0, "dram"), Some(4096.0), "the sender's");
    let claimed = claimed.to_string();
    assert!(metrics.values("ttmem_process_info", &[("pid", &claimed)]).is_empty());
    assert_eq!(metrics.rejected("claimed_pid"), before + 1.0);
    free(client, 1);
    assert_eq!(query(client, 0)["dram"], 0, "its claim leads to the same process again");
}

#[test]
fn a_pid_that_nobody_has_is_not_believed() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::unconnected(&daemon);
    check_refused_claim(&daemon, &mut client, i64::from(i32::MAX));
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    check_refused_claim(&daemon, &mut client, i64::from(ended.id()));
}

#[test]
fn a_pid_of_another_users_process_is_not_believed() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::unconnected(&daemon);
    if is_root() {
        let mut others = Peer::unconnected(&daemon);
        others.ask(&json!({"op": "be_user", "user": NOBODY}).to_string());
        check_refused_claim(&daemon, &mut client, i64::from(others.pid()));
    } else {
        check_refused_claim(&daemon, &mut client, 1);
    }
}

#[test]
fn nobody_can_speak_for_root() {
    if !is_root() {
        eprintln!("not tested: only root can start a client as another user");
        return;
    }
    let daemon = Daemon::start(&[]);
    let mut roots = Peer::field_client(&daemon, "metal");
    allocate(&mut roots, 0, "dram", 100, 1);
    query(&mut roots, 0);

    let mut client = Peer::unconnected(&daemon);
    client.ask(&json!({"op": "be_user", "user": NOBODY}).to_string());
    let claim = json!({"op": "connect", "client": "metal", "process_id": roots.pid()});
    client.ask(&claim.to_string());
    allocate(&mut client, 0, "dram", 4096, 2);
    free(&mut client, 1);
    assert_eq!(query(&mut client, 0)["dram"], 4196, "root's buffer is not freed");
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(roots.pid(), 0, "dram"), Some(100.0));
    assert_eq!(metrics.process_usage(client.pid(), 0, "dram"), Some(4096.0));
    assert_eq!(metrics.rejected("claimed_pid"), 1.0);
    assert_eq!(metrics.rejected("unknown_free"), 1.0);
    let pid = client.pid().to_string();
    let nobody = metrics.values("ttmem_process_info", &[("pid", &pid), ("user", "nobody")]);
    assert_eq!(nobody, [1.0], "and its user is known");
}

#[test]
fn a_live_process_of_the_same_user_is_believed() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::unconnected(&daemon);
    // As a fork would that writes to a socket which its sibling has opened.
    let mut sibling = Peer::unconnected(&daemon);
    let claim = json!({"op": "connect", "client": "python", "process_id": sibling.pid()});
    client.ask(&claim.to_string());
    allocate(&mut client, 0, "dram", 4096, 1);
    query(&mut client, 0);
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(sibling.pid(), 0, "dram"), Some(4096.0));
    assert_eq!(metrics.process_usage(client.pid(), 0, "dram"), None);
    assert_eq!(metrics.rejected("claimed_pid"), 0.0);
    sibling.kill();
    daemon.wait_for_metrics("its memory to go with it", |metrics| metrics.usage(0, "dram") == Some(0.0));
}

#[test]
fn a_simulation_may_speak_for_anyone() {
    let daemon = Daemon::start(&["--trust-claimed-pids"]);
    let mut connection = Connection::open(&daemon, 144);
    for (process_id, size) in [(4242, 100), (4243, 20)] {
        connection.send(&[Frame { process_id, ..Frame::alloc(0, size, 1) }]);
    }
    connection.send(&[Frame { process_id: 4242, ..Frame::free(0, 1) }]);
    assert_eq!(connection.query(0).dram(), 20);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(4242, 0, "dram"), Some(0.0));
    assert_eq!(metrics.process_usage(4243, 0, "dram"), Some(20.0));
    assert_eq!(metrics.rejected("claimed_pid"), 0.0);
    connection.finish();
    daemon.wait_for_metrics("simulated processes to end with their session", |metrics| {
        metrics.usage(0, "dram") == Some(0.0)
    });
}

#[test]
fn a_client_in_its_own_pid_namespace_has_its_pid_on_the_host() {
    let in_namespace = |command: &[&str]| {
        let mut unshare = Command::new("unshare");
        // An ordinary user may do this only in a user namespace.
        let user: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
        unshare.args(user).args(["--pid", "--fork", "--kill-child", "--"]).args(command);
        unshare
    };
    if !in_namespace(&["true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: this system does not permit a pid namespace");
        return;
    }
    let daemon = Daemon::start(&[]);
    let (script, socket) = (peers().join("field_clients.py"), daemon.socket());
    let words = ["python3", script.to_str().unwrap(), "--socket", socket.to_str().unwrap()];
    let mut client = Peer::start(&mut in_namespace(&words));
    let connected = client.ask(r#"{"op":"connect","client":"metal"}"#);
    assert_eq!(connected["pid"], 1, "what it takes for its pid, and claims");
    allocate(&mut client, 0, "dram", 4096, 1);
    assert_eq!(query(&mut client, 0)["dram"], 4096);

    let children = format!("/proc/{0}/task/{0}/children", client.pid());
    let pid: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(pid, 0, "dram"), Some(4096.0));
    assert_eq!(metrics.process_usage(1, 0, "dram"), None);
    assert_eq!(metrics.rejected("claimed_pid"), 0.0);

    // A pid of its namespace is another process on the host: there is no telling which.
    client.ask(r#"{"op":"connect","client":"metal","process_id":2}"#);
    allocate(&mut client, 0, "dram", 512, 2);
    query(&mut client, 0);
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(pid, 0, "dram"), Some(4608.0));
    assert_eq!(metrics.rejected("claimed_pid"), 1.0);
    client.kill();
    daemon.wait_for_metrics("its end", |metrics| metrics.usage(0, "dram") == Some(0.0));
}

#[test]
fn connections_are_counted_by_what_they_speak() {
    let daemon = Daemon::start(&[]);
    let counts = || {
        let metrics = daemon.metrics();
        ["undetected", "72", "112", "144"].map(|layout| {
            metrics.value("ttmem_client_connections", &[("transport", "socket"), ("layout", layout)]).unwrap()
        })
    };
    let mut connections: Vec<Connection> =
        FRAME_BYTES.into_iter().map(|frame_bytes| Connection::open(&daemon, frame_bytes)).collect();
    wait_for("three connections", || (counts() == [3.0, 0.0, 0.0, 0.0]).then_some(()));
    for connection in &mut connections {
        // Two frames settle the size, a single one may not.
        connection.send(&[Frame { kind: ALLOC, ..Frame::alloc(0, 1, 1) }, Frame::query(0)]);
        connection.reply();
        assert_eq!(connection.ask(Frame { kind: QUERY, ..Frame::default() }).kind(), RESPONSE);
    }
    assert_eq!(counts(), [0.0, 1.0, 1.0, 1.0]);
    drop(connections);
    wait_for("no connections", || (counts() == [0.0; 4]).then_some(()));
}
