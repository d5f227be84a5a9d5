//! A real Alertmanager, and a webhook that hears what it has to say.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{Directory, PATIENCE, installed_peer, request, wait_for};

/// A running Alertmanager, ended with the test.
pub struct Alertmanager {
    child: Child,
    http: SocketAddr,
    _directory: Directory,
}

impl Alertmanager {
    pub fn start(configuration: &str) -> Alertmanager {
        let directory = Directory::new();
        fs::write(directory.join("alertmanager.yml"), configuration).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut child = Command::new(installed_peer("bin/prometheus-alertmanager"))
            .current_dir(directory.path())
            .args(["--config.file=alertmanager.yml", "--storage.path=data", "--log.format=json"])
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = wait_for("Alertmanager to listen", || {
            let log = fs::read_to_string(directory.join("log")).unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("Alertmanager ended with {status}: {log}");
            }
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["msg"] == "Listening on")?["address"].as_str()?.parse().ok()
        });
        let alertmanager = Alertmanager { child, http, _directory: directory };
        wait_for("Alertmanager to be ready", || (alertmanager.get("/-/ready").0 == 200).then_some(()));
        alertmanager
    }

    pub fn address(&self) -> SocketAddr {
        self.http
    }

    /// The state of an alert: active, or suppressed by an inhibition or a silence; `None` where it is not known.
    pub fn state(&self, alertname: &str) -> Option<String> {
        let alerts: Value = serde_json::from_str(&self.get("/api/v2/alerts").1).unwrap();
        let alert = alerts.as_array()?.iter().find(|alert| alert["labels"]["alertname"] == alertname)?;
        Some(alert["status"]["state"].as_str()?.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let response = request(self.http, &format!("GET {path} HTTP/1.0\r\nHost: alertmanager\r\n\r\n"));
        (response.status, response.body)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes notifications until the test program ends.
pub struct Webhook {
    address: SocketAddr,
    notifications: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Webhook {
    pub fn start() -> Webhook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let notifications = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&notifications);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if let Some(notification) = stream.ok().and_then(take) {
                    received.lock().unwrap().push(notification);
                }
            }
        });
        Webhook { address, notifications }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until an alert is told, at that path, to be firing or resolved, and gives it as the payload has it.
    pub fn wait_for(&self, path: &str, alertname: &str, status: &str) -> Value {
        wait_for(&format!("{path} to hear that {alertname} is {status}"), || {
            let notifications = self.notifications.lock().unwrap();
            let told = notifications.iter().filter(|(told_at, _)| told_at == path);
            let mut alerts = told.filter_map(|(_, payload)| payload["alerts"].as_array()).flatten();
            alerts
                .find(|alert| alert["labels"]["alertname"] == alertname && alert["status"] == status)
                .cloned()
        })
    }
}

/// Reads one request, answers it and closes.
fn take(mut stream: TcpStream) -> Option<(String, Value)> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    reader.read_line(&mut head).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    Some((head.split_whitespace().nth(1)?.to_owned(), serde_json::from_slice(&body).ok()?))
}
