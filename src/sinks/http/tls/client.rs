//! What clients have to show: a certificate or none, of an authority or of anybody, with one of some names or with any.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::certificate::Certificate;
use super::{certificates, content, problem};
use crate::config::{ClientAuth, Pem, PemSource, Problem, SYSTEM_AUTHORITIES, TlsConfig};

/// Who checks clients; nobody if they are not asked.
pub(super) fn verifier(
    tls: &TlsConfig,
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<String>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
    let (is_mandatory, is_verified) = match tls.client_auth {
        ClientAuth::NoClientCert => return Ok(None),
        ClientAuth::RequestClientCert => (false, false),
        ClientAuth::RequireAnyClientCert => (true, false),
        ClientAuth::VerifyClientCertIfGiven => (false, true),
        ClientAuth::RequireAndVerifyClientCert => (true, true),
    };
    let authorities = if is_verified {
        Some(match (&tls.client_ca, client_ca) {
            (Some(pem), Some(content)) => Authorities::new(pem, content, provider)?,
            _ => Authorities::of_system(tls, provider, warnings)?,
        })
    } else {
        if tls.client_allowed_sans.is_empty() {
            warnings.push(format!(
                "{}: anybody can make such a certificate, so it keeps nobody out; \
                 write client_auth_type: RequireAndVerifyClientCert",
                tls.client_ca.as_ref().map_or(&tls.certificate.place, |pem| &pem.place)
            ));
        }
        None
    };
    Ok(Some(Arc::new(Verifier {
        authorities,
        is_mandatory,
        allowed_names: tls.client_allowed_sans.clone(),
        provider: Arc::clone(provider),
    })))
}

/// Those who may vouch for clients.
#[derive(Debug)]
struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authorities {
    fn new(pem: &Pem, content: &[u8], provider: &Arc<CryptoProvider>) -> Result<Authorities, Problem> {
        let certificates = certificates(pem, content)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| {
                problem(pem, &format!("holds a certificate that is not usable: {error}; make it again"))
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| problem(pem, &format!("not usable: {error}; name another file")))?;
        Ok(Authorities { certificates, verifier })
    }

    /// Those that this system trusts.
    fn of_system(
        tls: &TlsConfig,
        provider: &Arc<CryptoProvider>,
        warnings: &mut Vec<String>,
    ) -> Result<Authorities, Problem> {
        let place = &tls.certificate.place;
        for path in SYSTEM_AUTHORITIES {
            let pem = Pem { place: place.clone(), source: PemSource::File(path.into()) };
            if let Ok(content) = content(&pem) {
                warnings.push(format!(
                    "{place}: there is no client_ca_file, so clients may come with a certificate of any authority in \
                     {path}; name your own with client_ca_file"
                ));
                return Authorities::new(&pem, &content, provider);
            }
        }
        let message = "there is no client_ca_file, and this system has no list of authorities; name one with \
                       client_ca_file";
        Err(Problem { place: place.clone(), message: message.to_owned() })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // A certificate that vouches for itself and is listed here: usual in small places, though not a chain.
        if self.certificates.contains(end_entity) {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            return match Certificate::parse(end_entity) {
                Some(Certificate { valid: (first, last), .. }) if (first..=last).contains(&now) => Ok(()),
                Some(_) => Err(CertificateError::Expired.into()),
                None => Err(CertificateError::BadEncoding.into()),
            };
        }
        self.verifier.verify_client_cert(end_entity, intermediates, now).map(|_| ())
    }
}

#[derive(Debug)]
struct Verifier {
    authorities: Option<Authorities>,
    is_mandatory: bool,
    allowed_names: Vec<String>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.as_ref().map_or(&[], |authorities| authorities.verifier.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            authorities.verify(end_entity, intermediates, now)?;
        }
        if !self.allowed_names.is_empty() {
            let certificate = Certificate::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !certificate.names.iter().any(|name| self.allowed_names.contains(name)) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(ClientCertVerified::assertion())
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
