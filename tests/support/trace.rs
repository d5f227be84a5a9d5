//! Spans and log records as a collector received them, in the shape in which tests ask for them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::otlp::{Collector, Received};

/// One span.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    pub parent_id: String,
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
    /// OK, ERROR or nothing.
    pub status: String,
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<Event>,
}

/// An event of a span.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
}

/// One log record.
#[derive(Clone, Debug)]
pub struct Record {
    pub event_name: String,
    pub severity: String,
    pub body: String,
    pub trace_id: String,
    pub span_id: String,
    pub attributes: BTreeMap<String, String>,
}

/// All spans, in the order of their coming. No span comes twice.
pub fn spans(received: &Received) -> Vec<Span> {
    let spans: Vec<Span> = items(received, ["resourceSpans", "scopeSpans", "spans"]).map(Span::of).collect();
    let mut ids: Vec<_> = spans.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "a span came twice: {spans:?}");
    spans
}

/// Waits until a process's own span has come, which is the last of it, and gives all that has come.
pub fn process_ended(sink: &mut Collector) -> Received {
    sink.wait_for("the process's span", |received| {
        spans(received).iter().any(|span| span.name.starts_with("process "))
    })
}

/// All log records, in the order of their coming.
pub fn records(received: &Received) -> Vec<Record> {
    items(received, ["resourceLogs", "scopeLogs", "logRecords"]).map(Record::of).collect()
}

fn items<'a>(received: &'a Received, path: [&'a str; 3]) -> impl Iterator<Item = &'a Value> {
    let [resources, scopes, items] = path;
    let resources = received.0.iter().flat_map(move |request| elements(&request["body"][resources]));
    resources
        .flat_map(move |resource| elements(&resource[scopes]))
        .flat_map(move |scope| elements(&scope[items]))
}

impl Span {
    fn of(span: &Value) -> Span {
        let number = |name: &str| span[name].as_str().unwrap().parse().unwrap();
        Span {
            trace_id: hex(&span["traceId"]),
            span_id: hex(&span["spanId"]),
            parent_id: hex(&span["parentSpanId"]),
            name: text(&span["name"]),
            start_ns: number("startTimeUnixNano"),
            end_ns: number("endTimeUnixNano"),
            status: text(&span["status"]["code"]).trim_start_matches("STATUS_CODE_").to_owned(),
            attributes: attributes(&span["attributes"]),
            events: elements(&span["events"])
                .map(|event| Event {
                    name: text(&event["name"]),
                    attributes: attributes(&event["attributes"]),
                })
                .collect(),
        }
    }

    pub fn number(&self, attribute: &str) -> u64 {
        self.attributes[attribute].parse().unwrap()
    }

    pub fn event(&self, name: &str) -> &Event {
        let found = self.events.iter().find(|event| event.name == name);
        found.unwrap_or_else(|| panic!("no event {name:?} in {:?}", self.events))
    }
}

impl Record {
    fn of(record: &Value) -> Record {
        Record {
            event_name: text(&record["eventName"]),
            severity: text(&record["severityText"]),
            body: text(&record["body"]["stringValue"]),
            trace_id: hex(&record["traceId"]),
            span_id: hex(&record["spanId"]),
            attributes: attributes(&record["attributes"]),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The official classes write bytes in base64, and people write ids in hexadecimal.
fn hex(value: &Value) -> String {
    let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(attributes: &Value) -> BTreeMap<String, String> {
    let pairs = elements(attributes).map(|attribute| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (attribute["key"].as_str().unwrap().to_owned(), text)
    });
    pairs.collect()
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
