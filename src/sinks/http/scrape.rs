//! /metrics: a bounded number of scrapes at once, each in the format, selection and compression that it asks for.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_ENCODING, HeaderValue, VARY};
use hyper::{HeaderMap, Request, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::negotiation::{Coding, Format, coding, format};
use super::pieces::Pieces;
use super::problem::Problem;
use super::{Body, Sources};
use crate::clock;
use crate::registry::Snapshot;
use crate::views::exposition::{ByteFormat, Exposition, Selection, expose};
use crate::views::protobuf::Protobuf;
use crate::views::text::Text;

/// Scrapes that are answered at once; one more waits its turn. As many as node_exporter takes.
pub(super) const SCRAPES_MAX: usize = 40;
/// How long a scrape waits for its turn when it does not say how long it has.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// What of a scraper's time is left for sending the answer.
const TIMEOUT_OFFSET: Duration = Duration::from_millis(500);
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";

/// Answers a scrape.
pub(super) async fn answer<B>(
    sources: &Arc<Sources>,
    request: &Request<B>,
) -> Result<Response<Body>, Problem> {
    let names = names(request.uri().query())?;
    let wait = patience(request.headers())?;
    let turn = Arc::clone(&sources.scrapes).acquire_owned();
    let Ok(Ok(turn)) = tokio::time::timeout(wait, turn).await else {
        return Err(Problem::unavailable(format!(
            "{SCRAPES_MAX} scrapes are being answered already; scrape less often"
        )));
    };
    let selection = Selection { names, processes_max: sources.processes_max };
    let (format, coding) = (format(request.headers()), coding(request.headers()));
    let body = match format {
        Format::Protobuf => body(sources, selection, Protobuf::default(), coding, turn),
        Format::Text004 | Format::Text100 | Format::OpenMetrics => {
            body(sources, selection, Text::new(format.dialect()), coding, turn)
        }
    };
    let body = body.map_err(|error| Problem::internal(format!("cannot compress the answer: {error}")))?;
    Ok(respond(body, format, coding))
}

fn respond(body: Body, format: Format, coding: Coding) -> Response<Body> {
    let mut response = super::routes::respond(format.content_type(), body);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(name) = coding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

/// The snapshot and the first piece are made at once. A small answer is that piece, and says how long it is. A large one keeps the
/// snapshot, and so its turn, until it has been sent or given up.
fn body<E: ByteFormat + Send + 'static>(
    sources: &Arc<Sources>,
    selection: Selection,
    to: E,
    coding: Coding,
    turn: OwnedSemaphorePermit,
) -> io::Result<Body> {
    let started_ns = clock::monotonic_ns();
    // What the daemon says of itself first: a reload that it tells of has then been done to what the snapshot shows.
    let own = sources.metrics.gather(&selection);
    let snapshot = sources.registry.snapshot(super::routes::now());
    let spent_ns = clock::monotonic_ns() - started_ns;
    let mut pieces = Pieces::new(Arc::clone(sources), own, snapshot, selection, to, coding, spent_ns)?;
    let first = pieces.next().transpose()?.unwrap_or_default();
    if pieces.is_finished() {
        return Ok(Body::whole(first));
    }
    let pieces = std::iter::once(Ok(first)).chain(pieces).inspect(move |_| {
        let _kept_until_then = &turn;
    });
    Ok(Body::Pieces(Box::new(pieces)))
}

impl Sources {
    /// What a scrape would be told, in another format.
    pub(in crate::sinks) fn write_to<E: Exposition>(&self, make: impl FnOnce(&Snapshot) -> E) -> E {
        let selection = Selection { names: HashSet::new(), processes_max: self.processes_max };
        let own = self.metrics.gather(&selection);
        let snapshot = self.registry.snapshot(super::routes::now());
        let mut to = make(&snapshot);
        expose(snapshot, selection, own.samples(&to), &mut to);
        own.write(&mut to);
        to
    }
}

/// The families asked for by `name[]`; none means all. A family that does not exist selects nothing, as for the libraries that have
/// this parameter.
fn names(query: Option<&str>) -> Result<HashSet<String>, Problem> {
    let parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    parameters
        .map(|(name, value)| match name.as_ref() {
            "name[]" => Ok(value.into_owned()),
            other => Err(Problem::bad_request(format!(
                "parameter {other:?} is not known; there is name[], repeated for each family"
            ))),
        })
        .collect()
}

/// How long a scrape may wait for its turn, so that its answer is there before the scraper gives up.
fn patience(headers: &HeaderMap) -> Result<Duration, Problem> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(WAIT_DEFAULT) };
    let seconds =
        value.to_str().ok().and_then(|text| text.parse().ok()).filter(|seconds: &f64| *seconds > 0.0);
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let timeout = timeout.ok_or_else(|| {
        Problem::bad_request(format!("{TIMEOUT_HEADER}: {value:?} is not a number of seconds above 0"))
    })?;
    Ok(timeout.saturating_sub(TIMEOUT_OFFSET))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{DaemonMetrics, Web};
    use super::*;
    use crate::registry::Registry;
    use crate::views::trace::Host;

    fn sources(registry: Registry) -> Arc<Sources> {
        let metrics = DaemonMetrics::new("0.0.0", "none", 0.0).expect("new names");
        let web = Web::load(None).expect("nothing to read");
        let host = Host { name: "h".into(), id: "1".into(), boot_id: "2".into() };
        Arc::new(Sources::new(Arc::new(registry), metrics, 1, web, Arc::new(host), None))
    }

    #[test]
    fn a_large_answer_keeps_its_turn_until_it_has_been_taken() {
        let registry = Registry::new(0);
        for device in 0..1000 {
            registry.device(device);
        }
        let sources = sources(registry);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let response = answer(&sources, &Request::new(())).await.expect("a turn is free");
            assert!(matches!(response.body(), Body::Pieces(_)), "not large enough");
            assert_eq!(sources.scrapes.available_permits(), SCRAPES_MAX - 1);
            drop(response);
            assert_eq!(sources.scrapes.available_permits(), SCRAPES_MAX);
        });
    }

    #[test]
    fn a_scrape_whose_turn_does_not_come_in_its_time_is_refused() {
        let sources = sources(Registry::new(0));
        let request = Request::builder().header(TIMEOUT_HEADER, "0.1").body(()).expect("a header");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let others = sources.scrapes.acquire_many(SCRAPES_MAX as u32).await.expect("open");
            let refused = answer(&sources, &request).await.expect_err("no turn is left").into_response();
            assert_eq!(refused.status(), 503);
            drop(others);
            assert!(answer(&sources, &request).await.is_ok());
        });
    }

    #[test]
    fn a_scrape_waits_no_longer_than_its_scraper() {
        let check = |value: &str, expected: Option<Duration>| {
            let headers = HeaderMap::from_iter([(
                TIMEOUT_HEADER.parse().expect("a name"),
                value.parse().expect("a value"),
            )]);
            assert_eq!(patience(&headers).ok(), expected, "{value}");
        };
        check("10", Some(Duration::from_millis(9500)));
        check("0.2", Some(Duration::ZERO));
        for wrong in ["", "x", "-1", "NaN", "1e300"] {
            check(wrong, None);
        }
        assert_eq!(patience(&HeaderMap::new()).expect("absent is fine"), WAIT_DEFAULT);
    }
}
