//! What the page is told while it is open: the whole state first, and then, moment by moment, what is no longer as it was.
//!
//! The idea is that a device or a process is written once for a moment, in the shape of the JSON API, and that two writings of it that are
//! equal mean that nothing about it has changed.

use std::collections::HashMap;

use serde::Serialize;

use super::findings::Leaks;
use super::json::{Devices, Process, Processes};
use super::trace::Host;
use crate::registry::Snapshot;

/// Everything that the page shows of one moment, written.
#[derive(Debug)]
pub struct Scene {
    timestamp_seconds: f64,
    /// By index.
    devices: HashMap<u16, String>,
    /// By span id, which tells a process from an earlier one with its pid.
    processes: HashMap<String, String>,
    leaks: String,
    has_history: bool,
}

impl Scene {
    /// The scene of a snapshot; whether there is a past to be asked about is told with it.
    pub fn of(snapshot: &Snapshot, host: &Host, has_history: bool) -> Scene {
        let Devices { timestamp_seconds, devices, .. } = Devices::of(snapshot);
        let Processes { processes, .. } = Processes::of(snapshot, host, |_| true);
        let by_span = |process: Process| {
            let text = written(&process);
            (process.span_id, text)
        };
        Scene {
            timestamp_seconds,
            devices: devices.iter().map(|device| (device.device, written(device))).collect(),
            processes: processes.into_iter().map(by_span).collect(),
            leaks: written(&Leaks::of(snapshot).leaks),
            has_history,
        }
    }

    /// All of it, as a server-sent event `state`.
    pub fn whole(&self) -> String {
        let (devices, processes) = (array(self.devices.values()), array(self.processes.values()));
        let Scene { timestamp_seconds, leaks, has_history, .. } = self;
        format!(
            "event: state\ndata: {{\"timestamp_seconds\":{timestamp_seconds},\"has_history\":{has_history},\"devices\":{devices},\
             \"processes\":{processes},\"leaks\":{leaks}}}\n\n"
        )
    }

    /// What differs from a scene before, as a server-sent event `change`: what is new or changed as it is now, and the span ids of
    /// processes that are no longer shown. A device that is once known stays so.
    pub fn since(&self, before: &Scene) -> String {
        let devices = self.devices.iter().filter(|(index, text)| before.devices.get(index) != Some(text));
        let processes =
            self.processes.iter().filter(|(span, text)| before.processes.get(*span) != Some(text));
        let gone: Vec<&String> =
            before.processes.keys().filter(|span| !self.processes.contains_key(*span)).collect();
        let leaks =
            if self.leaks == before.leaks { String::new() } else { format!(",\"leaks\":{}", self.leaks) };
        format!(
            "event: change\ndata: {{\"timestamp_seconds\":{},\"devices\":{},\"processes\":{},\"gone\":{}{leaks}}}\n\n",
            self.timestamp_seconds,
            array(devices.map(|(_, text)| text)),
            array(processes.map(|(_, text)| text)),
            written(&gone),
        )
    }
}

fn written(value: &impl Serialize) -> String {
    // Maps have string keys and floats are finite throughout: these shapes always serialize, and onto one line.
    serde_json::to_string(value).unwrap_or_default()
}

fn array<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let mut all = String::from("[");
    for (at, text) in texts.enumerate() {
        all.push_str(if at == 0 { "" } else { "," });
        all.push_str(text);
    }
    all.push(']');
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn scene(devices: &[(u16, &str)], processes: &[(&str, &str)], leaks: &str) -> Scene {
        Scene {
            timestamp_seconds: 1.5,
            devices: devices.iter().map(|(index, text)| (*index, (*text).to_owned())).collect(),
            processes: processes
                .iter()
                .map(|(span, text)| ((*span).to_owned(), (*text).to_owned()))
                .collect(),
            leaks: leaks.to_owned(),
            has_history: true,
        }
    }

    #[track_caller]
    fn check(event: &str, name: &str, expected: &Value) {
        let data = event.strip_prefix(&format!("event: {name}\ndata: ")).expect("an event of that name");
        let data = data.strip_suffix("\n\n").expect("an event ends with an empty line");
        assert!(!data.contains('\n'), "{data}");
        assert_eq!(serde_json::from_str::<Value>(data).expect("JSON"), *expected);
    }

    #[test]
    fn the_first_event_has_everything_and_later_ones_what_has_changed() {
        let before = scene(&[(0, "1"), (1, "2")], &[("a", "3"), ("b", "4")], "[]");
        let after = scene(&[(0, "1"), (1, "5")], &[("b", "4"), ("c", "6")], "[7]");
        check(
            &scene(&[(1, "2")], &[("a", "3")], "[]").whole(),
            "state",
            &json!({ "timestamp_seconds": 1.5, "has_history": true, "devices": [2], "processes": [3], "leaks": [] }),
        );
        check(
            &after.since(&before),
            "change",
            &json!({ "timestamp_seconds": 1.5, "devices": [5], "processes": [6], "gone": ["a"], "leaks": [7] }),
        );
        check(
            &after.since(&after),
            "change",
            &json!({ "timestamp_seconds": 1.5, "devices": [], "processes": [], "gone": [] }),
        );
    }
}
