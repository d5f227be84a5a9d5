//! What a measurement found, and the two ways of printing it: a table to read and JSON to keep.

use std::fmt::{self, Write};

use serde::Serialize;

use super::measure::{Machine, Spread};
use super::{GROWTH, Row};

/// The circumstances that all results of one run share.
#[derive(Serialize)]
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) version: &'static str,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
}

/// The result of one row.
#[derive(Serialize)]
pub(super) struct Report {
    name: &'static str,
    about: &'static str,
    /// What was measured, one line each with the same figures.
    pub(super) subjects: Vec<Subject>,
    /// What follows from it.
    pub(super) findings: Vec<Finding>,
    /// Where cost is measured as it grows: the size that each subject stands for.
    pub(super) sizes: Vec<u64>,
}

/// The figures of one server or encoder.
#[derive(Serialize)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) figures: Vec<Figure>,
}

/// A number whose name ends in its unit.
#[derive(Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: f64,
}

/// A ratio, or a time that has a goal of its own, with its spread over the rounds.
#[derive(Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) spread: Spread,
    pub(super) goal: Option<Goal>,
}

/// What this version sets out to reach.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    pub(super) fn new(row: &Row, subjects: Vec<Subject>, findings: Vec<Finding>) -> Self {
        Self { name: row.name, about: row.about, subjects, findings, sizes: Vec::new() }
    }

    /// The same, of subjects that stand for growing sizes.
    pub(super) fn grown(self, sizes: impl Iterator<Item = u64>) -> Self {
        Self { sizes: sizes.collect(), ..self }
    }

    /// What the sizes count: the row is called after it.
    pub(super) fn grows_by(&self) -> &'static str {
        self.name.trim_start_matches(GROWTH)
    }

    /// The result as a table.
    pub(super) fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.about);
        let columns = self.subjects.first().map_or(&[][..], |subject| &subject.figures);
        let mut heading = vec![String::new()];
        heading.extend(columns.iter().map(|figure| figure.name.replace("_per_", "/").replace('_', " ")));
        let mut lines = vec![heading];
        for subject in &self.subjects {
            let mut line = vec![subject.name.clone()];
            line.extend(subject.figures.iter().map(|figure| readable(figure.value)));
            lines.push(line);
        }
        align(&mut text, &lines);
        for finding in &self.findings {
            let _ = writeln!(text, "  {finding}");
        }
        text
    }
}

impl Subject {
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(bound) => value >= bound,
            Goal::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtLeast(bound) => write!(f, "at least {bound}"),
            Goal::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

/// Every figure that has a goal, beside it.
pub(super) fn summary(reports: &[Report]) -> String {
    let heading = ["measured", "spread", "goal", "met"].map(str::to_owned);
    let mut lines = vec![std::iter::once(String::new()).chain(heading).collect()];
    for (report, finding) in
        reports.iter().flat_map(|report| report.findings.iter().map(move |f| (report, f)))
    {
        let Some(goal) = finding.goal else { continue };
        let Spread { median, lowest, highest } = finding.spread;
        let is_met = if goal.is_met(median) { "yes" } else { "no" };
        lines.push(vec![
            format!("{}: {}", report.name, finding.name),
            readable(median),
            format!("{} to {}", readable(lowest), readable(highest)),
            goal.to_string(),
            is_met.to_owned(),
        ]);
    }
    let mut text = String::new();
    if lines.len() > 1 {
        text.push_str("goals\n");
        align(&mut text, &lines);
    }
    text
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { median, lowest, highest } = self.spread;
        write!(f, "{} = {}", self.name, readable(median))?;
        write!(f, " ({} to {})", readable(lowest), readable(highest))?;
        match self.goal {
            Some(goal) => write!(f, ", goal: {goal}"),
            None => Ok(()),
        }
    }
}

impl Run {
    /// The lines that stand above all tables.
    pub(super) fn heading(&self) -> String {
        let Machine { processor, cores, kernel } = &self.machine;
        format!(
            "ttmem {} on {processor}, {cores} cores, Linux {kernel}\n\
             Medians of {} rounds, the subjects of a table taking turns; in parentheses the lowest and highest round.\n",
            self.version, self.rounds,
        )
    }

    /// Everything as one document.
    pub(super) fn json(&self, reports: &[Report]) -> anyhow::Result<String> {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            run: &'a Run,
            reports: &'a [Report],
        }
        Ok(serde_json::to_string_pretty(&Document { run: self, reports })?)
    }
}

/// Columns as wide as their widest cell, the first to the left and the others to the right.
fn align(text: &mut String, lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for line in lines {
        text.push_str("  ");
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "   {cell:>width$}"),
            };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
}

/// Three significant digits or all that stand before the point, in groups of three; a dash where nothing was measured.
pub(super) fn readable(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let magnitude = value.abs();
    if magnitude < 0.1 {
        return format!("{value:.4}");
    }
    if magnitude < 1.0 {
        return format!("{value:.3}");
    }
    if magnitude < 10.0 {
        return format!("{value:.2}");
    }
    if magnitude < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (value, expected) in [
            (0.0123, "0.0123"),
            (0.612, "0.612"),
            (1.3, "1.30"),
            (27.04, "27.0"),
            (999.6, "1,000"),
            (1_330_000.4, "1,330,000"),
        ] {
            assert_eq!(readable(value), expected);
        }
    }

    #[test]
    fn a_table_lines_up() {
        let report = Report {
            name: "row",
            about: "what it is",
            subjects: vec![
                Subject {
                    name: "limit".to_owned(),
                    figures: vec![Figure { name: "events_per_second", value: 1_330_000.0 }],
                },
                Subject {
                    name: "ttmem".to_owned(),
                    figures: vec![Figure { name: "events_per_second", value: 900_000.0 }],
                },
            ],
            findings: vec![Finding {
                name: "ttmem / limit",
                spread: Spread { median: 0.677, lowest: 0.6, highest: 0.7 },
                goal: Some(Goal::AtLeast(0.6)),
            }],
            sizes: Vec::new(),
        };
        assert_eq!(
            report.table(),
            "row: what it is\n          \
               events/second\n  \
             limit       1,330,000\n  \
             ttmem         900,000\n  \
             ttmem / limit = 0.677 (0.600 to 0.700), goal: at least 0.6\n"
        );
        let goals = summary(&[report]);
        assert!(
            goals.ends_with("row: ttmem / limit      0.677   0.600 to 0.700   at least 0.6   yes\n"),
            "{goals}"
        );
    }
}
