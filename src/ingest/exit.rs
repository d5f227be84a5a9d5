//! How a process ended that is nobody's child here: Linux 6.15 and later tell whoever holds its pidfd, once its parent has been told.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::registry::Exit;

/// The exit of the process behind a pidfd; `None` while its parent has not asked, and where the kernel does not tell.
pub(super) fn exit_of(pidfd: &OwnedFd) -> Option<Exit> {
    let wanted = u64::from(libc::PIDFD_INFO_EXIT);
    #[allow(unsafe_code, reason = "no crate of ours has a safe wrapper for this request")]
    // SAFETY: all bytes of the struct may be zero, as it holds numbers alone. The request's number says how large it is, so that the
    // kernel writes no more than that, and it outlives the call. The descriptor is open for as long as it is borrowed.
    let (result, info) = unsafe {
        let mut info: libc::pidfd_info = std::mem::zeroed();
        info.mask = wanted;
        (libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info), info)
    };
    (result == 0 && info.mask & wanted != 0).then(|| Exit::of_wait_status(info.exit_code))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

    use super::*;

    /// Whether this kernel tells at all: a test of what it tells is one of nothing where it does not.
    fn release() -> (u32, u32) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("every Linux has it");
        let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    #[test]
    fn the_kernel_tells_how_a_child_ended_once_it_has_been_waited_for() {
        let check = |script: &str, signal: Option<Signal>, expected: Exit| {
            let mut child = Command::new("sh").args(["-c", script]).spawn().expect("every host has a shell");
            let pid = Pid::from_child(&child);
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it lives, or has not been waited for");
            assert_eq!(exit_of(&pidfd), None);
            if let Some(signal) = signal {
                kill_process(pid, signal).expect("it is ours");
            }
            child.wait().expect("it is ours");
            let expected = (release() >= (6, 15)).then_some(expected);
            assert_eq!(exit_of(&pidfd), expected, "{script}");
        };
        check("exit 3", None, Exit::Code(3));
        check("exec sleep 1000", Some(Signal::KILL), Exit::Signal(9));
    }
}
