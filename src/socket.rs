//! Unix sockets: how one comes to its path with the right owner and mode.
//!
//! For that of the clients and for those on which HTTP is served.

use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foldhash::fast::RandomState;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tracing::warn;

/// Bits of a directory's mode: everybody may make and remove entries, and only their owners may remove them.
const WRITABLE_FOR_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// How often, and how far apart, the lock against a daemon that starts at the same moment is tried for.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Connections that may wait to be taken.
pub const BACKLOG: i32 = 4096;

/// Why the socket could not be set up. The operator's to mend: each says how.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers there.
    #[error("{path}: another server is listening there; stop it, or choose another path with --{setting}")]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The setting that names the socket.
        setting: &'static str,
    },
    /// Something else stands there.
    #[error("{path}: exists and is not a socket; move it away, or choose another path with --{setting}")]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// The setting that names the socket.
        setting: &'static str,
    },
    /// The directory cannot be written.
    #[error(
        "{directory}: {cause}; create it or make it writable for this user, or choose another path with --{setting}"
    )]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The setting that names the socket.
        setting: &'static str,
        /// The cause.
        cause: io::Error,
    },
    /// The group does not exist.
    #[error(
        "{setting}_group: no group is called {group:?}; create it with `groupadd --system {group}`, or name another"
    )]
    UnknownGroup {
        /// Its name.
        group: String,
        /// The setting that names the socket.
        setting: &'static str,
    },
    /// The socket could not be made.
    #[error("{path}: {action}: {cause}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause.
        cause: io::Error,
    },
}

/// A listening socket, removed from its path when dropped, if it was made here and is still there.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// None if somebody else made it.
    inode: Option<(u64, u64)>,
}

impl Socket {
    /// Puts a listening socket at a path. It appears there with its mode and group set, in place of a dead one, and never in place of
    /// a live one. `setting` is what the operator calls it.
    pub fn bind(
        setting: &'static str,
        path: &Path,
        mode: u32,
        group: Option<&str>,
    ) -> Result<Socket, BindError> {
        let error = |action| move |cause| BindError::Socket { path: path.to_owned(), action, cause };
        let group = group.map(|group| group_id(setting, group)).transpose()?;
        let staging = Staging::new(setting, path)?;
        staging.lock();
        check_vacant(setting, path)?;
        let staged = staging.socket();
        let listener = match UnixListener::bind(staging.short_socket()) {
            // Without /proc there is no short name.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => UnixListener::bind(&staged),
            bound => bound,
        };
        let listener = listener.map_err(error("cannot make the socket"))?;
        fs::set_permissions(&staged, fs::Permissions::from_mode(mode))
            .map_err(error("cannot set its mode"))?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&staged, None, Some(group))
                .map_err(error("cannot give it to its group"))?;
        }
        rustix::net::listen(&listener, BACKLOG).map_err(io::Error::from).map_err(error("cannot listen"))?;
        listener.set_nonblocking(true).map_err(error("cannot make it non-blocking"))?;
        let metadata = fs::symlink_metadata(&staged).map_err(error("cannot look at it"))?;
        fs::rename(&staged, path).map_err(error("cannot put it in place"))?;
        staging.warn_of_others();
        Ok(Socket { listener, path: path.to_owned(), inode: Some((metadata.dev(), metadata.ino())) })
    }

    /// Takes over a socket that somebody else made, and who will remove it.
    pub fn adopt(listener: UnixListener) -> io::Result<Socket> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Socket { listener, path: address.as_pathname().unwrap_or(Path::new("")).to_owned(), inode: None })
    }

    /// Where it is; empty if it has no name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody else made it, and keeps it open when this process ends.
    pub fn is_adopted(&self) -> bool {
        self.inode.is_none()
    }

    /// The listener.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| Some((found.dev(), found.ino())) == self.inode);
        if is_ours {
            // Whether it can be removed or not, nobody answers there any more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A directory beside the socket's place that nobody else can enter: what is made there is seen only once it is moved out.
struct Staging {
    parent: fs::File,
    path: PathBuf,
    directory: fs::File,
}

impl Staging {
    fn new(setting: &'static str, path: &Path) -> Result<Staging, BindError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let error = |cause| BindError::Directory { directory: parent.to_owned(), setting, cause };
        let parent_directory = fs::File::open(parent).map_err(error)?;
        // A name that nobody can have taken on purpose.
        let name = RandomState::default().hash_one(std::process::id());
        let path = parent.join(format!(".ttmem-{name:016x}"));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(error)?;
        let directory = fs::File::open(&path).map_err(error)?;
        Ok(Staging { parent: parent_directory, path, directory })
    }

    /// Lets another daemon that starts at this moment put its socket in place first, which is then found. Anybody may hold such a lock on
    /// a directory that everybody can read, so nothing depends on getting it.
    fn lock(&self) {
        for _ in 0..LOCK_TRIES {
            if rustix::fs::flock(&self.parent, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Where everybody may rename and remove what is others', the socket's place is anybody's.
    fn warn_of_others(&self) {
        let is_anybodys = |mode: u32| mode & WRITABLE_FOR_ALL != 0 && mode & STICKY == 0;
        if self.parent.metadata().is_ok_and(|directory| is_anybodys(directory.mode())) {
            let directory = self.path.parent().unwrap_or(Path::new("."));
            warn!(
                directory = %directory.display(),
                "anybody can put a socket of their own in this one's place: set the sticky bit of its directory (chmod +t), or choose another"
            );
        }
    }

    fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// The same by a name that always fits into a socket's address.
    fn short_socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/socket", self.directory.as_raw_fd()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_dir(&self.path);
    }
}

/// Nothing, or a socket on which nobody listens.
fn check_vacant(setting: &'static str, path: &Path) -> Result<(), BindError> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(BindError::NotASocket { path: path.to_owned(), setting })
        }
        Ok(_) => match try_connect(path) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
            // An answer of any other kind, be it that its queue is full, is somebody's.
            _ => Err(BindError::InUse { path: path.to_owned(), setting }),
        },
    }
}

/// Connects without waiting for room in the other's queue.
fn try_connect(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)
}

fn group_id(setting: &'static str, group: &str) -> Result<u32, BindError> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut entries = groups.lines().map(|line| line.split(':'));
    entries
        .find_map(|mut fields| if fields.next()? == group { fields.nth(1)?.parse().ok() } else { None })
        .ok_or_else(|| BindError::UnknownGroup { group: group.to_owned(), setting })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("ttmem-listener-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        directory
    }

    #[test]
    fn a_live_socket_is_never_taken_and_a_dead_one_is_replaced() {
        let directory = directory("live");
        let path = directory.join("s");
        let socket = Socket::bind("socket", &path, 0o660, None).expect("a free path");
        assert_eq!(fs::metadata(&path).expect("bound").permissions().mode() & 0o777, 0o660);
        assert!(matches!(Socket::bind("socket", &path, 0o660, None), Err(BindError::InUse { .. })));
        drop(socket);
        assert!(!path.exists(), "removed with its daemon");
        drop(UnixListener::bind(&path).expect("a free path"));
        assert!(path.exists(), "a daemon that was killed leaves its socket");
        let socket = Socket::bind("socket", &path, 0o600, None).expect("nobody listens");
        UnixStream::connect(&path).expect("listening");
        fs::remove_file(&path).expect("ours");
        let _successor = UnixListener::bind(&path).expect("a free path");
        drop(socket);
        assert!(path.exists(), "another's socket is left alone");
        assert_eq!(fs::read_dir(&directory).expect("readable").count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let directory = directory("way");
        let check = |path: &Path, group: Option<&str>, expected: &str| {
            let error = Socket::bind("socket", path, 0o660, group).expect_err("must be refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        let file = directory.join("file");
        fs::write(&file, "precious").expect("writable");
        check(&file, None, "is not a socket; move it away");
        let link = directory.join("link");
        std::os::unix::fs::symlink(&file, &link).expect("writable");
        check(&link, None, "is not a socket; move it away");
        check(&directory.join("no/where/s"), None, "create it or make it writable");
        check(&directory.join("s"), Some("no-such-group"), "groupadd --system no-such-group");
        assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
        fs::remove_dir_all(&directory).expect("ours");
    }
}
