//! A real Prometheus that scrapes what a test starts, and is asked over its HTTP API.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Directory, Response, installed_peer, request, wait_for};

/// A running Prometheus, ended with the test.
pub struct Prometheus {
    child: Child,
    directory: Directory,
    http: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes an address every second, as the job "ttmem", in the format that everything else here reads too. Its first
    /// scrape is made some seconds after its start.
    pub fn start(target: SocketAddr) -> Prometheus {
        let scrape = format!(
            "{{job_name: ttmem, scrape_interval: 1s, scrape_protocols: [PrometheusText0.0.4], \
             static_configs: [{{targets: ['{target}']}}]}}"
        );
        Prometheus::start_configured(&format!("scrape_configs: [{scrape}]\n"))
    }

    /// Starts one with a configuration, whose paths have to be absolute.
    pub fn start_configured(text: &str) -> Prometheus {
        Prometheus::start_with(text, &[])
    }

    /// Starts one with a configuration, whose paths have to be absolute, and with more flags.
    pub fn start_with(text: &str, flags: &[&str]) -> Prometheus {
        let directory = Directory::new();
        let configuration = directory.join("prometheus.yml");
        fs::write(&configuration, text).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut child = Command::new(installed_peer("bin/prometheus"))
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = wait_for("Prometheus to listen", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!(
                    "Prometheus ended with {status}: {}",
                    fs::read_to_string(directory.join("log")).unwrap()
                );
            }
            let line = log_lines(&directory).into_iter().find(|line| line["msg"] == "Listening on")?;
            line["address"].as_str()?.parse().ok()
        });
        let prometheus = Prometheus { child, directory, http };
        wait_for("Prometheus to be ready", || (prometheus.get("/-/ready").status == 200).then_some(()));
        prometheus
    }

    /// What it answers to an instant query, which it must do without any warning.
    pub fn query(&self, promql: &str) -> Vec<Series> {
        let data = self.api(&format!("query?query={}", percent_encoded(promql)));
        data["result"].as_array().unwrap().iter().map(Series::of).collect()
    }

    /// The value of an instant query that gives one, or `None` where it gives nothing.
    pub fn value(&self, promql: &str) -> Option<f64> {
        let series = self.query(promql);
        assert!(series.len() <= 1, "{promql} gives several: {series:?}");
        series.first().map(|series| series.values[0])
    }

    /// What it answers to a range query over all that it has scraped, with a point for every scrape.
    pub fn query_range(&self, promql: &str) -> Vec<Series> {
        let [start, end] = ["min", "max"].map(|function| {
            self.value(&format!("{function}_over_time(timestamp(up)[1h:1s])")).expect("it has scraped")
        });
        let query = percent_encoded(promql);
        let data = self.api(&format!("query_range?query={query}&start={start}&end={end}&step=1"));
        data["result"].as_array().unwrap().iter().map(Series::of).collect()
    }

    /// The data of an answer of its API.
    pub fn api(&self, path: &str) -> Value {
        let response = self.get(&format!("/api/v1/{path}"));
        let mut answer: Value = serde_json::from_str(&response.body).unwrap_or_default();
        assert_eq!(
            (response.status, answer["status"].as_str()),
            (200, Some("success")),
            "{path}: {response:?}"
        );
        assert!(answer["warnings"].is_null() && answer["infos"].is_null(), "{path}: {answer}");
        answer["data"].take()
    }

    /// What its log says of warnings and errors.
    pub fn complaints(&self) -> Vec<Value> {
        let lines = log_lines(&self.directory).into_iter();
        lines.filter(|line| line["level"] != "INFO" && line["level"] != "DEBUG").collect()
    }

    fn get(&self, path: &str) -> Response {
        // In the old version of HTTP an answer is never sent in chunks.
        request(self.http, &format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One series of an answer, with its only value or with all of them.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: std::collections::BTreeMap<String, String>,
    pub values: Vec<f64>,
}

impl Series {
    fn of(result: &Value) -> Series {
        let number = |point: &Value| point[1].as_str().unwrap().parse().unwrap();
        let values = match result["values"].as_array() {
            Some(points) => points.iter().map(number).collect(),
            None => vec![number(&result["value"])],
        };
        Series { labels: serde_json::from_value(result["metric"].clone()).unwrap(), values }
    }
}

fn log_lines(directory: &Directory) -> Vec<Value> {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    // The last line may not be whole yet.
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
