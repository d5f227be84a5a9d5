//! What the daemon gives up before it takes the first byte of anybody else: whoever takes it over can do little with it.
//!
//! The idea is to do this once, while there is one thread: everything that is started later inherits it. Each layer is applied as far as
//! the kernel goes, and what it lacks is told, because a daemon that does not start protects nobody.

mod calls;
mod files;
mod privileges;

use std::io;
use std::path::PathBuf;

/// How much is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Privileges, calls and files.
    Full,
    /// Privileges and calls. For who needs what Landlock takes along with files: to look into other processes.
    Calls,
}

/// One kind of what is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    /// Programs that are started get no privilege that the daemon lacks.
    NoNewPrivileges,
    /// Capabilities that are of no use to it.
    Capabilities,
    /// Writing to files, but in a few directories, and running any.
    Landlock,
    /// System calls that a daemon like this has no use for.
    Seccomp,
}

impl Layer {
    /// All of them, in the order in which they are applied.
    pub const ALL: [Layer; 4] =
        [Layer::NoNewPrivileges, Layer::Capabilities, Layer::Landlock, Layer::Seccomp];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Layer::NoNewPrivileges => "no_new_privileges",
            Layer::Capabilities => "capabilities",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
        }
    }
}

/// Why a layer could not be applied: the kernel's or the container runtime's doing. The daemon goes on without it.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The kernel has no Landlock, or too old a one.
    #[error("{0}; Linux 5.19 or later has it, where it is listed in lsm= of the kernel's command line")]
    Landlock(#[from] landlock::RulesetError),
    /// The filter could not be made or applied.
    #[error("{0}")]
    Seccomp(#[from] seccompiler::Error),
    /// There is no filter for this kind of processor.
    #[error("{0}")]
    Processor(#[from] seccompiler::BackendError),
}

/// What became of a layer: `None` where it was not asked for.
pub type Outcome = (Layer, Option<Result<(), SandboxError>>);

/// Gives up what the scope says, for this thread and those that it will start. Files can be made and changed only below `writable` from
/// then on.
pub fn enter(scope: Scope, writable: &[PathBuf]) -> [Outcome; 4] {
    let wants_files = scope == Scope::Full;
    // In this order: Landlock and seccomp want the first, and the filter takes away what the others are done with.
    [
        (Layer::NoNewPrivileges, Some(privileges::renounce_new())),
        (Layer::Capabilities, Some(privileges::drop_useless(scope))),
        (Layer::Landlock, wants_files.then(|| files::confine(writable))),
        (Layer::Seccomp, Some(calls::filter())),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};
    use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};
    use rustix::thread::{CapabilitySet, capabilities};

    use super::*;

    /// Runs something on a thread of its own that has given up what the scope says, and below which there are two directories: one in
    /// which files may be changed, and one in which they may not.
    fn within(scope: Scope, name: &str, work: impl FnOnce(&Path, &Path) + Send) {
        let directory = std::env::temp_dir().join(format!("ttmem-sandbox-{name}-{}", std::process::id()));
        let (writable, other) = (directory.join("writable"), directory.join("other"));
        for directory in [&writable, &other] {
            fs::create_dir_all(directory).expect("the temporary directory is writable");
        }
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for (layer, outcome) in enter(scope, std::slice::from_ref(&writable)) {
                    assert!(!matches!(outcome, Some(Err(_))), "{layer:?}: {outcome:?}");
                }
                work(&writable, &other);
            });
        });
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn what_is_of_no_use_is_refused() {
        within(Scope::Full, "refused", |_, other| {
            assert!(Command::new("/bin/true").status().is_err(), "no program can be run");
            let init = Pid::from_raw(1).expect("not 0");
            assert_eq!(kill_process(init, Signal::CONT), Err(Errno::PERM));
            let packet = socket(AddressFamily::PACKET, SocketType::RAW, None);
            assert_eq!(packet.err(), Some(Errno::PERM));
            let new = other.join("new");
            assert_eq!(
                fs::write(&new, "").map_err(|error| error.kind()),
                Err(io::ErrorKind::PermissionDenied)
            );
            let permitted = capabilities(None).expect("a thread may ask for its own").permitted;
            assert!(!permitted.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE));
            // What it starts has given up the same.
            let started = std::thread::spawn(move || fs::write(new, "").is_ok());
            assert!(!started.join().expect("no panic"));
        });
    }

    #[test]
    fn what_the_daemon_does_still_works() {
        within(Scope::Full, "allowed", |writable, other| {
            let (staged, path) = (writable.join("staged"), writable.join("socket"));
            fs::create_dir(&staged).expect("where it may change files");
            let _listener = UnixListener::bind(staged.join("socket")).expect("likewise");
            fs::rename(staged.join("socket"), &path).expect("to its place");
            UnixStream::connect(&path).expect("listening");
            fs::remove_file(&path).expect("its own");
            assert!(
                fs::read_dir(other).is_ok() && fs::read("/proc/self/status").is_ok(),
                "everything is read"
            );
            assert!(pidfd_open(getpid(), PidfdFlags::empty()).is_ok(), "the ends of processes are seen");
            std::net::TcpListener::bind("127.0.0.1:0").expect("HTTP");
        });
    }

    #[test]
    fn calls_leaves_files_to_what_the_user_may_do() {
        within(Scope::Calls, "calls", |_, other| {
            assert!(fs::write(other.join("new"), "").is_ok());
            assert!(Command::new("/bin/true").status().is_err());
        });
    }
}
