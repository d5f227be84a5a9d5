//! The open connections: how many there may be, which of them has to go when there is no room, and when one that
//! does nothing is closed.
//!
//! The idea is that nobody can lock others out by holding connections: a new one always finds room, at the cost of
//! the one that has been still for longest among those of the peer that has most.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::authentication::Peer;
use crate::clock;

/// Connections at once, on all addresses together.
pub(super) const CONNECTIONS_MAX: usize = 512;
/// A connection on which no byte moves for so long is closed. Longer than the interval between two scrapes, so that a
/// scraper keeps its connection.
pub(super) const STILL_MAX: Duration = Duration::from_secs(300);

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
    evicted: Notify,
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
        let activity =
            Arc::new(Activity { last_ns: AtomicU64::new(clock::monotonic_ns()), evicted: Notify::new() });
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
            let last_ns = connection.activity.last_ns.load(Ordering::Relaxed);
            (std::cmp::Reverse(counts[&connection.peer]), last_ns, **number)
        })
        .map(|(number, _)| *number)
}

impl Seat {
    /// A stream whose movements count.
    pub(super) fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, activity: Arc::clone(&self.activity) }
    }

    /// Until the connection has to go: because its place is needed, or because it has been still for too long.
    pub(super) async fn lost(&self) -> &'static str {
        let still = async {
            loop {
                let still =
                    clock::monotonic_ns().saturating_sub(self.activity.last_ns.load(Ordering::Relaxed));
                match STILL_MAX.checked_sub(Duration::from_nanos(still)) {
                    Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                    _ => break,
                }
            }
        };
        tokio::select! {
            () = self.activity.evicted.notified() => "its place was needed",
            () = still => "nothing moved on it",
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
        self.moved(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.moved(&result);
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
}
