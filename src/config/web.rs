//! The web configuration file: who may read the endpoint, and how it is encrypted.
//!
//! The format is that of the exporters of the Prometheus project (`--web.config.file`), so that a file that works
//! there works here unchanged. The idea is a tree of nodes that know their lines: it is walked once, every mistake
//! is collected with its remedy, and what comes out is checked as far as this file alone can tell. Certificates are
//! only named here; whoever serves them reads them.

mod read;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Place};
use super::file;

pub use read::CIPHER_SUITES;

/// Where systems keep the authorities that they trust.
pub const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Everything that a web configuration file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// How TCP connections are encrypted; not at all if none.
    pub tls: Option<TlsConfig>,
    /// Whether clients that want HTTP/2 are answered over HTTP/1.1 all the same.
    pub without_http2: bool,
    /// Headers that are added to every answer.
    pub headers: Vec<(&'static str, String)>,
    /// Who may ask; everybody if empty. By name, none twice.
    pub users: Vec<User>,
    /// How many requests are answered; all if none.
    pub rate_limit: Option<RateLimit>,
    /// What has no effect although somebody probably meant it to, one sentence each.
    pub warnings: Vec<String>,
}

/// Somebody who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// bcrypt's hash of the password, well-formed.
    pub hash: String,
    /// Its cost: the binary logarithm of its rounds.
    pub cost: u32,
}

/// A bucket of requests that fills at a steady rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Time in which one more request becomes possible.
    pub interval: Duration,
    /// Requests that may come at once, at least one.
    pub burst: u32,
}

/// How connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate of the server, followed by those between it and its authority.
    pub certificate: Pem,
    /// Its private key.
    pub key: Pem,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// The authorities of client certificates; those of the system if none.
    pub client_ca: Option<Pem>,
    /// Names of which a client certificate has to have one; any will do if empty.
    pub client_allowed_sans: Vec<String>,
    /// The versions that are spoken.
    pub versions: TlsVersions,
    /// The cipher suites of TLS 1.2, by preference; the usual ones if none.
    pub cipher_suites: Option<Named>,
    /// The key exchanges, by preference; the usual ones if none.
    pub curves: Option<Named>,
    /// Whether the order here wins over the client's.
    pub prefers_own_order: bool,
}

/// Something in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// Where the configuration says so.
    pub place: Place,
    /// Where it is.
    pub source: PemSource,
}

/// Where something in PEM is.
#[derive(Clone, PartialEq, Eq)]
pub enum PemSource {
    /// In a file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(String),
}

/// Names of algorithms, as they are written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where the configuration says so.
    pub place: Place,
    /// The names, at least one.
    pub names: Vec<&'static str>,
}

/// What is asked of clients, by Go's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    NoClientCert,
    /// A certificate, if they have one; it proves nothing.
    RequestClientCert,
    /// Any certificate; it proves only that they have its key.
    RequireAnyClientCert,
    /// A certificate of an authority, if they have one.
    VerifyClientCertIfGiven,
    /// A certificate of an authority.
    RequireAndVerifyClientCert,
}

/// The versions of TLS that are spoken: one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl WebConfig {
    /// Reads a file. All its mistakes are collected, except that broken syntax hides everything else.
    pub fn load(path: &Path) -> Result<WebConfig, ConfigError> {
        let text = file::read_bounded(path)
            .map_err(|cause| ConfigError::UnreadableWebConfig { path: path.to_owned(), cause })?;
        WebConfig::parse(path, &text)
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pems =
            self.tls.iter().flat_map(|tls| [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()]);
        pems.flatten().filter_map(|pem| match &pem.source {
            PemSource::File(path) => Some(path.as_path()),
            PemSource::Inline(_) => None,
        })
    }

    /// The same with that for the file's content.
    pub fn parse(path: &Path, text: &str) -> Result<WebConfig, ConfigError> {
        let mut problems = Vec::new();
        let config = tree::parse(path, text, &mut problems)
            .map(|tree| read::read(path, &tree, &mut problems))
            .unwrap_or_default();
        if problems.is_empty() {
            return Ok(config);
        }
        problems.sort_by_key(|problem| problem.place.line());
        Err(ConfigError::Invalid(problems))
    }
}

/// An inline PEM may be a private key: it is never shown.
impl std::fmt::Debug for PemSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline"),
        }
    }
}

#[cfg(test)]
mod tests;
