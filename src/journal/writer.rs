//! Who adds to the journal: one writer for each thread, so that none waits for another.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::Journal;
use super::entry::{EntryKind, Head, Moment};
use super::segment::Segment;

/// Bytes that are sent at once, far less than a segment has room for.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// One thread's end of the journal.
#[derive(Default)]
pub struct Writer {
    open: Mutex<Open>,
}

/// The segment that is written to, and where it goes on.
#[derive(Default)]
struct Open {
    segment: Option<Arc<Segment>>,
    tail: usize,
}

/// Something that was received, and its place in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Journalled {
    /// How many bytes; 0 at the end of the stream.
    pub bytes: usize,
    /// The kernel ended the read behind descriptors, though there may be more.
    pub is_cut: bool,
    /// Its place among all entries.
    pub order: u64,
}

impl Open {
    /// A segment with room for an entry of that many bytes; `None` where there is none at the moment.
    fn with_room(&mut self, journal: &Journal, bytes: usize) -> Option<(Arc<Segment>, usize)> {
        let has_room = self.segment.as_ref().is_some_and(|segment| segment.room(self.tail) >= bytes);
        if !has_room {
            self.segment = journal.acquire();
            self.tail = self.segment.as_ref()?.tail();
            // Whether it fits into any file is for whoever waits to find out.
            self.segment.as_ref().filter(|segment| segment.room(self.tail) >= bytes)?;
        }
        Some((Arc::clone(self.segment.as_ref()?), self.tail))
    }
}

impl Writer {
    /// Receives from a socket what there is, into the journal and from there into `space`. `None` where nothing is journalled any more:
    /// then nothing has been received.
    pub fn receive(
        &self,
        journal: &Journal,
        socket: BorrowedFd<'_>,
        session: u64,
        moment: Moment,
        space: &mut [u8],
    ) -> Option<io::Result<Journalled>> {
        let (mut open, segment, offset) = self.with_room(journal, space.len())?;
        let head = Head { order: 0, moment, session, kind: EntryKind::Received, bytes: space.len() };
        let moved = match segment.receive(socket, offset, &head) {
            Ok(moved) => moved,
            Err(error) => return Some(Err(error)),
        };
        let mut order = 0;
        if moved.bytes > 0 {
            let bytes = segment.received(offset, moved.bytes);
            space[..moved.bytes].copy_from_slice(bytes);
            order = journal.next_order();
            open.tail = segment.finish(offset, &Head { order, bytes: moved.bytes, ..head }, bytes);
        }
        Some(Ok(Journalled { bytes: moved.bytes, is_cut: moved.is_cut, order }))
    }

    /// Sends what a socket takes, and notes how much that was. `None` where nothing is journalled any more: then nothing has been sent.
    pub fn send(
        &self,
        journal: &Journal,
        socket: BorrowedFd<'_>,
        session: u64,
        moment: Moment,
        bytes: &[u8],
    ) -> Option<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(SEND_BYTES_MAX)];
        let (mut open, segment, offset) = self.with_room(journal, bytes.len().max(size_of::<u64>()))?;
        let head = Head { order: 0, moment, session, kind: EntryKind::Sent, bytes: size_of::<u64>() };
        let moved = match segment.send(socket, offset, &head, bytes) {
            Ok(moved) => moved,
            Err(error) => return Some(Err(error)),
        };
        let order = journal.next_order();
        open.tail = segment.append(offset, &Head { order, ..head }, &(moved.bytes as u64).to_le_bytes());
        Some(Ok(moved.bytes))
    }

    /// Notes something else, and gives its place; `None` where nothing is journalled any more.
    pub fn note(&self, journal: &Journal, session: u64, moment: Moment, bytes: &[u8]) -> Option<u64> {
        let (mut open, segment, offset) =
            self.with_room(journal, bytes.len().next_multiple_of(size_of::<u64>()))?;
        let order = journal.next_order();
        let head = Head { order, moment, session, kind: EntryKind::Note, bytes: bytes.len() };
        open.tail = segment.append(offset, &head, bytes);
        Some(order)
    }

    /// A segment with room, waited for if need be: not with the lock held, as whoever makes room goes through all writers.
    fn with_room(
        &self,
        journal: &Journal,
        bytes: usize,
    ) -> Option<(MutexGuard<'_, Open>, Arc<Segment>, usize)> {
        loop {
            let mut open = self.open.lock();
            if let Some((segment, offset)) = open.with_room(journal, bytes) {
                return Some((open, segment, offset));
            }
            drop(open);
            if !journal.has_files_for(bytes) || !journal.wait_for_room() {
                return None;
            }
        }
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held(self.open.lock())
    }
}

/// A writer that stands still.
pub(super) struct Held<'a>(MutexGuard<'a, Open>);

impl Held<'_> {
    /// It goes on in another segment.
    pub(super) fn leave(&mut self) {
        self.0.segment = None;
    }
}
