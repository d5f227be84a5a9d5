//! The checkpoint's file: a head that says what it is, and bytes whose seal must be right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::directory::Directory;
use super::entry::seal;

pub(super) const NAME: &str = "checkpoint";
/// What it is called until it is whole.
const UNFINISHED: &str = "checkpoint.new";

/// "ttmemcp", and the version of the head. What the content is says the content itself.
const MAGIC: u64 = u64::from_le_bytes(*b"ttmemcp1");
const HEAD_WORDS: usize = 5;
const HEAD_BYTES: usize = HEAD_WORDS * size_of::<u64>();

/// Why a checkpoint is not believed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Too short, or not begun as one.
    #[error("not a checkpoint of this version")]
    NoCheckpoint,
    /// Its bytes are not those that were written.
    #[error("damaged")]
    Damaged,
    /// The environment's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The content, and the last generation that it covers; `None` where there is none of this boot.
pub(super) fn read(directory: &Directory) -> Result<Option<(Vec<u8>, u64)>, CheckpointError> {
    let mut bytes = match fs::read(directory.file(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = parse(&bytes)?;
    if found.boot != directory.boot() {
        return Ok(None);
    }
    bytes.drain(..HEAD_BYTES);
    Ok(Some((bytes, found.through)))
}

struct Found {
    boot: u64,
    through: u64,
}

fn parse(bytes: &[u8]) -> Result<Found, CheckpointError> {
    let (head, content) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(CheckpointError::NoCheckpoint)?;
    let words: [u64; HEAD_WORDS] = std::array::from_fn(|word| {
        let at = word * size_of::<u64>();
        head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    });
    let [magic, boot, through, length, sealed] = words;
    if magic != MAGIC {
        return Err(CheckpointError::NoCheckpoint);
    }
    let is_whole = content.len() as u64 == length && seal_of(boot, through, content) == sealed;
    if is_whole { Ok(Found { boot, through }) } else { Err(CheckpointError::Damaged) }
}

fn seal_of(boot: u64, through: u64, content: &[u8]) -> u64 {
    seal(through, 0, &[MAGIC, boot, through, content.len() as u64, 0], content)
}

/// Writes a checkpoint and puts it in the place of the one before. It is on the disk before its name is, so that even a host that
/// loses its power finds one or the other.
pub(super) fn write(directory: &Directory, content: &[u8], through: u64) -> io::Result<()> {
    let boot = directory.boot();
    let words = [MAGIC, boot, through, content.len() as u64, seal_of(boot, through, content)];
    let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = directory.file(UNFINISHED);
    let written = create(&path).and_then(|mut file| {
        file.write_all(&head)?;
        file.write_all(content)?;
        file.sync_data()
    });
    match written {
        Ok(()) => fs::rename(&path, directory.file(NAME)),
        Err(error) => {
            directory.remove(&path);
            Err(error)
        }
    }
}

fn create(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_checkpoint_is_not_believed() {
        let content = b"what there was".to_vec();
        let words = [MAGIC, 7, 3, content.len() as u64, seal_of(7, 3, &content)];
        let mut whole: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        whole.extend(&content);
        assert!(matches!(parse(&whole), Ok(Found { boot: 7, through: 3 })));
        assert!(matches!(parse(&whole[..HEAD_BYTES - 1]), Err(CheckpointError::NoCheckpoint)));
        assert!(matches!(parse(&whole[..whole.len() - 1]), Err(CheckpointError::Damaged)), "cut short");
        for byte in 8..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            assert!(parse(&damaged).is_err(), "byte {byte}");
        }
    }
}
