//! The past as text: a table for people, CSV and JSON lines for programs.

use std::fmt::Write;

use serde::Serialize;

use super::times::shown;
use crate::cli::screen::{bytes, printable};
use crate::views::json::history::{Event, Events, Range, RangePoint, RangeSeries};

/// How it is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Table,
    Csv,
    JsonLines,
}

/// A row of an export.
#[derive(Serialize)]
struct Row<'a> {
    time: String,
    device: u16,
    memory_type: &'a str,
    pid: Option<u32>,
    process: Option<&'a str>,
    series: &'a str,
    min: Option<f64>,
    mean: Option<f64>,
    max: Option<f64>,
}

/// What comes before the rows.
pub(super) fn range_head(format: Format) -> &'static str {
    match format {
        Format::Table => {
            "TIME                  DEVICE  MEMORY         PROCESS                          MIN        MEAN         MAX\n"
        }
        Format::Csv => "time,device,memory_type,pid,process,series,min,mean,max\n",
        Format::JsonLines => "",
    }
}

/// A page of rows: one for each step, and for each gap.
pub(super) fn range(format: Format, page: &Range) -> anyhow::Result<String> {
    let mut text = String::new();
    for series in &page.results {
        let mut index = 0;
        while index < series.points.len() {
            let begin = page.start_seconds + page.step_seconds * index as f64;
            let point = &series.points[index];
            let gap = series.points[index..].iter().take_while(|point| point.is_none()).count();
            if format == Format::Table && gap > 0 {
                let end = begin + page.step_seconds * gap as f64;
                writeln!(text, "{}  {}  nothing is known until {}", shown(begin), place(series), shown(end))?;
                index += gap;
                continue;
            }
            match (format, point) {
                (Format::Table, None) => {}
                (Format::Table, Some(RangePoint(values))) => {
                    let [min, mean, max] = values.map(|value| figure(value, &page.unit));
                    writeln!(text, "{}  {} {min:>11} {mean:>11} {max:>11}", shown(begin), place(series))?;
                }
                (Format::Csv, point) => csv_row(&mut text, &row(page, series, begin, point.as_ref()))?,
                (Format::JsonLines, point) => {
                    text.push_str(&serde_json::to_string(&row(page, series, begin, point.as_ref()))?);
                    text.push('\n');
                }
            }
            index += 1;
        }
    }
    Ok(text)
}

fn row<'a>(page: &'a Range, series: &'a RangeSeries, begin: f64, point: Option<&RangePoint>) -> Row<'a> {
    let value = |index: usize| point.map(|RangePoint(values)| values[index]);
    Row {
        time: shown(begin),
        device: series.device,
        memory_type: &series.memory_type,
        pid: series.pid,
        process: series.process.as_deref(),
        series: &page.series,
        min: value(0),
        mean: value(1),
        max: value(2),
    }
}

fn csv_row(text: &mut String, row: &Row<'_>) -> std::fmt::Result {
    let Row { time, device, memory_type, pid, process, series, min, mean, max } = row;
    let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
    let process = quoted(process.unwrap_or_default());
    let [min, mean, max] =
        [min, mean, max].map(|value| value.map(|value| value.to_string()).unwrap_or_default());
    writeln!(text, "{time},{device},{memory_type},{pid},{process},{series},{min},{mean},{max}")
}

/// Device, memory and process, in columns.
fn place(series: &RangeSeries) -> String {
    let process = match (series.pid, &series.process) {
        (Some(pid), Some(process)) => format!("{pid} {}", printable(process)),
        _ => "all".to_owned(),
    };
    format!("{:<6}  {:<13}  {process:<24.24}", series.device, series.memory_type)
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "By" => bytes(value as u64),
        "By/s" => format!("{}/s", bytes(value as u64)),
        _ => format!("{value:.1}"),
    }
}

/// What comes before the events.
pub(super) fn events_head(format: Format) -> &'static str {
    match format {
        Format::Table => {
            "TIME                  EVENT            DEVICE  MEMORY         PROCESS                   \n"
        }
        Format::Csv => "id,time,kind,device,memory_type,pid,process,figures\n",
        Format::JsonLines => "",
    }
}

/// A page of events.
pub(super) fn events(format: Format, page: &Events) -> anyhow::Result<String> {
    let mut text = String::new();
    for event in &page.events {
        match format {
            Format::Table => table_event(&mut text, event)?,
            Format::Csv => csv_event(&mut text, event)?,
            Format::JsonLines => {
                text.push_str(&serde_json::to_string(event)?);
                text.push('\n');
            }
        }
    }
    Ok(text)
}

fn table_event(text: &mut String, event: &Event) -> std::fmt::Result {
    let device = event.device.map_or_else(|| "-".to_owned(), |device| device.to_string());
    let memory_type = event.memory_type.as_deref().unwrap_or("-");
    let process = match (event.pid, &event.process) {
        (Some(pid), Some(process)) => format!("{pid} {}", printable(process)),
        _ => "-".to_owned(),
    };
    write!(text, "{}  {:<16}", shown(event.timestamp_seconds), event.kind)?;
    write!(text, " {device:<6}  {memory_type:<13}  {process:<24.24}")?;
    for (name, value) in &event.figures {
        let value = value.as_str().map_or_else(|| value.to_string(), printable);
        write!(text, "  {name}={value}")?;
    }
    writeln!(text)
}

fn csv_event(text: &mut String, event: &Event) -> anyhow::Result<()> {
    let device = event.device.map(|device| device.to_string()).unwrap_or_default();
    let pid = event.pid.map(|pid| pid.to_string()).unwrap_or_default();
    let process = quoted(event.process.as_deref().unwrap_or_default());
    let figures = quoted(&serde_json::to_string(&event.figures)?);
    let (time, memory_type) =
        (shown(event.timestamp_seconds), event.memory_type.as_deref().unwrap_or_default());
    writeln!(text, "{},{time},{},{device},{memory_type},{pid},{process},{figures}", event.id, event.kind)?;
    Ok(())
}

/// A field of CSV; a process may call itself anything. What a spreadsheet would take for a formula is marked as text.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_has_to_be() {
        let check = |text: &str, expected: &str| assert_eq!(quoted(text), expected);
        check("python", "python");
        check("a,b", "\"a,b\"");
        check("say \"x\"", "\"say \"\"x\"\"\"");
        check("=1+1", "'=1+1");
    }
}
