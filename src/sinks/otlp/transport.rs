//! How a request gets to the collector: protobuf in the body of an HTTP request, or framed for gRPC, over one client for both.
//!
//! The idea is that gRPC's unary call is an HTTP/2 request with five bytes before its body and a status behind its answer, which is all
//! that OTLP needs of it.

use std::io::Write;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, TE, USER_AGENT,
};
use hyper::http::uri::Scheme;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::StartError;
use super::account::FailureReason;
use super::grpc;
use super::tls;
use crate::config::{OtlpCompression, OtlpProtocol, OtlpSignal};
use crate::grpc::frame;

/// A collector's answer has a few bytes, or a sentence.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A connection that does not answer to a ping is given up, so that the next attempt makes a new one.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of what a collector says goes into the log.
const MESSAGE_BYTES_MAX: usize = 300;

/// One signal's way to its collector.
pub(super) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    protocol: OtlpProtocol,
    compression: OtlpCompression,
    timeout: Duration,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: FailureReason,
    /// Whether the same request may succeed later.
    pub(super) is_retryable: bool,
    /// How long the collector wants to be left alone.
    pub(super) wait: Option<Duration>,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(reason: FailureReason, message: impl Into<String>) -> Failure {
        let is_retryable = reason != FailureReason::Rejected;
        Failure { reason, is_retryable, wait: None, message: excerpt(message.into()) }
    }
}

/// The beginning of what a collector says.
pub(super) fn excerpt(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

impl Transport {
    /// Makes what every request has in common. Nothing is connected yet.
    pub(super) fn new(signal: &OtlpSignal, uri: Uri) -> Result<Transport, StartError> {
        let mut http = HttpConnector::new();
        // The layer around it makes the connection to an https address a TLS one.
        http.enforce_http(false);
        http.set_nodelay(true);
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls::client_config(signal, is_tls)?);
        let connector = connector.https_or_http();
        let mut client = Client::builder(TokioExecutor::new());
        client.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        let connector = match signal.protocol {
            OtlpProtocol::Http => connector.enable_http1().wrap_connector(http),
            OtlpProtocol::Grpc => {
                client
                    .http2_only(true)
                    .http2_adaptive_window(true)
                    .http2_keep_alive_interval(PING_INTERVAL)
                    .http2_keep_alive_timeout(PING_TIMEOUT);
                connector.enable_http2().wrap_connector(http)
            }
        };
        Ok(Transport {
            client: client.build(connector),
            uri,
            headers: headers(signal),
            protocol: signal.protocol,
            compression: signal.compression,
            timeout: Duration::from_millis(signal.timeout_ms),
        })
    }

    /// An encoded message as the body of a request, to be sent as often as it takes.
    pub(super) fn body(&self, message: Vec<u8>) -> std::io::Result<Bytes> {
        let (message, is_compressed) = match self.compression {
            OtlpCompression::None => (message, false),
            OtlpCompression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&message)?;
                (encoder.finish()?, true)
            }
        };
        match self.protocol {
            OtlpProtocol::Grpc => frame(&message, is_compressed),
            OtlpProtocol::Http => Ok(Bytes::from(message)),
        }
    }

    /// Makes one attempt, and gives the collector's answer.
    pub(super) async fn send(&self, body: Bytes) -> Result<Bytes, Failure> {
        let attempt = async {
            let response =
                self.client.request(self.request(body)).await.map_err(|error| connection(&error))?;
            match self.protocol {
                OtlpProtocol::Grpc => grpc::answer(response).await,
                OtlpProtocol::Http => answer(response).await,
            }
        };
        tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} ms", self.timeout.as_millis());
            Err(Failure::new(FailureReason::Timeout, message))
        })
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn headers(signal: &OtlpSignal) -> HeaderMap {
    let mut headers = signal.headers.0.clone();
    let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    let is_compressed = signal.compression == OtlpCompression::Gzip;
    match signal.protocol {
        OtlpProtocol::Grpc => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if is_compressed {
                headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
            }
            headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        }
        OtlpProtocol::Http => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if is_compressed {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
    }
    headers
}

/// The chain of causes on one line: hyper's own words alone say nothing.
fn connection(error: &(dyn std::error::Error + 'static)) -> Failure {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    Failure::new(FailureReason::Connection, words.join(": "))
}

/// All of an answer's body.
pub(super) async fn read(body: Incoming) -> Result<http_body_util::Collected<Bytes>, Failure> {
    Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| connection(&*error))
}

async fn answer(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(read(body).await?.to_bytes());
    }
    let reason = match head.status {
        StatusCode::TOO_MANY_REQUESTS => FailureReason::Throttled,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            FailureReason::Unavailable
        }
        _ => FailureReason::Rejected,
    };
    let mut failure = Failure::new(reason, format!("HTTP {}", head.status));
    failure.wait = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
    Err(failure)
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let check = |text: &'static str, expected: Option<u64>| {
            let wait = retry_after(&HeaderValue::from_static(text), now);
            assert_eq!(wait, expected.map(Duration::from_secs), "{text}");
        };
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60));
        check("Sun, 06 Nov 1994 08:40:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
    }
}
