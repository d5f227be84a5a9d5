//! HTTP/2 as operators switch it on and off, with curl, Prometheus and a client that takes nothing of its answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use support::certificates::Certificates;
use support::prometheus::Prometheus;
use support::web::{HASH, TLS, USER, curl, http, https, start, start_with};
use support::{Daemon, Peer, peers, wait_for};

/// A client that speaks frames.
fn client(daemon: &Daemon, certificates: &Certificates) -> Peer {
    let mut command = Command::new("python3");
    command
        .arg(peers().join("http2.py"))
        .arg(daemon.http().port().to_string())
        .arg(certificates.path("ca.crt"));
    Peer::start(&mut command)
}

fn version(answer: &support::Response) -> &str {
    answer.head.split(' ').next().unwrap()
}

#[test]
fn curl_gets_the_version_that_is_agreed_on() {
    let check = |settings: &str, arguments: &[&str], expected: &str| {
        let (daemon, certificates) = start(&format!("{TLS}{settings}"));
        let ca = certificates.path("ca.crt");
        let arguments = [&["--cacert", &ca], arguments].concat();
        let answer = curl(&https(&daemon, "/metrics"), &arguments);
        assert_eq!((answer.status, version(&answer)), (200, expected), "{settings:?} {arguments:?}");
        assert!(answer.body.ends_with('\n') && answer.body.contains("ttmem_build_info"));
    };
    check("", &["--http2"], "HTTP/2");
    check("", &["--http2", "--tls-max", "1.2"], "HTTP/2");
    check("", &["--http1.1"], "HTTP/1.1");
    check("http_server_config:\n  http2: true\n", &["--http2"], "HTTP/2");
    check("http_server_config:\n  http2: false\n", &["--http2"], "HTTP/1.1");
    let (daemon, _) = start("http_server_config:\n  http2: true\n");
    assert_eq!(version(&curl(&http(&daemon, "/metrics"), &["--http2"])), "HTTP/1.1", "without TLS");
}

#[test]
fn everything_is_answered_over_it_as_over_the_other() {
    let web_config = format!(
        "{TLS}http_server_config:\n  headers:\n    X-Frame-Options: deny\nbasic_auth_users:\n  alice: {HASH}\n"
    );
    let (daemon, certificates) = start(&web_config);
    let ca = certificates.path("ca.crt");
    let ask = |version: &str, path: &str, arguments: &[&str]| {
        curl(&https(&daemon, path), &[&["--cacert", &ca, version], arguments].concat())
    };
    for (path, arguments) in [
        ("/-/healthy", &["--user", USER][..]),
        ("/-/healthy", &["--user", "alice:wrong"]),
        ("/-/healthy", &[]),
        ("/-/healthy", &["--user", USER, "--head"]),
        ("/nowhere", &["--user", USER]),
        ("/", &["--user", USER, "--data", "a body that nobody reads"]),
        ("/api/v1/buffers?limit=x", &["--user", USER]),
    ] {
        let [two, one] = ["--http2", "--http1.1"].map(|version| ask(version, path, arguments));
        assert_eq!((version(&two), version(&one)), ("HTTP/2", "HTTP/1.1"), "{path} {arguments:?} {two:?}");
        assert_eq!((two.status, &two.body), (one.status, &one.body), "{path} {arguments:?}");
        for header in ["content-type", "content-length", "x-frame-options", "www-authenticate", "allow"] {
            assert_eq!(two.header(header), one.header(header), "{path} {arguments:?} {header}");
        }
    }
    let long = format!("X-Long: {}", "a".repeat(20_000));
    let answer = ask("--http2", "/-/healthy", &["--user", USER, "--header", &long]);
    assert_eq!(answer.status, 431, "{answer:?}");
}

#[test]
fn prometheus_scrapes_over_it_unless_it_is_told_not_to() {
    let start = |http2: &str| {
        start_with(&format!("{TLS}http_server_config:\n  http2: {http2}\n"), &["--log-level", "debug"])
    };
    let ((daemon, certificates), (plain, plain_certificates)) = (start("true"), start("false"));
    let job = |name: &str, daemon: &Daemon, certificates: &Certificates| {
        format!(
            "- {{job_name: {name}, scheme: https, scrape_interval: 1s, static_configs: [{{targets: ['{}']}}], \
             tls_config: {{ca_file: {}, server_name: localhost}}}}\n",
            daemon.http(),
            certificates.path("ca.crt")
        )
    };
    let jobs = job("two", &daemon, &certificates) + &job("one", &plain, &plain_certificates);
    let prometheus = Prometheus::start_configured(&format!("scrape_configs:\n{jobs}"));
    for name in ["one", "two"] {
        let up = format!("up{{job='{name}'}}");
        wait_for("a scrape", || prometheus.value(&up).filter(|up| *up == 1.0));
    }
    let two = |daemon: &Daemon| daemon.log().iter().any(|line| line["message"] == "HTTP/2 was agreed on");
    assert!(two(&daemon), "Prometheus asks for it");
    assert!(!two(&plain));
}

#[test]
fn who_takes_nothing_of_its_answers_loses_the_connection_however_busy_it_looks() {
    let (daemon, certificates) = start(TLS);
    let mut client = client(&daemon, &certificates);
    let settings = client.ask(r#"{"op":"settings"}"#);
    assert_eq!(
        (&settings["max_concurrent_streams"], &settings["max_header_list_size"]),
        (&8.into(), &16384.into())
    );
    let asked = Instant::now();
    let outcome = client.ask(r#"{"op":"get","path":"/metrics","count":10}"#);
    assert_eq!((&outcome["answered"], &outcome["refused"]), (&8.into(), &2.into()));
    // Ten seconds are what a client over HTTP/1.1 has.
    wait_for("the end of the connection", || (client.ask(r#"{"op":"ping"}"#)["open"] == false).then_some(()));
    assert!(asked.elapsed().as_secs() >= 10, "{:?}", asked.elapsed());
    assert_eq!(daemon.get("/").status, 400, "the others are answered");
}

#[test]
fn a_daemon_that_stops_says_so_on_its_streams() {
    let (mut daemon, certificates) = start(TLS);
    let mut client = client(&daemon, &certificates);
    client.ask(r#"{"op":"settings"}"#);
    assert_eq!(client.ask(r#"{"op":"ping"}"#)["open"], true);
    daemon.signal(Signal::TERM);
    assert_eq!(client.ask(r#"{"op":"drain"}"#)["goaway"], true);
    assert_eq!(daemon.wait().code(), Some(0));
}
