//! `ttmem status` as a client: of a daemon that is secured, and what it says of the daemon itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use serde_json::{Value, json};
use support::certificates::openssl;
use support::web::{HASH, TLS, start};
use support::{Daemon, Directory, ttmem};

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

#[test]
fn what_outlives_the_daemon_is_said_in_words_and_in_json() {
    let mut daemon = Daemon::start(&["--state-dir", "state"]);
    let url = |daemon: &Daemon| format!("http://{}", daemon.http());
    let told = |daemon: &Daemon, what: &str| {
        support::wait_for(what, || {
            let status: Value = serde_json::from_str(&status(daemon, &url(daemon), &[]).unwrap()).unwrap();
            let daemon = &status["daemon"];
            let is_there = daemon["history"]["last_write_timestamp_seconds"].is_number()
                && daemon["state"]["checkpoint_timestamp_seconds"].is_number();
            is_there.then(|| status.clone())
        })
    };
    let first = told(&daemon, "a checkpoint and a write");
    assert_eq!(first["leaks"], json!([]));
    assert_eq!(first["daemon"]["pid"], daemon.pid());
    assert_eq!(first["daemon"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["daemon"]["state"]["kept"], true);
    assert!(first["daemon"]["state"].get("recovery_seconds").is_none(), "it began with nothing: {first}");
    assert_eq!(first["daemon"], daemon_says(&daemon, &first["daemon"]));

    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().success());
    let daemon = Daemon::start_in(daemon.kill(), &["--state-dir", "state"]);
    let second = told(&daemon, "a checkpoint and a write");
    assert!(second["daemon"]["state"]["recovery_seconds"].as_f64().unwrap() > 0.0, "{second}");
    let shown = text(&daemon);
    for line in ["leaks    none is suspected", "state    kept, checkpoint of ", "history  "] {
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line:?} is missing:\n{shown}");
    }
    assert!(shown.contains("; went on within "), "{shown}");
}

/// What /api/v1/daemon answers, with the moment of another answer.
fn daemon_says(daemon: &Daemon, other: &Value) -> Value {
    let mut says = daemon.json("/api/v1/daemon");
    for moment in ["/timestamp_seconds", "/history", "/state/journal_bytes"] {
        *says.pointer_mut(moment).unwrap() = other.pointer(moment).unwrap().clone();
    }
    says
}

/// What it prints without --json.
fn text(daemon: &Daemon) -> String {
    let url = format!("http://{}", daemon.http());
    let output = ttmem().args(["status", "--server", &url]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_daemon_that_keeps_nothing_says_so() {
    let daemon = Daemon::start(&[]);
    assert!(
        text(&daemon).ends_with("leaks    none is suspected\nstate    not kept: no --state-dir is given\n")
    );
    // A directory that cannot be one.
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    fs::write(directory.join("state"), "").unwrap();
    let daemon = Daemon::start_in(directory, &["--state-dir", "state"]);
    let shown = text(&daemon);
    assert!(shown.contains("\nstate    NOT kept: "), "{shown}");
    assert_eq!(daemon.json("/api/v1/daemon")["state"]["kept"], false);
}

/// It shows what it can of a daemon that does not know the question.
#[test]
fn an_older_daemon_is_shown_without_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let old = std::thread::spawn(move || {
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let asked = head.next().unwrap();
            while head.next().is_some_and(|line| !line.is_empty()) {}
            let (code, body) = match asked.split_whitespace().nth(1).unwrap() {
                "/api/v1/devices" => (200, r#"{"timestamp_seconds":1.0,"devices":[]}"#),
                "/api/v1/processes" => (200, r#"{"timestamp_seconds":1.0,"processes":[]}"#),
                _ => (404, r#"{"detail":"there is no such thing"}"#),
            };
            let length = body.len();
            write!(stream, "HTTP/1.1 {code} X\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    let output = ttmem().args(["status", "--server", &format!("http://{address}")]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("No device has been seen yet"), "{output:?}");
    assert!(!shown.contains("state "), "{shown}");
    old.join().unwrap();
}
