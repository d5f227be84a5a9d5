//! What a collector's gRPC answer says: its message, or the status behind it.

use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Response, StatusCode};
use prost::Message;

use super::account::FailureReason;
use super::transport::{Failure, read};
use crate::grpc::message;

/// gRPC's status codes, as far as OTLP gives them a meaning.
mod code {
    pub(super) const OK: u32 = 0;
    pub(super) const CANCELLED: u32 = 1;
    pub(super) const UNKNOWN: u32 = 2;
    pub(super) const DEADLINE_EXCEEDED: u32 = 4;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const ABORTED: u32 = 10;
    pub(super) const OUT_OF_RANGE: u32 = 11;
    pub(super) const UNAVAILABLE: u32 = 14;
    pub(super) const DATA_LOSS: u32 = 15;
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// google.rpc.Status, in `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// google.rpc.RetryInfo.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// google.protobuf.Duration.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The message in an answer, or why there is none.
pub(super) async fn answer(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(not_grpc(head.status));
    }
    // An answer without a message has its status in the head.
    if head.headers.contains_key("grpc-status") {
        return status(&head.headers).map(|()| Bytes::new());
    }
    let collected = read(body).await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    status(&trailers)?;
    let body = collected.to_bytes();
    message(&body).ok_or_else(|| Failure::new(FailureReason::Unavailable, "the answer is not a gRPC message"))
}

/// A proxy's answer, or a server's that speaks no gRPC. What gRPC makes of HTTP's codes is what they mean for OTLP over HTTP.
fn not_grpc(status: StatusCode) -> Failure {
    let reason = match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => FailureReason::Unavailable,
        _ => FailureReason::Rejected,
    };
    Failure::new(reason, format!("HTTP {status} in place of a gRPC answer"))
}

/// What the trailers, or the head of an answer without a message, say.
fn status(trailers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status").map(|code| code.parse().unwrap_or(code::UNKNOWN)) else {
        return Err(Failure::new(FailureReason::Unavailable, "the answer has no gRPC status"));
    };
    if code == code::OK {
        return Ok(());
    }
    let wait = text("grpc-status-details-bin").and_then(retry_delay);
    let reason = match code {
        code::UNAVAILABLE | code::RESOURCE_EXHAUSTED if wait.is_some() => FailureReason::Throttled,
        code::CANCELLED
        | code::DEADLINE_EXCEEDED
        | code::ABORTED
        | code::OUT_OF_RANGE
        | code::UNAVAILABLE
        | code::DATA_LOSS => FailureReason::Unavailable,
        _ => FailureReason::Rejected,
    };
    let mut failure =
        Failure::new(reason, format!("gRPC status {code}: {}", text("grpc-message").unwrap_or_default()));
    failure.wait = wait;
    Err(failure)
}

/// How long the collector wants to be left alone. The value may come with or without base64's padding.
fn retry_delay(details: &str) -> Option<Duration> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, config).decode(details).ok()?;
    let details = Details::decode(bytes.as_slice()).ok()?.details;
    let info = details.iter().find(|any| any.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn trailers(code: &str, details: Option<&str>) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_str(code).expect("digits"));
        if let Some(details) = details {
            trailers.insert("grpc-status-details-bin", HeaderValue::from_str(details).expect("base64"));
        }
        trailers
    }

    /// A status with a delay of 2.5 s, as a collector in Go writes it.
    fn details() -> String {
        let info = RetryInfo { retry_delay: Some(Delay { seconds: 2, nanos: 500_000_000 }) };
        let any = Any { type_url: RETRY_INFO.to_owned(), value: info.encode_to_vec() };
        base64::prelude::BASE64_STANDARD_NO_PAD.encode(Details { details: vec![any] }.encode_to_vec())
    }

    #[test]
    fn codes_are_tried_again_as_otlp_says() {
        let check = |code: &str, details: Option<&str>, expected: FailureReason| {
            let failure = status(&trailers(code, details)).expect_err("not ok");
            assert_eq!(
                (failure.reason, failure.is_retryable),
                (expected, expected != FailureReason::Rejected),
                "{code}"
            );
        };
        assert!(status(&trailers("0", None)).is_ok());
        for code in ["1", "4", "10", "11", "14", "15"] {
            check(code, None, FailureReason::Unavailable);
        }
        for code in ["2", "3", "5", "6", "7", "8", "9", "12", "13", "16", "99", "x"] {
            check(code, None, FailureReason::Rejected);
        }
        let details = details();
        check("8", Some(&details), FailureReason::Throttled);
        check("14", Some(&details), FailureReason::Throttled);
        check("3", Some(&details), FailureReason::Rejected);
        let failure = status(&trailers("14", Some(&details))).expect_err("not ok");
        assert_eq!(failure.wait, Some(Duration::from_millis(2500)));
    }
}
