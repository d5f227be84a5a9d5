//! OpenTelemetry's own environment variables: the weakest source of the settings about OTLP.
//!
//! The idea is that each variable is read by the same function as the setting that says the same, so that both take the same values and
//! complain alike.

use std::ffi::OsString;

use super::rows::{BATCH_ITEMS, DELAY_MS, INTERVAL_MS, QUEUE_ITEMS, RETRY_MS, TIMEOUT_MS};
use super::{OtlpConfig, OtlpSignal, values as otlp_values};
use crate::config::error::{Place, Problem, did_you_mean};
use crate::config::values::{self, OtlpCompression, OtlpHistograms, OtlpProtocol, OtlpTemporality};

/// What the name of every such variable begins with.
pub(in crate::config) const PREFIX: &str = "OTEL_";
/// What those begin with that are about this protocol alone.
const EXPORTER_PREFIX: &str = "OTEL_EXPORTER_OTLP_";

type Read<T> = fn(&mut T, &str) -> Result<(), String>;

/// Options that every signal may have of its own: `OTEL_EXPORTER_OTLP_X` and `OTEL_EXPORTER_OTLP_TRACES_X`.
const OPTIONS: &[(&str, Read<OtlpSignal>)] = &[
    ("PROTOCOL", |signal, text| OtlpProtocol::parse(text).map(|protocol| signal.protocol = protocol)),
    ("HEADERS", |signal, text| otlp_values::headers(text).map(|headers| signal.headers = headers)),
    ("TIMEOUT", |signal, text| TIMEOUT_MS.parse(text).map(|timeout_ms| signal.timeout_ms = timeout_ms)),
    ("COMPRESSION", |signal, text| {
        OtlpCompression::parse(text).map(|compression| signal.compression = compression)
    }),
    ("CERTIFICATE", |signal, text| values::path(text).map(|path| signal.certificate = Some(path))),
    ("CLIENT_CERTIFICATE", |signal, text| {
        values::path(text).map(|path| signal.client_certificate = Some(path))
    }),
    ("CLIENT_KEY", |signal, text| values::path(text).map(|path| signal.client_key = Some(path))),
];

/// Options of the processor that batches a signal: `OTEL_BSP_X` for spans, `OTEL_BLRP_X` for log records.
const BATCH_OPTIONS: &[(&str, Read<OtlpSignal>)] = &[
    ("SCHEDULE_DELAY", |signal, text| DELAY_MS.parse(text).map(|delay_ms| signal.batch_delay_ms = delay_ms)),
    ("EXPORT_TIMEOUT", |signal, text| RETRY_MS.parse(text).map(|retry_ms| signal.retry_ms = retry_ms)),
    ("MAX_QUEUE_SIZE", |signal, text| QUEUE_ITEMS.parse(text).map(|items| signal.queue_items_max = items)),
    ("MAX_EXPORT_BATCH_SIZE", |signal, text| {
        BATCH_ITEMS.parse(text).map(|items| signal.batch_items_max = items)
    }),
];

/// All the others.
const VARIABLES: &[(&str, Read<OtlpConfig>)] = &[
    ("OTEL_SDK_DISABLED", |config, text| {
        values::switch(&text.to_ascii_lowercase()).map(|is_disabled| config.is_disabled = is_disabled)
    }),
    ("OTEL_TRACES_EXPORTER", |config, text| {
        exporter(text).map(|is_wanted| config.traces.is_wanted = is_wanted)
    }),
    ("OTEL_METRICS_EXPORTER", |config, text| {
        exporter(text).map(|is_wanted| config.metrics.is_wanted = is_wanted)
    }),
    ("OTEL_LOGS_EXPORTER", |config, text| exporter(text).map(|is_wanted| config.logs.is_wanted = is_wanted)),
    ("OTEL_METRIC_EXPORT_INTERVAL", |config, text| {
        INTERVAL_MS.parse(text).map(|interval_ms| config.metric_interval_ms = interval_ms)
    }),
    ("OTEL_METRIC_EXPORT_TIMEOUT", |config, text| {
        RETRY_MS.parse(text).map(|retry_ms| config.metrics.retry_ms = retry_ms)
    }),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", |config, text| {
        OtlpTemporality::parse(&text.to_ascii_lowercase()).map(|temporality| config.temporality = temporality)
    }),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", |config, text| {
        OtlpHistograms::parse(&text.to_ascii_lowercase()).map(|histograms| config.histograms = histograms)
    }),
    ("OTEL_SERVICE_NAME", |config, text| {
        config.service_name = Some(text.to_owned());
        Ok(())
    }),
    ("OTEL_RESOURCE_ATTRIBUTES", |config, text| {
        otlp_values::pairs(text).map(|attributes| config.resource_attributes = attributes)
    }),
];

/// Two options that mean something together only: over gRPC an endpoint may have no scheme, and then this one says whether it has TLS.
const ENDPOINT: &str = "ENDPOINT";
const INSECURE: &str = "INSECURE";

/// Puts what the variables say over `config`.
pub(in crate::config) fn apply(
    config: &mut OtlpConfig,
    variables: &[(String, OsString)],
    problems: &mut Vec<Problem>,
) {
    let mut reader = Reader { variables, problems };
    for (name, read) in VARIABLES {
        reader.read(name, |text| read(config, text));
    }
    for (option, read) in BATCH_OPTIONS {
        reader.read(&format!("OTEL_BSP_{option}"), |text| read(&mut config.traces, text));
        reader.read(&format!("OTEL_BLRP_{option}"), |text| read(&mut config.logs, text));
    }
    let signals =
        [("TRACES_", &mut config.traces), ("METRICS_", &mut config.metrics), ("LOGS_", &mut config.logs)];
    for (name, signal) in signals {
        for (option, read) in OPTIONS {
            reader.read(&format!("{EXPORTER_PREFIX}{option}"), |text| read(signal, text));
            reader.read(&format!("{EXPORTER_PREFIX}{name}{option}"), |text| read(signal, text));
        }
        let mut is_insecure = false;
        for of_signal in ["", name] {
            let insecure = format!("{EXPORTER_PREFIX}{of_signal}{INSECURE}");
            reader.read(&insecure, |text| {
                values::switch(&text.to_ascii_lowercase()).map(|insecure| is_insecure = insecure)
            });
        }
        for of_signal in ["", name] {
            let endpoint = format!("{EXPORTER_PREFIX}{of_signal}{ENDPOINT}");
            reader.read(&endpoint, |text| {
                let has_scheme = text.contains("://") || signal.protocol != OtlpProtocol::Grpc;
                let scheme = if is_insecure { "http" } else { "https" };
                let url = if has_scheme { text.to_owned() } else { format!("{scheme}://{text}") };
                otlp_values::endpoint(&url, !of_signal.is_empty())
                    .map(|endpoint| signal.endpoint = Some(endpoint))
            });
        }
    }
}

/// What an `OTEL_X_EXPORTER` asks for: whether the signal goes out over OTLP.
fn exporter(text: &str) -> Result<bool, String> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    match names.iter().find(|name| !["otlp", "none"].contains(&name.as_str())) {
        Some(other) => {
            Err(format!("{other:?} is not an exporter of this daemon; write otlp, or none for no export"))
        }
        None => Ok(names.iter().any(|name| name == "otlp")),
    }
}

struct Reader<'a> {
    variables: &'a [(String, OsString)],
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn read(&mut self, name: &str, read: impl FnOnce(&str) -> Result<(), String>) {
        let Some((_, value)) = self.variables.iter().find(|(known, _)| known == name) else { return };
        let result = match value.to_str() {
            Some(text) => read(text.trim()),
            None => Err("its value is not UTF-8; write it in UTF-8".to_owned()),
        };
        if let Err(message) = result {
            let problem = Problem { place: Place::Variable(name.to_owned()), message };
            // What holds for every signal is read for each of them.
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }
}

/// What has no effect although somebody probably meant it to. Other variables of OpenTelemetry are for other programs.
pub(in crate::config) fn warnings(variables: &[(String, OsString)]) -> Vec<String> {
    let known = known();
    let unknown = variables
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with(EXPORTER_PREFIX) && !known.contains(name));
    let warning = |name: &String| {
        let meant = did_you_mean(name, known.iter().map(String::as_str));
        format!("the environment variable {name} has no effect: it is not known{meant}")
    };
    unknown.map(warning).collect()
}

/// The names of all variables that are honoured.
fn known() -> Vec<String> {
    let options = OPTIONS.iter().map(|(option, _)| *option).chain([ENDPOINT, INSECURE]);
    let options = options.flat_map(|option| {
        ["", "TRACES_", "METRICS_", "LOGS_"].map(|signal| format!("{EXPORTER_PREFIX}{signal}{option}"))
    });
    let batches = BATCH_OPTIONS
        .iter()
        .flat_map(|(option, _)| [format!("OTEL_BSP_{option}"), format!("OTEL_BLRP_{option}")]);
    options.chain(VARIABLES.iter().map(|(name, _)| (*name).to_owned())).chain(batches).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<OtlpConfig, String> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        let (mut config, mut problems) = (OtlpConfig::default(), Vec::new());
        apply(&mut config, &variables, &mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        Err(problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn urls(config: &OtlpConfig) -> Vec<Option<String>> {
        let signals = [&config.traces, &config.metrics, &config.logs];
        signals.into_iter().map(|signal| Some(signal.active_endpoint()?.url.to_string())).collect()
    }

    #[test]
    fn a_signals_own_variable_is_stronger_whichever_comes_first() {
        let config = read(&[
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://b:9/mine"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "77"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "99"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ])
        .expect("right");
        assert_eq!(
            urls(&config),
            [Some("http://a:4318/".to_owned()), None, Some("https://b:9/mine".to_owned())]
        );
        assert_eq!(
            [config.traces.timeout_ms, config.metrics.timeout_ms, config.logs.timeout_ms],
            [77, 99, 99]
        );
        let is_of_signal =
            |signal: &OtlpSignal| signal.endpoint.as_ref().map(|endpoint| endpoint.is_of_signal);
        assert_eq!([is_of_signal(&config.traces), is_of_signal(&config.logs)], [Some(false), Some(true)]);
    }

    #[test]
    fn over_grpc_an_endpoint_needs_no_scheme() {
        let check = |more: &[(&str, &str)], expected: &str| {
            let variables =
                [&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], more]
                    .concat();
            let config = read(&variables).expect("right");
            assert_eq!(urls(&config)[0].as_deref(), Some(expected), "{more:?}");
        };
        check(&[], "https://a:4317/");
        check(&[("OTEL_EXPORTER_OTLP_INSECURE", "TRUE")], "http://a:4317/");
        check(
            &[("OTEL_EXPORTER_OTLP_INSECURE", "true"), ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false")],
            "https://a:4317/",
        );
        let message = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "a:4317")]).expect_err("HTTP needs one");
        assert_eq!(message.lines().count(), 1, "said once, not for each signal: {message}");
        assert!(message.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: \"a:4317\" is not an http"), "{message}");
    }

    #[test]
    fn everything_else_has_its_meaning() {
        let config = read(&[
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "LowMemory"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "5"),
            ("OTEL_BSP_SCHEDULE_DELAY", "6"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "7"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "8"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_RESOURCE_ATTRIBUTES", "k8s.node.name=n1,a=b%20c"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "c=d"),
            ("OTEL_TRACES_EXPORTER", "none,otlp"),
        ])
        .expect("right");
        assert!(config.is_disabled && config.traces.is_wanted);
        assert_eq!((config.metric_interval_ms, config.metrics.retry_ms), (1000, 2000));
        assert_eq!(config.temporality, OtlpTemporality::LowMemory);
        assert_eq!(config.histograms, OtlpHistograms::Explicit);
        assert_eq!((config.traces.queue_items_max, config.traces.batch_delay_ms), (5, 6));
        assert_eq!((config.logs.retry_ms, config.logs.batch_items_max), (7, 8));
        assert_eq!(config.service_name.as_deref(), Some("mine"));
        assert_eq!(config.resource_attributes[1], ("a".to_owned(), "b c".to_owned()));
        assert_eq!(config.logs.compression, OtlpCompression::Gzip);
        assert_eq!(config.metrics.client_key.as_deref(), Some("/key".as_ref()));
        assert_eq!(config.logs.headers.to_string(), "a=(hidden)");
        assert_eq!(config.traces.headers.to_string(), "c=(hidden)", "one's own headers are all there are");
    }

    #[test]
    fn what_is_malformed_names_its_variable_and_the_remedy() {
        let check = |name: &str, value: &str, remedy: &str| {
            let message = read(&[(name, value)]).expect_err(value);
            assert!(message.starts_with(name) && message.contains(remedy), "{message}");
        };
        check("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc, http/protobuf");
        check("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "tcp", "grpc, http/protobuf");
        check("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "a whole number from 1 to 600000");
        check("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "none, gzip");
        check("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "NAME=VALUE");
        check("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://a", "http://127.0.0.1:4318");
        check("OTEL_TRACES_EXPORTER", "zipkin", "otlp, or none");
        check("OTEL_SDK_DISABLED", "yes", "true nor false");
        check("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "deltas", "did you mean delta?");
        check("OTEL_RESOURCE_ATTRIBUTES", "a", "NAME=VALUE");
        check("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "a whole number");
    }

    #[test]
    fn every_variable_is_documented() {
        let page = include_str!("../../../docs/opentelemetry.md");
        let is_named = |name: &str| page.contains(&format!("`{name}`"));
        for name in known() {
            let of_signal = ["TRACES_", "METRICS_", "LOGS_"].into_iter().find_map(|signal| {
                let option = name.strip_prefix(EXPORTER_PREFIX)?.strip_prefix(signal)?;
                Some(
                    is_named(&format!("{EXPORTER_PREFIX}{signal}…"))
                        && is_named(&format!("{EXPORTER_PREFIX}{option}")),
                )
            });
            assert!(is_named(&name) || of_signal == Some(true), "{name}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        let variables = ["OTEL_EXPORTER_OTLP_ENDPIONT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_PROPAGATORS"];
        let variables: Vec<_> =
            variables.iter().map(|name| ((*name).to_owned(), OsString::from("x"))).collect();
        let warnings = warnings(&variables);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].ends_with("did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"), "{warnings:?}");
    }
}
