//! What the daemon has given up when it serves its first client, and that it says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::os::unix::net::UnixStream;

use support::frames::{Connection, Frame};
use support::{Daemon, Directory, Metrics, ttmem};

/// Capabilities by their bits, of those that a daemon run by root keeps: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER and
/// NET_BIND_SERVICE.
const KEPT_CAPABILITIES: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 10;
const LAYERS: [&str; 4] = ["no_new_privileges", "capabilities", "landlock", "seccomp"];

/// A field of every thread's status.
fn of_threads(daemon: &Daemon, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let statuses = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    statuses
        .map(|status| {
            let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            value.trim().to_owned()
        })
        .collect()
}

fn active(metrics: &Metrics) -> [f64; 4] {
    LAYERS.map(|layer| metrics.value("ttmem_sandbox_active", &[("layer", layer)]).unwrap())
}

#[test]
fn every_thread_has_given_up_what_is_of_no_use() {
    let daemon = Daemon::start(&[]);
    Connection::open(&daemon, 144).query(0);
    assert!(of_threads(&daemon, "NoNewPrivs:").iter().all(|value| value == "1"));
    assert!(of_threads(&daemon, "Seccomp:").iter().all(|value| value == "2"), "a filter");
    for field in ["CapPrm:", "CapEff:", "CapBnd:"] {
        let sets = of_threads(&daemon, field);
        let useless = |set: &String| u64::from_str_radix(set, 16).unwrap() & !KEPT_CAPABILITIES;
        assert!(sets.iter().all(|set| useless(set) == 0), "{field} {sets:?}");
    }
    for field in ["CapInh:", "CapAmb:"] {
        assert!(of_threads(&daemon, field).iter().all(|set| u64::from_str_radix(set, 16) == Ok(0)));
    }
    assert_eq!(active(&daemon.metrics()), [1.0; 4]);
    assert_eq!(daemon.wait_for_log("sandboxed")["layers"], LAYERS.join(" "));
}

#[test]
fn what_it_makes_it_can_take_away_again() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let page = directory.join("page");
    let listen = format!("unix:{}", page.display());
    let mut daemon = Daemon::start_in(directory, &["--listen", "127.0.0.1:0", "--listen", &listen]);
    UnixStream::connect(&page).unwrap();
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    assert_eq!(client.query(0).dram(), 4096);
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let left: Vec<_> =
        fs::read_dir(daemon.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "shm" || name == "log"), "{left:?}");
}

#[test]
fn less_or_nothing_is_given_up_where_that_is_asked_for() {
    let daemon = Daemon::start(&["--sandbox", "calls"]);
    assert_eq!(active(&daemon.metrics()), [1.0, 1.0, 0.0, 1.0]);
    let daemon = Daemon::start(&["--sandbox", "off"]);
    assert_eq!(active(&daemon.metrics()), [0.0; 4]);
    assert!(of_threads(&daemon, "Seccomp:").iter().all(|value| value == "0"));
    daemon.wait_for_log("the sandbox is off: whoever takes over the daemon can do all that its user can");
}

#[test]
fn a_user_without_privileges_needs_none_for_it() {
    assert!(rustix::process::getuid().is_root(), "only root can start the daemon as another user");
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    std::os::unix::fs::chown(directory.path(), Some(65_534), Some(65_534)).unwrap();
    let mut program = std::process::Command::new("setpriv");
    program.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(ttmem().get_program());
    let shm = directory.join("shm");
    let daemon = Daemon::launch(program, directory, &shm, &[]);
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    assert_eq!(client.query(0).dram(), 4096);
    let metrics = daemon.metrics();
    assert_eq!(active(&metrics), [1.0; 4]);
    assert_eq!(
        metrics.process_usage(std::process::id(), 0, "dram"),
        Some(4096.0),
        "root's process is seen as well"
    );
    assert!(of_threads(&daemon, "CapEff:").iter().all(|set| u64::from_str_radix(set, 16) == Ok(0)));
}

#[test]
fn what_settings_need_is_left_and_nothing_beside() {
    // Another process's environment can only be read outside of Landlock; the demonstration starts programs.
    let daemon = Daemon::start(&["--process-environment"]);
    assert_eq!(active(&daemon.metrics()), [1.0, 1.0, 0.0, 1.0]);
    let daemon = Daemon::start(&["--demo"]);
    assert_eq!(active(&daemon.metrics()), [0.0; 4]);
    let daemon = Daemon::start(&["--demo", "--process-environment"]);
    assert_eq!(active(&daemon.metrics()), [0.0; 4]);
    daemon.wait_for_metrics("what the demonstration allocates", |metrics| metrics.events("alloc") > 0.0);
}
