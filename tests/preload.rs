//! An unmodified ttnn under the preloaded library, on boards that are not there: every buffer as its allocator accounts for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use support::mock::Board;
use support::otlp::{Collector, Rotel};
use support::preload::library;
use support::trace::{process_ended, spans};
use support::{Daemon, Directory, Peer, ttmem};

/// What the workload can allocate in, and how the daemon calls it.
const MEMORY_TYPES: [&str; 4] = ["dram", "l1", "l1_small", "trace"];
const SHM: &str = "/dev/shm";

/// The board's Python under `ttmem run`.
fn under(board: &Board, socket: &Path) -> Command {
    let mut command = ttmem();
    command.args(["run", "--preload"]).arg(library()).arg("--socket").arg(socket);
    command.arg("--").arg(board.python());
    command
}

/// A ttnn process that `ttmem run` has started.
fn run(board: &Board, socket: &Path) -> Peer {
    Peer::start(board.prepare(&mut under(board, socket)))
}

fn ask(process: &mut Peer, command: impl Into<Value>) -> Value {
    let command = command.into();
    process.ask(&command.to_string())
}

fn alloc(process: &mut Peer, name: &str, memory: &str, shape: [u32; 2]) {
    ask(process, json!({"op": "alloc", "name": name, "memory": memory, "shape": shape}));
}

/// What the allocator says it has handed out of a kind of memory: the same range of every bank.
fn allocated(process: &mut Peer, memory: &str) -> f64 {
    let banks = ask(process, json!({"op": "banks"}))[memory].clone();
    banks["allocated_bytes_per_bank"].as_f64().unwrap() * banks["banks"].as_f64().unwrap()
}

/// Waits until the daemon shows what the allocator says.
fn wait_for_agreement(daemon: &Daemon, process: &mut Peer, device: u16) {
    for memory in MEMORY_TYPES {
        let expected = allocated(process, memory);
        let what = format!("{expected} bytes of {memory} on device {device}");
        let metrics = daemon.wait_for_metrics(&what, |metrics| {
            metrics.process_usage(process.pid(), device, memory).unwrap_or(0.0) == expected
        });
        metrics.assert_adds_up();
    }
}

/// Its live buffers on a device, oldest first: memory type and size.
fn buffers(daemon: &Daemon, process: &Peer, device: u16) -> Vec<(String, u64)> {
    let answer = daemon.json(&format!("/api/v1/buffers?pid={}&device={device}", process.pid()));
    let mut buffers: Vec<_> = answer["buffers"].as_array().unwrap().iter().collect();
    buffers.sort_by(|left, right| {
        let age = |buffer: &Value| buffer["age_seconds"].as_f64().unwrap();
        age(right).total_cmp(&age(left))
    });
    let row = |buffer: &&Value| {
        (buffer["memory_type"].as_str().unwrap().to_owned(), buffer["size_bytes"].as_u64().unwrap())
    };
    buffers.iter().map(row).collect()
}

/// A life of a model on a board: tensors in every memory, a program, a failure, a close with tensors alive.
fn lives_and_dies(board: &Board, chips: u16) {
    let daemon = Daemon::start(&[]);
    let mut process = run(board, &daemon.socket());
    let open = if chips > 1 { json!({"op": "open", "mesh": [1, chips]}) } else { json!({"op": "open"}) };
    ask(&mut process, open);
    for (name, memory) in ["a", "b", "c", "d"].into_iter().zip(MEMORY_TYPES) {
        alloc(&mut process, name, memory, [64, 64]);
        // Each is there before the next is made, so that their order shows.
        wait_for_agreement(&daemon, &mut process, chips - 1);
    }
    for device in 0..chips {
        wait_for_agreement(&daemon, &mut process, device);
        let types: Vec<_> =
            buffers(&daemon, &process, device).into_iter().map(|(memory, _)| memory).collect();
        assert_eq!(types, MEMORY_TYPES, "in the order of the script");
    }
    let banks = ask(&mut process, json!({"op": "banks"}));
    for memory in ["dram", "l1"] {
        let told = &banks[memory];
        let bytes = told["banks"].as_f64().unwrap() * told["bytes_per_bank"].as_f64().unwrap();
        for device in 0..chips {
            let device = device.to_string();
            let labels = [("device", device.as_str()), ("memory_type", memory)];
            daemon.wait_for_metrics("the allocator's capacity", |metrics| {
                metrics.value("ttmem_device_memory_limit_bytes", &labels) == Some(bytes)
                    && metrics.sum("ttmem_device_info", &[("device", &device), ("capacity_source", "client")])
                        == 1.0
            });
        }
    }
    alloc(&mut process, "e", "dram", [64, 64]);
    ask(&mut process, json!({"op": "add", "left": "a", "right": "e", "name": "f"}));
    ask(&mut process, json!({"op": "free", "name": "a"}));
    wait_for_agreement(&daemon, &mut process, 0);
    assert_eq!(buffers(&daemon, &process, 0).len(), 5);

    let told = ask(&mut process, json!({"op": "oom"}))["out_of_memory"].as_str().unwrap().to_owned();
    assert!(told.starts_with("Out of Memory: Not enough space to allocate 536870912 B L1 buffer"), "{told}");
    for device in 0..chips {
        let device = device.to_string();
        let labels = [("device", device.as_str()), ("memory_type", "l1"), ("reason", "exhausted")];
        daemon.wait_for_metrics("the failure", |metrics| {
            metrics.value("ttmem_device_allocation_failures_total", &labels) == Some(1.0)
        });
    }
    wait_for_agreement(&daemon, &mut process, 0);

    // Closing gives everything back without naming a buffer.
    ask(&mut process, json!({"op": "close"}));
    for device in 0..chips {
        for memory in [&MEMORY_TYPES[..], &["cb"]].concat() {
            daemon.wait_for_metrics("nothing to be held", |metrics| {
                metrics.process_usage(process.pid(), device, memory).unwrap_or(0.0) == 0.0
            });
        }
    }
    process.finish();
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("ttmem_device_orphaned_buffers_total", &[]), 0.0, "{}", metrics.text);
    assert_eq!(metrics.sum("ttmem_events_rejected_total", &[]), 0.0, "{}", metrics.text);
    assert_eq!(metrics.sum("ttmem_events_lost_total", &[]), 0.0, "{}", metrics.text);
    assert_eq!(metrics.events("note"), 0.0, "this version has all that is needed");
}

#[test]
fn a_wormhole_board() {
    lives_and_dies(&Board::n150(), 1);
}

#[test]
fn a_mesh_of_two_chips() {
    lives_and_dies(&Board::new("n300", 2), 2);
}

#[test]
fn a_blackhole_board() {
    lives_and_dies(&Board::new("p150", 1), 1);
}

#[test]
fn a_version_whose_buffers_export_less() {
    lives_and_dies(&Board::of("ttnn-old", "n150", 1), 1);
}

#[test]
fn a_run_is_the_same_byte_for_byte() {
    let board = Board::n150();
    let script = [
        json!({"op": "open"}),
        json!({"op": "alloc", "name": "a", "memory": "dram", "shape": [64, 64]}),
        json!({"op": "alloc", "name": "b", "memory": "l1", "shape": [32, 96]}),
        json!({"op": "add", "left": "a", "right": "a", "name": "c"}),
        json!({"op": "oom"}),
        json!({"op": "banks"}),
        json!({"op": "free", "name": "a"}),
        json!({"op": "free", "name": "a"}),
        json!({"op": "close"}),
        json!({"op": "exit"}),
    ];
    let directory = Directory::new();
    let input = directory.join("input");
    std::fs::write(&input, script.map(|command| format!("{command}\n")).concat()).unwrap();
    // What the process writes and how it ends, but for its own pid, which it tells once, and the time.
    let output = |mut command: Command| {
        let command = board.prepare(&mut command).stdin(std::fs::File::open(&input).unwrap());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = format!("\"pid\": {},", child.id());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // tt-metal's log begins each line with the time.
        let untimed = |line: &str| line.split_once(" | ").map_or(line, |(_, line)| line).to_owned();
        let log: Vec<String> = text(output.stderr).lines().map(untimed).collect();
        (output.status, text(output.stdout).replace(&pid, ""), log)
    };
    let plain = output(Command::new(board.python()));
    assert!(plain.1.contains("Out of Memory") && plain.0.success(), "{plain:?}");
    let daemon = Daemon::start(&[]);
    assert_eq!(output(under(&board, &daemon.socket())), plain);
    assert!(daemon.metrics().events("allocation_failed") > 0.0, "it has been reported");
    // Nor does it matter whether anybody listens.
    assert_eq!(output(under(&board, &daemon.directory().join("nobody"))), plain);
}

#[test]
fn the_model_does_not_notice_a_daemon_that_comes_and_goes() {
    let directory = Directory::new();
    std::fs::create_dir(directory.join("shm")).unwrap();
    let board = Board::n150();
    let mut process = run(&board, &directory.join("socket"));
    ask(&mut process, json!({"op": "open"}));
    alloc(&mut process, "a", "dram", [64, 64]);
    alloc(&mut process, "b", "l1", [64, 64]);
    let daemon = Daemon::start_in(directory, &[]);
    wait_for_agreement(&daemon, &mut process, 0);
    let directory = daemon.kill();
    alloc(&mut process, "c", "dram", [128, 64]);
    ask(&mut process, json!({"op": "free", "name": "b"}));
    let daemon = Daemon::start_in(directory, &[]);
    let restarted = Instant::now();
    wait_for_agreement(&daemon, &mut process, 0);
    println!("a daemon that is started again is exact after {} ms", restarted.elapsed().as_millis());
    ask(&mut process, json!({"op": "close"}));
    daemon.wait_for_metrics("nothing to be held", |metrics| metrics.usage(0, "dram") == Some(0.0));
}

#[test]
fn what_a_killed_model_held_is_reclaimed() {
    let (daemon, board) = (Daemon::start(&[]), Board::n150());
    let mut process = run(&board, &daemon.socket());
    ask(&mut process, json!({"op": "open"}));
    alloc(&mut process, "a", "dram", [64, 64]);
    alloc(&mut process, "b", "l1", [64, 64]);
    let held = ["dram", "l1"].map(|memory| allocated(&mut process, memory));
    wait_for_agreement(&daemon, &mut process, 0);
    process.kill();
    for (memory, bytes) in ["dram", "l1"].into_iter().zip(held) {
        let labels = [("device", "0"), ("memory_type", memory)];
        daemon.wait_for_metrics("what it left behind", |metrics| {
            metrics.value("ttmem_device_orphaned_bytes_total", &labels) == Some(bytes)
                && metrics.usage(0, memory) == Some(0.0)
        });
    }
}

#[test]
fn beside_the_region_it_counts_once() {
    let board = Board::n150();
    let daemon = Daemon::launch(ttmem(), Directory::new(), Path::new(SHM), &[]);
    let mut process = run(&board, &daemon.socket());
    ask(&mut process, json!({"op": "open"}));
    let bytes =
        ask(&mut process, json!({"op": "alloc", "name": "a", "memory": "dram", "shape": [64, 64]}))["bytes"]
            .as_f64()
            .unwrap();
    wait_for_agreement(&daemon, &mut process, 0);
    // The region has what the tensor asked for, the allocator took a whole page of every bank.
    let taken = allocated(&mut process, "dram");
    assert!(taken > bytes);
    let pid = process.pid().to_string();
    let shown = daemon.wait_for_metrics("both sources", |metrics| {
        let drift = [("device", "0"), ("memory_type", "dram"), ("source", "shm")];
        metrics.value("ttmem_device_source_drift_bytes", &drift) == Some(bytes - taken)
    });
    assert_eq!(
        shown.sum("ttmem_process_memory_usage_bytes", &[("pid", &pid), ("memory_type", "dram")]),
        taken
    );
}

#[test]
fn a_life_is_a_trace_that_says_why_each_buffer_ended() {
    let board = Board::n150();
    let mut sink = Collector::start();
    let rotel = Rotel::start(&sink);
    let endpoint = format!("http://127.0.0.1:{}", rotel.http);
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-batch-delay-ms", "50"];
    let every = ["--span-size-min-bytes", "0", "--span-lifetime-min-ms", "0"];
    let daemon = Daemon::start(&[&flags[..], &every].concat());
    let mut process = run(&board, &daemon.socket());
    ask(&mut process, json!({"op": "open"}));
    let mut expected = Vec::new();
    for (name, memory, shape, end) in [
        ("weights", "dram", [2048, 2048], "device_closed"),
        ("left", "l1", [512, 512], "freed"),
        ("halo", "l1_small", [64, 32], "freed"),
    ] {
        let before = allocated(&mut process, memory);
        alloc(&mut process, name, memory, shape);
        let bytes = allocated(&mut process, memory) - before;
        expected.push((format!("buffer {memory}"), bytes as u64, end.to_owned()));
        // Each is read by itself, so that it has lived.
        wait_for_agreement(&daemon, &mut process, 0);
    }
    ask(&mut process, json!({"op": "free", "name": "left"}));
    ask(&mut process, json!({"op": "free", "name": "halo"}));
    ask(&mut process, json!({"op": "close"}));
    process.finish();
    let all = spans(&process_ended(&mut sink));
    let mut buffers: Vec<_> = all.iter().filter(|span| span.name.starts_with("buffer ")).collect();
    buffers.sort_by_key(|span| span.start_ns);
    let told = buffers.iter().map(|span| {
        let end = span.attributes["tenstorrent.buffer.end"].clone();
        (span.name.clone(), span.number("tenstorrent.buffer.size"), end)
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
}
