//! TLS as the web configuration asks for it: certificates are read, algorithms chosen, and whatever cannot work is a
//! problem with its place.

mod certificate;
mod client;

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring as crypto};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::config::{Named, Pem, PemSource, Problem, TlsConfig};

/// The bundle of every public authority has some 200 KB; more than this is not PEM that is meant.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// What a client offers that speaks HTTP/2.
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// What the places that a configuration names hold.
#[derive(PartialEq, Eq)]
pub(super) struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Material {
    /// Reads all of it.
    pub(super) fn read(tls: &TlsConfig) -> Result<Material, Problem> {
        Ok(Material {
            certificate: content(&tls.certificate)?,
            key: content(&tls.key)?,
            client_ca: tls.client_ca.as_ref().map(content).transpose()?,
        })
    }
}

/// A server's side of TLS, and what is worth saying about it.
pub(super) fn server_config(
    tls: &TlsConfig,
    material: &Material,
    without_http2: bool,
    warnings: &mut Vec<String>,
) -> Result<Arc<ServerConfig>, Problem> {
    let provider = Arc::new(provider(tls, warnings)?);
    let identity = identity(tls, material, &provider)?;
    let client = client::verifier(tls, material.client_ca.as_deref(), &provider, warnings)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))
        .map_err(|error| problem(&tls.certificate, &format!("TLS cannot be set up: {error}")))?;
    let builder = match client {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.ignore_client_order = tls.prefers_own_order;
    let protocols: &[&[u8]] = if without_http2 { &[HTTP11] } else { &[HTTP2, HTTP11] };
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

fn versions(tls: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(tls.versions.tls13, &version::TLS13), (tls.versions.tls12, &version::TLS12)];
    all.into_iter().filter(|(is_spoken, _)| *is_spoken).map(|(_, version)| version).collect()
}

/// The algorithms. A configuration chooses those of TLS 1.2 only: those of TLS 1.3 are all sound.
fn provider(tls: &TlsConfig, warnings: &mut Vec<String>) -> Result<CryptoProvider, Problem> {
    let mut provider = crypto::default_provider();
    if let Some(named) = &tls.cipher_suites {
        let (tls13, tls12): (Vec<_>, Vec<_>) =
            provider.cipher_suites.into_iter().partition(|suite| suite.tls13().is_some());
        let is_tls13 = |name: &str| !name.contains("_WITH_");
        let chosen = choose(named, |name| {
            let found = tls12.iter().find(|suite| suite_name(suite) == name);
            found.copied().map(Some).or(is_tls13(name).then_some(None))
        });
        warnings.extend(chosen.warning("is an old suite that is not offered", &named.names));
        let chosen: Vec<SupportedCipherSuite> = chosen.found.into_iter().flatten().collect();
        if chosen.is_empty() && !tls.versions.tls13 {
            let known: Vec<String> = tls12.iter().map(suite_name).collect();
            let message =
                format!("none of these suites is offered; write at least one of {}", known.join(", "));
            return Err(Problem { place: named.place.clone(), message });
        }
        provider.cipher_suites = [tls13, chosen].concat();
    }
    if let Some(named) = &tls.curves {
        let chosen = choose(named, curve);
        if chosen.found.is_empty() {
            let message =
                "none of these curves is offered; write at least one of X25519, CurveP256, CurveP384";
            return Err(Problem { place: named.place.clone(), message: message.to_owned() });
        }
        warnings.extend(chosen.warning("is a curve that is not offered", &named.names));
        provider.kx_groups = chosen.found;
    }
    Ok(provider)
}

/// The name as Go and the IANA write it.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

fn curve(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    match name {
        "X25519" => Some(crypto::kx_group::X25519),
        "CurveP256" => Some(crypto::kx_group::SECP256R1),
        "CurveP384" => Some(crypto::kx_group::SECP384R1),
        _ => None,
    }
}

/// What was found under names, and the names under which nothing was.
struct Chosen<'a, T> {
    named: &'a Named,
    found: Vec<T>,
    missing: Vec<&'static str>,
}

fn choose<T>(named: &Named, find: impl Fn(&str) -> Option<T>) -> Chosen<'_, T> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &named.names {
        match find(name) {
            Some(thing) => found.push(thing),
            None => missing.push(*name),
        }
    }
    Chosen { named, found, missing }
}

impl<T> Chosen<'_, T> {
    fn warning(&self, what: &str, names: &[&str]) -> Option<String> {
        let rest = if self.missing.len() == names.len() { "" } else { "; the others are" };
        (!self.missing.is_empty())
            .then(|| format!("{}: {} {what}{rest}", self.named.place, self.missing.join(", ")))
    }
}

/// The server's certificate and its key, which belong together.
fn identity(
    tls: &TlsConfig,
    material: &Material,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Problem> {
    let chain = certificates(&tls.certificate, &material.certificate)?;
    let key = private_key(&tls.key, &material.key)?;
    let signing = provider.key_provider.load_private_key(key).map_err(|error| {
        let message =
            format!("this kind of key is not supported ({error}); use ECDSA with P-256 or P-384, Ed25519, or RSA with \
                     2048 bits or more");
        problem(&tls.key, &message)
    })?;
    let identity = CertifiedKey::new(chain, signing);
    match identity.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(identity),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message = format!(
                "does not belong to the certificate of {}; name the two that were made together",
                tls.certificate.place
            );
            Err(problem(&tls.key, &message))
        }
        Err(error) => {
            Err(problem(&tls.certificate, &format!("not usable: {error}; make the certificate again")))
        }
    }
}

fn private_key(pem: &Pem, content: &[u8]) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(content).map_err(|_| {
        let is_encrypted = content.windows(9).any(|bytes| bytes == b"ENCRYPTED");
        let message = if is_encrypted {
            "is encrypted; take the passphrase away: openssl pkey -in KEY -out KEY-WITHOUT"
        } else {
            "holds no private key in PEM; name a file with a line -----BEGIN PRIVATE KEY-----"
        };
        problem(pem, message)
    })
}

/// The certificates in some PEM: one at least.
fn certificates(pem: &Pem, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let found = found.map_err(|error| problem(pem, &format!("is not valid PEM: {error}; make it again")))?;
    if found.is_empty() {
        let message = "holds no certificate in PEM; name a file with a line -----BEGIN CERTIFICATE-----";
        return Err(problem(pem, message));
    }
    Ok(found)
}

fn content(pem: &Pem) -> Result<Vec<u8>, Problem> {
    let path = match &pem.source {
        PemSource::Inline(text) => return Ok(text.clone().into_bytes()),
        PemSource::File(path) => path,
    };
    let read = || {
        let mut content = Vec::new();
        File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut content)?;
        if content.len() as u64 > PEM_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {PEM_BYTES_MAX} bytes")));
        }
        Ok(content)
    };
    read().map_err(|cause| {
        problem(pem, &format!("cannot be read: {cause}; name a file that this user may read"))
    })
}

/// A problem with what is in a file, or in the configuration itself.
fn problem(pem: &Pem, message: &str) -> Problem {
    let message = match &pem.source {
        PemSource::File(path) => format!("{}: {message}", path.display()),
        PemSource::Inline(_) => message.to_owned(),
    };
    Problem { place: pem.place.clone(), message }
}
