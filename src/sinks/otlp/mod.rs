//! The export over OTLP: spans, data points and log records on their way to an OpenTelemetry collector.
//!
//! In the order of the data: `reader` (metrics at their interval), `outbox` (what waits, and the `account` of it), `worker` (batches, and their second attempts after `retry`),
//! `signal` (what a request is), `transport` (`tls`, `grpc`). All of it runs on one thread of its own: a producer only ever meets the lock
//! of an outbox.

mod account;
mod grpc;
mod outbox;
mod own_metrics;
mod reader;
mod resource;
mod retry;
mod signal;
mod tls;
mod transport;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::Uri;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

pub use account::{Account, DropReason, FailureReason, Held};
pub use outbox::{Item, Limits, Outbox};
pub use signal::{Exported, Logs, Metrics, Rejected, Signal, Traces};

use super::http::Sources;
use crate::config::{Config, OtlpEndpoint, OtlpProtocol, OtlpSignal};
use crate::throttle::Throttle;
use own_metrics::OwnMetrics;
use reader::Reader;
use transport::Transport;
use worker::Worker;

/// The name of the export's threads: the one that does it, and those that look up names.
const THREAD: &str = "ttmem-otlp";
/// Requests of one signal on their way at once, where their order does not matter: enough to keep a collector at the other end of a
/// continent busy.
const REQUESTS_MAX: u32 = 8;
/// Collectors take 4 MiB in one message by default; in memory items are some four times as large as on the wire.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Why the export cannot start. All but the last three are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file that the settings name cannot be read.
    #[error("{}: cannot be read: {cause}; name a file that this user may read, or none", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: holds no certificate in PEM; name a file that does", .0.display())]
    NoCertificate(PathBuf),
    /// A file does not hold what it should.
    #[error("{}: holds no private key in PEM; name a file that does", .0.display())]
    NoKey(PathBuf),
    /// A certificate and a key of different pairs.
    #[error("{}: does not fit {}: {cause}; name a certificate and its own key", key.display(), certificate.display())]
    Identity {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What the TLS library said.
        cause: rustls::Error,
    },
    /// The system has no list of authorities.
    #[error("this system has no list of authorities; name the collector's with otlp_certificate")]
    NoAuthorities,
    /// A path that cannot stand behind the endpoint's.
    #[error("otlp_endpoint: {0} cannot be the base of a URL; write one such as \"http://127.0.0.1:4318\"")]
    Endpoint(Uri),
    /// One half of what the collector is shown.
    #[error("otlp_client_certificate and otlp_client_key belong together; name both or none")]
    HalfIdentity,
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
    /// The accounts cannot be shown.
    #[error("cannot make metrics: {0}")]
    Metrics(prometheus::Error),
    /// The system gives no thread.
    #[error("cannot start the OTLP thread: {0}")]
    Thread(io::Error),
}

/// What waits for the collector, signal by signal; none for what is not exported.
#[derive(Clone, Default)]
pub struct Outboxes {
    /// Spans.
    pub traces: Option<Arc<Outbox<Span>>>,
    /// Data points.
    pub metrics: Option<Arc<Outbox<Metric>>>,
    /// Log records.
    pub logs: Option<Arc<Outbox<LogRecord>>>,
}

impl Outboxes {
    /// Every exported signal's name and account.
    pub fn accounts(&self) -> impl Iterator<Item = (&'static str, Account)> {
        let traces = self.traces.as_ref().map(|outbox| (Traces::NAME, outbox.account()));
        let metrics = self.metrics.as_ref().map(|outbox| (Metrics::NAME, outbox.account()));
        let logs = self.logs.as_ref().map(|outbox| (Logs::NAME, outbox.account()));
        [traces, metrics, logs].into_iter().flatten()
    }

    fn close(&self) {
        self.traces.iter().for_each(|outbox| outbox.close());
        self.metrics.iter().for_each(|outbox| outbox.close());
        self.logs.iter().for_each(|outbox| outbox.close());
    }

    fn abandon(&self) {
        self.traces.iter().for_each(|outbox| outbox.abandon());
        self.metrics.iter().for_each(|outbox| outbox.abandon());
        self.logs.iter().for_each(|outbox| outbox.abandon());
    }
}

/// The running export.
pub struct Otlp {
    outboxes: Outboxes,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Otlp {
    /// Starts it. Nothing is connected before there is something to send. Metrics are read from `sources`; `exported` learns which spans the collector has.
    pub fn start(
        config: &Config,
        sources: &Arc<Sources>,
        exported: Exported<Span>,
    ) -> Result<Otlp, StartError> {
        let otlp = &config.otlp;
        let resource = resource::resource(otlp, &config.socket);
        let mut starting = Starting { throttle: Arc::default(), resource, workers: Workers::default() };
        let outboxes = Outboxes {
            traces: starting.signal(&otlp.traces, "v1/traces", REQUESTS_MAX, Traces::new(exported))?,
            // A later total must not be overtaken by an earlier one.
            metrics: starting.signal(&otlp.metrics, "v1/metrics", 1, Metrics)?,
            logs: starting.signal(&otlp.logs, "v1/logs", REQUESTS_MAX, Logs)?,
        };
        let own_metrics = OwnMetrics::new(outboxes.clone()).map_err(StartError::Metrics)?;
        sources.metrics.register(Box::new(own_metrics)).map_err(StartError::Metrics)?;
        let reader = outboxes.metrics.clone().map(|outbox| Reader::new(otlp, Arc::clone(sources), outbox));
        let (stop, stopping) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().thread_name(THREAD).build().map_err(StartError::Thread)?;
        let within = Duration::from_millis(otlp.shutdown_ms);
        let (workers, held) = (starting.workers, outboxes.clone());
        let run = move || {
            run(runtime, reader, workers, &held, stopping, within);
            // Whoever stops the export may have given up waiting.
            let _ = end.send(());
        };
        thread::Builder::new().name(THREAD.to_owned()).spawn(run).map_err(StartError::Thread)?;
        Ok(Otlp { outboxes, stop, ended })
    }

    /// Where producers put what is to be exported.
    pub fn outboxes(&self) -> &Outboxes {
        &self.outboxes
    }

    /// Sends what is left, for as long as the configuration allows; the rest is counted as dropped and told.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // The thread's end, however it came about.
        let _ = self.ended.await;
    }
}

/// The workers, as one future each.
#[derive(Default)]
struct Workers(Vec<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>);

/// What the signals have in common while they are started.
struct Starting {
    throttle: Arc<Throttle>,
    resource: Resource,
    workers: Workers,
}

impl Starting {
    fn signal<S: Signal>(
        &mut self,
        config: &OtlpSignal,
        path: &str,
        requests_max: u32,
        signal: S,
    ) -> Result<Option<Arc<Outbox<S::Item>>>, StartError> {
        let Some(endpoint) = config.active_endpoint() else { return Ok(None) };
        let uri = uri(endpoint, config.protocol, path, S::METHOD)?;
        info!(signal = S::NAME, %uri, protocol = config.protocol.name(), "OTLP: exporting");
        if uri.port_u16() == Some(other_port(config.protocol)) {
            let protocol = config.protocol.name();
            warn!(signal = S::NAME, %uri, protocol, "OTLP: the other protocol has that port mostly; see otlp_protocol");
        }
        let outbox = Outbox::new(Limits {
            items_max: config.queue_items_max,
            bytes_max: config.queue_bytes_max,
            batch_items_max: config.batch_items_max,
            batch_bytes_max: BATCH_BYTES_MAX,
            batch_delay: Duration::from_millis(config.batch_delay_ms),
        });
        let worker = Worker {
            signal,
            outbox: Arc::clone(&outbox),
            transport: Transport::new(config, uri)?,
            resource: self.resource.clone(),
            requests_max,
            retry_for: Duration::from_millis(config.retry_ms),
            throttle: Arc::clone(&self.throttle),
            state: worker::State::default(),
        };
        self.workers.0.push(Box::pin(worker.run()));
        Ok(Some(outbox))
    }
}

/// The port that collectors serve the other protocol on.
fn other_port(protocol: OtlpProtocol) -> u16 {
    match protocol {
        OtlpProtocol::Grpc => 4318,
        OtlpProtocol::Http => 4317,
    }
}

/// Where requests go: over gRPC the method of the host, over HTTP the signal's own URL or a path below the base.
fn uri(endpoint: &OtlpEndpoint, protocol: OtlpProtocol, path: &str, method: &str) -> Result<Uri, StartError> {
    let OtlpEndpoint { url, is_of_signal } = endpoint;
    let path = match protocol {
        OtlpProtocol::Http if *is_of_signal => return Ok(url.clone()),
        OtlpProtocol::Http => format!("{}/{path}", url.path().trim_end_matches('/')),
        OtlpProtocol::Grpc => method.to_owned(),
    };
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(path.try_into().map_err(|_| StartError::Endpoint(url.clone()))?);
    Uri::from_parts(parts).map_err(|_| StartError::Endpoint(url.clone()))
}

/// The export's thread.
fn run(
    runtime: Runtime,
    reader: Option<Reader>,
    workers: Workers,
    outboxes: &Outboxes,
    mut stopping: watch::Receiver<bool>,
    within: Duration,
) {
    runtime.block_on(async {
        let mut running: JoinSet<()> = workers.0.into_iter().collect();
        let reader = reader.map(|reader| tokio::spawn(reader.run(stopping.clone())));
        // A sender that is gone stops it too.
        let _ = stopping.wait_for(|stop| *stop).await;
        if let Some(reader) = reader {
            // Its last reading goes out with the rest.
            let _ = reader.await;
        }
        outboxes.close();
        // What is not done by then is counted below.
        let _ = tokio::time::timeout(within, async { while running.join_next().await.is_some() {} }).await;
    });
    // Requests that are still on their way end with the runtime, and give up what they hold. A look-up of a name may go on for long,
    // and is not waited for.
    runtime.shutdown_background();
    outboxes.abandon();
    for (signal, account) in outboxes.accounts() {
        let (exported, lost) = (account.exported, account.dropped_for(DropReason::Shutdown));
        if lost > 0 {
            warn!(signal, exported, lost, "OTLP: the export has ended");
        } else {
            info!(signal, exported, lost, "OTLP: the export has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_become_addresses_as_opentelemetry_says() {
        let check = |url: &str, is_of_signal, protocol, expected: &str| {
            let endpoint = OtlpEndpoint { url: url.parse().expect("a URL"), is_of_signal };
            let uri = uri(&endpoint, protocol, "v1/traces", Traces::METHOD).map(|uri| uri.to_string());
            assert_eq!(uri.expect("a URL"), expected, "{url}");
        };
        let (http, grpc) = (OtlpProtocol::Http, OtlpProtocol::Grpc);
        check("http://a:4318", false, http, "http://a:4318/v1/traces");
        check("http://a:4318/", false, http, "http://a:4318/v1/traces");
        check("https://a/otlp", false, http, "https://a/otlp/v1/traces");
        check("https://a/otlp/", false, http, "https://a/otlp/v1/traces");
        check("http://a:4318/mine", true, http, "http://a:4318/mine");
        check("http://a:4318", true, http, "http://a:4318/");
        let method = format!("http://a:4317{}", Traces::METHOD);
        check("http://a:4317", false, grpc, &method);
        check("http://a:4317/ignored", true, grpc, &method);
    }
}
