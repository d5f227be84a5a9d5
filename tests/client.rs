//! The client library in programs that have troubles of their own: it neither blocks nor fails them, and what the daemon knows is exact.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;

use support::frames::Connection;
use support::raw_rings::{hello, receive};
use support::reporter::{self, Reporter};
use support::{Daemon, Directory, Metrics, wait_for};

/// What each child of the reporter holds in the end: half of twenty buffers of a size that tells which child it is.
const CHILD_BUFFERS_LEFT: u64 = 10;
const CHILD_SIZE: u64 = 1000;

fn lost(metrics: &Metrics) -> f64 {
    metrics.sum("ttmem_events_lost_total", &[])
}

#[test]
fn a_reporter_answers() {
    reporter::serve_if_asked();
}

/// Clients that come and go one after the other.
const VISITS: u32 = 200;

#[test]
fn a_client_that_is_dropped_leaves_nothing_behind_whatever_the_daemon_does() {
    for options in ["records=64", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        assert_eq!(reporter.ask("visit 1000"), "done");
        let visited = daemon
            .wait_for_metrics("the visitor's reports", |metrics| metrics.usage(5, "l1") == Some(1000.0));
        assert_eq!(lost(&visited), 0.0, "{options}");
        // Whatever the client's thread is just doing when the client is dropped.
        for _ in 0..VISITS {
            assert_eq!(reporter.ask("visit 100"), "done");
        }
        let reports = 1000.0 + 100.0 * f64::from(VISITS);
        daemon.wait_for_metrics("all visitors' reports", |metrics| metrics.events("alloc") == reports);
        daemon.freeze();
        assert_eq!(reporter.ask("visit 1000"), "done", "a daemon that stands still holds nobody up");
        daemon.thaw();
        let directory = daemon.kill();
        assert_eq!(reporter.ask("visit 1000"), "done", "nor does one that is not there");
        drop(directory);
        assert_eq!(reporter.ask("visit 1000"), "done");
    }
}

#[test]
fn a_socket_that_is_none_is_looked_at_again() {
    let directory = Directory::new();
    std::fs::create_dir_all(directory.join("socket/not-empty")).unwrap();
    std::fs::create_dir(directory.join("shm")).unwrap();
    let mut reporter = Reporter::start(&directory.join("socket"), "");
    assert_eq!(reporter.ask("allocate 0 1 1000 10"), "done");
    assert_eq!(reporter.ask("flush_briefly"), "false");
    assert!(reporter.ask("statistics").contains("allocated_bytes: 10000"));
    std::fs::remove_dir_all(directory.join("socket")).unwrap();
    let daemon = Daemon::start_in(directory, &[]);
    reporter.flush();
    assert_eq!(daemon.metrics().usage(0, "dram"), Some(10_000.0));
    assert_eq!(lost(&daemon.metrics()), 0.0);
}

#[test]
fn a_daemon_with_a_full_queue_of_connections_holds_nobody_up() {
    let directory = Directory::new();
    let socket = directory.join("socket");
    // Nobody accepts, and there is room for hardly anybody.
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&socket).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut reporter = Reporter::start(&socket, "records=64");
    // Many times what the rings hold: only the client's own thread can have made room.
    assert_eq!(reporter.ask("allocate 0 1 100000 1"), "done");
    assert!(reporter.ask("statistics").contains("buffers: 100000"));
    drop((listener, waiting));
    std::fs::remove_file(&socket).unwrap();
    std::fs::create_dir(directory.join("shm")).unwrap();
    let daemon = Daemon::start_in(directory, &[]);
    reporter.flush();
    let metrics = daemon.metrics();
    assert_eq!((metrics.usage(0, "dram"), lost(&metrics)), (Some(100_000.0), 0.0));
}

#[test]
fn reports_without_a_descriptor_are_counted_and_later_ones_arrive() {
    let daemon = Daemon::start(&[]);
    let mut reporter = Reporter::start(&daemon.socket(), "");
    assert_eq!(reporter.ask("descriptors 0"), "done");
    assert_eq!(reporter.ask("allocate 0 1 10 100"), "done");
    assert_eq!(reporter.ask("statistics"), "[]");
    assert_eq!(reporter.ask("descriptors all"), "done");
    assert_eq!(reporter.ask("allocate 0 100 5 1"), "done");
    reporter.flush();
    let metrics = daemon.wait_for_metrics("the loss", |metrics| lost(metrics) > 0.0);
    assert_eq!((metrics.usage(0, "dram"), lost(&metrics)), (Some(5.0), 10.0));
}

#[test]
fn rings_that_cannot_be_taken_are_done_without() {
    // One descriptor to wake the thread, one for the socket, and none for the rings.
    let daemon = Daemon::start(&[]);
    let mut reporter = Reporter::start(&daemon.socket(), "");
    assert_eq!(reporter.ask("descriptors 2"), "done");
    assert_eq!(reporter.ask("allocate 0 1 1000 10"), "done");
    assert_eq!(reporter.ask("free 0 1 500"), "done");
    reporter.flush();
    let metrics = daemon.metrics();
    assert_eq!((metrics.usage(0, "dram"), lost(&metrics)), (Some(5000.0), 0.0));
    let rings = |metrics: &Metrics| metrics.sum("ttmem_client_connections", &[("transport", "ring")]);
    assert_eq!(rings(&metrics), 0.0);

    // The daemon has no memory for them: what this user may have is taken.
    let _hoard: Vec<Connection> = (0..6)
        .map(|_| {
            let mut connection = Connection::open(&daemon, 144);
            connection.send(&[hello(0, 1, 64, 65_536)]);
            receive(&connection.stream);
            connection
        })
        .collect();
    let mut reporter = Reporter::start(&daemon.socket(), "records=65536");
    assert_eq!(reporter.ask("allocate 1 1 1000 10"), "done");
    reporter.flush();
    let metrics = daemon.metrics();
    assert_eq!((metrics.usage(1, "dram"), lost(&metrics), rings(&metrics)), (Some(10_000.0), 0.0, 0.0));
}

#[test]
fn reports_out_of_destructors_and_exit_handlers_arrive() {
    for options in ["", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        assert_eq!(reporter.ask("at_thread_end 50"), "done");
        reporter.flush();
        let metrics = daemon.metrics();
        assert_eq!((metrics.usage(0, "dram"), lost(&metrics)), (Some(50.0 * 3.0 * 16.0), 0.0), "{options}");
        assert_eq!(reporter.ask("at_exit"), "done");
        reporter.finish();
        let metrics = daemon.wait_for_metrics("the end", |metrics| metrics.usage(0, "dram") == Some(0.0));
        assert_eq!((metrics.events("alloc"), metrics.events("free")), (250.0, 1.0), "{options}");
        assert_eq!(metrics.sum("ttmem_device_orphaned_buffers_total", &[("device", "6")]), 99.0);
    }
}

/// What children say who are all there, and what each holds in the end.
fn check_children(daemon: &Daemon, reporter: &mut Reporter, count: u64, parents: f64) {
    let mut lines: Vec<String> = (0..=count).map(|_| reporter.line()).collect();
    lines.retain(|line| line != "done");
    let children: BTreeSet<u32> = lines.iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(children.len() as u64, count);
    let sizes: u64 = (0..count).map(|number| CHILD_BUFFERS_LEFT * (CHILD_SIZE + number)).sum();
    let metrics = daemon
        .wait_for_metrics("everything", |metrics| metrics.usage(1, "dram") == Some(parents + sizes as f64));
    metrics.assert_adds_up();
    let held: BTreeSet<u64> =
        children.iter().map(|child| metrics.process_usage(*child, 1, "dram").unwrap() as u64).collect();
    let expected = (0..count).map(|number| CHILD_BUFFERS_LEFT * (CHILD_SIZE + number));
    assert_eq!(held, expected.collect(), "each child's reports are its own");
    assert_eq!(metrics.process_usage(reporter.pid(), 1, "dram").unwrap_or(0.0), parents);
    // A client that finds no processor for long gives its connection up, in the middle of a frame too, and begins anew: nothing else.
    let rejected = ["claimed_pid", "unknown_free", "process_ended"].map(|reason| metrics.rejected(reason));
    assert_eq!((rejected, lost(&metrics)), ([0.0; 3], 0.0), "{}", metrics.text);

    // The parent's end ends the pipe that its children live by.
    reporter.kill();
    let metrics = daemon.wait_for_metrics("all ends", |metrics| {
        metrics.events("process_end") == count as f64 + 1.0 && metrics.usage(1, "dram") == Some(0.0)
    });
    let orphaned =
        metrics.value("ttmem_device_orphaned_bytes_total", &[("device", "1"), ("memory_type", "dram")]);
    assert_eq!(orphaned, Some(parents + sizes as f64));
}

#[test]
fn a_hundred_children_that_share_their_parents_socket_are_told_apart() {
    let daemon = Daemon::start(&[]);
    let mut reporter = Reporter::start(&daemon.socket(), "");
    reporter.say("bomb 100");
    check_children(&daemon, &mut reporter, 100, 5000.0);
}

#[test]
fn a_hundred_forks_amid_the_reports_of_many_threads_begin_anew() {
    for options in ["records=64", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        reporter.say("storm 4 100");
        check_children(&daemon, &mut reporter, 100, 0.0);
        let metrics = daemon.metrics();
        assert_eq!(metrics.usage(0, "l1"), Some(0.0), "{options}");
    }
}

#[test]
fn a_trace_is_told_to_every_daemon_and_only_a_valid_one() {
    let (one, other) = ("4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c");
    let traceparent = |trace_id: &str| format!("00-{trace_id}-00f067aa0ba902b7-01");
    let trace_of = |daemon: &Daemon, reporter: &Reporter| {
        let told = daemon.json(&format!("/api/v1/processes?pid={}", reporter.pid()));
        told["processes"][0]["trace_id"].clone()
    };
    for options in ["", "frames"] {
        let mut daemon = Daemon::start(&[]);
        let mut reporter = Reporter::with_environment(
            &daemon.socket(),
            options,
            &[("TRACEPARENT", traceparent(one).as_str())],
        );
        for _ in 0..2 {
            assert_eq!(reporter.ask("allocate 0 1 10 1"), "done");
            reporter.flush();
            assert_eq!(trace_of(&daemon, &reporter), one, "{options}");
            assert_eq!(reporter.ask(&format!("trace {}", traceparent(one))), "done");
            daemon = Daemon::start_in(daemon.kill(), &[]);
            reporter.flush();
        }
        assert_eq!(daemon.metrics().rejected("trace_context"), 0.0);

        let daemon = Daemon::start(&[]);
        let invalid = [("TRACEPARENT", "00-nothing")];
        let mut reporter = Reporter::with_environment(&daemon.socket(), options, &invalid);
        assert_eq!(reporter.ask("allocate 0 1 10 1"), "done");
        reporter.flush();
        let own = trace_of(&daemon, &reporter);
        assert!(own != one && own != other, "{own}");
        assert_eq!(reporter.ask(&format!("trace {}", traceparent(other))), "done");
        reporter.flush();
        wait_for("the trace", || (trace_of(&daemon, &reporter) == other).then_some(()));
        assert_eq!(daemon.metrics().rejected("trace_context"), 0.0);
    }
}
