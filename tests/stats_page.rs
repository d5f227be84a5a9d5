//! The stats pages of the real daemon: what they say, who gets which, that nobody can change them, and `ttmem status`, which reads them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::frames::{ALLOC, CB_ALLOC, Connection, FREE, Frame, KERNEL_LOAD};
use support::{Daemon, Peer, peers, ttmem, wait_for};

/// A reader that knows nothing but PROTOCOL.md.
fn reader(daemon: &Daemon, wrapped_in: &[&str]) -> Peer {
    let script = peers().join("stats_page.py");
    let mut words = wrapped_in.iter().map(Path::new).chain([Path::new("python3"), &script]);
    let mut command = Command::new(words.next().unwrap());
    Peer::start(command.args(words).arg("--socket").arg(daemon.socket()))
}

fn read(reader: &mut Peer) -> Value {
    reader.ask(r#"{"op":"read"}"#)
}

/// What the daemon has for a device when it has read all that a connection has sent.
fn settle(connection: &mut Connection) {
    connection.query(0);
}

#[test]
fn the_pages_say_what_the_metrics_say() {
    let daemon = Daemon::start(&["--device", "0=n150", "--device", "3=p150"]);
    let mut reader = reader(&daemon, &[]);
    let mut connection = Connection::open(&daemon, 144);
    let message = |kind, device, size, buffer_type, buffer_id| Frame {
        kind,
        device,
        size,
        buffer_type,
        buffer_id,
        ..Frame::default()
    };
    connection.send(&[
        message(ALLOC, 0, 4096, 0, 1),
        message(ALLOC, 0, 8192, 0, 2),
        message(ALLOC, 0, 100, 1, 3),
        message(CB_ALLOC, 0, 7, 0, 0),
        message(KERNEL_LOAD, 3, 9, 0, 0),
        message(FREE, 0, 0, 0, 2),
    ]);
    settle(&mut connection);

    let told = read(&mut reader);
    let metrics = daemon.metrics();
    assert_eq!(told["features"], 2, "the stats pages, and nothing that was not asked for");
    for device in told["devices"].as_array().unwrap() {
        let index = device["device"].as_u64().unwrap() as u16;
        for (memory_type, bytes) in device["usage"].as_object().unwrap() {
            assert_eq!(metrics.usage(index, memory_type), bytes.as_f64(), "device {index}, {memory_type}");
        }
        let limit = metrics.value(
            "ttmem_device_memory_limit_bytes",
            &[("device", &index.to_string()), ("memory_type", "dram")],
        );
        assert_eq!(device["limit"]["dram"].as_f64(), limit);
    }
    let boards: Vec<_> = told["devices"].as_array().unwrap().iter().map(|device| &device["board"]).collect();
    assert_eq!(boards, ["n150", "p150"]);
    assert_eq!(told["devices"][0]["usage"], json!({"dram": 4096, "l1": 100, "cb": 7}));
    assert_eq!(told["devices"][0]["peak"]["dram"], 12_288);
    assert_eq!(told["devices"][1]["usage"], json!({"kernel": 9}));

    let holders = told["holders"].as_array().unwrap();
    assert_eq!((holders.len(), &told["missing"]), (4, &json!(0)));
    for holder in holders {
        assert_eq!(holder["pid"], std::process::id());
        assert_eq!(holder["has_ended"], false);
    }
    let dram = holders.iter().find(|holder| holder["memory_type"] == "dram").unwrap();
    let figures = (&dram["usage"], &dram["peak"], &dram["buffers"], &dram["device"]);
    assert_eq!(figures, (&json!(4096), &json!(12_288), &json!(1), &json!(0)));

    // Nothing is asked again: what changes is seen.
    connection.send(&[message(ALLOC, 3, 50, 0, 9)]);
    settle(&mut connection);
    assert_eq!(read(&mut reader)["devices"][1]["usage"], json!({"dram": 50, "kernel": 9}));
    assert_eq!(daemon.metrics().sum("ttmem_events_total", &[("kind", "hello")]), 1.0);
}

#[test]
fn nobody_can_change_a_page() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut reader = reader(&daemon, &[]);
    assert_eq!(reader.ask(r#"{"op":"misuse"}"#)["allowed"], json!([]));
    let mut connection = Connection::open(&daemon, 144);
    connection.send(&[Frame::alloc(0, 10, 1)]);
    settle(&mut connection);
    assert_eq!(read(&mut reader)["devices"][0]["usage"], json!({"dram": 10}));
}

#[test]
fn the_rows_of_an_ended_process_are_used_again() {
    let daemon = Daemon::start(&["--process-linger-seconds", "1"]);
    let mut reader = reader(&daemon, &[]);
    let client = || {
        let mut client = Peer::field_client(&daemon, "metal");
        client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":100,"id":1}"#);
        client.ask(r#"{"op":"query","device":0}"#);
        client
    };
    let mut first = client();
    assert_eq!(read(&mut reader)["holders"][0]["pid"], first.pid());
    first.kill();
    wait_for("the end to be seen", || (read(&mut reader)["devices"][0]["usage"] == json!({})).then_some(()));
    wait_for("the row to be vacant", || {
        read(&mut reader)["holders"].as_array().unwrap().is_empty().then_some(())
    });
    let second = client();
    let told = read(&mut reader);
    assert_eq!(told["holders"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&told["holders"][0]["pid"], &told["holders"][0]["usage"]),
        (&json!(second.pid()), &json!(100))
    );
}

#[test]
fn who_cannot_see_the_hosts_processes_gets_the_page_of_devices_alone() {
    let mut namespace = vec!["unshare", "--pid", "--fork", "--kill-child", "--"];
    if !rustix::process::geteuid().is_root() {
        namespace.splice(1..1, ["--user", "--map-root-user"]);
    }
    let permits = Command::new("unshare").args(&namespace[1..]).arg("true").output();
    assert!(
        permits.as_ref().is_ok_and(|output| output.status.success()),
        "no pid namespace can be made here: run the tests as root, outside of a container that forbids it: {permits:?}"
    );
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let mut connection = Connection::open(&daemon, 144);
    connection.send(&[Frame::alloc(0, 10, 1)]);
    settle(&mut connection);
    let told = read(&mut reader(&daemon, &namespace));
    assert_eq!(told["devices"][0]["usage"], json!({"dram": 10}));
    assert!(told.get("holders").is_none(), "{told}");
}

/// Runs `ttmem status` and gives what it has printed, its status and what it complains of.
fn status(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = ttmem();
    command.current_dir(daemon.directory()).arg("status").args(arguments);
    command.output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn status_draws_the_same_picture_without_asking() {
    let daemon = Daemon::start(&["--device", "0=n150", "--device", "1=n150"]);
    let mut connection = Connection::open(&daemon, 144);
    connection.send(&[Frame::alloc(0, 4096, 1), Frame::alloc(1, 50, 2), Frame::alloc(1, 60, 3)]);
    settle(&mut connection);
    // The age of a process is in seconds, and one may pass in between.
    wait_for("two pictures of one second", || {
        let server = format!("http://{}", daemon.http());
        // What the daemon thinks, and how it does, is in no page.
        let is_in_pages =
            |line: &&str| !["leaks", "state", "history"].iter().any(|head| line.starts_with(head));
        let asked = printed(&status(&daemon, &["--server", &server]));
        let asked: String = asked.split_inclusive('\n').filter(is_in_pages).collect();
        let read = printed(&status(&daemon, &["--socket", "socket"]));
        assert!(read.contains("n150, wormhole_b0") && read.contains("2 buffers"), "{read}");
        (asked.trim_end() == read.trim_end()).then_some(())
    });
    let scrapes = daemon.metrics().sum("ttmem_events_total", &[("kind", "hello")]);
    assert!(scrapes >= 1.0, "the pages were asked for");
}

#[test]
fn status_says_what_is_wrong_with_a_socket_that_was_named() {
    let daemon = Daemon::start(&[]);
    let told = |arguments: &[&str]| {
        let output = status(&daemon, arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let absent = told(&["--socket", "none.sock"]);
    assert!(absent.starts_with("ttmem: none.sock: no daemon answers: "), "{absent}");
    let no_daemon = std::os::unix::net::UnixListener::bind(daemon.directory().join("silent.sock")).unwrap();
    let silent = told(&["--socket", "silent.sock"]);
    assert!(silent.starts_with("ttmem: silent.sock: the daemon does not answer"), "{silent}");
    drop(no_daemon);
}
