//! The unmodified ttnn on boards that are not there: what it holds appears byte for byte, and goes with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use support::mock::Board;
use support::otlp::{Collector, Rotel};
use support::regions::{dump_region, slot_of};
use support::trace::{process_ended, spans};
use support::{Daemon, Directory, Metrics, Peer, copy_ttmem, peers, ttmem};

/// Where tt-metal always publishes its regions.
const SHM: &str = "/dev/shm";
const MEMORY_TYPES: [&str; 5] = ["dram", "l1", "l1_small", "trace", "cb"];
/// A user that owns nothing, on any Linux.
const NOBODY: u32 = 65_534;

/// A daemon on this host's own regions. Those of other tests are on device 0 as well: what counts here is the process.
fn daemon() -> Daemon {
    Daemon::launch(ttmem(), Directory::new(), Path::new(SHM), &[])
}

/// Makes a tensor and gives its bytes.
fn alloc(process: &mut Peer, name: &str, memory: &str, shape: &str) -> f64 {
    let command = format!(r#"{{"op":"alloc","name":"{name}","memory":"{memory}","shape":{shape}}}"#);
    process.ask(&command)["bytes"].as_f64().unwrap()
}

fn free(process: &mut Peer, name: &str) {
    process.ask(&format!(r#"{{"op":"free","name":"{name}"}}"#));
}

/// What a process holds on a device, in the order of the memory types, where 0 and no sample are the same.
fn held(metrics: &Metrics, pid: u32, device: u16) -> [f64; MEMORY_TYPES.len()] {
    MEMORY_TYPES.map(|memory_type| metrics.process_usage(pid, device, memory_type).unwrap_or(0.0))
}

/// Waits until a process holds exactly this.
fn wait_for_held(daemon: &Daemon, pid: u32, device: u16, expected: [f64; MEMORY_TYPES.len()]) -> Metrics {
    let what = format!("process {pid} to hold {expected:?} on device {device}");
    let metrics = daemon.wait_for_metrics(&what, |metrics| held(metrics, pid, device) == expected);
    metrics.assert_adds_up();
    metrics
}

#[test]
fn tensors_appear_byte_for_byte_and_go_when_freed() {
    let (daemon, board) = (daemon(), Board::n150());
    let mut process = board.open();
    let pid = process.pid();
    let mut expected = [0.0; MEMORY_TYPES.len()];
    let tensors = [
        ("a", 0, "[64, 64]"),
        ("b", 1, "[32, 96]"),
        ("c", 2, "[64, 32]"),
        ("d", 3, "[128, 64]"),
        // Not a whole number of tiles.
        ("e", 0, "[100, 50]"),
    ];
    for (name, memory, shape) in tensors {
        let bytes = alloc(&mut process, name, MEMORY_TYPES[memory], shape);
        assert!(bytes > 0.0);
        expected[memory] += bytes;
        wait_for_held(&daemon, pid, 0, expected);
    }
    let expected_bytes = expected;
    for name in ["a", "b", "c", "d", "e"] {
        free(&mut process, name);
    }
    let metrics = wait_for_held(&daemon, pid, 0, [0.0; 5]);
    let pid_label = pid.to_string();
    for (memory_type, bytes) in MEMORY_TYPES.into_iter().zip(expected_bytes).filter(|(_, bytes)| *bytes > 0.0)
    {
        let labels = [("pid", pid_label.as_str()), ("device", "0"), ("memory_type", memory_type)];
        assert_eq!(metrics.value("ttmem_process_memory_peak_bytes", &labels), Some(bytes), "{memory_type}");
    }

    alloc(&mut process, "f", "dram", "[64, 64]");
    wait_for_held(&daemon, pid, 0, [8192.0, 0.0, 0.0, 0.0, 0.0]);
    process.ask(r#"{"op":"close"}"#);
    wait_for_held(&daemon, pid, 0, [0.0; 5]);
}

#[test]
fn a_programs_circular_buffers_are_memory_of_their_own() {
    let (daemon, board) = (daemon(), Board::n150());
    let mut process = board.open();
    let dram = ["a", "b"].map(|name| alloc(&mut process, name, "dram", "[64, 64]")).iter().sum::<f64>();
    let sum = process.ask(r#"{"op":"add","left":"a","right":"b","name":"c"}"#)["bytes"].as_f64().unwrap();
    let region = dump_region(&board.regions()[0]);
    let circular = slot_of(&region, process.pid()).unwrap()["cb"].as_f64().unwrap();
    assert!(circular > 0.0, "{region}");
    wait_for_held(&daemon, process.pid(), 0, [dram + sum, 0.0, 0.0, 0.0, circular]);
}

#[test]
fn a_tensor_of_a_mesh_is_held_on_each_of_its_devices() {
    let (daemon, board) = (daemon(), Board::new("n300", 2));
    let mut process = board.process(&[]);
    process.ask(r#"{"op":"open","mesh":[1,2]}"#);
    let bytes = alloc(&mut process, "a", "dram", "[64, 64]");
    for device in [0, 1] {
        wait_for_held(&daemon, process.pid(), device, [bytes, 0.0, 0.0, 0.0, 0.0]);
    }
    free(&mut process, "a");
    for device in [0, 1] {
        wait_for_held(&daemon, process.pid(), device, [0.0; 5]);
    }
}

#[test]
fn processes_on_one_chip_are_told_apart() {
    let (daemon, board) = (daemon(), Board::n150());
    let (mut first, mut second) = (board.open(), board.open());
    let firsts = [alloc(&mut first, "a", "dram", "[128, 64]"), 0.0, 0.0, 0.0, 0.0];
    let seconds = [
        alloc(&mut second, "a", "dram", "[64, 64]"),
        alloc(&mut second, "b", "l1", "[32, 32]"),
        0.0,
        0.0,
        0.0,
    ];
    wait_for_held(&daemon, first.pid(), 0, firsts);
    wait_for_held(&daemon, second.pid(), 0, seconds);
    free(&mut second, "a");
    wait_for_held(&daemon, second.pid(), 0, [0.0, seconds[1], 0.0, 0.0, 0.0]);
    first.ask(r#"{"op":"exit"}"#);
    first.finish();
    let metrics = wait_for_held(&daemon, first.pid(), 0, [0.0; 5]);
    assert_eq!(held(&metrics, second.pid(), 0), [0.0, seconds[1], 0.0, 0.0, 0.0]);
}

/// A host's chips are dealt out in this way, and each process then calls its own chip device 0.
#[test]
fn processes_that_see_different_chips_are_told_apart() {
    let (daemon, board) = (daemon(), Board::new("2xn150", 2));
    let shapes = ["[64, 64]", "[128, 64]"];
    let processes: Vec<(Peer, f64)> = (0..2)
        .map(|chip| {
            let mut process = board.process(&[("TT_VISIBLE_DEVICES", &chip.to_string())]);
            process.ask(r#"{"op":"open"}"#);
            let bytes = alloc(&mut process, "a", "dram", shapes[chip]);
            (process, bytes)
        })
        .collect();
    for ((process, bytes), region) in processes.iter().zip(board.regions()) {
        assert!(slot_of(&dump_region(region), process.pid()).is_some(), "it uses another chip");
        let pid = process.pid().to_string();
        let usage = |metrics: &Metrics| metrics.sum("ttmem_process_memory_usage_bytes", &[("pid", &pid)]);
        daemon.wait_for_metrics("each process's memory", |metrics| usage(metrics) == *bytes).assert_adds_up();
    }
}

#[test]
fn a_killed_process_leaves_nothing_behind_although_its_region_does() {
    let (daemon, board) = (daemon(), Board::n150());
    let (mut victim, mut other) = (board.open(), board.open());
    let victims = [
        alloc(&mut victim, "a", "dram", "[128, 64]"),
        alloc(&mut victim, "b", "l1", "[64, 64]"),
        alloc(&mut victim, "c", "l1_small", "[32, 32]"),
        alloc(&mut victim, "d", "trace", "[32, 64]"),
        0.0,
    ];
    let others = [alloc(&mut other, "a", "dram", "[64, 64]"), 0.0, 0.0, 0.0, 0.0];
    wait_for_held(&daemon, victim.pid(), 0, victims);
    wait_for_held(&daemon, other.pid(), 0, others);

    let killed = Instant::now();
    victim.kill();
    let metrics = wait_for_held(&daemon, victim.pid(), 0, [0.0; 5]);
    println!("the daemon shows nothing of a killed process after {} ms", killed.elapsed().as_millis());
    assert_eq!(held(&metrics, other.pid(), 0), others);
    let region = dump_region(&board.regions()[0]);
    let slot = slot_of(&region, victim.pid()).unwrap();
    for (memory_type, bytes) in MEMORY_TYPES.into_iter().zip(victims) {
        assert_eq!(slot[memory_type].as_f64(), Some(bytes), "tt-metal cleans up by itself: {region}");
    }

    // The other goes on, and its changes do not bring the dead one back.
    let more = alloc(&mut other, "b", "dram", "[32, 32]");
    let metrics = wait_for_held(&daemon, other.pid(), 0, [others[0] + more, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(held(&metrics, victim.pid(), 0), [0.0; 5]);
}

#[test]
fn a_process_is_known_by_name_user_and_source() {
    let (daemon, board) = (daemon(), Board::n150());
    let mut process = board.open();
    let bytes = alloc(&mut process, "a", "dram", "[1024, 1024]");
    assert_eq!(bytes, f64::from(2 << 20), "two bytes for each number");
    let metrics = wait_for_held(&daemon, process.pid(), 0, [bytes, 0.0, 0.0, 0.0, 0.0]);
    let pid = process.pid().to_string();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let name = "python:ttnn_workload.py";
    let labels = [("pid", pid.as_str()), ("process", name), ("user", user.trim()), ("source", "shm")];
    assert_eq!(metrics.value("ttmem_process_info", &labels), Some(1.0), "{}", metrics.text);

    let server = format!("http://{}", daemon.http());
    let status = |options: &[&str]| {
        let output = ttmem().args(["status", "--server", &server]).args(options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = status(&[]);
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(&pid));
    let row = row.unwrap_or_else(|| panic!("{table}"));
    assert!(row.contains("2.0 MiB") && row.contains(user.trim()) && row.contains(name), "{row}");
    let json: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    let processes = json["processes"].as_array().unwrap();
    let shown = processes.iter().find(|shown| shown["pid"] == process.pid()).unwrap();
    assert_eq!((&shown["source"], &shown["device_usage_bytes"]), (&"shm".into(), &(2 << 20).into()));
}

#[test]
fn a_daemon_that_may_not_read_the_region_says_what_to_do() {
    let board = Board::n150();
    let mut process = board.open();
    alloc(&mut process, "a", "dram", "[64, 64]");
    let region = &board.regions()[0];
    assert_eq!(fs::metadata(region).unwrap().permissions().mode() & 0o777, 0o600, "tt-metal's own choice");

    let directory = Directory::new();
    let program = if rustix::process::geteuid().is_root() {
        // Another user must be able to start the program and to make a socket beside it.
        let program = directory.join("ttmem");
        copy_ttmem(&program);
        chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let mut command = Command::new("setpriv");
        let nobody = NOBODY.to_string();
        command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]).arg(program);
        command
    } else {
        // Only root can be somebody else; taking the owner's own permission away comes to the same.
        fs::set_permissions(region, fs::Permissions::from_mode(0o000)).unwrap();
        ttmem()
    };
    let daemon = Daemon::launch(program, directory, Path::new(SHM), &[]);
    let about_it =
        |daemon: &Daemon| daemon.log().into_iter().find(|line| line["path"].as_str() == region.to_str());
    let line = support::wait_for("a line about the region", || about_it(&daemon));
    let error = line["error"].as_str().unwrap();
    assert_eq!(line["level"], "WARN");
    assert!(
        error.contains("Permission denied") && error.contains("run the daemon as that user or as root"),
        "{error}"
    );
    // It goes on, without that process.
    let metrics = daemon.metrics();
    assert_eq!(held(&metrics, process.pid(), 0), [0.0; 5]);
    assert!(metrics.rejected("region") >= 1.0);
}

/// ttnn publishes totals of its buffers, not the buffers: so the script itself reports what ttnn gave it.
#[test]
fn a_run_is_a_trace_that_carries_the_sizes_and_the_order_of_the_script() {
    let board = Board::n150();
    let mut sink = Collector::start();
    let rotel = Rotel::start(&sink);
    let endpoint = format!("http://127.0.0.1:{}", rotel.http);
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-batch-delay-ms", "50", "--device", "0=n150"];
    let every = ["--span-size-min-bytes", "0", "--span-lifetime-min-ms", "0"];
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let daemon = Daemon::start_in(directory, &[&flags[..], &every].concat());
    let mut script = board.open();
    script.ask(&format!(r#"{{"op":"report","path":"{}"}}"#, daemon.socket().display()));
    let pid = script.pid();

    let mut expected = Vec::new();
    let mut run = |script: &mut Peer, command: &str, memory: &str| {
        let made = script.ask(command);
        let (size, address) = (made["bytes"].as_u64().unwrap(), made["address"].as_u64().unwrap());
        expected.push((format!("buffer {memory}"), size, format!("{address:#x}")));
        // The daemon takes its own time when it reads a report: read together, two would have begun together.
        daemon.wait_for_metrics("the buffer", |metrics| metrics.events("alloc") == expected.len() as f64);
    };
    run(&mut script, r#"{"op":"alloc","name":"weights","memory":"dram","shape":[2048,2048]}"#, "dram");
    run(&mut script, r#"{"op":"alloc","name":"left","memory":"l1","shape":[512,512]}"#, "l1");
    run(&mut script, r#"{"op":"alloc","name":"right","memory":"l1","shape":[512,512]}"#, "l1");
    run(&mut script, r#"{"op":"add","left":"left","right":"right","name":"sum"}"#, "l1");
    free(&mut script, "left");
    free(&mut script, "right");
    run(&mut script, r#"{"op":"alloc","name":"halo","memory":"l1_small","shape":[64,32]}"#, "l1_small");
    let refused = script.ask(r#"{"op":"oom"}"#);
    free(&mut script, "sum");
    free(&mut script, "halo");
    script.finish();

    let received = process_ended(&mut sink);
    let all = spans(&received);
    let root = all.iter().find(|span| span.name.starts_with("process ")).unwrap();
    assert_eq!(root.number("process.pid"), u64::from(pid));
    let mut buffers: Vec<_> = all.iter().filter(|span| span.name.starts_with("buffer ")).collect();
    buffers.sort_by_key(|span| span.start_ns);
    let told = buffers.iter().map(|span| {
        let id = span.attributes["tenstorrent.buffer.id"].clone();
        (span.name.clone(), span.number("tenstorrent.buffer.size"), id)
    });
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let ended =
        |name: &str| buffers.iter().filter(|span| span.attributes["tenstorrent.buffer.end"] == name).count();
    assert_eq!((ended("freed"), ended("process_exit")), (4, 1), "the script forgot its weights");
    let figures = &root.event("allocation failed").attributes;
    let words = refused["out_of_memory"].as_str().unwrap();
    assert!(
        words.contains(&format!("allocate {} B L1 buffer", figures["tenstorrent.memory.requested"])),
        "{words}"
    );
    assert_eq!((root.status.as_str(), figures["tenstorrent.reason"].as_str()), ("ERROR", "exhausted"));

    if std::env::var_os("DRAW_TRACE").is_some() {
        let requests = daemon.directory().join("requests.json");
        fs::write(&requests, serde_json::to_vec(&received.0).unwrap()).unwrap();
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/trace.svg");
        let draw = peers().join("draw_trace.py");
        let status = Command::new("python3").arg(draw).arg(&requests).arg(picture).status().unwrap();
        assert!(status.success());
    }
}
