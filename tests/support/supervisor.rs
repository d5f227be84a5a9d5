//! What systemd does for a service whose connections outlive it: it passes sockets at every start, and keeps what the service sends it.
//!
//! It is as strict as the real one where that matters: descriptors are kept by name, they are given back at the next start, and what the
//! daemon has sent before it was killed counts.

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use super::{Directory, LOOK_INTERVAL, Metrics, PATIENCE, Response, log_lines, request, ttmem, wait_for};

/// Passed descriptors are copied here first, above all numbers at which they are to arrive.
const PARKING: i32 = 500;

/// What the daemon has sent to be kept, by name.
struct Store {
    notify: UnixDatagram,
    kept: Mutex<BTreeMap<String, Vec<OwnedFd>>>,
    is_deaf: AtomicBool,
    is_over: AtomicBool,
}

/// A daemon under a supervisor, both in a directory of the test's own.
pub struct Supervised {
    directory: Directory,
    listener: UnixListener,
    store: Arc<Store>,
    arguments: Vec<String>,
    child: Option<Child>,
    http: Option<SocketAddr>,
    starts: u32,
}

impl Supervised {
    /// Starts a daemon that keeps its state.
    pub fn start(arguments: &[&str]) -> Supervised {
        let directory = Directory::new();
        let listener = UnixListener::bind(directory.join("socket")).unwrap();
        let notify = UnixDatagram::bind(directory.join("notify")).unwrap();
        notify.set_nonblocking(true).unwrap();
        let (kept, is_deaf, is_over) = (Mutex::default(), AtomicBool::new(false), AtomicBool::new(false));
        let store = Arc::new(Store { notify, kept, is_deaf, is_over });
        // The real one listens all the time, and few messages fit into its socket.
        std::thread::spawn({
            let store = Arc::clone(&store);
            move || {
                while !store.is_over.load(Ordering::Relaxed) {
                    store.take();
                    std::thread::sleep(LOOK_INTERVAL);
                }
            }
        });
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut supervised =
            Supervised { directory, listener, store, arguments, child: None, http: None, starts: 0 };
        supervised.launch();
        supervised.wait_until_ready();
        supervised
    }

    /// Starts the daemon, and does not wait for it.
    pub fn launch(&mut self) {
        self.starts += 1;
        let log = fs::File::create(self.directory.join("log")).unwrap();
        let mut names = vec!["ttmem-allocations".to_owned()];
        let mut parked = vec![park(&self.listener)];
        for (name, descriptors) in &*self.store.kept.lock().unwrap() {
            for descriptor in descriptors {
                names.push(name.clone());
                parked.push(park(descriptor));
            }
        }
        // The shell puts each where it is expected, and becomes the daemon, whose number it knows.
        let moves = parked
            .iter()
            .zip(3..)
            .map(|(from, to)| format!("{to}<&{} {}<&-", from.as_raw_fd(), from.as_raw_fd()));
        let script =
            format!("export LISTEN_PID=$$; exec \"$0\" \"$@\" {}", moves.collect::<Vec<_>>().join(" "));
        let program = ttmem();
        let mut command = Command::new("bash");
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command
            .arg("-c")
            .arg(script)
            .arg(program.get_program())
            .args(["serve", "--listen", "127.0.0.1:0", "--shm-dir", "none", "--state-dir"])
            .arg(self.directory.join("state"))
            .args(&self.arguments)
            .envs([("TTMEM_DRIVER_PROC_DIR", "none"), ("TTMEM_DRIVER_SYS_DIR", "none")])
            .env("NOTIFY_SOCKET", self.directory.join("notify"))
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.http = None;
    }

    /// Waits until the daemon answers.
    pub fn wait_until_ready(&mut self) {
        let http = wait_for("the daemon to listen", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", self.log_text());
            }
            let line =
                log_lines(self.directory.path()).into_iter().find(|line| line["message"] == "listening")?;
            line["address"].as_str()?.parse().ok()
        });
        self.http = Some(http);
    }

    /// Ends the daemon as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.store.take();
    }

    /// Ends it as an upgrade does.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        super::send_signal(child.id(), rustix::process::Signal::TERM);
        wait_for("the daemon to end", || child.try_wait().unwrap());
        self.store.take();
    }

    /// From now on it hears nothing of what the daemon sends, or all of it again.
    pub fn be_deaf(&self, is_deaf: bool) {
        self.store.is_deaf.store(is_deaf, Ordering::Relaxed);
        // Whoever has it is in the middle of listening.
        drop(self.store.kept.lock().unwrap());
    }

    /// How many descriptors are kept.
    pub fn kept(&self) -> usize {
        self.store.take();
        self.store.kept.lock().unwrap().values().map(Vec::len).sum()
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.join("socket")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Response {
        let text = format!("GET {path} HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\n\r\n");
        request(self.http.unwrap(), &text)
    }

    pub fn metrics(&self) -> Metrics {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200);
        Metrics::parse(&response.body)
    }

    pub fn log(&self) -> Vec<Value> {
        log_lines(self.directory.path())
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.store.is_over.store(true, Ordering::Relaxed);
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("start {}; the daemon's log:\n{}", self.starts, self.log_text());
        }
    }
}

impl Store {
    /// Takes what the daemon has sent so far.
    fn take(&self) {
        let mut kept = self.kept.lock().unwrap();
        let mut bytes = [0; 4096];
        while !self.is_deaf.load(Ordering::Relaxed) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let Ok(received) = recvmsg(&self.notify, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) else {
                return;
            };
            let descriptors: Vec<OwnedFd> = control
                .drain()
                .filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                    _ => None,
                })
                .flatten()
                .collect();
            let text = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
            let has = |line: &str| text.lines().any(|known| known == line);
            let name =
                text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
            if has("FDSTORE=1") {
                assert!(has("FDPOLL=0"), "systemd drops a connection whose client has gone: {text}");
                kept.entry(name).or_default().extend(descriptors);
            } else if has("FDSTOREREMOVE=1") {
                kept.remove(&name);
            }
        }
    }
}

/// A copy that a child inherits.
fn park(descriptor: impl AsFd) -> OwnedFd {
    let copy = fcntl_dupfd_cloexec(descriptor, PARKING).unwrap();
    fcntl_setfd(&copy, FdFlags::empty()).unwrap();
    copy
}
