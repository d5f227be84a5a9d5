//! Authorities and certificates as an operator makes them, with openssl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs openssl and gives what it prints.
pub fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("openssl: {error}; apt-get install openssl"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "openssl {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory in which certificates are made.
pub struct Certificates(PathBuf);

impl Certificates {
    /// One with an authority, `ca.crt`, and a server certificate for the loopback, `server.crt` and `server.key`.
    pub fn new(directory: &Path) -> Certificates {
        let certificates = Certificates(directory.to_owned());
        certificates.self_signed("ca");
        certificates.signed("server", "DNS:localhost,IP:127.0.0.1,IP:::1");
        certificates
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// NAME.crt and NAME.key that vouch for themselves.
    pub fn self_signed(&self, name: &str) {
        let subject = format!("/CN={name}");
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let new =
            ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"];
        openssl(&[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &certificate]].concat());
    }

    /// NAME.crt and NAME.key from the authority, with alternative names.
    pub fn signed(&self, name: &str, alternative_names: &str) {
        let subject = format!("/CN={name}");
        let [certificate, key, request, extensions] =
            ["crt", "key", "csr", "ext"].map(|ending| self.path(&format!("{name}.{ending}")));
        let new = ["req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        openssl(&[&new[..], &["-subj", &subject, "-keyout", &key, "-out", &request]].concat());
        fs::write(&extensions, format!("subjectAltName={alternative_names}\n")).unwrap();
        let (ca, ca_key) = (self.path("ca.crt"), self.path("ca.key"));
        let sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-CA", &ca, "-CAkey", &ca_key];
        openssl(&[&sign[..], &["-in", &request, "-extfile", &extensions, "-out", &certificate]].concat());
    }
}
