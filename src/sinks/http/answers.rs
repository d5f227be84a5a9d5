//! Answers over HTTP/2, handed out piece by piece, so that one is noticed that its client does not take.
//!
//! Over HTTP/1.1 the connection itself stands still then. Over HTTP/2 the client says for each stream how much it will take, and can go on
//! with everything else meanwhile, while the answer stays in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use parking_lot::Mutex;

use super::live::Stream;
use crate::clock;

/// Bytes that are handed out at once. What is below is in the library's hands and no longer noticed.
const PIECE_BYTES: usize = 64 * 1024;

/// The answers on one connection that have not been taken to their end.
#[derive(Default)]
pub(super) struct Answers {
    /// When something was last taken of each, in monotonic nanoseconds.
    taken_ns: Mutex<Vec<Weak<AtomicU64>>>,
}

impl Answers {
    /// An answer that is to be handed out. As something comes of a stream every second, one that waits is not taken either.
    pub(super) fn hand_out(&self, rest: Rest) -> Answer {
        let taken_ns = Arc::new(AtomicU64::new(clock::monotonic_ns()));
        let mut all = self.taken_ns.lock();
        all.retain(|answer| answer.strong_count() > 0);
        all.push(Arc::downgrade(&taken_ns));
        Answer { rest, taken_ns }
    }

    /// For how long the one that has waited for longest has done so; 0 if none waits.
    pub(super) fn longest_wait_ns(&self, now_ns: u64) -> u64 {
        let all = self.taken_ns.lock();
        let waits =
            all.iter().filter_map(Weak::upgrade).map(|answer| now_ns.saturating_sub(answer.load(Relaxed)));
        waits.max().unwrap_or(0)
    }
}

/// An answer that is on its way.
pub(super) struct Answer {
    rest: Rest,
    taken_ns: Arc<AtomicU64>,
}

/// What is left of it.
pub(super) enum Rest {
    Content(Bytes),
    Live(Stream),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken_ns.store(clock::monotonic_ns(), Relaxed);
        match &mut self.rest {
            Rest::Content(content) => {
                let length = content.len().min(PIECE_BYTES);
                let piece = content.split_to(length);
                Poll::Ready((length > 0).then(|| Ok(Frame::data(piece))))
            }
            Rest::Live(stream) => {
                stream.poll_event(task).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.rest, Rest::Content(content) if content.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::Content(content) => SizeHint::with_exact(content.len() as u64),
            Rest::Live(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn an_answer_is_handed_out_whole_and_its_wait_is_known() {
        let answers = Answers::default();
        let content = Bytes::from_iter((0..3 * PIECE_BYTES + 1).map(|number| number as u8));
        let mut answer = answers.hand_out(Rest::Content(content.clone()));
        let (done, begun_ns) = (answers.hand_out(Rest::Content(Bytes::new())), clock::monotonic_ns());
        drop(done);
        answer.taken_ns.store(begun_ns, Relaxed);
        assert_eq!(answers.longest_wait_ns(begun_ns + 7), 7);
        let mut taken = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while !answer.is_end_stream() {
            assert_eq!(answer.size_hint().exact(), Some((content.len() - taken.len()) as u64));
            let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut answer).poll_frame(&mut context) else {
                panic!("it is not at its end")
            };
            taken.extend_from_slice(&frame.into_data().expect("data"));
        }
        assert!(taken == content);
        assert_eq!(answers.longest_wait_ns(0), 0);
        drop(answer);
        assert_eq!(answers.longest_wait_ns(u64::MAX), 0, "it has been taken");
    }
}
