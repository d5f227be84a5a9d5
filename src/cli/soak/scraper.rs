//! Somebody who reads all the time, whatever happens, and holds every answer to what must always be so.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::bail;

use super::http;
use super::told;

/// From one round to the next.
const INTERVAL: Duration = Duration::from_millis(50);
/// What is read beside the metrics; it only has to be answered.
const OTHER_PATHS: [&str; 3] = ["/api/v1/devices", "/api/v1/processes", "/api/v1/buffers?limit=10000"];

/// The reader; it ends with this value.
pub(super) struct Scraper {
    findings: Arc<Findings>,
}

#[derive(Default)]
struct Findings {
    scrapes: AtomicU64,
    fault: Mutex<Option<String>>,
    is_over: AtomicBool,
}

impl Scraper {
    pub(super) fn start(socket: PathBuf) -> io::Result<Scraper> {
        let findings = Arc::new(Findings::default());
        let own = Arc::clone(&findings);
        thread::Builder::new().name("scraper".to_owned()).spawn(move || {
            while !own.is_over.load(Relaxed) {
                // Where nobody answers, the daemon has just been killed.
                if let Ok(metrics) = http::get(&socket, "/metrics") {
                    own.scrapes.fetch_add(1, Relaxed);
                    if let Err(fault) = told::adds_up(&metrics) {
                        own.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
                    }
                }
                for path in OTHER_PATHS {
                    let _ = http::get(&socket, path);
                }
                thread::sleep(INTERVAL);
            }
        })?;
        Ok(Scraper { findings })
    }

    /// Scrapes so far.
    pub(super) fn scrapes(&self) -> u64 {
        self.findings.scrapes.load(Relaxed)
    }

    /// An error if a scrape did not add up.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match &*self.findings.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => bail!("a scrape does not add up: {fault}"),
            None => Ok(()),
        }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.findings.is_over.store(true, Relaxed);
    }
}
