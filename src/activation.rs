//! Sockets that systemd made before it started the daemon.
//!
//! A socket unit says by FileDescriptorName= what its sockets are for. With them no report is lost while the daemon is
//! started again, and it needs no right to make them.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use rustix::io::FdFlags;

/// The names that a socket unit may give.
const ALLOCATIONS: &str = "ttmem-allocations";
const HTTP: &str = "ttmem-http";
/// What the names of connections begin with that are kept while the daemon is started again; their number follows.
pub const KEPT_PREFIX: &str = "s";

/// Why sockets that were passed cannot be used. The operator's to mend, in the socket unit.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// It is not said what a socket is for.
    #[error(
        "systemd passed a socket named {name:?}; write FileDescriptorName={ALLOCATIONS} or \
         FileDescriptorName={HTTP} into its socket unit"
    )]
    UnknownName {
        /// What it is called instead.
        name: String,
    },
    /// There can be only one.
    #[error("systemd passed two sockets named {ALLOCATIONS}; keep one ListenStream= in that socket unit")]
    Twice,
    /// A socket is not one that can be used for that.
    #[error("systemd passed a socket named {name} that is not fit for it ({cause}); write {remedy}")]
    Unfit {
        /// What it is to be used for.
        name: &'static str,
        /// What is wrong.
        cause: io::Error,
        /// What the socket unit should say.
        remedy: &'static str,
    },
}

/// The sockets that were passed.
#[derive(Default)]
pub struct Passed {
    /// Where clients report.
    pub allocations: Option<UnixListener>,
    /// Where HTTP is served.
    pub http: Vec<PassedHttp>,
    /// Connections that a daemon before this one had, and the names that it gave them.
    pub kept: Vec<(String, OwnedFd)>,
}

/// A socket for HTTP.
pub enum PassedHttp {
    /// On the network.
    Tcp(TcpListener),
    /// On this host.
    Unix(UnixListener),
}

impl Passed {
    /// Takes them, once, from where the environment says that they are. To be called before there are threads: the
    /// variables are removed, so that no child takes them for its own.
    pub fn from_environment() -> Result<Passed, ActivationError> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut passed = Passed::default();
        for index in 0..sockets.len() {
            match names.next().unwrap_or_default() {
                ALLOCATIONS if passed.allocations.is_some() => return Err(ActivationError::Twice),
                ALLOCATIONS => passed.allocations = Some(allocations(&mut sockets, index)?),
                HTTP => passed.http.push(http(&mut sockets, index)?),
                name if is_kept(name) => passed.kept.extend(kept(&mut sockets, index, name)),
                name => return Err(ActivationError::UnknownName { name: name.to_owned() }),
            }
        }
        Ok(passed)
    }
}

/// Whether the daemon itself has given that name, to a connection of that number.
fn is_kept(name: &str) -> bool {
    let number = name.strip_prefix(KEPT_PREFIX).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn kept(sockets: &mut ListenFd, index: usize, name: &str) -> Option<(String, OwnedFd)> {
    // Checked by whoever goes on with it.
    let descriptor = sockets.take_raw_fd(index).ok().flatten()?;
    #[allow(unsafe_code, reason = "a descriptor that comes by its number has no other way to an owner")]
    // SAFETY: the supervisor passed it to this process, it is taken once, and nothing else owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // It is no child's.
    let _ = rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC);
    Some((name.to_owned(), descriptor))
}

fn allocations(sockets: &mut ListenFd, index: usize) -> Result<UnixListener, ActivationError> {
    let taken = sockets.take_unix_listener(index).and_then(taken_once);
    let remedy = "ListenStream= with the path of a Unix socket";
    taken.map_err(|cause| ActivationError::Unfit { name: ALLOCATIONS, cause, remedy })
}

fn http(sockets: &mut ListenFd, index: usize) -> Result<PassedHttp, ActivationError> {
    if let Ok(Some(listener)) = sockets.take_unix_listener(index) {
        return Ok(PassedHttp::Unix(listener));
    }
    let taken = sockets.take_tcp_listener(index).and_then(taken_once);
    let remedy = "ListenStream= with an address and a port or the path of a Unix socket";
    taken.map(PassedHttp::Tcp).map_err(|cause| ActivationError::Unfit { name: HTTP, cause, remedy })
}

/// Each is asked for once, so it is there.
fn taken_once<T>(taken: Option<T>) -> io::Result<T> {
    taken.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}
