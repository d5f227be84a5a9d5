//! Which daemons a command trusts, and what it shows them of itself.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::config::SYSTEM_AUTHORITIES;

/// Who may vouch for a daemon.
#[derive(Clone, Copy)]
pub(super) enum Trust<'a> {
    /// The authorities in a file, or the daemon's own certificate.
    File(&'a Path),
    /// Those that this system trusts.
    System,
    /// Nobody has to.
    Anybody,
}

/// The client's side of TLS, with a certificate and a key to show if there are any.
pub(super) fn client_config(
    trust: Trust<'_>,
    identity: Option<(&Path, &Path)>,
) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(trust, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("--cert-file", certificate)?;
    let content = fs::read(key).with_context(|| format!("--key-file: {} cannot be read", key.display()))?;
    let secret = PrivateKeyDer::from_pem_slice(&content)
        .with_context(|| format!("--key-file: {} holds no private key in PEM", key.display()))?;
    builder
        .with_client_auth_cert(chain, secret)
        .with_context(|| format!("--key-file: {} does not fit {}", key.display(), certificate.display()))
}

/// Why no TLS connection came about, with the remedy.
pub(super) fn explain(error: &io::Error, server: &str, host: &str) -> anyhow::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            anyhow!("{server}: nobody who is trusted vouches for it; name its authority with --ca-file")
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => anyhow!(
            "{server}: its certificate is not for {host}; name it in --server as its certificate does"
        ),
        Some(Error::InvalidMessage(_)) => {
            anyhow!("{server}: it does not speak HTTPS; write http:// in --server")
        }
        Some(Error::AlertReceived(alert)) => anyhow!(
            "{server}: it refuses the connection ({alert:?}); it may want a certificate: --cert-file and --key-file"
        ),
        _ => anyhow!("{server}: no TLS connection came about: {error}"),
    }
}

fn certificates(flag: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let content = fs::read(path).with_context(|| format!("{flag}: {} cannot be read", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => bail!("{flag}: {} holds no certificate in PEM", path.display()),
    }
}

fn verifier(trust: Trust<'_>, provider: &Arc<CryptoProvider>) -> anyhow::Result<Verifier> {
    let provider = Arc::clone(provider);
    let (flag, file) = match trust {
        Trust::Anybody => return Ok(Verifier { trusted: None, provider }),
        Trust::File(file) => ("--ca-file", file),
        Trust::System => {
            let known = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists());
            (
                "the system's authorities",
                known.context("this system has no list of authorities; name one with --ca-file")?,
            )
        }
    };
    let certificates = certificates(flag, file)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .with_context(|| format!("{flag}: {}", file.display()))?;
    Ok(Verifier { trusted: Some((certificates, authorities)), provider })
}

#[derive(Debug)]
struct Verifier {
    /// The certificates as they are written, and the same as authorities; none if everything is accepted.
    trusted: Option<(Vec<CertificateDer<'static>>, Arc<WebPkiServerVerifier>)>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some((certificates, authorities)) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        // A daemon that vouches for itself, and whose certificate was named: not a chain, but no less sure.
        if certificates.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
