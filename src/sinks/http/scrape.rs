//! /metrics: a bounded number of scrapes at once, each in the format, selection and compression that it asks for.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{CONTENT_ENCODING, HeaderValue, VARY};
use hyper::{HeaderMap, Request, Response};

use super::daemon_metrics::Gathered;
use super::negotiation::{Coding, Format, coding, format};
use super::problem::Problem;
use super::{Body, Sources};
use crate::clock;
use crate::registry::Snapshot;
use crate::views::exposition::{Exposition, Selection, expose};
use crate::views::protobuf::Protobuf;
use crate::views::text::Text;

/// Scrapes that are answered at once; one more waits its turn. As many as node_exporter takes.
pub(super) const SCRAPES_MAX: usize = 40;
/// How long a scrape waits for its turn when it does not say how long it has.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// What of a scraper's time is left for sending the answer.
const TIMEOUT_OFFSET: Duration = Duration::from_millis(500);
/// Bytes that a sample takes in text, generously.
const SAMPLE_BYTES: usize = 160;
/// The fastest level: the body shrinks several times already, and the scraper is usually near.
const ZSTD_LEVEL: i32 = 1;

const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";

/// Answers a scrape.
pub(super) async fn answer<B>(sources: &Sources, request: &Request<B>) -> Result<Response<Body>, Problem> {
    let names = names(request.uri().query())?;
    let wait = patience(request.headers())?;
    let Ok(Ok(_turn)) = tokio::time::timeout(wait, sources.scrapes.acquire()).await else {
        return Err(Problem::unavailable(format!(
            "{SCRAPES_MAX} scrapes are being answered already; scrape less often"
        )));
    };
    let started_ns = clock::monotonic_ns();
    let selection = Selection { names, processes_max: sources.processes_max };
    let (format, coding) = (format(request.headers()), coding(request.headers()));
    let text = encode(sources, &selection, format);
    let text = compress(text, coding)
        .map_err(|error| Problem::internal(format!("cannot compress the answer: {error}")))?;
    sources.metrics.scraped((clock::monotonic_ns() - started_ns) as f64 / 1e9);
    Ok(respond(text, format, coding))
}

fn respond(text: Vec<u8>, format: Format, coding: Coding) -> Response<Body> {
    let mut response = super::routes::content(format.content_type(), text);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Some(name) = coding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

fn encode(sources: &Sources, selection: &Selection, format: Format) -> Vec<u8> {
    // What the daemon says of itself first: a reload that it tells of has then been done to what the snapshot shows.
    let own = sources.metrics.gather(selection);
    let snapshot = sources.registry.snapshot(super::routes::now());
    match format {
        Format::Protobuf => {
            let mut protobuf = Protobuf::default();
            write_all(&own, &snapshot, selection, &mut protobuf);
            protobuf.finish()
        }
        Format::Text004 | Format::Text100 | Format::OpenMetrics => {
            let places: usize = snapshot.processes.iter().map(|process| process.memory.len()).sum();
            let mut text = Text::new(format.dialect(), (places + 100) * 5 * SAMPLE_BYTES);
            write_all(&own, &snapshot, selection, &mut text);
            text.finish()
        }
    }
}

fn write_all<E: Exposition>(own: &Gathered, snapshot: &Snapshot, selection: &Selection, to: &mut E) {
    expose(snapshot, selection, own.samples(to), to);
    own.write(to);
}

impl Sources {
    /// What a scrape would be told, in another format.
    pub(in crate::sinks) fn write_to<E: Exposition>(&self, make: impl FnOnce(&Snapshot) -> E) -> E {
        let selection = Selection { names: HashSet::new(), processes_max: self.processes_max };
        let own = self.metrics.gather(&selection);
        let snapshot = self.registry.snapshot(super::routes::now());
        let mut to = make(&snapshot);
        write_all(&own, &snapshot, &selection, &mut to);
        to
    }
}

fn compress(text: Vec<u8>, coding: Coding) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Identity => Ok(text),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&text)?;
            encoder.finish()
        }
        Coding::Zstd => zstd::encode_all(text.as_slice(), ZSTD_LEVEL),
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

    #[test]
    fn a_scrape_whose_turn_does_not_come_in_its_time_is_refused() {
        let metrics = DaemonMetrics::new("0.0.0", "none", 0.0).expect("new names");
        let web = Web::load(None).expect("nothing to read");
        let host = Host { name: "h".into(), id: "1".into(), boot_id: "2".into() };
        let sources = Sources::new(Arc::new(Registry::new(0)), metrics, 1, web, Arc::new(host));
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

    #[test]
    fn what_was_compressed_comes_back() {
        use std::io::Read;
        let text = b"ttmem_device_processes 1\n".repeat(1000);
        let mut gzip = Vec::new();
        let compressed = compress(text.clone(), Coding::Gzip).expect("in memory");
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_end(&mut gzip).expect("gzip");
        let compressed = compress(text.clone(), Coding::Zstd).expect("in memory");
        let zstd = zstd::decode_all(compressed.as_slice()).expect("zstd");
        assert!(gzip == text && zstd == text);
    }
}
