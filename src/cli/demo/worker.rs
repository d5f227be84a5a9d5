//! One worker process: does its work step by step, reports it, and ends when it is told to or its parent is gone.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use super::holdings::Holdings;
use super::reporter::{Dialect, Reporter};
use super::workload::{Evaluator, ModelServer, Next, Notebook, Trainer, Workload};

/// What a worker plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    ModelServer,
    Trainer,
    Evaluator,
    Notebook,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::ModelServer, Self::Trainer, Self::Evaluator, Self::Notebook];

    /// The process's name, of at most the 15 bytes that the kernel keeps.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ModelServer => "llama-serve",
            Self::Trainer => "sd-train",
            Self::Evaluator => "whisper-eval",
            Self::Notebook => "leaky-notebook",
        }
    }

    /// What it does, for whoever watches.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::ModelServer => "loads a language model on all devices and serves it",
            Self::Trainer => "trains an image model on all devices",
            Self::Evaluator => "transcribes on device 0 until it is killed",
            Self::Notebook => "leaks a few megabytes a second on the last device",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::ModelServer | Self::Trainer => Dialect::Metal,
            Self::Evaluator => Dialect::Seed,
            Self::Notebook => Dialect::Python,
        }
    }

    fn workload(self, devices: u16) -> Box<dyn Workload> {
        match self {
            Self::ModelServer => Box::new(ModelServer::new(devices)),
            Self::Trainer => Box::new(Trainer::new(devices)),
            Self::Evaluator => Box::new(Evaluator::new()),
            Self::Notebook => Box::new(Notebook::new(devices)),
        }
    }
}

/// Plays a role until the end of standard input, which is the parent's word to stop.
pub(super) fn run(role: Role, socket: &Path, devices: u16) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    fs::write("/proc/self/comm", role.name()).context("cannot name the process")?;
    let begin = Instant::now();
    let mut reporter = Reporter::new(socket.to_owned(), role.dialect());
    let mut holdings = Holdings::new();
    let mut workload = role.workload(devices);
    loop {
        let step = workload.step(begin.elapsed(), &mut holdings);
        reporter.report(&mut holdings);
        if let Some(remark) = step.remark {
            // Whether anybody reads it makes no difference to the work.
            let _ = writeln!(io::stdout(), "{} ({}) {remark}", role.name(), getpid());
        }
        match step.next {
            Next::After(pause) if stop_within(pause)? => {
                holdings.release_all();
                reporter.report(&mut holdings);
                return Ok(());
            }
            Next::After(_) => {}
            Next::Leave => return Ok(()),
            Next::Die => kill_process(getpid(), Signal::KILL)?,
        }
    }
}

/// Waits for `pause`; true, at once, when standard input has ended.
fn stop_within(pause: Duration) -> anyhow::Result<bool> {
    let stdin = io::stdin();
    match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&Timespec::try_from(pause)?)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_every_name_whole() {
        for role in Role::ALL {
            assert!(role.name().len() <= 15);
            assert_eq!(Role::named(role.name()), Some(role));
        }
    }
}
