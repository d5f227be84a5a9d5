//! What is read off a run: quantiles, spreads, a process's time and memory, and the machine it happened on.

use std::fs;

use anyhow::Context;
use serde::Serialize;

/// The unit of processor time in /proc, which the kernel's interface fixes whatever its own timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// The middle and the edges of what several rounds gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Spread {
    /// The spread of at least one value.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: quantile(&sorted, 0.5),
            lowest: quantile(&sorted, 0.0),
            highest: quantile(&sorted, 1.0),
        }
    }

    /// The spread of `numerators[i] / denominators[i]`: each round is compared with its neighbour in time.
    pub(super) fn of_ratios(numerators: &[f64], denominators: &[f64]) -> Self {
        let ratios: Vec<f64> = numerators.iter().zip(denominators).map(|(n, d)| n / d).collect();
        Self::of(&ratios)
    }
}

/// The value at `fraction` of an ascending list, by nearest rank; NaN when there is none.
pub(super) fn quantile(ascending: &[f64], fraction: f64) -> f64 {
    let rank = (fraction * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// User and system time of a process, threads that have ended included.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything: fields are counted from behind it, where the state is the third.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| -> anyhow::Result<f64> {
        Ok(fields.get(field - 3).context("/proc/PID/stat is too short")?.parse()?)
    };
    Ok((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

/// The same to the nanosecond, for a process whose threads do not end: of those whose names begin so, all with the empty beginning.
pub(super) fn cpu_seconds_of_threads(pid: u32, name_begins: &str) -> anyhow::Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if !fs::read_to_string(thread.join("comm"))?.starts_with(name_begins) {
            continue;
        }
        let schedstat = fs::read_to_string(thread.join("schedstat"))?;
        let on_processor = schedstat.split_whitespace().next().context("an empty schedstat")?;
        nanoseconds += on_processor.parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The same of the calling thread.
pub(super) fn cpu_seconds_of_this_thread() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A process's resident memory now, in units of 10^6 bytes.
pub(super) fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    memory_mb(pid, "VmRSS")
}

/// The high-water mark of it.
pub(super) fn peak_resident_mb(pid: u32) -> anyhow::Result<f64> {
    memory_mb(pid, "VmHWM")
}

fn memory_mb(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: f64 = field(&status, name)
        .and_then(|value| value.strip_suffix(" kB"))
        .with_context(|| format!("no {name} in /proc/PID/status"))?
        .trim()
        .parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// What the figures were measured on.
#[derive(Serialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
}

impl Machine {
    pub(super) fn this() -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Ok(Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown processor").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// The value of the first `name: value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let ascending: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(quantile(&ascending, 0.0), 1.0);
        assert_eq!(quantile(&ascending, 0.5), 500.0);
        assert_eq!(quantile(&ascending, 0.99), 990.0);
        assert_eq!(quantile(&ascending, 0.999), 999.0);
        assert_eq!(quantile(&ascending, 1.0), 1000.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn rounds_are_compared_pairwise() {
        let spread = Spread::of_ratios(&[10.0, 30.0, 20.0], &[10.0, 10.0, 10.0]);
        assert_eq!(spread, Spread { median: 2.0, lowest: 1.0, highest: 3.0 });
    }

    #[test]
    fn a_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).expect("own stat") >= 0.0);
        assert!(cpu_seconds_of_threads(pid, "").expect("own threads") > 0.0);
        assert_eq!(cpu_seconds_of_threads(pid, "no thread has this").expect("own threads"), 0.0);
        assert!(resident_mb(pid).expect("own status") > 0.1);
        assert!(peak_resident_mb(pid).expect("own status") > 0.1);
    }
}
