//! Collectors to export to: one that does as a test tells it, and rotel, which hands on what it gets.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Peer, installed_peer, peers, wait_for};

/// A collector made of gRPC's own server and OTLP's official classes.
pub struct Collector {
    peer: Peer,
    pub http: u16,
    pub grpc: u16,
}

impl Collector {
    pub fn start() -> Collector {
        Collector::start_with(&[])
    }

    /// One with more flags; `tests/peers/otlp_collector.py` says which.
    pub fn start_with(flags: &[&str]) -> Collector {
        let mut command = Command::new(installed_peer("otlp/bin/python"));
        let mut peer = Peer::start(command.arg(peers().join("otlp_collector.py")).args(flags));
        let ports = peer.ask(r#"{"op":"ports"}"#);
        let port = |name: &str| u16::try_from(ports[name].as_u64().unwrap()).unwrap();
        Collector { http: port("http"), grpc: port("grpc"), peer }
    }

    /// One that listens on given ports and writes down what it accepts, so that another can go on where it ends.
    pub fn restart(http: u16, grpc: u16, record: &Path) -> Collector {
        let (http, grpc) = (http.to_string(), grpc.to_string());
        Collector::start_with(&[
            "--http-port",
            &http,
            "--grpc-port",
            &grpc,
            "--record",
            record.to_str().unwrap(),
        ])
    }

    pub fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    pub fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// What it answers to the next requests, in place of accepting them.
    pub fn answer(&mut self, mut answer: Value) {
        answer["op"] = "answer".into();
        self.peer.ask(&answer.to_string());
    }

    /// What it has accepted so far.
    pub fn received(&mut self) -> Received {
        let mut answer = self.peer.ask(r#"{"op":"requests"}"#);
        Received(serde_json::from_value(answer["requests"].take()).unwrap())
    }

    /// What came, accepted or not: seconds on a steady clock.
    pub fn attempts(&mut self) -> Vec<f64> {
        let answer = self.peer.ask(r#"{"op":"attempts"}"#);
        answer["attempts"].as_array().unwrap().iter().map(|attempt| attempt["at"].as_f64().unwrap()).collect()
    }

    /// Waits until what it has accepted is as it should be.
    pub fn wait_for(&mut self, what: &str, mut is_so: impl FnMut(&Received) -> bool) -> Received {
        wait_for(what, || Some(self.received()).filter(|received| is_so(received)))
    }

    /// Ends it as the kernel's out-of-memory killer would.
    pub fn kill(mut self) {
        self.peer.kill();
    }
}

/// Requests, in the order of their coming.
#[derive(Clone, Debug)]
pub struct Received(pub Vec<Value>);

/// One data point.
#[derive(Clone, Debug)]
pub struct Point {
    pub attributes: BTreeMap<String, String>,
    /// A number, or a histogram's count.
    pub value: f64,
    pub start_ns: u64,
    pub time_ns: u64,
    /// gauge, sum, histogram or exponentialHistogram.
    pub kind: String,
    /// What belongs to all of the metric's points.
    pub is_delta: bool,
    pub is_monotonic: bool,
    pub body: Value,
}

impl Received {
    /// The metrics of all requests, each as the official classes write it in JSON.
    pub fn metrics(&self) -> impl Iterator<Item = &Value> {
        self.of("resourceMetrics", "scopeMetrics", "metrics")
    }

    fn of<'a>(
        &'a self,
        resources: &'a str,
        scopes: &'a str,
        items: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        let resources = self.0.iter().flat_map(move |request| elements(&request["body"][resources]));
        resources
            .flat_map(move |resource| elements(&resource[scopes]))
            .flat_map(move |scope| elements(&scope[items]))
    }

    /// The attributes of the resource that the last request names.
    pub fn resource(&self) -> BTreeMap<String, String> {
        let last = &self.0.last().expect("a request")["body"];
        let resources = ["resourceMetrics", "resourceSpans", "resourceLogs"];
        let resource = resources.iter().find_map(|name| last[name][0].get("resource")).expect("a resource");
        attributes(&resource["attributes"])
    }

    /// The data points of a metric.
    pub fn points(&self, name: &str) -> Vec<Point> {
        let metrics = self.metrics().filter(|metric| metric["name"] == name);
        metrics.flat_map(points).collect()
    }

    /// Those of the latest reading that has any.
    pub fn latest(&self, name: &str) -> Vec<Point> {
        let mut points = self.points(name);
        let latest_ns = points.iter().map(|point| point.time_ns).max();
        points.retain(|point| Some(point.time_ns) == latest_ns);
        points
    }

    /// The number of spans.
    pub fn spans_count(&self) -> usize {
        self.of("resourceSpans", "scopeSpans", "spans").count()
    }

    /// The number of data points.
    pub fn points_count(&self) -> usize {
        self.metrics().map(|metric| points(metric).len()).sum()
    }
}

fn points(metric: &Value) -> Vec<Point> {
    let kinds = ["gauge", "sum", "histogram", "exponentialHistogram"];
    let kind = kinds.into_iter().find(|kind| metric.get(*kind).is_some()).expect("a known kind");
    let data = &metric[kind];
    let number = |value: &Value| value.as_str().map_or_else(|| value.as_f64(), |text| text.parse().ok());
    let nanoseconds = |value: &Value| value.as_str().map_or(0, |text| text.parse().unwrap());
    let points = elements(&data["dataPoints"]).map(|point| Point {
        attributes: attributes(&point["attributes"]),
        value: ["asInt", "asDouble", "count"]
            .into_iter()
            .find_map(|name| number(&point[name]))
            .unwrap_or_default(),
        start_ns: nanoseconds(&point["startTimeUnixNano"]),
        time_ns: nanoseconds(&point["timeUnixNano"]),
        kind: kind.to_owned(),
        is_delta: data["aggregationTemporality"] == "AGGREGATION_TEMPORALITY_DELTA",
        is_monotonic: data["isMonotonic"] == json!(true),
        body: point.clone(),
    });
    points.collect()
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

/// A real collector, which hands on over HTTP what it gets.
pub struct Rotel {
    child: Child,
    pub http: u16,
    pub grpc: u16,
}

impl Rotel {
    pub fn start(sink: &Collector) -> Rotel {
        let (http, grpc) = (free_port(), free_port());
        let mut child = Command::new(installed_peer("otlp/rotel-agent"))
            .arg("start")
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--batch-timeout", "100ms"])
            .args(["--otlp-exporter-endpoint", &sink.http_url()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("rotel to listen", || {
            assert!(child.try_wait().unwrap().is_none(), "rotel has ended");
            [http, grpc].into_iter().all(|port| TcpStream::connect(("127.0.0.1", port)).is_ok()).then_some(())
        });
        Rotel { child, http, grpc }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
