//! The HTTP server: metrics, the JSON API, probes and the page.

mod answers;
mod authentication;
mod body;
mod connections;
mod daemon_metrics;
mod fits;
mod listener;
mod negotiation;
mod parameters;
mod past;
mod pieces;
mod problem;
mod routes;
mod scrape;
mod server;
mod tls;
mod web;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use daemon_metrics::DaemonMetrics;
pub use listener::{ListenError, Listener};
pub use server::{converse, serve};
pub use web::Web;

use super::history::Archive;
use crate::registry::Registry;
use crate::views::trace::Host;
use body::Body;

/// What requests are answered from.
pub struct Sources {
    /// The state.
    pub registry: Arc<Registry>,
    /// The daemon's own metrics.
    pub metrics: DaemonMetrics,
    /// Processes that have series of their own, per device.
    processes_max: usize,
    /// A permit for each scrape that may be answered at once.
    scrapes: Arc<Semaphore>,
    /// Who may ask, and how.
    pub web: Web,
    /// What ids are derived from.
    pub host: Arc<Host>,
    past: past::Past,
}

impl Sources {
    /// Everything that requests are answered from.
    pub fn new(
        registry: Arc<Registry>,
        metrics: DaemonMetrics,
        processes_max: usize,
        web: Web,
        host: Arc<Host>,
        archive: Option<Archive>,
    ) -> Sources {
        let scrapes = Arc::new(Semaphore::new(scrape::SCRAPES_MAX));
        Sources { registry, metrics, processes_max, scrapes, web, host, past: past::Past::new(archive) }
    }

    fn access(&self) -> Arc<web::Access> {
        self.web.access(&self.metrics)
    }
}
