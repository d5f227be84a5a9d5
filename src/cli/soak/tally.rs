//! What a soak has done and measured, and how it is told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::json;

/// Between samples of memory: some hundreds of an hour are enough for a line.
const RESIDENT_INTERVAL: Duration = Duration::from_secs(5);

/// Counts, times and memory of one run.
pub(super) struct Tally {
    begin: Instant,
    pub(super) operations: u64,
    pub(super) reports: u64,
    pub(super) processes: u64,
    /// What was done to processes and daemon, by kind.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// Input that the daemon has to refuse.
    pub(super) bad_inputs: u64,
    /// Snapshots that were compared with the model.
    pub(super) comparisons: u64,
    /// Scrapes, taken while all went on, whose sums were checked.
    pub(super) scrapes: u64,
    /// Reports whose process was killed before they had been read.
    pub(super) refused: u64,
    pub(super) lost: u64,
    pub(super) ghosts: u64,
    reclaims: Vec<Duration>,
    recoveries: Vec<Duration>,
    /// When, and how much.
    resident: Vec<(Duration, u64)>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            begin: Instant::now(),
            operations: 0,
            reports: 0,
            processes: 0,
            faults: BTreeMap::new(),
            bad_inputs: 0,
            comparisons: 0,
            scrapes: 0,
            refused: 0,
            lost: 0,
            ghosts: 0,
            reclaims: Vec::new(),
            recoveries: Vec::new(),
            resident: Vec::new(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// From a process's death until the devices have back what it held.
    pub(super) fn reclaimed(&mut self, duration: Duration) {
        self.reclaims.push(duration);
    }

    /// From the daemon's death until the next one says exactly what there is.
    pub(super) fn recovered(&mut self, duration: Duration) {
        self.recoveries.push(duration);
    }

    /// The daemon has so much memory now. One sample of each interval is kept.
    pub(super) fn resident(&mut self, bytes: u64) {
        let now = self.begin.elapsed();
        if self.resident.last().is_none_or(|(last, _)| now - *last >= RESIDENT_INTERVAL) {
            self.resident.push((now, bytes));
        }
    }

    fn faults_sum(&self) -> u64 {
        self.faults.values().sum()
    }

    /// One line for whoever waits.
    pub(super) fn progress(&self) -> String {
        format!(
            "{:.0} s: {} operations, {} reports, {} faults, {} comparisons, {:.1} MB resident",
            self.elapsed().as_secs_f64(),
            self.operations,
            self.reports,
            self.faults_sum(),
            self.comparisons,
            self.resident.last().map_or(0.0, |last| megabytes(last.1)),
        )
    }

    /// The table.
    pub(super) fn table(&self, seed: u64) -> String {
        let mut rows = vec![
            ("seed".to_owned(), seed.to_string()),
            ("duration".to_owned(), format!("{:.0} s", self.elapsed().as_secs_f64())),
            ("operations".to_owned(), self.operations.to_string()),
            ("reports".to_owned(), self.reports.to_string()),
            ("processes".to_owned(), self.processes.to_string()),
            ("faults injected and survived".to_owned(), self.faults_sum().to_string()),
        ];
        rows.extend(self.faults.iter().map(|(kind, count)| (format!("  {kind}"), count.to_string())));
        rows.extend([
            ("bad inputs".to_owned(), self.bad_inputs.to_string()),
            ("comparisons with the model".to_owned(), self.comparisons.to_string()),
            ("scrapes meanwhile, each added up".to_owned(), self.scrapes.to_string()),
            ("reports refused, their process killed".to_owned(), self.refused.to_string()),
            ("buffers lost".to_owned(), self.lost.to_string()),
            ("ghosts left".to_owned(), self.ghosts.to_string()),
            ("a client's death to its reclaim".to_owned(), times(&self.reclaims)),
            ("the daemon's death to exact totals".to_owned(), times(&self.recoveries)),
            ("resident memory".to_owned(), self.memory()),
        ]);
        let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
        rows.iter().fold(String::new(), |mut table, (name, value)| {
            // Writing into a String cannot fail.
            let _ = writeln!(table, "{name:width$}  {value}");
            table
        })
    }

    fn memory(&self) -> String {
        let at = |share: f64| {
            let sample =
                self.resident.get((self.resident.len() as f64 * share) as usize).or(self.resident.last());
            sample.map_or(0.0, |sample| megabytes(sample.1))
        };
        let most = self.resident.iter().map(|sample| sample.1).max().unwrap_or(0);
        format!(
            "{:.1} MB after a tenth, {:.1} at half, {:.1} at the end, {:.1} at most",
            at(0.1),
            at(0.5),
            at(1.0),
            megabytes(most),
        )
    }

    /// All of it, for a machine.
    pub(super) fn json(&self, seed: u64) -> serde_json::Value {
        let milliseconds = |durations: &[Duration]| {
            json!({
                "count": durations.len(),
                "p50": quantile(durations, 0.5),
                "p99": quantile(durations, 0.99),
                "max": quantile(durations, 1.0),
            })
        };
        let resident: Vec<_> =
            self.resident.iter().map(|(at, bytes)| json!([at.as_secs_f64(), bytes])).collect();
        json!({
            "seed": seed,
            "duration_seconds": self.elapsed().as_secs_f64(),
            "operations": self.operations,
            "reports": self.reports,
            "processes": self.processes,
            "faults": self.faults,
            "bad_inputs": self.bad_inputs,
            "comparisons": self.comparisons,
            "scrapes": self.scrapes,
            "refused": self.refused,
            "buffers_lost": self.lost,
            "ghosts": self.ghosts,
            "death_to_reclaim_milliseconds": milliseconds(&self.reclaims),
            "daemon_death_to_exact_totals_milliseconds": milliseconds(&self.recoveries),
            "resident_bytes_at_seconds": resident,
        })
    }

    /// Resident memory over time.
    pub(super) fn resident_over_time(&self) -> &[(Duration, u64)] {
        &self.resident
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn times(durations: &[Duration]) -> String {
    let [middle, late, last] = [0.5, 0.99, 1.0].map(|share| quantile(durations, share));
    format!("p50 {middle:.1} ms, p99 {late:.1} ms, max {last:.1} ms ({} times)", durations.len())
}

/// In milliseconds; 0 where nothing was measured.
fn quantile(durations: &[Duration], share: f64) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let durations: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&durations, share)), [50.0, 99.0, 100.0]);
        assert_eq!([0.5, 0.99].map(|share| quantile(&durations[..1], share)), [100.0, 100.0]);
        assert_eq!(quantile(&[], 0.5).to_bits(), 0.0_f64.to_bits());
    }
}
