//! Who is at the other end of a socket, in the kernel's words.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The process that connected a socket.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// Refers to that very process even when its pid is used again. `None` when it is gone already.
    pub(super) pidfd: Option<Arc<OwnedFd>>,
}

/// Why a connection cannot be served. Not the client's fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// The kernel has no pid for it here, so nothing would tell its end.
    #[error(
        "the client is in a pid namespace that this daemon cannot see; run the daemon in the host's (hostPID: true, --pid=host)"
    )]
    Hidden,
    /// The daemon's resources.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> Result<Peer, PeerError> {
        let nobody = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let credentials = socket_option(stream, libc::SO_PEERCRED, nobody)?;
        let pid = Pid::from_raw(credentials.pid).ok_or(PeerError::Hidden)?;
        let pidfd = match peer_pidfd(stream) {
            Ok(pidfd) => Some(pidfd),
            Err(error) => match error.raw_os_error() {
                // A kernel before 6.5: opening the pid leaves a window in which it may have been used again.
                Some(libc::ENOPROTOOPT) => open_pidfd(pid)?,
                // The process has ended and been waited for; kernels differ in how they say so.
                Some(libc::ESRCH | libc::EINVAL | libc::ENODATA) => None,
                _ => return Err(error.into()),
            },
        };
        Ok(Peer {
            pid: pid.as_raw_nonzero().get().cast_unsigned(),
            uid: credentials.uid,
            pidfd: pidfd.map(Arc::new),
        })
    }
}

/// A descriptor of a process by its pid; `None` when there is no such process.
pub(super) fn open_pidfd(pid: Pid) -> io::Result<Option<OwnedFd>> {
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // No process, or a thread that leads none.
        Err(error) if matches!(error.raw_os_error(), libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn peer_pidfd(stream: &UnixStream) -> io::Result<OwnedFd> {
    let fd: libc::c_int = socket_option(stream, libc::SO_PEERPIDFD, -1)?;
    #[allow(
        unsafe_code,
        reason = "SO_PEERPIDFD has no safe wrapper in a dependency that the daemon has anyway"
    )]
    // SAFETY: the kernel has just opened this descriptor for us, and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(pidfd)
}

/// What the kernel puts into a socket option's buffer: any bytes are a valid value.
trait PlainData: Copy {}

impl PlainData for libc::c_int {}
impl PlainData for libc::ucred {}

fn socket_option<T: PlainData>(stream: &UnixStream, option: libc::c_int, mut value: T) -> io::Result<T> {
    let mut length = size_of::<T>() as libc::socklen_t;
    #[allow(
        unsafe_code,
        reason = "the safe wrappers have no place for a pid of 0, which the kernel gives for an unseen namespace"
    )]
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`, which may hold any; both outlive the call.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if outcome == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
