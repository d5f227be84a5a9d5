//! The Python client as its users have it: the wheel, installed for every Python that it names, against the real daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};
use support::{Daemon, Directory, Peer, installed_peer, peers, ttmem};

const PYTHONS: [&str; 4] = ["3.10", "3.11", "3.12", "3.13"];
/// The interpreter that also has what builds wheels and checks types.
const TOOLS: &str = "3.13";
const FRAME_BYTES: usize = 144;
const DEVICE_INFO_RESPONSE: u8 = 7;
/// Where a reply of that size has the number of devices.
const DEVICES_AT: usize = 124;

fn python(version: &str) -> Command {
    Command::new(installed_peer(&format!("pythons/{version}/bin/python")))
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
    output
}

/// The wheel, built once from a copy of its sources: nothing is left behind in the tree.
fn wheel() -> &'static Path {
    static WHEEL: OnceLock<(Directory, PathBuf)> = OnceLock::new();
    let (_, wheel) = WHEEL.get_or_init(|| {
        let directory = Directory::new();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
        succeeds(Command::new("cp").arg("-r").arg(source).arg(directory.join("source")));
        let mut build = python(TOOLS);
        build.args([
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
        ]);
        succeeds(build.arg(directory.join("wheels")).arg(directory.join("source")));
        let wheel = fs::read_dir(directory.join("wheels")).unwrap().next().unwrap().unwrap().path();
        (directory, wheel)
    });
    wheel
}

/// A directory in which the wheel is installed, for any Python: it is pure.
fn installed() -> Directory {
    let site = Directory::new();
    let mut install = python(TOOLS);
    install.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]);
    succeeds(install.arg(site.path()).arg(wheel()));
    site
}

/// A program that has the client installed.
struct Program {
    peer: Peer,
    _site: Directory,
}

impl Program {
    fn start(version: &str, environment: &[(&str, &str)]) -> Program {
        let site = Directory::new();
        let mut install = python(version);
        install.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target"]);
        succeeds(install.arg(site.path()).arg(wheel()));
        let mut command = python(version);
        command
            .arg(peers().join("python_client.py"))
            .env("PYTHONPATH", site.path())
            .env_remove("TTMEM_SOCKET");
        Program { peer: Peer::start(command.envs(environment.iter().copied())), _site: site }
    }

    fn open(socket: &Path) -> Program {
        let mut program = Program::start("3.12", &[]);
        program.ask(json!({"op": "open", "socket": socket}));
        program
    }

    fn ask(&mut self, command: impl Into<Value>) -> Value {
        let command = command.into();
        self.peer.ask(&command.to_string())
    }

    fn refused(&mut self, command: impl Into<Value>) -> (String, String) {
        let command = command.into();
        let answer = self.peer.ask_anything(&command.to_string());
        assert_eq!(answer["ok"], false, "{command}: {answer}");
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        (text("kind"), text("error"))
    }

    fn pid(&self) -> u32 {
        self.peer.pid()
    }

    /// Everything reported so far has been taken into account.
    fn flush(&mut self) {
        let flushed = self.ask(json!({"op": "flush", "seconds": 10}));
        assert_eq!(flushed["flushed"], true);
    }
}

#[test]
fn every_python_reports_and_asks() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    for version in PYTHONS {
        // The path comes from the environment, as for a program whose code nobody touches.
        let mut program = Program::start(version, &[("TTMEM_SOCKET", daemon.socket().to_str().unwrap())]);
        let opened = program.ask(json!({"op": "open"}));
        assert_eq!(format!("{}.{}", opened["version"][0], opened["version"][1]), version);
        for (memory, size) in
            [("DRAM", 4096), ("L1", 2048), ("L1_SMALL", 32), ("TRACE", 64), ("SYSTEM_MEMORY", 8)]
        {
            program.ask(json!({"op": "allocate", "device": 0, "size": size, "type": memory}));
        }
        program.ask(json!({"op": "allocate", "device": 3, "size": 512, "type": "L1", "id": 7}));
        program.ask(json!({"op": "cb", "device": 0, "size": 1024, "free": false}));
        let totals = program.ask(json!({"op": "query", "device": 0}));
        let figures =
            ["dram", "l1", "l1_small", "trace", "cb"].map(|name| &totals[format!("{name}_allocated")]);
        assert_eq!(figures, [&json!(4096), &json!(2048), &json!(32), &json!(64), &json!(1024)], "{version}");
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        for (device, memory, bytes) in
            [(0, "l1_small", 32.0), (0, "trace", 64.0), (0, "system_memory", 8.0), (3, "l1", 512.0)]
        {
            assert_eq!(
                metrics.process_usage(program.pid(), device, memory),
                Some(bytes),
                "{version} {memory}"
            );
        }
        let info = program.ask(json!({"op": "info", "device": 0}));
        assert_eq!(
            (&info["total_dram_size"], &info["arch_name"]),
            (&json!(12_871_236_864_u64), &json!("Wormhole_B0"))
        );
        // A free says which device, so none is ambiguous; nothing was refused in the whole talk.
        program.ask(json!({"op": "allocate", "device": 0, "size": 100, "type": "L1", "id": 7}));
        program.ask(json!({"op": "deallocate", "id": 7, "device": 3}));
        program.ask(json!({"op": "deallocate", "id": 7}));
        program.ask(json!({"op": "close"}));
        let metrics = daemon.wait_for_metrics("the frees", |metrics| {
            metrics.process_usage(program.pid(), 3, "l1") == Some(0.0)
                && metrics.process_usage(program.pid(), 0, "l1") == Some(2048.0)
        });
        assert_eq!(metrics.sum("ttmem_events_rejected_total", &[]), 0.0, "{}", metrics.text);
    }
}

#[test]
fn a_daemon_that_comes_late_learns_everything_that_lives() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let mut program = Program::open(&directory.join("socket"));
    let kept =
        program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM"}))["id"].clone();
    // Twice the same is one buffer with two references.
    program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM", "id": kept}));
    let freed = program.ask(json!({"op": "allocate", "device": 1, "size": 64, "type": "L1"}))["id"].clone();
    program.ask(json!({"op": "deallocate", "id": freed}));
    let (kind, error) = program.refused(json!({"op": "query", "device": 0}));
    assert_eq!(kind, "ConnectionError");
    assert!(error.contains("socket: the daemon does not answer") && error.contains("ttmem serve"), "{error}");
    assert_eq!(program.ask(json!({"op": "flush", "seconds": 0}))["flushed"], false);

    let daemon = Daemon::start_in(directory, &[]);
    daemon.wait_for_metrics("what was reported before", |metrics| {
        metrics.process_usage(program.pid(), 0, "dram") == Some(4096.0)
    });
    program.ask(json!({"op": "deallocate", "id": kept}));
    assert_eq!(program.ask(json!({"op": "query", "device": 0}))["dram_allocated"], 4096);
    program.ask(json!({"op": "deallocate", "id": kept}));
    assert_eq!(program.ask(json!({"op": "query", "device": 0}))["dram_allocated"], 0);
    assert_eq!(daemon.metrics().sum("ttmem_events_rejected_total", &[]), 0.0);
}

#[test]
fn a_daemon_that_is_killed_and_started_again_is_exact_again() {
    let mut daemon = Daemon::start(&[]);
    let mut program = Program::open(&daemon.socket());
    program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM", "count": 100}));
    program.flush();
    for round in 1..=3 {
        let directory = daemon.kill();
        program.ask(json!({"op": "allocate", "device": 0, "size": 10, "type": "L1", "count": 5}));
        daemon = Daemon::start_in(directory, &[]);
        // The program has nothing more to say: it notices by itself.
        let metrics = daemon.wait_for_metrics("everything that lives", |metrics| {
            metrics.process_usage(program.pid(), 0, "l1") == Some(50.0 * f64::from(round))
        });
        assert_eq!(metrics.process_usage(program.pid(), 0, "dram"), Some(409_600.0));
        metrics.assert_adds_up();
    }
    program.ask(json!({"op": "deallocate", "all": true}));
    program.flush();
    let metrics = daemon.metrics();
    assert_eq!((metrics.usage(0, "dram"), metrics.usage(0, "l1")), (Some(0.0), Some(0.0)));
}

#[test]
fn two_clients_of_a_process_are_both_exact_again() {
    let daemon = Daemon::start(&[]);
    let mut program = Program::open(&daemon.socket());
    program.ask(json!({"op": "open", "socket": daemon.socket()}));
    program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM"}));
    program.ask(json!({"op": "allocate", "device": 0, "size": 100, "type": "DRAM", "client": 1}));
    // Known to both, as to a library and to the program that uses it.
    for client in [0, 1] {
        program.ask(
            json!({"op": "allocate", "device": 0, "size": 7, "type": "DRAM", "id": 9, "client": client}),
        );
    }
    let is_exact = |metrics: &support::Metrics| metrics.usage(0, "dram") == Some(4203.0);
    daemon.wait_for_metrics("both clients", is_exact);
    let daemon = Daemon::start_in(daemon.kill(), &[]);
    daemon.wait_for_metrics("both clients, told anew", |metrics| {
        is_exact(metrics) && metrics.events("hello") == 2.0
    });
    program.ask(json!({"op": "deallocate", "id": 9, "client": 1}));
    program.ask(json!({"op": "allocate", "device": 0, "size": 1, "type": "L1", "client": 1}));
    let metrics = daemon.wait_for_metrics("the free", |metrics| metrics.usage(0, "l1") == Some(1.0));
    assert_eq!(metrics.usage(0, "dram"), Some(4203.0), "the other has it still");
}

#[test]
fn the_trace_of_the_environment_is_told_to_every_daemon() {
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut daemon = Daemon::start(&[]);
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let mut program = Program::start("3.12", &[("TRACEPARENT", &traceparent)]);
    program.ask(json!({"op": "open", "socket": daemon.socket()}));
    program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM"}));
    for _ in 0..2 {
        daemon.wait_for_metrics("the buffer", |metrics| metrics.usage(0, "dram") == Some(4096.0));
        let told = daemon.json(&format!("/api/v1/processes?pid={}", program.pid()));
        assert_eq!(told["processes"][0]["trace_id"], trace_id);
        daemon = Daemon::start_in(daemon.kill(), &[]);
    }
}

#[test]
fn a_daemon_that_stands_still_neither_blocks_nor_loses_what_lives() {
    let daemon = Daemon::start(&[]);
    let mut program = Program::open(&daemon.socket());
    program.flush();
    daemon.freeze();
    // Far more than the socket and the queue hold.
    program.ask(json!({"op": "allocate", "device": 0, "size": 16, "type": "L1", "count": 60_000}));
    daemon.thaw();
    daemon.wait_for_metrics("everything that lives", |metrics| {
        metrics.process_usage(program.pid(), 0, "l1") == Some(960_000.0)
    });
    program.flush();
    let lost = daemon.metrics().value("ttmem_events_lost_total", &[("reason", "client")]);
    assert!(lost.is_some_and(|lost| lost > 0.0), "the reports in between are told as lost: {lost:?}");
}

#[test]
fn threads_share_a_client() {
    let daemon = Daemon::start(&[]);
    let mut program = Program::open(&daemon.socket());
    assert_eq!(program.ask(json!({"op": "threads", "count": 8, "rounds": 500}))["failures"], json!([]));
    program.flush();
    let metrics = daemon.metrics();
    assert_eq!(metrics.usage(0, "l1"), Some(0.0));
    assert_eq!(metrics.value("ttmem_device_allocations_total", &[("memory_type", "l1")]), Some(4000.0));
    assert_eq!(metrics.sum("ttmem_events_rejected_total", &[]), 0.0, "{}", metrics.text);
}

#[test]
fn a_fork_holds_only_what_it_allocates_itself() {
    let daemon = Daemon::start(&[]);
    let mut program = Program::open(&daemon.socket());
    program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM"}));
    program.flush();
    let fork = program.ask(json!({"op": "fork", "size": 77}));
    assert_eq!(fork["told"], "+");
    let child = u32::try_from(fork["child_pid"].as_u64().unwrap()).unwrap();
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(child, 0, "dram"), Some(77.0));
    assert_eq!(metrics.process_usage(program.pid(), 0, "dram"), Some(4096.0));
    program.ask(json!({"op": "end_child"}));
    daemon.wait_for_metrics("the child's end", |metrics| metrics.usage(0, "dram") == Some(4096.0));
    // The parent's own talk has not suffered.
    assert_eq!(program.ask(json!({"op": "query", "device": 0}))["dram_allocated"], 4096);
}

#[test]
fn an_answer_may_come_byte_by_byte() {
    let directory = Directory::new();
    let listener = UnixListener::bind(directory.join("socket")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; FRAME_BYTES];
        stream.read_exact(&mut request).unwrap();
        let mut reply = [0; FRAME_BYTES];
        (reply[0], reply[DEVICES_AT]) = (DEVICE_INFO_RESPONSE, 5);
        for byte in reply {
            stream.write_all(&[byte]).unwrap();
        }
        // Until the client goes.
        let _ = stream.read(&mut request);
    });
    let mut program = Program::open(&directory.join("socket"));
    assert_eq!(program.ask(json!({"op": "devices"}))["devices"], 5);
    program.ask(json!({"op": "close"}));
    server.join().unwrap();
}

#[test]
fn the_trace_that_a_program_runs_in_is_said_before_its_buffers() {
    const HELLO: u8 = 13;
    const TRACE_CONTEXT: u8 = 14;
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let second_frame = |traceparent: &str| {
        let directory = Directory::new();
        let socket = directory.join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut program = Program::start("3.12", &[("TRACEPARENT", traceparent)]);
        program.ask(json!({"op": "open", "socket": socket}));
        program.ask(json!({"op": "allocate", "device": 0, "size": 8, "type": "L1"}));
        let mut frames = [0; 2 * FRAME_BYTES];
        listener.accept().unwrap().0.read_exact(&mut frames).unwrap();
        // Before it comes only who the client is.
        assert_eq!(frames[0], HELLO);
        frames[FRAME_BYTES..].to_vec()
    };
    let frame = second_frame(TRACE);
    let hexadecimal = |range: std::ops::Range<usize>| -> String {
        frame[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    assert_eq!((frame[0], frame[16]), (TRACE_CONTEXT, 1));
    let told = format!("00-{}{}-{}-01", hexadecimal(8..16), hexadecimal(24..32), hexadecimal(32..40));
    assert_eq!(told, TRACE);
    for nonsense in ["", "00-nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
        assert_ne!(second_frame(nonsense)[0], TRACE_CONTEXT, "{nonsense:?}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_an_error_and_not_a_number() {
    let directory = Directory::new();
    let listener = UnixListener::bind(directory.join("socket")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; FRAME_BYTES]).unwrap();
        stream.write_all(&[DEVICE_INFO_RESPONSE; 50]).unwrap();
    });
    let mut program = Program::open(&directory.join("socket"));
    let (kind, error) = program.refused(json!({"op": "devices"}));
    server.join().unwrap();
    assert_eq!(kind, "ConnectionError");
    assert!(error.contains("after 50 of the 144 bytes"), "{error}");
}

#[test]
fn mistakes_are_named() {
    let directory = Directory::new();
    let mut program = Program::open(&directory.join("socket"));
    let mut check = |command: Value, expected: &str| {
        let (kind, error) = program.refused(command);
        assert!(["ValueError", "KeyError"].contains(&kind.as_str()), "{kind}: {error}");
        assert!(error.contains(expected), "{error}");
    };
    check(
        json!({"op": "allocate", "device": 1024, "size": 1, "type": "L1"}),
        "device_id 1024 is not an index from 0 to 1023",
    );
    check(
        json!({"op": "allocate", "device": 0, "size": 0, "type": "L1"}),
        "size 0 is not a number of bytes from 1 to",
    );
    check(
        json!({"op": "allocate", "device": 0, "size": 1, "type": "L1", "id": -1}),
        "buffer_id -1 does not fit",
    );
    check(json!({"op": "deallocate", "id": 9}), "buffer 9 is live on no device");
    check(json!({"op": "cb", "device": 0, "size": 8, "free": true}), "circular buffers of 0 bytes, not of 8");
    for device in [0, 1] {
        program.ask(json!({"op": "allocate", "device": device, "size": 8, "type": "L1", "id": 5}));
    }
    let (_, error) = program.refused(json!({"op": "deallocate", "id": 5}));
    assert_eq!(error, "buffer 5 is live on devices 0, 1: name one");
}

#[test]
fn statistics_need_no_daemon() {
    let directory = Directory::new();
    let mut program = Program::open(&directory.join("socket"));
    for size in [100, 300, 200] {
        program.ask(json!({"op": "allocate", "device": 0, "size": size, "type": "L1", "id": size}));
    }
    program.ask(json!({"op": "deallocate", "id": 300}));
    let told = program.ask(json!({"op": "statistics"}));
    assert_eq!(told["statistics"], json!([[0, "L1", 300, 600, 2, 200]]));
    let printed = program.ask(json!({"op": "watch", "socket": directory.join("socket")}));
    assert_eq!(printed["printed"], "ttmem: device 0 l1                 300 B  peak      600 B  2 buffers\n");
}

/// The daemon knows more of a process than its Python client: here its circular buffers.
#[test]
fn a_watch_shows_all_that_the_process_holds() {
    let mut daemon = Daemon::start(&[]);
    let mut program = Program::open(&daemon.socket());
    program.ask(json!({"op": "allocate", "device": 0, "size": 100, "type": "L1"}));
    program.ask(json!({"op": "cb", "device": 0, "size": 2048, "free": false}));
    program.flush();
    let look = json!({"op": "watch", "socket": daemon.socket()});
    let both = "ttmem: device 0 cb               2.0 KiB  peak    2.0 KiB  1 buffers\n\
                ttmem: device 0 l1                 100 B  peak      100 B  1 buffers\n";
    assert_eq!(program.ask(look.clone())["printed"], both);
    // Without a daemon, what this client has reported itself; with the next one, all of it again.
    let directory = daemon.kill();
    let own = "ttmem: device 0 l1                 100 B  peak      100 B  1 buffers\n";
    assert_eq!(program.ask(look.clone())["printed"], own);
    daemon = Daemon::start_in(directory, &[]);
    daemon.wait_for_metrics("all of it", |metrics| {
        metrics.process_usage(program.pid(), 0, "cb") == Some(2048.0) && metrics.usage(0, "l1") == Some(100.0)
    });
    assert_eq!(program.ask(look)["printed"], both);
}

#[test]
fn a_program_that_closes_nothing_has_told_everything_at_its_end() {
    let daemon = Daemon::start(&[]);
    let site = installed();
    let script = "import ttmem; client = ttmem.AllocationClient()\n\
                  for size in range(1, 1001): client.allocate(0, size, ttmem.BufferType.DRAM)";
    for version in PYTHONS {
        let before = daemon.metrics().events("alloc");
        let mut command = python(version);
        command.args(["-c", script]).env("PYTHONPATH", site.path()).env("TTMEM_SOCKET", daemon.socket());
        succeeds(&mut command);
        let metrics =
            daemon.wait_for_metrics("its reports", |metrics| metrics.events("alloc") == before + 1000.0);
        assert_eq!(metrics.sum("ttmem_events_lost_total", &[]), 0.0, "{version}");
    }
    daemon.wait_for_metrics("the ends", |metrics| {
        metrics.sum("ttmem_device_orphaned_bytes_total", &[]) == 4.0 * 500_500.0
            && metrics.usage(0, "dram") == Some(0.0)
    });
}

#[test]
fn a_monitor_reads_what_the_daemon_shares() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut program = Program::open(&daemon.socket());
    program.ask(json!({"op": "allocate", "device": 0, "size": 4096, "type": "DRAM", "id": 1}));
    program.ask(json!({"op": "allocate", "device": 0, "size": 100, "type": "DRAM", "id": 2}));
    program.ask(json!({"op": "deallocate", "id": 2}));
    program.ask(json!({"op": "cb", "device": 0, "size": 7, "free": false}));
    program.flush();
    let socket = daemon.socket();
    let look = json!({"op": "monitor", "socket": socket});
    let told = program.ask(look.clone());
    let device = &told["devices"][0];
    assert_eq!((&device["board"], &device["arch_name"]), (&json!("n150"), &json!("wormhole_b0")));
    assert_eq!((&device["usage_bytes"]["dram"], &device["usage_bytes"]["cb"]), (&json!(4096), &json!(7)));
    assert_eq!(device["peak_bytes"]["dram"], 4196);
    let limit = [("device", "0"), ("memory_type", "dram")];
    let limit = daemon.metrics().value("ttmem_device_memory_limit_bytes", &limit);
    assert_eq!(device["limit_bytes"]["dram"].as_f64(), limit);
    assert_eq!((&told["device_9"], &told["missing"]), (&Value::Null, &json!(0)));
    let holdings = told["holdings"].as_array().unwrap();
    let dram = holdings.iter().find(|holding| holding["memory_type"] == "dram").unwrap();
    assert_eq!((holdings.len(), &dram["pid"]), (2, &json!(program.pid())));
    let figures = ["usage_bytes", "peak_bytes", "buffers", "allocations", "frees", "freed_bytes"];
    assert_eq!(figures.map(|figure| dram[figure].as_u64().unwrap()), [4096, 4196, 1, 2, 1, 100]);
    assert_eq!((&dram["device_id"], &dram["has_ended"]), (&json!(0), &json!(false)));

    // Nothing is asked again: what changes is seen, and so is the daemon's end.
    program.ask(json!({"op": "allocate", "device": 0, "size": 10, "type": "L1"}));
    program.flush();
    let told = program.ask(look.clone());
    assert_eq!((&told["devices"][0]["usage_bytes"]["l1"], &told["is_connected"]), (&json!(10), &json!(true)));
    let _directory = daemon.kill();
    let told = program.ask(look);
    assert_eq!(
        (&told["devices"][0]["usage_bytes"]["l1"], &told["is_connected"]),
        (&json!(10), &json!(false))
    );
}

#[test]
fn a_monitor_says_why_there_is_nothing_to_read() {
    let directory = Directory::new();
    let socket = directory.join("socket");
    let mut program = Program::open(&socket);
    let look = json!({"op": "monitor", "socket": socket});
    let (kind, error) = program.refused(look.clone());
    assert_eq!(kind, "ConnectionError");
    assert!(error.contains("socket: no stats page to read") && error.contains("ttmem serve"), "{error}");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; FRAME_BYTES]).unwrap();
        // An answer to something else.
        stream.write_all(&[DEVICE_INFO_RESPONSE; FRAME_BYTES]).unwrap();
    });
    let (kind, error) = program.refused(look);
    server.join().unwrap();
    assert_eq!(kind, "ConnectionError");
    assert!(error.contains("it answers something else"), "{error}");
}

#[test]
fn the_wheel_is_typed_and_needs_nothing() {
    let site = installed();
    assert!(site.join("ttmem/py.typed").exists());
    let mut entries = fs::read_dir(site.path()).unwrap().map(|entry| entry.unwrap().path());
    let information = entries.find(|path| path.extension().is_some_and(|extension| extension == "dist-info"));
    let metadata = fs::read_to_string(information.unwrap().join("METADATA")).unwrap();
    assert!(!metadata.contains("Requires-Dist"), "{metadata}");
    assert!(metadata.contains("Requires-Python: >=3.10"), "{metadata}");
    let mut check = python(TOOLS);
    check.args(["-m", "mypy", "--strict", "--python-version", "3.10", "--cache-dir"]).arg(site.join("cache"));
    succeeds(check.arg(site.join("ttmem")));
    let version = String::from_utf8(succeeds(ttmem().arg("--version")).stdout).unwrap();
    let version = version.trim().trim_start_matches("ttmem ").to_owned();
    assert!(
        metadata.contains(&format!("Version: {version}\n")),
        "one version for all: {version}\n{metadata}"
    );
}
