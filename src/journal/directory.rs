//! The state directory: whose it is, which files of it are the journal's, and where those go that cannot be believed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

const LOCK: &str = "lock";
const SEGMENT_PREFIX: &str = "journal-";
/// What is added to the name of a file that could not be believed. One of each name is kept, the last.
const ASIDE: &str = ".unreadable";

/// Why a state directory cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon has it.
    #[error("{path}: another daemon uses this directory; stop it, or give each its own --state-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made, read or written.
    #[error(
        "{path}: {cause}; state_dir must be a directory that the daemon can write to, with room for state_journal_bytes_max"
    )]
    Write {
        /// The directory or file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// A state directory that is this daemon's for as long as it lives.
#[derive(Clone)]
pub(super) struct Directory {
    path: PathBuf,
    boot: u64,
    _lock: Arc<File>,
}

impl Directory {
    pub(super) fn open(path: &Path, boot_id: &str) -> Result<Directory, OpenError> {
        let failed = |cause| OpenError::Write { path: path.to_owned(), cause };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|cause| OpenError::Write { path: lock_path, cause })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
        Ok(Directory { path: path.to_owned(), boot: boot_number(boot_id), _lock: Arc::new(lock) })
    }

    /// The boot that this host runs, as a number.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{SEGMENT_PREFIX}{number}"))
    }

    /// The journal's files by number.
    pub(super) fn segments(&self) -> Result<Vec<(u64, PathBuf)>, OpenError> {
        let entries = fs::read_dir(&self.path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|cause| OpenError::Write { path: self.path.clone(), cause })?;
        let number = |name: &str| name.strip_prefix(SEGMENT_PREFIX)?.parse().ok();
        let found =
            entries.iter().filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())));
        Ok(found.collect())
    }

    /// Moves a file out of the way, and gives the place where it can be looked at.
    pub(super) fn set_aside(&self, name: &str) -> PathBuf {
        let (from, to) = (self.path.join(name), self.path.join(format!("{name}{ASIDE}")));
        if fs::rename(&from, &to).is_ok() { to } else { from }
    }

    /// Removes a file. Where that fails it is found again, and is then of no use either.
    pub(super) fn remove(&self, path: &Path) {
        let _ = fs::remove_file(path);
    }

    /// Removes all that another daemon could take for the state.
    pub(super) fn remove_all(&self) {
        self.remove(&self.file(super::checkpoint::NAME));
        for (_, path) in self.segments().unwrap_or_default() {
            self.remove(&path);
        }
    }
}

/// A boot's id is a UUID, so any half of it tells boots apart.
fn boot_number(boot_id: &str) -> u64 {
    let digits: String = boot_id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}
