//! The shapes of the past in the JSON API.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The answer to /api/v1/range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// What was asked for.
    pub series: String,
    /// Its unit: By, By/s, or a count in braces.
    pub unit: String,
    /// When the first point begins, in seconds since the epoch.
    pub start_seconds: f64,
    /// When the last point ends.
    pub end_seconds: f64,
    /// The time that each point stands for.
    pub step_seconds: f64,
    /// A page of series, devices before processes.
    pub results: Vec<RangeSeries>,
    /// What to ask for next; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

/// One place over the time that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RangeSeries {
    /// The device.
    pub device: u16,
    /// The memory type.
    pub memory_type: String,
    /// Whose memory it is; absent for the device as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// That process's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<String>,
    /// When it started, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_time_seconds: Option<f64>,
    /// One for each step from `start_seconds` on; null where nothing is known.
    pub points: Vec<Option<RangePoint>>,
}

/// The lowest, the mean and the highest value.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct RangePoint(pub [f64; 3]);

impl Serialize for RangePoint {
    /// Whole numbers are written as such: most are bytes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.map(Figure).serialize(serializer)
    }
}

struct Figure(f64);

/// Above this, not every whole number is a float.
const WHOLE_MAX: f64 = (1u64 << 53) as f64;

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Figure(value) = *self;
        if (0.0..=WHOLE_MAX).contains(&value) && value.fract() == 0.0 {
            serializer.serialize_u64(value as u64)
        } else {
            serializer.serialize_f64(value)
        }
    }
}

/// The answer to /api/v1/events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// A page of events, in the order that was asked for.
    pub events: Vec<Event>,
    /// What to ask for next; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order in which events were written; a cursor too.
    pub id: i64,
    /// When, in seconds since the epoch.
    pub timestamp_seconds: f64,
    /// What kind of event it is.
    pub kind: String,
    /// The device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<u16>,
    /// The memory type.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_type: Option<String>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<String>,
    /// What else there is to say, by name.
    pub figures: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_short() {
        let points =
            vec![Some(RangePoint([0.0, 1.5, 12_884_901_888.0])), None, Some(RangePoint([1e30, 1e30, 1e30]))];
        let text = serde_json::to_string(&points).expect("numbers");
        assert_eq!(text, "[[0,1.5,12884901888],null,[1e+30,1e+30,1e+30]]");
        assert_eq!(serde_json::from_str::<Vec<Option<RangePoint>>>(&text).expect("as written"), points);
    }
}
