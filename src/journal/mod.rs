//! What is kept on disk so that a daemon that is killed forgets nothing: a journal of what came in, and a checkpoint that makes it short.
//!
//! The idea is that the input is the journal. A thread receives straight into a mapped file, and the kernel itself notes there how many
//! bytes it gave: at no moment is there a report that the socket has no more and the journal not yet. Stores into a mapped file survive
//! the death of the process without any fsync; processes and their memory do not survive the host's, so nothing has to.
//!
//! What the entries mean is nothing of this module's.

mod checkpoint;
mod directory;
mod entry;
mod map;
mod segment;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use checkpoint::CheckpointError;
use directory::Directory;
pub use directory::OpenError;
pub use entry::{Entry, EntryKind, Moment};
use segment::Segment;
pub use segment::Torn;
pub use writer::{Journalled, Writer};

/// The journal is made of that many files: enough that threads which fill them at different speeds waste little of the bound.
const SEGMENTS: u64 = 64;
/// A file has room for a few of the largest entries.
const SEGMENT_BYTES_MIN: u64 = 256 * 1024;
/// The least that the bound can be.
pub const JOURNAL_BYTES_MIN: u64 = SEGMENTS * SEGMENT_BYTES_MIN;
/// Files that are kept for use again, as their memory is there already: as many as a checkpoint makes free under load. To make one costs a
/// fault for each of its pages, more than all else that is done about what comes to stand there.
const FREE_SEGMENTS_MAX: usize = SEGMENTS as usize / 2;
/// How long a writer waits for room that a compaction is making, before it gives up for good.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

/// What was found in the directory.
#[derive(Default)]
pub struct Found {
    /// The last checkpoint's content, if there is one of this boot.
    pub checkpoint: Option<Vec<u8>>,
    /// What came in after it.
    pub entries: Entries,
    /// Files that could not be believed, and where they are now.
    pub set_aside: Vec<(PathBuf, String)>,
}

/// The entries of several segments, in the order in which they were made.
#[derive(Default)]
pub struct Entries {
    segments: Vec<Arc<Segment>>,
    /// Generation, order, segment, offset.
    places: Vec<(u64, u64, u32, u32)>,
    /// Segments whose end is not what a writer leaves.
    pub torn: u64,
}

impl Entries {
    /// Reads segments.
    fn of(segments: Vec<Arc<Segment>>) -> Entries {
        let mut entries = Entries { segments: Vec::new(), places: Vec::new(), torn: 0 };
        for segment in segments {
            let number = entries.segments.len() as u32;
            let torn = segment.scan(|order, offset| {
                entries.places.push((segment.generation(), order, number, offset as u32));
            });
            entries.torn += u64::from(torn.is_some());
            entries.segments.push(segment);
        }
        entries.places.sort_unstable();
        entries
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.places.iter().map(|(_, order, segment, offset)| {
            self.segments[*segment as usize].entry(*order, *offset as usize)
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

/// Figures about the journal, for the exporter.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct JournalFigures {
    /// Bytes of the files that hold what no checkpoint has.
    pub journal_bytes: u64,
    /// The last checkpoint's size.
    pub checkpoint_bytes: u64,
    /// How long making it took.
    pub checkpoint_seconds: f64,
    /// When it was made, in seconds since the epoch; 0 before the first.
    pub checkpoint_unix_seconds: f64,
    /// Checkpoints that could not be written.
    pub failures: u64,
    /// Files that could not be believed when the directory was opened, whole or in part.
    pub damaged_files: u64,
    /// How long it took to go on where the daemon before ended; 0 where there was nothing to go on from.
    pub recovery_seconds: f64,
    /// Whether what comes in is journalled.
    pub is_on: bool,
}

/// The files that are in use and those that are free.
struct Files {
    directory: Directory,
    /// In use since the last checkpoint.
    used: Vec<Arc<Segment>>,
    free: Vec<Arc<Segment>>,
    generation: u64,
    next_number: u64,
    figures: JournalFigures,
}

/// The journal of one state directory. Only one daemon can have it open.
pub struct Journal {
    files: Mutex<Files>,
    /// Told when there is room again.
    room: Condvar,
    /// Told when a compaction is wanted, or the end of it all.
    wanted: Condvar,
    writers: Vec<Writer>,
    order: AtomicU64,
    is_on: AtomicBool,
    is_closing: AtomicBool,
    segment_bytes: u64,
    bytes_max: u64,
}

impl Journal {
    /// Opens a directory for a number of writers, and gives what is in it. What is of another boot is thrown away: nothing of it lives.
    pub fn open(
        path: &Path,
        bytes_max: u64,
        writers: u32,
        boot_id: &str,
    ) -> Result<(Arc<Journal>, Found), OpenError> {
        let directory = Directory::open(path, boot_id)?;
        let mut set_aside = Vec::new();
        let (checkpoint, checkpointed) = match checkpoint::read(&directory) {
            Ok(Some((content, through))) => (Some(content), through),
            Ok(None) => (None, 0),
            Err(error) => {
                set_aside.push((directory.set_aside(checkpoint::NAME), error.to_string()));
                (None, 0)
            }
        };
        let mut used = Vec::new();
        let mut next_number = 0;
        for (number, path) in directory.segments()? {
            next_number = next_number.max(number + 1);
            match Segment::open(&path, &directory) {
                Ok(segment) if segment.generation() > checkpointed => used.push(Arc::new(segment)),
                // Of another boot, or in the checkpoint already.
                Ok(_) | Err(segment::UnreadableSegment::OtherBoot) => directory.remove(&path),
                Err(error) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    set_aside.push((directory.set_aside(&name), error.to_string()));
                }
            }
        }
        let entries = Entries::of(used.clone());
        let last =
            |found: fn(&(u64, u64, u32, u32)) -> u64| entries.places.iter().map(found).max().unwrap_or(0);
        let generation = used.iter().map(|segment| segment.generation()).max().unwrap_or(checkpointed) + 1;
        // The order of what was being received at the kill is the last of all, and no number to go on from.
        let order = last(|place| if place.1 == u64::MAX { 0 } else { place.1 }) + 1;
        let segment_bytes = (bytes_max.max(JOURNAL_BYTES_MIN) / SEGMENTS).next_multiple_of(4096);
        let files = Files {
            directory,
            used,
            free: Vec::new(),
            generation,
            next_number,
            figures: JournalFigures {
                damaged_files: set_aside.len() as u64 + entries.torn,
                ..JournalFigures::default()
            },
        };
        let journal = Arc::new(Journal {
            files: Mutex::new(files),
            room: Condvar::new(),
            wanted: Condvar::new(),
            writers: (0..writers).map(|_| Writer::default()).collect(),
            order: AtomicU64::new(order),
            is_on: AtomicBool::new(true),
            is_closing: AtomicBool::new(false),
            segment_bytes,
            bytes_max: segment_bytes * SEGMENTS,
        });
        // Before anything is served: a directory that cannot be written to is found out here.
        journal.try_out().map_err(|cause| OpenError::Write { path: path.to_owned(), cause })?;
        Ok((journal, Found { checkpoint, entries, set_aside }))
    }

    /// The writer of that number, or the last one: to be used by one thread as a rule, as others would wait for it.
    pub fn writer(&self, number: usize) -> &Writer {
        &self.writers[number.min(self.writers.len() - 1)]
    }

    /// How many writers there are.
    pub fn writers(&self) -> usize {
        self.writers.len()
    }

    /// Whether what comes in is journalled. Once it is not it never is again, until the daemon is started anew.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// What the exporter shows.
    pub fn figures(&self) -> JournalFigures {
        let files = self.files.lock();
        let journal_bytes = files.used.len() as u64 * self.segment_bytes;
        JournalFigures { journal_bytes, is_on: self.is_on(), ..files.figures }
    }

    /// Makes a file and keeps it for the first writer.
    fn try_out(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let segment = self.free_segment(&mut files)?;
        files.free.extend(segment);
        Ok(())
    }

    fn next_order(&self) -> u64 {
        self.order.fetch_add(1, SeqCst)
    }

    /// A segment to write to; `None` where there is none: it may be waited for.
    fn acquire(&self) -> Option<Arc<Segment>> {
        if !self.is_on() {
            return None;
        }
        let acquired = self.try_acquire();
        acquired.map_err(|error| self.turn_off(&error)).ok().flatten()
    }

    fn try_acquire(&self) -> io::Result<Option<Arc<Segment>>> {
        let mut files = self.files.lock();
        let segment = self.free_segment(&mut files)?;
        files.used.extend(segment.clone());
        if self.is_due(&files) {
            self.wanted.notify_all();
        }
        Ok(segment)
    }

    /// Whether a file has room for an entry of that many bytes. One that is larger would wait for ever.
    fn has_files_for(&self, bytes: usize) -> bool {
        let is_possible = segment::fits(self.segment_bytes, bytes);
        if !is_possible {
            self.turn_off(&io::Error::new(io::ErrorKind::FileTooLarge, "an entry is larger than a file"));
        }
        is_possible
    }

    /// Waits until a checkpoint has made room; false where nothing is journalled any more.
    fn wait_for_room(&self) -> bool {
        let mut files = self.files.lock();
        let is_full = |files: &Files| files.used.len() as u64 >= SEGMENTS && files.free.is_empty();
        if self.is_on() && is_full(&files) {
            self.wanted.notify_all();
            let is_late = self.room.wait_for(&mut files, ROOM_TIMEOUT).timed_out();
            if is_late && is_full(&files) {
                drop(files);
                self.turn_off(&io::Error::new(
                    io::ErrorKind::StorageFull,
                    "it is full, and no checkpoint makes room",
                ));
            }
        }
        self.is_on()
    }

    /// Whether half of what the journal may have is in use.
    fn is_due(&self, files: &Files) -> bool {
        files.used.len() as u64 * self.segment_bytes * 2 >= self.bytes_max
    }

    fn free_segment(&self, files: &mut Files) -> io::Result<Option<Arc<Segment>>> {
        let generation = files.generation;
        while let Some(mut segment) = files.free.pop() {
            // One that somebody still reads is left to them.
            if let Some(only) = Arc::get_mut(&mut segment) {
                only.reuse(generation);
                return Ok(Some(segment));
            }
            files.directory.remove(segment.path());
        }
        if files.used.len() as u64 >= SEGMENTS {
            return Ok(None);
        }
        let number = files.next_number;
        files.next_number += 1;
        Segment::create(&files.directory, number, self.segment_bytes, generation)
            .map(|made| Some(Arc::new(made)))
    }

    /// Journalling has failed for good: what is on disk is of no use to anybody any more, and must not be taken for the truth.
    fn turn_off(&self, error: &io::Error) {
        if self.is_on.swap(false, SeqCst) {
            tracing::error!(%error, "no journal is kept any more; what is known will be lost when the daemon ends (see --state-dir)");
            let files = self.files.lock();
            files.directory.remove_all();
            self.room.notify_all();
        }
    }

    /// Waits until a compaction is worth its while; false when the journal is closing.
    pub fn wait_for_compaction(&self, is_wanted_now: bool) -> bool {
        let mut files = self.files.lock();
        while !is_wanted_now && self.is_on() && !self.is_closing.load(SeqCst) && !self.is_due(&files) {
            self.wanted.wait(&mut files);
        }
        self.is_on() && !self.is_closing.load(SeqCst)
    }

    /// Ends the wait for a compaction.
    pub fn close(&self) {
        let _files = self.files.lock();
        self.is_closing.store(true, SeqCst);
        self.wanted.notify_all();
    }

    /// A checkpoint could not be made.
    pub fn note_failure(&self) {
        self.files.lock().figures.failures += 1;
    }

    /// What was found is of no use to anybody but a person who looks at it.
    pub fn set_checkpoint_aside(&self) {
        let mut files = self.files.lock();
        files.directory.set_aside(checkpoint::NAME);
        files.figures.damaged_files += 1;
        let useless: Vec<_> = files.used.drain(..).collect();
        for segment in useless {
            files.directory.remove(segment.path());
        }
    }

    /// Remembers how long it took to go on from what was found.
    pub fn note_recovery(&self, seconds: f64) {
        self.files.lock().figures.recovery_seconds = seconds;
    }

    /// Closes the current generation and gives what there is up to its end: everything of it and nothing of the next one. Writers
    /// wait for as long as it takes to go through them, and for no file.
    pub fn rotate(&self) -> io::Result<(Found, u64)> {
        let held: Vec<_> = self.writers.iter().map(Writer::hold).collect();
        let (segments, through) = {
            let mut files = self.files.lock();
            let through = files.generation;
            files.generation += 1;
            (files.used.clone(), through)
        };
        for mut writer in held {
            writer.leave();
        }
        let checkpoint = {
            let files = self.files.lock();
            checkpoint::read(&files.directory).map_err(io::Error::other)?.map(|(content, _)| content)
        };
        Ok((Found { checkpoint, entries: Entries::of(segments), set_aside: Vec::new() }, through))
    }

    /// Puts a checkpoint of all generations up to one in the place of the one before, and makes room.
    pub fn checkpoint(
        &self,
        content: &[u8],
        through: u64,
        seconds: f64,
        unix_seconds: f64,
    ) -> io::Result<()> {
        let directory = self.files.lock().directory.clone();
        let written = checkpoint::write(&directory, content, through);
        let mut files = self.files.lock();
        written?;
        let (done, used) = files.used.drain(..).partition(|segment| segment.generation() <= through);
        files.used = used;
        for segment in done {
            if files.free.len() < FREE_SEGMENTS_MAX {
                files.free.push(segment);
            } else {
                files.directory.remove(segment.path());
            }
        }
        files.figures.checkpoint_bytes = content.len() as u64;
        files.figures.checkpoint_seconds = seconds;
        files.figures.checkpoint_unix_seconds = unix_seconds;
        self.room.notify_all();
        Ok(())
    }
}
