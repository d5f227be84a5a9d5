//! What takes a signal's batches out of its outbox and gets them to the collector, again and again if need be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Bytes;
use opentelemetry_proto::tonic::resource::v1::Resource;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use super::account::DropReason;
use super::outbox::{Claim, Outbox};
use super::retry;
use super::signal::Signal;
use super::transport::{Failure, Transport, excerpt};
use crate::clock;
use crate::throttle::Throttle;

/// A signal's worker.
pub(super) struct Worker<S: Signal> {
    pub(super) signal: S,
    pub(super) outbox: Arc<Outbox<S::Item>>,
    pub(super) transport: Transport,
    pub(super) resource: Resource,
    /// Requests on their way at once: one where their order matters.
    pub(super) requests_max: u32,
    /// How long a batch is tried for.
    pub(super) retry_for: Duration,
    pub(super) throttle: Arc<Throttle>,
    pub(super) state: State,
}

/// What the requests of one signal know of each other.
#[derive(Default)]
pub(super) struct State {
    /// Until when the collector wants to be left alone.
    not_before: Mutex<Option<Instant>>,
    /// Whether the last attempt failed: the log tells of the first failure and of the recovery.
    is_failing: AtomicBool,
}

impl<S: Signal> Worker<S> {
    /// Runs until the outbox is closed and empty and everything that was taken has been answered for.
    pub(super) async fn run(self) {
        let worker = Arc::new(self);
        let requests = Arc::new(Semaphore::new(worker.requests_max as usize));
        while let Ok(place) = Arc::clone(&requests).acquire_owned().await {
            let Some((items, claim)) = worker.outbox.take().await else { break };
            let worker = Arc::clone(&worker);
            tokio::spawn(async move {
                worker.deliver(items, claim).await;
                drop(place);
            });
        }
        // The place that the loop held has been given back by now.
        let _ = requests.acquire_many(worker.requests_max).await;
    }

    async fn deliver(&self, items: Vec<S::Item>, claim: Claim<S::Item>) {
        let request = S::request(self.resource.clone(), items);
        let body = match self.transport.body(request.encode_to_vec()) {
            Ok(body) => body,
            Err(error) => {
                warn!(signal = S::NAME, %error, "OTLP: a request cannot be encoded; its items are dropped");
                return claim.dropped(DropReason::Rejected);
            }
        };
        let deadline = Instant::now() + self.retry_for;
        for failures in 1.. {
            self.wait_until_welcome().await;
            let failure = match self.transport.send(body.clone()).await {
                Ok(answer) => return self.accepted(&request, answer, claim),
                Err(failure) => failure,
            };
            self.outbox.failed(failure.reason);
            self.tell_failure(&failure, claim.items());
            if !failure.is_retryable {
                return claim.dropped(DropReason::Rejected);
            }
            let pause = failure.wait.unwrap_or_else(|| retry::pause(failures));
            // What a collector asks for can be longer than any clock goes.
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                return self.give_up(claim);
            }
            if failure.wait.is_some() {
                let mut not_before = self.state.not_before.lock();
                *not_before = (*not_before).max(Some(Instant::now() + pause));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn wait_until_welcome(&self) {
        let not_before = *self.state.not_before.lock();
        if let Some(instant) = not_before {
            tokio::time::sleep_until(instant).await;
        }
    }

    fn accepted(&self, request: &S::Request, answer: Bytes, claim: Claim<S::Item>) {
        // An answer that cannot be read comes with a status that says yes.
        let rejected = S::Response::decode(answer).map(S::rejected).unwrap_or_default();
        if (rejected.items > 0 || !rejected.message.is_empty())
            && let Some(suppressed) = self.throttle.admit(S::NAME, clock::monotonic_ns())
        {
            let (items, said) = (rejected.items, excerpt(rejected.message));
            warn!(signal = S::NAME, items, said, suppressed, "OTLP: the collector did not take everything");
        }
        claim.exported(rejected.items);
        // Which ones it refused is not said, and nobody is to be pointed to a span that is not there.
        if rejected.items == 0 {
            self.signal.exported(S::items(request));
        }
        if self.state.is_failing.swap(false, Relaxed) {
            let account = self.outbox.account();
            let (held, dropped) = (account.held.items, account.dropped_sum());
            info!(signal = S::NAME, held, dropped, "OTLP: exporting again");
        }
    }

    fn tell_failure(&self, failure: &Failure, items: u64) {
        if failure.is_retryable && self.state.is_failing.swap(true, Relaxed) {
            return;
        }
        let Some(suppressed) = self.throttle.admit(S::NAME, clock::monotonic_ns()) else { return };
        let (reason, error) = (failure.reason.name(), &failure.message);
        if failure.is_retryable {
            warn!(signal = S::NAME, reason, error, suppressed, "OTLP: cannot export; it is tried again");
        } else {
            warn!(
                signal = S::NAME,
                items, error, suppressed, "OTLP: the collector refuses a request; its items are dropped"
            );
        }
    }

    fn give_up(&self, claim: Claim<S::Item>) {
        if let Some(suppressed) = self.throttle.admit("otlp retries", clock::monotonic_ns()) {
            let seconds = self.retry_for.as_secs();
            let items = claim.items();
            warn!(
                signal = S::NAME,
                items, seconds, suppressed, "OTLP: could not be exported for too long; dropped"
            );
        }
        claim.dropped(DropReason::Timeout);
    }
}
