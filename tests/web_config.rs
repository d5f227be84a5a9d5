//! The web configuration: the files that operators have, with curl, openssl and Prometheus as clients.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::certificates::{Certificates, openssl};
use support::web::{HASH, HASH_10, TLS, USER, curl, http, https, is_answered, start};
use support::{Daemon, Directory, ttmem, wait_for};

/// The subject of the certificate that a new connection gets.
fn subject(daemon: &Daemon) -> String {
    let address = daemon.http().to_string();
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default().trim().to_owned()
}

fn reload_successful(daemon: &Daemon, certificates: &Certificates) -> f64 {
    let metrics = curl(&https(daemon, "/metrics"), &["--cacert", &certificates.path("ca.crt")]);
    let metrics = support::Metrics::parse(&metrics.body);
    metrics.value("ttmem_config_last_reload_successful", &[]).expect("the metric")
}

#[test]
fn a_file_that_a_prometheus_user_has_works() {
    let web_config = format!(
        "\
# TLS and basic authentication, as for node_exporter.
{TLS}  min_version: TLS12
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Frame-Options: deny
basic_auth_users:
  alice: {HASH_10}
  bob: {HASH}
rate_limit:
  interval: \"1s\"
  burst: 20
"
    );
    let (daemon, certificates) = start(&web_config);
    let ca = certificates.path("ca.crt");
    let ask = |path: &str, arguments: &[&str]| {
        curl(&https(&daemon, path), &[&["--cacert", &ca], arguments].concat())
    };
    let answer = ask("/metrics", &["--user", USER]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("ttmem_build_info"));
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
    assert_eq!(answer.header("x-frame-options"), Some("deny"));
    for (arguments, detail) in [
        (&[][..], "this needs a user and a password"),
        (&["--user", "alice:wrong"], "the user or the password is wrong"),
        (&["--user", "mallory:correct horse"], "the user or the password is wrong"),
        (&["--user", "alice:"], "the user or the password is wrong"),
    ] {
        let answer = ask("/metrics", arguments);
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"ttmem\", charset=\"UTF-8\""));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("x-frame-options"), Some("deny"));
        assert!(answer.body.contains(detail), "{answer:?}");
    }
    assert_eq!(ask("/-/healthy", &[]).status, 401, "probes are no exception, as in the exporters");
    assert_eq!(ask("/-/healthy", &["--user", "bob:correct horse"]).status, 200);
    let answer = curl(&http(&daemon, "/metrics"), &["--user", USER]);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https://"), "{answer:?}");
}

#[test]
fn a_new_certificate_counts_at_once_and_a_broken_one_never() {
    let (daemon, certificates) = start(TLS);
    assert_eq!(subject(&daemon), "CN = server");
    // A connection from before, which goes on.
    let mut kept = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &daemon.http().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");

    certificates.signed("successor", "DNS:localhost");
    fs::rename(certificates.path("successor.key"), certificates.path("server.key")).unwrap();
    assert_eq!(subject(&daemon), "CN = server", "the key alone belongs to nothing");
    let line = daemon.wait_for_log("web configuration refused; the one before stays in force");
    let error = line["error"].as_str().unwrap();
    let expected = "web.yml:3: tls_server_config.key_file: server.key: does not belong to the certificate of \
                    web.yml:2: tls_server_config.cert_file; name the two that were made together";
    assert_eq!(error, expected);
    assert_eq!(reload_successful(&daemon, &certificates), 0.0);
    fs::rename(certificates.path("successor.crt"), certificates.path("server.crt")).unwrap();
    assert_eq!(subject(&daemon), "CN = successor");
    assert_eq!(reload_successful(&daemon, &certificates), 1.0);

    fs::write(certificates.path("server.crt"), "-----BEGIN CERTIFICATE-----\ntorn").unwrap();
    daemon.signal(Signal::HUP);
    wait_for("the reload to fail", || (reload_successful(&daemon, &certificates) == 0.0).then_some(()));
    assert_eq!(subject(&daemon), "CN = successor");
    // A signal reads the settings again as well, and they are well: the failure must not be forgotten over it.
    daemon.signal(Signal::HUP);
    wait_for("the second reload", || {
        let lines = daemon.log();
        let reloads = lines.iter().filter(|line| line["message"] == "configuration reloaded");
        (reloads.count() == 2).then_some(())
    });
    assert_eq!(reload_successful(&daemon, &certificates), 0.0);

    let mut input = kept.stdin.take().unwrap();
    input.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    kept.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    kept.wait().unwrap();
}

#[test]
fn a_password_changes_without_a_restart_and_never_disappears() {
    let (daemon, certificates) = start(&format!("{TLS}basic_auth_users:\n  alice: {HASH}\n"));
    let ca = certificates.path("ca.crt");
    let status = |user: &str| {
        let arguments: &[&str] = if user.is_empty() { &[] } else { &["--user", user] };
        curl(&https(&daemon, "/-/healthy"), &[&["--cacert", &ca], arguments].concat()).status
    };
    let web_config = daemon.directory().join("web.yml");
    assert_eq!((status(USER), status("bob:correct horse")), (200, 401));
    fs::write(&web_config, format!("{TLS}basic_auth_users:\n  bob: {HASH}\n")).unwrap();
    assert_eq!((status(USER), status("bob:correct horse")), (401, 200));
    for opened in [TLS, "", &format!("basic_auth_users:\n  bob: {HASH}\n"), "tls_server_config: ["] {
        fs::write(&web_config, opened).unwrap();
        assert_eq!((status(""), status("bob:correct horse")), (401, 200), "{opened}");
    }
    let refused = daemon.log().into_iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(refused, 3, "each is told once, however many ask, and the second and third are the same");
}

#[test]
fn clients_show_what_is_asked_of_them() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let certificates = Certificates::new(directory.path());
    certificates.signed("scraper", "DNS:prometheus.example,URI:spiffe://cluster/prometheus,IP:192.0.2.1");
    certificates.signed("neighbour", "DNS:neighbour.example,email:me@prometheus.example");
    certificates.self_signed("stranger");
    let web_config = directory.join("web.yml");
    let write = |lines: &str| fs::write(&web_config, format!("{TLS}{lines}")).unwrap();
    write("");
    let daemon = Daemon::start_in(directory, &["--web-config", "web.yml"]);
    let is_let_in = |name: &str| {
        let (certificate, key) =
            (certificates.path(&format!("{name}.crt")), certificates.path(&format!("{name}.key")));
        let arguments: &[&str] = if name.is_empty() { &[] } else { &["--cert", &certificate, "--key", &key] };
        ["1.2", "1.3"].map(|version| {
            let version = format!("--tlsv{version}");
            is_answered(
                &daemon,
                &certificates,
                &[&["--tls-max", &version[6..], &version], arguments].concat(),
            )
        })
    };
    let check = |lines: &str, nobody: bool, scraper: bool, neighbour: bool, stranger: bool| {
        write(lines);
        let let_in = ["", "scraper", "neighbour", "stranger"].map(is_let_in);
        assert_eq!(let_in, [nobody, scraper, neighbour, stranger].map(|is_in| [is_in, is_in]), "{lines}");
    };
    let ca = "  client_ca_file: ca.crt\n";
    check("", true, true, true, true);
    check("  client_auth_type: RequestClientCert\n", true, true, true, true);
    check(&format!("  client_auth_type: VerifyClientCertIfGiven\n{ca}"), true, true, true, false);
    check("  client_auth_type: RequireAnyClientCert\n", false, true, true, true);
    check("  client_auth_type: RequireClientCert\n", false, true, true, true);
    let verified = format!("  client_auth_type: RequireAndVerifyClientCert\n{ca}");
    check(&verified, false, true, true, false);
    for name in ["prometheus.example", "spiffe://cluster/prometheus", "192.0.2.1"] {
        check(
            &format!("{verified}  client_allowed_sans: [other.example, '{name}']\n"),
            false,
            true,
            false,
            false,
        );
    }
    check(&format!("{verified}  client_allowed_sans: [me@prometheus.example]\n"), false, false, true, false);
    let listed = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: stranger.crt\n";
    check(listed, false, false, false, true);
}

#[test]
fn versions_and_algorithms_are_those_that_are_asked_for() {
    let (daemon, certificates) = start(TLS);
    let address = daemon.http().to_string();
    let web_config = daemon.directory().join("web.yml");
    // What openssl agrees on; nothing if it does not.
    let agreed = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-CAfile", &certificates.path("ca.crt")])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("openssl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("New, ")).unwrap_or_default();
        line.strip_prefix("New, ").unwrap_or_default().replace("Cipher is ", "")
    };
    let old = |version| agreed(&[version, "-cipher", "DEFAULT@SECLEVEL=0"]);
    assert_eq!(old("-tls1"), "(NONE), (NONE)");
    assert_eq!(old("-tls1_1"), "(NONE), (NONE)");
    assert!(agreed(&["-tls1_2"]).starts_with("TLSv1.2, "));
    assert!(agreed(&["-tls1_3"]).starts_with("TLSv1.3, "));

    fs::write(&web_config, format!("{TLS}  min_version: TLS13\n")).unwrap();
    assert_eq!(agreed(&["-tls1_2"]), "(NONE), (NONE)");
    assert!(agreed(&["-tls1_3"]).starts_with("TLSv1.3, "));

    let suites = "  max_version: TLS12\n  cipher_suites:\n  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\n  - \
                  TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256\n  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n";
    fs::write(&web_config, format!("{TLS}{suites}")).unwrap();
    assert_eq!(agreed(&["-tls1_3"]), "(NONE), (NONE)");
    assert_eq!(agreed(&["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]), "(NONE), (NONE)");
    let both = ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"];
    assert_eq!(agreed(&both), "TLSv1.2, ECDHE-ECDSA-CHACHA20-POLY1305");
    fs::write(&web_config, format!("{TLS}{suites}  prefer_server_cipher_suites: false\n")).unwrap();
    assert_eq!(agreed(&both), "TLSv1.2, ECDHE-ECDSA-AES128-GCM-SHA256");
    let warnings: Vec<_> = daemon.log().into_iter().filter(|line| line["level"] == "WARN").collect();
    let expected = "web.yml:5: tls_server_config.cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA is an old suite \
                    that is not offered; the others are";
    assert!(warnings.iter().any(|line| line["message"] == expected), "{warnings:?}");

    fs::write(&web_config, format!("{TLS}  curve_preferences: [CurveP384, CurveP521]\n")).unwrap();
    assert_eq!(agreed(&["-groups", "X25519:P-256"]), "(NONE), (NONE)");
    assert!(agreed(&["-groups", "P-384"]).starts_with("TLSv1.3, "));
}

/// Starts the daemon with a web configuration that it refuses, and compares what it says.
#[track_caller]
fn refused(directory: &Path, web_config: &str, expected: &str) {
    fs::write(directory.join("web.yml"), web_config).unwrap();
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--socket", "socket", "--web-config", "web.yml"][..],
        &["check-config", "--web-config", "web.yml"],
    ] {
        let output = ttmem().current_dir(directory).args(arguments).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_remedy() {
    let directory = Directory::new();
    let certificates = Certificates::new(directory.path());
    let encrypted = certificates.path("encrypted.key");
    openssl(&[
        "pkey",
        "-aes128",
        "-passout",
        "pass:x",
        "-in",
        &certificates.path("server.key"),
        "-out",
        &encrypted,
    ]);
    let check = |web_config: &str, expected: &str| refused(directory.path(), web_config, expected);
    check(
        "tls_server_config:\n  cert_file: server.crt\n  key_fle: server.key\nbasic_auth_users:\n  alice: secret\n",
        "ttmem: web.yml:3: tls_server_config.key_fle: this key is not known; did you mean key_file?\n\
         ttmem: web.yml:5: basic_auth_users.alice: this is not a bcrypt hash; write what `htpasswd -nBC 10 NAME` prints \
         after the colon\n",
    );
    check(
        "tls_server_config:\n  cert_file: none.crt\n  key_file: server.key\n",
        "ttmem: web.yml:2: tls_server_config.cert_file: none.crt: cannot be read: No such file or directory \
         (os error 2); name a file that this user may read\n",
    );
    check(
        "tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n",
        "ttmem: web.yml:2: tls_server_config.cert_file: server.key: holds no certificate in PEM; name a file with a \
         line -----BEGIN CERTIFICATE-----\n",
    );
    check(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: encrypted.key\n",
        "ttmem: web.yml:3: tls_server_config.key_file: encrypted.key: is encrypted; take the passphrase away: openssl \
         pkey -in KEY -out KEY-WITHOUT\n",
    );
    check(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: ca.key\n",
        "ttmem: web.yml:3: tls_server_config.key_file: ca.key: does not belong to the certificate of web.yml:2: \
         tls_server_config.cert_file; name the two that were made together\n",
    );
    let output = ttmem().args(["serve", "--web-config", "/nonexistent/web.yml"]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "ttmem: /nonexistent/web.yml: cannot be read: No such file or directory (os error 2); name with web_config a YAML \
         file that this user may read\n"
    );
}

#[test]
fn a_valid_file_is_told_to_be_valid() {
    let directory = Directory::new();
    Certificates::new(directory.path());
    fs::write(directory.join("web.yml"), format!("{TLS}  min_version: TLS10\n")).unwrap();
    fs::write(directory.join("ttmem.toml"), "web_config = \"web.yml\"\n").unwrap();
    let warning = "web.yml: warning: web.yml:4: tls_server_config.min_version: TLS 1.0 and 1.1 are not spoken, because \
                   they are broken; the lowest is TLS12\n";
    for (arguments, expected) in [
        (&["check-config", "--web-config", "web.yml"][..], format!("web.yml: ok\n{warning}")),
        (
            &["check-config", "ttmem.toml"],
            format!("ttmem.toml: ok\nweb_config = \"web.yml\"\nweb.yml: ok\n{warning}"),
        ),
    ] {
        let output = ttmem().current_dir(directory.path()).args(arguments).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        assert_eq!(output.status.code(), Some(0));
    }
    fs::write(directory.join("web.yml"), "{").unwrap();
    let output = ttmem().current_dir(directory.path()).args(["check-config", "ttmem.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_document_shows_a_file_that_is_accepted() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/web-config.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, block) = document.split_once("```yaml\n").expect("an example");
    let (example, _) = block.split_once("```").expect("its end");
    let directory = Directory::new();
    Certificates::new(directory.path());
    fs::write(directory.join("web.yml"), example).unwrap();
    let arguments = ["check-config", "--web-config", "web.yml"];
    let output = ttmem().current_dir(directory.path()).args(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "web.yml: ok\n");
}

/// A Prometheus that scrapes one target, ended with the test.
struct Prometheus {
    child: std::process::Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(directory: &Path, scrape_config: &str) -> Prometheus {
        let configuration = directory.join("prometheus.yml");
        fs::write(&configuration, format!("scrape_configs:\n{scrape_config}")).unwrap();
        // Prometheus takes no port 0: one that was free a moment ago has to do.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(directory.join("prometheus.log")).unwrap();
        let child = Command::new(support::installed_peer("bin/prometheus"))
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address={port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Prometheus { child, address: port }
    }

    /// The targets, once each has been scraped.
    fn targets(&self) -> Vec<serde_json::Value> {
        wait_for("Prometheus to scrape", || {
            let answer = curl(&format!("http://{}/api/v1/targets", self.address), &[]);
            let answer: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
            let targets = answer["data"]["activeTargets"].as_array()?.clone();
            let are_scraped =
                !targets.is_empty() && targets.iter().all(|target| target["health"] != "unknown");
            are_scraped.then_some(targets)
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn prometheus_scrapes_with_its_own_tls_config_and_basic_auth() {
    let web_config = format!(
        "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: \
         [prometheus.example]\n  min_version: TLS13\nbasic_auth_users:\n  alice: {HASH_10}\n"
    );
    let (daemon, certificates) = start(&web_config);
    certificates.signed("scraper", "DNS:prometheus.example");
    certificates.signed("neighbour", "DNS:neighbour.example");
    let job = |name: &str, client: &str, password: &str| {
        let (ca, certificate) = (certificates.path("ca.crt"), certificates.path(&format!("{client}.crt")));
        let key = certificates.path(&format!("{client}.key"));
        format!(
            "\
- job_name: {name}
  scheme: https
  scrape_interval: 1s
  tls_config: {{ca_file: {ca}, cert_file: {certificate}, key_file: {key}, server_name: localhost}}
  basic_auth: {{username: alice, password: {password}}}
  static_configs: [{{targets: [\"{}\"]}}]
",
            daemon.http()
        )
    };
    let jobs = [
        job("right", "scraper", "correct horse"),
        job("wrong-password", "scraper", "wrong"),
        job("wrong-name", "neighbour", "correct horse"),
    ];
    let prometheus = Prometheus::start(daemon.directory(), &jobs.concat());
    let targets = prometheus.targets();
    let health = |job: &str| {
        let target = targets.iter().find(|target| target["labels"]["job"] == job).expect("a target");
        (target["health"].as_str().unwrap().to_owned(), target["lastError"].as_str().unwrap().to_owned())
    };
    assert_eq!(health("right"), ("up".to_owned(), String::new()));
    let (state, error) = health("wrong-password");
    assert!(state == "down" && error.contains("401"), "{state} {error}");
    let (state, error) = health("wrong-name");
    assert!(state == "down" && error.contains("tls"), "{state} {error}");
}
