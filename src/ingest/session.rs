//! One connection: bytes in, frames out of them, replies back.
//!
//! The idea is that a waiting session costs no buffer: every session of a thread reads into that thread's one large buffer and keeps
//! only the piece of a frame that a read ended in. What a session does about its rings is in `switch`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};
use ttmem_wire::{DETECTION_SILENCE_MILLISECONDS, Detection, FRAME_BYTES_MAX, Header, Layout, Reply, detect};

use super::Context;
use super::apply::{Applier, BadFrame, Fault};
use super::ring::{Reason, Rings};
use super::stream::Stream;
use crate::clock;
use crate::registry::{ConnectionLayout, Rejection, Time};

/// Bytes taken in one read: more than a sender's socket buffer holds in single frames, and small enough to stay in the cache.
const READ_BYTES: usize = 64 * 1024;

/// Turns at the daemon's stop: what a socket holds at most, not what a peer goes on sending.
const DRAIN_TURNS_MAX: usize = 64;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; FRAME_BYTES_MAX + READ_BYTES].into());
}

mod switch;

use switch::Ask;

/// A client's connection.
pub(super) struct Session {
    context: Arc<Context>,
    stream: Stream,
    applier: Applier,
    framing: Framing,
    /// The beginning of a frame whose rest has not come yet.
    carry: Vec<u8>,
    /// Bytes of the connection before `carry`.
    offset: u64,
    out: Vec<u8>,
    /// A question for more than frames that waits for its answer.
    ask: Option<Ask>,
    rings: Option<Rings>,
    /// Whether the client has said that its reports are in the rings.
    is_switched: bool,
}

/// What is known about the frames of a connection.
enum Framing {
    /// Not their size yet: the first frame waits in `carry`.
    Undetected(FirstFrame),
    Known(Layout),
}

/// What has been done about a first frame whose size is still open.
#[derive(Default)]
enum FirstFrame {
    #[default]
    Waiting,
    Applied,
    /// The answer given to it, and how many bytes of it have been sent.
    Answered(Reply, usize),
}

/// What a read came to.
enum Step {
    Continue,
    More,
    EndOfStream,
    ProcessEnd,
}

impl Session {
    pub(super) fn new(context: Arc<Context>, stream: Stream, applier: Applier) -> Self {
        let framing = match context.policy.layout {
            Some(layout) => Framing::Known(layout),
            None => Framing::Undetected(FirstFrame::default()),
        };
        context.registry.events().connect(framing.label());
        Self {
            context,
            stream,
            applier,
            framing,
            carry: Vec::new(),
            offset: 0,
            out: Vec::new(),
            ask: None,
            rings: None,
            is_switched: false,
        }
    }

    /// Serves the connection to its end, or until the daemon stops and all that has been sent so far is applied.
    pub(super) async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let stop = async { drop(stopping.wait_for(|stop| *stop).await) };
        tokio::pin!(stop);
        loop {
            let step = tokio::select! {
                biased;
                step = self.step() => step,
                _ = &mut stop => return self.drain(),
            };
            match step {
                Ok(Step::Continue) => {}
                // There is probably more; the other sessions of this thread come first.
                Ok(Step::More) => tokio::task::yield_now().await,
                Ok(Step::EndOfStream) => {
                    self.finish();
                    self.empty_rings().await;
                    // It may have closed only the half that it writes to.
                    let _ = self.reply().await;
                    return;
                }
                // A fork may hold the socket open; whoever has rings does not share it.
                Ok(Step::ProcessEnd) => {
                    self.drain();
                    return self.empty_rings().await;
                }
                // The peer is gone, with whatever it did not send: its process's end tells the rest.
                Err(Fault::Io(error)) => {
                    debug!(peer = self.applier.peer_pid(), %error, "connection broke");
                    return self.empty_rings().await;
                }
                Err(fault) => {
                    // What came before it was a question like any other.
                    let _ = self.stream.try_write(&self.out);
                    return self.refuse(&fault);
                }
            }
        }
    }

    /// One read, what follows from it, and the replies to it.
    async fn step(&mut self) -> Result<Step, Fault> {
        if self.rings.as_ref().is_some_and(Rings::has_backlog) {
            self.read_rings()?;
            return Ok(Step::More);
        }
        if self.has_backlog() {
            let backlog = std::mem::take(&mut self.carry);
            self.consume(&backlog)?;
            self.reply().await?;
            return Ok(Step::More);
        }
        let silence = self.silence();
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

    /// Sends what has been answered. A peer that hears no more may have reported before it went: its end is told by reading.
    async fn reply(&mut self) -> Result<(), Fault> {
        match self.send_replies().await {
            Err(Fault::Io(error)) if is_gone(&error) => {
                self.out.clear();
                Ok(())
            }
            sent => sent,
        }
    }

    async fn send_replies(&mut self) -> Result<(), Fault> {
        while !self.out.is_empty() {
            let written = self.stream.write(&self.out).await?;
            self.out.drain(..written);
        }
        match self.ask.take() {
            Some(ask) => self.answer(ask).await,
            None => Ok(()),
        }
    }

    /// The socket before the rings: whatever comes over it, the rings are read first.
    fn poll_read(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<Step, Fault>> {
        loop {
            match self.take_in(|stream, space| stream.poll_read(task, space)) {
                Poll::Ready(Ok(Step::Continue)) if self.is_answered() => {}
                Poll::Ready(step) => return Poll::Ready(step),
                Poll::Pending => break,
            }
        }
        let Some(rings) = &mut self.rings else { return Poll::Pending };
        match ready!(rings.poll(task, self.is_switched))? {
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
        if !matches!(self.framing, Framing::Known(_)) || self.ask.is_some() {
            return false;
        }
        if !self.out.is_empty() {
            // What goes wrong here goes wrong again where it is dealt with.
            let written = self.stream.try_write(&self.out).unwrap_or(0);
            self.out.drain(..written);
        }
        self.out.is_empty()
    }

    /// One read into this thread's buffer, and what follows from it.
    fn take_in(
        &mut self,
        read: impl FnOnce(&mut Stream, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<Result<Step, Fault>> {
        BUFFER.with_borrow_mut(|buffer| {
            let carried = self.carry.len();
            buffer[..carried].copy_from_slice(&self.carry);
            let read = ready!(read(&mut self.stream, &mut buffer[carried..carried + READ_BYTES]))?;
            if read == 0 {
                return Poll::Ready(Ok(Step::EndOfStream));
            }
            self.consume(&buffer[..carried + read])?;
            let has_more = read == READ_BYTES || self.has_backlog();
            Poll::Ready(Ok(if has_more { Step::More } else { Step::Continue }))
        })
    }

    /// Applies the whole frames in `bytes` and keeps the rest.
    fn consume(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if !self.catch_up()? {
            self.keep(bytes);
            return Ok(());
        }
        let time = now();
        let mut rest = bytes;
        if let Framing::Undetected(first) = &mut self.framing {
            match detect(rest).map_err(|error| BadFrame::new(error, self.offset))? {
                Detection::Known(layout) => {
                    let first = std::mem::take(first);
                    rest = self.begin(layout, &first, rest);
                }
                Detection::Candidate(layout) => self.act_early(layout, rest, time)?,
                Detection::Incomplete => {}
            }
        }
        let Framing::Known(layout) = self.framing else {
            self.keep(rest);
            return Ok(());
        };
        let used = self.applier.apply(rest, layout, self.offset, time, &mut self.out)?;
        self.offset += used as u64;
        self.keep(&rest[used..]);
        match self.applier.take_hello() {
            Some(hello) => self.heed(hello, time),
            None => Ok(()),
        }
    }

    /// Whether whole frames wait that were too much for the turn before.
    fn has_backlog(&self) -> bool {
        matches!(self.framing, Framing::Known(layout) if self.carry.len() >= layout.frame_bytes())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.carry.clear();
        self.carry.extend_from_slice(bytes);
    }

    /// The size is known: what is still owed to the first frame is done. Gives the bytes after what was done already.
    fn begin<'a>(&mut self, layout: Layout, first: &FirstFrame, bytes: &'a [u8]) -> &'a [u8] {
        self.set_layout(layout);
        match first {
            FirstFrame::Waiting => return bytes,
            FirstFrame::Applied => {}
            FirstFrame::Answered(reply, sent) => self.out.extend_from_slice(&reply.encode(layout)[*sent..]),
        }
        let (frame, rest) = bytes.split_at(layout.frame_bytes());
        self.offset += frame.len() as u64;
        rest
    }

    /// Does with a first frame, which ends where one of that layout would, what is right whatever its size is.
    fn act_early(&mut self, layout: Layout, frame: &[u8], time: Time) -> Result<(), Fault> {
        let Some(Ok(header)) = frame.first_chunk().map(Header::decode) else { return Ok(()) };
        if header.kind.wants_answer() {
            // Every layout's reply begins with the smallest one's.
            if layout == Layout::Bytes72 {
                self.answer_first(layout, frame, time);
            }
            return Ok(());
        }
        let is_waiting = matches!(self.framing, Framing::Undetected(FirstFrame::Waiting));
        if is_waiting && self.applier.has_one_meaning(&header) {
            self.apply_first(layout, frame, time)
        } else {
            Ok(())
        }
    }

    fn apply_first(&mut self, layout: Layout, frame: &[u8], time: Time) -> Result<(), Fault> {
        self.applier.apply(frame, layout, self.offset, time, &mut self.out)?;
        self.framing = Framing::Undetected(FirstFrame::Applied);
        Ok(())
    }

    /// How long to wait for more before the first frame is taken for complete.
    fn silence(&self) -> Option<Duration> {
        let is_waiting = match &self.framing {
            Framing::Known(_) | Framing::Undetected(FirstFrame::Applied) => false,
            Framing::Undetected(FirstFrame::Answered(_, sent)) => *sent < self.carry.len(),
            Framing::Undetected(FirstFrame::Waiting) => true,
        };
        let is_candidate = || matches!(detect(&self.carry), Ok(Detection::Candidate(_)));
        (is_waiting && is_candidate()).then_some(Duration::from_millis(DETECTION_SILENCE_MILLISECONDS))
    }

    /// The peer says no more, so its first frame must be whole. If more zeros follow after all, the size is still open.
    fn assume_layout(&mut self) -> Result<(), Fault> {
        let time = now();
        let Framing::Undetected(FirstFrame::Waiting | FirstFrame::Answered(..)) = self.framing else {
            return Ok(());
        };
        let Ok(Detection::Candidate(layout)) = detect(&self.carry) else { return Ok(()) };
        let frame = std::mem::take(&mut self.carry);
        if !self.answer_first(layout, &frame, time) {
            self.apply_first(layout, &frame, time)?;
        }
        self.carry = frame;
        Ok(())
    }

    /// Answers the first frame as one of that layout, if it wants an answer.
    fn answer_first(&mut self, layout: Layout, frame: &[u8], time: Time) -> bool {
        let Framing::Undetected(first) = &mut self.framing else { return false };
        if let FirstFrame::Waiting = first {
            let Some(Ok(header)) = frame.first_chunk().map(Header::decode) else { return false };
            let Some(reply) = self.applier.reply(&header, self.offset, time) else { return false };
            *first = FirstFrame::Answered(reply, 0);
        }
        let FirstFrame::Answered(reply, sent) = first else { return false };
        self.out.extend_from_slice(&reply.encode(layout)[*sent..]);
        *sent = layout.frame_bytes();
        true
    }

    fn set_layout(&mut self, layout: Layout) {
        let events = self.context.registry.events();
        events.disconnect(self.framing.label());
        self.framing = Framing::Known(layout);
        events.connect(self.framing.label());
    }

    /// The daemon stops: applies and answers what the peer has sent so far, without waiting for more.
    fn drain(&mut self) {
        for _ in 0..DRAIN_TURNS_MAX {
            if self.has_backlog() {
                let backlog = std::mem::take(&mut self.carry);
                if self.consume(&backlog).is_err() {
                    return;
                }
            } else {
                let taken = self.take_in(|stream, space| stream.try_read(space));
                let Poll::Ready(Ok(Step::Continue | Step::More)) = taken else { break };
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
        let is_sent = self.stream.try_write(&self.out).is_ok_and(|written| written == self.out.len());
        self.out.clear();
        is_sent
    }

    /// The peer has closed its end.
    fn finish(&mut self) {
        if let Framing::Undetected(FirstFrame::Waiting) = &self.framing {
            // A single frame and goodbye: if it is not one, that is said below.
            let _ = self.assume_layout();
        }
        let is_whole =
            matches!(&self.framing, Framing::Undetected(FirstFrame::Applied | FirstFrame::Answered(..)));
        if !is_whole && !self.carry.is_empty() {
            self.context.registry.events().reject(Rejection::Truncated);
            if let Some(suppressed) = self.context.throttle.admit("truncated", clock::monotonic_ns()) {
                let (peer, offset, bytes) = (self.applier.peer_pid(), self.offset, self.carry.len());
                warn!(peer, offset, bytes, suppressed, "connection ended inside a frame");
            }
        }
    }

    /// Framing is lost: says where and why, and closes.
    fn refuse(&mut self, fault: &Fault) {
        let (rejection, offset, error): (_, _, &dyn std::error::Error) = match fault {
            Fault::BadFrame(bad) => (bad.rejection(), bad.offset, &bad.error),
            Fault::BadRing(error) => (Rejection::Ring, 0, error),
            Fault::Io(_) => return,
        };
        self.context.registry.events().reject(rejection);
        let now_ns = clock::monotonic_ns();
        if let Some(suppressed) = self.context.throttle.admit(rejection.name(), now_ns) {
            let (peer, reason) = (self.applier.peer_pid(), rejection.name());
            self.context.tell_rejected(peer, rejection, suppressed, now_ns);
            warn!(peer, offset, reason, suppressed, error, "framing lost; connection closed");
        }
    }
}

/// Whether the peer's socket is closed.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Drop for Session {
    fn drop(&mut self) {
        let events = self.context.registry.events();
        if self.is_switched {
            events.disconnect_ring();
        } else {
            events.disconnect(self.framing.label());
        }
    }
}

impl Framing {
    fn label(&self) -> ConnectionLayout {
        match self {
            Framing::Undetected(_) => ConnectionLayout::Undetected,
            Framing::Known(Layout::Bytes72) => ConnectionLayout::Bytes72,
            Framing::Known(Layout::Bytes112) => ConnectionLayout::Bytes112,
            Framing::Known(Layout::Bytes144) => ConnectionLayout::Bytes144,
        }
    }
}

fn now() -> Time {
    let (monotonic_ns, unix_ns) = clock::now_by_monotonic();
    Time { monotonic_ns, unix_ns }
}
