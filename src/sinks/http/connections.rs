//! The open connections: how many there may be, which of them has to go when there is no room, and when one that
//! does nothing is closed.
//!
//! The idea is that nobody can lock others out by holding connections: a new one always finds room, at the cost of
//! the one that has been still for longest among those of the peer that has most.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::answers::{Answer, Answers, Rest};
use super::authentication::Peer;
use crate::clock;

/// Connections at once, on all addresses together. Each may hold a whole answer that its client has yet to read.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// A connection on which no byte moves for so long is closed. Longer than the interval between two scrapes, so that a
/// scraper keeps its connection.
pub(super) const STILL_MAX: Duration = Duration::from_secs(300);
/// One whose client takes nothing of an answer for so long is closed: it holds the answer in memory.
const UNREAD_MAX: Duration = Duration::from_secs(10);

/// Those that are open.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

struct Open {
    peer: Peer,
    activity: Arc<Activity>,
}

/// When something last moved on a connection.
struct Activity {
    last_ns: AtomicU64,
    /// Whether there is something to write that the other end has no room for.
    is_unread: AtomicBool,
    /// What is to be taken stream by stream.
    answers: Answers,
    evicted: Notify,
}

impl Activity {
    fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }

    /// For how long its client has taken nothing of something that is there for it.
    fn unread(&self, now_ns: u64) -> Duration {
        let still_ns = now_ns.saturating_sub(self.last_ns());
        let still_ns = if self.is_unread.load(Ordering::Relaxed) { still_ns } else { 0 };
        Duration::from_nanos(still_ns.max(self.answers.longest_wait_ns(now_ns)))
    }
}

/// One connection's place, given back when dropped.
pub(super) struct Seat {
    connections: Arc<Connections>,
    number: u64,
    activity: Arc<Activity>,
}

impl Connections {
    /// A place for a new connection.
    pub(super) fn admit(self: &Arc<Connections>, peer: Peer) -> Seat {
        let activity = Arc::new(Activity {
            last_ns: AtomicU64::new(clock::monotonic_ns()),
            is_unread: AtomicBool::new(false),
            answers: Answers::default(),
            evicted: Notify::new(),
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        if open.len() >= CONNECTIONS_MAX
            && let Some(evicted) = most_dispensable(&open)
            && let Some(evicted) = open.remove(&evicted)
        {
            evicted.activity.evicted.notify_one();
        }
        open.insert(number, Open { peer, activity: Arc::clone(&activity) });
        Seat { connections: Arc::clone(self), number, activity }
    }
}

fn most_dispensable(open: &HashMap<u64, Open>) -> Option<u64> {
    let mut counts: HashMap<Peer, usize> = HashMap::new();
    for connection in open.values() {
        *counts.entry(connection.peer).or_default() += 1;
    }
    open.iter()
        .min_by_key(|(number, connection)| {
            let last_ns = connection.activity.last_ns();
            (std::cmp::Reverse(counts[&connection.peer]), last_ns, **number)
        })
        .map(|(number, _)| *number)
}

impl Seat {
    /// A stream whose movements count.
    pub(super) fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, activity: Arc::clone(&self.activity) }
    }

    /// An answer that may go out on one of several streams.
    pub(super) fn hand_out(&self) -> impl Fn(Rest) -> Answer + Clone + Send + 'static {
        let activity = Arc::clone(&self.activity);
        move |rest| activity.answers.hand_out(rest)
    }

    /// Until the connection has to go: because its place is needed, or because it has been still for too long.
    pub(super) async fn lost(&self) -> &'static str {
        tokio::select! {
            biased;
            () = self.activity.evicted.notified() => "its place was needed",
            reason = self.still_for_too_long() => reason,
        }
    }

    async fn still_for_too_long(&self) -> &'static str {
        loop {
            let now_ns = clock::monotonic_ns();
            let still = Duration::from_nanos(now_ns.saturating_sub(self.activity.last_ns()));
            if still >= STILL_MAX {
                return "nothing moved on it";
            }
            if self.activity.unread(now_ns) >= UNREAD_MAX {
                return "its client does not read";
            }
            let rest = if still < UNREAD_MAX { UNREAD_MAX - still } else { STILL_MAX - still };
            tokio::time::sleep(rest.min(UNREAD_MAX)).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
    }
}

/// A stream that notes when bytes move.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn moved<T>(&self, result: &Poll<io::Result<T>>) {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.activity.last_ns.store(clock::monotonic_ns(), Ordering::Relaxed);
        }
    }

    fn written<T>(&self, result: &Poll<io::Result<T>>) {
        self.activity.is_unread.store(result.is_pending(), Ordering::Relaxed);
        self.moved(result);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.moved(&result);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_connection_takes_the_place_of_the_greediest_peers_stillest() {
        let connections = Arc::new(Connections::default());
        let peer = |number: u8| Peer::of(std::net::IpAddr::from([192, 0, 2, number]));
        let scraper = connections.admit(peer(1));
        scraper.activity.last_ns.store(0, Ordering::Relaxed);
        let greedy: Vec<Seat> = (1..CONNECTIONS_MAX).map(|_| connections.admit(peer(2))).collect();
        greedy[7].activity.last_ns.store(1, Ordering::Relaxed);
        let late = connections.admit(peer(3));
        let open = connections.open.lock();
        assert_eq!(open.len(), CONNECTIONS_MAX);
        assert!(open.contains_key(&scraper.number), "the only one of its peer, however still");
        assert!(open.contains_key(&late.number));
        assert!(!open.contains_key(&greedy[7].number));
        drop(open);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        assert_eq!(runtime.block_on(greedy[7].lost()), "its place was needed");
        drop((greedy, scraper, late));
        assert_eq!(connections.open.lock().len(), 0);
    }

    #[test]
    fn a_connection_whose_client_does_not_read_is_closed_long_before_one_that_rests() {
        let connections = Arc::new(Connections::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let seat = connections.admit(Peer::Local);
        let (here, _there) = tokio::io::duplex(1);
        let mut stream = seat.watch(here);
        let ago = |time: Duration| clock::monotonic_ns() - u64::try_from(time.as_nanos()).expect("short");
        let is_kept = || {
            let lost = async { tokio::time::timeout(Duration::ZERO, seat.lost()).await.is_err() };
            runtime.block_on(lost)
        };
        seat.activity.last_ns.store(ago(UNREAD_MAX), Ordering::Relaxed);
        assert!(is_kept(), "it rests");
        runtime.block_on(async {
            let write = tokio::io::AsyncWriteExt::write_all(&mut stream, b"more than there is room for");
            assert!(tokio::time::timeout(Duration::ZERO, write).await.is_err());
        });
        assert!(is_kept(), "it has begun to be unread");
        seat.activity.last_ns.store(ago(UNREAD_MAX), Ordering::Relaxed);
        assert_eq!(runtime.block_on(seat.lost()), "its client does not read");
        seat.activity.is_unread.store(false, Ordering::Relaxed);
        seat.activity.last_ns.store(ago(STILL_MAX), Ordering::Relaxed);
        assert_eq!(runtime.block_on(seat.lost()), "nothing moved on it");
    }
}
