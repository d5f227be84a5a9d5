//! A real VictoriaMetrics, which takes metrics over OTLP and is asked in PromQL.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Directory, Response, installed_peer, otlp, request, wait_for};

/// A running VictoriaMetrics, ended with the test.
pub struct VictoriaMetrics {
    child: Child,
    http: SocketAddr,
    _directory: Directory,
}

impl VictoriaMetrics {
    pub fn start() -> VictoriaMetrics {
        let directory = Directory::new();
        let http = SocketAddr::from(([127, 0, 0, 1], otlp::free_port()));
        let child = Command::new(installed_peer("bin/victoria-metrics"))
            .arg(format!("-storageDataPath={}", directory.join("data").display()))
            .arg(format!("-httpListenAddr={http}"))
            .args(["-search.latencyOffset=0s", "-memory.allowedBytes=64MB"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let victoria_metrics = VictoriaMetrics { child, http, _directory: directory };
        wait_for("VictoriaMetrics to be ready", || {
            std::net::TcpStream::connect(http).ok()?;
            (victoria_metrics.get("/health").status == 200).then_some(())
        });
        victoria_metrics
    }

    /// Where it takes metrics over OTLP.
    pub fn otlp_url(&self) -> String {
        format!("http://{}/opentelemetry/v1/metrics", self.http)
    }

    /// What it answers to an instant query: labels and values.
    pub fn query(&self, promql: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        self.get("/internal/force_flush");
        let query: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let response = self.get(&format!("/api/v1/query?query={query}&nocache=1"));
        let answer: Value = serde_json::from_str(&response.body).unwrap_or_default();
        assert_eq!(answer["status"], "success", "{promql}: {response:?}");
        let series = answer["data"]["result"].as_array().unwrap().iter();
        let series = series.map(|series| {
            let labels = serde_json::from_value(series["metric"].clone()).unwrap();
            (labels, series["value"][1].as_str().unwrap().parse().unwrap())
        });
        series.collect()
    }

    fn get(&self, path: &str) -> Response {
        // In the old version of HTTP an answer is never sent in chunks.
        request(self.http, &format!("GET {path} HTTP/1.0\r\nHost: victoria-metrics\r\n\r\n"))
    }
}

impl Drop for VictoriaMetrics {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
