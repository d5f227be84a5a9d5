//! One file of the journal: its head, what is under way between it and a socket, and its entries.
//!
//! The idea is that an entry counts when its seal is there, which is stored last; and that what the kernel was moving when the daemon was
//! killed counts as well, as far as the kernel says that it has moved it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use rustix::fs::{FallocateFlags, fallocate};

use super::directory::Directory;
use super::entry::{Entry, EntryKind, HEAD_BYTES, HEAD_WORDS, Head, Moment, entry_bytes, seal};
use super::map::{FileMap, MESSAGE_WORDS, Moved, NOT_YET, Way};

/// "ttmemjnl", and the version of what follows.
const MAGIC: u64 = u64::from_le_bytes(*b"ttmemjn1");
const WORD: usize = size_of::<u64>();

// The head of a file: words at these offsets.
const MAGIC_AT: usize = 0;
const BOOT_AT: usize = WORD;
const GENERATION_AT: usize = 2 * WORD;
/// Where the last finished entry ends.
const TAIL_AT: usize = 3 * WORD;
/// Where the entry begins that is under way; 0 for none.
const UNDER_WAY_AT: usize = 4 * WORD;
/// Its head but for the order, which is drawn when it is finished.
const UNDER_WAY_HEAD_AT: usize = 5 * WORD;
/// What the kernel says about it.
const MESSAGE_AT: usize = 128;
/// The first entry.
const ENTRIES_AT: usize = 512;

const _: () = assert!(UNDER_WAY_HEAD_AT + HEAD_WORDS * WORD <= MESSAGE_AT);
const _: () = assert!(MESSAGE_AT + MESSAGE_WORDS * WORD <= ENTRIES_AT);

/// The order of what was under way when the daemon was killed: nothing can have come after it.
const LAST: u64 = u64::MAX;

/// Places in a file are remembered in 32 bits; none that a daemon has made is as large.
const SEGMENT_BYTES_MAX: usize = u32::MAX as usize;
/// A generation for every checkpoint: what is beyond this has been damaged, and nothing may come after it.
const GENERATION_MAX: u64 = u64::MAX / 2;

/// Whether a file of that size has room for an entry of so many bytes.
pub(super) fn fits(segment_bytes: u64, bytes: usize) -> bool {
    (ENTRIES_AT + HEAD_BYTES + bytes) as u64 <= segment_bytes
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreadableSegment {
    /// Of a boot before this one: whatever held memory then is gone.
    #[error("of another boot")]
    OtherBoot,
    /// Another version's, or no journal at all.
    #[error("not a journal of this version")]
    NoJournal,
    /// The environment's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The place from which on a file is not what its writer has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Torn {
    /// In bytes.
    pub offset: usize,
}

/// A file of the journal.
pub(super) struct Segment {
    map: FileMap,
    path: PathBuf,
}

impl Segment {
    /// Makes one. Its place on the disk is its own from now on: a disk that is full is an error here and nowhere else.
    pub(super) fn create(
        directory: &Directory,
        number: u64,
        bytes: u64,
        generation: u64,
    ) -> io::Result<Segment> {
        let path = directory.segment(number);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let made = fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from);
        let map = made.and_then(|()| FileMap::new(&file, bytes as usize));
        let map = map.inspect_err(|_| directory.remove(&path))?;
        let mut segment = Segment { map, path };
        segment.map.store(BOOT_AT, &[directory.boot()]);
        segment.reuse(generation);
        segment.map.publish(MAGIC_AT, MAGIC);
        Ok(segment)
    }

    /// Maps one that another daemon has left, and finishes what it had under way.
    pub(super) fn open(path: &Path, directory: &Directory) -> Result<Segment, UnreadableSegment> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if !(ENTRIES_AT..=SEGMENT_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(WORD) {
            return Err(UnreadableSegment::NoJournal);
        }
        allocate_holes(&file, bytes)?;
        let segment = Segment { map: FileMap::new(&file, bytes)?, path: path.to_owned() };
        match (segment.load(MAGIC_AT), segment.load(BOOT_AT)) {
            // Killed before it was one.
            (0, _) => Err(UnreadableSegment::OtherBoot),
            (MAGIC, boot) if boot != directory.boot() => Err(UnreadableSegment::OtherBoot),
            (MAGIC, _) if segment.generation() <= GENERATION_MAX => {
                segment.finish_what_was_under_way();
                Ok(segment)
            }
            _ => Err(UnreadableSegment::NoJournal),
        }
    }

    /// Makes it a fresh one: what is in it has another generation's seals and counts no more.
    pub(super) fn reuse(&mut self, generation: u64) {
        self.map.store(UNDER_WAY_AT, &[0]);
        self.map.store(TAIL_AT, &[ENTRIES_AT as u64]);
        self.map.publish(GENERATION_AT, generation);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn generation(&self) -> u64 {
        self.load(GENERATION_AT)
    }

    /// Where a writer goes on.
    pub(super) fn tail(&self) -> usize {
        self.load(TAIL_AT) as usize
    }

    /// How many bytes an entry at that offset can have.
    pub(super) fn room(&self, offset: usize) -> usize {
        (self.map.len() - offset).saturating_sub(HEAD_BYTES)
    }

    /// Adds an entry, and gives its end.
    pub(super) fn append(&self, offset: usize, head: &Head, bytes: &[u8]) -> usize {
        self.map.write(offset + HEAD_BYTES, bytes);
        self.finish(offset, head, bytes)
    }

    /// Receives an entry's bytes from a socket; `head` says how many at most. The entry is not finished, but it is there.
    pub(super) fn receive(&self, socket: BorrowedFd<'_>, offset: usize, head: &Head) -> io::Result<Moved> {
        self.set_out(offset, head);
        let moved = self.map.move_bytes(socket, Way::In, MESSAGE_AT, offset + HEAD_BYTES, head.bytes);
        if !matches!(moved, Ok(Moved { bytes: 1.., .. })) {
            self.map.publish(UNDER_WAY_AT, 0);
        }
        moved
    }

    /// Sends bytes, of which the entry keeps nothing but how many went.
    pub(super) fn send(
        &self,
        socket: BorrowedFd<'_>,
        offset: usize,
        head: &Head,
        bytes: &[u8],
    ) -> io::Result<Moved> {
        self.map.write(offset + HEAD_BYTES, bytes);
        self.set_out(offset, head);
        let moved = self.map.move_bytes(socket, Way::Out, MESSAGE_AT, offset + HEAD_BYTES, bytes.len());
        if moved.is_err() {
            self.map.publish(UNDER_WAY_AT, 0);
        }
        moved
    }

    /// Bytes that have been received there.
    pub(super) fn received(&self, offset: usize, bytes: usize) -> &[u8] {
        self.map.bytes(offset + HEAD_BYTES, bytes)
    }

    /// Seals an entry whose bytes are in their place, and gives its end.
    pub(super) fn finish(&self, offset: usize, head: &Head, bytes: &[u8]) -> usize {
        debug_assert_eq!(head.bytes, bytes.len());
        let words = head.words();
        self.map.store(offset + WORD, &words);
        self.map.publish(offset, seal(self.generation(), offset, &words, bytes));
        let end = offset + entry_bytes(head.bytes);
        self.map.publish(TAIL_AT, end as u64);
        self.map.publish(UNDER_WAY_AT, 0);
        end
    }

    /// Goes through the finished entries: their order, and where they are.
    pub(super) fn scan(&self, mut found: impl FnMut(u64, usize)) -> Option<Torn> {
        let mut offset = ENTRIES_AT;
        while let Some(head) = self.head(offset) {
            found(head.order, offset);
            offset += entry_bytes(head.bytes);
        }
        (offset < self.tail()).then_some(Torn { offset })
    }

    /// The entry that a scan has found there.
    pub(super) fn entry(&self, order: u64, offset: usize) -> Entry<'_> {
        let nothing = Head { order, moment: Moment::default(), session: 0, kind: EntryKind::Note, bytes: 0 };
        let Head { moment, session, kind, bytes, .. } = self.head_words(offset).unwrap_or(nothing);
        Entry { order, moment, session, kind, bytes: self.map.bytes(offset + HEAD_BYTES, bytes) }
    }

    /// The head of the entry there, if its seal is right.
    fn head(&self, offset: usize) -> Option<Head> {
        if self.map.len() - offset < HEAD_BYTES {
            return None;
        }
        let head = self.head_words(offset)?;
        if head.bytes > self.room(offset) {
            return None;
        }
        let bytes = self.map.bytes(offset + HEAD_BYTES, head.bytes);
        let expected = seal(self.generation(), offset, &head.words(), bytes);
        (self.map.word(offset).load(Acquire) == expected).then_some(head)
    }

    fn head_words(&self, offset: usize) -> Option<Head> {
        Head::of(std::array::from_fn(|word| self.load(offset + (1 + word) * WORD)))
    }

    /// Says what is going to be moved, before it is.
    fn set_out(&self, offset: usize, head: &Head) {
        // Stale until the kernel is asked, and taken for what it says by nobody: there is nothing under way.
        self.map.store(UNDER_WAY_HEAD_AT, &head.words());
        self.map.store(MESSAGE_AT + (MESSAGE_WORDS - 1) * WORD, &[u64::from(NOT_YET)]);
        self.map.publish(UNDER_WAY_AT, offset as u64);
    }

    /// The daemon was killed between the kernel's word and its own: the entry is finished in its place.
    fn finish_what_was_under_way(&self) {
        let offset = self.load(UNDER_WAY_AT) as usize;
        let is_place = offset >= ENTRIES_AT && offset.is_multiple_of(WORD) && offset == self.tail();
        if !is_place || self.map.len().saturating_sub(offset) < HEAD_BYTES + WORD {
            return;
        }
        let words = std::array::from_fn(|word| self.load(UNDER_WAY_HEAD_AT + word * WORD));
        let (Some(head), Some(moved)) = (Head::of(words), self.map.moved(MESSAGE_AT)) else { return };
        match head.kind {
            EntryKind::Received if (1..=self.room(offset)).contains(&moved) => {
                let head = Head { order: LAST, bytes: moved, ..head };
                self.finish(offset, &head, self.map.bytes(offset + HEAD_BYTES, moved));
            }
            EntryKind::Sent => {
                let head = Head { order: LAST, bytes: WORD, ..head };
                self.append(offset, &head, &(moved as u64).to_le_bytes());
            }
            _ => {}
        }
    }

    fn load(&self, offset: usize) -> u64 {
        self.map.word(offset).load(Relaxed)
    }
}

/// A file that somebody has copied may have holes where zeros were.
fn allocate_holes(file: &File, bytes: usize) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes as u64)?)
}
