//! What a state directory holds: whatever is in it, the daemon starts, and what it has made of it is what the next one makes of that.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ttmem::ingest;
use ttmem::journal::{Entries, EntryKind, Found, JOURNAL_BYTES_MIN, Journal, Moment};

/// Where a segment's first entry stands: what is before it says how the file is to be read.
const SEGMENT_HEAD_BYTES: usize = 512;
/// Where a file says of which boot it is.
const BOOT_AT: usize = 8;
/// What an entry of the input begins with: what it is, its session, and two bytes of its length.
const ENTRY_HEAD_BYTES: usize = 4;
/// What a change to a file takes: four bytes say where, one which bits.
const CHANGE_BYTES: usize = 5;

/// The first byte says what the others are.
pub fn journal(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    match what % 4 {
        0 => content(rest),
        1 => entries(rest, &[]),
        2 => {
            let (changes, rest) = rest.split_at(rest.len().min(CHANGE_BYTES * usize::from(what >> 2)));
            entries(rest, changes);
        }
        _ => file(rest),
    }
}

/// The content of a checkpoint whose seal is right: another program's, as damage would have been seen.
fn content(bytes: &[u8]) {
    goes_on(&Found { checkpoint: Some(bytes.to_vec()), ..Found::default() });
}

/// A file as it lies there, of the boot that it says it is of: a checkpoint where it begins as one, else a segment.
fn file(bytes: &[u8]) {
    let directory = Directory::new();
    let boot = bytes.get(BOOT_AT..).and_then(|bytes| bytes.first_chunk());
    let boot = boot.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let name = if bytes.starts_with(b"ttmemcp") { "checkpoint" } else { "journal-0" };
    fs::write(directory.0.join(name), bytes).expect("a file of the check's own");
    let (_journal, found) = open(&directory.0, boot);
    goes_on(&found);
}

/// Entries as a daemon writes them, and then a file in which some bits are others.
fn entries(mut rest: &[u8], changes: &[u8]) {
    let directory = Directory::new();
    let mut written = Vec::new();
    let (journal, _) = open(&directory.0, 1);
    while let Some((head, behind)) = rest.split_first_chunk::<ENTRY_HEAD_BYTES>() {
        let length = usize::from(u16::from_le_bytes([head[2], head[3]])).min(behind.len());
        let (bytes, behind) = behind.split_at(length);
        let moment = Moment { monotonic_ns: 1_000_000_000 * (written.len() as u64 + 1), unix_ns: 1 << 60 };
        written.extend(write(&journal, head[0], u64::from(head[1] % 4), moment, bytes));
        rest = behind;
    }
    drop(journal);
    let is_head_changed = change(&directory.0.join("journal-0"), changes);
    let (journal, found) = open(&directory.0, 1);
    let read: Vec<_> = found.entries.iter().map(|entry| (entry.kind, entry.bytes.to_vec())).collect();
    if changes.is_empty() {
        assert_eq!(read, written, "all that was written is read");
        assert_eq!(found.entries.torn, 0);
    } else if !is_head_changed {
        assert!(written.starts_with(&read), "what is read is a beginning of what was written");
        assert_eq!(found.entries.torn > 0, read.len() < written.len(), "and what is missing is told");
    }
    if let Some(content) = goes_on(&found) {
        stays(&directory.0, journal, &content);
    }
}

/// Writes an entry as a session would, and gives what is to be read of it.
fn write(
    journal: &Arc<Journal>,
    kind: u8,
    session: u64,
    moment: Moment,
    bytes: &[u8],
) -> Option<(EntryKind, Vec<u8>)> {
    let writer = journal.writer(0);
    match kind % 3 {
        0 => {
            writer.note(journal, session, moment, bytes)?;
            Some((EntryKind::Note, bytes.to_vec()))
        }
        1 => {
            let (mut client, server) = UnixStream::pair().ok()?;
            client.write_all(bytes).ok()?;
            let mut space = vec![0; bytes.len().max(1)];
            let received = writer.receive(journal, server.as_fd(), session, moment, &mut space)?;
            // Nothing sent is nothing received, and no entry.
            let received = received.ok().filter(|received| received.bytes > 0)?;
            assert_eq!(&space[..received.bytes], bytes);
            Some((EntryKind::Received, bytes.to_vec()))
        }
        _ => {
            let (_client, server) = UnixStream::pair().ok()?;
            let sent = writer.send(journal, server.as_fd(), session, moment, bytes)?.ok()?;
            assert_eq!(sent, bytes.len());
            Some((EntryKind::Sent, (sent as u64).to_le_bytes().to_vec()))
        }
    }
}

/// Turns bits over, and says whether any is in the head.
fn change(path: &Path, changes: &[u8]) -> bool {
    let (changes, _) = changes.as_chunks::<CHANGE_BYTES>();
    if changes.is_empty() {
        return false;
    }
    let mut bytes = fs::read(path).expect("the file that was written");
    let mut is_head_changed = false;
    for [place @ .., bits] in changes {
        let at = u32::from_le_bytes(*place) as usize % bytes.len();
        bytes[at] ^= bits;
        is_head_changed |= at < SEGMENT_HEAD_BYTES;
    }
    fs::write(path, bytes).expect("the file that was written");
    is_head_changed
}

/// What comes of it, or why nothing does. A checkpoint of it is one that the next daemon makes the same of.
fn goes_on(found: &Found) -> Option<Vec<u8>> {
    match ingest::recovered(found) {
        Ok(content) => {
            let again = Found {
                checkpoint: Some(content.clone()),
                entries: Entries::default(),
                set_aside: Vec::new(),
            };
            assert_eq!(
                ingest::recovered(&again).as_ref(),
                Ok(&content),
                "a daemon that only looked has changed it"
            );
            Some(content)
        }
        Err(reason) => {
            assert!(!reason.is_empty());
            None
        }
    }
}

/// A checkpoint takes the place of the files that it covers.
fn stays(directory: &Path, journal: Arc<Journal>, content: &[u8]) {
    let (_, through) = journal.rotate().expect("nothing in the way");
    journal.checkpoint(content, through, 0.0, 0.0).expect("room for a checkpoint");
    drop(journal);
    let (_journal, found) = open(directory, 1);
    assert_eq!(found.checkpoint.as_deref(), Some(content));
    assert!(found.entries.is_empty(), "the checkpoint has them");
}

fn open(directory: &Path, boot: u64) -> (Arc<Journal>, Found) {
    let boot_id = format!("{boot:016x}");
    Journal::open(directory, JOURNAL_BYTES_MIN, 1, &boot_id).expect("a directory of the check's own")
}

/// A directory of this check's own, removed afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ttmem-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory of the check's own");
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What remains is in the way of nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
