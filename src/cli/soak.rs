//! `ttmem soak`: processes, devices, restarts and faults drawn from a seed, against the real daemon, beside a model that knows what it must say.
//!
//! The idea is that one place decides everything. The processes are real ones that do as they are told; the model is told the same; and
//! whenever all is read, each figure that the daemon shows is compared with the model's. No decision depends on the clock, so a seed that
//! fails fails again.

mod chart;
mod drill;
mod fleet;
mod http;
mod model;
mod plan;
mod report;
mod scraper;
mod supervisor;
mod tally;
mod told;
mod worker;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};

use drill::Drill;

/// How long it lasts if nothing is said.
const DURATION_DEFAULT: &str = "10m";
/// How often it says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// What durations end with, in seconds.
const UNITS: [(char, u64); 3] = [('s', 1), ('m', 60), ('h', 3600)];

/// The `soak` subcommand.
pub(super) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("NUMBER").value_parser(value_parser!(u64)).help(help)
    };
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("FILE")
            .value_hint(ValueHint::FilePath)
            .value_parser(value_parser!(PathBuf))
            .help(help)
    };
    let hidden = |name: &'static str| Arg::new(name).long(name).hide(true);
    Command::new("soak")
        .about("Put a daemon of its own under random processes, faults and restarts")
        .long_about(
            "Starts a daemon of its own in a temporary directory, and processes that report to it in every way that \
             there is. They and the daemon are killed, stopped, started again and flooded, in an order that follows \
             from the seed, and what the daemon says is compared with a model again and again. The first difference \
             ends the run with exit code 1, the seed, and what happened last.",
        )
        .after_help(
            "Examples:\n  \
             ttmem soak\n  \
             ttmem soak --duration 1h --report soak.json --chart soak.svg\n  \
             ttmem soak --seed 42 --operations 500      the same again",
        )
        .args([
            number("seed", "What all that happens follows from").default_value("1"),
            Arg::new("duration")
                .long("duration")
                .value_name("DURATION")
                .value_parser(duration)
                .default_value(DURATION_DEFAULT)
                .help("How long: a number and s, m or h"),
            number("operations", "End after so many operations instead").conflicts_with("duration"),
            file("report", "Write figures as JSON"),
            file("chart", "Draw the daemon's memory over time, as SVG"),
            hidden("role"),
            hidden("socket").value_parser(value_parser!(PathBuf)),
            hidden("directory").value_parser(value_parser!(PathBuf)),
            hidden("descriptors"),
        ])
}

/// Runs the soak, or one of its processes.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let path = |name: &str| matches.get_one::<PathBuf>(name);
    match matches.get_one::<String>("role").map(String::as_str) {
        None => {}
        Some("heir") => return worker::inherit(),
        Some("worker") => return worker::run(path("socket").context("a worker needs --socket")?),
        Some("daemon") => {
            let descriptors: &String = matches.get_one("descriptors").context("--descriptors is missing")?;
            return supervisor::become_daemon(
                path("directory").context("--directory is missing")?,
                descriptors,
            );
        }
        Some(role) => bail!("there is no role {role}"),
    }
    let seed = matches.get_one("seed").copied().unwrap_or(1);
    let end = match matches.get_one("operations") {
        Some(operations) => End::Operations(*operations),
        None => End::Elapsed(matches.get_one("duration").copied().unwrap_or_default()),
    };
    let directory = std::env::temp_dir().join(format!("ttmem-soak-{}", std::process::id()));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let mut drill = Drill::start(&directory, seed)?;
    if let Err(error) = go(&mut drill, end) {
        let log = directory.join("log");
        bail!(
            "{error:#}\nseed {seed}, after {} operations, the last of which were:\n{}the daemon's log is {}",
            drill.tally.operations,
            drill.recent(),
            log.display()
        );
    }
    let tally = &drill.tally;
    if let Some(path) = path("report") {
        let text = serde_json::to_string_pretty(&tally.json(seed))? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = path("chart") {
        fs::write(path, chart::draw(tally.resident_over_time()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    super::print(&tally.table(seed))?;
    drop(drill);
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))
}

/// When a run is long enough.
#[derive(Clone, Copy)]
enum End {
    Operations(u64),
    Elapsed(Duration),
}

fn go(drill: &mut Drill, end: End) -> anyhow::Result<()> {
    let mut told_at = Duration::ZERO;
    loop {
        let elapsed = drill.tally.elapsed();
        let is_over = match end {
            End::Operations(operations) => drill.tally.operations >= operations,
            End::Elapsed(duration) => elapsed >= duration,
        };
        if is_over {
            return drill.finish();
        }
        drill.step()?;
        if elapsed >= told_at + PROGRESS_INTERVAL {
            told_at = elapsed;
            eprintln!("{}", drill.tally.progress());
        }
    }
}

/// A duration as it is written on the command line.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = UNITS.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
    });
    parsed.ok_or_else(|| "write it as a number and s, m or h, as in 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text}");
        };
        check("90s", Some(90));
        check("10m", Some(600));
        check("1h", Some(3600));
        for wrong in ["", "10", "m", "0s", "-1s", "1d", "99999999999999999999h", "9999999999999999999h"] {
            check(wrong, None);
        }
    }
}
