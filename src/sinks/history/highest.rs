//! The most that was in use on each device during the last day.

use std::collections::HashMap;

use super::archive::{ArchiveError, OpenArchive};
use super::measure::Measure;
use super::request::{RangeRequest, SERIES_MAX};
use crate::registry::MemoryType;

const DAY_MS: u64 = 86_400_000;
/// Coarse enough for few points, and fine enough to tell since when there are any.
const STEP_MS: u64 = 600_000;

/// What the history says of a memory type's usage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HighestUsage {
    /// When what is known begins, in seconds since the epoch; `None` where nothing is known.
    pub since_unix_seconds: Option<f64>,
    /// The highest usage of each device, by index.
    pub bytes_by_device: HashMap<u16, u64>,
}

/// A day, up to a moment in milliseconds since the epoch.
pub fn start_of_day_ms(now_ms: u64) -> u64 {
    now_ms.saturating_sub(DAY_MS)
}

impl OpenArchive {
    /// The highest usage of the day before a moment, on one device or on all. It begins up to ten minutes earlier.
    pub fn highest_usage(
        &self,
        memory_type: MemoryType,
        device: Option<u16>,
        now_ms: u64,
    ) -> Result<HighestUsage, ArchiveError> {
        let mut request = RangeRequest {
            measure: Measure::MemoryUsage,
            by_process: false,
            device,
            memory_type: Some(memory_type),
            pid: None,
            start_ms: start_of_day_ms(now_ms),
            end_ms: now_ms.max(1),
            step_ms: STEP_MS,
            limit: SERIES_MAX,
            cursor: -1,
        };
        let mut highest = HighestUsage::default();
        loop {
            let page = self.range(&request)?;
            for series in &page.results {
                let known =
                    series.points.iter().enumerate().filter_map(|(step, point)| Some((step, (*point)?.0)));
                for (step, [_, _, max]) in known {
                    let since = page.start_seconds + step as f64 * page.step_seconds;
                    let earliest = highest.since_unix_seconds.get_or_insert(since);
                    *earliest = earliest.min(since);
                    let bytes = highest.bytes_by_device.entry(series.device).or_default();
                    *bytes = (*bytes).max(max as u64);
                }
            }
            match page.next_cursor.and_then(|cursor| cursor.parse().ok()) {
                Some(cursor) => request.cursor = cursor,
                None => return Ok(highest),
            }
        }
    }
}
