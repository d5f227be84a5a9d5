//! The client's side of TLS, as the settings name its certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::StartError;
use crate::config::{OtlpSignal, SYSTEM_AUTHORITIES};

/// What a connection to the collector is made with. For one without TLS no file has to be there.
pub(super) fn client_config(signal: &OtlpSignal, is_needed: bool) -> Result<ClientConfig, StartError> {
    let mut roots = RootCertStore::empty();
    if is_needed {
        let system = || SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists());
        let authorities = signal.certificate.clone().or_else(system).ok_or(StartError::NoAuthorities)?;
        roots.add_parsable_certificates(certificates(&authorities)?);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(StartError::Tls)?
        .with_root_certificates(roots);
    match (&signal.client_certificate, &signal.client_key) {
        (Some(certificate), Some(key)) if is_needed => {
            let secret =
                PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| StartError::NoKey(key.clone()))?;
            builder.with_client_auth_cert(certificates(certificate)?, secret).map_err(|cause| {
                StartError::Identity { certificate: certificate.clone(), key: key.clone(), cause }
            })
        }
        (None, None) | (Some(_), Some(_)) => Ok(builder.with_no_client_auth()),
        _ => Err(StartError::HalfIdentity),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| StartError::NoCertificate(path.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    fs::read(path).map_err(|cause| StartError::Unreadable { path: path.to_owned(), cause })
}
