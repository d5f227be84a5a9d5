//! What becomes of the state where the disk is full or may not be written: the daemon serves on, exactly, and says that it will forget.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::process::Command;

use support::frames::{Connection, Frame};
use support::{Daemon, Directory, ttmem};

/// What is said where no journal can be begun, and where one cannot go on.
const FORGETS: &str = "nothing is remembered beyond this daemon's end";
const GIVES_UP: &str =
    "no journal is kept any more; what is known will be lost when the daemon ends (see --state-dir)";
/// More than the file system has room for, in buffers that stay.
const BUFFERS: u64 = 40_000;
const BUFFER_BYTES: u64 = 4096;

/// A daemon whose state lies on a file system of its own, which is mounted with these options.
fn daemon_on(options: &str) -> Daemon {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    fs::create_dir(directory.join("state")).unwrap();
    let (state, shm) = (directory.join("state"), directory.join("shm"));
    // Only the daemon sees the file system, which goes with it.
    let script = r#"mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$0" "$@""#;
    let mut program = Command::new("unshare");
    let own = ttmem();
    for (name, value) in own.get_envs().filter(|(_, value)| value.is_none()) {
        assert!(value.is_none());
        program.env_remove(name);
    }
    program.args(["--mount", "sh", "-c", script]).arg(own.get_program()).arg(options).arg(&state);
    Daemon::launch(
        program,
        directory,
        &shm,
        &["--state-journal-bytes-max", "16777216", "--state-dir", state.to_str().unwrap()],
    )
}

/// The program under test, with a disk that takes its time: to give room to a file, and to say that something is on it.
fn on_a_slow_disk(trace: &std::path::Path) -> Command {
    let own = ttmem();
    let mut program = Command::new("strace");
    for (name, value) in own.get_envs().filter(|(_, value)| value.is_none()) {
        assert!(value.is_none());
        program.env_remove(name);
    }
    // The daemon is this process's child, and strace the daemon's.
    program.args(["-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fdatasync,fallocate"]);
    program.args(["-e", "inject=fdatasync:delay_enter=5000000", "-e", "inject=fallocate:delay_enter=20000"]);
    program.arg("-o").arg(trace).arg(own.get_program());
    program
}

/// More than the journal has room for while a checkpoint is made.
const MANY_BUFFERS: u64 = 150_000;

#[test]
fn a_slow_disk_delays_nobody_until_the_journal_is_full_and_loses_nothing() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let (state, shm) = (Directory::new(), directory.join("shm"));
    let arguments = ["--state-journal-bytes-max", "16777216", "--state-dir", state.path().to_str().unwrap()];
    let program = on_a_slow_disk(&directory.join("trace"));
    let mut daemon = Daemon::launch(program, directory, &shm, &arguments);
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, BUFFER_BYTES, 1)]);
    assert_eq!(client.query(0).dram(), BUFFER_BYTES);
    let made = |daemon: &Daemon| {
        daemon.metrics().value("ttmem_state_checkpoint_timestamp_seconds", &[]).unwrap() > 0.0
    };
    assert!(!made(&daemon), "the first checkpoint is still on its way to the disk");
    let frames: Vec<Frame> = (2..=MANY_BUFFERS).map(|id| Frame::alloc(0, BUFFER_BYTES, id)).collect();
    client.send(&frames);
    assert_eq!(client.query(0).dram(), MANY_BUFFERS * BUFFER_BYTES);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.value("ttmem_state_kept", &[]), Some(1.0), "slow is not broken");
    assert!(made(&daemon));
    daemon.signal(rustix::process::Signal::KILL);
    daemon.wait();
    let again = Daemon::start(&arguments);
    assert_eq!(again.metrics().events("alloc"), MANY_BUFFERS as f64);
    assert_eq!(again.metrics().usage(0, "dram"), Some((MANY_BUFFERS * BUFFER_BYTES) as f64));
}

#[track_caller]
fn serves_exactly(daemon: &Daemon) {
    let mut client = Connection::open(daemon, 144);
    let frames: Vec<Frame> = (1..=BUFFERS).map(|id| Frame::alloc(0, BUFFER_BYTES, id)).collect();
    client.send(&frames);
    assert_eq!(client.query(0).dram(), BUFFERS * BUFFER_BYTES);
    let metrics = daemon.metrics();
    assert_eq!(metrics.value("ttmem_state_kept", &[]), Some(0.0));
    assert_eq!(metrics.events("alloc"), BUFFERS as f64);
    metrics.assert_adds_up();
}

#[test]
fn a_disk_that_fills_up_costs_the_state_and_nothing_else() {
    let daemon = daemon_on("size=4m");
    assert_eq!(daemon.metrics().value("ttmem_state_kept", &[]), Some(1.0));
    serves_exactly(&daemon);
    let said = daemon.wait_for_log(GIVES_UP);
    assert!(said["error"].as_str().unwrap().contains("No space left"), "{said}");
}

#[test]
fn a_disk_that_is_full_or_may_not_be_written_is_named_at_the_start() {
    for (options, reason) in [("size=4k", "No space left"), ("ro", "Read-only file system")] {
        let daemon = daemon_on(options);
        let said = daemon.wait_for_log(FORGETS);
        assert!(said["error"].as_str().unwrap().contains(reason), "{options}: {said}");
        serves_exactly(&daemon);
    }
}
