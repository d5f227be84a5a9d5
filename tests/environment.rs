//! What the daemon does when the machine has not what it needs: it says so, goes on with what is there, and is whole again afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::process::Command;
use std::time::Instant;

use support::frames::{Connection, Frame};
use support::{Daemon, Directory, peers, ttmem, wait_for};

/// The clock of /proc, in ticks a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time that the daemon has taken.
fn processor_seconds(daemon: &Daemon) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_SECOND
}

/// The daemon, started by another program.
fn daemon_by(program: &str, arguments: &[&str]) -> Daemon {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg(ttmem().get_program());
    let shm = directory.join("shm");
    Daemon::launch(command, directory, &shm, &[])
}

#[test]
fn out_of_files_it_serves_those_that_it_has() {
    const FILES: usize = 100;
    let daemon = daemon_by("prlimit", &[&format!("--nofile={FILES}:{FILES}")]);
    let mut first = Connection::open(&daemon, 144);
    first.send(&[Frame::alloc(0, 4096, 1)]);
    assert_eq!(first.query(0).dram(), 4096);
    let mut scraper = support::Peer::unconnected(&daemon);
    scraper.ask(r#"{"op":"connect","client":"metal"}"#);
    let surplus: Vec<Connection> = (0..FILES).map(|_| Connection::open(&daemon, 144)).collect();
    daemon.wait_for_log("cannot take a connection; raise the limit of open files (LimitNOFILE)");
    // It looks again and again, but rests in between: nothing like all of a processor is taken.
    let (start, spent) = (Instant::now(), processor_seconds(&daemon));
    for id in 2..200 {
        first.send(&[Frame::alloc(0, 4096, id)]);
        assert_eq!(first.query(0).dram(), 4096 * id, "who is served is served as before");
    }
    wait_for("a second", || (start.elapsed().as_secs_f64() > 1.0).then_some(()));
    let share = (processor_seconds(&daemon) - spent) / start.elapsed().as_secs_f64();
    assert!(share < 0.5, "{share} of a processor");
    drop(surplus);
    wait_for("room for a new client", || {
        let mut late = Connection::open(&daemon, 144);
        (late.query(0).dram() == 4096 * 199).then_some(())
    });
    let metrics = daemon.wait_for_metrics("a scrape", |metrics| metrics.usage(0, "dram").is_some());
    metrics.assert_adds_up();
    assert!(metrics.value("ttmem_events_lost_total", &[("reason", "connection")]).unwrap() > 0.0);
    let told = daemon.log().iter().filter(|line| line["level"] == "WARN").count();
    assert!(told < 20, "{told} lines");
}

#[test]
fn without_proc_it_knows_less_and_counts_all() {
    assert!(rustix::process::getuid().is_root(), "only root can hide /proc");
    let hide = r#"mount -t tmpfs none /proc && exec "$0" "$@""#;
    let daemon = daemon_by("unshare", &["--mount", "sh", "-c", hide]);
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    assert_eq!(client.query(0).dram(), 4096);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(
        metrics.process_usage(std::process::id(), 0, "dram"),
        Some(4096.0),
        "the kernel says who it is"
    );
    let name = metrics.values("ttmem_process_info", &[("process", "unknown")]);
    assert_eq!(name, [1.0]);
}

#[test]
fn a_directory_in_which_anybody_may_replace_the_socket_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let check = |mode: u32, is_named: bool| {
        let directory = Directory::new();
        fs::create_dir(directory.join("shm")).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let daemon = Daemon::start_in(directory, &[]);
        let named =
            daemon.log().into_iter().any(|line| line["directory"] == daemon.directory().to_str().unwrap());
        assert_eq!(named, is_named, "{mode:o}");
    };
    check(0o777, true);
    check(0o1777, false);
    check(0o755, false);
}

const DAY_SECONDS: i64 = 86_400;

/// A daemon whose time of day the test can set, by the file that it is given; seconds ahead of the real one.
fn daemon_with_a_clock() -> (Daemon, impl Fn(i64)) {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let (library, clock) = (directory.join("set_clock.so"), directory.join("clock"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(peers().join("set_clock.c"))
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(compiled.success());
    fs::write(&clock, 0_i64.to_le_bytes()).unwrap();
    let mut command = ttmem();
    command.env("LD_PRELOAD", &library).env("SET_CLOCK", &clock);
    let shm = directory.join("shm");
    let daemon = Daemon::launch(command, directory, &shm, &[]);
    let file = fs::OpenOptions::new().write(true).open(daemon.directory().join("clock")).unwrap();
    let set = move |seconds: i64| {
        use std::os::unix::fs::FileExt;
        file.write_all_at(&seconds.to_le_bytes(), 0).unwrap();
    };
    (daemon, set)
}

#[test]
fn a_clock_that_is_set_moves_time_stamps_and_nothing_else() {
    let (daemon, set_clock) = daemon_with_a_clock();
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1), Frame::alloc(0, 4096, 2)]);
    assert_eq!(client.query(0).dram(), 2 * 4096);
    let oldest = |labels: &[(&str, &str)]| {
        daemon.metrics().value("ttmem_device_oldest_buffer_timestamp_seconds", labels).unwrap()
    };
    let dram = [("device", "0"), ("memory_type", "dram")];
    let before = oldest(&dram);
    for ahead in [400 * DAY_SECONDS, -300 * DAY_SECONDS, 0] {
        set_clock(ahead);
        let moved = oldest(&dram) - before;
        assert!(
            (moved - ahead as f64).abs() < 1.0,
            "the oldest buffer is as old as before: {moved} for {ahead}"
        );
        let buffer = &daemon.json("/api/v1/buffers")["buffers"][0];
        let age = buffer["age_seconds"].as_f64().unwrap();
        assert!((0.0..60.0).contains(&age), "{age} s for {ahead}");
        // What is allocated and freed meanwhile has lived for an instant.
        client.send(&[Frame::alloc(0, 4096, 3), Frame::free(0, 3)]);
        assert_eq!(client.query(0).dram(), 2 * 4096);
        daemon.metrics().assert_adds_up();
    }
    let metrics = daemon.metrics();
    let lived = metrics.value("ttmem_buffer_lifetime_seconds_sum", &dram).unwrap();
    assert!(lived < 60.0, "{lived} s");
    assert_eq!(metrics.value("ttmem_buffer_lifetime_seconds_count", &dram), Some(3.0));
    assert_eq!(
        metrics.process_usage(std::process::id(), 0, "dram"),
        Some(2.0 * 4096.0),
        "nobody was retired"
    );
}
