//! What the end-to-end tests stand on: the real daemon on a socket and a port of its own, and real peers beside it.
//!
//! Nothing here imports the daemon's code: a test sees what a user sees.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on should say where"
)]

pub mod alertmanager;
pub mod boards;
pub mod certificates;
pub mod cgroup;
pub mod exposition;
pub mod frames;
pub mod mapped;
pub mod mock;
pub mod otlp;
pub mod preload;
pub mod prometheus;
pub mod raw_rings;
pub mod regions;
pub mod reporter;
pub mod rules;
pub mod supervisor;
pub mod trace;
pub mod victoria_metrics;
pub mod web;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Bounds every wait for something that has to come: far beyond what it takes, so that only its absence fails a test.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that is awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks again and again until something is there.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// A directory that is removed with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ttmem-test-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program under test, copied to `target`. By a process of its own: what this one has open for writing, a child that another
/// test starts at that moment has open as well, and a file that is open for writing cannot be executed.
pub fn copy_ttmem(target: &Path) {
    let status = Command::new("cp").arg(env!("CARGO_BIN_EXE_ttmem")).arg(target).status().unwrap();
    assert!(status.success(), "cp to {}: {status}", target.display());
}

/// The program under test.
pub fn ttmem() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttmem"));
    for (name, _) in std::env::vars_os() {
        if ["TTMEM_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// A running daemon, ended with the test.
pub struct Daemon {
    child: Child,
    directory: Directory,
    http: SocketAddr,
}

impl Daemon {
    /// Starts one that reads no regions.
    pub fn start(arguments: &[&str]) -> Daemon {
        let directory = Directory::new();
        fs::create_dir(directory.join("shm")).unwrap();
        Daemon::start_in(directory, arguments)
    }

    /// Starts one in a directory that may hold a configuration, and regions in `shm`.
    pub fn start_in(directory: Directory, arguments: &[&str]) -> Daemon {
        let shm = directory.join("shm");
        Daemon::launch(ttmem(), directory, &shm, arguments)
    }

    /// Starts one by a command of the test's own, with its regions anywhere.
    pub fn launch(mut program: Command, directory: Directory, shm: &Path, arguments: &[&str]) -> Daemon {
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut child = program
            .current_dir(directory.path())
            // This host's own cards are nothing to the tests.
            .envs([("TTMEM_DRIVER_PROC_DIR", "none"), ("TTMEM_DRIVER_SYS_DIR", "none")])
            .args(["serve", "--listen", "127.0.0.1:0", "--socket"])
            .arg(directory.join("socket"))
            .arg("--shm-dir")
            .arg(shm)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = wait_for("the daemon to listen", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!(
                    "the daemon ended with {status}: {}",
                    fs::read_to_string(directory.join("log")).unwrap()
                );
            }
            let line = log_lines(directory.path()).into_iter().find(|line| line["message"] == "listening")?;
            line["address"].as_str()?.parse().ok()
        });
        Daemon { child, directory, http }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub fn shm(&self) -> PathBuf {
        self.directory.join("shm")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn http(&self) -> SocketAddr {
        self.http
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Response {
        request(self.http, &format!("GET {path} HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\n\r\n"))
    }

    pub fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.body);
        serde_json::from_str(&response.body).unwrap()
    }

    pub fn metrics(&self) -> Metrics {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200);
        Metrics::parse(&response.body)
    }

    /// Scrapes until the metrics are as they should be.
    pub fn wait_for_metrics(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        wait_for(what, || Some(self.metrics()).filter(|metrics| is_so(metrics)))
    }

    pub fn log(&self) -> Vec<Value> {
        log_lines(self.directory.path())
    }

    pub fn wait_for_log(&self, message: &str) -> Value {
        wait_for(message, || self.log().into_iter().find(|line| line["message"] == message))
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(self.child.id(), signal);
    }

    /// Keeps it from running until [`Daemon::thaw`]: what happens in between, it finds all at once.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait_for("all of the daemon's threads to stop", || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            let mut states = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")));
            states.all(|stat| stat.is_ok_and(|stat| stat.contains(") T "))).then_some(())
        });
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as the kernel's out-of-memory killer would, and gives the directory with all that it leaves behind.
    pub fn kill(mut self) -> Directory {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.directory, Directory::new())
    }

    /// Waits for the daemon to end by itself.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        wait_for("the daemon to end", || child.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!(
                "the daemon's log ends with:\n{}",
                log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
            );
        }
    }
}

pub fn send_signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

fn log_lines(directory: &Path) -> Vec<Value> {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    // The last line may not be whole yet.
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends bytes as they are and reads until the server closes.
pub fn request(address: SocketAddr, text: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    // What is compressed is no text, and its head is all that a test looks at.
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default().parse().unwrap_or(0);
    let mut response = Response { status, head: head.to_owned(), body: body.to_owned() };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = joined(body);
    }
    response
}

/// The text of a chunked body; an answer that breaks off has no last chunk, and fails the test.
fn joined(mut chunks: &str) -> String {
    let mut text = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").expect("a chunk begins with its length");
        let (chunk, rest) = rest.split_at(usize::from_str_radix(length, 16).expect("in hexadecimal"));
        text.push_str(chunk);
        chunks = rest.strip_prefix("\r\n").expect("a chunk ends where it says");
        if chunk.is_empty() {
            return text;
        }
    }
}

/// The samples of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub text: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Metrics {
    /// Reads the text format, for label values without escapes.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap().split("\",").filter(|label| !label.is_empty());
            let labels = labels.map(|label| {
                let (name, value) = label.split_once("=\"").unwrap();
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (name.to_owned(), labels.collect(), value.parse().unwrap())
        });
        Metrics { text: text.to_owned(), samples: samples.collect() }
    }

    /// The values of the series of that name that have all these labels.
    pub fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let found = self.samples.iter().filter(|(known, known_labels, _)| {
            known == name
                && labels
                    .iter()
                    .all(|(label, value)| known_labels.get(*label).is_some_and(|known| known == value))
        });
        found.map(|(_, _, value)| *value).collect()
    }

    /// The value of the only such series, or `None` where there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let values = self.values(name, labels);
        assert!(values.len() <= 1, "{name} {labels:?} is ambiguous: {values:?}");
        values.first().copied()
    }

    /// The sum over such series.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.values(name, labels).iter().sum()
    }

    /// What a device holds in a memory type.
    pub fn usage(&self, device: u16, memory_type: &str) -> Option<f64> {
        let device = device.to_string();
        self.value("ttmem_device_memory_usage_bytes", &[("device", &device), ("memory_type", memory_type)])
    }

    /// What a process holds on a device in a memory type.
    pub fn process_usage(&self, pid: u32, device: u16, memory_type: &str) -> Option<f64> {
        let (pid, device) = (pid.to_string(), device.to_string());
        let labels = [("pid", pid.as_str()), ("device", &device), ("memory_type", memory_type)];
        self.value("ttmem_process_memory_usage_bytes", &labels)
    }

    pub fn events(&self, kind: &str) -> f64 {
        self.value("ttmem_events_total", &[("kind", kind)]).unwrap()
    }

    pub fn rejected(&self, reason: &str) -> f64 {
        self.value("ttmem_events_rejected_total", &[("reason", reason)]).unwrap()
    }

    /// Every device's usage is the sum of its processes'.
    pub fn assert_adds_up(&self) {
        for (name, labels, value) in &self.samples {
            if name == "ttmem_device_memory_usage_bytes" {
                let labels: Vec<_> =
                    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                assert_eq!(self.sum("ttmem_process_memory_usage_bytes", &labels), *value, "{labels:?}");
            }
        }
    }
}

/// A peer that is driven by JSON lines: it answers each on its standard output.
pub struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(command: &mut Command) -> Peer {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
                panic!("{command:?}: {error}; tests/run installs what the tests need")
            });
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, input, output }
    }

    /// One of the field's clients: seed, python or metal.
    pub fn field_client(daemon: &Daemon, client: &str) -> Peer {
        let mut peer = Peer::unconnected(daemon);
        peer.ask(&format!(r#"{{"op":"connect","client":"{client}"}}"#));
        peer
    }

    /// The process of one of the field's clients, which has not connected yet.
    pub fn unconnected(daemon: &Daemon) -> Peer {
        Peer::start(
            Command::new("python3")
                .arg(peers().join("field_clients.py"))
                .arg("--socket")
                .arg(daemon.socket()),
        )
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a line and gives the answer, which must say that all is well.
    pub fn ask(&mut self, line: &str) -> Value {
        let answer = self.ask_anything(line);
        assert_eq!(answer["ok"], true, "{line}: {answer}");
        answer
    }

    /// Sends a line and gives the answer, whatever it says.
    pub fn ask_anything(&mut self, line: &str) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {answer:?}: {error}"))
    }

    /// Ends it as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it end by itself.
    pub fn finish(&mut self) {
        self.input = None;
        let child = &mut self.child;
        wait_for("a peer to end", || child.try_wait().unwrap());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the peers' scripts are.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// Where `tests/run` installs the peers that are not ours.
pub fn installed() -> PathBuf {
    std::env::var_os("TTMEM_TEST_PEERS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from)
}

/// One of those; without it the test fails.
pub fn installed_peer(path: &str) -> PathBuf {
    let peer = installed().join(path);
    assert!(
        peer.exists(),
        "{} is missing: run tests/run, which installs what the tests need",
        peer.display()
    );
    peer
}
