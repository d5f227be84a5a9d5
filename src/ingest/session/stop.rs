//! The daemon's stop, as a session waits for it beside its connection.
//!
//! The idea is that the daemon stops once, while a session is polled with every read: nearly always one look at a number has to do.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;
use tokio::task::unconstrained;

/// Done when the daemon stops, or nobody is there any more who could say so.
pub(super) struct Stop {
    /// What has been said since `wait` was made.
    said: watch::Receiver<bool>,
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whom `wait` wakes when something is said.
    waker: Option<Waker>,
}

impl Stop {
    pub(super) fn new(said: watch::Receiver<bool>) -> Stop {
        let mut heard = said.clone();
        // Whatever else the task has done in its turn: a waker that is given here is one that has been taken.
        let wait = unconstrained(async move { drop(heard.wait_for(|stop| *stop).await) });
        Stop { said, wait: Box::pin(wait), waker: None }
    }

    pub(super) fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let is_waiting = self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker()));
        if is_waiting && self.said.has_changed().is_ok_and(|has_changed| !has_changed) {
            return Poll::Pending;
        }
        self.waker = Some(task.waker().clone());
        self.wait.as_mut().poll(task)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn is_done(stop: &mut Stop, waker: &Waker) -> bool {
        stop.poll(&mut Context::from_waker(waker)).is_ready()
    }

    #[test]
    fn a_stop_is_seen_whenever_it_is_said() {
        let (sender, said) = watch::channel(false);
        let mut stop = Stop::new(said.clone());
        for _ in 0..3 {
            assert!(!is_done(&mut stop, Waker::noop()));
        }
        sender.send_replace(true);
        assert!(is_done(&mut stop, Waker::noop()));
        assert!(is_done(&mut Stop::new(said), Waker::noop()), "said before somebody waited");
    }

    #[test]
    fn a_daemon_that_is_gone_has_stopped() {
        let (sender, said) = watch::channel(false);
        let mut stop = Stop::new(said);
        assert!(!is_done(&mut stop, Waker::noop()));
        drop(sender);
        assert!(is_done(&mut stop, Waker::noop()));
    }

    /// A task that has used up its turn is told that nothing is there, and nobody takes its waker.
    #[test]
    fn a_task_is_woken_even_if_it_has_waited_first_at_the_end_of_its_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let (sender, said) = watch::channel(false);
        let mut stop = Stop::new(said);
        let waiting = async move {
            poll_fn(|task| {
                while tokio::task::coop::has_budget_remaining() {
                    let consumed = std::pin::pin!(tokio::task::consume_budget()).poll(task);
                    assert!(consumed.is_ready() || !tokio::task::coop::has_budget_remaining());
                }
                stop.poll(task)
            })
            .await;
        };
        runtime.block_on(async {
            let waiting = tokio::spawn(waiting);
            tokio::task::yield_now().await;
            sender.send_replace(true);
            let bound = std::time::Duration::from_secs(10);
            tokio::time::timeout(bound, waiting).await.expect("it is woken").expect("no panic");
        });
    }
}
