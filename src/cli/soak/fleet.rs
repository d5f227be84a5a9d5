//! The simulated processes, as the one who directs them sees them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

/// A worker that says nothing for so long will not say anything any more. Longer than it waits for the daemon itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a process reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speech {
    /// In frames that it makes itself.
    Frames,
    /// Through the library.
    Library,
}

/// One process.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(super) speech: Speech,
    /// The names of its connections. A name is never used again, and is part of the ids of the buffers that are reported on it: between
    /// connections there is no order.
    pub(super) connections: Vec<u32>,
    pub(super) names: u32,
    /// The process that uses its first connection as well.
    pub(super) heir: Option<u32>,
    pub(super) is_stopped: bool,
    /// Answers that are to come.
    owed: u32,
}

impl Worker {
    /// Starts one that has not connected yet.
    pub(super) fn start(socket: &Path, speech: Speech) -> anyhow::Result<Worker> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["soak", "--role", "worker", "--socket"])
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a worker")?;
        let input = child.stdin.take().context("a worker has no input")?;
        let output = BufReader::new(child.stdout.take().context("a worker has no output")?);
        let (connections, names) = (Vec::new(), 0);
        Ok(Worker {
            child,
            input,
            output,
            speech,
            connections,
            names,
            heir: None,
            is_stopped: false,
            owed: 0,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it something, and waits for its answer.
    pub(super) fn do_now(&mut self, line: &str) -> anyhow::Result<String> {
        self.begin(line)?;
        self.finish()
    }

    /// Tells it something.
    pub(super) fn begin(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{line}").with_context(|| format!("worker {} is gone", self.pid()))?;
        self.owed += 1;
        Ok(())
    }

    /// Waits until it has done everything; the last answer.
    pub(super) fn finish(&mut self) -> anyhow::Result<String> {
        let mut answer = String::new();
        while self.owed > 0 {
            answer.clear();
            if self.output.buffer().is_empty() {
                let ready = poll(
                    &mut [PollFd::new(self.output.get_ref(), PollFlags::IN)],
                    Some(&Timespec::try_from(PATIENCE)?),
                );
                ensure!(ready? > 0, "worker {} does not answer", self.pid());
            }
            self.output.read_line(&mut answer)?;
            self.owed -= 1;
            if !answer.starts_with("ok") {
                bail!(
                    "worker {}: {}",
                    self.pid(),
                    if answer.is_empty() { "it ended" } else { answer.trim() }
                );
            }
        }
        Ok(answer.trim_start_matches("ok").trim().to_owned())
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Kills it.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it end by itself, with all that it holds.
    pub(super) fn leave(mut self) -> anyhow::Result<()> {
        writeln!(self.input, "exit")?;
        self.child.wait()?;
        Ok(())
    }
}
