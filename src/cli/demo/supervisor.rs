//! Starts the workers, starts again those that end, and ends them all.

use std::env;
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use super::worker::Role;

/// How often the supervisor looks after its workers.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The pause before a worker starts again after it was killed or left, and after it failed.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// How long workers may take to free what they hold before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the supervisor and its workers say what happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Narration {
    Printed,
    Silent,
}

/// A running demo. It ends, with all its processes, when this value goes.
pub struct Demo {
    /// Never sends: that it goes is the word to stop.
    stop: Option<Sender<()>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Demo {
    /// Starts the workers, which report to `socket` as soon as there is a daemon and say nothing else.
    pub fn start(socket: &Path, devices: u16) -> anyhow::Result<Self> {
        Self::start_with(socket, devices, Narration::Silent)
    }

    pub(super) fn start_with(socket: &Path, devices: u16, narration: Narration) -> anyhow::Result<Self> {
        let exe = env::current_exe().context("cannot tell where this program is")?;
        let mut supervisor = Supervisor {
            exe,
            socket: socket.to_owned(),
            devices,
            narration,
            workers: Role::ALL.map(|role| Worker { role, state: State::Waiting(Instant::now()) }),
        };
        let (stop, stopped) = mpsc::channel();
        // Workers die with the thread that started them, so that has to be one that lasts as long as the demo.
        let supervisor =
            thread::Builder::new().name("demo".to_owned()).spawn(move || supervisor.run(&stopped))?;
        Ok(Self { stop: Some(stop), supervisor: Some(supervisor) })
    }

    /// Ends all workers and waits until they are gone.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

struct Supervisor {
    exe: PathBuf,
    socket: PathBuf,
    devices: u16,
    narration: Narration,
    workers: [Worker; Role::ALL.len()],
}

struct Worker {
    role: Role,
    state: State,
}

enum State {
    Running(Child),
    /// To be started at that time.
    Waiting(Instant),
}

impl Supervisor {
    fn run(&mut self, stopped: &Receiver<()>) {
        loop {
            for index in 0..self.workers.len() {
                self.look_after(index);
            }
            if stopped.recv_timeout(LOOK_INTERVAL) != Err(RecvTimeoutError::Timeout) {
                return self.stop_workers();
            }
        }
    }

    /// Starts a worker whose time has come, and notices when one has ended.
    fn look_after(&mut self, index: usize) {
        let Worker { role, state } = &mut self.workers[index];
        let role = *role;
        let next = match state {
            State::Running(child) => match child.try_wait() {
                Ok(None) => return,
                Ok(Some(status)) => self.ended(role, status),
                Err(_) => State::Waiting(Instant::now() + FAILURE_PAUSE),
            },
            State::Waiting(start_at) if Instant::now() < *start_at => return,
            State::Waiting(_) => self.start(role),
        };
        self.workers[index].state = next;
    }

    fn start(&self, role: Role) -> State {
        let output = match self.narration {
            Narration::Printed => Stdio::inherit(),
            Narration::Silent => Stdio::null(),
        };
        let child = Command::new(&self.exe)
            .args(["demo", "--worker", role.name(), "--devices", &self.devices.to_string(), "--socket"])
            .arg(&self.socket)
            // The end of this pipe tells the worker to stop.
            .stdin(Stdio::piped())
            .stdout(output)
            // Ctrl-C in a terminal reaches a whole process group. Workers are ended by their supervisor instead.
            .process_group(0)
            .spawn();
        match child {
            Ok(child) => {
                self.say(&format!("{} ({}) {}", role.name(), child.id(), role.about()));
                State::Running(child)
            }
            Err(error) => {
                self.say(&format!("{} cannot be started: {error}", role.name()));
                State::Waiting(Instant::now() + FAILURE_PAUSE)
            }
        }
    }

    fn ended(&self, role: Role, status: ExitStatus) -> State {
        let (what, pause) = if status.signal() == Some(Signal::KILL.as_raw()) {
            ("was killed and left its buffers behind".to_owned(), RESTART_PAUSE)
        } else if status.success() {
            ("ended".to_owned(), RESTART_PAUSE)
        } else {
            (format!("failed ({status})"), FAILURE_PAUSE)
        };
        self.say(&format!("{} {what}, starts again in {} s", role.name(), pause.as_secs()));
        State::Waiting(Instant::now() + pause)
    }

    /// Lets the workers free what they hold, and kills those that take too long.
    fn stop_workers(&mut self) {
        let mut running: Vec<&mut Child> = self
            .workers
            .iter_mut()
            .filter_map(|worker| match &mut worker.state {
                State::Running(child) => Some(child),
                State::Waiting(_) => None,
            })
            .collect();
        for child in &mut running {
            child.stdin = None;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && !running.is_empty() {
            running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            thread::sleep(LOOK_INTERVAL / 5);
        }
        for child in running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn say(&self, line: &str) {
        if self.narration == Narration::Printed {
            // Nobody has to read it for the demo to go on.
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
}
