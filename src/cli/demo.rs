//! `ttmem demo`: several real processes that report over the real socket what a busy host would, without a device.
//!
//! The idea is that everything a daemon has to cope with can be watched within a minute: a model being loaded and served, a training
//! run, a notebook that leaks, a process that is killed, and the three frame layouts with the habits of their clients. Each worker is
//! this binary again, started with `--worker`.

mod holdings;
mod reporter;
mod supervisor;
mod worker;
mod workload;

pub use supervisor::Demo;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, ValueHint, builder::PossibleValuesParser, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use supervisor::Narration;
use worker::Role;

/// Devices that a demo can pretend to: as many as the largest hosts of the field have.
const DEVICES_MAX: i64 = 32;

/// The `demo` subcommand.
pub fn command() -> Command {
    let socket = Arg::new("socket")
        .long("socket")
        .value_name("PATH")
        .value_hint(ValueHint::FilePath)
        .value_parser(value_parser!(PathBuf))
        .env("TTMEM_SOCKET")
        .hide_env_values(true)
        .default_value(ttmem_wire::DEFAULT_SOCKET_PATH)
        .help("The socket of the daemon");
    let seconds = Arg::new("seconds")
        .long("seconds")
        .value_name("COUNT")
        .value_parser(value_parser!(u64).range(1..))
        .help("End after so many seconds; until interrupted if not said");
    let devices = Arg::new("devices")
        .long("devices")
        .value_name("COUNT")
        .value_parser(value_parser!(u16).range(1..=DEVICES_MAX))
        .default_value("2")
        .help("How many n150 to pretend to");
    let worker = Arg::new("worker")
        .long("worker")
        .hide(true)
        .value_parser(PossibleValuesParser::new(Role::ALL.iter().map(|role| role.name())));
    Command::new("demo")
        .about("Report a workload of real processes to a running daemon")
        .long_about(
            "Starts processes that report to a running daemon as the clients of the field do: one loads a \
             language model and serves it, one trains, one leaks, one is killed every 20 seconds. No device \
             is touched, and the memory they claim would fit on n150 boards.",
        )
        .after_help(
            "Examples:\n  \
             ttmem demo\n  \
             ttmem demo --seconds 60 --devices 4\n  \
             ttmem serve --demo                     the daemon and the demo in one",
        )
        .args([socket, seconds, devices, worker])
}

/// Runs the demo until it is interrupted or its time is over; or one of its workers.
pub fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let socket: &PathBuf = matches.get_one("socket").context("--socket is missing")?;
    let devices = matches.get_one("devices").copied().unwrap_or(1);
    if let Some(role) = matches.get_one::<String>("worker").and_then(|name| Role::named(name)) {
        return worker::run(role, socket, devices);
    }
    expect_daemon(socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The signals are caught before there is anything to clean up.
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let demo = Demo::start_with(socket, devices, Narration::Printed)?;
    let seconds = matches.get_one::<u64>("seconds").copied().map_or(Duration::MAX, Duration::from_secs);
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tokio::time::sleep(seconds) => {}
        }
    });
    demo.stop();
    Ok(())
}

/// Without a daemon the workers would wait for one, which looks as if nothing happened.
fn expect_daemon(socket: &Path) -> anyhow::Result<()> {
    UnixStream::connect(socket).map(drop).with_context(|| {
        format!(
            "no daemon answers at {path}; start one with `ttmem serve --socket {path}`",
            path = socket.display()
        )
    })
}
