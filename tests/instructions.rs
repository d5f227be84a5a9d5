//! The gate: no hot path may take noticeably more instructions than it did when its figure was committed.
//!
//! Instructions repeat where times do not, whatever else the machine does. Each path is run under callgrind with two numbers of rounds,
//! and the difference, divided by how often the path was gone in between, has no start of the program in it.
//!
//! `UPDATE_GOLDEN=1 tests/run instructions` writes the figures anew: read what has changed, and say why in the commit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// How far a count may be from its figure. Repetitions are within 0.3 %: hash seeds differ from run to run, and with them how often a
/// table is looked at twice. The rest is room for what does no harm; ten per cent more fail.
const TOLERANCE: f64 = 0.03;
/// Few enough that a path takes about a second under callgrind, many enough that the difference is nothing but the path.
const ROUNDS: [u32; 2] = [20, 60];

#[test]
fn hot_paths_take_no_more_instructions_than_committed() {
    let binary = release_binary();
    let names = text(&told(Command::new(&binary).args(["bench", "--paths"])).stdout);
    let counted: Vec<_> = names.lines().map(|path| (path, instructions(&binary, path))).collect();
    assert!(!counted.is_empty());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return fs::write(figures_file(), figures(&counted)).unwrap();
    }
    let committed = fs::read_to_string(figures_file()).unwrap();
    let complaints = complaints(&counted, &committed);
    assert!(
        complaints.is_empty(),
        "{}\nIf this is meant, write the figures anew with `UPDATE_GOLDEN=1 tests/run instructions` and say why in the commit. They \
         are of the release profile, {}; this is {}, and another compiler or processor makes other instructions.",
        complaints.join("\n"),
        committed.lines().find_map(|line| line.strip_prefix(COMPILER)).unwrap_or("an unknown compiler"),
        compiler(),
    );
}

#[test]
fn the_gate_sees_a_slower_path_and_a_stale_figure() {
    #[track_caller]
    fn check(counted: &[(&str, f64)], committed: &str, expected: &[&str]) {
        let complaints = complaints(counted, committed);
        assert_eq!(complaints.len(), expected.len(), "{complaints:?}");
        for (complaint, expected) in complaints.iter().zip(expected) {
            assert!(complaint.contains(expected), "{complaint}");
        }
    }
    let committed = "# compiler: x\nfast 100.0\nslow 200.0\n";
    check(&[("fast", 102.9), ("slow", 194.1)], committed, &[]);
    check(&[("fast", 110.0), ("slow", 200.0)], committed, &["fast takes 110.0 instructions, 10.0 % more"]);
    check(&[("fast", 100.0), ("slow", 180.0)], committed, &["slow takes 180.0 instructions, 10.0 % less"]);
    check(&[("fast", 100.0), ("new", 1.0)], committed, &["new has no figure", "slow is no longer counted"]);
    check(&[("fast", 100.0), ("slow", f64::NAN)], committed, &["slow takes NaN"]);
}

const COMPILER: &str = "# compiler: ";

fn figures_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded/instructions.txt")
}

fn figures(counted: &[(&str, f64)]) -> String {
    let mut text = format!(
        "# Instructions each time a hot path is gone (benches/paths.rs), release profile. Written by\n\
         # UPDATE_GOLDEN=1 tests/run instructions\n{COMPILER}{}\n",
        compiler()
    );
    for (path, instructions) in counted {
        writeln!(text, "{path} {instructions:.1}").unwrap();
    }
    text
}

/// What differs from the committed figures.
fn complaints(counted: &[(&str, f64)], committed: &str) -> Vec<String> {
    let lines = committed.lines().filter(|line| !line.starts_with('#'));
    let committed: Vec<(&str, f64)> = lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(path, instructions)| (path, instructions.parse().unwrap()))
        .collect();
    let of = |figures: &[(&str, f64)], path: &str| {
        figures.iter().find(|(known, _)| *known == path).map(|(_, instructions)| *instructions)
    };
    let changed = counted.iter().filter_map(|(path, now)| {
        let Some(before) = of(&committed, path) else { return Some(format!("{path} has no figure")) };
        let change = (now - before) / before;
        let is_within = change.abs() <= TOLERANCE;
        let (percent, word) = (change.abs() * 100.0, if change < 0.0 { "less" } else { "more" });
        (!is_within).then(|| {
            format!("{path} takes {now:.1} instructions, {percent:.1} % {word} than the {before:.1} that are committed")
        })
    });
    let gone = committed.iter().filter(|(path, _)| of(counted, path).is_none());
    changed.chain(gone.map(|(path, _)| format!("{path} is no longer counted, but has a figure"))).collect()
}

/// The binary as it is shipped. A build for debugging says nothing about speed.
fn release_binary() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--release", "--locked", "--quiet"]);
    told(&mut build);
    let metadata = told(Command::new("cargo").current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "metadata",
        "--no-deps",
        "--format-version=1",
    ]));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    Path::new(metadata["target_directory"].as_str().unwrap()).join("release/ttmem")
}

/// The compiler and what it compiles for.
fn compiler() -> String {
    let version = told(Command::new("rustc").args(["--version", "--verbose"])).stdout;
    let version = String::from_utf8(version).unwrap();
    let field = |name: &str| {
        version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned()
    };
    format!("rustc {} for {}", field("release:"), field("host:"))
}

/// How many instructions it takes to go the path once.
fn instructions(binary: &Path, path: &str) -> f64 {
    let [(few, instructions_of_few), (many, instructions_of_many)] =
        ROUNDS.map(|rounds| count(binary, path, rounds));
    assert!(many > few, "{path} was gone {few} and {many} times");
    instructions_of_many.checked_sub(instructions_of_few).unwrap() as f64 / (many - few) as f64
}

/// How often the path was gone in a run of so many rounds, and the instructions of the whole program.
fn count(binary: &Path, path: &str, rounds: u32) -> (u64, u64) {
    let mut valgrind = Command::new("valgrind");
    // Without a simulated cache nothing but instructions is counted.
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--cache-sim=no"]);
    valgrind.arg(binary).args(["bench", "--path", path, "--path-rounds", &rounds.to_string()]);
    let output = told(&mut valgrind);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : "));
    let (_, instructions) = collected.unwrap_or_else(|| panic!("callgrind has not counted: {stderr}"));
    (stdout.trim().parse().unwrap(), instructions.trim().parse().unwrap())
}

/// Runs a program that must be there and succeed.
fn told(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `tests/run` installs it", program.display()));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
