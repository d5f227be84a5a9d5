//! The `ttmem` program.

use std::env;
use std::process::ExitCode;

use ttmem::cli;

fn main() -> ExitCode {
    match cli::run(env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
