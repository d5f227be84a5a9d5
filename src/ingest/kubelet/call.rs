//! One unary gRPC call to the kubelet over its Unix socket, with a bound on time and size.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use crate::grpc::{EMPTY_FRAME, message};
use crate::registry::KubeletFailure;

/// The kubelet answers out of its memory; one that takes longer has other worries, and is asked again later.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A status of a pod with a few containers has a few kilobytes, and a kubelet has a few hundred pods: room for ten thousand.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How much of what the kubelet says goes into the log.
const MESSAGE_CHARS_MAX: usize = 200;

/// gRPC's status of a call that went well, and of a method that the server does not have.
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

/// Why there is no answer. None of them is the daemon's fault; the caller asks again.
#[derive(Debug, thiserror::Error)]
pub(in crate::ingest) enum CallError {
    /// A host without a kubelet, or a kubelet without this API.
    #[error("there is no such API here")]
    Absent,
    /// The kubelet is being started again, or the daemon has not the rights.
    #[error("cannot reach it: {0}")]
    Unreachable(String),
    /// The kubelet hangs.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// The kubelet has said no: it has just started, or has been asked too often.
    #[error("refused with gRPC status {0}")]
    Refused(String),
    /// Something else listens at that path, or the API has changed.
    #[error("not an answer of this API: {0}")]
    Malformed(String),
}

impl CallError {
    /// What it counts as.
    pub(in crate::ingest) fn failure(&self) -> KubeletFailure {
        match self {
            CallError::Absent | CallError::Unreachable(_) => KubeletFailure::Unreachable,
            CallError::Timeout => KubeletFailure::Timeout,
            CallError::Refused(_) => KubeletFailure::Refused,
            CallError::Malformed(_) => KubeletFailure::Malformed,
        }
    }
}

/// Calls a method that wants to know nothing, and waits for its answer. `metadata` is sent beside gRPC's own.
pub(super) fn unary(socket: &Path, method: &'static str, metadata: &HeaderMap) -> Result<Bytes, CallError> {
    // Looked at before anything is made for the call: on most hosts there is nothing.
    match std::fs::metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CallError::Absent),
        Err(error) => return Err(unreachable(&error)),
        Ok(_) => {}
    }
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| unreachable(&error))?;
    runtime.block_on(async {
        let attempt = attempt(socket, method, metadata);
        tokio::time::timeout(TIMEOUT, attempt).await.unwrap_or(Err(CallError::Timeout))
    })
}

async fn attempt(socket: &Path, method: &'static str, metadata: &HeaderMap) -> Result<Bytes, CallError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CallError::Absent,
        _ => unreachable(&error),
    })?;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).adaptive_window(true);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // It ends with the call's runtime; what it fails with the call fails with as well.
    tokio::spawn(connection);
    let mut request = Request::new(Full::new(Bytes::from_static(EMPTY_FRAME)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(method);
    let headers = request.headers_mut();
    headers.extend(metadata.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let (head, body) = sender.send_request(request).await.map_err(|error| failed(&error))?.into_parts();
    if head.status != StatusCode::OK {
        return Err(CallError::Malformed(format!("HTTP {}", head.status)));
    }
    // An answer without a message has its status in the head.
    if head.headers.contains_key("grpc-status") {
        status(&head.headers)?;
    }
    let body =
        Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(error.as_ref()))?;
    status(body.trailers().unwrap_or(&HeaderMap::new()))?;
    message(&body.to_bytes()).ok_or_else(|| CallError::Malformed("no whole message".to_owned()))
}

/// What the trailers, or the head of an answer without a message, say.
fn status(trailers: &HeaderMap) -> Result<(), CallError> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some(OK) => Ok(()),
        Some(UNIMPLEMENTED) => Err(CallError::Absent),
        Some(code) => {
            Err(CallError::Refused(excerpt(&format!("{code}: {}", text("grpc-message").unwrap_or_default()))))
        }
        None => Err(CallError::Malformed("no gRPC status".to_owned())),
    }
}

fn unreachable(error: &io::Error) -> CallError {
    CallError::Unreachable(error.to_string())
}

/// A connection that broke is the kubelet's end or the system's; anything else is not what the API says.
fn failed(error: &(dyn Error + 'static)) -> CallError {
    let mut causes = vec![error];
    while let Some(cause) = causes[causes.len() - 1].source() {
        causes.push(cause);
    }
    let is_broken = causes.iter().any(|cause| {
        let http = cause.downcast_ref::<hyper::Error>();
        cause.is::<io::Error>()
            || http.is_some_and(|error| {
                error.is_closed() || error.is_canceled() || error.is_incomplete_message()
            })
    });
    let texts: Vec<_> = causes.iter().map(ToString::to_string).collect();
    let text = excerpt(&texts.join(": "));
    if is_broken { CallError::Unreachable(text) } else { CallError::Malformed(text) }
}

fn excerpt(text: &impl ToString) -> String {
    text.to_string().chars().take(MESSAGE_CHARS_MAX).collect()
}
