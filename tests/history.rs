//! The past: what a daemon keeps in its directory for state, and what it tells of it, checked with sqlite3's own tool.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;
use support::frames::{ALLOCATION_FAILED, Connection, Frame};
use support::reporter::{Reporter, serve_if_asked};
use support::{Daemon, Directory, ttmem, wait_for};

const MIB: u64 = 1 << 20;

fn start(arguments: &[&str]) -> Daemon {
    Daemon::start(&[&["--state-dir", "state"], arguments].concat())
}

fn start_in(directory: Directory, arguments: &[&str]) -> Daemon {
    fs::create_dir_all(directory.join("shm")).unwrap();
    Daemon::start_in(directory, &[&["--state-dir", "state"], arguments].concat())
}

/// Ends a daemon in order.
fn stop(mut daemon: Daemon) -> Directory {
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    daemon.kill()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What sqlite3 answers about the database in a directory.
fn sqlite3(directory: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3").arg(directory.join("state/history.db")).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn events(daemon: &Daemon, query: &str) -> Vec<Value> {
    daemon.json(&format!("/api/v1/events?{query}"))["events"].as_array().unwrap().clone()
}

fn wait_for_event(daemon: &Daemon, kind: &str) -> Value {
    wait_for(kind, || {
        // The database may not be there yet.
        let response = daemon.get(&format!("/api/v1/events?kind={kind}"));
        let answer: Value = serde_json::from_str(&response.body).ok()?;
        answer["events"].as_array()?.first().cloned()
    })
}

/// The points of the first series, once there are some that are no gaps.
fn points(daemon: &Daemon, query: &str, count: usize) -> Vec<[f64; 3]> {
    wait_for("points", || {
        let response = daemon.get(&format!("/api/v1/range?step=1&{query}"));
        let answer: Value = serde_json::from_str(&response.body).ok()?;
        let points = answer["results"].get(0)?["points"].as_array()?.clone();
        let points: Vec<[f64; 3]> =
            points.into_iter().filter_map(|point| serde_json::from_value(point).ok()).collect();
        (points.len() >= count).then_some(points)
    })
}

#[test]
fn what_was_is_told_with_its_peak() {
    let daemon = start(&["--device", "0=n150"]);
    points(&daemon, "device=0&memory_type=dram", 1);
    let mut client = Connection::open(&daemon, 72);
    // A peak that no sample can have seen: it is over before the answer.
    client.send(&[Frame::alloc(0, 5 * MIB, 1), Frame::alloc(0, 20 * MIB, 2), Frame::free(0, 2)]);
    client.query(0);
    let held = wait_for("the peak", || {
        let points = points(&daemon, "device=0&memory_type=dram", 1);
        points.into_iter().find(|point| point[2] == (25 * MIB) as f64)
    });
    assert_eq!(held, [(5 * MIB) as f64, (5 * MIB) as f64, (25 * MIB) as f64]);
    let pid = std::process::id();
    let of_process = wait_for("the process", || {
        let answer = daemon.json(&format!("/api/v1/range?pid={pid}&step=1&series=buffers"));
        answer["results"].get(0).cloned()
    });
    assert_eq!((&of_process["pid"], &of_process["memory_type"]), (&pid.into(), &"dram".into()));
    let rates = points(&daemon, "device=0&memory_type=dram&series=allocated_bytes", 2);
    let most = rates.iter().map(|point| point[2]).fold(0.0, f64::max);
    // The rate of one sample, which is about a second long.
    assert!((0.5..1.5).contains(&(most / (25 * MIB) as f64)), "{most}");
    let metrics = daemon.wait_for_metrics("written samples", |metrics| {
        metrics.values("ttmem_history_samples_total", &[("tier", "1s")])[0] > 0.0
    });
    assert_eq!(metrics.values("ttmem_history_dropped_total", &[]), [0.0; 3]);
    let directory = stop(daemon);
    assert_eq!(sqlite3(directory.path(), "PRAGMA integrity_check"), "ok");
}

#[test]
fn events_tell_who_came_went_and_failed() {
    let daemon = start(&["--device", "0=n150"]);
    assert_eq!(wait_for_event(&daemon, "source_appeared")["figures"]["source"], "product_table");
    let mut reporter = Reporter::start(&daemon.socket(), "");
    let pid = reporter.pid();
    reporter.ask("allocate 0 1 1 4096");
    reporter.flush();
    reporter.kill();
    let ended = wait_for_event(&daemon, "process_ended");
    assert_eq!(ended["pid"], pid);
    let exit = ended["figures"]["exit"].as_str().unwrap();
    assert!(["signal 9", "unknown"].contains(&exit), "{exit}");
    let orphaned = wait_for_event(&daemon, "memory_orphaned");
    assert_eq!((&orphaned["figures"]["bytes"], &orphaned["device"]), (&4096.into(), &0.into()));
    let mut client = Connection::open(&daemon, 72);
    let failed = Frame {
        kind: ALLOCATION_FAILED,
        size: 9 * MIB,
        buffer_id: 3 * MIB,
        timestamp: 12 * MIB,
        ..Frame::default()
    };
    client.send(&[failed, failed]);
    client.query(0);
    let failure = wait_for_event(&daemon, "out_of_memory");
    let figures = &failure["figures"];
    assert_eq!((&figures["reason"], &figures["count"]), (&"fragmented".into(), &2.into()));
    assert_eq!(figures["requested_bytes"], 9 * MIB);
    // Pages, one event each, have all of them once and in order.
    let all = events(&daemon, "limit=1000");
    let (mut paged, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = daemon.json(&format!("/api/v1/events?limit=1&after={after}"));
        paged.extend(page["events"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(paged[..all.len()], all);
    let newest = events(&daemon, "limit=1&order=newest");
    assert_eq!(newest[0], *paged.last().unwrap());
    assert_eq!(events(&daemon, &format!("kind=process_ended&pid={pid}")).len(), 1);
}

#[test]
fn a_killed_daemon_leaves_a_sound_database_and_a_gap() {
    let mut directory = None;
    for round in 0..3 {
        let daemon = match directory.take() {
            None => start(&["--device", "0=n150"]),
            Some(directory) => start_in(directory, &["--device", "0=n150"]),
        };
        // What is written goes on all the time.
        let _demo = Connection::open(&daemon, 72);
        daemon.wait_for_metrics("two samples", |metrics| {
            metrics.values("ttmem_history_samples_total", &[("tier", "1s")])[0] >= 8.0
        });
        let starts = events(&daemon, "kind=daemon_started");
        assert_eq!(starts.len(), round + 1);
        if round > 0 {
            assert_eq!(starts[round]["figures"]["previous_stopped"], false);
        }
        let left = daemon.kill();
        assert_eq!(sqlite3(left.path(), "PRAGMA integrity_check"), "ok");
        directory = Some(left);
    }
    let told = Command::new(env!("CARGO_BIN_EXE_ttmem"))
        .args([
            "history",
            "--step",
            "1",
            "--format",
            "jsonl",
            "--since",
            "5m",
            "--memory-type",
            "dram",
            "--state-dir",
        ])
        .arg(directory.unwrap().join("state"))
        .output()
        .unwrap();
    let rows = String::from_utf8(told.stdout).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.iter().filter(|row| row["mean"] == 0.0).count() >= 6, "{rows:?}");
    assert!(rows.iter().any(|row| row["mean"].is_null()));
}

#[test]
fn a_kill_in_the_middle_of_a_write_breaks_nothing() {
    const PROCESSES: i32 = 400;
    let mut directory = None;
    let mut last_ms = 0;
    for round in 0..6 {
        let arguments = ["--device", "0=n150", "--trust-claimed-pids"];
        let daemon = match directory.take() {
            None => start(&arguments),
            Some(directory) => start_in(directory, &arguments),
        };
        let mut client = Connection::open(&daemon, 72);
        let held = (1..=PROCESSES).map(|pid| Frame { process_id: pid, ..Frame::alloc(0, MIB, round + 1) });
        client.send(&held.collect::<Vec<_>>());
        client.query(0);
        daemon.wait_for_metrics("samples of every process", |metrics| {
            let tier = [("tier", "1s")];
            metrics.values("ttmem_history_samples_total", &tier)[0] >= f64::from(2 * PROCESSES)
        });
        // The log grows page by page, a moment before what it holds counts: this is as near to the middle as one can see from outside.
        let log = daemon.directory().join("state/history.db-wal");
        let size = || fs::metadata(&log).map_or(0, |file| file.len());
        let before = size();
        wait_for("a write", || (size() != before).then_some(()));
        let left = daemon.kill();
        assert_eq!(sqlite3(left.path(), "PRAGMA integrity_check"), "ok");
        let torn = "SELECT count(*) FROM spans_1s AS span WHERE NOT EXISTS (SELECT 1 FROM samples_1s AS sample \
                    WHERE sample.id BETWEEN span.seq << 28 AND ((span.seq + 1) << 28) - 1)";
        assert_eq!(
            sqlite3(left.path(), torn),
            "0",
            "a time span is written with all that is in it, or not at all"
        );
        let latest_ms: u64 = sqlite3(left.path(), "SELECT max(unix_ms) FROM spans_1s").parse().unwrap();
        assert!(latest_ms > last_ms, "round {round} has left nothing");
        last_ms = latest_ms;
        directory = Some(left);
    }
}

#[test]
fn a_database_that_cannot_be_used_is_set_aside() {
    let check = |make: &dyn Fn(&Path)| {
        let directory = Directory::new();
        fs::create_dir(directory.join("state")).unwrap();
        make(&directory.join("state/history.db"));
        let before = fs::read(directory.join("state/history.db")).unwrap();
        let daemon = start_in(directory, &["--device", "0=n150"]);
        points(&daemon, "device=0&memory_type=dram", 1);
        let line = daemon.wait_for_log("the history cannot be used; it was set aside under this name");
        let aside = fs::read(daemon.directory().join(line["file"].as_str().unwrap())).unwrap();
        assert!(aside == before, "it is kept as it was");
        daemon.wait_for_metrics("the error", |metrics| {
            metrics.values("ttmem_history_errors_total", &[("reason", "unusable")]) == [1.0]
        });
        assert_eq!(sqlite3(daemon.directory(), "PRAGMA integrity_check"), "ok");
    };
    check(&|path| fs::write(path, b"this is no database, and long enough to be one".repeat(100)).unwrap());
    check(&|path| {
        let made =
            Command::new("sqlite3").arg(path).arg("CREATE TABLE t (x); PRAGMA user_version = 99").status();
        assert!(made.unwrap().success());
    });
}

#[test]
fn a_file_of_the_first_version_is_brought_to_this_one() {
    let directory = Directory::new();
    fs::create_dir(directory.join("state")).unwrap();
    let sql = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/history-v1.sql");
    sqlite3(directory.path(), &format!(".read {sql}"));
    assert_eq!(sqlite3(directory.path(), "PRAGMA user_version"), "1");
    let daemon = start_in(directory, &["--device", "0=n150", "--history-keep-1s-seconds", "315360000"]);
    wait_for_event(&daemon, "source_appeared");
    let recorded = daemon.json("/api/v1/range?start=1795000000&end=1795000004&step=1&device=3");
    assert_eq!(recorded["results"][0]["points"].to_string(), "[[100,150,200],null,[300,300,300],null]");
    let first = &events(&daemon, "limit=1")[0];
    assert_eq!((&first["kind"], &first["figures"]["version"]), (&"daemon_started".into(), &"0.0.9".into()));
    let directory = stop(daemon);
    assert_eq!(sqlite3(directory.path(), "PRAGMA user_version"), "2");
    let indices = sqlite3(directory.path(), "SELECT name FROM sqlite_schema WHERE type = 'index'");
    let indices: BTreeSet<_> = indices.lines().collect();
    assert!(indices.contains("events_by_kind") && indices.contains("events_by_process"), "{indices:?}");
}

#[test]
fn a_full_disk_stops_nothing_and_is_waited_for() {
    assert!(rustix::process::geteuid().is_root(), "this mounts a small disk: run it as root");
    let directory = Directory::new();
    fs::create_dir(directory.join("state")).unwrap();
    let disk = directory.join("state");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(&disk).status();
    assert!(mounted.unwrap().success());
    let _unmount = Unmount(disk.clone());
    let daemon = start_in(directory, &["--device", "0=n150"]);
    points(&daemon, "device=0&memory_type=dram", 1);
    // Fails when nothing is left, and leaves all of it full.
    let _ = fs::write(disk.join("ballast"), vec![1; 1 << 20]);
    let refused = || {
        daemon.metrics().values("ttmem_history_errors_total", &[("reason", "full")])[0]
            + daemon.metrics().values("ttmem_history_errors_total", &[("reason", "other")])[0]
    };
    wait_for("a write that fails", || (refused() > 0.0).then_some(()));
    daemon.wait_for_log("the history cannot be written; trying again");
    fs::remove_file(disk.join("ballast")).unwrap();
    let last = daemon.metrics().values("ttmem_history_last_write_timestamp_seconds", &[])[0];
    daemon.wait_for_metrics("a write that works again", |metrics| {
        metrics.values("ttmem_history_last_write_timestamp_seconds", &[])[0] > last
    });
    assert_eq!(daemon.metrics().values("ttmem_history_dropped_total", &[]), [0.0; 3], "it waited");
    assert_eq!(sqlite3(daemon.directory(), "PRAGMA integrity_check"), "ok");
    drop(stop(daemon));
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn without_a_directory_the_answer_names_the_setting() {
    let daemon = Daemon::start(&[]);
    for path in ["/api/v1/range", "/api/v1/events"] {
        let response = daemon.get(path);
        assert_eq!(
            (response.status, response.header("content-type")),
            (404, Some("application/problem+json"))
        );
        assert!(response.body.contains("--state-dir"), "{}", response.body);
    }
    let url = format!("http://{}", daemon.http());
    let told = ttmem().args(["history", "--server", &url]).output().unwrap();
    assert!(String::from_utf8(told.stderr).unwrap().contains("start the daemon with --state-dir"));
    let response = daemon.get("/api/v1/range?step=0");
    assert_eq!(response.status, 400);
}

#[test]
fn exports_are_as_recorded() {
    let directory = Directory::new();
    fs::create_dir(directory.join("state")).unwrap();
    let sql = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/history-v1.sql");
    sqlite3(directory.path(), &format!(".read {sql}"));
    let told = |arguments: &[&str]| {
        let output = ttmem()
            .current_dir(directory.path())
            .args(["history", "--state-dir", "state", "--since", "1795000000", "--until", "1795000004"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        told(&["--format", "csv", "--by", "process"]),
        "time,device,memory_type,pid,process,series,min,mean,max\n\
         2026-11-18T11:06:40Z,3,dram,77,\"a,b\",memory_usage,,,\n\
         2026-11-18T11:06:41Z,3,dram,77,\"a,b\",memory_usage,,,\n\
         2026-11-18T11:06:42Z,3,dram,77,\"a,b\",memory_usage,300,300,300\n\
         2026-11-18T11:06:43Z,3,dram,77,\"a,b\",memory_usage,,,\n"
    );
    assert_eq!(
        told(&["--device", "3"]),
        "TIME                  DEVICE  MEMORY         PROCESS                          MIN        MEAN         MAX\n\
         2026-11-18T11:06:40Z  3       dram           all                            100 B       150 B       200 B\n\
         2026-11-18T11:06:41Z  3       dram           all                       nothing is known until 2026-11-18T11:06:42Z\n\
         2026-11-18T11:06:42Z  3       dram           all                            300 B       300 B       300 B\n\
         2026-11-18T11:06:43Z  3       dram           all                       nothing is known until 2026-11-18T11:06:44Z\n"
    );
    assert_eq!(
        told(&["--events", "--format", "jsonl"]),
        "{\"id\":1,\"timestamp_seconds\":1795000000.5,\"kind\":\"daemon_started\",\"figures\":{\"version\":\"0.0.9\"}}\n"
    );
    assert!(now() > 1_795_000_004.0);
}

#[test]
fn a_reporter_answers() {
    serve_if_asked();
}
