//! What /proc says about a process. All of it may be missing or gone between two reads: then there is less to show, never an error.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cgroup;
use crate::registry::{SlurmJob, SlurmSource};

/// Clock ticks per second in /proc, the same on every architecture that Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;
/// A process can call itself anything; a label keeps this many characters, as many as tt-metal's own table has room for.
const NAME_CHARS_MAX: usize = 64;

/// Bytes read of one file: a process can make its command line and its environment as long as its memory.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How long a process's arguments may take.
const ARGUMENTS_TIMEOUT: Duration = Duration::from_millis(50);
/// What a process can name in its environment that is of interest here.
const SLURM_JOB: &[&str] = &["SLURM_JOB_ID", "SLURM_JOBID"];
const SLURM_STEP: &[&str] = &["SLURM_STEP_ID", "SLURM_STEPID"];
/// Requests for arguments under way: more than threads that ask, so that only a stuck reader fills it.
const ARGUMENT_REQUESTS_MAX: usize = 8;

/// The files of one process that are read, by their names in /proc.
pub(super) struct ProcessFiles<'a> {
    pub(super) status: &'a str,
    pub(super) stat: &'a str,
    pub(super) comm: &'a str,
    pub(super) cmdline: &'a str,
    pub(super) cgroup: &'a str,
}

/// What is read once about a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessFacts {
    pub(super) name: Option<String>,
    pub(super) start_ticks: Option<u64>,
    pub(super) effective_uid: Option<u32>,
    /// Its pid in each namespace from the daemon's inwards.
    pub(super) namespace_pids: Vec<u32>,
    pub(super) cgroup: Option<String>,
    pub(super) slurm: Option<SlurmJob>,
}

impl ProcessFacts {
    /// Reads them, and makes sure that they are those of the process behind a pidfd: it may end at any moment, and its pid be used again.
    pub(super) fn of(pid: u32, pidfd: &OwnedFd, arguments: &ArgumentsReader) -> ProcessFacts {
        let facts = ProcessFacts::read(pid, arguments);
        if has_pid(pidfd, pid) { facts } else { ProcessFacts::default() }
    }

    /// Reads them; a process's arguments are asked for only if it is worth it.
    fn read(pid: u32, arguments: &ArgumentsReader) -> ProcessFacts {
        let comm = read(pid, "comm");
        let cmdline = if is_interpreter(&comm) { arguments.read(pid, "cmdline") } else { String::new() };
        let (status, stat, cgroup) = (read(pid, "status"), read(pid, "stat"), read(pid, "cgroup"));
        let facts = ProcessFacts::parse(&ProcessFiles {
            status: &status,
            stat: &stat,
            comm: &comm,
            cmdline: &cmdline,
            cgroup: &cgroup,
        });
        let named = || slurm_job(&arguments.read_environment(pid));
        ProcessFacts { slurm: facts.slurm.clone().or_else(named), ..facts }
    }

    /// What the files say. Each may be missing, and then is empty.
    pub(super) fn parse(files: &ProcessFiles<'_>) -> ProcessFacts {
        ProcessFacts {
            name: process_name(files.comm, files.cmdline),
            start_ticks: start_ticks(files.stat),
            effective_uid: effective_uid(files.status),
            namespace_pids: status_field(files.status, "NSpid:")
                .map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
                .unwrap_or_default(),
            cgroup: cgroup::path(files.cgroup).map(str::to_owned),
            slurm: cgroup::slurm_job(files.cgroup),
        }
    }

    /// Whether it was in the daemon's own pid namespace. What is not known is not claimed.
    pub(super) fn is_in_own_namespace(&self) -> bool {
        self.namespace_pids.len() == 1
    }

    /// Its pid as it knows it itself, where that is another namespace's than the daemon's.
    pub(super) fn inner_pid(&self) -> Option<u32> {
        self.namespace_pids.last().copied().filter(|_| self.namespace_pids.len() > 1)
    }
}

/// Reads the arguments of processes, and their environment where that is wanted, on a thread of its own.
///
/// The kernel takes them from the process's own memory, and a process can make that last for ever. Then names are shorter, and nothing
/// else waits.
pub(super) struct ArgumentsReader {
    requests: SyncSender<Request>,
    reads_environment: bool,
}

/// Which file of which process, and for whom.
type Request = (u32, &'static str, Sender<String>);

impl ArgumentsReader {
    pub(super) fn start(reads_environment: bool) -> io::Result<ArgumentsReader> {
        let (requests, received) = sync_channel::<Request>(ARGUMENT_REQUESTS_MAX);
        std::thread::Builder::new().name("ttmem-names".into()).spawn(move || {
            for (pid, file, answer) in received {
                // Whoever asked may have given up.
                let _ = answer.send(read(pid, file));
            }
        })?;
        Ok(ArgumentsReader { requests, reads_environment })
    }

    fn read_environment(&self, pid: u32) -> String {
        if self.reads_environment { self.read(pid, "environ") } else { String::new() }
    }

    fn read(&self, pid: u32, file: &'static str) -> String {
        let (answer, answered) = channel();
        match self.requests.try_send((pid, file, answer)) {
            Ok(()) => answered.recv_timeout(ARGUMENTS_TIMEOUT).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

/// Whether the process behind a pidfd still has that pid: until its parent has waited for it.
fn has_pid(pidfd: &OwnedFd, pid: u32) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap_or_default();
    status_field(&info, "Pid:").and_then(|text| text.trim().parse().ok()) == Some(pid)
}

/// A file of a process, as far as anything honest goes.
fn read(pid: u32, file: &str) -> String {
    let path: PathBuf = ["/proc", &pid.to_string(), file].iter().collect();
    let mut bytes = Vec::new();
    // Gone, or hidden from us: what was read so far, or nothing.
    let _ = fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The user that a process acts for.
pub(super) fn effective_uid_of(pid: u32) -> Option<u32> {
    effective_uid(&read(pid, "status"))
}

/// When a process started, in clock ticks since the host did.
pub(super) fn start_ticks_of(pid: u32) -> Option<u64> {
    start_ticks(&read(pid, "stat"))
}

fn effective_uid(status: &str) -> Option<u32> {
    status_field(status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

/// Nanoseconds between the host's start and the process's.
pub(super) fn ticks_to_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / TICKS_PER_SECOND)
}

/// The name of a user, or its number where /etc/passwd has none.
pub(super) fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut entries = passwd.lines().map(|line| line.split(':'));
    entries
        .find_map(|mut fields| {
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .unwrap_or_else(|| uid.to_string())
}

/// The kernel's short name; for an interpreter the script that it runs says more than "python3" does.
fn process_name(comm: &str, cmdline: &str) -> Option<String> {
    let comm = comm.strip_suffix('\n').unwrap_or(comm);
    if comm.is_empty() {
        return None;
    }
    let mut arguments = cmdline.split('\0').skip(1).filter(|argument| !argument.is_empty());
    let script = match arguments.next() {
        Some("-m") => arguments.next(),
        Some(script) if script.ends_with(".py") => script.rsplit('/').next(),
        _ => None,
    };
    let name = match script {
        Some(script) if is_interpreter(comm) => format!("{comm}:{script}"),
        _ => comm.to_owned(),
    };
    Some(name.chars().take(NAME_CHARS_MAX).collect())
}

/// The Slurm job that an environment names. Anybody can write that; it is told as what it is.
fn slurm_job(environment: &str) -> Option<SlurmJob> {
    let value = |names: &[&str]| {
        let mut variables = environment.split('\0').filter_map(|variable| variable.split_once('='));
        variables.find(|(name, _)| names.contains(name)).map(|(_, value)| value)
    };
    let job_id = value(SLURM_JOB)?.parse().ok()?;
    let step_id = value(SLURM_STEP).and_then(cgroup::slurm_step);
    Some(SlurmJob { job_id, step_id, source: SlurmSource::Environment })
}

fn is_interpreter(comm: &str) -> bool {
    comm.starts_with("python")
}

/// The field after the name; the name itself may hold spaces and parentheses.
fn start_ticks(stat: &str) -> Option<u64> {
    const FIELDS_FROM_STATE_TO_START: usize = 19;
    stat.rsplit_once(')')?.1.split_whitespace().nth(FIELDS_FROM_STATE_TO_START)?.parse().ok()
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_hide_the_start_time() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("77 (a) 1 2) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat), Some(22));
        assert_eq!(start_ticks("77 (gone"), None);
    }

    #[test]
    fn an_interpreter_is_named_with_its_script() {
        let check = |comm: &str, cmdline: &str, expected: &str| {
            assert_eq!(process_name(comm, cmdline).as_deref(), Some(expected));
        };
        check("python3\n", "python3\0/srv/serve_llama.py\0--port\0", "python3:serve_llama.py");
        check("python3\n", "python3\0-m\0vllm.server\0", "python3:vllm.server");
        check("demo\n", "./demo\0model.py\0", "demo");
        check("python3\n", "python3\0-c\0print()\0", "python3");
        assert_eq!(process_name("", ""), None, "a process that is gone");
    }

    #[test]
    fn this_process_is_found() {
        let arguments = ArgumentsReader::start(true).expect("a thread");
        let facts = ProcessFacts::read(std::process::id(), &arguments);
        assert_eq!(facts.namespace_pids.first(), Some(&std::process::id()));
        assert!(facts.start_ticks.is_some() && facts.name.is_some() && facts.effective_uid.is_some());
        assert!(arguments.read(std::process::id(), "cmdline").contains("ttmem"));
        assert_eq!(ProcessFacts::read(u32::MAX, &arguments), ProcessFacts::default());
    }

    #[test]
    fn an_environment_may_name_a_job() {
        let check = |environment: &str, expected: Option<(u32, Option<&str>)>| {
            let found = slurm_job(environment);
            let told = found.as_ref().map(|job| (job.job_id, job.step_id.as_deref()));
            assert_eq!(told, expected, "{environment:?}");
        };
        check("HOME=/root\0SLURM_JOB_ID=12\0SLURM_STEP_ID=0\0", Some((12, Some("0"))));
        check("SLURM_JOBID=12\0", Some((12, None)));
        check("SLURM_JOB_ID=12\0SLURM_STEP_ID=a\"b\0", Some((12, None)));
        check("SLURM_JOB_ID=\0", None);
        check("MY_SLURM_JOB_ID=12\0SLURM_JOB_ID\0", None);
        check("", None);
    }

    #[test]
    fn a_pid_of_another_namespace_is_the_innermost() {
        let check = |namespace_pids: &[u32], expected: Option<u32>| {
            let facts = ProcessFacts { namespace_pids: namespace_pids.to_vec(), ..ProcessFacts::default() };
            assert_eq!(facts.inner_pid(), expected);
        };
        check(&[], None);
        check(&[77], None);
        check(&[77, 12, 1], Some(1));
    }

    #[test]
    fn users_have_names() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "4000000000");
    }
}
