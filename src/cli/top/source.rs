//! Where news come from: the stats pages of a daemon on this host, or HTTP; buffers, leaks and the past always over HTTP.
//!
//! The idea is that all of it runs on a thread of its own, so that the screen answers keys while a daemon does not answer.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use ttmem_client::Monitor;

use super::details::Details;
use super::news::{News, Picture, Wanted};
use super::{Event, Events};
use crate::cli::pages;
use crate::cli::server::Server;
use crate::clock;
use crate::views::findings::Leaks;
use crate::views::json::history::Range;
use crate::views::json::{Buffers, Devices, Processes};

/// How often the analysis says something new. What the stats pages leave out is asked for as often.
const FINDINGS_INTERVAL: Duration = Duration::from_secs(10);
/// How often the buffers of a process are asked for: an answer can have two megabytes.
const BUFFERS_INTERVAL: Duration = Duration::from_secs(2);
/// Buffers that are asked for: the most that a daemon tells at once.
const BUFFERS_MAX: u32 = 10_000;
/// Looks of the past that sparklines begin with, and series: as many points as a daemon tells at once, nearly.
const PAST_LOOKS: u64 = 200;
const PAST_SERIES: u64 = 450;
/// A page looks the same when its daemon has stopped working, so the daemon is asked for it anew now and then.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Whom to ask.
pub(super) struct Source {
    pub(super) server: Server,
    /// The socket of a daemon on this host.
    pub(super) socket: Option<PathBuf>,
    /// Whether no other daemon is meant than the socket's, even where it does not answer.
    pub(super) is_socket_only: bool,
    pub(super) interval: Duration,
}

/// Follows a daemon on a thread of its own.
pub(super) fn start(source: Source, wanted: watch::Receiver<Wanted>, events: Events) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let follow = move || {
        runtime.block_on(async {
            let mut pages = Pages::default();
            tokio::join!(
                pictures(&source, &mut pages, &events),
                buffers(&source.server, wanted, &events),
                findings(&source, &events),
                past(&source, &events),
                signals(&events),
            );
        });
    };
    std::thread::Builder::new().name("source".to_owned()).spawn(follow).context("cannot start a thread")?;
    Ok(())
}

async fn pictures(source: &Source, pages: &mut Pages, events: &Events) {
    let mut ticks = interval(source.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let news = match look(source, pages).await {
            Ok(picture) => News::Picture(Box::new(picture)),
            Err(error) => News::Lost(format!("{error:#}")),
        };
        events.send(Event::News(news));
    }
}

/// The stats pages, and HTTP where they are not to be had, as `ttmem status` does it.
async fn look(source: &Source, pages: &mut Pages) -> anyhow::Result<Picture> {
    let seen = source.socket.as_ref().map(|socket| pages.read(socket));
    match seen {
        Some(Ok(picture)) => Ok(picture),
        Some(Err(error)) if source.is_socket_only => Err(error),
        _ => ask(&source.server).await,
    }
}

async fn ask(server: &Server) -> anyhow::Result<Picture> {
    let asked = async {
        let devices: Devices = server.get("/api/v1/devices").await?;
        let Processes { processes, .. } = server.get("/api/v1/processes").await?;
        Ok(Picture { devices, processes, source: server.name().to_owned(), doubt: None })
    };
    server.ask(asked).await
}

/// The stats pages of a daemon, as long as it lives.
#[derive(Default)]
struct Pages {
    monitor: Option<Monitor>,
    /// When the daemon was last asked for them, and what was wrong then.
    asked: Option<Instant>,
    doubt: Option<String>,
}

impl Pages {
    fn read(&mut self, socket: &PathBuf) -> anyhow::Result<Picture> {
        let named = || socket.display().to_string();
        self.monitor.take_if(|monitor| !monitor.is_connected());
        if self.monitor.is_none() || self.asked.is_none_or(|asked| asked.elapsed() >= PROBE_INTERVAL) {
            self.asked = Some(Instant::now());
            match (Monitor::connect(socket), &self.monitor) {
                (Ok(monitor), _) => {
                    self.monitor = Some(monitor);
                    self.doubt = None;
                }
                (Err(error), None) => return Err(error).with_context(named),
                (Err(error), Some(_)) => self.doubt = Some(error.to_string()),
            }
        }
        let now = clock::unix_ns() as f64 / 1e9;
        let seen = self.monitor.as_ref().and_then(|monitor| pages::read(monitor, now));
        let (devices, processes) = seen.with_context(|| {
            format!("{}: the stats page does not show all; name the daemon with --server", named())
        })?;
        Ok(Picture { devices, processes, source: named(), doubt: self.doubt.clone() })
    }
}

/// Tells the buffers of whichever process is wanted, at once and then again and again.
async fn buffers(server: &Server, mut wanted: watch::Receiver<Wanted>, events: &Events) {
    loop {
        let pid = wanted.borrow_and_update().buffers_of;
        if let Some(pid) = pid {
            let path = format!("/api/v1/buffers?pid={pid}&limit={BUFFERS_MAX}");
            let told = server.ask(server.get::<Buffers>(&path)).await;
            events.send(Event::News(News::Buffers { pid, told: told.map_err(|error| format!("{error:#}")) }));
        }
        let pause = async {
            match pid {
                Some(_) => tokio::time::sleep(BUFFERS_INTERVAL).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

/// Tells what is suspected; and, where pictures come from the stats pages, what those leave out.
async fn findings(source: &Source, events: &Events) {
    let server = &source.server;
    let mut ticks = interval(FINDINGS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let told = server.ask(server.get::<Leaks>("/api/v1/leaks")).await;
        let is_answered = told.is_ok();
        let told = told.map(|told| told.leaks).map_err(|error| format!("{error:#}"));
        events.send(Event::News(News::Leaks(told)));
        if is_answered
            && source.socket.is_some()
            && let Ok(Picture { devices, processes, .. }) = ask(server).await
        {
            events.send(Event::News(News::Details(Details::of(devices.devices, processes))));
        }
    }
}

/// What the daemon remembers, where it keeps a history: sparklines begin with that.
async fn past(source: &Source, events: &Events) {
    let step = source.interval.as_secs();
    let now = clock::unix_ns() / 1_000_000_000;
    let start = now.saturating_sub(step * PAST_LOOKS);
    let path = format!("/api/v1/range?start={start}&end={now}&step={step}&limit={PAST_SERIES}");
    // Most daemons keep none, and one that does not answer is told of with the leaks.
    let Ok(past) = source.server.ask(source.server.get::<Range>(&path)).await else { return };
    // Where it keeps only coarser points they would lie about time.
    if past.step_seconds == step as f64 {
        events.send(Event::News(News::Past(past)));
    }
}

/// What ends the program, stops it or lets it go on.
async fn signals(events: &Events) {
    let stop = SignalKind::from_raw(libc::SIGTSTP);
    let go_on = SignalKind::from_raw(libc::SIGCONT);
    let listened = [
        (SignalKind::terminate(), Event::Quit),
        (SignalKind::hangup(), Event::Quit),
        (SignalKind::interrupt(), Event::Quit),
        (SignalKind::quit(), Event::Quit),
        (stop, Event::Suspend),
        (go_on, Event::Resumed),
    ];
    for (kind, event) in listened {
        // Without a handler the signal does what it does by itself.
        let Ok(mut arrivals) = signal(kind) else { continue };
        let events = events.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                events.send(event.clone());
            }
        });
    }
}
