//! The columns of the tables: what each is called, how wide it is, what it says of a row and how it orders rows.

use std::cmp::Ordering;

use super::rows::ProcessRow;
use crate::cli::screen::{age, bytes, grouped};
use crate::views::json::Buffer;

/// A column of a table whose rows are `R`.
pub(super) struct Column<R> {
    /// Its title.
    pub(super) title: &'static str,
    /// How many columns of the terminal it takes; the last column takes what is left.
    pub(super) width: u16,
    /// The narrowest terminal that has room for it.
    pub(super) from_width: u16,
    /// Whether the largest comes first, unless reversed.
    pub(super) is_descending: bool,
    /// What it says, at a time in seconds since the epoch.
    pub(super) text: fn(&R, f64) -> String,
    /// What rows are ordered by.
    pub(super) key: fn(&R) -> Key,
}

/// What a row is ordered by in one column.
#[derive(Debug)]
pub(super) enum Key {
    /// What is not known counts as less than everything.
    Number(Option<f64>),
    /// In the order of the alphabet, capitals as small letters.
    Text(String),
}

impl Key {
    pub(super) fn compare(&self, other: &Key) -> Ordering {
        match (self, other) {
            (Key::Number(Some(left)), Key::Number(Some(right))) => left.total_cmp(right),
            (Key::Number(left), Key::Number(right)) => left.is_some().cmp(&right.is_some()),
            (Key::Text(left), Key::Text(right)) => left.cmp(right),
            // A column has keys of one kind.
            (Key::Number(_), Key::Text(_)) => Ordering::Less,
            (Key::Text(_), Key::Number(_)) => Ordering::Greater,
        }
    }
}

/// Where `M`, `N` and `T` find their columns.
pub(super) const BY_PID: &str = "PID";
/// Bytes of the memory type that is shown.
pub(super) const BY_USAGE: &str = "USED";
/// How long a process runs.
pub(super) const BY_AGE: &str = "AGE";

/// Of processes.
pub(super) const PROCESS: &[Column<ProcessRow>] = &[
    Column {
        title: BY_PID,
        width: 7,
        from_width: 0,
        is_descending: false,
        text: |row, _| row.pid.to_string(),
        key: |row| Key::Number(Some(f64::from(row.pid))),
    },
    Column {
        title: "USER",
        width: 8,
        from_width: 64,
        is_descending: false,
        text: |row, _| row.user.clone(),
        key: |row| Key::Text(row.user.to_lowercase()),
    },
    Column {
        title: "DEV",
        width: 6,
        from_width: 0,
        is_descending: false,
        text: |row, _| row.devices(),
        key: |row| Key::Number(row.devices.first().map(|device| f64::from(*device))),
    },
    Column {
        title: BY_USAGE,
        width: 10,
        from_width: 0,
        is_descending: true,
        text: |row, _| bytes(row.usage_bytes),
        key: |row| Key::Number(Some(row.usage_bytes as f64)),
    },
    Column {
        title: "PEAK",
        width: 10,
        from_width: 112,
        is_descending: true,
        text: |row, _| bytes(row.peak_bytes),
        key: |row| Key::Number(Some(row.peak_bytes as f64)),
    },
    Column {
        title: "ALL TYPES",
        width: 10,
        from_width: 100,
        is_descending: true,
        text: |row, _| bytes(row.device_usage_bytes),
        key: |row| Key::Number(Some(row.device_usage_bytes as f64)),
    },
    Column {
        title: "BUFFERS",
        width: 8,
        from_width: 56,
        is_descending: true,
        text: |row, _| row.buffers.map(grouped).unwrap_or_default(),
        key: |row| Key::Number(row.buffers.map(|buffers| buffers as f64)),
    },
    Column {
        title: BY_AGE,
        width: 6,
        from_width: 72,
        is_descending: true,
        text: |row, now| row.start_time_seconds.map(|start| age(now - start)).unwrap_or_default(),
        // The oldest has started first.
        key: |row| Key::Number(row.start_time_seconds.map(|start| -start)),
    },
    Column {
        title: "GROWTH/s",
        width: 10,
        from_width: 92,
        is_descending: true,
        text: |row, _| {
            row.growth_bytes_per_second.map(|growth| bytes(growth.max(0.0) as u64)).unwrap_or_default()
        },
        key: |row| Key::Number(row.growth_bytes_per_second),
    },
    Column {
        title: "LEAK",
        width: 5,
        from_width: 80,
        is_descending: true,
        text: |row, _| row.leak_score.map(|score| format!("{:.0}%", score * 100.0)).unwrap_or_default(),
        key: |row| Key::Number(row.leak_score),
    },
    Column {
        title: "POD OR JOB",
        width: 32,
        from_width: 160,
        is_descending: false,
        text: |row, _| row.belongs_to.clone(),
        key: |row| Key::Text(row.belongs_to.to_lowercase()),
    },
    Column {
        title: "PROCESS",
        width: 0,
        from_width: 0,
        is_descending: false,
        text: |row, _| row.name.clone(),
        key: |row| Key::Text(row.name.to_lowercase()),
    },
];

/// Of buffers.
pub(super) const BUFFER: &[Column<Buffer>] = &[
    Column {
        title: "DEV",
        width: 5,
        from_width: 0,
        is_descending: false,
        text: |buffer, _| buffer.device.to_string(),
        key: |buffer| Key::Number(Some(f64::from(buffer.device))),
    },
    Column {
        title: "TYPE",
        width: 13,
        from_width: 48,
        is_descending: false,
        text: |buffer, _| buffer.memory_type.clone(),
        key: |buffer| Key::Text(buffer.memory_type.clone()),
    },
    Column {
        title: "SIZE",
        width: 11,
        from_width: 0,
        is_descending: true,
        text: |buffer, _| bytes(buffer.size_bytes),
        key: |buffer| Key::Number(Some(buffer.size_bytes as f64)),
    },
    Column {
        title: "BYTES",
        width: 18,
        from_width: 100,
        is_descending: true,
        text: |buffer, _| grouped(buffer.size_bytes),
        key: |buffer| Key::Number(Some(buffer.size_bytes as f64)),
    },
    Column {
        title: BY_AGE,
        width: 8,
        from_width: 0,
        is_descending: true,
        text: |buffer, now| age(now - buffer.allocated_timestamp_seconds),
        key: |buffer| Key::Number(Some(-buffer.allocated_timestamp_seconds)),
    },
    Column {
        title: "REFS",
        width: 6,
        from_width: 64,
        is_descending: true,
        text: |buffer, _| buffer.references.to_string(),
        key: |buffer| Key::Number(Some(f64::from(buffer.references))),
    },
    Column {
        title: "BUFFER",
        width: 0,
        from_width: 0,
        is_descending: false,
        text: |buffer, _| buffer.buffer_id.clone(),
        key: |buffer| Key::Text(format!("{:>18}", buffer.buffer_id)),
    },
];

/// Where a column stands in its table; the first one for a title that the table does not have.
pub(super) fn position<R>(columns: &[Column<R>], title: &str) -> Option<usize> {
    columns.iter().position(|column| column.title == title)
}

/// The columns that a terminal of a width has room for, each with where it begins and ends.
pub(super) fn visible<R>(columns: &[Column<R>], width: u16) -> Vec<(usize, u16, u16)> {
    let mut begin = 0;
    let mut found = Vec::new();
    for (at, column) in columns.iter().enumerate().filter(|(_, column)| column.from_width <= width) {
        let end = if column.width == 0 { width } else { begin + column.width };
        found.push((at, begin, end));
        begin = end + 1;
    }
    found
}
