//! The daemon with a web configuration, and curl as its client.

use std::fs;
use std::process::Command;

use super::certificates::Certificates;
use super::{Daemon, Directory, Response};

/// "correct horse", as htpasswd hashes it, but at the lowest cost.
pub const HASH: &str = "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e";
/// "correct horse" at the usual cost.
pub const HASH_10: &str = "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu";
pub const USER: &str = "alice:correct horse";

/// TLS with the server certificate that lies beside the configuration.
pub const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// A daemon with a web configuration, beside which an authority and a server certificate lie.
pub fn start(web_config: &str) -> (Daemon, Certificates) {
    start_with(web_config, &[])
}

/// The same with further arguments.
pub fn start_with(web_config: &str, arguments: &[&str]) -> (Daemon, Certificates) {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let certificates = Certificates::new(directory.path());
    fs::write(directory.join("web.yml"), web_config).unwrap();
    let arguments = [&["--web-config", "web.yml"], arguments].concat();
    (Daemon::start_in(directory, &arguments), certificates)
}

/// What curl gets; status 0 if no answer came.
pub fn curl(url: &str, arguments: &[&str]) -> Response {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "30", "--noproxy", "*"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap_or_else(|error| panic!("curl: {error}; apt-get install curl"));
    let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body =
        if status == 0 { String::from_utf8_lossy(&output.stderr).into_owned() } else { body.to_owned() };
    Response { status, head: head.to_owned(), body }
}

/// The URL of a path, over TLS.
pub fn https(daemon: &Daemon, path: &str) -> String {
    format!("https://localhost:{}{path}", daemon.http().port())
}

/// The URL of a path, in the clear.
pub fn http(daemon: &Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.http())
}

/// Whether curl, which trusts the authority, is answered.
pub fn is_answered(daemon: &Daemon, certificates: &Certificates, arguments: &[&str]) -> bool {
    let ca = certificates.path("ca.crt");
    let answer = curl(&https(daemon, "/-/healthy"), &[&["--cacert", &ca], arguments].concat());
    assert!(answer.status == 200 || answer.status == 0, "{answer:?}");
    answer.status == 200
}
