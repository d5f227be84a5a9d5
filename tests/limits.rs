//! What one user may have of what there is for all: beyond it is refused by name, the others notice nothing, and the sums stay right.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use serde_json::json;
use support::frames::{Connection, Frame};
use support::{Daemon, Metrics, Peer, wait_for};

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
fn who_reports_faster_than_it_may_waits_and_loses_nothing() {
    const RATE: u64 = 50_000;
    /// Those that come at once, and two seconds' worth beyond.
    const REPORTS: u64 = 3 * RATE;
    let rate = RATE.to_string();
    let daemon = Daemon::start(&["--connection-reports-per-second-max", &rate]);
    let mut other = Connection::open(&daemon, 144);
    let mut greedy = Connection::open(&daemon, 72);
    let flood = std::thread::spawn(move || {
        let frames: Vec<Frame> = (0..REPORTS).map(|id| Frame::alloc(0, SIZE, id)).collect();
        greedy.send(&frames);
        let held = greedy.query(0).dram();
        (greedy, held)
    });
    daemon
        .wait_for_metrics("a connection that is not read", |metrics| throttled(metrics, "connection") > 0.0);
    // The others are served meanwhile: this answer has come long before all of the flood has been read.
    other.send(&[Frame::alloc(1, SIZE, 1)]);
    assert_eq!(other.query(1).dram(), SIZE);
    assert!(other.query(0).dram() < REPORTS * SIZE);

    let (_greedy, held) = flood.join().unwrap();
    assert_eq!(held, REPORTS * SIZE, "every report has been applied");
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.events("alloc"), (REPORTS + 1) as f64);
    let seconds = throttled(&metrics, "connection");
    assert!(seconds <= 2.0, "{seconds} s for what is two seconds beyond");
    assert_eq!(throttled(&metrics, "user"), 0.0);
    let line = daemon.wait_for_log(
        "client is read more slowly than it reports, and waits; raise that limit if so many reports are wanted",
    );
    assert_eq!(
        (&line["limit"], &line["peer"]),
        (&json!("connection_reports_per_second_max"), &json!(std::process::id()))
    );
}

/// Seconds for which connections were not read because of that limit.
fn throttled(metrics: &Metrics, limit: &str) -> f64 {
    metrics.value("ttmem_client_throttled_seconds_total", &[("limit", limit)]).unwrap()
}

#[test]
fn a_user_s_connections_share_a_rate_and_another_user_does_not_wait() {
    const RATE: u64 = 50_000;
    /// Of each of two: together twice what may come at once.
    const REPORTS: u64 = 2 * RATE;
    let rate = RATE.to_string();
    let daemon = Daemon::start(&["--user-reports-per-second-max", &rate]);
    let mut other = stranger(&daemon);
    let floods: Vec<_> = (1..=2)
        .map(|device| {
            let mut greedy = Connection::open(&daemon, 72);
            let frames = (0..REPORTS).map(|id| Frame::alloc(device, SIZE, id));
            let bytes: Vec<u8> = frames.flat_map(|frame| frame.bytes(72)).collect();
            std::thread::spawn(move || {
                greedy.send_bytes(&bytes);
                greedy.query(device).dram()
            })
        })
        .collect();
    daemon.wait_for_metrics("connections that are not read", |metrics| throttled(metrics, "user") > 0.0);
    allocate(&mut other, 1);
    assert_eq!(daemon.metrics().process_usage(other.pid(), 0, "dram"), Some(SIZE as f64));
    for flood in floods {
        assert_eq!(flood.join().unwrap(), REPORTS * SIZE, "every report has been applied");
    }
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.events("alloc"), (2 * REPORTS + 1) as f64);
    assert_eq!(throttled(&metrics, "connection"), 0.0);
}

#[test]
fn one_user_does_not_take_all_files_by_its_forks() {
    let daemon = Daemon::start(&["--user-processes-max", "2"]);
    let mut parents = [stranger(&daemon), stranger(&daemon)];
    parents.iter_mut().for_each(|parent| allocate(parent, 1));
    let fork = |parent: &mut Peer| {
        let report = r#"{"op":"fork_allocate","device":0,"type":"dram","size":512,"id":9}"#;
        let child = parent.ask(report)["child_pid"].as_u64().unwrap() as u32;
        parent.ask(r#"{"op":"query","device":0}"#);
        child
    };
    let child = fork(&mut parents[0]);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!((metrics.rejected("user_processes_max"), metrics.rejected("claimed_pid")), (1.0, 0.0));
    assert_eq!(metrics.process_usage(child, 0, "dram"), None);
    let of_sender = metrics.process_usage(parents[0].pid(), 0, "dram");
    assert_eq!(of_sender, Some((SIZE + 512) as f64), "it counts for the one whose connection it is");
    let line = daemon.wait_for_log("too many processes of one user; what this one reports counts for its sender; raise user_processes_max if they are wanted");
    assert_eq!((&line["claimed"], &line["uid"]), (&json!(child), &json!(65534)));
    // A process that ends makes room, as soon as it has been learnt how it ended.
    parents[1].kill();
    wait_for("room for a child", || {
        parents[0].ask(r#"{"op":"end_child"}"#);
        let child = fork(&mut parents[0]);
        (daemon.metrics().process_usage(child, 0, "dram") == Some(512.0)).then_some(())
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

#[test]
fn when_memory_gets_short_details_go_before_totals_do() {
    const BUFFERS_MAX: u64 = 8000;
    let daemon = Daemon::start(&["--buffers-max", "8000", "--user-buffers-max", "8000"]);
    let details = |metrics: &Metrics| {
        ["spans", "leaks", "ended_processes"]
            .map(|detail| metrics.value("ttmem_detail_degraded", &[("detail", detail)]).unwrap())
    };
    assert_eq!(details(&daemon.metrics()), [0.0; 3]);
    let mut ended = stranger(&daemon);
    allocate(&mut ended, 10);
    ended.kill();
    daemon.wait_for_metrics("the end", |metrics| metrics.events("process_end") == 1.0);
    let series = |metrics: &Metrics| metrics.process_usage(ended.pid(), 0, "dram");
    assert_eq!(series(&daemon.metrics()), Some(0.0), "an ended process stays visible");

    let mut client = Connection::open(&daemon, 144);
    let frames: Vec<Frame> = (0..BUFFERS_MAX).map(|id| Frame::alloc(0, SIZE, id)).collect();
    client.send(&frames[..7200]);
    let metrics = daemon.wait_for_metrics("all details given up", |metrics| details(metrics) == [1.0; 3]);
    metrics.assert_adds_up();
    daemon.wait_for_metrics("no ended process", |metrics| series(metrics).is_none());
    let order: Vec<_> = daemon
        .log()
        .into_iter()
        .filter(|line| line["message"].as_str().unwrap().starts_with("memory gets short"))
        .map(|line| line["detail"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["spans", "leaks", "ended_processes"]);
    // Totals are as exact as before, to the last buffer that there may be.
    client.send(&frames[7200..]);
    assert_eq!(client.query(0).dram(), BUFFERS_MAX * SIZE);
    let metrics = daemon.metrics();
    assert_eq!((metrics.rejected("buffers_max"), metrics.events("alloc")), (0.0, (BUFFERS_MAX + 10) as f64));

    client.send(&(0..BUFFERS_MAX - 100).map(|id| Frame::free(0, id)).collect::<Vec<_>>());
    assert_eq!(client.query(0).dram(), 100 * SIZE);
    daemon.wait_for_metrics("everything as before", |metrics| details(metrics) == [0.0; 3]);
}
