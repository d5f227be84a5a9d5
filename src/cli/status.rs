//! `ttmem status`: asks a daemon over HTTP and shows what it says.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::print;
use super::screen::{self, Style};
use super::server::Server;
use crate::views::json::{Devices, Processes};

/// Back to the top left, and the rest of the screen cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What to ask, and how to show it.
pub struct StatusOptions {
    /// The daemon.
    pub server: Server,
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

async fn ask(server: &Server) -> anyhow::Result<Status> {
    let asked = async {
        let devices: Devices = server.get("/api/v1/devices").await?;
        let processes: Processes = server.get("/api/v1/processes").await?;
        Ok(Status { devices, processes: processes.processes })
    };
    server.ask(asked).await
}
