//! The rings and the client library against the real daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use support::reporter::{self, Reporter};
use support::{Daemon, Metrics, wait_for};

fn ring_connections(metrics: &Metrics) -> f64 {
    metrics.sum("ttmem_client_connections", &[("transport", "ring")])
}

fn lost(metrics: &Metrics, reason: &str) -> f64 {
    metrics.value("ttmem_events_lost_total", &[("reason", reason)]).unwrap()
}

/// Starts a reporter that has gone over to rings.
fn start_with_rings(daemon: &Daemon, options: &str) -> Reporter {
    let before = ring_connections(&daemon.metrics());
    let mut reporter = Reporter::start(&daemon.socket(), options);
    assert_eq!(reporter.ask("allocate 9 1 1 1"), "done");
    reporter.flush();
    daemon.wait_for_metrics("the rings", |metrics| ring_connections(metrics) == before + 1.0);
    reporter
}

#[test]
fn a_reporter_answers() {
    reporter::serve_if_asked();
    let daemon = Daemon::start(&[]);
    let mut reporter = Reporter::start(&daemon.socket(), "");
    assert_eq!(reporter.ask("allocate 0 1 10 100"), "done");
    reporter.flush();
    assert_eq!(daemon.metrics().usage(0, "dram"), Some(1000.0));
    reporter.finish();
    daemon.wait_for_metrics("the end", |metrics| metrics.usage(0, "dram") == Some(0.0));
}

#[test]
fn rings_and_frames_come_to_the_same() {
    let texts: Vec<String> = ["", "frames"]
        .into_iter()
        .map(|options| {
            let daemon = Daemon::start(&[]);
            let mut reporter = if options.is_empty() {
                start_with_rings(&daemon, options)
            } else {
                let mut reporter = Reporter::start(&daemon.socket(), options);
                assert_eq!(reporter.ask("allocate 9 1 1 1"), "done");
                reporter
            };
            assert_eq!(reporter.ask("all_kinds"), "done");
            assert_eq!(reporter.ask("allocate 0 1 5000 4096"), "done");
            assert_eq!(reporter.ask("free 0 1 4000"), "done");
            reporter.flush();
            let metrics = daemon.metrics();
            metrics.assert_adds_up();
            assert_eq!(metrics.usage(0, "dram"), Some(4096.0 * 1000.0), "{options}");
            assert_eq!(metrics.process_usage(reporter.pid(), 1, "cb"), Some(36.0));
            assert_eq!(metrics.usage(1, "kernel"), Some(24.0));
            let failures = [("device", "1"), ("memory_type", "l1"), ("reason", "fragmented")];
            assert_eq!(metrics.value("ttmem_device_allocation_failures_total", &failures), Some(1.0));
            let is_about_devices = |line: &&str| {
                line.starts_with("ttmem_device_") && !line.contains("timestamp") && !line.contains("lifetime")
                    || line.starts_with("ttmem_events_total")
                        && !line.contains("hello")
                        && !line.contains("query")
            };
            metrics.text.lines().filter(is_about_devices).collect::<Vec<_>>().join("\n")
        })
        .collect();
    assert!(texts[0].contains("ttmem_events_total{kind=\"alloc\"}"), "{}", texts[0]);
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn where_no_rings_are_granted_reports_come_in_frames() {
    let daemon = Daemon::start(&["--ring-memory-max-bytes", "0"]);
    let mut reporter = Reporter::start(&daemon.socket(), "");
    assert_eq!(reporter.ask("allocate 0 1 5000 10"), "done");
    reporter.flush();
    let metrics = daemon.metrics();
    assert_eq!((ring_connections(&metrics), metrics.usage(0, "dram")), (0.0, Some(50_000.0)));
    let refused = metrics.value("ttmem_ring_refusals_total", &[("reason", "off")]);
    assert_eq!((refused, metrics.value("ttmem_ring_memory_bytes", &[])), (Some(1.0), Some(0.0)));
}

#[test]
fn what_one_thread_allocates_another_may_free() {
    for options in ["", "records=64", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        assert_eq!(reporter.ask("handover 4 5000"), "done");
        reporter.flush();
        let metrics = daemon.metrics();
        assert_eq!(metrics.rejected("unknown_free"), 0.0, "{options}");
        assert_eq!(
            (lost(&metrics, "free"), lost(&metrics, "ring"), lost(&metrics, "client")),
            (0.0, 0.0, 0.0)
        );
        assert_eq!(metrics.usage(0, "dram"), Some(0.0), "{options}");
    }
}

#[test]
fn more_threads_than_rings_lose_nothing() {
    let daemon = Daemon::start(&[]);
    let mut reporter = start_with_rings(&daemon, "records=64");
    assert_eq!(reporter.ask("threads 80 500"), "done");
    reporter.flush();
    let metrics = daemon.metrics();
    assert_eq!(
        (lost(&metrics, "ring"), lost(&metrics, "client"), metrics.rejected("unknown_free")),
        (0.0, 0.0, 0.0)
    );
    assert_eq!(metrics.usage(0, "l1"), Some(80.0 * 8.0));
}

#[test]
fn a_daemon_that_was_started_again_hears_everything() {
    for options in ["", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        assert_eq!(reporter.ask("all_kinds"), "done");
        assert_eq!(reporter.ask("allocate 0 1 3000 10"), "done");
        reporter.flush();
        let before = daemon.metrics();
        let directory = daemon.kill();
        // Nobody hears this when it is said.
        assert_eq!(reporter.ask("free 0 1 1000"), "done");
        assert_eq!(reporter.ask("allocate 0 10000 7 100"), "done");
        let daemon = Daemon::start_in(directory, &[]);
        reporter.flush();
        let metrics = daemon.metrics();
        metrics.assert_adds_up();
        assert_eq!(metrics.usage(0, "dram"), Some(2000.0 * 10.0 + 700.0), "{options}");
        for memory_type in ["dram", "l1", "l1_small", "trace", "system_memory", "cb", "kernel"] {
            assert_eq!(metrics.usage(1, memory_type), before.usage(1, memory_type), "{memory_type}");
        }
        assert_eq!(reporter.ask("free 1 0 1"), "done");
        reporter.flush();
        let dram = daemon.metrics().usage(1, "dram");
        assert_eq!(dram, Some(1000.0), "it was referenced twice, and is freed once");
        assert_eq!(reporter.ask("free 1 0 1"), "done");
        reporter.flush();
        assert_eq!(daemon.metrics().usage(1, "dram"), Some(0.0));
    }
}

#[test]
fn a_killed_writer_leaves_all_that_it_has_published() {
    const THREADS: usize = 3;
    let daemon = Daemon::start(&["--process-linger-seconds", "1"]);
    let progress = daemon.directory().join("progress");
    let reports = |metrics: &Metrics| metrics.events("alloc") + metrics.events("free");
    for round in 0..60_u64 {
        std::fs::write(&progress, [0; 64 * THREADS]).unwrap();
        let words = support::mapped::words(&progress);
        let made = || {
            (0..THREADS)
                .map(|thread| words[8 * thread].load(std::sync::atomic::Ordering::Relaxed))
                .sum::<u64>()
        };
        let mut reporter = start_with_rings(&daemon, if round % 2 == 0 { "" } else { "records=64" });
        let before = reports(&daemon.metrics());
        reporter.say(&format!("churn {THREADS} {}", progress.display()));
        assert_eq!(reporter.line(), "churning");
        // Anywhere: it runs on while this process looks.
        wait_for("reports", || (made() > 1 + round * 37).then_some(()));
        reporter.kill();
        let made = made();
        let metrics = daemon.wait_for_metrics("the end", |metrics| {
            metrics.value("ttmem_events_total", &[("kind", "process_end")]) == Some(round as f64 + 1.0)
        });
        let heard = reports(&metrics) - before;
        let most = (made + THREADS as u64) as f64;
        assert!((made as f64..=most).contains(&heard), "round {round}: made {made}, heard {heard}");
        assert_eq!((metrics.usage(0, "dram"), metrics.rejected("unknown_free")), (Some(0.0), 0.0));
    }
}

#[test]
fn a_daemon_that_stands_still_holds_nobody_up() {
    for options in ["records=64", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        assert_eq!(reporter.ask("allocate 0 1 10 1"), "done");
        reporter.flush();
        daemon.freeze();
        // Far more than any ring, queue or socket holds.
        assert_eq!(reporter.ask("allocate 0 1000 20000 10"), "done");
        assert_eq!(reporter.ask("free 0 1 10"), "done");
        assert_eq!(reporter.ask("free 0 1000 19000"), "done");
        daemon.thaw();
        reporter.flush();
        // The old connection's reports lie in the daemon too, and must not count beside the new one's.
        let metrics = daemon.wait_for_metrics("one connection", |metrics| {
            metrics.sum("ttmem_client_connections", &[]) == 1.0
        });
        assert_eq!(metrics.usage(0, "dram"), Some(10_000.0), "{options}");
        assert_eq!((lost(&metrics, "ring"), lost(&metrics, "client")), (0.0, 0.0));
        assert_eq!(reporter.ask("free 0 20000 1000"), "done");
        reporter.flush();
        assert_eq!(daemon.metrics().usage(0, "dram"), Some(0.0), "{options}");
    }
}

#[test]
fn two_clients_of_a_process_are_told_apart_when_they_begin_anew() {
    for options in ["", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        let mut tell = |lines: &[&str]| {
            for line in lines {
                assert_eq!(reporter.ask(line), "done");
            }
            reporter.flush_both();
        };
        // Buffer 500 is reported by both, as by a preloaded library and by the program itself.
        tell(&["allocate 0 1 10 100", "second allocate 0 100 10 10"]);
        tell(&["allocate 0 500 1 7", "second allocate 0 500 1 7", "all_kinds"]);
        assert_eq!(daemon.metrics().usage(0, "dram"), Some(1107.0), "{options}");
        let of_one = daemon.metrics().usage(1, "cb").unwrap();
        tell(&["second all_kinds"]);
        assert_eq!(daemon.metrics().usage(1, "cb"), Some(2.0 * of_one));

        // Both give it up, and begin anew when it goes on: on connections of the same run of the daemon.
        daemon.freeze();
        for line in ["allocate 0 1000 200000 1", "second allocate 0 1000000 200000 1"] {
            assert_eq!(reporter.ask(line), "done");
        }
        for line in ["free 0 1001 199999", "second free 0 1000001 199999"] {
            assert_eq!(reporter.ask(line), "done");
        }
        daemon.thaw();
        reporter.flush_both();
        let metrics = daemon.wait_for_metrics("two connections", |metrics| {
            metrics.sum("ttmem_client_connections", &[]) == 2.0
        });
        assert_eq!(metrics.usage(0, "dram"), Some(1109.0), "{options}");
        assert_eq!(metrics.usage(1, "cb"), Some(2.0 * of_one), "{options}");
        metrics.assert_adds_up();

        let daemon = Daemon::start_in(daemon.kill(), &[]);
        reporter.flush_both();
        let metrics = daemon.metrics();
        assert_eq!(metrics.usage(0, "dram"), Some(1109.0), "{options}: both live sets");
        assert_eq!(metrics.usage(1, "cb"), Some(2.0 * of_one), "{options}");
        assert_eq!(reporter.ask("free 0 500 1"), "done");
        reporter.flush_both();
        assert_eq!(daemon.metrics().usage(0, "dram"), Some(1109.0), "the other has it still");
        assert_eq!(reporter.ask("second free 0 500 1"), "done");
        reporter.flush_both();
        assert_eq!(daemon.metrics().usage(0, "dram"), Some(1102.0), "{options}");
    }
}

#[test]
fn who_does_not_wait_has_its_losses_counted() {
    let daemon = Daemon::start(&[]);
    let mut reporter = start_with_rings(&daemon, "records=64 drop");
    daemon.freeze();
    assert_eq!(reporter.ask("allocate 0 1 1000 1"), "done");
    daemon.thaw();
    reporter.flush();
    let metrics = daemon.metrics();
    let arrived = metrics.events("alloc") - 1.0;
    assert_eq!((arrived, lost(&metrics, "ring")), (64.0, 936.0));
}

#[test]
fn losses_without_a_daemon_are_told_when_there_is_one() {
    let directory = support::Directory::new();
    let mut reporter = Reporter::start(&directory.join("socket"), "records=64 drop frames");
    // The thread that reads the ring cannot keep up with this, on any machine.
    let mut asked = 0;
    let statistics = loop {
        assert_eq!(reporter.ask(&format!("allocate 0 {} 100000 1", asked + 1)), "done");
        asked += 100_000;
        let statistics = reporter.ask("statistics");
        if !statistics.contains(&format!("buffers: {asked},")) {
            break statistics;
        }
    };
    let held: f64 = statistics.split("buffers: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    std::fs::create_dir(directory.join("shm")).unwrap();
    let daemon = Daemon::start_in(directory, &[]);
    reporter.flush();
    let metrics = daemon.wait_for_metrics("the losses", |metrics| lost(metrics, "client") > 0.0);
    assert_eq!(lost(&metrics, "client"), f64::from(asked) - held);
    assert_eq!(metrics.usage(0, "dram"), Some(held));
}

#[test]
fn a_fork_reports_for_itself() {
    for options in ["", "frames"] {
        let daemon = Daemon::start(&[]);
        let mut reporter = Reporter::start(&daemon.socket(), options);
        assert_eq!(reporter.ask("allocate 3 1 10 100"), "done");
        let answer = reporter.ask("fork");
        let (child, is_flushed) = answer.split_once(' ').unwrap();
        assert_eq!(is_flushed, "true");
        let child = child.parse().unwrap();
        reporter.flush();
        let metrics = daemon.metrics();
        assert_eq!(metrics.process_usage(child, 3, "dram"), Some(500.0), "{options}");
        assert_eq!(metrics.process_usage(reporter.pid(), 3, "dram"), Some(1000.0));
        assert_eq!((metrics.rejected("claimed_pid"), metrics.usage(3, "dram")), (0.0, Some(1500.0)));
        // The parent's end ends the child's pipe.
        reporter.kill();
        daemon.wait_for_metrics("both ends", |metrics| metrics.usage(3, "dram") == Some(0.0));
    }
}
