//! Errors over HTTP, as application/problem+json (RFC 9457).

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::Body;
use crate::sinks::query::Refused;

/// Why a request was not answered as it wished: the requester's fault, and what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    /// A header that belongs to the status.
    header: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct ProblemDetails<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(super) fn bad_request(detail: String) -> Problem {
        Problem { status: StatusCode::BAD_REQUEST, detail, header: None }
    }

    pub(super) fn unavailable(detail: String) -> Problem {
        Problem { status: StatusCode::SERVICE_UNAVAILABLE, detail, header: None }
    }

    pub(super) fn internal(detail: String) -> Problem {
        Problem { status: StatusCode::INTERNAL_SERVER_ERROR, detail, header: None }
    }

    /// Something that this daemon could have, and has not.
    pub(super) fn absent(detail: String) -> Problem {
        Problem { status: StatusCode::NOT_FOUND, detail, header: None }
    }

    pub(super) fn not_found(path: &str) -> Problem {
        let detail = format!("there is nothing at {path}; / lists what there is");
        Problem { status: StatusCode::NOT_FOUND, detail, header: None }
    }

    pub(super) fn method_not_allowed(method: &hyper::Method) -> Problem {
        let detail = format!("{method} is not supported here; use GET or HEAD");
        let header = Some((ALLOW, HeaderValue::from_static("GET, HEAD")));
        Problem { status: StatusCode::METHOD_NOT_ALLOWED, detail, header }
    }

    pub(super) fn unauthorized(is_wrong: bool) -> Problem {
        let detail =
            if is_wrong { "the user or the password is wrong" } else { "this needs a user and a password" };
        let header =
            Some((WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"ttmem\", charset=\"UTF-8\"")));
        Problem { status: StatusCode::UNAUTHORIZED, detail: detail.to_owned(), header }
    }

    pub(super) fn too_many_requests(detail: &str, wait_ns: u64) -> Problem {
        let seconds = wait_ns.div_ceil(1_000_000_000);
        let detail = format!("{detail}; come again in {seconds} s");
        Problem { status: StatusCode::TOO_MANY_REQUESTS, detail, header: Some((RETRY_AFTER, seconds.into())) }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let details = ProblemDetails {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        // Four plain fields cannot fail to serialize.
        let text = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = Response::new(Body::whole(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.header);
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        Problem::bad_request(refused.0)
    }
}
