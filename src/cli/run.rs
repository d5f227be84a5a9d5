//! `ttmem run`: starts a program in which an unmodified tt-metal reports every buffer.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf, absolute};
use std::process::Command as Program;

use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};

/// The library that reports, by its file's name.
const LIBRARY: &str = "libttmem_preload.so";
/// Where it is, seen from the directory of this program: beside it, as it is built, or as packages put it.
const PLACES: [&str; 3] = [".", "../lib/ttmem", "../preload"];
/// What the loader reads; entries are divided by colons or spaces.
const LD_PRELOAD: &str = "LD_PRELOAD";
/// Where the library reads the socket's path.
const SOCKET_VARIABLE: &str = "TTMEM_SOCKET";

/// The command.
pub(super) fn command() -> Command {
    let socket = Arg::new("socket")
        .long("socket")
        .value_name("PATH")
        .env(SOCKET_VARIABLE)
        .value_hint(ValueHint::FilePath)
        .value_parser(value_parser!(PathBuf))
        .default_value(crate::config::DEFAULT_SOCKET)
        .help("Unix socket of the daemon");
    let library = Arg::new("preload")
        .long("preload")
        .value_name("FILE")
        .env("TTMEM_PRELOAD")
        .value_hint(ValueHint::FilePath)
        .value_parser(value_parser!(PathBuf))
        .help("The library to load; looked for beside this program and in ../lib/ttmem if not said");
    let program = Arg::new("program")
        .value_name("PROGRAM")
        .value_hint(ValueHint::CommandWithArguments)
        .value_parser(value_parser!(OsString))
        .num_args(1..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .required(true)
        .help("The program and its arguments");
    Command::new("run")
        .about("Run a program and see every buffer of its tt-metal")
        .long_about(
            "Runs a program in whose processes an unmodified tt-metal reports every buffer to the daemon: size, memory, \
             device, and why an allocation failed. The program itself takes this one's place and behaves as it always \
             does; without a daemon it runs all the same, and reports as soon as there is one.",
        )
        .after_help(
            "Examples:\n  \
             ttmem run -- python model.py\n  \
             ttmem run --socket /run/ttmem/allocations.sock -- ./build/my_model --batch 32",
        )
        .args([socket, library, program])
}

/// Becomes the program. Only a failure comes back.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let library = match matches.get_one::<PathBuf>("preload") {
        Some(library) => readable(library)?,
        None => beside_this_program()?,
    };
    let mut words = matches.get_many::<OsString>("program").into_iter().flatten();
    let program = words.next().context("a program is missing")?;
    let socket = matches.get_one::<PathBuf>("socket").context("a socket is missing")?;
    let error = Program::new(program)
        .args(words)
        .env(LD_PRELOAD, preloaded(&library, env::var_os(LD_PRELOAD))?)
        // The program may change its directory before it reports.
        .env(SOCKET_VARIABLE, absolute(socket)?)
        .exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(program).display()))
}

/// An absolute path, as the loader resolves others from wherever a process happens to be.
fn readable(library: &Path) -> anyhow::Result<PathBuf> {
    let path = library.canonicalize().with_context(|| format!("cannot load {}", library.display()))?;
    std::fs::File::open(&path).with_context(|| format!("cannot load {}", path.display()))?;
    Ok(path)
}

fn beside_this_program() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("cannot find this program's own directory")?;
    let directory = program.parent().unwrap_or(Path::new("/"));
    for place in PLACES {
        match readable(&directory.join(place).join(LIBRARY)) {
            Err(error) if is_missing(&error) => {}
            found => return found,
        }
    }
    bail!(
        "{LIBRARY} is neither beside this program nor in {}; name it with --preload, or build it with \
         `cargo build --profile preload --package ttmem-preload`",
        directory.join("../lib/ttmem").display()
    );
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What is preloaded already stays, after ours.
fn preloaded(library: &Path, before: Option<OsString>) -> anyhow::Result<OsString> {
    let mut list = library.as_os_str().to_owned();
    if list.as_encoded_bytes().iter().any(|byte| matches!(byte, b':' | b' ')) {
        bail!("{} cannot be preloaded: the loader divides names at colons and spaces", library.display());
    }
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        list.push(OsStr::new(":"));
        list.push(before);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_already_stays() {
        let check = |before: Option<&str>, expected: &str| {
            let list = preloaded(Path::new("/l/a.so"), before.map(OsString::from)).expect("a plain path");
            assert_eq!(list, expected);
        };
        check(None, "/l/a.so");
        check(Some(""), "/l/a.so");
        check(Some("/x.so:/y.so"), "/l/a.so:/x.so:/y.so");
        assert!(preloaded(Path::new("/a b/c.so"), None).is_err());
    }
}
