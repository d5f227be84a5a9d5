//! What is exported over OTLP, and where to: one set of values for each signal, because OpenTelemetry's variables can tell them apart.

mod rows;
mod values;
mod variables;

use std::fmt;
use std::path::PathBuf;

use hyper::Uri;
use hyper::header::HeaderMap;

pub(super) use rows::*;
pub(super) use variables::{PREFIX, apply, warnings};

use super::values::{OtlpCompression, OtlpHistograms, OtlpProtocol, OtlpTemporality};

/// The export over OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// Whether OpenTelemetry is switched off, whatever else is said.
    pub is_disabled: bool,
    /// Spans.
    pub traces: OtlpSignal,
    /// Data points.
    pub metrics: OtlpSignal,
    /// Log records.
    pub logs: OtlpSignal,
    /// Milliseconds between two readings of the metrics.
    pub metric_interval_ms: u64,
    /// Whether counters are sent as totals or as differences.
    pub temporality: OtlpTemporality,
    /// How histograms are sent.
    pub histograms: OtlpHistograms,
    /// Milliseconds that the daemon's end waits for what has not been sent.
    pub shutdown_ms: u64,
    /// The resource's service.name, where somebody wants another than ours.
    pub service_name: Option<String>,
    /// Attributes of the resource that somebody has named.
    pub resource_attributes: Vec<(String, String)>,
}

/// How one signal is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpSignal {
    /// Whether it is exported if there is an endpoint.
    pub is_wanted: bool,
    /// Where to; nothing is exported without one.
    pub endpoint: Option<OtlpEndpoint>,
    /// The protocol.
    pub protocol: OtlpProtocol,
    /// Headers of every request.
    pub headers: OtlpHeaders,
    /// Milliseconds for one attempt.
    pub timeout_ms: u64,
    /// The requests' compression.
    pub compression: OtlpCompression,
    /// The authorities that may have signed the collector's certificate; the system's if none.
    pub certificate: Option<PathBuf>,
    /// Our certificate.
    pub client_certificate: Option<PathBuf>,
    /// Its key.
    pub client_key: Option<PathBuf>,
    /// Items that are held at once.
    pub queue_items_max: u64,
    /// Bytes that are held at once.
    pub queue_bytes_max: u64,
    /// Items in one request.
    pub batch_items_max: u64,
    /// Milliseconds that the first item of a batch waits for more.
    pub batch_delay_ms: u64,
    /// Milliseconds that a batch is tried for.
    pub retry_ms: u64,
}

/// Where a signal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint {
    /// An http or https URL.
    pub url: Uri,
    /// Whether it is the signal's own, which is used as it is; another is the base of the three paths over HTTP.
    pub is_of_signal: bool,
}

/// Names and values of headers. The values may be secrets: they show in no text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpHeaders(pub HeaderMap);

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl fmt::Display for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<String> = self.0.keys().map(|name| format!("{name}=(hidden)")).collect();
        f.write_str(&headers.join(","))
    }
}

impl OtlpSignal {
    /// Where it goes to, if it is exported.
    pub fn active_endpoint(&self) -> Option<&OtlpEndpoint> {
        self.endpoint.as_ref().filter(|_| self.is_wanted)
    }
}

impl OtlpConfig {
    /// Whether anything is exported.
    pub fn is_on(&self) -> bool {
        let signals = [&self.traces, &self.metrics, &self.logs];
        !self.is_disabled && signals.into_iter().any(|signal| signal.active_endpoint().is_some())
    }
}

impl Default for OtlpSignal {
    fn default() -> Self {
        Self {
            is_wanted: true,
            endpoint: None,
            protocol: OtlpProtocol::Http,
            headers: OtlpHeaders::default(),
            timeout_ms: 10_000,
            compression: OtlpCompression::None,
            certificate: None,
            client_certificate: None,
            client_key: None,
            queue_items_max: 262_144,
            queue_bytes_max: 64 << 20,
            batch_items_max: 2048,
            batch_delay_ms: 1000,
            retry_ms: 300_000,
        }
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            is_disabled: false,
            traces: OtlpSignal::default(),
            // A reading is complete when it comes.
            metrics: OtlpSignal { batch_delay_ms: 0, ..OtlpSignal::default() },
            logs: OtlpSignal::default(),
            metric_interval_ms: 60_000,
            temporality: OtlpTemporality::Cumulative,
            histograms: OtlpHistograms::Exponential,
            shutdown_ms: 5000,
            service_name: None,
            resource_attributes: Vec::new(),
        }
    }
}
