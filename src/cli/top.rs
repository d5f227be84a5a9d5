//! `ttmem top`: devices, processes and their buffers on a whole screen that is kept up to date, with the keys of htop.
//!
//! The idea is that a model takes keys and news, that a pure function draws it, and that what touches the world is small: `source` asks the
//! daemon on a thread of its own, `terminal` takes the terminal over and gives it back.

mod columns;
mod details;
mod draw;
mod input;
#[cfg(test)]
mod invented;
mod keys;
mod list;
mod look;
mod model;
mod news;
mod places;
mod rows;
mod samples;
mod source;
mod terminal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ratatui::crossterm::event::{self, Event as Input};
use ratatui::layout::Rect;
use tokio::sync::watch;

use super::server::{self, Server};
use crate::clock;
use model::{Model, Wish};
use news::News;
use source::Source;
use terminal::Screen;

/// Events that wait for the screen to be drawn; who has more waits too.
const EVENTS_MAX: usize = 64;
/// The clock on the screen goes on when nothing else happens.
const TICK: Duration = Duration::from_secs(1);

/// The command; `socket` says where a daemon on this host is found.
pub(super) fn command(socket: Arg) -> Command {
    let interval = Arg::new("interval")
        .long("interval")
        .value_name("SECONDS")
        .default_value("1")
        .value_parser(value_parser!(u64).range(1..=3600))
        .help("Look again every so many seconds");
    let mouse = Arg::new("mouse")
        .long("mouse")
        .action(ArgAction::SetTrue)
        .help("Take the mouse from the start; the key m does it too");
    Command::new("top")
        .about("Show devices, processes and buffers on a whole screen")
        .long_about(
            "Shows devices with bars and sparklines, the processes that hold their memory, and the buffers of each, on a \
             whole screen that is kept up to date. The keys are those of htop; F1 shows them.\n\n\
             A daemon on this host is not asked for devices and processes: they are read from its stats pages, which \
             its socket hands out. Buffers, suspected leaks and what was so before come over HTTP, from --server. Where \
             --server is said and --socket is not, everything does.",
        )
        .after_help(
            "Examples:\n  \
             ttmem top\n  \
             ttmem top --server http://host7:8080 --interval 5\n  \
             ttmem top --server https://host7:8080 --ca-file ca.crt --user me --password-file secret\n  \
             NO_COLOR=1 ttmem top",
        )
        .args(server::arguments())
        .args([socket, interval, mouse])
}

/// Something for the screen's thread.
#[derive(Clone)]
enum Event {
    Input(Input),
    News(News),
    Suspend,
    /// Somebody has let the process go on after a stop.
    Resumed,
    Quit,
}

/// Where events go.
#[derive(Clone)]
struct Events(SyncSender<Event>);

impl Events {
    /// Whoever is not heard any more is about to end with the program.
    fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

/// Shows it until the operator has seen enough.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let source = source_of(matches)?;
    let interval_seconds = source.interval.as_secs_f64();
    let (events, inbox) = sync_channel(EVENTS_MAX);
    let events = Events(events);
    let mut screen = Screen::open()?;
    let (width, height) = Screen::size()?;
    let mut model = Model::new(Rect { x: 0, y: 0, width, height }, interval_seconds, now());
    let (wanted, wishes) = watch::channel(model.wanted());
    source::start(source, wishes, events.clone())?;
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || read_keys(&events))
        .context("cannot start a thread")?;
    if matches.get_flag("mouse") {
        model.has_mouse = true;
        screen.set_mouse(true)?;
    }
    show(&mut screen, &mut model, &inbox, &wanted)
}

/// Whoever names a server wants that one, unless a socket is named beside it.
fn source_of(matches: &ArgMatches) -> anyhow::Result<Source> {
    let is_said =
        |name: &str| matches.value_source(name).is_some_and(|source| source != ValueSource::DefaultValue);
    let is_socket_named = matches.value_source("socket") == Some(ValueSource::CommandLine);
    let socket = matches.get_one::<PathBuf>("socket").filter(|_| is_socket_named || !is_said("server"));
    Ok(Source {
        server: Server::new(matches)?,
        socket: socket.cloned(),
        is_socket_only: is_socket_named,
        interval: Duration::from_secs(matches.get_one("interval").copied().unwrap_or(1)),
    })
}

fn read_keys(events: &Events) {
    loop {
        match event::read() {
            Ok(input) => events.send(Event::Input(input)),
            // The terminal is gone.
            Err(_) => return events.send(Event::Quit),
        }
    }
}

fn show(
    screen: &mut Screen,
    model: &mut Model,
    inbox: &Receiver<Event>,
    wanted: &watch::Sender<news::Wanted>,
) -> anyhow::Result<()> {
    loop {
        screen.draw(model)?;
        let first = match inbox.recv_timeout(TICK) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        model.now = now();
        // What has come meanwhile is drawn at once: a key that is held down never runs ahead of the screen.
        for event in first.into_iter().chain(inbox.try_iter().take(EVENTS_MAX)) {
            let wish = match event {
                Event::Input(Input::Key(key)) if !key.is_release() => model.press(key),
                Event::Input(Input::Mouse(event)) => model.point(event),
                Event::Input(Input::Resize(width, height)) => {
                    model.resize(width, height);
                    Wish::Nothing
                }
                Event::Input(_) => Wish::Nothing,
                Event::News(news) => {
                    model.hear(news);
                    Wish::Nothing
                }
                Event::Suspend => Wish::Suspend,
                Event::Resumed => {
                    screen.take_over_again()?;
                    let (width, height) = Screen::size()?;
                    model.resize(width, height);
                    Wish::Nothing
                }
                Event::Quit => Wish::Quit,
            };
            match wish {
                Wish::Nothing => {}
                Wish::Quit => return Ok(()),
                Wish::Suspend => screen.suspend()?,
                Wish::Redraw => screen.redraw()?,
                Wish::Mouse(has_mouse) => screen.set_mouse(has_mouse)?,
            }
        }
        wanted.send_if_modified(|before| {
            let after = model.wanted();
            let is_new = *before != after;
            *before = after;
            is_new
        });
    }
}

fn now() -> f64 {
    clock::unix_ns() as f64 / 1e9
}
