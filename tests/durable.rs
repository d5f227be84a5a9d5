//! Nothing is lost when the daemon is started again: however it ended, and whatever was under way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::frames::{FRAME_BYTES, Frame};
use support::supervisor::Supervised;
use support::{Metrics, wait_for};

/// How often the daemon is killed under load.
const KILLS: u32 = 200;
/// The smallest journal that there can be, so that checkpoints are made all the time.
const SMALL_JOURNAL: &[&str] = &["--state-journal-bytes-max", "16777216"];

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

/// A client of the seed's protocol that reports until it is told to stop, and never connects again.
struct Client {
    stream: UnixStream,
    frame_bytes: usize,
    device: i32,
    random: Random,
    live: BTreeMap<u64, u64>,
    sent: Sent,
    next_id: u64,
    answers: usize,
}

impl Client {
    fn new(supervised: &Supervised, frame_bytes: usize, device: i32) -> Client {
        let stream = supervised.connect();
        stream.set_nonblocking(true).unwrap();
        let random = Random(device.cast_unsigned().into());
        Client {
            stream,
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
    fn report(&mut self) -> Vec<u8> {
        let frames = 1 + self.random.below(40);
        let mut bytes = Vec::new();
        for _ in 0..frames {
            let frame = match self.random.below(20) {
                0..10 => self.allocate(),
                10..18 => self.free(),
                18 => {
                    self.sent.unknown_frees += 1;
                    Frame::free(self.device, u64::MAX)
                }
                _ => {
                    self.sent.queries += 1;
                    Frame::query(self.device)
                }
            };
            bytes.extend(frame.bytes(self.frame_bytes));
        }
        bytes
    }

    fn allocate(&mut self) -> Frame {
        let (id, size) = (self.next_id, 1 + self.random.below(1 << 20));
        self.next_id += 1;
        self.live.insert(id, size);
        self.sent.allocations += 1;
        self.sent.allocated_bytes += size;
        Frame::alloc(self.device, size, id)
    }

    fn free(&mut self) -> Frame {
        let Some((id, size)) = self.live.pop_first() else { return self.allocate() };
        self.sent.frees += 1;
        self.sent.freed_bytes += size;
        Frame::free(self.device, id)
    }

    /// Sends everything, in pieces that no frame has, and reads what is answered.
    fn send(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(1 + self.random.below(700) as usize)];
            match self.stream.write(piece) {
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
        loop {
            match self.stream.read(&mut bytes) {
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
            let bytes = self.report();
            self.send(&bytes);
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
    let mut supervised = Supervised::start(SMALL_JOURNAL);
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let clients = FRAME_BYTES.into_iter().cycle().zip(0..6).map(|(frame_bytes, device)| {
        let (client, stop) = (Client::new(&supervised, frame_bytes, device), std::sync::Arc::clone(&stop));
        std::thread::spawn(move || client.run(&stop))
    });
    let clients: Vec<JoinHandle<Client>> = clients.collect();
    wait_for("all connections to be kept", || (supervised.kept() == clients.len()).then_some(()));
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
        assert_eq!(told(&metrics, client.device), expected.map(|value| value as f64), "device {}", client.device);
    }
    assert_eq!(metrics.rejected("unknown_free"), sum.unknown_frees as f64);
    assert_eq!(metrics.events("query"), sum.queries as f64);
    assert_eq!(metrics.events("alloc"), sum.allocations as f64);
    let rejected = metrics.sum("ttmem_events_rejected_total", &[]);
    assert_eq!(rejected, sum.unknown_frees as f64, "nothing else was rejected");
    assert_eq!(metrics.sum("ttmem_events_lost_total", &[]), 0.0);
    metrics.assert_adds_up();
}
