//! The page on / and what it is made of, as build.rs has put it into the binary.

use std::io::Read;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use ring::digest;

use super::Body;
use super::negotiation::{Coding, coding};
use super::routes::respond;

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// What the page may do: run its own script, look like its own style sheet, and ask this daemon. Names of processes are other people's
/// text; should one ever be taken for markup, it still could neither run nor send anything.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A part of the page.
struct Asset {
    path: &'static str,
    media_type: &'static str,
    /// Compressed by gzip.
    content: &'static [u8],
}

/// What tells one state of each part from another, in the order of `ASSETS`.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| ASSETS.iter().map(Asset::tag).collect());

impl Asset {
    fn tag(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.content);
        let digits: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        // Weak: the same content may come compressed or not.
        format!("W/\"{digits}\"")
    }

    /// Its content as a request wants it.
    fn body(&self, is_compressed: bool) -> Vec<u8> {
        if is_compressed {
            return self.content.to_vec();
        }
        let mut text = Vec::new();
        // What the build has compressed can be read.
        let _ = GzDecoder::new(self.content).read_to_end(&mut text);
        text
    }
}

/// The part of the page at a path.
pub(super) fn answer(path: &str, request: &HeaderMap) -> Option<Response<Body>> {
    let (asset, tag) = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.path == path)?;
    let is_known = request.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let is_compressed = coding(request) == Coding::Gzip;
    let body = if is_known { Vec::new() } else { asset.body(is_compressed) };
    let mut response = respond(asset.media_type, Body::whole(body));
    let headers = response.headers_mut();
    // It may be kept, but not used without asking: the daemon may be another one.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    if is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    Some(response)
}
