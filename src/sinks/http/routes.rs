//! Which path answers with what.

use std::sync::Arc;

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use serde::Serialize;

use super::parameters::{BufferRequest, ProcessRequest, refuse_any};
use super::problem::Problem;
use super::{Body, Sources, fits, live, page, past, scrape};
use crate::clock;
use crate::registry::Time;
use crate::views::{findings, json};

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers one request.
pub(super) async fn answer<B>(sources: &Arc<Sources>, request: &Request<B>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Problem::method_not_allowed(request.method()).into_response();
    }
    let query = request.uri().query();
    let answer = match request.uri().path() {
        "/metrics" => scrape::answer(sources, request).await,
        // Whoever asks gets through to the event loop: that is what healthy means. Ready follows from listening.
        "/-/healthy" => refuse_any(query).map(|()| content(PLAIN, "ttmem is healthy.\n".into())),
        "/-/ready" => refuse_any(query).map(|()| content(PLAIN, "ttmem is ready.\n".into())),
        "/api/v1/devices" => {
            refuse_any(query).map(|()| to_json(&json::Devices::of(&sources.registry.snapshot(now()))))
        }
        "/api/v1/processes" => {
            ProcessRequest::parse(query).map(|request| processes(sources, &request)).map_err(Problem::from)
        }
        "/api/v1/buffers" => {
            BufferRequest::parse(query).map(|request| buffers(sources, &request)).map_err(Problem::from)
        }
        "/api/v1/daemon" => refuse_any(query).map(|()| to_json(&daemon(sources))),
        "/api/v1/leaks" => {
            refuse_any(query).map(|()| to_json(&findings::Leaks::of(&sources.registry.snapshot(now()))))
        }
        "/api/v1/fits" => fits::answer(sources, query).await,
        "/api/v1/range" => past::range(sources, query).await,
        "/api/v1/events" => past::events(sources, query).await,
        "/api/v1/live" => refuse_any(query).and_then(|()| live::answer(sources, request.method())),
        path => page::answer(path, request.headers()).ok_or_else(|| Problem::not_found(path)),
    };
    answer.unwrap_or_else(Problem::into_response)
}

fn processes(sources: &Sources, request: &ProcessRequest) -> Response<Body> {
    let snapshot = sources.registry.snapshot(now());
    to_json(&json::Processes::of(&snapshot, &sources.host, |process| {
        request.pid.is_none_or(|pid| pid == process.process.pid())
            && request.device.is_none_or(|device| process.memory.iter().any(|memory| memory.device == device))
    }))
}

fn daemon(sources: &Sources) -> json::daemon::Daemon {
    let timestamp_seconds = now().unix_ns as f64 / 1e9;
    let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION"));
    json::daemon::Daemon::of(timestamp_seconds, pid, version, sources.metrics.values())
}

fn buffers(sources: &Sources, request: &BufferRequest) -> Response<Body> {
    let time = now();
    let page = sources.registry.buffers(&request.filter, request.cursor, request.limit, time.monotonic_ns);
    to_json(&json::Buffers::of(&page, time))
}

pub(super) fn to_json(value: &impl Serialize) -> Response<Body> {
    // Maps have string keys and floats are finite throughout: these shapes always serialize.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    content(JSON, text)
}

fn content(media_type: &'static str, text: Vec<u8>) -> Response<Body> {
    respond(media_type, Body::whole(text))
}

/// An answer of that type, with the headers that all answers have.
pub(super) fn respond(media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn now() -> Time {
    let (monotonic_ns, unix_ns) = clock::now();
    Time { monotonic_ns, unix_ns }
}
