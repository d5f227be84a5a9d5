//! What one user may have of what there is for all: beyond it is refused by name, the others notice nothing, and the sums stay right.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use serde_json::json;
use support::frames::{Connection, Frame};
use support::{Daemon, Peer, wait_for};

/// A user other than root who owns nothing; what Linux calls nobody.
const NOBODY: &str = "65534";
const SIZE: u64 = 4096;

/// A client of another user than the test's.
fn stranger(daemon: &Daemon) -> Peer {
    assert!(rustix::process::getuid().is_root(), "only root can start a client as another user");
    let mut stranger = Peer::unconnected(daemon);
    stranger.ask(&json!({"op": "be_user", "user": NOBODY.parse::<u32>().unwrap()}).to_string());
    stranger.ask(r#"{"op":"connect","client":"metal"}"#);
    stranger
}

fn allocate(client: &mut Peer, count: u64) {
    let allocation =
        json!({"op": "allocate", "device": 0, "type": "dram", "size": SIZE, "id": 1, "count": count});
    client.ask(&allocation.to_string());
    client.ask(r#"{"op":"query","device":0}"#);
}

#[test]
fn one_user_does_not_take_all_places() {
    // An eighth of sixteen is for the others.
    let daemon = Daemon::start(&["--clients-max", "16"]);
    let mut clients: Vec<Connection> = (0..14).map(|_| Connection::open(&daemon, 144)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.query(0).dram(), 0));
    let mut refused = Connection::open(&daemon, 144);
    assert!(refused.read_to_end().is_empty());
    let line = daemon.wait_for_log(
        "connection refused: too many clients of one user; raise user_clients_max if they are wanted",
    );
    assert_eq!(
        (&line["uid"], &line["peer"], &line["level"]),
        (&json!(0), &json!(std::process::id()), &json!("WARN"))
    );

    let mut other = stranger(&daemon);
    allocate(&mut other, 1);
    assert_eq!(clients[0].query(0).dram(), SIZE);
    let metrics = daemon.metrics();
    assert_eq!((metrics.rejected("user_clients_max"), metrics.rejected("clients_max")), (1.0, 0.0));

    clients.pop();
    // The place is given back a moment after the connection is closed.
    wait_for("a place", || {
        let mut next = Connection::open(&daemon, 144);
        next.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let before = daemon.metrics().rejected("user_clients_max");
        next.read_to_end();
        (daemon.metrics().rejected("user_clients_max") == before).then_some(())
    });
}

#[test]
fn one_user_does_not_take_all_buffers() {
    const OF_ONE: u64 = 2000;
    let daemon = Daemon::start(&["--buffers-max", "3000", "--user-buffers-max", "2000"]);
    let mut greedy = Connection::open(&daemon, 144);
    let frames: Vec<Frame> = (0..OF_ONE + 500).map(|id| Frame::alloc(0, SIZE, id)).collect();
    greedy.send(&frames);
    assert_eq!(greedy.query(0).dram(), OF_ONE * SIZE, "what is refused is not shown");
    let metrics = daemon.metrics();
    assert_eq!(metrics.rejected("user_buffers_max"), 500.0);
    let line = daemon.wait_for_log("message rejected");
    assert_eq!(line["reason"], "user_buffers_max");
    assert_eq!(line["remedy"], "raise user_buffers_max if this user needs so many");

    let mut other = stranger(&daemon);
    allocate(&mut other, 1000);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(
        metrics.process_usage(other.pid(), 0, "dram"),
        Some((1000 * SIZE) as f64),
        "others are not touched"
    );
    allocate(&mut other, 1000 + 7);
    assert_eq!(daemon.metrics().rejected("buffers_max"), 7.0, "and then there are no more at all");

    // What is freed makes room, whoever needs it; what was refused frees nothing.
    greedy.send(&(0..OF_ONE + 500).map(|id| Frame::free(0, id)).collect::<Vec<_>>());
    greedy.send(&frames[..100]);
    assert_eq!(greedy.query(0).dram(), (1000 + 100) * SIZE);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.rejected("unknown_free"), 500.0);
    other.kill();
    daemon.wait_for_metrics("the room of a process that has ended", |metrics| {
        metrics.usage(0, "dram") == Some((100 * SIZE) as f64)
    });
    greedy.send(&frames[..OF_ONE as usize]);
    assert_eq!(greedy.query(0).dram(), OF_ONE * SIZE);
    daemon.metrics().assert_adds_up();
}
