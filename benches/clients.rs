//! The clients: real processes, so that a server sees as many pids, which start together and are timed to the last EOF.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, send};
use ttmem_client::{BufferType, Client, Options};
use ttmem_wire::{Frame, Header, Kind, Layout, encode_request};

use super::Bench;
use super::servers::OwnedChild;

/// Clients at once.
pub(super) const CLIENTS: usize = 8;

/// Live buffers per client: it allocates these, then frees and allocates each of them in turn, and at the end frees all.
const WORKING_SET: u64 = 64;

/// Frames in one turn through the working set. What a client sends is a multiple of this: the first and the last half
/// turn fill and empty the working set.
pub(super) const TURN_FRAMES: u64 = 2 * WORKING_SET;

/// The frames are the seed's, because that is what the seed understands.
pub(super) const LAYOUT: Layout = Layout::Bytes72;

const BUFFER_BYTES: u64 = 2 * 1024 * 1024;

/// What a holder holds: small, so that ten million of them stay below what one process may hold. Ids are addresses.
const HELD_BUFFER_BYTES: u64 = 4096;

/// Rounds are made to last about a second; a server that needs longer than this has stopped.
const ROUND_TIMEOUT: Duration = Duration::from_secs(120);

/// What a client that floods gives to one send(): far more than a socket takes at once.
const FLOOD_TURNS: usize = 64;

const READY: u8 = b'r';
const DONE: u8 = b'd';

/// How a client reports.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// In frames, so many per send().
    Frames { batch: usize },
    /// Through a ring, with the client library.
    Ring,
}

/// What each client process of a fleet does.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) clients: usize,
    pub(super) role: &'static str,
    /// Frames that each sends, or buffers that each holds.
    pub(super) count_each: u64,
    pub(super) way: Way,
}

/// Client processes that are connected and wait for the start.
pub(super) struct Fleet {
    children: Vec<OwnedChild>,
    /// Every client waits for this pipe to close: dropping it is the common start.
    start: PipeWriter,
    /// One byte per client when it is ready, and one when the server has closed its connection.
    progress: PipeReader,
}

impl Fleet {
    /// Starts the clients and waits until all are connected, and hold what they are to hold.
    pub(super) fn connect(bench: &Bench, socket: &Path, plan: Plan) -> anyhow::Result<Self> {
        let (waiting, start) = io::pipe()?;
        let (mut progress, report) = io::pipe()?;
        let mut children = Vec::with_capacity(plan.clients);
        for _ in 0..plan.clients {
            let mut command = Command::new(&bench.exe);
            command
                .args(["bench", "--role", plan.role, "--socket"])
                .arg(socket)
                .args(["--frames", &plan.count_each.to_string()])
                .stdin(waiting.try_clone()?)
                .stdout(report.try_clone()?)
                .stderr(Stdio::inherit());
            if let Way::Frames { batch } = plan.way {
                command.args(["--batch", &batch.to_string()]);
            }
            children.push(OwnedChild::spawn(&mut command)?);
        }
        drop(report);
        await_all(&mut progress, READY, plan.clients)?;
        Ok(Self { children, start, progress })
    }

    /// Lets all clients go at once; the time from there to the last one's EOF.
    pub(super) fn run(mut self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        drop(self.start);
        await_all(&mut self.progress, DONE, self.children.len())?;
        let elapsed = begin.elapsed();
        for child in &mut self.children {
            child.expect_success()?;
        }
        Ok(elapsed)
    }
}

/// Reads one `expected` byte from every client, within the time a round may take.
fn await_all(progress: &mut PipeReader, expected: u8, clients: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + ROUND_TIMEOUT;
    let mut missing = clients;
    while missing > 0 {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
        let ready = poll(&mut [PollFd::new(&*progress, PollFlags::IN)], Some(&left))?;
        ensure!(ready > 0, "{missing} clients did not finish within {} seconds", ROUND_TIMEOUT.as_secs());
        let mut bytes = vec![0; missing];
        let received = progress.read(&mut bytes)?;
        ensure!(received > 0, "{missing} clients ended early");
        ensure!(
            bytes[..received].iter().all(|byte| *byte == expected),
            "a client wrote something unexpected"
        );
        missing -= received;
    }
    Ok(())
}

/// The role of one client process: connects, waits for the start, sends `frames` frames, `batch` to a send(), and waits
/// until the server has consumed them all and closes.
pub(super) fn send_frames(socket: &Path, frames: u64, batch: usize) -> anyhow::Result<()> {
    ensure!(
        frames >= TURN_FRAMES
            && frames.is_multiple_of(TURN_FRAMES)
            && WORKING_SET.is_multiple_of(batch as u64),
        "frames come in turns of {TURN_FRAMES}, and a batch has to divide {WORKING_SET}"
    );
    let frames_encoded = Turn::encode()?;
    let mut stream = connect(socket)?;
    signal_parent(READY)?;
    io::stdin().read_to_end(&mut Vec::new())?;

    let send_bytes = batch * LAYOUT.frame_bytes();
    send_in_pieces(&stream, &frames_encoded.fill, send_bytes)?;
    for _ in 1..frames / TURN_FRAMES {
        send_in_pieces(&stream, &frames_encoded.turn, send_bytes)?;
    }
    send_in_pieces(&stream, &frames_encoded.empty, send_bytes)?;
    stream.shutdown(Shutdown::Write)?;
    if stream.read(&mut [0])? != 0 {
        bail!("the server answered, although nothing was asked");
    }
    signal_parent(DONE)
}

/// The role of a client process that reports as fast as it can, large pieces to a send(), until its parent ends it.
pub(super) fn flood(socket: &Path) -> anyhow::Result<()> {
    let Turn { fill, turn, .. } = Turn::encode()?;
    let stream = connect(socket)?;
    send_in_pieces(&stream, &fill, fill.len())?;
    let turns = turn.repeat(FLOOD_TURNS);
    loop {
        send_in_pieces(&stream, &turns, turns.len())?;
    }
}

/// Reports as [`send_frames`] does, through a ring.
pub(super) fn report_in_ring(socket: &Path, reports: u64) -> anyhow::Result<()> {
    let client = ring_client(socket)?;
    signal_parent(READY)?;
    io::stdin().read_to_end(&mut Vec::new())?;

    let ids = 0..WORKING_SET;
    ids.clone().for_each(|id| client.allocated(0, BufferType::Dram, id, BUFFER_BYTES));
    for _ in 1..reports / TURN_FRAMES {
        for id in ids.clone() {
            client.freed(0, id);
            client.allocated(0, BufferType::Dram, id, BUFFER_BYTES);
        }
    }
    ids.for_each(|id| client.freed(0, id));
    ensure!(client.flush(ROUND_TIMEOUT), "the daemon does not take what is in the ring");
    signal_parent(DONE)
}

/// A client that has its rings.
pub(super) fn ring_client(socket: &Path) -> anyhow::Result<Client> {
    let client = Client::with_options(Options { socket: socket.to_owned(), ..Options::default() });
    // Of no size, so it is nothing; but it makes the client connect.
    client.freed(0, u64::MAX);
    ensure!(client.flush(ROUND_TIMEOUT), "the daemon does not answer");
    Ok(client)
}

/// The role of a client process that holds buffers: allocates so many, waits for the start, frees them all, and waits until the server
/// has consumed that and closes.
pub(super) fn hold_buffers(socket: &Path, buffers: u64, batch: usize) -> anyhow::Result<()> {
    let mut stream = connect(socket)?;
    let mut bytes = Vec::new();
    let mut send_all = |stream: &UnixStream, kind, size_bytes| -> anyhow::Result<()> {
        for ids in (0..buffers).step_by(batch) {
            bytes.clear();
            for index in ids..buffers.min(ids + batch as u64) {
                bytes.extend_from_slice(&frame(
                    kind,
                    own_pid(),
                    0,
                    (index + 1) * HELD_BUFFER_BYTES,
                    size_bytes,
                ));
            }
            send_in_pieces(stream, &bytes, bytes.len())?;
        }
        Ok(())
    };
    send_all(&stream, Kind::Alloc, HELD_BUFFER_BYTES)?;
    signal_parent(READY)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    send_all(&stream, Kind::Free, 0)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    signal_parent(DONE)
}

fn signal_parent(byte: u8) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(&[byte])?;
    stdout.flush().context("the parent is gone")
}

/// Everything a client sends, encoded before the clock starts.
struct Turn {
    fill: Vec<u8>,
    turn: Vec<u8>,
    empty: Vec<u8>,
}

impl Turn {
    fn encode() -> anyhow::Result<Self> {
        // Unique across the clients, so that the seed's map, keyed by the id alone, holds every buffer as ours does.
        let first_id = u64::from(std::process::id()) << 16;
        let ids = first_id..first_id + WORKING_SET;
        let alloc = |id| frame(Kind::Alloc, own_pid(), 0, id, BUFFER_BYTES);
        let free = |id| frame(Kind::Free, own_pid(), 0, id, 0);
        Ok(Self {
            fill: ids.clone().flat_map(|id| alloc(id).to_vec()).collect(),
            turn: ids.clone().flat_map(|id| [&*free(id), &*alloc(id)].concat()).collect(),
            empty: ids.flat_map(|id| free(id).to_vec()).collect(),
        })
    }
}

/// Connects with bounded reads and writes.
pub(super) fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot connect to the server at {}", socket.display()))?;
    stream.set_write_timeout(Some(ROUND_TIMEOUT))?;
    stream.set_read_timeout(Some(ROUND_TIMEOUT))?;
    Ok(stream)
}

/// The pid of this process as frames carry it.
pub(super) fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_pid()
}

/// A frame about a buffer in DRAM. As with real clients only an allocation says when it happened.
pub(super) fn frame(kind: Kind, process_id: i32, device_id: i32, buffer_id: u64, size_bytes: u64) -> Frame {
    let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp_ns = if kind == Kind::Alloc { since_epoch().as_nanos() as u64 } else { 0 };
    let header =
        Header { process_id, device_id, buffer_id, size_bytes, timestamp_ns, ..Header::request(kind) };
    encode_request(&header, LAYOUT)
}

/// Sends `bytes` with one send() per `piece_bytes`.
fn send_in_pieces(stream: &UnixStream, bytes: &[u8], piece_bytes: usize) -> io::Result<()> {
    for piece in bytes.chunks(piece_bytes) {
        let mut sent = 0;
        while sent < piece.len() {
            sent += send(stream, &piece[sent..], SendFlags::NOSIGNAL)?;
        }
    }
    Ok(())
}
