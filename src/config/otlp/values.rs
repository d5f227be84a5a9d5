//! How the values of OTLP's settings are read. What may be a secret is not repeated in what is said about it.

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::{OtlpEndpoint, OtlpHeaders};

/// The names of the signals, as `otlp_signals` has them.
pub(super) const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

/// The URL of a collector.
pub(super) fn endpoint(text: &str, is_of_signal: bool) -> Result<OtlpEndpoint, String> {
    let url = text.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
    let Some(url) = url.filter(|url| url.host().is_some_and(|host| !host.is_empty())) else {
        let remedy = if text.contains("://") {
            "write one such as \"http://127.0.0.1:4318\"".to_owned()
        } else {
            format!("write \"http://{text}\", or https:// for TLS")
        };
        return Err(format!("{text:?} is not an http or https URL; {remedy}"));
    };
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // The password is not repeated.
        return Err(
            "the URL has a user or a password in it; send them as a header, with otlp_headers".to_owned()
        );
    }
    Ok(OtlpEndpoint { url, is_of_signal })
}

/// A list of NAME=VALUE for headers.
pub(super) fn headers(text: &str) -> Result<OtlpHeaders, String> {
    let mut headers = HeaderMap::new();
    for (position, (name, value)) in pairs(text)?.into_iter().enumerate() {
        let parsed = HeaderName::try_from(&name).ok();
        let Some(name) = parsed else {
            return Err(format!(
                "what stands before the = of entry {} is not a header's name; write NAME=VALUE, such as \
                 authorization=Bearer%20TOKEN",
                position + 1
            ));
        };
        let Ok(mut value) = HeaderValue::try_from(value) else {
            return Err(format!(
                "the value of {name} has characters that a header cannot hold; take them out"
            ));
        };
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(OtlpHeaders(headers))
}

/// A list of NAME=VALUE, separated by commas; values may have any character written as % and two digits.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').map(str::trim).enumerate().filter(|(_, entry)| !entry.is_empty());
    let pairs = entries.map(|(position, entry)| {
        let number = position + 1;
        let pair = entry.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        let Some((name, value)) = pair.filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("entry {number} is not NAME=VALUE; write a comma in a value as %2C"));
        };
        let decode = |text| {
            percent_decoded(text).ok_or_else(|| {
                format!("entry {number} has a % without two hexadecimal digits behind it; write %25")
            })
        };
        Ok((decode(name)?, decode(value)?))
    });
    pairs.collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    decoded.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).ok()
}

/// Which signals are exported, in the order of [`SIGNALS`].
pub(super) fn signals(text: &str) -> Result<[bool; 3], String> {
    let mut wanted = [false; 3];
    for name in text.split(',').map(str::trim) {
        let Some(place) = SIGNALS.iter().position(|known| *known == name) else {
            return Err(format!("{name:?} is not one of {}; separate them with commas", SIGNALS.join(", ")));
        };
        wanted[place] = true;
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let check = |text: &str, expected: Result<&[(&str, &str)], &str>| match (pairs(text), expected) {
            (Ok(pairs), Ok(expected)) => {
                let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                assert_eq!(pairs, expected, "{text}");
            }
            (Err(message), Err(expected)) => assert!(message.contains(expected), "{text}: {message}"),
            other => panic!("{text}: {other:?}"),
        };
        check("", Ok(&[]));
        check("a=b", Ok(&[("a", "b")]));
        check(" a = b , c=d=e,", Ok(&[("a", "b"), ("c", "d=e")]));
        check("authorization=Bearer%20x%2Cy", Ok(&[("authorization", "Bearer x,y")]));
        check("a=%C3%A9", Ok(&[("a", "é")]));
        check("a=b+c", Ok(&[("a", "b+c")]));
        check("a=", Ok(&[("a", "")]));
        check("a=b,secret", Err("entry 2 is not NAME=VALUE"));
        check("=b", Err("entry 1"));
        check("a=%2", Err("%25"));
        check("a=%+1", Err("%25"));
        check("a=%FF", Err("%25"));
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for text in ["secret", "a=%secret", "a b=secret", "a=sec%00ret", "a=sec%0Aret"] {
            let message = headers(text).expect_err("not headers");
            assert!(!message.contains("secret") && !message.contains("sec"), "{text}: {message}");
        }
        let message = endpoint("http://me:secret@host", false).expect_err("has a password");
        assert!(!message.contains("secret"), "{message}");
        let headers = headers("authorization=secret,x-a=b").expect("headers");
        assert_eq!(headers.to_string(), "authorization=(hidden),x-a=(hidden)");
        assert!(!format!("{headers:?}").contains("secret"));
    }

    #[test]
    fn endpoints_are_urls() {
        let check = |text: &str, expected: Option<&str>| {
            let endpoint = endpoint(text, false);
            assert_eq!(
                endpoint.as_ref().err().map(|message| message.contains(expected.unwrap_or("?"))),
                expected.map(|_| true),
                "{endpoint:?}"
            );
        };
        for right in ["http://a", "https://a:4318", "http://127.0.0.1:4318/otlp/", "http://[::1]:4318"] {
            check(right, None);
        }
        check("collector:4317", Some("http://collector:4317"));
        check("127.0.0.1:4317", Some("http://127.0.0.1:4317"));
        check("ftp://a", Some("http://127.0.0.1:4318"));
        check("http://", Some("http://127.0.0.1:4318"));
        check("", Some("http://"));
    }
}
