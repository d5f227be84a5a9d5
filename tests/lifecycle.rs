//! Starting, stopping, reloading, and what stands in the way of a start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::frames::{Connection, FRAME_BYTES, Frame};
use support::{Daemon, Directory, Peer, send_signal, ttmem, wait_for};

/// A user other than root who owns nothing.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A daemon that is expected to give up; one that does not is ended with the test.
struct Attempt(Child);

impl Attempt {
    fn start(mut command: Command, socket: &Path, arguments: &[&str]) -> Attempt {
        let command =
            command.args(["serve", "--shm-dir", "none", "--listen", "127.0.0.1:0", "--socket"]).arg(socket);
        let command =
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Attempt(command.spawn().unwrap())
    }

    /// Waits for it to give up: its exit code and what it said.
    fn outcome(&mut self) -> (Option<i32>, String) {
        let status = wait_for("the daemon to give up", || self.0.try_wait().unwrap());
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The start fails with exit code 1 and one line, the expected one.
#[track_caller]
fn check_refused(socket: &Path, arguments: &[&str], expected: &str) {
    check_attempt(&mut Attempt::start(ttmem(), socket, arguments), expected);
}

#[track_caller]
fn check_attempt(attempt: &mut Attempt, expected: &str) {
    assert_eq!(attempt.outcome(), (Some(1), format!("ttmem: {expected}\n")));
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// The names of what a directory holds.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_signal_ends_it_with_all_that_was_sent_applied() {
    const COUNT: u64 = 400;
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = Daemon::start(&[]);
        let mut connections = FRAME_BYTES.map(|frame_bytes| Connection::open(&daemon, frame_bytes));
        for connection in &mut connections {
            connection.query(0);
        }
        // All of this lies in the sockets when the signal comes.
        daemon.freeze();
        for (device, connection) in connections.iter_mut().enumerate() {
            let frames: Vec<Frame> = (0..COUNT).map(|id| Frame::alloc(device as i32, 10, id)).collect();
            connection.send(&frames);
            connection.send(&[Frame::query(device as i32)]);
            // And the beginning of what will never be finished.
            connection.send_bytes(&[1, 0, 0, 0, 7]);
        }
        daemon.signal(signal);
        daemon.thaw();
        for connection in &mut connections {
            let answer = connection.read_to_end();
            assert_eq!(answer.len(), connection.frame_bytes, "one answer, and then the end");
            assert_eq!(answer[40..48], (10 * COUNT).to_le_bytes());
        }
        let status = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert_eq!(names(daemon.directory()), BTreeSet::from(["log".into(), "shm".into()]), "it cleans up");
        let messages: Vec<Value> = daemon.log().into_iter().map(|line| line["message"].clone()).collect();
        assert!(messages.ends_with(&[json!("stopping"), json!("stopped")]), "{messages:?}");
    }
}

/// What connect() and send() have accepted before the signal comes is applied, although the daemon has not even seen the connection.
#[test]
fn connections_that_wait_to_be_taken_lose_nothing_when_it_is_told_to_stop() {
    const CLIENTS: u64 = 500;
    let mut daemon = Daemon::start(&["--ingest-threads", "2"]);
    daemon.freeze();
    let mut connections: Vec<Connection> = (0..CLIENTS)
        .map(|number| {
            let mut connection = Connection::open(&daemon, FRAME_BYTES[number as usize % FRAME_BYTES.len()]);
            connection.send(&[Frame::alloc(0, 10, number), Frame::query(0)]);
            connection
        })
        .collect();
    daemon.signal(Signal::TERM);
    daemon.thaw();
    // Each answer proves that its own report has been applied, and the largest, that all of them have been.
    let answers = connections.iter_mut().map(|connection| {
        let answer = connection.read_to_end();
        assert_eq!(answer.len(), connection.frame_bytes, "one answer, and then the end");
        u64::from_le_bytes(answer[40..48].try_into().unwrap())
    });
    assert_eq!(answers.max(), Some(10 * CLIENTS));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_first_question_that_came_before_the_end_is_answered() {
    for frame_bytes in FRAME_BYTES {
        let mut daemon = Daemon::start(&["--device", "0=n150"]);
        let mut connection = Connection::open(&daemon, frame_bytes);
        daemon.wait_for_metrics("the connection", |metrics| {
            metrics.sum("ttmem_client_connections", &[]) == 1.0
        });
        daemon.freeze();
        connection.send(&[Frame::query(0)]);
        daemon.signal(Signal::TERM);
        daemon.thaw();
        assert_eq!(connection.read_to_end().len(), frame_bytes, "whole, though its size was still open");
        assert_eq!(daemon.wait().code(), Some(0));
    }
}

#[test]
fn nobody_can_keep_it_from_ending() {
    let mut daemon = Daemon::start(&[]);
    // One that sends without end, one that does not read its answers, one that stopped in mid-frame, and three over HTTP.
    let mut flood = daemon.connect();
    let mut deaf = daemon.connect();
    let mut stopped = Connection::open(&daemon, 144);
    stopped.send_bytes(&[3; 1]);
    let mut idle = std::net::TcpStream::connect(daemon.http()).unwrap();
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 1000]).unwrap() > 0);
    let mut slow = std::net::TcpStream::connect(daemon.http()).unwrap();
    slow.write_all(b"GET /-/rea").unwrap();
    let silent = std::net::TcpStream::connect(daemon.http()).unwrap();
    daemon.wait_for_metrics("three clients", |metrics| metrics.sum("ttmem_client_connections", &[]) == 3.0);
    let status = std::thread::scope(|scope| {
        scope.spawn(move || {
            let frames = Frame::free(0, 1).bytes(144).repeat(100);
            while flood.write_all(&frames).is_ok() {}
        });
        scope.spawn(move || {
            let frames = Frame::query(0).bytes(144).repeat(100);
            while deaf.write_all(&frames).is_ok() {}
        });
        daemon.wait_for_metrics("the flood", |metrics| metrics.events("free") > 1000.0);
        daemon.signal(Signal::TERM);
        daemon.wait()
    });
    assert_eq!(status.code(), Some(0));
    assert!(!daemon.socket().exists());
    drop((idle, slow, silent));
}

#[test]
fn a_hang_up_reads_the_configuration_again() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let file = directory.join("ttmem.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("device = [\"0=n150\"]\n");
    let daemon = Daemon::start_in(directory, &["--config", "ttmem.toml"]);
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    client.query(0);
    let succeeded = |metrics: &support::Metrics| metrics.value("ttmem_config_last_reload_successful", &[]);
    let at = |metrics: &support::Metrics| {
        metrics.value("ttmem_config_last_reload_success_timestamp_seconds", &[]).unwrap()
    };
    let limit = |metrics: &support::Metrics, device| {
        let labels = [("device", device), ("memory_type", "dram")];
        metrics.value("ttmem_device_memory_limit_bytes", &labels)
    };
    let reload = || daemon.signal(Signal::HUP);
    let start = daemon.metrics();
    assert_eq!((succeeded(&start), limit(&start, "0")), (Some(1.0), Some(12_871_236_864.0)));

    // A good one takes effect, without a client noticing.
    write("device = [\"0=p100\", \"1=p150\"]\nprocess_linger_seconds = 0\nlog_level = \"debug\"\n");
    reload();
    daemon.wait_for_log("configuration reloaded");
    let good = daemon.wait_for_metrics("the reload", |metrics| at(metrics) > at(&start));
    assert_eq!(succeeded(&good), Some(1.0));
    assert_eq!((limit(&good, "0"), limit(&good, "1")), (Some(29_938_900_096.0), Some(34_216_082_432.0)));
    assert_eq!(client.query(0).dram(), 4096);
    let mut ending = Peer::field_client(&daemon, "seed");
    ending.ask(r#"{"op":"allocate","device":0,"type":"l1","size":10,"id":1}"#);
    ending.ask(r#"{"op":"query","device":0}"#);
    let pid = ending.pid().to_string();
    ending.kill();
    daemon.wait_for_metrics("an ended process to go at once", |metrics| {
        metrics.values("ttmem_process_info", &[("pid", &pid)]).is_empty()
            && metrics.events("process_end") == 1.0
    });

    // A bad one changes nothing, and says where and how to mend it.
    write("device = [\"0=n150\"]\n\nprocess_linger_secnds = 300\nlog_level = \"loud\"\n");
    reload();
    let line = daemon.wait_for_log("configuration refused; the one before stays in force");
    assert_eq!(line["level"], "ERROR");
    let error = line["error"].as_str().unwrap();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "ttmem.toml:3: process_linger_secnds: this key is not known; did you mean process_linger_seconds?",
            "ttmem.toml:4: log_level: \"loud\" is not one of error, warn, info, debug, trace",
        ]
    );
    let bad = daemon.metrics();
    assert_eq!((succeeded(&bad), at(&bad)), (Some(0.0), at(&good)));
    assert_eq!(limit(&bad, "0"), Some(29_938_900_096.0), "the one before stays in force");
    assert_eq!(client.query(0).dram(), 4096);

    // A file that is gone is a bad one, too; a good one mends all.
    fs::remove_file(&file).unwrap();
    reload();
    wait_for("a second refusal", || {
        let refused = daemon.log().into_iter().filter(|line| line["level"] == "ERROR").nth(1)?;
        refused["error"].as_str().unwrap().starts_with("ttmem.toml: cannot be read: ").then_some(())
    });
    write("device = [\"0=n150\"]\nclients_max = 1\n");
    reload();
    let mended = daemon.wait_for_metrics("the mended one", |metrics| at(metrics) > at(&good));
    assert_eq!((succeeded(&mended), limit(&mended, "0")), (Some(1.0), Some(12_871_236_864.0)));

    // What needs a start is said, and not done.
    let line = daemon.wait_for_log("changed, but takes effect only when the daemon is started again");
    assert_eq!(line["key"], "clients_max");
    assert_eq!(Connection::open(&daemon, 72).query(0).dram(), 4096, "a second client");
}

#[test]
fn a_hang_up_without_a_file_changes_nothing() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let before = daemon.json("/api/v1/devices");
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("configuration reloaded");
    let after = daemon.json("/api/v1/devices");
    assert_eq!(before["devices"], after["devices"]);
    assert_eq!(daemon.metrics().value("ttmem_config_last_reload_successful", &[]), Some(1.0));
}

#[test]
fn a_live_daemons_socket_is_not_taken() {
    let daemon = Daemon::start(&[]);
    let socket = daemon.socket();
    let before = inode(&socket);
    let mut client = Connection::open(&daemon, 144);
    client.send(&[Frame::alloc(0, 4096, 1)]);
    client.query(0);
    let expected = format!(
        "{}: another server is listening there; stop it, or choose another path with --socket",
        socket.display()
    );
    for _ in 0..3 {
        check_refused(&socket, &[], &expected);
    }
    assert_eq!(inode(&socket), before);
    assert_eq!(client.query(0).dram(), 4096);
    assert_eq!(Connection::open(&daemon, 72).query(0).dram(), 4096, "and new clients find the first one");
    assert_eq!(names(daemon.directory()).len(), 3, "log, shm and the socket: nothing is left beside it");
    let complaints: Vec<Value> = daemon.log().into_iter().filter(|line| line["level"] != "INFO").collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[test]
fn a_dead_daemons_socket_is_replaced() {
    let first = Daemon::start(&[]);
    let socket = first.socket();
    let before = inode(&socket);
    let directory = first.kill();
    assert!(socket.exists(), "a killed daemon cannot clean up");
    let second = Daemon::start_in(directory, &[]);
    assert_eq!(second.socket(), socket);
    assert_eq!(Connection::open(&second, 144).query(0).dram(), 0);
    let after = fs::symlink_metadata(&socket).unwrap();
    assert!(after.file_type().is_socket() && after.ino() != before);
}

#[test]
fn of_several_that_start_at_once_one_stays() {
    const ROUNDS: usize = 10;
    const DAEMONS: usize = 4;
    for round in 0..ROUNDS {
        let directory = Directory::new();
        let socket = directory.join("socket");
        if round % 2 == 1 {
            // Where a daemon was killed.
            drop(UnixListener::bind(&socket).unwrap());
        }
        let mut living: Vec<Attempt> = (0..DAEMONS).map(|_| Attempt::start(ttmem(), &socket, &[])).collect();
        wait_for("all but one to give up", || {
            for index in (0..living.len()).rev() {
                if living[index].0.try_wait().unwrap().is_some() {
                    let (code, said) = living.remove(index).outcome();
                    assert_eq!(code, Some(1), "{said}");
                    assert!(said.contains("another server is listening there"), "{said}");
                }
            }
            (living.len() <= 1).then_some(())
        });
        assert_eq!(living.len(), 1, "round {round}: one is left");
        // And it is the one whom clients reach.
        wait_for("the one that stays", || {
            let stream = UnixStream::connect(&socket).ok()?;
            let peer = rustix::net::sockopt::socket_peercred(&stream).unwrap().pid;
            assert_eq!(peer.as_raw_pid().cast_unsigned(), living[0].0.id());
            Some(())
        });
    }
}

#[test]
fn a_server_that_is_too_busy_to_answer_keeps_its_socket() {
    let directory = Directory::new();
    let socket = directory.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    // Its queue is full when a connection that must not wait is refused.
    let mut waiting = Vec::new();
    loop {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        match rustix::net::connect(&stream, &SocketAddrUnix::new(&socket).unwrap()) {
            Ok(()) => waiting.push(stream),
            Err(error) if error == rustix::io::Errno::AGAIN => break,
            Err(error) => panic!("{error}"),
        }
    }
    let expected = format!(
        "{}: another server is listening there; stop it, or choose another path with --socket",
        socket.display()
    );
    check_refused(&socket, &[], &expected);
    drop(waiting);
    assert!(socket.exists());
}

#[test]
fn what_stands_at_the_sockets_place_is_left_alone() {
    let daemon = Daemon::start(&[]);
    let directory = Directory::new();
    let check = |name: &str| {
        let path = directory.join(name);
        let reason = "exists and is not a socket; move it away, or choose another path with --socket";
        check_refused(&path, &[], &format!("{}: {reason}", path.display()));
    };
    fs::write(directory.join("file"), "precious").unwrap();
    check("file");
    assert_eq!(fs::read_to_string(directory.join("file")).unwrap(), "precious");
    fs::create_dir(directory.join("directory")).unwrap();
    check("directory");
    symlink(directory.join("file"), directory.join("link")).unwrap();
    check("link");
    symlink(directory.join("nowhere"), directory.join("dangling")).unwrap();
    check("dangling");
    symlink(daemon.socket(), directory.join("link-to-a-socket")).unwrap();
    check("link-to-a-socket");
    let expected = ["dangling", "directory", "file", "link", "link-to-a-socket"].map(str::to_owned);
    assert_eq!(names(directory.path()), BTreeSet::from(expected), "and nothing is left beside it");
    assert_eq!(Connection::open(&daemon, 72).query(0).dram(), 0);
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = Directory::new();
    let remedy = "create it or make it writable for this user, or choose another path with --socket";
    let missing = directory.join("missing");
    let expected = format!("{}: No such file or directory (os error 2); {remedy}", missing.display());
    check_refused(&missing.join("socket"), &[], &expected);
    assert!(!missing.exists());

    let file = directory.join("file");
    fs::write(&file, "").unwrap();
    let (code, said) = Attempt::start(ttmem(), &file.join("socket"), &[]).outcome();
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!("{}: Not a directory", file.display())) && said.contains(remedy),
        "{said}"
    );

    // Root may write anywhere, so somebody else has to try; and needs a program that everybody may run.
    let locked = directory.join("locked");
    fs::create_dir(&locked).unwrap();
    for (path, mode) in [(directory.path(), 0o755), (&locked, 0o555)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = ttmem();
    if is_root() {
        let program = directory.join("ttmem");
        // By another process: a file that this one writes can be busy in a fork of another test when it is to be run.
        let copied = Command::new("cp").arg(command.get_program()).arg(&program).status().unwrap();
        assert!(copied.success());
        let mut copy = Command::new(program);
        for (variable, _) in command.get_envs() {
            copy.env_remove(variable);
        }
        command = copy;
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    let expected = format!("{}: Permission denied (os error 13); {remedy}", locked.display());
    check_attempt(&mut Attempt::start(command, &locked.join("socket"), &[]), &expected);
    assert!(names(&locked).is_empty());
}

#[test]
fn a_group_that_does_not_exist_is_named() {
    let directory = Directory::new();
    let expected = "socket_group: no group is called \"nobodys-friends\"; create it with \
                    `groupadd --system nobodys-friends`, or name another";
    check_refused(&directory.join("socket"), &["--socket-group", "nobodys-friends"], expected);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_tcp_address_in_use_is_named() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let expected = format!(
        "listen: {address}: Address already in use (os error 98); stop what listens there, or choose another address \
         with --listen"
    );
    check_refused(&directory.join("socket"), &["--listen", &address], &expected);
    assert!(names(directory.path()).is_empty(), "the socket that it had is gone with it");
    check_refused(
        &directory.join("socket"),
        &["--listen", "192.0.2.1:0"],
        "listen: 192.0.2.1:0: Cannot assign requested address (os error 99); choose an address of this host with \
         --listen",
    );
}

/// A group that is not the one that files get anyway, by name and number, where the user may choose one.
fn other_group() -> Option<(String, u32)> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    let own = rustix::process::getegid().as_raw();
    let allowed: Vec<u32> = rustix::process::getgroups().ok()?.iter().map(|group| group.as_raw()).collect();
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        (id != own && (is_root() || allowed.contains(&id))).then(|| (name.to_owned(), id))
    })
}

#[test]
fn the_socket_is_never_seen_with_another_mode_or_group() {
    const ROUNDS: usize = 20;
    let own = (rustix::process::getegid().as_raw().to_string(), rustix::process::getegid().as_raw());
    let (name, group) = other_group().unwrap_or(own);
    let mut directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let socket = directory.join("socket");
    let (done, seen) = (AtomicBool::new(false), std::sync::Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if let Ok(metadata) = fs::symlink_metadata(&socket) {
                    let what = (metadata.file_type().is_socket(), metadata.mode() & 0o7777, metadata.gid());
                    seen.lock().unwrap().insert(what);
                }
            }
        });
        // A failed assertion must not leave the other thread watching.
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..ROUNDS {
                let group = if round % 2 == 0 { name.clone() } else { group.to_string() };
                let directory_now = std::mem::replace(&mut directory, Directory::new());
                let mut daemon =
                    Daemon::start_in(directory_now, &["--socket-mode", "0600", "--socket-group", &group]);
                assert!(UnixStream::connect(daemon.socket()).is_ok());
                // Some end, and some are killed, so that the next replaces what they leave.
                if round % 3 != 0 {
                    daemon.signal(Signal::TERM);
                    assert_eq!(daemon.wait().code(), Some(0));
                    assert!(!daemon.socket().exists());
                }
                directory = daemon.kill();
            }
        }));
        done.store(true, Ordering::Release);
        rounds.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen, BTreeSet::from([(true, 0o600, group)]), "a socket, its mode and its group");
}

#[test]
fn the_socket_has_the_mode_that_it_is_given() {
    for (arguments, mode) in [
        (&[][..], 0o666),
        (&["--socket-mode", "0660"], 0o660),
        (&["--socket-mode", "0600"], 0o600),
        (&["--socket-mode", "0777"], 0o777),
    ] {
        let daemon = Daemon::start(arguments);
        let metadata = fs::symlink_metadata(daemon.socket()).unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode, "{arguments:?}");
        assert_eq!(metadata.gid(), fs::metadata(daemon.directory()).unwrap().gid(), "{arguments:?}");
    }
}

#[test]
fn a_signal_that_comes_early_is_not_lost() {
    for _ in 0..10 {
        let directory = Directory::new();
        let mut attempt = Attempt::start(ttmem(), &directory.join("socket"), &[]);
        // As soon as the socket is there, whatever else is not.
        wait_for("the socket", || directory.join("socket").exists().then_some(()));
        send_signal(attempt.0.id(), Signal::TERM);
        let status = wait_for("its end", || attempt.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn clients_find_the_daemon_that_comes_after() {
    let first = Daemon::start(&[]);
    let mut client = Peer::field_client(&first, "metal");
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    client.ask(r#"{"op":"query","device":0}"#);
    let directory = first.kill();
    let second = Daemon::start_in(directory, &[]);
    let broken = client.ask_anything(r#"{"op":"query","device":0}"#);
    assert_eq!(broken["ok"], false, "its connection ended with the first daemon");
    client.ask(r#"{"op":"connect","client":"metal"}"#);
    client.ask(r#"{"op":"free","id":1}"#);
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":512,"id":2}"#);
    assert_eq!(client.ask(r#"{"op":"query","device":0}"#)["dram"], 512);
    let metrics = second.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(client.pid(), 0, "dram"), Some(512.0));
    assert_eq!(metrics.rejected("unknown_free"), 1.0, "what was allocated before its time");
}
