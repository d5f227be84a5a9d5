//! The daemon's supervisor: starts it, ends it, and keeps its connections meanwhile as systemd does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};

use super::http;

/// Where descriptors wait on their way into the daemon: above all numbers at which they are to arrive.
const PARKING: i32 = 2000;
/// Where the first of them arrives; systemd's own convention.
const FIRST_PASSED: i32 = 3;
/// A daemon that does not answer by then, or does not end, is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// What one message to the supervisor may say.
const MESSAGE_BYTES_MAX: usize = 4096;
/// The smallest journal, so that checkpoints are made while the soak lasts.
const JOURNAL_BYTES: &str = "16777216";

/// Starts and ends the daemon.
pub(super) struct Supervisor {
    directory: PathBuf,
    listener: UnixListener,
    store: Arc<Store>,
    child: Option<Child>,
}

/// What the daemon has given away to be kept, by name.
struct Store {
    notify: UnixDatagram,
    kept: Mutex<BTreeMap<String, Vec<OwnedFd>>>,
}

impl Supervisor {
    /// Starts a daemon whose sockets, state and log are in a directory.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Supervisor> {
        let listener = UnixListener::bind(directory.join("socket"))?;
        let notify = UnixDatagram::bind(directory.join("notify"))?;
        let store = Arc::new(Store { notify, kept: Mutex::default() });
        let taker = Arc::clone(&store);
        // Few messages fit into a socket, and the daemon waits when it is full.
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            while poll(&mut [PollFd::new(&taker.notify, PollFlags::IN)], None).is_ok() {
                taker.take_all();
            }
        })?;
        let mut supervisor = Supervisor { directory: directory.to_owned(), listener, store, child: None };
        supervisor.launch()?;
        supervisor.wait_until_ready()?;
        Ok(supervisor)
    }

    /// Where clients report.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Where HTTP is served.
    pub(super) fn http(&self) -> PathBuf {
        self.directory.join("http")
    }

    /// Starts the daemon, and does not wait for it.
    pub(super) fn launch(&mut self) -> anyhow::Result<()> {
        let mut names = vec!["ttmem-allocations".to_owned()];
        let mut parked = vec![park(&self.listener)?];
        for (name, descriptors) in &*self.store.kept() {
            for descriptor in descriptors {
                names.push(name.clone());
                parked.push(park(descriptor)?);
            }
        }
        let numbers: Vec<String> = parked.iter().map(|parked| parked.as_raw_fd().to_string()).collect();
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        for variable in own_variables() {
            command.env_remove(variable);
        }
        let child = command
            .args(["soak", "--role", "daemon", "--descriptors", &numbers.join(","), "--directory"])
            .arg(&self.directory)
            .env("NOTIFY_SOCKET", self.directory.join("notify"))
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the daemon")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the daemon answers over HTTP.
    pub(super) fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while http::get(&self.http(), "/-/ready").is_err() {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("the daemon ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("the daemon does not answer");
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Sends the daemon a signal that does not end it.
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Kills it, and gives the instant just before.
    pub(super) fn kill(&mut self) -> anyhow::Result<Instant> {
        let instant = Instant::now();
        let mut child = self.child.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        // What it sent before its end counts.
        self.store.take_all();
        Ok(instant)
    }

    /// Ends it as an upgrade does.
    pub(super) fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let mut child = self.child.take().context("the daemon does not run")?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("the daemon does not end on SIGTERM");
            }
            thread::sleep(LOOK_INTERVAL);
        }
        self.store.take_all();
        Ok(())
    }

    /// The memory that the daemon has at this moment.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let kilobytes = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        Ok(1024 * kilobytes.context("the kernel does not say how much memory the daemon has")?)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        self.child.as_ref().map(Pid::from_child).context("the daemon does not run")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Store {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Vec<OwnedFd>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the daemon has sent so far. Under the lock, so that whoever has it next finds everything in its place.
    fn take_all(&self) {
        let mut kept = self.kept();
        while self.take(&mut kept).is_ok() {}
    }

    fn take(&self, kept: &mut BTreeMap<String, Vec<OwnedFd>>) -> io::Result<()> {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let received =
            recvmsg(&self.notify, &mut into, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC)?;
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors: Vec<OwnedFd> = descriptors.flatten().collect();
        let text = String::from_utf8_lossy(&bytes[..received.bytes]);
        let has = |line: &str| text.lines().any(|known| known == line);
        let Some(name) = text.lines().find_map(|line| line.strip_prefix("FDNAME=")) else { return Ok(()) };
        if has("FDSTORE=1") {
            kept.entry(name.to_owned()).or_default().extend(descriptors);
        } else if has("FDSTOREREMOVE=1") {
            kept.remove(name);
        }
        Ok(())
    }
}

/// A copy that a child inherits.
fn park(descriptor: impl AsFd) -> io::Result<OwnedFd> {
    let copy = fcntl_dupfd_cloexec(descriptor, PARKING)?;
    fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

/// The environment's own settings for a daemon, which are not for this one.
fn own_variables() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.to_str().is_some_and(|name| name.starts_with("TTMEM_")))
}

/// Puts the descriptors where a daemon expects them, and becomes one.
pub(super) fn become_daemon(directory: &Path, descriptors: &str) -> anyhow::Result<()> {
    for (number, place) in descriptors.split(',').zip(FIRST_PASSED..) {
        let number: i32 = number.parse().context("--descriptors: numbers are expected")?;
        #[allow(unsafe_code, reason = "a descriptor that comes by its number has no owner to ask")]
        // SAFETY: this process has just begun and is about to become another: nothing in it owns either of the two numbers, and what
        // is not open is an error of the calls.
        let moved = unsafe {
            libc::dup2(number, place) >= 0 && libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) >= 0
        };
        if !moved {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("cannot pass descriptor {number}"));
        }
    }
    let mut listen = OsString::from("unix:");
    listen.push(directory.join("http"));
    let error = Command::new(std::env::current_exe()?)
        .args(["serve", "--shm-dir", "none", "--state-journal-bytes-max", JOURNAL_BYTES, "--state-dir"])
        .arg(directory.join("state"))
        .arg("--listen")
        .arg(listen)
        .env("TTMEM_DRIVER_PROC_DIR", "none")
        .env("TTMEM_DRIVER_SYS_DIR", "none")
        .env("LISTEN_PID", id().to_string())
        .current_dir(directory)
        .exec();
    Err(error).context("cannot start `ttmem serve`")
}
