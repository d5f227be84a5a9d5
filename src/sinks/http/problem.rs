//! Errors over HTTP, as application/problem+json (RFC 9457).

use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::{Body, body};

/// Why a request was not answered as it wished: the requester's fault, and what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    allow: Option<&'static str>,
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
        Problem { status: StatusCode::BAD_REQUEST, detail, allow: None }
    }

    pub(super) fn unavailable(detail: String) -> Problem {
        Problem { status: StatusCode::SERVICE_UNAVAILABLE, detail, allow: None }
    }

    pub(super) fn internal(detail: String) -> Problem {
        Problem { status: StatusCode::INTERNAL_SERVER_ERROR, detail, allow: None }
    }

    pub(super) fn not_found(path: &str) -> Problem {
        let detail = format!("there is nothing at {path}; / lists what there is");
        Problem { status: StatusCode::NOT_FOUND, detail, allow: None }
    }

    pub(super) fn method_not_allowed(method: &hyper::Method) -> Problem {
        let detail = format!("{method} is not supported here; use GET or HEAD");
        Problem { status: StatusCode::METHOD_NOT_ALLOWED, detail, allow: Some("GET, HEAD") }
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
        let mut response = Response::new(body(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/problem+json"));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, hyper::header::HeaderValue::from_static(allow));
        }
        response
    }
}
