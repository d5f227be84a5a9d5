//! Where the endpoint is served, and who cannot keep others from it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;
use support::certificates::Certificates;
use support::web::{HASH, TLS, USER, curl, http, https, is_answered, start};
use support::{Daemon, Directory, PATIENCE, ttmem, wait_for};

#[test]
fn who_guesses_is_stopped_and_a_scraper_beside_goes_on() {
    let (daemon, _certificates) = start(&format!("basic_auth_users:\n  alice: {HASH}\n"));
    let url = http(&daemon, "/metrics");
    assert_eq!(curl(&url, &["--user", USER]).status, 200);
    let refused = wait_for("the limit", || {
        let answer = curl(&url, &["--user", "alice:guess"]);
        assert!(matches!(answer.status, 401 | 429), "{answer:?}");
        (answer.status == 429).then_some(answer)
    });
    assert!(
        refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()),
        "{refused:?}"
    );
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(curl(&url, &["--user", USER]).status, 200, "its password is known to be right");
    let line = daemon.wait_for_log("HTTP request refused");
    assert_eq!(line["address"], "127.0.0.1");
}

#[test]
fn requests_beyond_the_rate_are_refused() {
    let (daemon, _certificates) = start("rate_limit:\n  interval: 1h\n  burst: 3\n");
    let url = http(&daemon, "/-/healthy");
    let statuses: Vec<u16> = (0..5).map(|_| curl(&url, &[]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert!(curl(&url, &[]).header("retry-after").is_some());
}

#[test]
fn scanners_and_idlers_keep_nobody_out() {
    let (daemon, certificates) = start(TLS);
    // Two more than there is room for: they hold a connection and say nothing.
    let idle: Vec<TcpStream> =
        (0..514).map(|_| TcpStream::connect(daemon.http()).expect("the kernel's queue")).collect();
    assert!(is_answered(&daemon, &certificates, &[]));
    let garbage: [&[u8]; 6] = [
        b"\0",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"SSH-2.0-scanner\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x80; 3000],
    ];
    for bytes in garbage.iter().cycle().take(60) {
        let mut stream = TcpStream::connect(daemon.http()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // It ends, with an alert, an answer or nothing.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(is_answered(&daemon, &certificates, &[]));
    drop(idle);
    let noise: Vec<_> = daemon.log().into_iter().filter(|line| line["level"] != "INFO").collect();
    assert!(noise.is_empty(), "scanners do not fill the log: {noise:?}");
}

#[test]
fn the_daemon_stops_while_a_client_hangs_in_its_handshake() {
    let (mut daemon, certificates) = start(&format!("{TLS}basic_auth_users:\n  alice: {HASH}\n"));
    let mut hanging = TcpStream::connect(daemon.http()).unwrap();
    hanging.write_all(b"\x16\x03\x01").unwrap();
    let answer = curl(&https(&daemon, "/"), &["--cacert", &certificates.path("ca.crt"), "--user", USER]);
    assert_eq!(answer.status, 200);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}

#[test]
fn a_unix_socket_serves_those_who_may_write_to_it() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    Certificates::new(directory.path());
    // TLS is for the network: what goes over a socket never leaves the host.
    fs::write(directory.join("web.yml"), format!("{TLS}basic_auth_users:\n  alice: {HASH}\n")).unwrap();
    let arguments = ["--listen", "unix:http.sock", "--listen-mode", "0600", "--web-config", "web.yml"];
    let mut daemon = Daemon::start_in(directory, &arguments);
    let socket = daemon.directory().join("http.sock");
    let metadata = fs::metadata(&socket).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let ask = |arguments: &[&str]| {
        let path = socket.to_str().unwrap();
        curl("http://ttmem/metrics", &[&["--unix-socket", path], arguments].concat())
    };
    let answer = ask(&["--user", USER]);
    assert!(answer.status == 200 && answer.body.contains("ttmem_build_info"), "{answer:?}");
    assert_eq!(ask(&[]).status, 401);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(!socket.exists());
}

#[test]
fn what_is_in_a_sockets_way_is_left_alone() {
    let directory = Directory::new();
    let file = directory.join("precious");
    fs::write(&file, "precious").unwrap();
    let refused = |arguments: &[&str], expected: &str| {
        let always = ["serve", "--shm-dir", "none", "--socket", "socket"];
        let output = ttmem().current_dir(directory.path()).args(always).args(arguments).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().last(), Some(expected));
        assert_eq!(output.status.code(), Some(1));
    };
    refused(
        &["--listen", "unix:precious"],
        "ttmem: precious: exists and is not a socket; move it away, or choose another path with --listen",
    );
    refused(
        &["--listen", "unix:http.sock", "--listen-group", "no-such-group"],
        "ttmem: listen_group: no group is called \"no-such-group\"; create it with `groupadd --system no-such-group`, or \
         name another",
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn several_addresses_are_served() {
    let daemon = Daemon::start(&["--listen", "[::1]:0", "--listen", "127.0.0.2:0"]);
    let listening = || daemon.log().into_iter().filter(|line| line["message"] == "listening");
    wait_for("all of them", || (listening().count() == 3).then_some(()));
    for line in listening() {
        let address = line["address"].as_str().unwrap();
        assert_eq!(curl(&format!("http://{address}/-/ready"), &[]).status, 200, "{address}");
    }
}

/// Starts a program as systemd does when sockets are passed to it: with `ADDRESS=NAME` for each.
const ACTIVATE: &str = r#"
import os, socket, sys
sockets, program = sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]
opened = []
for place in sockets:
    address, name = place.split("=")
    kind = socket.AF_UNIX if address.startswith("/") else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    made.bind(address if kind == socket.AF_UNIX else ("127.0.0.1", int(address)))
    made.listen()
    opened.append((made, name))
# Out of the way first: one may already be where another has to go.
moved = [os.dup2(made.fileno(), 100 + at) for at, (made, _) in enumerate(opened)]
for at, number in enumerate(moved):
    os.dup2(number, 3 + at, inheritable=True)
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(opened)),
                  LISTEN_FDNAMES=":".join(name for _, name in opened))
os.execv(program[0], program)
"#;

fn activated(sockets: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", ACTIVATE]).args(sockets).arg("--").arg(env!("CARGO_BIN_EXE_ttmem"));
    command
}

#[test]
fn sockets_that_systemd_passes_are_used_and_left_to_it() {
    let directory = Directory::new();
    let shm = directory.join("shm");
    fs::create_dir(&shm).unwrap();
    let (reports, scrapes) = (directory.join("reports.sock"), directory.join("scrapes.sock"));
    let sockets = [
        "0=ttmem-http".to_owned(),
        format!("{}=ttmem-allocations", reports.display()),
        format!("{}=ttmem-http", scrapes.display()),
    ];
    let program = activated(&sockets.each_ref().map(String::as_str));
    // The harness gives it a socket and an address as well, which the passed ones replace.
    let mut daemon = Daemon::launch(program, directory, &shm, &[]);
    assert!(!daemon.socket().exists());
    let line = daemon.wait_for_log("taking allocation reports");
    assert_eq!(line["path"].as_str(), reports.to_str());
    let addresses: Vec<_> = daemon.log().into_iter().filter(|line| line["message"] == "listening").collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");

    let mut client = std::os::unix::net::UnixStream::connect(&reports).unwrap();
    client.write_all(&support::frames::Frame::alloc(0, 4096, 1).bytes(72)).unwrap();
    daemon.wait_for_metrics("the report", |metrics| metrics.usage(0, "dram") == Some(4096.0));
    let answer = curl("http://ttmem/-/ready", &["--unix-socket", scrapes.to_str().unwrap()]);
    assert_eq!(answer.status, 200);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(reports.exists() && scrapes.exists(), "they are systemd's");
}

#[test]
fn sockets_without_a_purpose_are_refused() {
    let refused = |sockets: &[&str], expected: &str| {
        let output = activated(sockets).args(["serve", "--shm-dir", "none"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(error.lines().last(), Some(expected));
        assert_eq!(output.status.code(), Some(1));
    };
    refused(
        &["0=ttmem.socket"],
        "ttmem: systemd passed a socket named \"ttmem.socket\"; write FileDescriptorName=ttmem-allocations or \
         FileDescriptorName=ttmem-http into its socket unit",
    );
    refused(
        &["0=ttmem-allocations"],
        "ttmem: systemd passed a socket named ttmem-allocations that is not fit for it (fd 3 is not a valid unix stream \
         socket); write ListenStream= with the path of a Unix socket",
    );
}
