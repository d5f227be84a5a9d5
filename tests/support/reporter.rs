//! A process that reports with the client library, driven by lines: the test program itself, started once more.
//!
//! Each test program that uses it has a test of the name [`ENTRY`], which calls [`serve_if_asked`].

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ttmem_client::{BufferType, Client, KernelKind, Options, Overrun, TraceContext};

use super::{PATIENCE, wait_for};

mod trouble;

/// The test that becomes the reporter.
pub const ENTRY: &str = "a_reporter_answers";

const SOCKET: &str = "TTMEM_REPORTER_SOCKET";
const OPTIONS: &str = "TTMEM_REPORTER_OPTIONS";

/// The reporter, seen from the test.
pub struct Reporter {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Reporter {
    /// Starts one; the options are words: `frames`, `drop`, `records=N`.
    pub fn start(socket: &Path, options: &str) -> Reporter {
        Reporter::with_environment(socket, options, &[])
    }

    /// The same, with variables of the test's own.
    pub fn with_environment(socket: &Path, options: &str, variables: &[(&str, &str)]) -> Reporter {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ENTRY, "--nocapture", "--quiet"])
            .env(SOCKET, socket)
            .env(OPTIONS, options)
            .env_remove("TRACEPARENT")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut reporter = Reporter { child, input, output };
        // What the test program says about itself comes first.
        while reporter.line() != "ready" {}
        reporter
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something, and gives its answer. What begins with `second` is done by the second of its clients.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.line()
    }

    /// Has it do something that it does not answer.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// Waits until the daemon has taken all that it has reported.
    pub fn flush(&mut self) {
        assert_eq!(self.ask("flush"), "true");
    }

    /// The same for both of its clients.
    pub fn flush_both(&mut self) {
        self.flush();
        assert_eq!(self.ask("second flush"), "true");
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "the reporter has ended");
        line.trim_end().to_owned()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end by itself.
    pub fn finish(&mut self) {
        self.input = None;
        let child = &mut self.child;
        let status = wait_for("the reporter to end", || child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes the reporter if this process was started as one; then it does not come back.
pub fn serve_if_asked() {
    let (Some(socket), Ok(words)) = (std::env::var_os(SOCKET), std::env::var(OPTIONS)) else { return };
    let mut options = Options { socket: socket.into(), ..Options::default() };
    for word in words.split_whitespace() {
        match word.split_once('=') {
            None if word == "frames" => options.uses_rings = false,
            None if word == "drop" => options.overrun = Overrun::Drop,
            Some(("records", records)) => options.ring_records = records.parse().unwrap(),
            _ => panic!("{word} is no option"),
        }
    }
    trouble::begin(&options);
    let client = Client::with_options(options.clone());
    // Another client of the same process, which does nothing before it is asked to.
    let second = Client::with_options(options);
    answer("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.strip_prefix("second ") {
            Some(line) => act(&second, line),
            None => act(&client, &line),
        }
    }
    drop((client, second));
    std::process::exit(0);
}

fn answer(line: &str) {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").unwrap();
    output.flush().unwrap();
}

fn act(client: &Client, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| words[index].parse::<u64>().unwrap();
    match words[0] {
        "allocate" => {
            let (device, first, count, size) = (number(1) as u16, number(2), number(3), number(4));
            (first..first + count).for_each(|id| client.allocated(device, BufferType::Dram, id, size));
        }
        "free" => {
            let (device, first, count) = (number(1) as u16, number(2), number(3));
            (first..first + count).for_each(|id| client.freed(device, id));
        }
        "all_kinds" => all_kinds(client),
        "threads" => threads(client, number(1), number(2)),
        "handover" => handover(client, number(1), number(2)),
        "churn" => churn(client, number(1), Path::new(words[2])),
        "trace" => client.trace_context(TraceContext::parse(words[1]).unwrap()),
        "fork" => return fork(client),
        "flush" => return answer(&client.flush(PATIENCE).to_string()),
        "flush_briefly" => return answer(&client.flush(Duration::from_millis(50)).to_string()),
        "statistics" => return answer(&format!("{:?}", client.statistics())),
        _ => trouble::make(client, &words),
    }
    answer("done");
}

/// One of each, all still held afterwards but what was freed.
fn all_kinds(client: &Client) {
    for (id, buffer_type) in BufferType::ALL.into_iter().enumerate() {
        client.allocated(1, buffer_type, id as u64, 1000 + id as u64);
        client.allocated(2, buffer_type, id as u64, 10);
        client.freed(2, id as u64);
    }
    client.allocated(1, BufferType::Dram, 0, 1000);
    client.circular_buffer_allocated(1, 64);
    client.circular_buffer_allocated(1, 36);
    client.circular_buffer_freed(1, 64);
    client.allocation_failed(1, BufferType::L1, 4096, 5000, 100);
    for kind in KernelKind::ALL {
        client.kernel_loaded(1, kind, 7);
        client.kernel_loaded(1, kind, 8);
        client.kernel_unloaded(1, kind, 7);
    }
}

/// Threads that each allocate a number of buffers and free all but one.
fn threads(client: &Client, threads: u64, count: u64) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for id in thread << 32..(thread << 32) + count {
                    client.allocated(0, BufferType::L1, id, 8);
                    if id & 0xffff_ffff != 0 {
                        client.freed(0, id);
                    }
                }
            });
        }
    });
}

/// Pairs of threads: what the one allocates the other frees at once, and each id is used again and again.
fn handover(client: &Client, pairs: u64, count: u64) {
    std::thread::scope(|scope| {
        for pair in 0..pairs {
            let (give, take) = mpsc::sync_channel(16);
            let (give_back, taken_back) = mpsc::channel();
            scope.spawn(move || {
                for round in 0..count {
                    let id = if round < 16 { (pair << 32) + round } else { taken_back.recv().unwrap() };
                    client.allocated(0, BufferType::Dram, id, 16 + round % 7);
                    give.send(id).unwrap();
                }
            });
            scope.spawn(move || {
                for id in take {
                    client.freed(0, id);
                    let _ = give_back.send(id);
                }
            });
        }
    });
}

/// Allocates and frees until it is killed, and says after each report in a file how many it has made: each thread in its own place.
fn churn(client: &Client, threads: u64, progress: &Path) {
    let words = Arc::new(super::mapped::words(progress));
    for thread in 0..threads {
        let (client, words) = (client.clone(), Arc::clone(&words));
        std::thread::spawn(move || {
            let place: &AtomicU64 = &words[thread as usize * 8];
            for round in 1.. {
                let id = (thread << 32) + (round - 1) / 2 % 100;
                if round % 2 == 1 {
                    client.allocated(0, BufferType::Dram, id, 8);
                } else {
                    client.freed(0, id);
                }
                place.store(round, Ordering::Relaxed);
            }
        });
    }
    answer("churning");
    std::thread::sleep(Duration::MAX);
}

/// A child that reports for itself, and lives until the pipe to it closes.
fn fork(client: &Client) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the child uses nothing whose lock another thread may hold: the client is made for that, and the rest is its own.
    match unsafe { libc::fork() } {
        0 => {
            drop(writer);
            client.allocated(3, BufferType::Dram, 1, 500);
            let is_flushed = client.flush(PATIENCE);
            let text = format!("{} {is_flushed}\n", std::process::id());
            // Not through Rust's stdout, whose lock the parent may have held.
            rustix::io::write(std::io::stdout(), text.as_bytes()).unwrap();
            let _ = std::io::Read::read(&mut reader, &mut [0]);
            // SAFETY: ends the process without running what belongs to the parent.
            unsafe { libc::_exit(0) };
        }
        child => {
            assert!(child > 0);
            // Open as long as this process lives.
            std::mem::forget(writer);
        }
    }
}
