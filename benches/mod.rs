//! `ttmem bench`: the measurements behind BENCHMARKS.md, taken against yardsticks that run beside the daemon.
//!
//! The idea is that a figure alone says more about the machine than about ttmem. So every row measures the daemon and
//! its yardsticks in turns, round after round in one run, and what it reports is the ratio between them. The servers and
//! the clients are processes of their own, started from this same binary with `--role`.
//!
//! A row is one entry in `ROWS` and one function that returns a `Report`.

mod chart;
mod clients;
mod epoll;
mod exporting;
mod fairness;
mod growth;
mod http;
mod latency;
mod leaks;
mod limit;
mod load;
mod measure;
mod paths;
mod query;
mod recording;
mod report;
mod resident;
mod ring;
mod scrape;
mod seed;
mod servers;
mod stats_page;
mod throughput;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rustix::process::Signal;

use measure::Machine;
use report::{Report, Run};

/// One measurement: what `--only` calls it, and the function that takes it.
struct Row {
    name: &'static str,
    about: &'static str,
    measure: fn(&Bench, &Row) -> anyhow::Result<Report>,
}

/// What the names of those begin with that measure how cost grows; the chart is drawn of them.
const GROWTH: &str = "growth-";

/// Every measurement, in the order in which they are taken and printed.
const ROWS: &[Row] = &[
    Row {
        name: "reports",
        about: "8 client processes report over the socket, one frame per send()",
        measure: throughput::single,
    },
    Row {
        name: "reports-batched",
        about: "8 client processes report over the socket, 64 frames per send()",
        measure: throughput::batched,
    },
    Row {
        name: "reports-exporting",
        about: "the same, with everything exported over OTLP and without",
        measure: exporting::beside_none,
    },
    Row {
        name: "spans",
        about: "200,000 buffers a second, each a span, to a collector on the same machine",
        measure: exporting::every_buffer,
    },
    Row {
        name: "spans-away",
        about: "an hour's spans at the default rate, with a collector that is away",
        measure: exporting::collector_away,
    },
    Row {
        name: "ring-reports",
        about: "8 client processes report through rings, beside 64 frames per send()",
        measure: ring::throughput,
    },
    Row { name: "ring", about: "what one report costs the thread that makes it", measure: ring::cost },
    Row {
        name: "report",
        about: "one client sends a frame, then does something else for 5 microseconds",
        measure: latency::report,
    },
    Row {
        name: "query",
        about: "one client asks with QUERY and waits for the answer",
        measure: query::round_trip,
    },
    Row {
        name: "stats-page",
        about: "a monitor reads one device's totals from the stats page",
        measure: stats_page::read,
    },
    Row {
        name: "visibility",
        about: "one client sends ALLOC, then QUERY until the answer holds it",
        measure: query::visibility,
    },
    Row {
        name: "visibility-metrics",
        about: "one client sends ALLOC, then scrapes one family until the answer holds it",
        measure: latency::metrics,
    },
    Row {
        name: "scrape",
        about: "GET /metrics with 10,000 series over one kept connection",
        measure: scrape::ten_thousand,
    },
    Row {
        name: "scrape-large",
        about: "GET /metrics with 100,000 series over one kept connection",
        measure: scrape::hundred_thousand,
    },
    Row {
        name: "scrape-load",
        about: "8 client processes report, 64 frames per send(), while 100,000 series are scraped ten times a second",
        measure: load::scraped,
    },
    Row {
        name: "fairness",
        about: "8 client processes report, one frame per send(), alone and beside one that floods",
        measure: fairness::beside_a_flood,
    },
    Row {
        name: "memory",
        about: "resident memory at rest, and with 10,000 series and 100,000 buffers",
        measure: resident::memory,
    },
    Row {
        name: "leaks",
        about: "simulated processes with and without leaks: when are they suspected?",
        measure: leaks::detection,
    },
    Row {
        name: "growth-clients",
        about: "one process after the other reports, one frame per send()",
        measure: growth::clients,
    },
    Row {
        name: "growth-devices",
        about: "one process reports about one device after the other, 64 frames per send()",
        measure: growth::devices,
    },
    Row {
        name: "growth-buffers",
        about: "4 processes allocate so many buffers and free them, 64 frames per send()",
        measure: growth::buffers,
    },
];

/// How much is measured. Rounds are many and short rather than few and long, because the noise of a shared machine
/// comes in stretches: a ratio is only fair between runs that lie close together.
struct Effort {
    rounds: u32,
    seconds: f64,
    queries: usize,
    scrapes: usize,
    encodings: usize,
    /// The last point of the growth by buffers.
    buffers_max: u64,
}

/// About four minutes.
const FULL: Effort =
    Effort { rounds: 11, seconds: 0.5, queries: 20_000, scrapes: 100, encodings: 5, buffers_max: 10_000_000 };

/// Less than one.
const QUICK: Effort =
    Effort { rounds: 3, seconds: 0.2, queries: 4_000, scrapes: 20, encodings: 3, buffers_max: 1_000_000 };

/// What every row needs to know about the run it is part of.
struct Bench {
    /// The binary that is measured, and that all child processes are started from.
    exe: PathBuf,
    directory: WorkDirectory,
    effort: Effort,
    /// A fixed number of events per client and round instead of a duration.
    events_each: Option<u64>,
}

/// The `bench` subcommand.
pub fn command() -> Command {
    Command::new("bench")
        .about("Measure this build beside what it is compared to")
        .long_about(
            "Measures this build beside what it is compared to: the limit that the kernel sets, and the first \
             design of this server. They take turns in one run, and the ratios between them are the result.",
        )
        .after_help(
            "Examples:\n  \
             ttmem bench\n  \
             ttmem bench --only reports --only query\n  \
             ttmem bench --quick                    does everything run?\n  \
             ttmem bench --json > figures.json",
        )
        .arg(
            Arg::new("only")
                .long("only")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_parser(ROWS.iter().map(|row| row.name).collect::<Vec<_>>())
                .help("Take this measurement only (repeatable)"),
        )
        .arg(Arg::new("list").long("list").action(ArgAction::SetTrue).help("List the measurements and exit"))
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Fewer and shorter rounds: a check that everything runs, not figures to quote"),
        )
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("SECONDS")
                .value_parser(seconds)
                .help("Aim for rounds of this length when measuring reports"),
        )
        .arg(
            Arg::new("events")
                .long("events")
                .value_name("COUNT")
                .conflicts_with("seconds")
                .value_parser(value_parser!(u64).range(1..))
                .help("Send this many events per client and round instead of aiming for a duration"),
        )
        .arg(
            Arg::new("chart")
                .long("chart")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Draw how cost grows into this SVG file (from the measurements named growth-)"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print the results as one JSON document"),
        )
        .args(role_arguments())
}

/// The arguments of the child processes, and of those that a test counts the instructions of: nobody types them.
fn role_arguments() -> [Arg; 8] {
    [
        Arg::new("role")
            .long("role")
            .hide(true)
            .requires("socket")
            .value_parser(["limit", "seed", "blocking", "epoll", "daemon", "client", "holder", "flood"]),
        Arg::new("socket").long("socket").hide(true).value_parser(value_parser!(PathBuf)),
        Arg::new("frames").long("frames").hide(true).default_value("0").value_parser(value_parser!(u64)),
        Arg::new("batch").long("batch").hide(true).value_parser(value_parser!(usize)),
        Arg::new("path")
            .long("path")
            .hide(true)
            .requires("path-rounds")
            .value_parser(paths::HOT_PATHS.iter().map(|path| path.name).collect::<Vec<_>>()),
        Arg::new("paths").long("paths").hide(true).action(ArgAction::SetTrue),
        Arg::new("path-rounds").long("path-rounds").hide(true).value_parser(value_parser!(u32)),
        Arg::new("serve-arguments").hide(true).last(true).num_args(0..).value_parser(value_parser!(String)),
    ]
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 60.0 => Ok(seconds),
        _ => Err("expected a number of seconds above 0 and up to 60".to_owned()),
    }
}

/// Runs what the command line asked for: a child's role, the list, or the measurements.
pub fn run(arguments: &ArgMatches) -> anyhow::Result<()> {
    if let Some(role) = arguments.get_one::<String>("role") {
        return play(role, arguments);
    }
    if arguments.get_flag("paths") {
        let names = paths::HOT_PATHS.iter().map(|path| format!("{}\n", path.name));
        return print(&names.collect::<String>());
    }
    if let Some((path, rounds)) = arguments.get_one::<String>("path").zip(arguments.get_one("path-rounds")) {
        return print(&format!("{}\n", paths::run(path, *rounds)?));
    }
    if arguments.get_flag("list") {
        let lines = ROWS.iter().map(|row| format!("{:<16} {}\n", row.name, row.about));
        return print(&lines.collect::<String>());
    }
    let bench = Bench::new(arguments)?;
    let run = Run {
        machine: Machine::this()?,
        version: env!("CARGO_PKG_VERSION"),
        rounds: bench.effort.rounds,
        seconds: bench.effort.seconds,
    };
    measure_rows(&bench, &run, arguments)
}

fn measure_rows(bench: &Bench, run: &Run, arguments: &ArgMatches) -> anyhow::Result<()> {
    let only: Option<Vec<&String>> = arguments.get_many("only").map(Iterator::collect);
    let chosen = |row: &&Row| only.as_ref().is_none_or(|names| names.iter().any(|name| *name == row.name));
    let json = arguments.get_flag("json");
    if !json {
        print(&run.heading())?;
    }
    let chart: Option<&PathBuf> = arguments.get_one("chart");
    let grows = |row: &Row| row.name.starts_with(GROWTH);
    ensure!(
        chart.is_none() || ROWS.iter().any(|row| grows(row) && chosen(&row)),
        "--chart needs a measurement whose name begins with {GROWTH}"
    );
    let mut reports = Vec::new();
    for row in ROWS.iter().filter(chosen) {
        eprintln!("measuring {} ...", row.name);
        let report =
            (row.measure)(bench, row).with_context(|| format!("the measurement `{}` failed", row.name))?;
        if !json {
            print(&format!("\n{}", report.table()))?;
        }
        reports.push(report);
    }
    if let Some(path) = chart {
        std::fs::write(path, chart::draw(&reports))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if json {
        return print(&format!("{}\n", run.json(&reports)?));
    }
    print(&format!("\n{}", report::summary(&reports)))
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("standard output cannot be written")
}

/// Runs one of the child processes until its parent ends it.
fn play(role: &str, arguments: &ArgMatches) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket: &PathBuf = arguments.get_one("socket").context("--role needs --socket")?;
    match role {
        "limit" => limit::serve(socket),
        "seed" => seed::serve(socket, seed::Lines::Printed),
        "blocking" => seed::serve(socket, seed::Lines::Omitted),
        "epoll" => epoll::serve(socket),
        "daemon" => {
            let extra: Vec<&String> = arguments.get_many("serve-arguments").into_iter().flatten().collect();
            servers::become_daemon(socket, &extra)
        }
        "client" => {
            let frames: &u64 = arguments.get_one("frames").context("a client needs --frames")?;
            match arguments.get_one::<usize>("batch") {
                Some(batch) => clients::send_frames(socket, *frames, *batch),
                None => clients::report_in_ring(socket, *frames),
            }
        }
        "holder" => {
            let buffers: &u64 = arguments.get_one("frames").context("a holder needs --frames")?;
            let batch: &usize = arguments.get_one("batch").context("a holder needs --batch")?;
            clients::hold_buffers(socket, *buffers, *batch)
        }
        "flood" => clients::flood(socket),
        unknown => bail!("there is no role `{unknown}`"),
    }
}

impl Bench {
    fn new(arguments: &ArgMatches) -> anyhow::Result<Self> {
        let mut effort = if arguments.get_flag("quick") { QUICK } else { FULL };
        if let Some(seconds) = arguments.get_one::<f64>("seconds") {
            effort.seconds = *seconds;
        }
        let directory = WorkDirectory::create()?;
        directory.remove_on_signal()?;
        Ok(Self {
            exe: std::env::current_exe().context("cannot tell where this binary is")?,
            directory,
            effort,
            events_each: arguments.get_one::<u64>("events").copied(),
        })
    }
}

/// A directory for the sockets and logs of one run, gone when the run ends.
struct WorkDirectory {
    path: PathBuf,
}

impl WorkDirectory {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("ttmem-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves nothing behind on Ctrl-C either. The child processes need no word: they die with this one.
    fn remove_on_signal(&self) -> anyhow::Result<()> {
        let path = self.path.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            use tokio::signal::unix::{SignalKind, signal};
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::spawn(move || {
            let signal = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => Signal::INT,
                    _ = terminate.recv() => Signal::TERM,
                }
            });
            let _ = std::fs::remove_dir_all(&path);
            std::process::exit(128 + signal.as_raw());
        });
        Ok(())
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
