//! Nothing is lost when the daemon is started again: however it ended, and whatever was under way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use support::cgroup::ContainerGroup;
use support::frames::{Connection, FRAME_BYTES, Frame};
use support::raw_rings::RawRing;
use support::supervisor::Supervised;
use support::{Daemon, Directory, Metrics, Peer, peers, ttmem, wait_for};

/// How often the daemon is killed under load.
const KILLS: u32 = 200;
/// The smallest journal that there can be, so that checkpoints are made all the time.
const SMALL_JOURNAL: &[&str] = &["--state-journal-bytes-max", "16777216"];

/// The bounds of the sizes' buckets up to the largest buffer that is allocated here.
const SIZE_BOUNDS_BYTES: [u64; 5] = [1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];

/// Random enough, and the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a client has sent, as it should come out.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Sent {
    allocations: u64,
    frees: u64,
    unknown_frees: u64,
    allocated_bytes: u64,
    freed_bytes: u64,
    queries: u64,
    /// The most that was held at once.
    peak_bytes: u64,
    /// Allocations of at most so many bytes.
    sizes: [u64; SIZE_BOUNDS_BYTES.len()],
}

impl Sent {
    fn add(&mut self, other: &Sent) {
        self.allocations += other.allocations;
        self.frees += other.frees;
        self.unknown_frees += other.unknown_frees;
        self.allocated_bytes += other.allocated_bytes;
        self.freed_bytes += other.freed_bytes;
        self.queries += other.queries;
    }
}

/// A client that reports until it is told to stop, and never connects again.
struct Client {
    /// The field's protocol, or a ring.
    way: Way,
    frame_bytes: usize,
    device: i32,
    random: Random,
    live: BTreeMap<u64, u64>,
    sent: Sent,
    next_id: u64,
    answers: usize,
}

enum Way {
    Frames(UnixStream),
    Ring(Box<RawRing>),
}

impl Client {
    fn new(supervised: &Supervised, frame_bytes: usize, device: i32) -> Client {
        let stream = supervised.connect();
        stream.set_nonblocking(true).unwrap();
        Client::on(Way::Frames(stream), frame_bytes, device)
    }

    fn in_ring(supervised: &Supervised, device: i32) -> Client {
        let connection = Connection { stream: supervised.connect(), frame_bytes: 144 };
        Client::on(Way::Ring(Box::new(RawRing::on(connection))), 144, device)
    }

    fn on(way: Way, frame_bytes: usize, device: i32) -> Client {
        let random = Random(device.cast_unsigned().into());
        Client {
            way,
            frame_bytes,
            device,
            random,
            live: BTreeMap::new(),
            sent: Sent::default(),
            next_id: 1,
            answers: 0,
        }
    }

    /// Some frames, and what they come to.
    fn report(&mut self) -> Vec<Frame> {
        let count = 1 + self.random.below(40);
        let mut frames = Vec::new();
        for _ in 0..count {
            frames.push(match self.random.below(20) {
                0..10 => self.allocate(),
                10..18 => self.free(),
                18 => {
                    self.sent.unknown_frees += 1;
                    Frame::free(self.device, u64::MAX)
                }
                // Nothing is asked in a ring.
                _ if matches!(self.way, Way::Ring(_)) => self.allocate(),
                _ => {
                    self.sent.queries += 1;
                    Frame::query(self.device)
                }
            });
        }
        frames
    }

    fn allocate(&mut self) -> Frame {
        let (id, size) = (self.next_id, 1 + self.random.below(1 << 20));
        self.next_id += 1;
        self.live.insert(id, size);
        self.sent.allocations += 1;
        self.sent.allocated_bytes += size;
        let held_bytes = self.sent.allocated_bytes - self.sent.freed_bytes;
        self.sent.peak_bytes = self.sent.peak_bytes.max(held_bytes);
        for (bound, count) in SIZE_BOUNDS_BYTES.iter().zip(&mut self.sent.sizes) {
            *count += u64::from(size <= *bound);
        }
        Frame::alloc(self.device, size, id)
    }

    fn free(&mut self) -> Frame {
        let Some((id, size)) = self.live.pop_first() else { return self.allocate() };
        self.sent.frees += 1;
        self.sent.freed_bytes += size;
        Frame::free(self.device, id)
    }

    /// Sends everything.
    fn send(&mut self, frames: &[Frame]) {
        if let Way::Ring(ring) = &mut self.way {
            for frame in frames {
                while !ring.has_room() {
                    ring.wake();
                    std::thread::sleep(Duration::from_micros(200));
                }
                ring.push(*frame);
            }
            ring.wake();
        } else {
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes(self.frame_bytes)).collect();
            self.send_bytes(&bytes);
        }
    }

    /// Sends bytes in pieces that no frame has, and reads what is answered.
    fn send_bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let (Way::Frames(stream), false) = (&mut self.way, rest.is_empty()) {
            let piece = &rest[..rest.len().min(1 + self.random.below(700) as usize)];
            match stream.write(piece) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("device {}: the connection broke: {error}", self.device),
            }
            self.read_answers();
        }
    }

    fn read_answers(&mut self) {
        let mut bytes = [0; 4096];
        while let Way::Frames(stream) = &mut self.way {
            match stream.read(&mut bytes) {
                Ok(0) => panic!("device {}: the daemon closed the connection", self.device),
                Ok(read) => self.answers += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("device {}: the connection broke: {error}", self.device),
            }
        }
    }

    /// Reports until it is told to stop, and then waits for all answers.
    fn run(mut self, stop: &AtomicBool) -> Client {
        while !stop.load(Ordering::Relaxed) {
            let frames = self.report();
            self.send(&frames);
        }
        let expected = self.sent.queries as usize * self.frame_bytes;
        wait_for(&format!("{expected} bytes of answers on device {}", self.device), || {
            self.read_answers();
            assert!(self.answers <= expected, "an answer came twice on device {}", self.device);
            (self.answers == expected).then_some(())
        });
        self
    }
}

/// What a device has held at most, and its distributions, are those of a daemon that was never killed. How long a buffer lived is the
/// daemon's to measure: there are as many lifetimes as frees, and none is longer than the test.
fn assert_history(metrics: &Metrics, client: &Client, elapsed: Duration) {
    let device = client.device.to_string();
    let of = |name: &str, le: Option<&str>| {
        let mut labels = vec![("device", device.as_str()), ("memory_type", "dram")];
        labels.extend(le.map(|le| ("le", le)));
        metrics.value(name, &labels).unwrap_or_else(|| panic!("{name} {labels:?}"))
    };
    let sent = &client.sent;
    assert_eq!(of("ttmem_device_memory_peak_bytes", None), sent.peak_bytes as f64, "device {device}");
    assert_eq!(of("ttmem_process_memory_peak_bytes", None), sent.peak_bytes as f64, "device {device}");
    for (bound, count) in SIZE_BOUNDS_BYTES.iter().zip(sent.sizes) {
        let told = of("ttmem_buffer_size_bytes_bucket", Some(&bound.to_string()));
        assert_eq!(told, count as f64, "device {device}, at most {bound} bytes");
    }
    assert_eq!(of("ttmem_buffer_size_bytes_count", None), sent.allocations as f64);
    assert_eq!(of("ttmem_buffer_size_bytes_sum", None), sent.allocated_bytes as f64);
    assert_eq!(of("ttmem_buffer_lifetime_seconds_count", None), sent.frees as f64, "device {device}");
    let lived_seconds = of("ttmem_buffer_lifetime_seconds_sum", None);
    let possible_seconds = sent.frees as f64 * elapsed.as_secs_f64();
    assert!(lived_seconds > 0.0 && lived_seconds < possible_seconds, "{lived_seconds} of {possible_seconds}");
}

/// What the daemon says about a device's DRAM.
fn told(metrics: &Metrics, device: i32) -> [f64; 6] {
    let device = device.to_string();
    let labels = [("device", device.as_str()), ("memory_type", "dram")];
    [
        "ttmem_device_allocations_total",
        "ttmem_device_frees_total",
        "ttmem_device_allocated_bytes_total",
        "ttmem_device_freed_bytes_total",
        "ttmem_device_memory_usage_bytes",
        "ttmem_device_buffers",
    ]
    .map(|name| metrics.value(name, &labels).unwrap_or_else(|| panic!("{name} {labels:?}")))
}

#[test]
fn a_daemon_that_is_killed_again_and_again_knows_what_one_that_was_not_would() {
    let began = Instant::now();
    let mut supervised = Supervised::start(SMALL_JOURNAL);
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let clients = FRAME_BYTES.into_iter().cycle().zip(0..6).map(|(frame_bytes, device)| {
        let (client, stop) = (Client::new(&supervised, frame_bytes, device), std::sync::Arc::clone(&stop));
        std::thread::spawn(move || client.run(&stop))
    });
    let mut clients: Vec<JoinHandle<Client>> = clients.collect();
    for device in [6, 7] {
        let (client, stop) = (Client::in_ring(&supervised, device), std::sync::Arc::clone(&stop));
        clients.push(std::thread::spawn(move || client.run(&stop)));
    }
    // A ring is its memory and its wake beside its connection.
    let descriptors = clients.len() + 2 * 2;
    wait_for("all connections to be kept", || (supervised.kept() == descriptors).then_some(()));
    let mut random = Random(7);
    for kill in 0..KILLS {
        // Anywhere: every other one in the middle of its work, the others from before it has read anything.
        if kill % 2 == 0 {
            supervised.wait_until_ready();
        }
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        supervised.kill();
        supervised.launch();
    }
    supervised.wait_until_ready();
    stop.store(true, Ordering::Relaxed);
    let clients: Vec<Client> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let sum = clients.iter().fold(Sent::default(), |mut sum, client| {
        sum.add(&client.sent);
        sum
    });
    let metrics = wait_for("everything to be applied", || {
        let metrics = supervised.metrics();
        let all = sum.allocations + sum.frees + sum.unknown_frees;
        let applied = metrics.events("alloc") + metrics.events("free");
        (applied as u64 >= all).then_some(metrics)
    });
    for client in &clients {
        let sent = client.sent;
        let live: u64 = client.live.values().sum();
        let expected = [
            sent.allocations,
            sent.frees,
            sent.allocated_bytes,
            sent.freed_bytes,
            live,
            client.live.len() as u64,
        ];
        assert_eq!(
            told(&metrics, client.device),
            expected.map(|value| value as f64),
            "device {}",
            client.device
        );
        assert_history(&metrics, client, began.elapsed());
    }
    assert_eq!(metrics.rejected("unknown_free"), sum.unknown_frees as f64);
    assert_eq!(metrics.events("query"), sum.queries as f64);
    assert_eq!(metrics.events("alloc"), sum.allocations as f64);
    let rejected = metrics.sum("ttmem_events_rejected_total", &[]);
    assert_eq!(rejected, sum.unknown_frees as f64, "nothing else was rejected");
    assert_eq!(metrics.sum("ttmem_events_lost_total", &[]), 0.0);
    metrics.assert_adds_up();
}

#[test]
fn a_connection_is_not_closed_by_an_upgrade_and_a_question_is_answered_once() {
    let mut supervised = Supervised::start(&[]);
    let mut client = Connection { stream: supervised.connect(), frame_bytes: 72 };
    client.send(&[Frame::alloc(0, 4096, 1), Frame::alloc(0, 8192, 2)]);
    assert_eq!(client.query(0).dram(), 12_288);
    // The rest of this frame is sent to another daemon than its beginning.
    let frame = Frame::alloc(0, 16_384, 3).bytes(72);
    client.send_bytes(&frame[..33]);
    supervised.terminate();
    client.send_bytes(&frame[33..]);
    client.send(&[Frame::query(0)]);
    supervised.launch();
    assert_eq!(client.reply().dram(), 28_672, "by the next daemon");
    supervised.wait_until_ready();
    assert_eq!(told(&supervised.metrics(), 0)[..2], [3.0, 0.0]);
    drop(client);
    wait_for("the connection to be forgotten", || (supervised.kept() == 0).then_some(()));
}

#[test]
fn a_supervisor_that_does_not_listen_holds_nobody_up() {
    let supervised = Supervised::start(&[]);
    let mut client = Connection { stream: supervised.connect(), frame_bytes: 72 };
    client.send(&[Frame::alloc(0, 4096, 1)]);
    assert_eq!(client.query(0).dram(), 4096);
    supervised.be_deaf(true);
    let room: usize =
        std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap().trim().parse().unwrap();
    // More than wait at a deaf supervisor's socket, and more than there are threads to hold up.
    let mut others: Vec<Connection> = (0..room + 32)
        .map(|_| {
            let mut other = Connection { stream: supervised.connect(), frame_bytes: 72 };
            other.send(&[Frame::query(0)]);
            other
        })
        .collect();
    for _ in 0..32 {
        assert_eq!(client.query(0).dram(), 4096, "whoever is connected is answered");
    }
    for other in &mut others {
        assert_eq!(other.reply().dram(), 4096, "and whoever comes");
    }
    assert!(supervised.log_text().contains("the supervisor cannot keep a connection"));
    supervised.be_deaf(false);
    drop(others);
    wait_for("what nobody uses to be forgotten", || (supervised.kept() == 1).then_some(()));
    let late = Connection { stream: supervised.connect(), frame_bytes: 72 };
    wait_for("the next one to be kept", || (supervised.kept() == 2).then_some(()));
    drop(late);
}

#[test]
fn what_died_with_nobody_watching_is_reclaimed() {
    let mut supervised = Supervised::start(&[]);
    let mut peer = Peer::start(
        Command::new("python3")
            .arg(peers().join("field_clients.py"))
            .arg("--socket")
            .arg(supervised.directory().join("socket")),
    );
    peer.ask(r#"{"op":"connect","client":"seed"}"#);
    peer.ask(r#"{"op":"allocate","device":0,"type":"dram","id":1,"size":4096}"#);
    wait_for("the report", || (supervised.metrics().usage(0, "dram") == Some(4096.0)).then_some(()));
    let recovery = |supervised: &Supervised| {
        supervised.metrics().value("ttmem_state_recovery_duration_seconds", &[]).unwrap()
    };
    assert_eq!(recovery(&supervised), 0.0, "it began with nothing");
    supervised.kill();
    // Sent while nobody is there, by a process that is gone when somebody is.
    peer.ask(r#"{"op":"allocate","device":0,"type":"dram","id":2,"size":100}"#);
    peer.kill();
    supervised.launch();
    supervised.wait_until_ready();
    let metrics = wait_for("the end to be seen", || {
        let metrics = supervised.metrics();
        (metrics.events("process_end") == 1.0).then_some(metrics)
    });
    assert_eq!(told(&metrics, 0), [2.0, 2.0, 4196.0, 4196.0, 0.0, 0.0]);
    assert!(recovery(&supervised) > 0.0);
    let labels = [("device", "0"), ("memory_type", "dram")];
    assert_eq!(metrics.value("ttmem_device_orphaned_bytes_total", &labels), Some(4196.0));
    supervised.kill();
    supervised.launch();
    supervised.wait_until_ready();
    assert_eq!(supervised.metrics().events("process_end"), 1.0, "it ends once");
}

/// What a container's processes hold is added up by the time that they hold it, whether a daemon is there or not.
#[test]
fn the_time_that_memory_is_held_counts_through_kills() {
    const HELD_BYTES: u64 = 1 << 30;
    const BYTE_SECONDS: &str = "ttmem_container_memory_byte_seconds_total";
    let (group, logs) = (ContainerGroup::new(), Directory::new());
    group.log_in(logs.path(), ["ml-team", "llama-0", "server"]);
    let mut supervised = Supervised::start(&["--container-log-dir", logs.path().to_str().unwrap()]);
    let mut peer = Peer::start(
        Command::new("python3")
            .arg(peers().join("field_clients.py"))
            .arg("--socket")
            .arg(supervised.directory().join("socket")),
    );
    group.take(peer.pid());
    peer.ask(r#"{"op":"connect","client":"metal"}"#);
    let sent = Instant::now();
    peer.ask(
        &json!({"op": "allocate", "device": 0, "type": "dram", "size": HELD_BYTES, "id": 1}).to_string(),
    );
    peer.ask(r#"{"op":"query","device":0}"#);
    let answered = Instant::now();
    for _ in 0..10 {
        supervised.kill();
        supervised.launch();
        supervised.wait_until_ready();
        let least_seconds = answered.elapsed().as_secs_f64();
        let (told, most_seconds) = wait_for("the container's names", || {
            let told = supervised.metrics().value(BYTE_SECONDS, &[("memory_type", "dram")]);
            told.map(|told| (told, sent.elapsed().as_secs_f64()))
        });
        let held_seconds = told / HELD_BYTES as f64;
        assert!(
            (least_seconds..=most_seconds).contains(&held_seconds),
            "{held_seconds} s, neither more than {most_seconds} nor less than {least_seconds}"
        );
    }
}

#[test]
fn files_that_cannot_be_believed_are_set_aside_and_the_daemon_serves() {
    let mut supervised = Supervised::start(&[]);
    supervised.kill();
    let state = supervised.directory().join("state");
    std::fs::write(state.join("checkpoint"), "not one").unwrap();
    std::fs::write(state.join("journal-77"), vec![b'x'; 4096]).unwrap();
    supervised.launch();
    supervised.wait_until_ready();
    for name in ["checkpoint", "journal-77"] {
        assert!(state.join(format!("{name}.unreadable")).exists(), "{name}");
    }
    let told_of = supervised.log_text().matches("it was set aside").count();
    assert_eq!(told_of, 2, "{}", supervised.log_text());
    assert_eq!(supervised.metrics().value("ttmem_state_damaged_files_total", &[]), Some(2.0));
    assert_eq!(supervised.metrics().value("ttmem_state_kept", &[]), Some(1.0));
}

#[test]
fn a_state_directory_belongs_to_one_daemon() {
    let supervised = Supervised::start(&[]);
    let mut second = ttmem();
    second.args(["serve", "--shm-dir", "none", "--listen", "127.0.0.1:0", "--socket"]);
    second
        .arg(supervised.directory().join("other"))
        .arg("--state-dir")
        .arg(supervised.directory().join("state"));
    let output = second.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another daemon uses this directory"), "{said}");
}

#[test]
fn without_a_place_to_write_the_daemon_serves_and_says_that_it_will_forget() {
    let daemon = Daemon::start(&["--state-dir", "/proc/ttmem"]);
    let mut client = Connection::open(&daemon, 72);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    assert_eq!(client.query(0).dram(), 4096);
    let said = daemon.wait_for_log("nothing is remembered beyond this daemon's end");
    assert!(said["error"].as_str().unwrap().contains("/proc/ttmem"), "{said}");
}
