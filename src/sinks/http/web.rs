//! The web configuration in force, and how a change of its files comes to be.
//!
//! Before each connection and each request the files are looked at, which costs a microsecond for each of them, so
//! that a new certificate or password counts at once and without a signal. A file that is broken changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use parking_lot::Mutex;
use rustls::server::ServerConfig;
use tracing::{error, info, warn};

use super::DaemonMetrics;
use super::authentication::{Authentication, Failures, Peer, Refusal};
use super::problem::Problem;
use super::tls::{self, Material};
use crate::clock;
use crate::config::{ClientAuth, ConfigError, Place, Problem as ConfigProblem, WebConfig};
use crate::sinks::token_bucket::{Rate, TokenBucket};

/// A file that changed so shortly ago may change again without showing it: its times are those of the last tick of the
/// kernel's clock.
const UNSETTLED_NS: u64 = 1_000_000_000;
/// Lines about refused requests: a log is not for guessers to fill.
const LOG_LINES: Rate = Rate { interval_ns: 10_000_000_000, burst: 5 };

/// Who may ask, and how.
pub struct Web {
    path: Option<PathBuf>,
    access: ArcSwap<Access>,
    seen: Mutex<Seen>,
    failures: Arc<Failures>,
    log_lines: TokenBucket,
    /// Lines that were left out since the last one.
    suppressed: AtomicU64,
}

/// What one state of the files says.
pub(super) struct Access {
    /// How TCP connections are encrypted, if they are.
    pub(super) tls: Option<Arc<ServerConfig>>,
    authentication: Option<Authentication>,
    requests: Option<TokenBucket>,
    headers: HeaderMap,
}

/// The files as they were when they were last looked at.
#[derive(Default)]
struct Seen {
    stamps: Vec<(PathBuf, Stamp)>,
    is_settled: bool,
    content: Content,
    /// What was wrong with them, so that it is told once.
    complaint: Option<String>,
}

#[derive(Default, PartialEq)]
struct Content {
    config: WebConfig,
    material: Option<Material>,
}

/// What changes when a file changes; nothing if it is not there.
#[derive(PartialEq)]
struct Stamp(Option<[i64; 7]>);

impl Stamp {
    fn of(path: &Path) -> Stamp {
        Stamp(fs::metadata(path).ok().map(|file| {
            [
                file.dev().cast_signed(),
                file.ino().cast_signed(),
                file.size().cast_signed(),
                file.mtime(),
                file.mtime_nsec(),
                file.ctime(),
                file.ctime_nsec(),
            ]
        }))
    }

    fn is_settled(&self, unix_ns: u64) -> bool {
        let Stamp(Some([.., seconds, nanoseconds])) = self else {
            return false;
        };
        let changed_ns = seconds.saturating_mul(1_000_000_000).saturating_add(*nanoseconds);
        u64::try_from(changed_ns).is_ok_and(|changed_ns| changed_ns.saturating_add(UNSETTLED_NS) < unix_ns)
    }
}

impl Web {
    /// Reads the file; without one, everybody may ask.
    pub fn load(path: Option<&Path>) -> Result<Web, ConfigError> {
        let mut seen = Seen::default();
        let mut access = Access::open();
        if let Some(path) = path {
            let mut warnings = Vec::new();
            let content = seen.read(path)?;
            access = Access::new(&content, &mut warnings)?;
            for warning in content.config.warnings.iter().chain(&warnings) {
                warn!("{warning}");
            }
            seen.content = content;
        }
        Ok(Web {
            path: path.map(Path::to_owned),
            access: ArcSwap::from_pointee(access),
            seen: Mutex::new(seen),
            failures: Arc::default(),
            log_lines: TokenBucket::new(LOG_LINES),
            suppressed: AtomicU64::new(0),
        })
    }

    /// What is worth saying about a file that can be loaded.
    pub fn check(path: &Path) -> Result<Vec<String>, ConfigError> {
        let content = Seen::default().read(path)?;
        let mut warnings = content.config.warnings.clone();
        Access::new(&content, &mut warnings)?;
        Ok(warnings)
    }

    /// What is in force, after a look at the files.
    pub(super) fn access(&self, metrics: &DaemonMetrics) -> Arc<Access> {
        if let Some(path) = &self.path {
            let mut seen = self.seen.lock();
            if seen.has_changed() {
                self.reload_from(path, &mut seen, metrics);
            }
        }
        self.access.load_full()
    }

    /// Reads the files again, whether they have changed or not.
    pub fn reload(&self, metrics: &DaemonMetrics) {
        if let Some(path) = &self.path {
            let mut seen = self.seen.lock();
            // What is still wrong is told again: somebody asked.
            seen.complaint = None;
            self.reload_from(path, &mut seen, metrics);
        }
    }

    fn reload_from(&self, path: &Path, seen: &mut Seen, metrics: &DaemonMetrics) {
        let mut warnings = Vec::new();
        let loaded = seen.read(path).and_then(|content| {
            refuse_to_open(path, &seen.content.config, &content.config)?;
            let access =
                (content != seen.content).then(|| Access::new(&content, &mut warnings)).transpose()?;
            Ok((content, access))
        });
        match loaded {
            Ok((content, access)) => {
                if let Some(access) = access {
                    for warning in content.config.warnings.iter().chain(&warnings) {
                        warn!("{warning}");
                    }
                    self.access.store(Arc::new(access));
                    info!(path = %path.display(), "web configuration reloaded");
                    seen.content = content;
                } else if seen.complaint.is_some() {
                    info!(path = %path.display(), "web configuration is again what it was");
                }
                seen.complaint = None;
                metrics.web_reloaded(clock::unix_ns() as f64 / 1e9);
            }
            Err(problems) => {
                metrics.web_reload_failed();
                let complaint = problems.to_string();
                if seen.complaint.as_ref() != Some(&complaint) {
                    error!(error = %complaint, "web configuration refused; the one before stays in force");
                    seen.complaint = Some(complaint);
                }
            }
        }
    }

    /// Lets a request in, or says what to answer.
    pub(super) async fn admit<B>(
        &self,
        access: &Access,
        request: &Request<B>,
        peer: Peer,
    ) -> Result<(), Problem> {
        let now_ns = clock::monotonic_ns();
        if let Some(requests) = &access.requests {
            requests.take(now_ns).map_err(|wait_ns| {
                Problem::too_many_requests("requests come faster than rate_limit allows", wait_ns)
            })?;
        }
        let Some(authentication) = &access.authentication else {
            return Ok(());
        };
        authentication.check(request.headers(), peer, &self.failures, now_ns).await.map_err(|refusal| {
            match refusal {
                Refusal::Unauthorized { is_wrong } => {
                    if is_wrong {
                        self.log_refused(peer, "a wrong user or password");
                    }
                    Problem::unauthorized(is_wrong)
                }
                Refusal::TooManyFailures { retry_after_ns } => {
                    self.log_refused(peer, "too many wrong passwords");
                    Problem::too_many_requests(
                        "too many wrong passwords came from this address",
                        retry_after_ns,
                    )
                }
            }
        })
    }

    fn log_refused(&self, peer: Peer, reason: &str) {
        if self.log_lines.take(clock::monotonic_ns()).is_err() {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
        match peer {
            Peer::Network(address) => warn!(%address, reason, suppressed, "HTTP request refused"),
            Peer::Local => warn!(address = "unix", reason, suppressed, "HTTP request refused"),
        }
    }
}

impl Access {
    fn open() -> Access {
        Access { tls: None, authentication: None, requests: None, headers: HeaderMap::new() }
    }

    fn new(content: &Content, warnings: &mut Vec<String>) -> Result<Access, ConfigError> {
        let Content { config, material } = content;
        let tls = match (&config.tls, material) {
            (Some(tls), Some(material)) => Some(
                tls::server_config(tls, material, config.without_http2, warnings)
                    .map_err(|problem| ConfigError::Invalid(vec![problem]))?,
            ),
            _ => None,
        };
        let rate = config.rate_limit.map(|limit| Rate {
            interval_ns: u64::try_from(limit.interval.as_nanos()).unwrap_or(u64::MAX),
            burst: limit.burst,
        });
        let headers = config.headers.iter().filter_map(|(name, value)| {
            Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
        });
        Ok(Access {
            tls,
            authentication: Authentication::new(&config.users),
            requests: rate.map(TokenBucket::new),
            headers: headers.collect(),
        })
    }

    /// Adds the configured headers to an answer.
    pub(super) fn add_headers<B>(&self, response: &mut Response<B>) {
        for (name, value) in &self.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

impl Seen {
    fn has_changed(&self) -> bool {
        !self.is_settled || self.stamps.iter().any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// Reads the files. Their stamps are taken before, so that a change in between shows the next time.
    fn read(&mut self, path: &Path) -> Result<Content, ConfigError> {
        let own = (path.to_owned(), Stamp::of(path));
        let config = WebConfig::load(path);
        let files: Vec<PathBuf> = match &config {
            Ok(config) => config.files().map(Path::to_owned).collect(),
            // Which those would be is not known.
            Err(_) => Vec::new(),
        };
        self.stamps = std::iter::once(own)
            .chain(files.into_iter().map(|file| {
                let stamp = Stamp::of(&file);
                (file, stamp)
            }))
            .collect();
        let now_ns = clock::unix_ns();
        self.is_settled = self.stamps.iter().all(|(_, stamp)| stamp.is_settled(now_ns));
        let config = config?;
        let material = config.tls.as_ref().map(Material::read).transpose();
        let material = material.map_err(|problem| ConfigError::Invalid(vec![problem]))?;
        Ok(Content { config, material })
    }
}

/// A file that is being written looks, for a moment, like one that asks for less. So what keeps people out is never
/// taken away while the daemon runs: whoever means it starts it again.
fn refuse_to_open(path: &Path, old: &WebConfig, new: &WebConfig) -> Result<(), ConfigError> {
    let demands = |config: &WebConfig| {
        let client_auth = config.tls.as_ref().map(|tls| tls.client_auth);
        [
            ("tls_server_config", config.tls.is_some()),
            (
                "tls_server_config.client_auth_type",
                client_auth == Some(ClientAuth::RequireAndVerifyClientCert),
            ),
            ("basic_auth_users", !config.users.is_empty()),
        ]
    };
    let gone = demands(old).into_iter().zip(demands(new)).find(|((_, before), (_, now))| *before && !now);
    let Some(((key, _), _)) = gone else {
        return Ok(());
    };
    let place = Place::Key { path: path.to_owned(), line: 1, key: key.to_owned() };
    let message = "it was in force and is now missing; put it back, or start the daemon again to do without";
    Err(ConfigError::Invalid(vec![ConfigProblem { place, message: message.to_owned() }]))
}
