//! What each device held a while ago: one value for each look, for as long as the widest sparkline goes back.

use std::collections::{BTreeMap, VecDeque};

use crate::views::json::Devices;
use crate::views::json::history::Range;

/// Values of a series that are kept: more than the widest screen has columns for.
pub(super) const SAMPLES_MAX: usize = 512;

/// A device's memory of one type.
type Place = (u16, String);

/// One series for each place; they end at the same look.
#[derive(Debug, Default)]
pub(super) struct Samples {
    series: BTreeMap<Place, VecDeque<Option<u64>>>,
    /// The newest of them, which are not shown while the picture stands still.
    hidden: Option<usize>,
}

impl Samples {
    /// Adds what was seen at a look; nothing is known of a place that was not seen.
    pub(super) fn push(&mut self, devices: &Devices) {
        self.push_gap();
        for device in &devices.devices {
            for memory in &device.memory {
                let series = self.series.entry((device.device, memory.memory_type.clone())).or_default();
                if series.is_empty() {
                    series.push_back(None);
                }
                series.back_mut().map(|newest| newest.replace(memory.usage_bytes));
            }
        }
    }

    /// Adds a look at which nothing was seen.
    pub(super) fn push_gap(&mut self) {
        for series in self.series.values_mut() {
            series.push_back(None);
            if series.len() > SAMPLES_MAX {
                series.pop_front();
            }
        }
        self.hidden = self.hidden.map(|hidden| hidden + 1);
    }

    /// Puts what a daemon remembers before what was seen since.
    pub(super) fn remember(&mut self, past: &Range) {
        for told in &past.results {
            let series = self.series.entry((told.device, told.memory_type.clone())).or_default();
            let highest = |point: &crate::views::json::history::RangePoint| point.0[2] as u64;
            for point in told.points.iter().rev() {
                if series.len() >= SAMPLES_MAX {
                    break;
                }
                series.push_front(point.as_ref().map(highest));
            }
        }
    }

    /// From now on what is shown stays as it is, or no longer.
    pub(super) fn stand_still(&mut self, is_still: bool) {
        self.hidden = is_still.then_some(0);
    }

    /// The last values of a place, oldest first; fewer than wanted where it is not known for so long.
    pub(super) fn last(&self, device: u16, memory_type: &str, wanted: usize) -> Vec<Option<u64>> {
        let Some(series) = self.series.get(&(device, memory_type.to_owned())) else { return Vec::new() };
        let end = series.len().saturating_sub(self.hidden.unwrap_or(0));
        let begin = end.saturating_sub(wanted);
        series.range(begin..end).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::invented;
    use crate::views::json::history::{RangePoint, RangeSeries};

    fn devices(usage_bytes: u64) -> Devices {
        let mut devices = invented::picture(1, 0).devices;
        devices.devices[0].memory.truncate(1);
        devices.devices[0].memory[0].usage_bytes = usage_bytes;
        devices
    }

    #[test]
    fn a_series_goes_on_over_gaps_and_stands_still_on_demand() {
        let mut samples = Samples::default();
        samples.push(&devices(1));
        samples.push_gap();
        samples.push(&devices(3));
        assert_eq!(samples.last(0, "dram", 10), [Some(1), None, Some(3)]);
        assert_eq!(samples.last(0, "dram", 2), [None, Some(3)]);
        samples.stand_still(true);
        samples.push(&devices(4));
        assert_eq!(samples.last(0, "dram", 1), [Some(3)]);
        samples.stand_still(false);
        assert_eq!(samples.last(0, "dram", 1), [Some(4)]);
        assert_eq!(samples.last(1, "dram", 1), []);
        for _ in 0..2 * SAMPLES_MAX {
            samples.push(&devices(5));
        }
        assert_eq!(samples.last(0, "dram", usize::MAX).len(), SAMPLES_MAX);
    }

    #[test]
    fn what_the_daemon_remembers_comes_before() {
        let mut samples = Samples::default();
        samples.push(&devices(9));
        let results = vec![RangeSeries {
            device: 0,
            memory_type: "dram".to_owned(),
            pid: None,
            process: None,
            start_time_seconds: None,
            points: vec![Some(RangePoint([1.0, 2.0, 3.0])), None],
        }];
        let past = Range {
            series: "memory_usage".to_owned(),
            unit: "By".to_owned(),
            start_seconds: 0.0,
            end_seconds: 2.0,
            step_seconds: 1.0,
            results,
            next_cursor: None,
        };
        samples.remember(&past);
        assert_eq!(samples.last(0, "dram", 10), [Some(3), None, Some(9)]);
    }
}
