//! /api/v1/live: what is so, told to whoever listens once a second, as server-sent events.
//!
//! The idea is that a moment is written once however many listen, and not at all while nobody does. Nothing is queued for a listener:
//! one that could not follow is given the whole state in place of the changes that it missed.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use hyper::{Method, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::problem::Problem;
use super::routes::{now, respond};
use super::{Body, Sources};
use crate::registry::Snapshot;
use crate::sinks::sampler::Listener;
use crate::views::live::Scene;
use crate::views::trace::Host;

/// Listeners at once: half of the connections that there may be, so that they leave room for scrapes.
const LISTENERS_MAX: usize = super::connections::CONNECTIONS_MAX / 2;

/// Where listeners find what is told.
pub struct Live {
    moments: watch::Receiver<Option<Arc<Moment>>>,
    places: Arc<Semaphore>,
    has_history: bool,
}

/// One moment.
struct Moment {
    number: u64,
    scene: Scene,
    /// What has changed since the moment before.
    change: Bytes,
    /// Written when somebody needs it.
    whole: OnceLock<Bytes>,
}

impl Live {
    /// It, and what tells it of each sample. When that ends, so do all streams.
    pub fn new(host: Arc<Host>, has_history: bool) -> (Live, Listener) {
        let (tell, moments) = watch::channel(None);
        let mut number = 0;
        let listener = Box::new(move |snapshot: &Snapshot| {
            number += 1;
            // One receiver is the daemon's own.
            let is_heard = tell.receiver_count() > 1;
            let before = tell.borrow().clone();
            if is_heard {
                let moment = Moment::new(number, Scene::of(snapshot, &host, has_history), before.as_deref());
                tell.send_replace(Some(Arc::new(moment)));
            } else if before.is_some() {
                tell.send_replace(None);
            }
        });
        (Live { moments, places: Arc::new(Semaphore::new(LISTENERS_MAX)), has_history }, listener)
    }
}

impl Moment {
    fn new(number: u64, scene: Scene, before: Option<&Moment>) -> Moment {
        let change = before.map(|before| Bytes::from(scene.since(&before.scene))).unwrap_or_default();
        Moment { number, scene, change, whole: OnceLock::new() }
    }

    fn whole(&self) -> Bytes {
        self.whole.get_or_init(|| Bytes::from(self.scene.whole())).clone()
    }
}

/// Begins a stream.
pub(super) fn answer(sources: &Sources, method: &Method) -> Result<Response<Body>, Problem> {
    let Ok(place) = Arc::clone(&sources.live.places).try_acquire_owned() else {
        return Err(Problem::unavailable(format!(
            "{LISTENERS_MAX} others are listening already; close a page, or ask /api/v1/devices instead"
        )));
    };
    let body = if method == Method::HEAD {
        Body::whole(Vec::new())
    } else {
        let mut moments = sources.live.moments.clone();
        moments.mark_unchanged();
        let snapshot = sources.registry.snapshot(now());
        let first = Bytes::from(Scene::of(&snapshot, &sources.host, sources.live.has_history).whole());
        let listening = Listening { moments, seen: None, _place: place };
        Body::Live(Stream { next: Box::pin(std::future::ready(Some((first, listening)))) })
    };
    Ok(respond("text/event-stream", body))
}

/// The events for one listener, without an end of their own.
pub(super) struct Stream {
    next: Pin<Box<dyn Future<Output = Next> + Send>>,
}

/// An event, and the listener who waits for the one after it.
type Next = Option<(Bytes, Listening)>;

impl Stream {
    pub(super) fn poll_event(&mut self, task: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some((event, listening)) = ready!(self.next.as_mut().poll(task)) else {
            return Poll::Ready(None);
        };
        self.next = Box::pin(listening.next());
        Poll::Ready(Some(event))
    }
}

/// How far a listener has come.
struct Listening {
    moments: watch::Receiver<Option<Arc<Moment>>>,
    /// The last moment that it was told.
    seen: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Listening {
    async fn next(mut self) -> Next {
        let moment = loop {
            self.moments.changed().await.ok()?;
            // It is none when the sampler did not see yet that somebody listens.
            if let Some(moment) = self.moments.borrow_and_update().clone() {
                break moment;
            }
        };
        let follows = self.seen.is_some_and(|seen| seen + 1 == moment.number);
        self.seen = Some(moment.number);
        let event = if follows { moment.change.clone() } else { moment.whole() };
        Some((event, self))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::registry::{Registry, Time};

    #[test]
    fn a_listener_is_told_changes_and_the_whole_state_where_it_missed_some() {
        let text = || "test".to_owned();
        let host = Arc::new(Host { name: text(), id: text(), boot_id: text() });
        let (live, mut tell) = Live::new(host, false);
        let registry = Registry::new(0);
        let mut sample = |monotonic_ns| {
            tell(&registry.snapshot(Time { monotonic_ns, unix_ns: monotonic_ns }));
        };
        sample(1);
        assert!(live.moments.borrow().is_none(), "nothing is written for nobody");

        let place = Arc::clone(&live.places).try_acquire_owned().expect("a free place");
        let listening = Listening { moments: live.moments.clone(), seen: None, _place: place };
        let mut stream = Stream { next: Box::pin(listening.next()) };
        let mut heard = || match stream.poll_event(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event.map(|event| String::from_utf8_lossy(&event).into_owned()),
            Poll::Pending => Some("pending".to_owned()),
        };
        assert_eq!(heard().as_deref(), Some("pending"));
        let mut check = |samples: &[u64], expected: &str| {
            samples.iter().for_each(|ns| sample(*ns));
            let event = heard().expect("it goes on");
            assert!(event.starts_with(&format!("event: {expected}\n")), "{event}");
        };
        check(&[2], "state");
        check(&[3], "change");
        check(&[4], "change");
        check(&[5, 6], "state");
        check(&[7], "change");
        drop(tell);
        assert_eq!(heard(), None, "the daemon stops");
        drop(stream);
        assert_eq!(live.places.available_permits(), LISTENERS_MAX);
    }
}
