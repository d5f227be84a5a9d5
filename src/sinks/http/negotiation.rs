//! Which format and which compression a request gets, by what it says it accepts (RFC 9110, section 12).

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::views::text::Dialect;

/// A format of the exposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// Prometheus' text, 0.0.4.
    Text004,
    /// Prometheus' text, 1.0.0.
    Text100,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' protobuf, length-delimited.
    Protobuf,
}

impl Format {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Format::Text004 => "text/plain; version=0.0.4; charset=utf-8",
            Format::Text100 => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            Format::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            Format::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores"
            }
        }
    }

    pub(super) const fn dialect(self) -> Dialect {
        match self {
            Format::OpenMetrics => Dialect::OpenMetrics,
            Format::Text004 | Format::Text100 | Format::Protobuf => Dialect::Prometheus,
        }
    }

    /// The format that a media range with its parameters stands for. What it does not name may be anything.
    fn named(media: &Media<'_>) -> Option<Format> {
        let version = media.parameter("version");
        match media.essence.as_str() {
            "*/*" | "text/*" => Some(Format::Text004),
            "text/plain" if version.is_none_or(|version| version == "0.0.4") => Some(Format::Text004),
            "text/plain" if version == Some("1.0.0") => Some(Format::Text100),
            // Version 0.0.1 is what old scrapers call the same thing.
            "application/openmetrics-text"
                if version.is_none_or(|version| ["1.0.0", "0.0.1"].contains(&version)) =>
            {
                Some(Format::OpenMetrics)
            }
            "application/vnd.google.protobuf" => {
                let is_ours =
                    media.parameter("proto").is_none_or(|proto| proto == "io.prometheus.client.MetricFamily")
                        && media.parameter("encoding").is_none_or(|encoding| encoding == "delimited");
                is_ours.then_some(Format::Protobuf)
            }
            _ => None,
        }
    }
}

/// A compression of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Zstd => Some("zstd"),
        }
    }

    fn named(media: &Media<'_>) -> Option<Coding> {
        match media.essence.as_str() {
            "identity" => Some(Coding::Identity),
            "gzip" | "x-gzip" | "*" => Some(Coding::Gzip),
            "zstd" => Some(Coding::Zstd),
            _ => None,
        }
    }
}

/// The format that a request likes best; text 0.0.4, which everybody reads, if it likes none of ours.
pub(super) fn format(headers: &HeaderMap) -> Format {
    best(headers, &ACCEPT, Format::named).unwrap_or(Format::Text004)
}

/// The compression that a request likes best; none if it does not ask for one.
pub(super) fn coding(headers: &HeaderMap) -> Coding {
    best(headers, &ACCEPT_ENCODING, Coding::named).unwrap_or(Coding::Identity)
}

/// One element of an Accept header: `essence;parameter=value;q=0.5`.
struct Media<'a> {
    essence: String,
    parameters: Vec<(String, &'a str)>,
    quality: f32,
}

impl<'a> Media<'a> {
    fn parse(text: &'a str) -> Media<'a> {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts.filter_map(|part| part.split_once('='));
        let mut media = Media { essence, parameters: Vec::new(), quality: 1.0 };
        for (name, value) in parameters {
            match name.trim().to_ascii_lowercase() {
                // A quality that is no number is not asked for.
                quality if quality == "q" => media.quality = value.trim().parse().unwrap_or(0.0),
                name => media.parameters.push((name, value.trim().trim_matches('"'))),
            }
        }
        media
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// The choice of the highest quality; of equal ones the first.
fn best<T>(headers: &HeaderMap, name: &HeaderName, named: impl Fn(&Media<'_>) -> Option<T>) -> Option<T> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut best: Option<(f32, T)> = None;
    for media in values.flat_map(|value| value.split(',')).map(Media::parse) {
        let is_better = media.quality > best.as_ref().map_or(0.0, |(quality, _)| *quality);
        if let Some(choice) = named(&media).filter(|_| is_better) {
            best = Some((media.quality, choice));
        }
    }
    best.map(|(_, choice)| choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_ask_for() {
        let check = |accept: &str, expected: Format| {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().expect("a header"))]);
            assert_eq!(format(&headers), expected, "{accept}");
        };
        // Prometheus 3 with native histograms, 3 by default, and 2.42.
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::Protobuf,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format::OpenMetrics,
        );
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
            Format::Text100,
        );
        check("text/plain;version=0.0.4;q=0.2,text/plain;version=1.0.0;q=0.1", Format::Text004);
        // A browser, curl, and somebody who wants none of it.
        check("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text004);
        check("*/*", Format::Text004);
        check("application/openmetrics-text;version=2.0.0;q=0.9", Format::Text004);
        check("application/openmetrics-text;q=0, text/plain", Format::Text004);
        check("image/png;;q=x", Format::Text004);
        assert_eq!(format(&HeaderMap::new()), Format::Text004);
    }

    #[test]
    fn compression_is_used_when_it_is_asked_for() {
        let check = |accept: &str, expected: Coding| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accept.parse().expect("a header"))]);
            assert_eq!(coding(&headers), expected, "{accept}");
        };
        check("gzip", Coding::Gzip);
        check("zstd, gzip;q=0.5", Coding::Zstd);
        check("gzip;q=0.5, zstd;q=0.9", Coding::Zstd);
        check("gzip;q=0, br", Coding::Identity);
        check("identity, gzip;q=0.1", Coding::Identity);
        assert_eq!(coding(&HeaderMap::new()), Coding::Identity);
    }
}
