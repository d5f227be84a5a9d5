//! The tree of a web configuration file, key by key, as a `WebConfig`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bcrypt::HashParts;

use super::tree::{Entry, Node, Value};
use super::{ClientAuth, Named, Pem, PemSource, RateLimit, TlsConfig, TlsVersions, User, WebConfig};
use crate::config::error::{Place, Problem, did_you_mean};
use crate::config::values::did_you_mean_one_of;

const SECTIONS: &[&str] = &["tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"];
const TLS_KEYS: &[&str] = &[
    "cert",
    "key",
    "client_ca",
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
];
const HTTP_KEYS: &[&str] = &["http2", "headers"];
const RATE_KEYS: &[&str] = &["interval", "burst"];

/// The names that `client_auth_type` may have. The last is the old spelling of the third.
const CLIENT_AUTH_TYPES: &[(&str, ClientAuth)] = &[
    ("NoClientCert", ClientAuth::NoClientCert),
    ("RequestClientCert", ClientAuth::RequestClientCert),
    ("RequireAnyClientCert", ClientAuth::RequireAnyClientCert),
    ("VerifyClientCertIfGiven", ClientAuth::VerifyClientCertIfGiven),
    ("RequireAndVerifyClientCert", ClientAuth::RequireAndVerifyClientCert),
    ("RequireClientCert", ClientAuth::RequireAnyClientCert),
];

/// The versions that may be named. The first two are no longer spoken by anything that is safe.
const VERSIONS: &[&str] = &["TLS10", "TLS11", "TLS12", "TLS13"];
const TLS12: usize = 2;
const TLS13: usize = 3;

const CURVES: &[&str] = &["CurveP256", "CurveP384", "CurveP521", "X25519"];

/// The cipher suites that may be named: those of Go's `tls.CipherSuites`, and those that older releases listed there.
pub const CIPHER_SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

/// Headers that may be set, and the values that those with a closed list may have.
const HEADERS: &[(&str, &[&str])] = &[
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// bcrypt's own bounds.
const COST_MIN: u32 = 4;
const COST_MAX: u32 = 31;
/// Beyond this a check takes seconds of a core: the first scrape of a client would run into its timeout.
const COST_SENSIBLE_MAX: u32 = 14;
/// What the tree says. A value that is wrong is a problem and then left out.
pub(super) fn read(path: &Path, tree: &Node, problems: &mut Vec<Problem>) -> WebConfig {
    let mut reader = Reader { path, problems, warnings: Vec::new() };
    let mut config = WebConfig::default();
    for entry in reader.entries(tree, "", SECTIONS) {
        match entry.key.as_str() {
            "tls_server_config" => config.tls = reader.tls(entry),
            "http_server_config" => reader.http(entry, &mut config),
            "basic_auth_users" => config.users = reader.users(entry),
            _ => config.rate_limit = reader.rate_limit(entry),
        }
    }
    config.warnings = reader.warnings;
    config
}

struct Reader<'a> {
    path: &'a Path,
    problems: &'a mut Vec<Problem>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn tls(&mut self, section: &Entry) -> Option<TlsConfig> {
        let section_key = "tls_server_config";
        let problems_before = self.problems.len();
        let entries = self.entries(&section.node, section_key, TLS_KEYS);
        let find = |key: &str| entries.iter().copied().find(|entry| entry.key == key && !entry.is_nothing());
        let certificate = self.pem(find("cert_file"), find("cert"));
        let key = self.pem(find("key_file"), find("key"));
        let client_ca = self.pem(find("client_ca_file"), find("client_ca"));
        let auth_entry = find("client_auth_type");
        let client_auth = auth_entry.and_then(|entry| self.client_auth(entry)).unwrap_or_default();
        let sans_entry = find("client_allowed_sans");
        let client_allowed_sans = sans_entry.map(|entry| self.texts(entry)).unwrap_or_default();
        let versions = self.versions(find("min_version"), find("max_version"));
        let cipher_suites = find("cipher_suites").and_then(|entry| self.named(entry, CIPHER_SUITES));
        let curves = find("curve_preferences").and_then(|entry| self.named(entry, CURVES));
        let prefers_own_order =
            find("prefer_server_cipher_suites").and_then(|entry| self.switch(entry)).unwrap_or(true);

        let is_meant = certificate.is_some() || key.is_some() || client_ca.is_some() || auth_entry.is_some();
        if !is_meant {
            if !entries.is_empty() && self.problems.len() == problems_before {
                let place = self.place(section.line, section_key);
                self.warn(&place, "TLS stays off: there is no cert_file and no key_file");
            }
            return None;
        }
        let missing = |name: &str| format!("{name} is missing; name the file, such as {name}: {name}.pem");
        if certificate.is_none() && self.problems.len() == problems_before {
            self.problem(section.line, section_key, missing("cert_file"));
        }
        if key.is_none() && self.problems.len() == problems_before {
            self.problem(section.line, section_key, missing("key_file"));
        }
        if let (Some(ca), ClientAuth::NoClientCert) = (&client_ca, client_auth)
            && self.problems.len() == problems_before
        {
            let message = "there is no client_auth_type, so no client would be asked for a certificate; \
                           write client_auth_type: RequireAndVerifyClientCert";
            self.problems.push(Problem { place: ca.place.clone(), message: message.to_owned() });
        }
        let is_required =
            matches!(client_auth, ClientAuth::RequireAnyClientCert | ClientAuth::RequireAndVerifyClientCert);
        if let Some(entry) = sans_entry
            && !is_required
            && self.problems.len() == problems_before
        {
            let message = "a client may come without a certificate, and so without a name; \
                           write client_auth_type: RequireAndVerifyClientCert";
            self.problem(entry.line, "tls_server_config.client_allowed_sans", message.to_owned());
        }
        Some(TlsConfig {
            certificate: certificate?,
            key: key?,
            client_auth,
            client_ca,
            client_allowed_sans,
            versions,
            cipher_suites,
            curves,
            prefers_own_order,
        })
    }

    /// A file, or what is written in the configuration itself; the file wins.
    fn pem(&mut self, file: Option<&Entry>, inline: Option<&Entry>) -> Option<Pem> {
        let entry = file.or(inline)?;
        let key = format!("tls_server_config.{}", entry.key);
        let text = self.text(&entry.node, &key)?;
        if text.is_empty() {
            return None;
        }
        let source =
            if file.is_some() { PemSource::File(self.beside(&text)) } else { PemSource::Inline(text) };
        let place = self.place(entry.line, &key);
        if let (Some(_), Some(inline)) = (file, inline) {
            self.warn(&place, &format!("{} is given as well and has no effect", inline.key));
        }
        Some(Pem { place, source })
    }

    /// Relative paths are relative to the directory of the file that names them.
    fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    fn client_auth(&mut self, entry: &Entry) -> Option<ClientAuth> {
        let key = "tls_server_config.client_auth_type";
        let text = self.text(&entry.node, key)?;
        if text.is_empty() {
            return None;
        }
        let known = CLIENT_AUTH_TYPES.iter().find(|(name, _)| *name == text);
        if known.is_none() {
            let names = CLIENT_AUTH_TYPES.iter().map(|(name, _)| *name);
            self.problem(entry.node.line, key, did_you_mean_one_of(&text, names));
        }
        known.map(|(_, client_auth)| *client_auth)
    }

    fn versions(&mut self, min: Option<&Entry>, max: Option<&Entry>) -> TlsVersions {
        let lowest = min.and_then(|entry| self.version(entry)).unwrap_or(TLS12);
        let highest = max.and_then(|entry| self.version(entry)).unwrap_or(TLS13);
        if let Some(entry) = min
            && lowest < TLS12
        {
            let place = self.place(entry.line, "tls_server_config.min_version");
            self.warn(&place, "TLS 1.0 and 1.1 are not spoken, because they are broken; the lowest is TLS12");
        }
        if let Some(entry) = max {
            let key = "tls_server_config.max_version";
            if highest < TLS12 {
                let message = format!(
                    "{} and below are broken and not spoken, so nothing would be left; write TLS12 or TLS13",
                    VERSIONS[highest]
                );
                self.problem(entry.node.line, key, message);
            } else if lowest > highest {
                let message = format!(
                    "{} is below min_version, so nothing would be left; write {} or leave it out",
                    VERSIONS[highest], VERSIONS[lowest]
                );
                self.problem(entry.node.line, key, message);
            }
        }
        TlsVersions { tls12: lowest <= TLS12, tls13: highest >= TLS13 }
    }

    fn version(&mut self, entry: &Entry) -> Option<usize> {
        let key = format!("tls_server_config.{}", entry.key);
        let text = self.text(&entry.node, &key)?;
        let known = VERSIONS.iter().position(|name| *name == text);
        if known.is_none() {
            self.problem(entry.node.line, &key, did_you_mean_one_of(&text, VERSIONS.iter().copied()));
        }
        known
    }

    /// Names of a closed list; none if there are none.
    fn named(&mut self, entry: &Entry, known: &'static [&'static str]) -> Option<Named> {
        let key = format!("tls_server_config.{}", entry.key);
        let mut names = Vec::new();
        for (line, text) in self.lines_of_texts(entry, &key) {
            match known.iter().find(|name| **name == text) {
                Some(name) => names.push(*name),
                None => self.problem(line, &key, did_you_mean_one_of(&text, known.iter().copied())),
            }
        }
        (!names.is_empty()).then(|| Named { place: self.place(entry.line, &key), names })
    }

    fn texts(&mut self, entry: &Entry) -> Vec<String> {
        let key = format!("tls_server_config.{}", entry.key);
        self.lines_of_texts(entry, &key).into_iter().map(|(_, text)| text).collect()
    }

    fn lines_of_texts(&mut self, entry: &Entry, key: &str) -> Vec<(usize, String)> {
        let Value::List(nodes) = &entry.node.value else {
            self.wrong_kind(&entry.node, key, "a list, such as [\"one\", \"two\"]");
            return Vec::new();
        };
        nodes.iter().filter_map(|node| Some((node.line, self.text(node, key)?))).collect()
    }

    fn http(&mut self, section: &Entry, config: &mut WebConfig) {
        for entry in self.entries(&section.node, "http_server_config", HTTP_KEYS) {
            if entry.key == "http2" {
                config.without_http2 = self.switch(entry) == Some(false);
                continue;
            }
            let names: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
            for header in self.entries(&entry.node, "http_server_config.headers", &names) {
                config.headers.extend(self.header(header));
            }
        }
    }

    fn header(&mut self, entry: &Entry) -> Option<(&'static str, String)> {
        let key = format!("http_server_config.headers.{}", entry.key);
        let text = if entry.is_nothing() { String::new() } else { self.text(&entry.node, &key)? };
        if text.is_empty() {
            return None;
        }
        let (name, allowed) = HEADERS.iter().find(|(name, _)| *name == entry.key)?;
        if !allowed.is_empty() && !allowed.contains(&text.as_str()) {
            self.problem(entry.node.line, &key, did_you_mean_one_of(&text, allowed.iter().copied()));
            return None;
        }
        if text.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            let message = "it has characters that no header may have; write printable ASCII on one line";
            self.problem(entry.node.line, &key, message.to_owned());
            return None;
        }
        Some((name, text))
    }

    fn users(&mut self, section: &Entry) -> Vec<User> {
        let entries = match &section.node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Nothing => &[],
            _ => {
                self.wrong_kind(&section.node, &section.key, "a line NAME: HASH for each user");
                &[]
            }
        };
        entries.iter().filter_map(|entry| self.user(entry)).collect()
    }

    fn user(&mut self, entry: &Entry) -> Option<User> {
        let key = format!("basic_auth_users.{}", entry.key);
        if entry.key.contains(':') {
            let message = "a name with a colon cannot be sent by basic authentication; leave the colon out";
            self.problem(entry.line, &key, message.to_owned());
            return None;
        }
        // What stands there may be a password that somebody forgot to hash: it is not repeated.
        let hash = match &entry.node.value {
            Value::Text(hash) if hash.parse::<HashParts>().is_ok() => hash.clone(),
            _ => {
                let message =
                    "this is not a bcrypt hash; write what `htpasswd -nBC 10 NAME` prints after the colon";
                self.problem(entry.node.line, &key, message.to_owned());
                return None;
            }
        };
        let cost = hash.get(4..6).and_then(|cost| cost.parse().ok()).unwrap_or(0);
        if !(COST_MIN..=COST_MAX).contains(&cost) {
            let message =
                format!("its cost is {cost}; make one with a cost from {COST_MIN} to {COST_MAX}, such as 10");
            self.problem(entry.node.line, &key, message);
            return None;
        }
        if cost > COST_SENSIBLE_MAX {
            let place = self.place(entry.line, &key);
            self.warn(
                &place,
                &format!(
                    "a cost of {cost} keeps a core busy for seconds, and a scrape may time out; 10 is usual"
                ),
            );
        }
        Some(User { name: entry.key.clone(), hash, cost })
    }

    fn rate_limit(&mut self, section: &Entry) -> Option<RateLimit> {
        let (mut interval, mut burst) = (Duration::ZERO, 0);
        let problems_before = self.problems.len();
        for entry in self.entries(&section.node, "rate_limit", RATE_KEYS) {
            match entry.key.as_str() {
                _ if entry.is_nothing() => {}
                "interval" => interval = self.interval(entry).unwrap_or_default(),
                _ => burst = self.burst(entry).unwrap_or_default(),
            }
        }
        if interval.is_zero() || self.problems.len() != problems_before {
            return None;
        }
        if burst == 0 {
            let message = "burst is missing or 0, so no request would ever be answered; write burst: 20";
            self.problem(section.line, "rate_limit", message.to_owned());
            return None;
        }
        Some(RateLimit { interval, burst })
    }

    fn interval(&mut self, entry: &Entry) -> Option<Duration> {
        let key = "rate_limit.interval";
        let wanted = "a duration such as \"1s\" or \"100ms\", or 0 for no limit";
        match &entry.node.value {
            Value::Number(number) => {
                let parsed = number.parse().ok().map(Duration::from_nanos);
                if parsed.is_none() {
                    self.problem(entry.node.line, key, format!("{number} is not a duration; write {wanted}"));
                } else if number != "0" {
                    let place = self.place(entry.line, key);
                    self.warn(
                        &place,
                        "a number without a unit counts nanoseconds; write a unit, such as \"1s\"",
                    );
                }
                parsed
            }
            Value::Text(text) => {
                let parsed = duration(text);
                if parsed.is_none() {
                    self.problem(entry.node.line, key, format!("{text:?} is not a duration; write {wanted}"));
                }
                parsed
            }
            _ => {
                self.wrong_kind(&entry.node, key, wanted);
                None
            }
        }
    }

    fn burst(&mut self, entry: &Entry) -> Option<u32> {
        let key = "rate_limit.burst";
        let wanted = "how many requests may come at once, such as 20";
        let Value::Number(number) = &entry.node.value else {
            self.wrong_kind(&entry.node, key, wanted);
            return None;
        };
        let parsed = number.parse().ok();
        if parsed.is_none() {
            self.problem(entry.node.line, key, format!("{number} is not allowed; write {wanted}"));
        }
        parsed
    }

    /// The entries of a map whose keys are known.
    fn entries<'n>(&mut self, node: &'n Node, parent: &str, known: &[&'static str]) -> Vec<&'n Entry> {
        match &node.value {
            Value::Nothing => Vec::new(),
            Value::Map(entries) => {
                entries.iter().filter(|entry| self.is_known(entry, parent, known)).collect()
            }
            _ => {
                let key = if parent.is_empty() { "web configuration" } else { parent };
                self.wrong_kind(node, key, &format!("a map with the keys {}", known.join(", ")));
                Vec::new()
            }
        }
    }

    fn is_known(&mut self, entry: &Entry, parent: &str, known: &[&'static str]) -> bool {
        let is_known = known.contains(&entry.key.as_str());
        if !is_known {
            let key = if parent.is_empty() { entry.key.clone() } else { format!("{parent}.{}", entry.key) };
            let mut remedy = did_you_mean(&entry.key, known.iter().copied());
            if remedy.is_empty() {
                remedy = format!("; there are {}", known.join(", "));
            }
            self.problem(entry.line, &key, format!("this key is not known{remedy}"));
        }
        is_known
    }

    fn text(&mut self, node: &Node, key: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            Value::Switch(on) => Some(on.to_string()),
            _ => {
                self.wrong_kind(node, key, "a text in quotes");
                None
            }
        }
    }

    fn switch(&mut self, entry: &Entry) -> Option<bool> {
        match &entry.node.value {
            Value::Switch(on) => Some(*on),
            // The spellings of YAML 1.1, which the format's first readers understand.
            Value::Text(text) if matches!(text.as_str(), "yes" | "on") => Some(true),
            Value::Text(text) if matches!(text.as_str(), "no" | "off") => Some(false),
            Value::Nothing => None,
            _ => {
                self.wrong_kind(&entry.node, &entry.key, "true or false, without quotes");
                None
            }
        }
    }

    fn wrong_kind(&mut self, node: &Node, key: &str, wanted: &str) {
        self.problem(node.line, key, format!("this is {}; write {wanted}", node.value.kind()));
    }

    fn problem(&mut self, line: usize, key: &str, message: String) {
        self.problems.push(Problem { place: self.place(line, key), message });
    }

    fn warn(&mut self, place: &Place, message: &str) {
        self.warnings.push(format!("{place}: {message}"));
    }

    fn place(&self, line: usize, key: &str) -> Place {
        Place::Key { path: self.path.to_owned(), line, key: key.to_owned() }
    }
}

impl Entry {
    fn is_nothing(&self) -> bool {
        matches!(self.node.value, Value::Nothing)
    }
}

/// A duration as Go writes it: numbers with units, one after another, such as 1m30s or 1.5s.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: &[(&str, f64)] =
        &[("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_bytes = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let unit = &rest[digits..digits + unit_bytes];
        seconds += number * UNITS.iter().find(|(name, _)| *name == unit)?.1;
        rest = &rest[digits + unit_bytes..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}
