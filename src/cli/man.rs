//! The manual pages, made from the same commands as the help.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{UsageError, print};

pub(super) fn command() -> Command {
    let page = Arg::new("command")
        .value_name("COMMAND")
        .help("The command whose page is wanted; the program's own if not said");
    let dir = Arg::new("dir")
        .long("dir")
        .value_name("DIR")
        .value_hint(ValueHint::DirPath)
        .value_parser(value_parser!(PathBuf))
        .conflicts_with("command")
        .help("Write every page into this directory, which is made if it is missing");
    Command::new("man")
        .about("Print a manual page")
        .long_about("Prints a manual page in troff, as man reads it.")
        .after_help(
            "Examples:\n  \
             ttmem man | man -l -\n  \
             ttmem man serve | man -l -\n  \
             ttmem man --dir /usr/local/share/man/man1",
        )
        .args([page, dir])
}

pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    // Built, every command knows its full name; `help` needs no page of its own.
    let mut program = super::command().disable_help_subcommand(true);
    program.build();
    if let Some(dir) = matches.get_one::<PathBuf>("dir") {
        return write_all(&program, dir);
    }
    let page = match matches.get_one::<String>("command") {
        None => render(&program)?,
        Some(name) => match commands(&program).find(|command| command.get_name() == name) {
            Some(command) => render(command)?,
            None => {
                let names: Vec<&str> = commands(&program).map(Command::get_name).collect();
                let message = format!("{name:?} is not a command; write one of {}", names.join(", "));
                return Err(UsageError(message).into());
            }
        },
    };
    print(&String::from_utf8(page)?)
}

fn write_all(program: &Command, dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    for command in std::iter::once(program).chain(commands(program)) {
        let path = dir.join(Man::new(command.clone()).get_filename());
        fs::write(&path, render(command)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|command| !command.is_hide_set())
}

/// One page. What follows the help of a command, its examples, keeps its lines.
fn render(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).source(concat!("ttmem ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if commands(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(examples) = command.get_after_help() {
        let mut roff = Roff::new();
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples.to_string().lines().skip(1) {
            roff.text([roman(line)]);
        }
        roff.control("fi", []).to_writer(&mut page)?;
    }
    Ok(page)
}
