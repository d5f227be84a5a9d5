//! The daemon that a command asks: how it is named, reached, trusted and told who asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Arg, ArgAction, ArgMatches, ValueHint, value_parser};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::trust::{self, Trust};

/// A daemon that has not answered by then is told as not answering.
const TIMEOUT: Duration = Duration::from_secs(5);
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
const UNIX_PREFIX: &str = "unix:";

/// The flags that say which daemon to ask, and how.
pub(super) fn arguments() -> Vec<Arg> {
    let file = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name(value)
            .value_hint(ValueHint::FilePath)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    vec![
        Arg::new("server")
            .long("server")
            .value_name("URL")
            .value_hint(ValueHint::Url)
            .env("TTMEM_SERVER")
            .hide_env_values(true)
            .default_value("http://127.0.0.1:8080")
            .help("Where the daemon serves HTTP: http://, https:// or unix:PATH"),
        file(
            "ca-file",
            "FILE",
            "Authorities that may vouch for the daemon, in PEM; the system's if not said",
        )
        .env("TTMEM_CA_FILE")
        .hide_env_values(true),
        Arg::new("insecure")
            .long("insecure")
            .action(ArgAction::SetTrue)
            .conflicts_with("ca-file")
            .help("Accept any certificate of the daemon"),
        file("cert-file", "FILE", "Certificate to show to the daemon, in PEM").requires("key-file"),
        file("key-file", "FILE", "Its private key, in PEM").requires("cert-file"),
        Arg::new("user")
            .long("user")
            .value_name("NAME")
            .env("TTMEM_USER")
            .hide_env_values(true)
            .requires("password-file")
            .help("User to ask as"),
        file("password-file", "FILE", "File with that user's password on its first line")
            .env("TTMEM_PASSWORD_FILE")
            .hide_env_values(true),
    ]
}

/// What a daemon says when it cannot answer.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// A daemon.
pub struct Server {
    name: String,
    place: Place,
    authorization: Option<HeaderValue>,
}

enum Place {
    Unix(PathBuf),
    Network { host: String, port: u16, authority: String, tls: Option<Tls> },
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Server {
    /// The daemon that the flags name.
    pub fn new(matches: &ArgMatches) -> anyhow::Result<Server> {
        let name = matches.get_one::<String>("server").cloned().unwrap_or_default();
        let place = match name.strip_prefix(UNIX_PREFIX) {
            Some(path) => Place::Unix(PathBuf::from(path)),
            None => network(&name, matches)?,
        };
        let path = |name: &str| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
        let user = matches.get_one::<String>("user");
        let authorization =
            user.zip(path("password-file")).map(|(user, file)| basic(user, file)).transpose()?;
        Ok(Server { name, place, authorization })
    }

    /// Asks for several paths, one after another, while there is patience.
    pub async fn ask<T>(&self, asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                bail!("{} has not answered within {} s; is it a ttmem daemon?", self.name, TIMEOUT.as_secs())
            }
        }
    }

    /// What a path says.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        match &self.place {
            Place::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.with_context(|| {
                    format!("no daemon answers at {}; name another with --server", socket.display())
                })?;
                self.get_over(stream, "ttmem", path).await
            }
            Place::Network { host, port, authority, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.with_context(|| {
                    format!(
                        "no daemon answers at {host}:{port}; start one with `ttmem serve`, or name another with \
                         --server"
                    )
                })?;
                match tls {
                    None => self.get_over(stream, authority, path).await,
                    Some(Tls { connector, name }) => {
                        let connected = connector.connect(name.clone(), stream).await;
                        let stream = connected.map_err(|error| trust::explain(&error, &self.name, host))?;
                        self.get_over(stream, authority, path).await
                    }
                }
            }
        }
    }

    async fn get_over<T: DeserializeOwned>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        authority: &str,
        path: &str,
    ) -> anyhow::Result<T> {
        let broke = || format!("{}: the connection broke", self.name);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let response = sender.send_request(request).await.with_context(broke)?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(broke)?.to_bytes();
        let detail = serde_json::from_slice(&body).ok().map(|Problem { detail }| detail);
        match status {
            StatusCode::UNAUTHORIZED if self.authorization.is_none() => {
                bail!("{}: it wants to know who asks; say it with --user and --password-file", self.name)
            }
            StatusCode::UNAUTHORIZED => bail!("{}: the user or the password is wrong", self.name),
            StatusCode::BAD_REQUEST if body.starts_with(b"This port speaks HTTPS") => {
                bail!("{}: it speaks HTTPS; write https:// in --server", self.name)
            }
            status if !status.is_success() && detail.is_some() => {
                bail!("{}: {}", self.name, detail.unwrap_or_default())
            }
            status if !status.is_success() => bail!(
                "{}: {path} was answered with {status}; is it a ttmem daemon of this version?",
                self.name
            ),
            _ => serde_json::from_slice(&body).with_context(|| {
                format!("{}: {path} is not what a ttmem daemon of this version says", self.name)
            }),
        }
    }
}

fn network(url: &str, matches: &ArgMatches) -> anyhow::Result<Place> {
    let uri: Option<Uri> = url.parse().ok();
    let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host()?, uri.authority()?)));
    let Some((scheme @ ("http" | "https"), host, authority)) = parts else {
        bail!(
            "--server: {url:?} is not a URL that can be asked; write it as http://HOST:PORT, https://HOST:PORT or \
             unix:PATH"
        );
    };
    if authority.as_str().contains('@') {
        bail!(
            "--server: everybody on this host can read a password in a URL; use --user and --password-file"
        );
    }
    let host = host.trim_matches(['[', ']']).to_owned();
    let is_tls = scheme == "https";
    let port = authority.port_u16().unwrap_or(if is_tls { HTTPS_PORT } else { HTTP_PORT });
    let path = |name: &str| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
    let trust = match path("ca-file") {
        _ if matches.get_flag("insecure") => Trust::Anybody,
        Some(file) => Trust::File(file),
        None => Trust::System,
    };
    let tls = if is_tls {
        let config = trust::client_config(trust, path("cert-file").zip(path("key-file")))?;
        let name = ServerName::try_from(host.clone())
            .with_context(|| format!("--server: {host:?} is not a name that a certificate can have"))?;
        Some(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    } else {
        None
    };
    Ok(Place::Network { host, port, authority: authority.to_string(), tls })
}

fn basic(user: &str, password_file: &Path) -> anyhow::Result<HeaderValue> {
    let content = fs::read_to_string(password_file)
        .with_context(|| format!("--password-file: {} cannot be read", password_file.display()))?;
    let password = content.lines().next().unwrap_or_default();
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))?;
    value.set_sensitive(true);
    Ok(value)
}
