//! `ttmem soak`: a seed's worth of processes, faults and restarts, in which nothing is lost; and that it would notice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use support::{Directory, ttmem, wait_for};

/// About two minutes of a debug build on a busy machine; all that can happen has happened many times by then.
const OPERATIONS: &str = "2500";
/// What follows from the seed, and not from how fast the machine is.
const PLANNED: [&str; 5] =
    ["operations", "reports", "processes", "faults injected and survived", "bad inputs"];

fn soak(directory: &Directory, arguments: &[&str]) -> Command {
    let mut command = ttmem();
    command.arg("soak").args(arguments).env("TMPDIR", directory.path()).current_dir(directory.path());
    command
}

#[track_caller]
fn table(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a row of the table says.
fn row<'a>(table: &'a str, name: &str) -> &'a str {
    table
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix("  "))
        .unwrap_or_else(|| panic!("{table}"))
        .trim()
}

#[test]
fn nothing_is_lost_and_nothing_is_left() {
    let directory = Directory::new();
    let arguments =
        ["--seed", "7", "--operations", OPERATIONS, "--report", "report.json", "--chart", "chart.svg"];
    let table = table(&soak(&directory, &arguments).output().unwrap());
    assert_eq!(
        ["operations", "buffers lost", "ghosts left"].map(|name| row(&table, name)),
        [OPERATIONS, "0", "0"]
    );
    for name in
        ["comparisons with the model", "scrapes meanwhile, each added up", "  daemon killed", "bad inputs"]
    {
        assert!(row(&table, name).parse::<u64>().unwrap() > 10, "{name}\n{table}");
    }
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["ghosts"], 0);
    assert!(report["daemon_death_to_exact_totals_milliseconds"]["p99"].as_f64().unwrap() > 0.0);
    assert!(fs::read_to_string(directory.join("chart.svg")).unwrap().contains("<polyline"));
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_seed_does_the_same_again() {
    let directory = Directory::new();
    let planned = || {
        let table = table(&soak(&directory, &["--seed", "11", "--operations", "200"]).output().unwrap());
        PLANNED.map(|name| row(&table, name).to_owned())
    };
    assert_eq!(planned(), planned());
}

#[test]
fn what_nobody_planned_is_noticed_and_told_with_the_seed() {
    let directory = Directory::new();
    let mut child = soak(&directory, &["--seed", "5", "--operations", "1000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let socket = directory.join(&format!("ttmem-soak-{}", child.id())).join("socket");
    let mut intruder = wait_for("the daemon's socket", || UnixStream::connect(&socket).ok());
    intruder.write_all(&[0xff; 144]).unwrap();
    wait_for("the difference to be seen", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in ["rejected as unknown_type: ", "ttmem: seed 5, after ", "the daemon's log is "] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}
