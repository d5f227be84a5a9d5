//! `ttmem status` as a client of a daemon that is secured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;

use support::certificates::openssl;
use support::web::{HASH, TLS, start};
use support::{Daemon, ttmem};

/// Runs it against a URL; gives what it prints, or what it says is wrong.
fn status(daemon: &Daemon, url: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = ttmem();
    command.current_dir(daemon.directory()).args(["status", "--json", "--server", url]).args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn a_secured_daemon_is_asked_by_who_may() {
    let (daemon, certificates) = start(&format!("{TLS}basic_auth_users:\n  alice: {HASH}\n"));
    let password = daemon.directory().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    fs::write(daemon.directory().join("wrong"), "wrong\n").unwrap();
    certificates.self_signed("stranger");
    let port = daemon.http().port();
    let url = format!("https://localhost:{port}");
    let check = |url: &str, arguments: &[&str], expected: Result<(), &str>| {
        let expected = expected.map_err(|problem| format!("ttmem: {url}: {problem}"));
        let told = status(&daemon, url, arguments);
        assert_eq!(told.map(|_| ()), expected, "{arguments:?}");
    };
    let user = ["--user", "alice", "--password-file", "password"];
    check(&url, &[&["--ca-file", "ca.crt"], &user[..]].concat(), Ok(()));
    check(&url, &[&["--ca-file", "server.crt"], &user[..]].concat(), Ok(()));
    check(&url, &[&["--insecure"], &user[..]].concat(), Ok(()));
    check(&url, &["--insecure"], Err("it wants to know who asks; say it with --user and --password-file"));
    check(
        &url,
        &["--insecure", "--user", "alice", "--password-file", "wrong"],
        Err("the user or the password is wrong"),
    );
    check(
        &url,
        &["--ca-file", "stranger.crt"],
        Err("nobody who is trusted vouches for it; name its authority with --ca-file"),
    );
    check(&format!("http://localhost:{port}"), &[], Err("it speaks HTTPS; write https:// in --server"));
    let told = status(&daemon, &format!("https://alice:x@localhost:{port}"), &[]).unwrap_err();
    assert!(told.contains("everybody on this host can read a password in a URL"), "{told}");
}

#[test]
fn a_daemon_is_asked_with_a_certificate() {
    let web_config =
        format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
    let (daemon, certificates) = start(&web_config);
    certificates.signed("me", "DNS:me.example");
    let url = format!("https://localhost:{}", daemon.http().port());
    let identity = ["--ca-file", "ca.crt", "--cert-file", "me.crt", "--key-file", "me.key"];
    status(&daemon, &url, &identity).unwrap();
    let told = status(&daemon, &url, &["--ca-file", "ca.crt"]).unwrap_err();
    assert!(told.starts_with(&format!("ttmem: {url}: ")), "{told}");
    let told = status(&daemon, &url, &["--cert-file", "me.crt", "--key-file", "server.key"]).unwrap_err();
    assert!(told.starts_with("ttmem: --key-file: server.key does not fit me.crt"), "{told}");
}

#[test]
fn a_daemon_that_vouches_for_itself_is_asked() {
    let (daemon, certificates) = start(TLS);
    let (certificate, key) = (certificates.path("server.crt"), certificates.path("server.key"));
    let new = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=self"];
    let made = ["-addext", "subjectAltName=DNS:localhost", "-keyout", &key, "-out", &certificate];
    openssl(&[&new[..], &made].concat());
    let port = daemon.http().port();
    status(&daemon, &format!("https://localhost:{port}"), &["--ca-file", "server.crt"]).unwrap();
    let told = status(&daemon, &format!("https://127.0.0.1:{port}"), &["--ca-file", "server.crt"]);
    assert!(told.unwrap_err().contains("its certificate is not for 127.0.0.1"));
}

#[test]
fn a_daemon_is_asked_over_its_unix_socket() {
    let daemon = Daemon::start(&["--listen", "unix:http.sock"]);
    support::wait_for("the socket", || daemon.directory().join("http.sock").exists().then_some(()));
    assert!(status(&daemon, "unix:http.sock", &[]).unwrap().contains("\"devices\""));
    let told = status(&daemon, "unix:none.sock", &[]).unwrap_err();
    assert!(told.starts_with("ttmem: no daemon answers at none.sock; name another with --server"), "{told}");
    let told = status(&daemon, &format!("https://{}", daemon.http()), &["--insecure"]).unwrap_err();
    assert!(told.ends_with("it does not speak HTTPS; write http:// in --server"), "{told}");
}
