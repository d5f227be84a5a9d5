//! A recorded workload, played again and again on a simulation's clock.

use std::collections::HashMap;

/// What a server with ttnn allocated (record_ttnn.py).
const TTNN_SERVING: &str = include_str!("ttnn_serving.txt");

/// What happened to a buffer of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// It was allocated, with that many bytes.
    Allocate(u64),
    /// It was freed.
    Free,
}

struct Event {
    seconds: f64,
    buffer: u32,
    act: Act,
}

/// A record, and how far it has been played.
///
/// What was never freed is what the process had loaded: it is allocated in the first pass alone. Each pass has a pace of its own, so that
/// no two are the same.
pub(super) struct Playback {
    events: Vec<Event>,
    next: usize,
    is_first_pass: bool,
    is_kept: HashMap<u32, bool>,
    began_seconds: f64,
    pace: f64,
}

impl Playback {
    pub(super) fn of_ttnn() -> Playback {
        let events: Vec<Event> =
            TTNN_SERVING.lines().filter(|line| !line.starts_with('#')).map(Event::parse).collect();
        let mut is_kept = HashMap::new();
        for event in &events {
            is_kept.insert(event.buffer, event.act != Act::Free);
        }
        Playback { events, next: 0, is_first_pass: true, is_kept, began_seconds: 0.0, pace: 1.0 }
    }

    /// What happens up to a moment, in order. `pace` chooses how fast the next pass is.
    pub(super) fn until(&mut self, seconds: f64, mut pace: impl FnMut() -> f64) -> Vec<(u32, Act)> {
        let mut due = Vec::new();
        loop {
            let Some(event) = self.events.get(self.next) else {
                self.began_seconds = seconds;
                self.pace = pace();
                self.is_first_pass = false;
                self.next = 0;
                return due;
            };
            if self.began_seconds + event.seconds / self.pace > seconds {
                return due;
            }
            self.next += 1;
            if self.is_first_pass || !self.is_kept[&event.buffer] {
                due.push((event.buffer, event.act));
            }
        }
    }
}

impl Event {
    fn parse(line: &str) -> Event {
        let fields: Vec<&str> = line.split(' ').collect();
        let number =
            |index: usize| fields[index].parse::<u64>().expect("the record is a part of this program");
        let act = if fields[1] == "+" { Act::Allocate(number(3)) } else { Act::Free };
        Event { seconds: number(0) as f64 / 1e3, buffer: number(2) as u32, act }
    }
}
