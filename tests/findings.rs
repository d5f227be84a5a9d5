//! What the analysis says, as a person, a script and another program ask for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::{Daemon, Peer, ttmem};

const GIB: u64 = 1 << 30;

/// A daemon with an N150 that holds 8 GiB and has held 10, and a device of which nothing is known.
fn daemon_with_memory() -> (Daemon, Peer) {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut client = Peer::field_client(&daemon, "metal");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":2147483648,"id":1,"count":5}"#);
    client.ask(r#"{"op":"free","id":1}"#);
    client.ask(r#"{"op":"allocate","device":7,"type":"dram","size":4096,"id":9}"#);
    client.ask(r#"{"op":"query","device":0}"#);
    (daemon, client)
}

fn ask(daemon: &Daemon, arguments: &[&str]) -> Output {
    let server = format!("http://{}", daemon.http());
    ttmem().arg("fits").args(arguments).args(["--server", &server]).output().unwrap()
}

#[test]
fn what_fits_now_and_at_the_peak_is_told_for_each_device() {
    let (daemon, _client) = daemon_with_memory();
    let answer = daemon.json(&format!("/api/v1/fits?size_bytes={}&memory_type=dram", 3 * GIB));
    assert_eq!((&answer["size_bytes"], &answer["memory_type"]), (&json!(3 * GIB), &json!("dram")));
    assert!(answer["peak_since_timestamp_seconds"].as_f64() <= answer["timestamp_seconds"].as_f64());
    let capacity = 12 * 1_072_603_072_u64;
    // Of each of twelve banks the same number of pages of 2 KiB.
    let needed = (3 * GIB / 2048).div_ceil(12) * 12 * 2048;
    let [n150, unknown] = &answer["devices"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!(
        *n150,
        json!({"device": 0, "board": "n150", "needed_bytes": needed, "free_bytes": capacity - 8 * GIB,
               "free_at_peak_bytes": capacity - 10 * GIB, "now": "fits", "at_peak": "full"})
    );
    assert_eq!(
        *unknown,
        json!({"device": 7, "needed_bytes": 3 * GIB, "now": "unknown", "at_peak": "unknown"})
    );
    let one = daemon.json("/api/v1/fits?size_bytes=1&memory_type=l1&device=0");
    assert_eq!(one["devices"][0]["now"], "fits");
}

#[test]
fn a_script_learns_it_from_the_exit_code() {
    let (daemon, _client) = daemon_with_memory();
    let fits = ask(&daemon, &["3GiB"]);
    let table = String::from_utf8(fits.stdout).unwrap();
    assert_eq!(fits.status.code(), Some(0), "{table}");
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["0", "n150", "3.0", "GiB", "4.0", "GiB", "2.0", "GiB", "fits", "full"]);
    let full = ask(&daemon, &["6GiB", "dram", "--device", "0"]);
    assert_eq!(full.status.code(), Some(1));
    assert_eq!(String::from_utf8(full.stderr).unwrap(), "ttmem: 6.0 GiB of dram fit on no device now\n");
    let json = ask(&daemon, &["3GiB", "--json"]);
    let answer: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(answer["devices"].as_array().unwrap().len(), 2);
    for wrong in ["6G", "-", "0"] {
        let output = ask(&daemon, &["--", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("6GiB"), "{wrong}");
    }
    let output = ask(&daemon, &["1GiB", "vram"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("vram"));
}

#[test]
fn questions_that_are_not_understood_are_refused_with_the_remedy() {
    let daemon = Daemon::start(&[]);
    for (path, remedy) in [
        ("/api/v1/fits", "size_bytes is missing"),
        ("/api/v1/fits?size_bytes=6GiB", "a number of bytes"),
        ("/api/v1/fits?size_bytes=1&memory_type=vram", "dram"),
        ("/api/v1/fits?size_bytes=1&devcie=0", "size_bytes, memory_type and device"),
        ("/api/v1/leaks?pid=1", "takes none"),
    ] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.body.contains(remedy), "{path}: {}", answer.body);
    }
}

#[test]
fn nothing_leaks_where_nothing_grows() {
    let (daemon, _client) = daemon_with_memory();
    let answer = daemon.json("/api/v1/leaks");
    assert_eq!(answer["leaks"], json!([]));
    assert!(answer["timestamp_seconds"].as_f64().unwrap() > 1e9);
    let metrics = daemon.metrics();
    assert_eq!(metrics.values("ttmem_process_leak_score", &[]), Vec::<f64>::new());
}
