//! Who is at the other end of a socket, in the kernel's words.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The process that connected a socket.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// Refers to that very process even when its pid is used again. `None` when it is gone already and the kernel is too old to tell.
    pub(super) pidfd: Option<OwnedFd>,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(stream.as_fd())?;
        let pidfd = match peer_pidfd(stream) {
            Ok(pidfd) => Some(pidfd),
            // A kernel before 6.5: opening the pid leaves a window in which it may have been used again.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => open_pidfd(credentials.pid),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
            Err(error) => return Err(error),
        };
        Ok(Peer {
            pid: credentials.pid.as_raw_nonzero().get().cast_unsigned(),
            uid: credentials.uid.as_raw(),
            pidfd,
        })
    }
}

/// A descriptor of a process by its pid; `None` when there is none.
pub(super) fn open_pidfd(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::NONBLOCK).ok()
}

#[allow(unsafe_code, reason = "SO_PEERPIDFD has no safe wrapper in a dependency that the daemon has anyway")]
fn peer_pidfd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `fd`, and both outlive the call.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
