//! One connection: when to read, and what is done about the conversation's bytes, replies and end.
//!
//! The idea is that a waiting session costs no buffer: every session of a thread reads into that thread's one large buffer and keeps
//! only the piece of a frame that a read ended in. What a session does about its rings is in `switch`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::sync::watch;
use tracing::debug;
use ttmem_wire::FRAME_BYTES_MAX;

use super::Context;
use super::allowance::Allowance;
use super::apply::Fault;
use super::conversation::Conversation;
use super::diary::Diary;
use super::note::Note;
use super::ring::{Reason, Rings};
use super::stream::{Received, Stream};
use crate::clock;
use crate::registry::Time;
use stop::Stop;

/// Bytes taken in one read: more than a sender's socket buffer holds in single frames, and small enough to stay in the cache.
const READ_BYTES: usize = 64 * 1024;

/// Turns at the daemon's stop: what a socket holds at most, not what a peer goes on sending.
const DRAIN_TURNS_MAX: usize = 64;

/// Answers in one turn of a session, before the other sessions of its thread come: a tenth of a millisecond.
const QUICK_ANSWERS_MAX: u32 = 64;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; FRAME_BYTES_MAX + READ_BYTES].into());
}

mod stop;
mod switch;

/// A client's connection.
pub(super) struct Session {
    context: Arc<Context>,
    stream: Stream,
    conversation: Conversation,
    diary: Arc<Diary>,
    rings: Option<Rings>,
    allowance: Allowance,
}

/// How a session came to its end.
enum Outcome {
    /// The peer has closed it.
    Finished,
    /// It cannot go on.
    Broken,
    /// The daemon stops.
    Left,
}

/// What a read came to.
enum Step {
    Continue,
    More,
    EndOfStream,
    ProcessEnd,
}

impl Session {
    /// A session about a conversation, be it new or from a daemon before this one.
    pub(super) fn new(
        context: Arc<Context>,
        stream: Stream,
        conversation: Conversation,
        diary: Arc<Diary>,
    ) -> Self {
        let allowance = context.allowances.open(conversation.applier.peer_uid(), clock::monotonic_ns());
        Self { context, stream, conversation, diary, rings: None, allowance }
    }

    /// With the rings that its client has.
    pub(super) fn with_rings(self, rings: Option<Rings>) -> Self {
        Self { rings, ..self }
    }

    /// Serves the connection to its end, or until the daemon stops and all that has been sent so far is applied.
    pub(super) async fn run(mut self, stopping: watch::Receiver<bool>) {
        let outcome = self.converse(stopping).await;
        // However short a connection was, its user has paid for it.
        let _ = self.allowance.settle(clock::monotonic_ns());
        match outcome {
            Outcome::Finished => self.diary.close(now(), true),
            Outcome::Broken => self.diary.close(now(), false),
            Outcome::Left => {}
        }
    }

    async fn converse(&mut self, stopping: watch::Receiver<bool>) -> Outcome {
        // What a daemon before this one has not answered yet.
        if self.reply().await.is_err() {
            return Outcome::Broken;
        }
        let mut stop = Stop::new(stopping);
        loop {
            let Some(step) = self.step_unless(&mut stop).await else {
                // Where the connection outlives the daemon, the next one goes on.
                if !self.diary.is_kept() {
                    self.drain();
                }
                return Outcome::Left;
            };
            match step {
                Ok(Step::Continue) => {}
                // There is probably more; the other sessions of this thread come first.
                Ok(Step::More) => tokio::task::yield_now().await,
                Ok(Step::EndOfStream) => {
                    self.conversation.finish(now());
                    self.empty_rings().await;
                    // It may have closed only the half that it writes to.
                    let _ = self.reply().await;
                    return Outcome::Finished;
                }
                // A fork may hold the socket open; whoever has rings does not share it.
                Ok(Step::ProcessEnd) => {
                    self.drain();
                    self.empty_rings().await;
                    return Outcome::Broken;
                }
                // The peer is gone, with whatever it did not send: its process's end tells the rest.
                Err(Fault::Io(error)) => {
                    debug!(peer = self.conversation.applier.peer_pid(), %error, "connection broke");
                    self.empty_rings().await;
                    return Outcome::Broken;
                }
                Err(fault) => {
                    // What came before it was a question like any other.
                    let _ = self.stream.try_write(&self.conversation.out, &self.diary);
                    self.conversation.refuse(&fault);
                    return Outcome::Broken;
                }
            }
        }
    }

    /// The next step, unless there is none to be made and the daemon stops.
    async fn step_unless(&mut self, stop: &mut Stop) -> Option<Result<Step, Fault>> {
        let mut step = pin!(self.step());
        poll_fn(|task| match step.as_mut().poll(task) {
            Poll::Ready(step) => Poll::Ready(Some(step)),
            Poll::Pending => stop.poll(task).map(|()| None),
        })
        .await
    }

    /// One read, what follows from it, and the replies to it.
    async fn step(&mut self) -> Result<Step, Fault> {
        if self.allowance.is_due() {
            self.pay().await;
        }
        if self.rings.as_ref().is_some_and(Rings::has_backlog) {
            self.read_rings()?;
            return Ok(Step::More);
        }
        if self.conversation.has_backlog() {
            self.consume_backlog()?;
            self.reply().await?;
            return Ok(Step::More);
        }
        let silence = self.conversation.silence();
        let read = poll_fn(|task| self.poll_read(task));
        let step = match silence {
            None => read.await?,
            Some(silence) => match tokio::time::timeout(silence, read).await {
                Ok(step) => step?,
                Err(_) => {
                    self.assume_layout()?;
                    Step::Continue
                }
            },
        };
        self.reply().await?;
        Ok(step)
    }

    /// Pays for what has been read, and reads no more for as long as that takes. The end of the process does not wait for it.
    async fn pay(&mut self) {
        let Some(pause) = self.allowance.settle(clock::monotonic_ns()) else { return };
        let applier = &self.conversation.applier;
        self.context.slow_down(applier.peer_pid(), applier.peer_uid(), pause);
        match applier.watched_peer().filter(|_| !self.allowance.is_excused()) {
            Some(process) => {
                if tokio::time::timeout(pause.duration, process.wait_for_end()).await.is_ok() {
                    self.allowance.excuse();
                }
            }
            None => tokio::time::sleep(pause.duration).await,
        }
    }

    /// Sends what has been answered. A peer that hears no more may have reported before it went: its end is told by reading.
    async fn reply(&mut self) -> Result<(), Fault> {
        match self.send_replies().await {
            Err(Fault::Io(error)) if is_gone(&error) => {
                self.conversation.out.clear();
                Ok(())
            }
            sent => sent,
        }
    }

    async fn send_replies(&mut self) -> Result<(), Fault> {
        while !self.conversation.out.is_empty() {
            let written = self.stream.write(&self.conversation.out, &self.diary).await?;
            self.conversation.out.drain(..written);
        }
        match self.conversation.ask.take() {
            Some(ask) => self.answer(ask).await,
            None => Ok(()),
        }
    }

    /// The socket before the rings: whatever comes over it, the rings are read first.
    fn poll_read(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<Step, Fault>> {
        let mut answers = 0;
        // The clock and the buffer come after this look, which is in vain as often as not.
        while let Poll::Ready(readable) = self.stream.poll_readable(task) {
            let readable = readable?;
            let diary = self.diary.journalling();
            let turn = diary.as_deref().and_then(Diary::turn);
            let received = BUFFER.with_borrow_mut(|buffer| {
                readable.read(space_behind(self.conversation.carry(), buffer), &self.diary)
            });
            let Some(received) = received else { continue };
            let mut step = self.take_in(&received?);
            drop(turn);
            loop {
                let has_asked = !self.conversation.out.is_empty();
                let is_done = !matches!(step, Ok(Step::Continue)) || self.allowance.is_due();
                if is_done || !self.is_answered() {
                    return Poll::Ready(step);
                }
                if !has_asked {
                    break;
                }
                answers += 1;
                if answers == QUICK_ANSWERS_MAX {
                    return Poll::Ready(Ok(Step::More));
                }
                // Whoever asks in a loop often has asked again by now, as answering has given it the processor. Where it has not, this is a
                // system call too many; where it has, the whole way through the event loop is saved.
                let Some(next) = self.in_turn(Self::read_more) else { break };
                step = next;
            }
        }
        let Some(rings) = &mut self.rings else { return Poll::Pending };
        match ready!(rings.poll(task, self.conversation.is_switched()))? {
            Reason::ProcessEnd => Poll::Ready(Ok(Step::ProcessEnd)),
            Reason::Look => {
                self.read_rings()?;
                Poll::Ready(Ok(Step::More))
            }
        }
    }

    /// Whether there is nothing to do but to read again. What has been answered is sent, if it fits: going round through the session's
    /// loop for it would cost a question more than answering it does.
    fn is_answered(&mut self) -> bool {
        let conversation = &mut self.conversation;
        if !conversation.is_detected() || conversation.is_asked() {
            return false;
        }
        if !conversation.out.is_empty() {
            // What goes wrong here goes wrong again where it is dealt with.
            let written = self.stream.try_write(&conversation.out, &self.diary).unwrap_or(0);
            conversation.out.drain(..written);
        }
        conversation.out.is_empty()
    }

    /// Reads what there is, whether the event loop has noticed it or not; `None` where there is nothing.
    fn read_more(&mut self) -> Option<Result<Step, Fault>> {
        let received = BUFFER.with_borrow_mut(|buffer| {
            self.stream.try_read(space_behind(self.conversation.carry(), buffer), &self.diary)
        });
        match received {
            Ok(received) => Some(self.take_in(&received)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// What follows from a read, which has left its bytes in this thread's buffer.
    fn take_in(&mut self, &Received { bytes, order, time }: &Received) -> Result<Step, Fault> {
        if bytes == 0 {
            return Ok(Step::EndOfStream);
        }
        self.conversation.applier.begin(order);
        self.allowance.spend(self.conversation.frames_in(bytes));
        let carried = self.conversation.carry().len();
        BUFFER.with_borrow(|buffer| self.consume(&buffer[..carried + bytes], time))?;
        let has_more = bytes == READ_BYTES || self.conversation.has_backlog();
        Ok(if has_more { Step::More } else { Step::Continue })
    }

    /// Does what is written down and what follows from it in one turn, where there is a journal.
    fn in_turn<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let diary = self.diary.journalling();
        let _turn = diary.as_deref().and_then(Diary::turn);
        act(self)
    }

    /// Applies the whole frames in `bytes`, behind what is in the rings.
    fn consume(&mut self, bytes: &[u8], time: Time) -> Result<(), Fault> {
        if !self.conversation.is_switched() {
            return self.conversation.consume(bytes, time);
        }
        if !self.catch_up()? {
            self.conversation.keep(bytes);
            return Ok(());
        }
        // What is in the rings has come first; a journal in which it stands behind has to know.
        let time = now();
        self.conversation.applier.begin(self.diary.note(time, &Note::Resumed));
        self.conversation.consume(bytes, time)
    }

    /// Goes on with what was too much for the turn before.
    fn consume_backlog(&mut self) -> Result<(), Fault> {
        self.in_turn(|session| {
            let backlog = session.conversation.take_carry();
            session.consume(&backlog, now())
        })
    }

    /// The peer says no more for now.
    fn assume_layout(&mut self) -> Result<(), Fault> {
        self.in_turn(|session| {
            let time = now();
            session.conversation.applier.begin(session.diary.note(time, &Note::Silent));
            session.conversation.assume_layout(time)
        })
    }

    /// No more is waited for: applies and answers what the peer has sent so far.
    fn drain(&mut self) {
        for _ in 0..DRAIN_TURNS_MAX {
            if self.conversation.has_backlog() {
                if self.consume_backlog().is_err() {
                    return;
                }
            } else {
                let Some(Ok(Step::Continue | Step::More)) = self.in_turn(Self::read_more) else { break };
            }
            if !self.reply_at_once() {
                return;
            }
        }
        if self.assume_layout().is_ok() {
            self.reply_at_once();
        }
        self.drain_rings();
    }

    /// Sends what has been answered if it fits: a peer that does not read gets no half answers.
    fn reply_at_once(&mut self) -> bool {
        let out = std::mem::take(&mut self.conversation.out);
        self.stream.try_write(&out, &self.diary).is_ok_and(|written| written == out.len())
    }
}

/// Where the next read goes: behind what is carried, which is put before it.
fn space_behind<'a>(carry: &[u8], buffer: &'a mut [u8]) -> &'a mut [u8] {
    let (before, space) = buffer.split_at_mut(carry.len());
    before.copy_from_slice(carry);
    &mut space[..READ_BYTES]
}

/// Whether the peer's socket is closed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

pub(super) fn now() -> Time {
    let (monotonic_ns, unix_ns) = clock::now_by_monotonic();
    Time { monotonic_ns, unix_ns }
}
