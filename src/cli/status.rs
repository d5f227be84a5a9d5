//! `ttmem status`: reads the stats page of a daemon on this host, or asks a daemon over HTTP, and shows what it says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use ttmem_client::Monitor;

use super::screen::{self, Style};
use super::server::Server;
use super::{pages, print, standing};
use crate::clock;
use crate::views::findings::{Leak, Leaks};
use crate::views::json::daemon::Daemon;
use crate::views::json::{Devices, Processes};

/// How long what only the daemon can tell is waited for, where the stats pages have shown all else.
const STANDING_TIMEOUT: Duration = Duration::from_millis(500);

/// Back to the top left, and the rest of the screen cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What to ask, and how to show it.
pub struct StatusOptions {
    /// The daemon, where it is asked.
    pub server: Server,
    /// Where to look first, if anywhere.
    pub pages: Option<PageSource>,
    /// How often to ask again; once if not given.
    pub watch: Option<Duration>,
    /// JSON in place of tables.
    pub json: bool,
}

/// A daemon on this host.
pub struct PageSource {
    /// Its socket.
    pub socket: PathBuf,
    /// Whether no other daemon is meant.
    pub is_only: bool,
}

/// What a daemon says.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    devices: Devices,
    processes: Vec<crate::views::json::Process>,
    /// What only the daemon can tell; absent where it was not asked, or does not know the question.
    #[serde(flatten)]
    standing: Option<Standing>,
}

/// What is suspected, and how the daemon itself does.
#[derive(Serialize)]
struct Standing {
    leaks: Vec<Leak>,
    daemon: Daemon,
}

impl Status {
    /// Whether all that can be shown is here: who holds a device open and reports nothing is named by the API alone.
    fn is_complete(&self) -> bool {
        let untracked = self.devices.devices.iter().filter_map(|device| device.untracked.as_ref());
        untracked.into_iter().all(|untracked| untracked.processes == 0 || !untracked.named.is_empty())
    }
}

/// Shows the status once, or again and again.
pub fn run(options: &StatusOptions) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let mut failures = 0;
    let mut monitor = None;
    loop {
        let told = match look(&mut monitor, options) {
            seen if options.pages.as_ref().is_some_and(|pages| pages.is_only) => seen,
            Ok(mut status) if status.is_complete() => {
                status.standing = runtime.block_on(ask_standing(&options.server));
                Ok(status)
            }
            seen => runtime.block_on(ask(&options.server)).or_else(|unanswered| seen.map_err(|_| unanswered)),
        };
        let shown = told.and_then(|status| show(&status, options));
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
    let mut text = screen::render(&status.devices, &status.processes, &style);
    if let Some(Standing { leaks, daemon }) = &status.standing {
        text += &standing::render(leaks, daemon, &style);
    }
    if options.watch.is_some() && style.is_terminal {
        print(&(CLEAR.to_owned() + &text))
    } else {
        print(&text)
    }
}

/// Reads the stats pages, which are mapped once and again when their daemon has ended.
fn look(monitor: &mut Option<Monitor>, options: &StatusOptions) -> anyhow::Result<Status> {
    let source = options.pages.as_ref().context("no stats page is wanted")?;
    let named = || source.socket.display().to_string();
    if !monitor.as_ref().is_some_and(Monitor::is_connected) {
        *monitor = Some(Monitor::connect(&source.socket).with_context(named)?);
    }
    let seen = monitor.as_ref().and_then(|monitor| pages::read(monitor, clock::unix_ns() as f64 / 1e9));
    let (devices, processes) = seen.with_context(|| {
        format!("{}: the stats page does not show all; ask with --server http://127.0.0.1:8080", named())
    })?;
    Ok(Status { devices, processes, standing: None })
}

async fn ask(server: &Server) -> anyhow::Result<Status> {
    let asked = async {
        let devices: Devices = server.get("/api/v1/devices").await?;
        let processes: Processes = server.get("/api/v1/processes").await?;
        Ok(Status { devices, processes: processes.processes, standing: ask_standing(server).await })
    };
    server.ask(asked).await
}

/// What goes beyond the pages. It is not worth an error: the daemon may be an older one, or serve no HTTP where it is asked.
async fn ask_standing(server: &Server) -> Option<Standing> {
    let asked = async {
        let Leaks { leaks, .. } = server.get("/api/v1/leaks").await?;
        let daemon = server.get("/api/v1/daemon").await?;
        anyhow::Ok(Standing { leaks, daemon })
    };
    tokio::time::timeout(STANDING_TIMEOUT, asked).await.ok()?.ok()
}
