//! What happens to programs that report: they run out of descriptors, fork in the middle of everything, and report while they end.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ttmem_client::{BufferType, Client, Options};

use super::super::frames::Frame;
use super::super::{PATIENCE, wait_for};

/// What further clients of this process are made with.
static OPTIONS: OnceLock<Options> = OnceLock::new();
/// The client of an `atexit` handler.
static LATE: OnceLock<Client> = OnceLock::new();
/// Bytes of a frame in the protocol's largest layout.
const FRAME_BYTES: usize = 144;
/// Buffers that a child allocates.
const CHILD_BUFFERS: u64 = 20;

pub fn begin(options: &Options) {
    OPTIONS.set(options.clone()).unwrap();
}

pub fn make(client: &Client, words: &[&str]) {
    let number = |index: usize| words[index].parse::<u64>().unwrap();
    match words[0] {
        "descriptors" => allow_descriptors(words[1]),
        "visit" => visit(number(1)),
        "at_thread_end" => at_thread_end(client, number(1)),
        "at_exit" => at_exit(client),
        "storm" => storm(client, number(1), number(2)),
        "bomb" => bomb(number(1)),
        unknown => panic!("{unknown} is no command"),
    }
}

/// Allows so many further descriptors, or as many as there may be.
fn allow_descriptors(further: &str) {
    let limit = getrlimit(Resource::Nofile);
    let current = match further.parse::<u64>() {
        // The lowest that is free; those above it are free too.
        Ok(further) => std::io::pipe().unwrap().0.as_raw_fd() as u64 + further,
        Err(_) => limit.maximum.unwrap_or(1 << 16),
    };
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).unwrap();
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// A client that comes, reports and is dropped; waits until nothing is left of it.
fn visit(count: u64) {
    let before = threads();
    let client = Client::with_options(OPTIONS.get().unwrap().clone());
    (0..count).for_each(|id| client.allocated(5, BufferType::L1, id, 1));
    assert_eq!(threads(), before + 1);
    drop(client);
    wait_for("the client's thread to end", || (threads() == before).then_some(()));
}

/// A thread whose last reports come out of destructors of thread-local values, before and after the library's own.
fn at_thread_end(client: &Client, count: u64) {
    struct Late(Client, u64);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.allocated(0, BufferType::Dram, self.1, 16);
        }
    }
    thread_local! {
        static FIRST: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
        static LAST: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    for thread in 0..count {
        let client = client.clone();
        let work = move || {
            FIRST.set(Some(Late(client.clone(), 3 * thread)));
            client.allocated(0, BufferType::Dram, 3 * thread + 1, 16);
            LAST.set(Some(Late(client.clone(), 3 * thread + 2)));
        };
        std::thread::spawn(work).join().unwrap();
    }
}

/// Reports from a handler that runs when the process exits.
fn at_exit(client: &Client) {
    extern "C" fn report() {
        let Some(client) = LATE.get() else { return };
        (0..100).for_each(|id| client.allocated(6, BufferType::Dram, id, 1));
        client.freed(6, 0);
        client.flush(PATIENCE);
    }
    assert!(LATE.set(client.clone()).is_ok());
    // SAFETY: registers a function that is there to the end.
    assert_eq!(unsafe { libc::atexit(report) }, 0);
}

/// Children that report in their own way, say their pid, and live as long as this process.
fn fork_children(count: u64, report: impl Fn(u64)) {
    let (life, mut end): (PipeWriter, PipeReader) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (writer, reader)
    };
    for number in 0..count {
        // SAFETY: the child uses nothing whose lock another thread may hold: the client is made for that, and the rest is its own.
        match unsafe { libc::fork() } {
            0 => {
                drop(life);
                report(number);
                // Not through Rust's stdout, whose lock the parent may have held; a line of a pipe is written whole.
                let line = format!("{}\n", std::process::id());
                rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
                let _ = end.read(&mut [0]);
                // SAFETY: ends the process without running what belongs to the parent.
                unsafe { libc::_exit(0) };
            }
            child => assert!(child > 0),
        }
    }
    // Open as long as this process lives.
    std::mem::forget(life);
}

/// Forks again and again while threads are in the middle of reports.
fn storm(client: &Client, threads: u64, forks: u64) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let is_over = &is_over;
            scope.spawn(move || {
                for id in thread << 32.. {
                    client.allocated(0, BufferType::L1, id, 8);
                    client.freed(0, id);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        fork_children(forks, |number| {
            (0..CHILD_BUFFERS).for_each(|id| client.allocated(1, BufferType::Dram, id, 1000 + number));
            (0..CHILD_BUFFERS / 2).for_each(|id| client.freed(1, id));
            assert!(client.flush(PATIENCE));
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Children that share their parent's socket, as programs did before there was a library: whole frames with their own pids.
fn bomb(forks: u64) {
    let socket = UnixStream::connect(&OPTIONS.get().unwrap().socket).unwrap();
    let own =
        |frame: Frame| Frame { process_id: std::process::id().cast_signed(), ..frame }.bytes(FRAME_BYTES);
    (&socket).write_all(&own(Frame::alloc(1, 5000, 1))).unwrap();
    fork_children(forks, |number| {
        for id in 0..CHILD_BUFFERS {
            (&socket).write_all(&own(Frame::alloc(1, 1000 + number, id))).unwrap();
        }
        for id in 0..CHILD_BUFFERS / 2 {
            (&socket).write_all(&own(Frame::free(1, id))).unwrap();
        }
    });
    std::mem::forget(socket);
}
