//! A recorded session against the real daemon: what three clients said makes exactly these metrics.
//!
//! `UPDATE_GOLDEN=1 cargo test --test recorded_session` writes the metrics anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use support::{Daemon, exposition};

/// What stands for a value that time or the host decides.
const MASK: &str = "*";

/// Families whose values are times, durations, or about the daemon's own process.
const MASKED_FAMILIES: &[&str] = &[
    "ttmem_device_oldest_buffer_timestamp_seconds",
    "ttmem_config_last_reload_success_timestamp_seconds",
    "ttmem_scrape_duration_seconds",
    "ttmem_buffer_lifetime_seconds_sum",
    "process_",
];

/// Labels whose values the build or the host decides.
const MASKED_LABELS: &[&str] = &["revision", "user"];

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(name)
}

/// The bytes that a line's words stand for.
fn bytes(words: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in words.split_whitespace() {
        if let Some(zeros) = word.strip_prefix("00*") {
            bytes.resize(bytes.len() + zeros.parse::<usize>().unwrap(), 0);
        } else {
            let pairs = (0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16));
            bytes.extend(pairs.map(|byte| byte.unwrap_or_else(|error| panic!("{word:?}: {error}"))));
        }
    }
    bytes
}

/// Plays a session, line by line, and gives its connections, still open.
fn replay(daemon: &Daemon, session: &str) -> HashMap<String, UnixStream> {
    let mut connections: HashMap<String, UnixStream> = HashMap::new();
    for (index, line) in session.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once(' ').unwrap();
        let stream = connections.entry(name.to_owned()).or_insert_with(|| daemon.connect());
        match rest.split_at(2) {
            ("> ", words) => stream.write_all(&bytes(words)).unwrap(),
            ("< ", words) => {
                let expected = bytes(words);
                let mut answer = vec![0; expected.len()];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, expected, "the answer in line {}", index + 1);
            }
            _ => panic!("line {}: {line:?} neither sends nor expects anything", index + 1),
        }
    }
    connections
}

/// The text without what time or the host decides.
fn mask(text: &str) -> String {
    let masked = text.lines().map(|line| {
        if line.starts_with('#') {
            return line.to_owned();
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        // How long a buffer lived decides its bucket; that it is counted is certain.
        let is_lifetime =
            series.starts_with("ttmem_buffer_lifetime_seconds_bucket") && !series.contains("+Inf");
        let is_masked = is_lifetime || MASKED_FAMILIES.iter().any(|family| series.starts_with(family));
        let mut series = series.to_owned();
        for label in MASKED_LABELS {
            let opening = format!("{label}=\"");
            if let Some(start) = series.find(&opening).map(|at| at + opening.len()) {
                let end = start + series[start..].find('"').unwrap();
                series.replace_range(start..end, MASK);
            }
        }
        format!("{series} {}", if is_masked { MASK } else { value })
    });
    masked.map(|line| line + "\n").collect()
}

#[test]
fn a_recorded_session_makes_exactly_these_metrics() {
    let daemon = Daemon::start(&["--trust-claimed-pids", "--device", "0=n150", "--device", "3=p150"]);
    let session = fs::read_to_string(recorded("session.txt")).unwrap();
    let connections = replay(&daemon, &session);
    // What is simulated ends with the session: it is looked at while it lasts.
    let metrics = daemon.metrics();
    assert_eq!(connections.len(), 3);
    drop(connections);
    exposition::read(&metrics.text).unwrap();
    metrics.assert_adds_up();

    let found = mask(&metrics.text);
    let golden = recorded("metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&golden, &found).unwrap();
        return;
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    let missing: Vec<&str> =
        expected.lines().filter(|line| !found.lines().any(|other| other == *line)).collect();
    let surplus: Vec<&str> =
        found.lines().filter(|line| !expected.lines().any(|other| other == *line)).collect();
    assert!(
        found == expected,
        "the metrics differ from {}; if they are as they should be, run this again with UPDATE_GOLDEN=1\n\
         expected, but not there:\n{}\nthere, but not expected:\n{}\n(if both are empty, the order differs)",
        golden.display(),
        missing.join("\n"),
        surplus.join("\n"),
    );
}
