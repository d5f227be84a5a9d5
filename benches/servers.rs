//! The servers under measurement, each a child process that ends with the value that owns it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use super::Bench;
use super::http::Http;
use super::measure;

/// How the names of the daemon's threads begin that read reports.
const INGEST_THREADS: &str = "ttmem-ingest-";

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long the daemon's counters may lag behind the EOF that says everything was consumed.
const COUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// The daemon's own count, and nothing else: with many series the rest would take longer than what is measured.
const EVENTS_PATH: &str = "/metrics?name[]=ttmem_events_total";

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Limit,
    Ttmem,
    /// The daemon, believing whatever pid a frame claims, and showing all of them.
    TtmemTrusting,
    /// The daemon with the limits on reports that it has by default.
    TtmemLimited,
    /// The daemon, exporting to a collector at that address.
    TtmemExporting(SocketAddr),
    /// The same, with a span for every buffer.
    TtmemTelling(SocketAddr),
    Seed,
    Blocking,
    /// The same answers from one thread around epoll.
    Epoll,
}

impl Subject {
    /// What the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Ttmem | Self::TtmemTrusting => "ttmem",
            Self::TtmemLimited => "limited",
            Self::TtmemExporting(_) => "exporting",
            Self::TtmemTelling(_) => "telling",
            Self::Seed => "seed",
            Self::Blocking => "blocking",
            Self::Epoll => "epoll",
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::Ttmem
            | Self::TtmemTrusting
            | Self::TtmemLimited
            | Self::TtmemExporting(_)
            | Self::TtmemTelling(_) => "daemon",
            yardstick => yardstick.name(),
        }
    }
}

/// A running server that accepts connections on `socket`.
pub(super) struct Server {
    pub(super) subject: Subject,
    pub(super) socket: PathBuf,
    child: OwnedChild,
    /// Where the daemon serves HTTP; the yardsticks do not.
    http: Option<SocketAddr>,
}

impl Server {
    pub(super) fn start(bench: &Bench, subject: Subject) -> anyhow::Result<Self> {
        let socket = bench.directory.path().join(format!("{}.socket", subject.name()));
        let log = bench.directory.path().join(format!("{}.log", subject.name()));
        let mut command = Command::new(&bench.exe);
        command
            .args(["bench", "--role", subject.role(), "--socket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        match subject {
            Subject::Limit | Subject::Blocking | Subject::Epoll | Subject::Ttmem => {}
            Subject::TtmemTrusting => {
                command.args(["--", "--trust-claimed-pids", "--processes-max", "100000"]);
            }
            Subject::TtmemLimited => {
                command.args(["--", UNLIMITED[0], "1000000", UNLIMITED[1], "4000000"]);
            }
            Subject::TtmemExporting(collector) => {
                command.args(["--", "--otlp-endpoint", &format!("http://{collector}")]);
            }
            Subject::TtmemTelling(collector) => {
                command.args(["--", "--otlp-endpoint", &format!("http://{collector}")]);
                command.args(["--span-size-min-bytes", "0", "--span-lifetime-min-ms", "0"]);
                command.args(["--spans-per-second-max", "1000000"]);
            }
            Subject::Seed => {
                let lines = bench.directory.path().join("seed.lines");
                command.stdout(File::create(&lines)?);
                // Only the seed itself still has it open: nothing is left behind, whatever ends this run.
                fs::remove_file(&lines)?;
            }
        }
        let mut child = OwnedChild::spawn(&mut command)?;
        let http = match subject {
            Subject::Ttmem
            | Subject::TtmemTrusting
            | Subject::TtmemLimited
            | Subject::TtmemExporting(_)
            | Subject::TtmemTelling(_) => Some(child.until_ready(&log, || listening_address(&log))?),
            Subject::Limit | Subject::Seed | Subject::Blocking | Subject::Epoll => None,
        };
        child.until_ready(&log, || UnixStream::connect(&socket).ok())?;
        Ok(Self { subject, socket, child, http })
    }

    /// Processor time, user and system, that the server has used so far.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        measure::cpu_seconds(self.child.id())
    }

    /// The same to the nanosecond, for the daemon, whose threads do not end.
    pub(super) fn cpu_seconds_exact(&self) -> anyhow::Result<f64> {
        measure::cpu_seconds_of_threads(self.child.id(), "")
    }

    /// The same of the daemon's threads that read reports.
    pub(super) fn ingest_cpu_seconds(&self) -> anyhow::Result<f64> {
        measure::cpu_seconds_of_threads(self.child.id(), INGEST_THREADS)
    }

    /// The memory the server has resident now.
    pub(super) fn resident_mb(&self) -> anyhow::Result<f64> {
        measure::resident_mb(self.child.id())
    }

    /// The most memory the server has had resident.
    pub(super) fn peak_resident_mb(&self) -> anyhow::Result<f64> {
        measure::peak_resident_mb(self.child.id())
    }

    /// A connection to the daemon's HTTP side.
    pub(super) fn http(&self) -> anyhow::Result<Http> {
        let address = self.http.with_context(|| format!("`{}` serves no HTTP", self.subject.name()))?;
        Http::connect(address)
    }

    /// How many events the server says it has counted; `None` for a server that does not count.
    pub(super) fn counted(&self) -> anyhow::Result<Option<u64>> {
        match self.http {
            Some(_) => Ok(Some(counted_events(self.http()?.get(EVENTS_PATH)?)?)),
            None => Ok(None),
        }
    }

    /// Fails unless the server counted exactly `sent` events since it had counted `before`: the speed of a server that
    /// loses reports means nothing.
    pub(super) fn expect_counted(&self, before: Option<u64>, sent: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + COUNT_TIMEOUT;
        while let Some(before) = before {
            let counted = self.counted()?.unwrap_or(before) - before;
            if counted == sent {
                break;
            }
            ensure!(
                counted < sent && Instant::now() < deadline,
                "{sent} events were sent, but the daemon counted {counted}"
            );
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.end();
        let _ = fs::remove_file(&self.socket);
    }
}

/// What the daemon can do is measured, not what it may: without a limit, unless a row is about that.
const UNLIMITED: [&str; 2] = ["--connection-reports-per-second-max", "--user-reports-per-second-max"];

/// Becomes the daemon. The process was started in the role of one so that it dies with its parent: what the parent's
/// death sends survives exec().
pub(super) fn become_daemon(socket: &Path, extra: &[&String]) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    for variable in own_variables() {
        command.env_remove(variable);
    }
    let limits = UNLIMITED.iter().filter(|limit| !extra.iter().any(|said| said == *limit));
    let without_limits = limits.flat_map(|limit| [*limit, "0"]);
    let error = command
        .args(["serve", "--listen", "127.0.0.1:0", "--shm-dir", "none", "--socket"])
        .arg(socket)
        .args(without_limits)
        .args(extra)
        .exec();
    Err(anyhow!(error).context("cannot start `ttmem serve`"))
}

/// The environment's own settings for a daemon, which must not reach the one that is measured.
fn own_variables() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_some_and(|name| name.starts_with("TTMEM_")))
}

/// The HTTP address that the daemon has logged, once it has.
fn listening_address(log: &Path) -> Option<SocketAddr> {
    fs::read_to_string(log).ok()?.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fields = line.get("fields").unwrap_or(&line);
        if fields.get("message")?.as_str()? != "listening" {
            return None;
        }
        fields.get("address")?.as_str()?.parse().ok()
    })
}

/// Allocations and frees together, from the text of /metrics.
fn counted_events(metrics: &str) -> anyhow::Result<u64> {
    let mut counted = 0.0;
    for line in metrics.lines() {
        let Some(sample) = line.strip_prefix("ttmem_events_total{") else {
            continue;
        };
        let (labels, value) = sample.split_once("} ").context("a sample without a value")?;
        if labels.contains("kind=\"alloc\"") || labels.contains("kind=\"free\"") {
            counted += value.trim().parse::<f64>()?;
        }
    }
    Ok(counted as u64)
}

/// A child process that is killed, if it still runs, when its owner goes.
pub(super) struct OwnedChild(Child);

impl OwnedChild {
    pub(super) fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(command.spawn().context("cannot start a child process")?))
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for a child that is about to end by itself.
    pub(super) fn expect_success(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "a child process failed: {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "a child process does not end");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Asks `ready` until it has an answer, the child ends or time is up.
    fn until_ready<T>(&mut self, log: &Path, ready: impl Fn() -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(answer) = ready() {
                return Ok(answer);
            }
            let said = || fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = self.0.try_wait()? {
                bail!("the server ended at once ({status}): {}", said());
            }
            ensure!(Instant::now() < deadline, "the server is not ready in time: {}", said());
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for OwnedChild {
    fn drop(&mut self) {
        self.end();
    }
}
