//! `ttmem status`: asks a daemon over HTTP and shows what it says.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;

use super::print;
use super::screen::{self, Style};
use crate::views::json::{Devices, Processes};

/// A daemon that has not answered by then is told as not answering.
const TIMEOUT: Duration = Duration::from_secs(5);
const PORT_DEFAULT: u16 = 80;
/// Back to the top left, and the rest of the screen cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What to ask, and how to show it.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    /// The daemon's URL.
    pub server: String,
    /// How often to ask again; once if not given.
    pub watch: Option<Duration>,
    /// JSON in place of tables.
    pub json: bool,
}

/// What a daemon says.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    devices: Devices,
    processes: Vec<crate::views::json::Process>,
}

/// Shows the status once, or again and again.
pub fn run(options: &StatusOptions) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let mut failures = 0;
    loop {
        let shown = runtime.block_on(ask(&options.server)).and_then(|status| show(&status, options));
        match (shown, options.watch) {
            (shown, None) => return shown,
            (Ok(()), Some(_)) => failures = 0,
            // Somebody who watches wants to see the daemon come back; one that was never there is an error.
            (Err(error), Some(_)) if failures > 0 || is_output_closed(&error) => return Err(error),
            (Err(error), Some(_)) => {
                failures += 1;
                print(&format!("{error:#}\n"))?;
            }
        }
        std::thread::sleep(options.watch.unwrap_or_default());
    }
}

fn is_output_closed(error: &anyhow::Error) -> bool {
    error.is::<super::OutputClosed>()
}

fn show(status: &Status, options: &StatusOptions) -> anyhow::Result<()> {
    if options.json {
        return print(&(serde_json::to_string(status)? + "\n"));
    }
    let style = Style::of_terminal();
    let text = screen::render(&status.devices, &status.processes, &style);
    if options.watch.is_some() && style.is_terminal {
        print(&(CLEAR.to_owned() + &text))
    } else {
        print(&text)
    }
}

async fn ask(server: &str) -> anyhow::Result<Status> {
    let uri: Uri = server.parse().ok().filter(is_http).with_context(|| {
        format!("--server: {server:?} is not a URL that can be asked; write it as http://HOST:PORT")
    })?;
    let asked = async {
        let devices: Devices = get(&uri, "/api/v1/devices").await?;
        let processes: Processes = get(&uri, "/api/v1/processes").await?;
        Ok(Status { devices, processes: processes.processes })
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(status) => status,
        Err(_) => bail!("{server} has not answered within {} s; is it a ttmem daemon?", TIMEOUT.as_secs()),
    }
}

fn is_http(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http") && uri.host().is_some()
}

async fn get<T: DeserializeOwned>(server: &Uri, path: &str) -> anyhow::Result<T> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = server.port_u16().unwrap_or(PORT_DEFAULT);
    let stream = TcpStream::connect((host, port)).await.with_context(|| {
        format!(
            "no daemon answers at {host}:{port}; start one with `ttmem serve`, or name another with --server"
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let authority = server.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header(hyper::header::HOST, authority).body(Empty::<Bytes>::new())?;
    let response =
        sender.send_request(request).await.with_context(|| format!("{server}: the connection broke"))?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .with_context(|| format!("{server}: the connection broke"))?
        .to_bytes();
    if !status.is_success() {
        bail!("{server}: {path} was answered with {status}; is it a ttmem daemon of this version?");
    }
    serde_json::from_slice(&body)
        .with_context(|| format!("{server}: {path} is not what a ttmem daemon of this version says"))
}
