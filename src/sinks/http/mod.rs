//! The HTTP server: metrics, the JSON API, probes and the page.

mod daemon_metrics;
mod negotiation;
mod parameters;
mod problem;
mod routes;
mod scrape;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

pub use daemon_metrics::DaemonMetrics;

use crate::registry::Registry;

type Body = Full<Bytes>;

fn body(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
}

/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// A request's line and headers may not be longer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A client that does not finish its request's head in this time is let go.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not take any of its answer in this time is let go.
const UNREAD_TIMEOUT_MS: u32 = 10_000;
/// How long answers under way may take when the daemon stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before taking connections again when there is no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What requests are answered from.
pub struct Sources {
    /// The state.
    pub registry: Arc<Registry>,
    /// The daemon's own metrics.
    pub metrics: DaemonMetrics,
    /// Processes that have series of their own, per device.
    processes_max: usize,
    /// A permit for each scrape that may be answered at once.
    scrapes: Semaphore,
}

impl Sources {
    /// Everything that requests are answered from.
    pub fn new(registry: Arc<Registry>, metrics: DaemonMetrics, processes_max: usize) -> Sources {
        Sources { registry, metrics, processes_max, scrapes: Semaphore::new(scrape::SCRAPES_MAX) }
    }
}

/// Why an address cannot be served. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("listen: {address}: {cause}; {remedy}")]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
    remedy: &'static str,
}

/// Listens on an address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|cause| {
        let remedy = match cause.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another address with --listen",
            io::ErrorKind::PermissionDenied => "choose a port above 1023, or grant CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "choose an address of this host with --listen",
            _ => "choose another address with --listen",
        };
        ListenError { address, cause, remedy }
    })
}

/// Serves requests until told to stop, and then finishes those under way.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(HEAD_BYTES_MAX)
                    .serve_connection(TokioIo::new(stream), {
                        let sources = Arc::clone(&sources);
                        service_fn(move |request| {
                            let sources = Arc::clone(&sources);
                            async move { Ok::<_, Infallible>(routes::answer(&sources, &request).await) }
                        })
                    });
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(%error, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "cannot take an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, connections.shutdown()).await.is_err() {
        warn!("stopping although some answers have not been read");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are written whole; waiting to fill a packet would only delay them.
    stream.set_nodelay(true)?;
    // Whoever asks and then does not read would hold his place, and the whole answer, for ever.
    rustix::net::sockopt::set_tcp_user_timeout(&stream, UNREAD_TIMEOUT_MS)?;
    Ok((stream, permit))
}
