//! One session's end of the journal, and of the store in which a connection outlives the daemon.
//!
//! The idea is that all of ingest writes down what it does through one of these, whether there is a journal or not.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::note::Note;
use super::store::Store;
use super::turns::{Turn, Turns};
use super::{now, session};
use crate::activation::KEPT_PREFIX;
use crate::journal::{Journal, Journalled, Moment};
use crate::registry::Time;

/// Who writes; by default to nowhere.
#[derive(Default)]
pub(super) struct Diary {
    journal: Option<Arc<Journal>>,
    turns: Option<Arc<Turns>>,
    /// The journal's writer of the thread that this is used on.
    writer: usize,
    session: u64,
    /// Where connections are kept, if there is such a place.
    store: Option<Arc<Store>>,
    /// Whether the connection is in the supervisor's store.
    is_kept: AtomicBool,
}

/// Where diaries come from.
#[derive(Default)]
pub(super) struct Diaries {
    journal: Option<Arc<Journal>>,
    /// Of the journal's writers.
    turns: Option<Arc<Turns>>,
    store: Option<Arc<Store>>,
    next_session: AtomicU64,
}

impl Diaries {
    /// Those of a journal, where there is one; sessions are numbered from `next_session` on.
    pub(super) fn new(journal: Option<Arc<Journal>>, next_session: u64) -> io::Result<Diaries> {
        // Without a journal the next daemon would not know in the middle of which frame a connection is.
        let store = if journal.is_some() { Store::open()?.map(Arc::new) } else { None };
        let turns = journal.as_ref().map(|journal| Arc::new(Turns::new(journal.writers())));
        Ok(Diaries { journal, turns, store, next_session: AtomicU64::new(next_session) })
    }

    /// A new session's, on the thread of that number.
    pub(super) fn open(&self, thread: usize) -> Diary {
        self.reopen(thread, self.next_session.fetch_add(1, Relaxed), false)
    }

    /// That of a session which goes on.
    pub(super) fn reopen(&self, thread: usize, session: u64, is_kept: bool) -> Diary {
        let (journal, turns, store) = (self.journal.clone(), self.turns.clone(), self.store.clone());
        Diary { journal, turns, writer: thread, session, store, is_kept: AtomicBool::new(is_kept) }
    }

    /// That of whoever is no session; the last writer is theirs.
    pub(super) fn common(&self) -> Diary {
        self.reopen(usize::MAX, 0, false)
    }

    /// A connection that was kept is nobody's.
    pub(super) fn forget(&self, name: &str) {
        if let Some(store) = &self.store {
            store.forget(name.to_owned());
        }
    }

    /// The daemon ends: waits a moment for the supervisor to hear what it has not heard yet.
    pub(super) async fn flush(&self) {
        if let Some(store) = &self.store {
            store.flush().await;
        }
    }
}

impl Diary {
    /// Puts the session's connection into the supervisor's store. Afterwards it is there, before anything else happens.
    pub(super) async fn keep(&self, connection: BorrowedFd<'_>) -> io::Result<()> {
        if let Some(store) = self.store.as_ref().filter(|_| self.is_on()) {
            store.keep(self.name(), connection).await?;
            self.is_kept.store(true, Relaxed);
        }
        Ok(())
    }

    /// Under which name the session's connection is kept.
    pub(super) fn name(&self) -> String {
        format!("{KEPT_PREFIX}{:x}", self.session)
    }

    /// Keeps something else that belongs to the connection, if that is kept.
    pub(super) async fn keep_too(&self, descriptor: BorrowedFd<'_>) {
        if let Some(store) = self.store.as_ref().filter(|_| self.is_kept()) {
            // A part of it is of no use to the next daemon.
            if store.keep(self.name(), descriptor).await.is_err() {
                self.forsake();
            }
        }
    }

    /// Whether there is a journal.
    pub(super) fn is_on(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_on())
    }

    /// The same diary, where there is a journal.
    pub(super) fn journalling(self: &Arc<Self>) -> Option<Arc<Diary>> {
        self.is_on().then(|| Arc::clone(self))
    }

    /// Whether the connection outlives the daemon, and the next one will know what to do with it.
    pub(super) fn is_kept(&self) -> bool {
        self.is_on() && self.is_kept.load(Relaxed)
    }

    /// A turn of the thread's: to be held from before something is written down until all that follows from it has been done.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        self.turns.as_ref().map(|turns| turns.begin(self.writer))
    }

    /// Writes something down between all turns, and does at once what follows from it: to be what does not take long.
    pub(super) fn note_between_turns(&self, note: &Note, act: impl FnOnce(Time)) -> Time {
        let written = || {
            let time = now();
            self.note(time, note);
            act(time);
            time
        };
        match &self.turns {
            Some(turns) => turns.between(written),
            None => written(),
        }
    }

    /// Writes something down, and gives its place.
    pub(super) fn note(&self, time: Time, note: &Note) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        journal.writer(self.writer).note(journal, self.session, moment(time), &note.encode())
    }

    /// Receives from the session's connection into the journal, and says when; `None` where there is none.
    pub(super) fn receive(
        &self,
        connection: BorrowedFd<'_>,
        space: &mut [u8],
    ) -> Option<io::Result<(Journalled, Time)>> {
        let journal = self.journal.as_ref()?;
        let time = session::now();
        loop {
            let received = journal.writer(self.writer).receive(
                journal,
                connection,
                self.session,
                moment(time),
                space,
            )?;
            match received {
                // Said of a connection whose client left our answers unread, before what it had sent itself is given.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                received => return Some(received.map(|journalled| (journalled, time))),
            }
        }
    }

    /// Sends over the session's connection what it takes, and writes down how much; `None` where there is no journal.
    pub(super) fn send(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> Option<io::Result<usize>> {
        let journal = self.journal.as_ref()?;
        journal.writer(self.writer).send(journal, connection, self.session, moment(now()), bytes)
    }

    /// The connection is not to outlive the daemon after all.
    pub(super) fn forsake(&self) {
        if self.is_kept.swap(false, Relaxed)
            && let Some(store) = &self.store
        {
            store.forget(self.name());
        }
    }

    /// The connection is over.
    pub(super) fn close(&self, time: Time, is_finished: bool) {
        self.note(time, &Note::Closed { is_finished });
        self.forsake();
    }
}

fn moment(time: Time) -> Moment {
    Moment { monotonic_ns: time.monotonic_ns, unix_ns: time.unix_ns }
}
