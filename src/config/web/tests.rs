//! What a web configuration file may say, and what is said about one that is wrong.

use super::*;

fn parse(text: &str) -> Result<WebConfig, String> {
    WebConfig::parse(Path::new("etc/web.yml"), text).map_err(|error| error.to_string())
}

#[track_caller]
fn accepted(text: &str) -> WebConfig {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Each problem without the file's name.
#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let problems = parse(text).expect_err("must be refused");
    let lines: Vec<&str> =
        problems.lines().map(|line| line.strip_prefix("etc/web.yml:").expect("the file's name")).collect();
    assert_eq!(lines, expected);
}

const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

#[test]
fn everything_at_once() {
    let config = accepted(&format!(
        "\
# as a Prometheus user has it
tls_server_config:
  cert_file: server.crt
  key_file: /keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ../ca.crt
  client_allowed_sans:
    - prometheus.example
    - 10.0.0.1
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: no
  curve_preferences: [X25519, CurveP256]
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-XSS-Protection: 0
    Content-Security-Policy:
basic_auth_users:
  alice: {HASH}
  \"007\": '{HASH}'
rate_limit:
  interval: 1m1.5s
  burst: 20
"
    ));
    let tls = config.tls.as_ref().expect("TLS");
    assert_eq!(tls.certificate.source, PemSource::File("etc/server.crt".into()));
    assert_eq!(tls.key.source, PemSource::File("/keys/server.key".into()));
    assert_eq!(tls.client_ca.as_ref().expect("a CA").source, PemSource::File("etc/../ca.crt".into()));
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerifyClientCert);
    assert_eq!(tls.client_allowed_sans, ["prometheus.example", "10.0.0.1"]);
    assert_eq!(tls.versions, TlsVersions { tls12: false, tls13: true });
    assert_eq!(tls.cipher_suites.as_ref().expect("suites").names.len(), 2);
    assert_eq!(tls.curves.as_ref().expect("curves").names, ["X25519", "CurveP256"]);
    assert!(!tls.prefers_own_order);
    assert!(!config.without_http2);
    assert_eq!(
        config.headers,
        [
            ("Strict-Transport-Security", "max-age=31536000".to_owned()),
            ("X-Frame-Options", "deny".to_owned()),
            ("X-XSS-Protection", "0".to_owned()),
        ]
    );
    let users: Vec<_> = config.users.iter().map(|user| (user.name.as_str(), user.cost)).collect();
    assert_eq!(users, [("alice", 10), ("007", 10)]);
    assert_eq!(config.rate_limit, Some(RateLimit { interval: Duration::from_millis(61_500), burst: 20 }));
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(config.files().count(), 3);
}

#[test]
fn what_asks_for_nothing_is_accepted() {
    for text in
        ["", "# nothing\n", "tls_server_config:\nbasic_auth_users:\n", "{}", "rate_limit: {interval: 0}"]
    {
        assert_eq!(accepted(text), WebConfig::default(), "{text}");
    }
}

#[test]
fn certificates_may_stand_in_the_file() {
    let config =
        accepted("tls_server_config:\n  cert: |\n    one\n    two\n  key: three\n  min_version: TLS10\n");
    let tls = config.tls.expect("TLS");
    assert_eq!(tls.certificate.source, PemSource::Inline("one\ntwo\n".to_owned()));
    assert!(tls.versions.tls12 && tls.versions.tls13);
    let shown = format!("{:?}", tls.key);
    assert!(!shown.contains("three"), "{shown}");
    assert_eq!(
        config.warnings,
        [
            "etc/web.yml:6: tls_server_config.min_version: TLS 1.0 and 1.1 are not spoken, because they are broken; \
          the lowest is TLS12"
        ]
    );
    let config = accepted("tls_server_config: {cert_file: a, cert: b, key_file: c}");
    assert_eq!(
        config.warnings,
        ["etc/web.yml:1: tls_server_config.cert_file: cert is given as well and has no effect"]
    );
    let config = accepted("tls_server_config: {min_version: TLS13}");
    assert_eq!(config.tls, None);
    assert_eq!(
        config.warnings,
        ["etc/web.yml:1: tls_server_config: TLS stays off: there is no cert_file and no key_file"]
    );
}

#[test]
fn every_mistake_is_told_with_its_line() {
    refused(
        "\
tls_server_confg:
  cert_file: a
basic_auth_users:
  alice: secret
  bob: $2y$03$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG
http_server_config:
  headers:
    Server: ttmem
    X-Frame-Options: allow
rate_limit:
  interval: soon
  burst: -1
",
        &[
            "1: tls_server_confg: this key is not known; did you mean tls_server_config?",
            "4: basic_auth_users.alice: this is not a bcrypt hash; write what `htpasswd -nBC 10 NAME` prints after \
             the colon",
            "5: basic_auth_users.bob: its cost is 3; make one with a cost from 4 to 31, such as 10",
            "8: http_server_config.headers.Server: this key is not known; there are Content-Security-Policy, \
             X-Frame-Options, X-Content-Type-Options, X-XSS-Protection, Strict-Transport-Security",
            "9: http_server_config.headers.X-Frame-Options: \"allow\" is not one of deny, sameorigin",
            "11: rate_limit.interval: \"soon\" is not a duration; write a duration such as \"1s\" or \"100ms\", or 0 \
             for no limit",
            "12: rate_limit.burst: -1 is not allowed; write how many requests may come at once, such as 20",
        ],
    );
}

#[test]
fn tls_that_could_not_work_is_refused() {
    let tls = |lines: &str, expected: &[&str]| {
        refused(&format!("tls_server_config:\n  cert_file: a\n  key_file: b\n{lines}"), expected);
    };
    tls(
        "  client_auth_type: RequireAndVerify\n",
        &["4: tls_server_config.client_auth_type: \"RequireAndVerify\" is not one of NoClientCert, \
           RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert, \
           RequireClientCert; did you mean RequireAndVerifyClientCert?"],
    );
    tls(
        "  client_ca_file: ca\n",
        &[
            "4: tls_server_config.client_ca_file: there is no client_auth_type, so no client would be asked for a \
           certificate; write client_auth_type: RequireAndVerifyClientCert",
        ],
    );
    tls(
        "  client_auth_type: VerifyClientCertIfGiven\n  client_allowed_sans: [a]\n",
        &[
            "5: tls_server_config.client_allowed_sans: a client may come without a certificate, and so without a \
           name; write client_auth_type: RequireAndVerifyClientCert",
        ],
    );
    tls(
        "  max_version: TLS11\n",
        &[
            "4: tls_server_config.max_version: TLS11 and below are broken and not spoken, so nothing would be left; \
           write TLS12 or TLS13",
        ],
    );
    tls(
        "  min_version: TLS13\n  max_version: TLS12\n",
        &[
            "5: tls_server_config.max_version: TLS12 is below min_version, so nothing would be left; write TLS13 or \
           leave it out",
        ],
    );
    tls(
        "  curve_preferences: [X25519,\n    P256]\n",
        &[
            "5: tls_server_config.curve_preferences: \"P256\" is not one of CurveP256, CurveP384, CurveP521, X25519; \
           did you mean CurveP256?",
        ],
    );
    refused(
        "tls_server_config:\n  cert_file: a\n",
        &["1: tls_server_config: key_file is missing; name the file, such as key_file: key_file.pem"],
    );
    refused(
        "tls_server_config: server.crt\n",
        &[
            "1: tls_server_config: this is a text; write a map with the keys cert, key, client_ca, cert_file, key_file, \
           client_auth_type, client_ca_file, client_allowed_sans, min_version, max_version, cipher_suites, \
           prefer_server_cipher_suites, curve_preferences",
        ],
    );
}

#[test]
fn what_is_not_yaml_is_told_with_its_place() {
    let check = |text: &str, line: &str| {
        let problems = parse(text).expect_err("must be refused");
        assert!(problems.starts_with(&format!("etc/web.yml:{line}:")), "{problems}");
        assert!(problems.contains("this is not valid YAML: "), "{problems}");
        assert_eq!(problems.lines().count(), 1, "{problems}");
    };
    check("basic_auth_users:\n  a: [\n", "2");
    check("a: 1\na: 2\n", "2");
    check("a: 1\n\tb: 2\n", "1");
    check("a: *nobody\n", "1");
}

#[test]
fn a_limit_needs_a_burst() {
    refused(
        "rate_limit:\n  interval: 1s\n",
        &["1: rate_limit: burst is missing or 0, so no request would ever be answered; write burst: 20"],
    );
    let config = accepted("rate_limit: {interval: 1000, burst: 1}");
    assert_eq!(config.rate_limit, Some(RateLimit { interval: Duration::from_micros(1), burst: 1 }));
    assert_eq!(config.warnings.len(), 1);
}
