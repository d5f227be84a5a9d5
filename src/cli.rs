//! The command line: which commands there are, what their help says, and how a failure is told.

pub mod demo;
mod fits;
mod history;
mod man;
mod pages;
mod random;
mod run;
pub mod screen;
mod server;
pub mod soak;
mod standing;
pub mod status;
mod top;
mod trust;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;
use ttmem_wire::DEFAULT_SOCKET_PATH;

use crate::config::{self, ConfigError, Origin};
use crate::{bench, daemon};
use server::Server;
use status::{PageSource, StatusOptions};

/// What a shell sees when the operator's words, in flags or in a file, were not understood.
const EXIT_USAGE: u8 = 2;

/// Help lines are broken here even on a wider terminal.
const HELP_COLUMNS: usize = 100;

/// The command line was not understood: the operator's fault, told in one line with the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Nobody reads standard output any more, as after `ttmem man | head -1`: nobody's fault, and no word is lost
/// about it.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
struct OutputClosed;

/// Runs the command that `arguments` ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if error.use_stderr() => return Err(usage_error(&error).into()),
        Err(help) => return print(&help.render().to_string()),
    };
    match matches.subcommand() {
        Some(("serve", matches)) => daemon::run(&Origin::new(matches, env::vars_os())),
        Some(("status", matches)) => status::run(&status_options(matches)?),
        Some(("top", matches)) => top::run(matches),
        Some(("fits", matches)) => fits::run(matches),
        Some(("history", matches)) => history::run(matches),
        Some(("run", matches)) => run::run(matches),
        Some(("demo", matches)) => demo::run(matches),
        Some(("soak", matches)) => soak::run(matches),
        Some(("bench", matches)) => bench::run(matches),
        Some(("check-config", matches)) => check_config(matches),
        Some(("completions", matches)) => completions(matches),
        Some(("man", matches)) => man::run(matches),
        _ => Err(UsageError("a command is missing; `ttmem --help` lists them".to_owned()).into()),
    }
}

/// Tells a failure on standard error, each line after the program's name, and gives the exit code for it.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    let mut stderr = io::stderr().lock();
    for line in format!("{error:#}").lines() {
        // When standard error is closed too, the exit code is all that can be said.
        let _ = writeln!(stderr, "ttmem: {line}");
    }
    if error.is::<UsageError>() || error.is::<ConfigError>() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// Writes to standard output. That nobody reads it any more is an error that ends the program quietly.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        result => result.context("standard output cannot be written"),
    }
}

/// The whole command line.
fn command() -> Command {
    Command::new("ttmem")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Shows which process holds which memory of Tenstorrent devices")
        .long_about(
            "Shows which process holds which memory of Tenstorrent devices.\n\n\
             One daemon for each host, `ttmem serve`, takes the allocation reports of every process and \
             reads what tt-metal publishes. It answers Prometheus, `ttmem status` and a browser.",
        )
        .after_help(
            "Examples:\n  \
             ttmem serve --demo                     try it: no device is needed\n  \
             curl http://127.0.0.1:8080/metrics     what Prometheus scrapes\n  \
             ttmem status --watch                   the same for a terminal\n\n\
             Exit codes: 0 done, 1 failed, 2 flags or configuration not understood.",
        )
        .max_term_width(HELP_COLUMNS)
        .subcommand_required(true)
        .subcommands([
            serve_command(),
            status_command(),
            top::command(socket_argument()),
            fits::command(),
            history::command(),
            run::command(),
            demo::command(),
            soak::command(),
            bench::command(),
            check_config_command(),
            completions_command(),
            man::command(),
        ])
}

fn serve_command() -> Command {
    Command::new("serve")
        .about("Run the daemon")
        .long_about(
            "Runs the daemon in the foreground: it takes allocation reports on a Unix socket and serves \
             metrics over HTTP.\n\n\
             A flag wins over its environment variable, that over the file, the file over the default. \
             SIGHUP reads the file again; SIGTERM and Ctrl-C end the daemon after the connections are \
             drained.",
        )
        .after_help(
            "Examples:\n  \
             ttmem serve\n  \
             ttmem serve --device 0=n150 --device 1=n150\n  \
             ttmem serve --listen 0.0.0.0:8080 --config /etc/ttmem/ttmem.toml\n  \
             TTMEM_LOG_LEVEL=debug ttmem serve --demo",
        )
        .args(config::arguments())
}

fn status_command() -> Command {
    let watch = Arg::new("watch")
        .long("watch")
        .value_name("SECONDS")
        .num_args(0..=1)
        .default_missing_value("2")
        .value_parser(value_parser!(u64).range(1..=3600))
        .help("Show it again every so many seconds, 2 if not said, until interrupted");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print one JSON object in place of tables");
    Command::new("status")
        .about("Show the memory of devices and processes")
        .long_about(
            "Shows the memory of devices and processes as the daemon knows it: a table for devices with a \
             bar for each memory, and one for processes.\n\n\
             A daemon on this host is not asked: it is found at its socket, and the stats page that it hands \
             out is read from memory. Where there is none, and for --json and --server, HTTP is asked.",
        )
        .after_help(
            "Examples:\n  \
             ttmem status\n  \
             ttmem status --watch 5\n  \
             ttmem status --server http://host7:8080 --json\n  \
             ttmem status --server https://host7:8080 --ca-file ca.crt --user me --password-file secret",
        )
        .args(server::arguments())
        .args([watch, json, socket_argument()])
}

/// Where a daemon on this host is found.
fn socket_argument() -> Arg {
    Arg::new("socket")
        .long("socket")
        .value_name("PATH")
        .value_hint(ValueHint::FilePath)
        .env("TTMEM_SOCKET")
        .hide_env_values(true)
        .default_value(DEFAULT_SOCKET_PATH)
        .value_parser(value_parser!(PathBuf))
        .help("The socket of a daemon on this host, whose stats page is read if no --server is named")
}

fn status_options(matches: &ArgMatches) -> anyhow::Result<StatusOptions> {
    Ok(StatusOptions {
        server: Server::new(matches)?,
        pages: page_source(matches),
        watch: matches.get_one("watch").copied().map(Duration::from_secs),
        json: matches.get_flag("json"),
    })
}

/// Where the stats pages are asked for. Whoever names a server wants that one; and JSON is what the API says, which is more than the
/// pages hold.
fn page_source(matches: &ArgMatches) -> Option<PageSource> {
    let is_said =
        |name: &str| matches.value_source(name).is_some_and(|source| source != ValueSource::DefaultValue);
    let socket =
        matches.get_one::<PathBuf>("socket").filter(|_| !is_said("server") && !matches.get_flag("json"));
    let is_only = matches.value_source("socket") == Some(ValueSource::CommandLine);
    socket.map(|socket| PageSource { socket: socket.clone(), is_only })
}

fn check_config_command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .value_parser(value_parser!(PathBuf))
        .required_unless_present_any(["list", "example", "web-config"])
        .help("The TOML file to check");
    let list = Arg::new("list")
        .long("list")
        .action(ArgAction::SetTrue)
        .conflicts_with_all(["file", "example"])
        .help("Print the reference of every setting, in Markdown, and check nothing");
    let web_config = Arg::new("web-config")
        .long("web-config")
        .value_name("WEB-FILE")
        .value_hint(ValueHint::FilePath)
        .value_parser(value_parser!(PathBuf))
        .conflicts_with_all(["file", "list", "example"])
        .help("Check a web configuration file, and the certificates that it names, in place of FILE");
    let example = Arg::new("example")
        .long("example")
        .action(ArgAction::SetTrue)
        .conflicts_with("file")
        .help("Print a file with every setting at its default, commented out, and check nothing");
    Command::new("check-config")
        .about("Check a configuration file")
        .long_about(
            "Checks a configuration file without starting anything. It prints \"FILE: ok\" and the settings \
             that differ from the defaults, or every mistake with its line and the remedy, and then ends \
             with exit code 2. The web configuration file that it names is checked as well.",
        )
        .after_help(
            "Examples:\n  \
             ttmem check-config --example > ttmem.toml\n  \
             ttmem check-config ttmem.toml\n  \
             ttmem check-config --web-config /etc/ttmem/web.yml",
        )
        .args([file, web_config, list, example])
}

fn check_config(matches: &ArgMatches) -> anyhow::Result<()> {
    if let Some(path) = matches.get_one::<PathBuf>("web-config") {
        return print(&checked_web_config(path)?);
    }
    let Some(path) = matches.get_one::<PathBuf>("file") else {
        let text = if matches.get_flag("example") { config::example() } else { config::markdown() };
        return print(&text);
    };
    let loaded = Origin::of_file(path, env::vars_os()).load()?;
    let mut lines = vec![format!("{}: ok", path.display())];
    lines.extend(config::differences(&loaded.config));
    let web = loaded.config.web_config.as_deref().map(checked_web_config).transpose()?;
    print(&(lines.join("\n") + "\n" + &web.unwrap_or_default()))
}

fn checked_web_config(path: &Path) -> anyhow::Result<String> {
    let warnings = daemon::check_web_config(path)?;
    let path = path.display();
    let warnings: String = warnings.iter().map(|warning| format!("{path}: warning: {warning}\n")).collect();
    Ok(format!("{path}: ok\n{warnings}"))
}

fn completions_command() -> Command {
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(value_parser!(Shell))
        .help("The shell that reads it");
    Command::new("completions")
        .about("Print a shell's completion script")
        .after_help(
            "Examples:\n  \
             source <(ttmem completions bash)\n  \
             ttmem completions zsh > ~/.zfunc/_ttmem\n  \
             ttmem completions fish > ~/.config/fish/completions/ttmem.fish",
        )
        .arg(shell)
}

fn completions(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some(shell) = matches.get_one::<Shell>("shell").copied() else {
        return Ok(());
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "ttmem", &mut script);
    print(&String::from_utf8(script)?)
}

/// clap's message and its tips on one line, without the usage, which `--help` shows.
fn usage_error(error: &clap::Error) -> UsageError {
    let text = error.render().to_string();
    let parts: Vec<&str> = text
        .lines()
        .map(|line| line.trim().trim_start_matches("error: ").trim_start_matches("For more information, "))
        .filter(|line| !line.is_empty() && !line.starts_with("Usage: "))
        .collect();
    UsageError(parts.join("; ").replace(":; ", ": ").trim_end_matches('.').to_owned())
}
