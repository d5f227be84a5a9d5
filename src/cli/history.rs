//! `ttmem history`: what was, from a daemon or straight from its database, as a table or for another program.

mod lines;
mod times;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::server::{self, Server};
use super::{UsageError, print};
use crate::clock;
use crate::sinks::history::{Archive, EventRequest, OpenArchive, RangeRequest};
use crate::views::json::history::{Events, Range};
use lines::Format;
use times::moment;

/// Rows of a table for each series: what a screen shows.
const TABLE_STEPS: f64 = 40.0;
/// Rows of an export for each series, below what a daemon answers at once.
const EXPORT_STEPS: f64 = 10_000.0;
/// Events in a page.
const EVENTS_PER_PAGE: u32 = 1000;

/// The command.
pub(super) fn command() -> Command {
    let value = |name: &'static str, value_name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value_name).help(help)
    };
    let state_dir = value("state-dir", "DIR", "Read the database in this directory and ask no daemon")
        .value_hint(ValueHint::DirPath)
        .value_parser(value_parser!(PathBuf))
        .conflicts_with("server");
    let events = Arg::new("events")
        .long("events")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["series", "step", "memory-type", "by"])
        .help("Show what happened in place of how much was held");
    Command::new("history")
        .about("Show what was: memory over time, and events")
        .long_about(
            "Shows how much memory devices or processes held over a time, or what happened then. A daemon keeps this where \
             it was given a --state-dir. Each row has the lowest, the mean and the highest value of its time; a gap is \
             shown where nothing is known.\n\n\
             Times are said as seconds since the epoch, as 2026-11-22T08:00:00Z, or as how long ago: 90s, 30m, 2h, 7d.",
        )
        .after_help(
            "Examples:\n  \
             ttmem history --since 2h --device 0\n  \
             ttmem history --by process --memory-type dram --since 30m\n  \
             ttmem history --events --since 1d\n  \
             ttmem history --state-dir /var/lib/ttmem --since 7d --format csv > week.csv",
        )
        .args(server::arguments())
        .args([
            state_dir,
            events,
            value("series", "NAME", "memory_usage, memory_peak, buffers, allocated_bytes, freed_bytes, allocations or frees")
                .default_value("memory_usage"),
            value("by", "WHAT", "device, or process to tell processes apart; process if --pid is said")
                .value_parser(["device", "process"]),
            value("device", "INDEX", "Only this device").value_parser(value_parser!(u16)),
            value("memory-type", "TYPE", "Only this type of memory"),
            value("pid", "PID", "Only this process").value_parser(value_parser!(u32)),
            value("kind", "KIND", "Only events of this kind").requires("events"),
            value("since", "TIME", "Where to begin").default_value("1h"),
            value("until", "TIME", "Where to end; now if not said"),
            value("step", "SECONDS", "The time that a row stands for").value_parser(value_parser!(u64).range(1..)),
            value("format", "FORMAT", "table, csv, or jsonl: a JSON object on each line")
                .value_parser(["table", "csv", "jsonl"])
                .default_value("table"),
        ])
}

/// Who tells.
enum Past {
    Daemon(Server, tokio::runtime::Runtime),
    Database(OpenArchive),
}

/// Prints what is asked for.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let now = clock::unix_ns() as f64 / 1e9;
    let time = |name: &str| {
        let text = matches.get_one::<String>(name);
        text.map(|text| moment(text, now).map_err(|told| UsageError(format!("--{name}: {told}")))).transpose()
    };
    let (start, end) = (time("since")?.unwrap_or_default(), time("until")?.unwrap_or(now));
    let mut query = vec![("start", start.to_string()), ("end", end.to_string())];
    let mut only = |name: &'static str, value: Option<String>| query.extend(value.map(|value| (name, value)));
    only("device", matches.get_one::<u16>("device").map(u16::to_string));
    only("pid", matches.get_one::<u32>("pid").map(u32::to_string));
    let format = match matches.get_one::<String>("format").map_or("", String::as_str) {
        "csv" => Format::Csv,
        "jsonl" => Format::JsonLines,
        _ => Format::Table,
    };
    let past = Past::of(matches)?;
    if matches.get_flag("events") {
        only("kind", matches.get_one::<String>("kind").cloned());
        only("limit", Some(EVENTS_PER_PAGE.to_string()));
        return print_events(&past, &query, format);
    }
    only("series", matches.get_one::<String>("series").cloned());
    only("by", matches.get_one::<String>("by").cloned());
    only("memory_type", matches.get_one::<String>("memory-type").cloned());
    let steps = if format == Format::Table { TABLE_STEPS } else { EXPORT_STEPS };
    let step = matches.get_one::<u64>("step").copied();
    only("step", Some(step.unwrap_or_else(|| ((end - start) / steps).ceil().max(1.0) as u64).to_string()));
    print_ranges(&past, &query, format)
}

fn print_ranges(past: &Past, query: &[(&'static str, String)], format: Format) -> anyhow::Result<()> {
    print(lines::range_head(format))?;
    let mut cursor = None;
    loop {
        let page = past.range(&encoded(query, "cursor", cursor.as_deref()))?;
        print(&lines::range(format, &page)?)?;
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

fn print_events(past: &Past, query: &[(&'static str, String)], format: Format) -> anyhow::Result<()> {
    print(lines::events_head(format))?;
    let mut after = None;
    loop {
        let page = past.events(&encoded(query, "after", after.as_deref()))?;
        print(&lines::events(format, &page)?)?;
        match page.next_cursor {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn encoded(query: &[(&'static str, String)], name: &str, cursor: Option<&str>) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    encoded.extend_pairs(query);
    cursor.map(|cursor| encoded.append_pair(name, cursor));
    encoded.finish()
}

impl Past {
    fn of(matches: &ArgMatches) -> anyhow::Result<Past> {
        if let Some(directory) = matches.get_one::<PathBuf>("state-dir") {
            return Ok(Past::Database(Archive::new(directory).open()?));
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        Ok(Past::Daemon(Server::new(matches)?, runtime))
    }

    fn range(&self, query: &str) -> anyhow::Result<Range> {
        match self {
            Past::Daemon(server, runtime) => {
                let path = format!("/api/v1/range?{query}");
                runtime.block_on(server.ask(server.get(&path)))
            }
            Past::Database(archive) => match RangeRequest::parse(Some(query), clock::unix_ns() / 1_000_000) {
                Ok(request) => Ok(archive.range(&request)?),
                Err(refused) => bail!("{refused}"),
            },
        }
    }

    fn events(&self, query: &str) -> anyhow::Result<Events> {
        match self {
            Past::Daemon(server, runtime) => {
                let path = format!("/api/v1/events?{query}");
                runtime.block_on(server.ask(server.get(&path)))
            }
            Past::Database(archive) => match EventRequest::parse(Some(query)) {
                Ok(request) => Ok(archive.events(&request)?),
                Err(refused) => bail!("{refused}"),
            },
        }
    }
}
