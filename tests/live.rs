//! /api/v1/live, as a page and a careless client hear it: over both versions of HTTP, many at once, and until the daemon stops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use support::frames::{Connection, Frame};
use support::web::{TLS, https, start};
use support::{Daemon, PATIENCE};

/// As many as may listen.
const LISTENERS_MAX: usize = 32;

/// What comes, line by line.
struct Listener<R>(R);

impl Listener<BufReader<TcpStream>> {
    fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /api/v1/live HTTP/1.1\r\nHost: ttmem\r\n\r\n").unwrap();
        Listener(BufReader::new(stream))
    }
}

impl<R: BufRead> Listener<R> {
    /// The next line, or `None` at the end of the stream.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event: its name and its data.
    fn event(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(name) = self.line()?.strip_prefix("event: ") {
                let line = self.line().unwrap();
                let data = line.strip_prefix("data: ").unwrap();
                return Some((name.to_owned(), serde_json::from_str(data).unwrap()));
            }
        }
    }

    /// Events until one says of a device how much DRAM is in use.
    fn hear_dram(&mut self, device: u64, bytes: u64) {
        let is_so = |data: &Value| {
            let devices =
                data["devices"].as_array().unwrap().iter().filter(|known| known["device"] == device);
            let mut memory = devices.flat_map(|known| known["memory"].as_array().unwrap());
            memory.any(|memory| memory["memory_type"] == "dram" && memory["usage_bytes"] == bytes)
        };
        while !is_so(&self.event().expect("it goes on").1) {}
    }
}

#[test]
fn changes_are_told_as_they_happen() {
    let daemon = Daemon::start(&["--device", "0=n150", "--device", "1=n150"]);
    let mut listener = Listener::connect(daemon.http());
    let (name, whole) = listener.event().unwrap();
    assert_eq!((name.as_str(), whole["devices"].as_array().unwrap().len()), ("state", 2));
    assert_eq!((&whole["processes"], &whole["leaks"]), (&Value::from([0; 0]), &Value::from([0; 0])));

    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    listener.hear_dram(0, 4096);
    // By now it is told changes alone: the other device is in none of them.
    client.send(&[Frame::alloc(0, 4096, 2)]);
    let (name, change) = loop {
        let (name, data) = listener.event().unwrap();
        if name == "change" && data["devices"] != Value::from([0; 0]) {
            break (name, data);
        }
    };
    assert_eq!((name.as_str(), change["devices"].as_array().unwrap().len()), ("change", 1), "{change}");
    let process = &change["processes"][0];
    assert_eq!((&process["pid"], &process["device_usage_bytes"]), (&std::process::id().into(), &8192.into()));
}

#[test]
fn listeners_leave_room_for_scrapes_and_for_each_other() {
    let daemon = Daemon::start(&[]);
    let mut listeners: Vec<_> = (0..LISTENERS_MAX).map(|_| Listener::connect(daemon.http())).collect();
    for listener in &mut listeners {
        assert_eq!(listener.event().unwrap().0, "state");
    }
    let refused = daemon.get("/api/v1/live");
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body.contains("/api/v1/devices"), "{}", refused.body);
    assert!(daemon.metrics().text.contains("ttmem_build_info"));
    drop(listeners.pop());
    // The place is free when the daemon has seen that its listener is gone.
    support::wait_for("a place", || {
        Listener::connect(daemon.http()).line().filter(|line| line == "HTTP/1.1 200 OK")
    });
    assert!(listeners[0].event().is_some());
}

#[test]
fn a_listener_hears_the_end_of_the_daemon() {
    let mut daemon = Daemon::start(&[]);
    let mut listener = Listener::connect(daemon.http());
    listener.event().unwrap();
    daemon.signal(Signal::TERM);
    while listener.line().is_some() {}
    assert!(daemon.wait().success());
    let log = daemon.log();
    assert!(log.iter().all(|line| line["level"] != "WARN"), "nothing was cut off: {log:?}");
}

#[test]
fn a_question_for_the_head_gets_no_stream() {
    let daemon = Daemon::start(&[]);
    let text = "HEAD /api/v1/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = support::request(daemon.http(), text);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
}

#[test]
fn it_is_heard_over_http_2() {
    let (daemon, certificates) = start(TLS);
    let mut curl = Command::new("curl")
        .args(["--silent", "--no-buffer", "--http2", "--noproxy", "*", "--cacert"])
        .arg(certificates.path("ca.crt"))
        .arg(https(&daemon, "/api/v1/live"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut listener = Listener(BufReader::new(curl.stdout.take().unwrap()));
    assert_eq!(listener.event().unwrap().0, "state");
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    listener.hear_dram(0, 4096);
    daemon.signal(Signal::TERM);
    while listener.line().is_some() {}
    assert!(curl.wait().unwrap().success(), "the stream came to its end");
}
