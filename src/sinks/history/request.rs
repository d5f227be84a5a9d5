//! What is asked of the past, parsed from a URL's query: the same whether it came over HTTP or from a command line.

use super::events::Kind;
use super::grid::Grid;
use super::measure::Measure;
use crate::registry::MemoryType;
use crate::sinks::query::{Refused, device, limit, memory_type, number, parameters, unknown};

/// Points of a series in one answer, at most: as Prometheus has it, and more than a screen has columns.
const STEPS_MAX: usize = 11_000;
/// Points of a series when no step is said.
const STEPS_DEFAULT: u64 = 500;
/// The time that is shown when no start is said.
const TIME_DEFAULT_MS: u64 = 3_600_000;
const SERIES_DEFAULT: usize = 100;
/// Series in a page, at most.
pub(super) const SERIES_MAX: usize = 1000;
/// Points in one answer, at most: about four megabytes of JSON. Where series have many, fewer are in a page.
const POINTS_MAX: usize = 100_000;
const EVENTS_DEFAULT: usize = 100;
const EVENTS_MAX: usize = 10_000;
/// The year 9999: what is later is milliseconds, or a mistake.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// Series over a time.
#[derive(Clone, PartialEq, Debug)]
pub struct RangeRequest {
    pub(super) measure: Measure,
    /// Whether processes are told apart.
    pub(super) by_process: bool,
    pub(super) device: Option<u16>,
    pub(super) memory_type: Option<MemoryType>,
    pub(super) pid: Option<u32>,
    pub(super) start_ms: u64,
    pub(super) end_ms: u64,
    pub(super) step_ms: u64,
    pub(super) limit: usize,
    /// The number of the last series that is known already.
    pub(super) cursor: i64,
}

/// Events, in the order in which they were written.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct EventRequest {
    pub(super) kind: Option<Kind>,
    pub(super) device: Option<u16>,
    pub(super) pid: Option<u32>,
    pub(super) start_ms: Option<u64>,
    pub(super) end_ms: Option<u64>,
    pub(super) newest_first: bool,
    pub(super) limit: usize,
    /// The last event that is known already.
    pub(super) after: Option<i64>,
}

impl RangeRequest {
    /// Reads it at a moment in milliseconds since the epoch.
    pub fn parse(query: Option<&str>, now_ms: u64) -> Result<RangeRequest, Refused> {
        let (mut start, mut end, mut step, mut by) = (None, None, None, None);
        let mut request = RangeRequest {
            measure: Measure::MemoryUsage,
            by_process: false,
            device: None,
            memory_type: None,
            pid: None,
            start_ms: 0,
            end_ms: 0,
            step_ms: 0,
            limit: SERIES_DEFAULT,
            cursor: -1,
        };
        for (name, value) in parameters(query) {
            match name.as_ref() {
                "series" => request.measure = measure(&value)?,
                "by" => by = Some(by_process(&value)?),
                "device" => request.device = Some(device(&value)?),
                "memory_type" => request.memory_type = Some(memory_type(&value)?),
                "pid" => request.pid = Some(number(&name, &value, "a process id")?),
                "start" => start = Some(time_ms(&name, &value)?),
                "end" => end = Some(time_ms(&name, &value)?),
                "step" => step = Some(step_ms(&value)?),
                "limit" => request.limit = limit(&value, SERIES_MAX, "series")?,
                "cursor" => request.cursor = cursor(&name, &value)?,
                _ => {
                    let known = "series, by, device, memory_type, pid, start, end, step, limit and cursor";
                    return Err(unknown(&name, known));
                }
            }
        }
        request.by_process = by.unwrap_or(request.pid.is_some());
        if request.pid.is_some() && !request.by_process {
            return Err(Refused(
                "by: a device's memory has no pid; leave out pid, or write by=process".to_owned(),
            ));
        }
        request.end_ms = end.unwrap_or(now_ms);
        request.start_ms = start.unwrap_or(request.end_ms.saturating_sub(TIME_DEFAULT_MS));
        if request.start_ms >= request.end_ms {
            return Err(Refused("start: it has to be before end, which is now if it is not said".to_owned()));
        }
        let time_ms = request.end_ms - request.start_ms;
        request.step_ms = step.unwrap_or_else(|| time_ms.div_ceil(STEPS_DEFAULT).next_multiple_of(1000));
        let steps = Grid::over(request.start_ms, request.end_ms, request.step_ms).steps;
        if steps > STEPS_MAX {
            let step = time_ms.div_ceil(STEPS_MAX as u64 - 1).div_ceil(1000);
            return Err(Refused(format!(
                "step: there would be {steps} points of each series, more than {STEPS_MAX}; take {step} or more, or a \
                 shorter time"
            )));
        }
        Ok(request)
    }

    /// How many series go into a page of so many steps.
    pub(super) fn series_max(&self, steps: usize) -> usize {
        self.limit.min(POINTS_MAX / steps.max(1)).max(1)
    }
}

impl EventRequest {
    /// Reads it.
    pub fn parse(query: Option<&str>) -> Result<EventRequest, Refused> {
        let mut request = EventRequest { limit: EVENTS_DEFAULT, ..EventRequest::default() };
        for (name, value) in parameters(query) {
            match name.as_ref() {
                "kind" => request.kind = Some(kind(&value)?),
                "device" => request.device = Some(device(&value)?),
                "pid" => request.pid = Some(number(&name, &value, "a process id")?),
                "start" => request.start_ms = Some(time_ms(&name, &value)?),
                "end" => request.end_ms = Some(time_ms(&name, &value)?),
                "order" => request.newest_first = newest_first(&value)?,
                "limit" => request.limit = limit(&value, EVENTS_MAX, "events")?,
                "after" => request.after = Some(cursor(&name, &value)?),
                _ => return Err(unknown(&name, "kind, device, pid, start, end, order, limit and after")),
            }
        }
        Ok(request)
    }
}

fn one_of<T>(
    name: &str,
    value: &str,
    found: Option<T>,
    known: impl Iterator<Item = &'static str>,
) -> Result<T, Refused> {
    let known = known.collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| Refused(format!("{name}: {value:?} is none of {known}")))
}

fn measure(value: &str) -> Result<Measure, Refused> {
    one_of("series", value, Measure::from_name(value), Measure::ALL.into_iter().map(Measure::name))
}

fn kind(value: &str) -> Result<Kind, Refused> {
    one_of("kind", value, Kind::from_name(value), Kind::ALL.into_iter().map(Kind::name))
}

fn by_process(value: &str) -> Result<bool, Refused> {
    let known = ["device", "process"];
    let found = known.iter().position(|name| *name == value).map(|index| index == 1);
    one_of("by", value, found, known.into_iter())
}

fn newest_first(value: &str) -> Result<bool, Refused> {
    let known = ["oldest", "newest"];
    let found = known.iter().position(|name| *name == value).map(|index| index == 1);
    one_of("order", value, found, known.into_iter())
}

fn time_ms(name: &str, value: &str) -> Result<u64, Refused> {
    let wanted = "a time in seconds since the epoch";
    let seconds: f64 = number(name, value, wanted)?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(Refused(format!("{name}: {value:?} is not {wanted}")));
    }
    Ok((seconds * 1000.0).round() as u64)
}

fn step_ms(value: &str) -> Result<u64, Refused> {
    let wanted = "a number of seconds from 1 on";
    let seconds: u64 = number("step", value, wanted)?;
    if seconds == 0 || seconds as f64 > SECONDS_MAX {
        return Err(Refused(format!("step: {value:?} is not {wanted}")));
    }
    Ok(seconds * 1000)
}

fn cursor(name: &str, value: &str) -> Result<i64, Refused> {
    number(name, value, "a cursor; take next_cursor of the page before")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_range_has_sensible_defaults() {
        let request = RangeRequest::parse(None, NOW_MS).expect("nothing is asked");
        assert_eq!((request.start_ms, request.end_ms), (NOW_MS - 3_600_000, NOW_MS));
        assert_eq!(request.step_ms, 8000);
        assert!(!request.by_process);
        let request = RangeRequest::parse(Some("pid=7&start=1799999990&end=1799999999.5&step=1"), NOW_MS);
        let request = request.expect("all of it is right");
        assert!(request.by_process);
        assert_eq!(
            (request.start_ms, request.end_ms, request.step_ms),
            (NOW_MS - 10_000, NOW_MS - 500, 1000)
        );
        assert_eq!(request.series_max(11_000), 9);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |query: &str, expected: &str| {
            let told = RangeRequest::parse(Some(query), NOW_MS).expect_err("must be refused").to_string();
            assert!(told.contains(expected), "{query}: {told}");
        };
        check("serie=1", "parameter \"serie\" is not known");
        check("series=usage", "none of memory_usage, memory_peak, buffers");
        check("by=pod", "none of device, process");
        check("by=device&pid=1", "by=process");
        check("start=1800000001", "before end");
        check("start=NaN", "seconds since the epoch");
        check("start=1799999990000", "seconds since the epoch");
        check("step=0", "from 1 on");
        check("start=1790000000&step=1", "take 910 or more");
        check("limit=1001", "from 1 to 1000");
        check("cursor=x", "next_cursor");
        let told = EventRequest::parse(Some("kind=oom")).expect_err("must be refused").to_string();
        assert!(told.contains("out_of_memory"), "{told}");
        assert!(EventRequest::parse(Some("order=random")).is_err());
    }
}
