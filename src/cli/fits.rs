//! `ttmem fits`: asks a daemon on which devices a buffer would fit, and says so to a person and, by its exit code, to a script.

use std::fmt::Write;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::screen::{age, bytes};
use super::server::{self, Server};
use super::{UsageError, print};
use crate::views::findings::{DeviceFit, Fits};

/// The units of sizes, and their bytes.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

/// The `fits` subcommand.
pub(super) fn command() -> Command {
    let size = Arg::new("size").value_name("SIZE").required(true).value_parser(size_bytes).help(
        "How large: a number with B, KiB, MiB, GiB or TiB, or with kB, MB, GB or TB; bytes if none is said",
    );
    let memory = Arg::new("memory")
        .value_name("MEMORY")
        .default_value("dram")
        .help("Which memory: dram, l1, l1_small or trace");
    let device = Arg::new("device")
        .long("device")
        .value_name("INDEX")
        .value_parser(value_parser!(u16))
        .help("Ask about this device only");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print the API's answer in place of a table");
    Command::new("fits")
        .about("Say on which devices a buffer of a size would fit")
        .long_about(
            "Says on which devices a buffer of a size would fit, now and at the time when most was in use during the \
             last day, or since counting began where the daemon keeps no history. A buffer takes the same of each bank, in pages of 2 KiB. Fragmented means: there is room, but when an \
             allocation last failed, no free block was large enough.",
        )
        .after_help(
            "Examples:\n  \
             ttmem fits 6GiB\n  \
             ttmem fits 512KiB l1 --device 0\n  \
             ttmem fits 6GiB --server http://host7:8080 --json\n\n\
             Exit codes: 0 it fits on a device now, 1 on none, or the daemon does not answer, 2 not understood.",
        )
        .args([size, memory, device, json])
        .args(server::arguments())
}

/// Asks, and shows the answer.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let size_bytes: &u64 = matches.get_one("size").context("a size is required")?;
    let memory: &String = matches.get_one("memory").context("a memory type has a default")?;
    if !memory.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(
            UsageError(format!("{memory:?} is no memory; there are dram, l1, l1_small and trace")).into()
        );
    }
    let server = Server::new(matches)?;
    let mut path = format!("/api/v1/fits?size_bytes={size_bytes}&memory_type={memory}");
    if let Some(device) = matches.get_one::<u16>("device") {
        let _ = write!(path, "&device={device}");
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let fits: Fits = runtime.block_on(server.ask(server.get(&path)))?;
    if matches.get_flag("json") {
        print(&(serde_json::to_string(&fits)? + "\n"))?;
    } else {
        print(&table(&fits))?;
    }
    if !fits.devices.iter().any(|device| device.now == "fits") {
        bail!("{} of {memory} fit on no device now", bytes(*size_bytes));
    }
    Ok(())
}

fn table(fits: &Fits) -> String {
    let mut text = format!(
        "{:>6}  {:<8} {:>10} {:>10} {:>12}  {:<11} {}\n",
        "DEVICE", "BOARD", "TAKES", "FREE NOW", "FREE AT PEAK", "NOW", "AT PEAK"
    );
    for device in &fits.devices {
        let DeviceFit { device, board, needed_bytes, free_bytes, free_at_peak_bytes, now, at_peak, .. } =
            device;
        let or_unknown = |value: &Option<u64>| value.map_or_else(|| "-".to_owned(), bytes);
        let _ = writeln!(
            text,
            "{device:>6}  {:<8} {:>10} {:>10} {:>12}  {now:<11} {at_peak}",
            board.as_deref().unwrap_or("-"),
            bytes(*needed_bytes),
            or_unknown(free_bytes),
            or_unknown(free_at_peak_bytes),
        );
    }
    let peak_age_seconds = fits.timestamp_seconds - fits.peak_since_timestamp_seconds;
    let _ = writeln!(text, "The peak is that of the last {}.", age(peak_age_seconds.max(0.0)));
    text
}

/// A size with its unit.
fn size_bytes(text: &str) -> Result<u64, String> {
    let explain = || format!("{text:?} is no size; write 6GiB, 512KiB or a number of bytes");
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, unit_bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(explain)?;
    let number: f64 = number.parse().map_err(|_| explain())?;
    let size = number * *unit_bytes as f64;
    // Larger than that no device will ever be, and the product would not be exact.
    if (1.0..(1_u64 << 53) as f64).contains(&size) { Ok(size.round() as u64) } else { Err(explain()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("6GiB", 6 << 30),
            ("6 gib", 6 << 30),
            ("1.5MiB", 3 << 19),
            ("512KiB", 512 << 10),
            ("2GB", 2_000_000_000),
            ("100", 100),
            ("7B", 7),
        ] {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "6G", "-1", "0", "1.2.3MiB", "1e400", "99999999TiB", "6 apples"] {
            let error = size_bytes(text).expect_err(text);
            assert!(error.contains("6GiB"), "{error}");
        }
    }
}
