//! The supervisor's store, in which connections outlive the daemon: what is put into it, and what is taken out again.
//!
//! The idea is that a supervisor which does not listen holds up one thread, which has nothing else to do. A session waits for its own
//! connection to be taken, for so long and no longer; the others of its event loop go on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

/// Descriptors that may wait to be taken: each is a file that the daemon has open once more.
const WAITING_MAX: usize = 1024;
/// How long a session waits for its connection to be taken. A client has sent its question by then and wants an answer.
const KEEP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of the daemon waits for the last words to be heard.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// One thread's way to the supervisor. What is asked of it is done in that order.
pub(super) struct Store {
    orders: mpsc::Sender<Order>,
    waiting: Arc<AtomicUsize>,
}

enum Order {
    Keep {
        name: String,
        descriptor: OwnedFd,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// There is one at most for each name that was kept, so these need no bound of their own.
    Forget {
        name: String,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
}

impl Store {
    /// That of the supervisor which has started the daemon, if it has one.
    pub(super) fn open() -> io::Result<Option<Store>> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(None);
        }
        let (orders, received) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&waiting);
        std::thread::Builder::new().name("ttmem-store".into()).spawn(move || {
            for order in received {
                carry_out(order, &taken);
            }
        })?;
        Ok(Some(Store { orders, waiting }))
    }

    /// Puts a descriptor there; when this is done it is. What could not be put there in time never is.
    pub(super) async fn keep(&self, name: String, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        if self.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Relaxed);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections wait for it"));
        }
        let (done, is_done) = oneshot::channel();
        let descriptor = descriptor.try_clone_to_owned().inspect_err(|_| {
            self.waiting.fetch_sub(1, Relaxed);
        })?;
        self.order(Order::Keep { name, descriptor, done });
        match tokio::time::timeout(KEEP_TIMEOUT, is_done).await {
            Ok(Ok(kept)) => kept,
            // The thread has ended: by a panic, which has been reported.
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not listen")),
        }
    }

    /// Takes all of a name out.
    pub(super) fn forget(&self, name: String) {
        self.order(Order::Forget { name });
    }

    /// Waits a moment for what has been asked to be done.
    pub(super) async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        self.order(Order::Flush { done });
        // Where nobody listens nobody is told; the next daemon closes what it finds and knows nothing of.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, is_done).await;
    }

    fn order(&self, order: Order) {
        // It fails only when the thread has ended, by a panic, which has been reported.
        let _ = self.orders.send(order);
    }
}

/// On the thread that may be held up.
fn carry_out(order: Order, waiting: &AtomicUsize) {
    match order {
        Order::Keep { name, descriptor, done } => {
            waiting.fetch_sub(1, Relaxed);
            if done.is_closed() {
                return;
            }
            // A client that has gone leaves something to read: the store is not to drop its connection before that has been.
            let states = [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
            let kept = sd_notify::notify_with_fds(&states, &[descriptor.as_fd()]);
            // Whoever asked has given up in this very moment, and will not take it out again.
            if let Err(Ok(())) = done.send(kept) {
                forget(&name);
            }
        }
        Order::Forget { name } => forget(&name),
        Order::Flush { done } => {
            // Whoever asked may have given up.
            let _ = done.send(());
        }
    }
}

fn forget(name: &str) {
    // Nobody listens who could have kept it.
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}
