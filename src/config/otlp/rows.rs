//! The rows of SETTINGS that are about OTLP.

use super::values as otlp_values;
use super::{OtlpConfig, OtlpSignal};
use crate::config::Config;
use crate::config::settings::{Kind, Setting};
use crate::config::values::{self, OtlpCompression, OtlpHistograms, OtlpProtocol, OtlpTemporality, Range};
use crate::config::written::quoted;

/// Ten minutes: whoever waits longer for one answer waits for nothing.
pub(super) const TIMEOUT_MS: Range = Range { min: 1, max: 600_000 };
/// A tenth of a second to a day.
pub(super) const INTERVAL_MS: Range = Range { min: 100, max: 86_400_000 };
/// A batch may be tried for a day.
pub(super) const RETRY_MS: Range = Range { min: 1, max: 86_400_000 };
/// A batch may wait for a minute.
pub(super) const DELAY_MS: Range = Range { min: 0, max: 60_000 };
/// More would be a gigabyte of spans.
pub(super) const QUEUE_ITEMS: Range = Range { min: 1, max: 10_000_000 };
/// Below 64 KiB a single reading of the metrics would find no room.
const QUEUE_BYTES: Range = Range { min: 1 << 16, max: 1 << 40 };
/// A request is bounded in bytes as well.
pub(super) const BATCH_ITEMS: Range = Range { min: 1, max: 1_000_000 };
/// A supervisor that waits longer than ten minutes for an end is rare.
const SHUTDOWN_MS: Range = Range { min: 0, max: 600_000 };

const SECTION: &str = "OpenTelemetry";

/// Sets a value for every signal.
fn each(config: &mut Config, set: impl Fn(&mut OtlpSignal)) {
    let OtlpConfig { traces, metrics, logs, .. } = &mut config.otlp;
    [traces, metrics, logs].into_iter().for_each(set);
}

/// The value that every signal has; where OpenTelemetry's variables have told them apart, each signal's.
fn shown(config: &Config, show: impl Fn(&OtlpSignal) -> String) -> String {
    let [traces, metrics, logs] = [&config.otlp.traces, &config.otlp.metrics, &config.otlp.logs].map(show);
    if traces == metrics && metrics == logs {
        return traces;
    }
    format!("{{ traces = {traces}, metrics = {metrics}, logs = {logs} }}")
}

fn shown_path(path: Option<&std::path::PathBuf>) -> String {
    path.map_or_else(|| quoted("none"), |path| quoted(&path.to_string_lossy()))
}

pub(in crate::config) const ENDPOINT: Setting = Setting {
    key: "otlp_endpoint",
    flag: "otlp-endpoint",
    section: SECTION,
    value_name: "URL",
    kind: Kind::Text,
    default: "none",
    reload: false,
    help: "OpenTelemetry collector to export to",
    details: "Such as http://127.0.0.1:4318; https:// for TLS. none: nothing is exported, unless an \
              OTEL_EXPORTER_OTLP_ variable names one. Over HTTP, v1/traces, v1/metrics and v1/logs are put behind it.",
    apply: |config, text| {
        let endpoint = values::unless_none(text, |text| otlp_values::endpoint(text, false))?;
        each(config, |signal| signal.endpoint.clone_from(&endpoint));
        Ok(())
    },
    show: |config| {
        shown(config, |signal| match &signal.endpoint {
            Some(endpoint) => quoted(&endpoint.url.to_string()),
            None => quoted("none"),
        })
    },
};

pub(in crate::config) const PROTOCOL: Setting = Setting {
    key: "otlp_protocol",
    flag: "otlp-protocol",
    section: SECTION,
    value_name: "PROTOCOL",
    kind: Kind::Choice(OtlpProtocol::NAMES),
    default: "http/protobuf",
    reload: false,
    help: "Protocol that the collector speaks",
    details: "Collectors take grpc on port 4317 and http/protobuf on 4318.",
    apply: |config, text| {
        let protocol = OtlpProtocol::parse(text)?;
        each(config, |signal| signal.protocol = protocol);
        Ok(())
    },
    show: |config| shown(config, |signal| quoted(signal.protocol.name())),
};

pub(in crate::config) const SIGNALS: Setting = Setting {
    key: "otlp_signals",
    flag: "otlp-signals",
    section: SECTION,
    value_name: "NAMES",
    kind: Kind::Text,
    default: "traces,metrics,logs",
    reload: false,
    help: "What is exported, separated by commas",
    details: "Of traces, metrics and logs.",
    apply: |config, text| {
        let wanted = otlp_values::signals(text)?;
        let OtlpConfig { traces, metrics, logs, .. } = &mut config.otlp;
        [traces, metrics, logs]
            .into_iter()
            .zip(wanted)
            .for_each(|(signal, wanted)| signal.is_wanted = wanted);
        Ok(())
    },
    show: |config| {
        let wanted =
            [&config.otlp.traces, &config.otlp.metrics, &config.otlp.logs].map(|signal| signal.is_wanted);
        let names = otlp_values::SIGNALS.into_iter().zip(wanted).filter(|(_, wanted)| *wanted);
        quoted(&names.map(|(name, _)| name).collect::<Vec<_>>().join(","))
    },
};

pub(in crate::config) const HEADERS: Setting = Setting {
    key: "otlp_headers",
    flag: "otlp-headers",
    section: SECTION,
    value_name: "NAME=VALUE",
    kind: Kind::Text,
    default: "none",
    reload: false,
    help: "Headers of every request, separated by commas",
    details: "Such as authorization=Bearer%20TOKEN: a value's own commas and spaces are written as % and two hexadecimal \
              digits. Everybody on the host can read a flag, so put secrets into the variable or the file. Values are \
              never shown.",
    apply: |config, text| {
        let headers = values::unless_none(text, otlp_values::headers)?.unwrap_or_default();
        each(config, |signal| signal.headers.clone_from(&headers));
        Ok(())
    },
    show: |config| {
        shown(config, |signal| {
            let names = signal.headers.to_string();
            quoted(if names.is_empty() { "none" } else { &names })
        })
    },
};

pub(in crate::config) const TIMEOUT: Setting = Setting {
    key: "otlp_timeout_ms",
    flag: "otlp-timeout-ms",
    section: SECTION,
    value_name: "MS",
    kind: Kind::Number(TIMEOUT_MS),
    default: "10000",
    reload: false,
    help: "Milliseconds for one request, connection included",
    details: "1 to 600000.",
    apply: |config, text| {
        let timeout_ms = TIMEOUT_MS.parse(text)?;
        each(config, |signal| signal.timeout_ms = timeout_ms);
        Ok(())
    },
    show: |config| shown(config, |signal| signal.timeout_ms.to_string()),
};

pub(in crate::config) const COMPRESSION: Setting = Setting {
    key: "otlp_compression",
    flag: "otlp-compression",
    section: SECTION,
    value_name: "CODING",
    kind: Kind::Choice(OtlpCompression::NAMES),
    default: "none",
    reload: false,
    help: "Compression of requests",
    details: "gzip pays where the collector is on another host.",
    apply: |config, text| {
        let compression = OtlpCompression::parse(text)?;
        each(config, |signal| signal.compression = compression);
        Ok(())
    },
    show: |config| shown(config, |signal| quoted(signal.compression.name())),
};

pub(in crate::config) const CERTIFICATE: Setting = Setting {
    key: "otlp_certificate",
    flag: "otlp-certificate",
    section: SECTION,
    value_name: "FILE",
    kind: Kind::Path,
    default: "none",
    reload: false,
    help: "Authorities that may vouch for the collector, in PEM",
    details: "none: those that the system trusts. Only for https.",
    apply: |config, text| {
        let path = values::unless_none(text, values::path)?;
        each(config, |signal| signal.certificate.clone_from(&path));
        Ok(())
    },
    show: |config| shown(config, |signal| shown_path(signal.certificate.as_ref())),
};

pub(in crate::config) const CLIENT_CERTIFICATE: Setting = Setting {
    key: "otlp_client_certificate",
    flag: "otlp-client-certificate",
    section: SECTION,
    value_name: "FILE",
    kind: Kind::Path,
    default: "none",
    reload: false,
    help: "Certificate to show to the collector, in PEM",
    details: "none: show none. Only for https.",
    apply: |config, text| {
        let path = values::unless_none(text, values::path)?;
        each(config, |signal| signal.client_certificate.clone_from(&path));
        Ok(())
    },
    show: |config| shown(config, |signal| shown_path(signal.client_certificate.as_ref())),
};

pub(in crate::config) const CLIENT_KEY: Setting = Setting {
    key: "otlp_client_key",
    flag: "otlp-client-key",
    section: SECTION,
    value_name: "FILE",
    kind: Kind::Path,
    default: "none",
    reload: false,
    help: "Private key of that certificate, in PEM",
    details: "",
    apply: |config, text| {
        let path = values::unless_none(text, values::path)?;
        each(config, |signal| signal.client_key.clone_from(&path));
        Ok(())
    },
    show: |config| shown(config, |signal| shown_path(signal.client_key.as_ref())),
};

pub(in crate::config) const METRIC_INTERVAL: Setting = Setting {
    key: "otlp_metric_interval_ms",
    flag: "otlp-metric-interval-ms",
    section: SECTION,
    value_name: "MS",
    kind: Kind::Number(INTERVAL_MS),
    default: "60000",
    reload: false,
    help: "Milliseconds between two readings of the metrics",
    details: "100 to 86400000.",
    apply: |config, text| INTERVAL_MS.parse(text).map(|interval| config.otlp.metric_interval_ms = interval),
    show: |config| config.otlp.metric_interval_ms.to_string(),
};

pub(in crate::config) const TEMPORALITY: Setting = Setting {
    key: "otlp_temporality",
    flag: "otlp-temporality",
    section: SECTION,
    value_name: "PREFERENCE",
    kind: Kind::Choice(OtlpTemporality::NAMES),
    default: "cumulative",
    reload: false,
    help: "Whether counters say totals or differences",
    details: "cumulative: totals. delta: differences to the reading before. lowmemory: differences for histograms only.",
    apply: |config, text| {
        OtlpTemporality::parse(text).map(|temporality| config.otlp.temporality = temporality)
    },
    show: |config| quoted(config.otlp.temporality.name()),
};

pub(in crate::config) const HISTOGRAMS: Setting = Setting {
    key: "otlp_histograms",
    flag: "otlp-histograms",
    section: SECTION,
    value_name: "AGGREGATION",
    kind: Kind::Choice(OtlpHistograms::NAMES),
    default: "base2_exponential_bucket_histogram",
    reload: false,
    help: "Form of histograms",
    details: "Buckets that double, as they are counted, or the classic bounds of /metrics.",
    apply: |config, text| OtlpHistograms::parse(text).map(|histograms| config.otlp.histograms = histograms),
    show: |config| quoted(config.otlp.histograms.name()),
};

pub(in crate::config) const QUEUE_ITEMS_ROW: Setting = Setting {
    key: "otlp_queue_items",
    flag: "otlp-queue-items",
    section: SECTION,
    value_name: "COUNT",
    kind: Kind::Number(QUEUE_ITEMS),
    default: "262144",
    reload: false,
    help: "Items of a signal that wait or are on their way, at most",
    details: "1 to 10000000 spans, data points or log records; each signal has a queue of its own. What comes while it \
              is full is dropped and counted in ttmem_otlp_dropped_total.",
    apply: |config, text| {
        let items = QUEUE_ITEMS.parse(text)?;
        each(config, |signal| signal.queue_items_max = items);
        Ok(())
    },
    show: |config| shown(config, |signal| signal.queue_items_max.to_string()),
};

pub(in crate::config) const QUEUE_BYTES_ROW: Setting = Setting {
    key: "otlp_queue_bytes",
    flag: "otlp-queue-bytes",
    section: SECTION,
    value_name: "BYTES",
    kind: Kind::Number(QUEUE_BYTES),
    default: "67108864",
    reload: false,
    help: "Memory that these items take, at most",
    details: "65536 to 1099511627776, for each signal; what an item takes is estimated. It bounds the daemon's memory \
              while the collector is away.",
    apply: |config, text| {
        let bytes = QUEUE_BYTES.parse(text)?;
        each(config, |signal| signal.queue_bytes_max = bytes);
        Ok(())
    },
    show: |config| shown(config, |signal| signal.queue_bytes_max.to_string()),
};

pub(in crate::config) const BATCH_ITEMS_ROW: Setting = Setting {
    key: "otlp_batch_items",
    flag: "otlp-batch-items",
    section: SECTION,
    value_name: "COUNT",
    kind: Kind::Number(BATCH_ITEMS),
    default: "2048",
    reload: false,
    help: "Items in one request, at most",
    details: "1 to 1000000. A request is sent before that when it would be larger than collectors take.",
    apply: |config, text| {
        let items = BATCH_ITEMS.parse(text)?;
        each(config, |signal| signal.batch_items_max = items);
        Ok(())
    },
    show: |config| shown(config, |signal| signal.batch_items_max.to_string()),
};

pub(in crate::config) const BATCH_DELAY: Setting = Setting {
    key: "otlp_batch_delay_ms",
    flag: "otlp-batch-delay-ms",
    section: SECTION,
    value_name: "MS",
    kind: Kind::Number(DELAY_MS),
    default: "1000",
    reload: false,
    help: "Milliseconds that a span or log record waits for a request to fill",
    details: "0 to 60000.",
    apply: |config, text| {
        let delay_ms = DELAY_MS.parse(text)?;
        config.otlp.traces.batch_delay_ms = delay_ms;
        config.otlp.logs.batch_delay_ms = delay_ms;
        Ok(())
    },
    show: |config| {
        let [traces, logs] = [&config.otlp.traces, &config.otlp.logs].map(|signal| signal.batch_delay_ms);
        if traces == logs { traces.to_string() } else { format!("{{ traces = {traces}, logs = {logs} }}") }
    },
};

pub(in crate::config) const RETRY: Setting = Setting {
    key: "otlp_retry_ms",
    flag: "otlp-retry-ms",
    section: SECTION,
    value_name: "MS",
    kind: Kind::Number(RETRY_MS),
    default: "300000",
    reload: false,
    help: "Milliseconds for which a request is tried again",
    details: "1 to 86400000. Then its items are dropped and counted.",
    apply: |config, text| {
        let retry_ms = RETRY_MS.parse(text)?;
        each(config, |signal| signal.retry_ms = retry_ms);
        Ok(())
    },
    show: |config| shown(config, |signal| signal.retry_ms.to_string()),
};

pub(in crate::config) const SHUTDOWN: Setting = Setting {
    key: "otlp_shutdown_ms",
    flag: "otlp-shutdown-ms",
    section: SECTION,
    value_name: "MS",
    kind: Kind::Number(SHUTDOWN_MS),
    default: "5000",
    reload: false,
    help: "Milliseconds that the daemon's end waits for the collector",
    details: "0 to 600000. What has not been exported by then is dropped, counted and told in the log.",
    apply: |config, text| SHUTDOWN_MS.parse(text).map(|shutdown_ms| config.otlp.shutdown_ms = shutdown_ms),
    show: |config| config.otlp.shutdown_ms.to_string(),
};
