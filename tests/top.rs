//! `ttmem top` in a real terminal: what it shows, what keys do, and that it leaves the terminal as it was, whatever ends it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::frames::{Connection, Frame};
use support::web::{HASH, TLS, start};
use support::{Daemon, Directory, send_signal, ttmem, wait_for};

/// What the shell in the terminal says when it waits for a command.
const PROMPT: &str = "ready> ";

/// A terminal with a shell in it: a pane of a tmux server of its own, which ends with the test.
struct Screen {
    directory: Directory,
}

impl Screen {
    fn open(columns: u16, rows: u16) -> Screen {
        let screen = Screen { directory: Directory::new() };
        let shell = format!("env LC_ALL=C.UTF-8 PS1='{PROMPT}' HISTFILE= bash --norc --noprofile -i");
        let (columns, rows) = (columns.to_string(), rows.to_string());
        screen.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, &shell]);
        screen.wait(&[PROMPT.trim()]);
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").args(["-u", "-f", "/dev/null", "-S"]).arg(self.directory.join("tmux"));
        let output = command.args(arguments).output().expect("tmux runs; tests/run installs it");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a command.
    fn run(&self, command: &str) {
        self.tmux(&["send-keys", "-l", command]);
        self.keys(&["Enter"]);
    }

    /// Types `ttmem top` with arguments, and variables before it.
    fn top(&self, variables: &str, arguments: &str) {
        // What the shell remembers of the terminal is written before.
        self.run(&format!("stty -g > {}", self.directory.join("before").display()));
        wait_for("the terminal's settings", || {
            fs::read_to_string(self.directory.join("before")).ok().filter(|told| told.ends_with('\n'))
        });
        self.run(&format!("clear; {variables} {} top {arguments}", env!("CARGO_BIN_EXE_ttmem")));
    }

    fn seen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Looks until all of these can be seen.
    #[track_caller]
    fn wait(&self, texts: &[&str]) -> String {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("a text on the screen", || {
                last = self.seen();
                texts.iter().all(|text| last.contains(text)).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("waited for {texts:?}; on the screen is:\n{last}"))
    }

    /// The process in the foreground.
    fn program(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        wait_for("the program", || {
            let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }

    /// Looks until the shell waits again, and sees that the terminal is as it was.
    #[track_caller]
    fn assert_clean(&self) {
        self.wait(&[PROMPT.trim()]);
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"]);
        assert_eq!(flags.trim(), "0 1 0", "no other screen, a cursor, no mouse");
        let after = self.directory.join("after");
        self.run(&format!("stty -g > {}; echo written", after.display()));
        wait_for("the terminal's settings", || {
            fs::read_to_string(&after).ok().filter(|told| told.ends_with('\n'))
        });
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&after), read(&self.directory.join("before")));
        fs::remove_file(after).unwrap();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").arg("-S").arg(self.directory.join("tmux")).arg("kill-server");
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Two devices, and HTTP where it is found again after a restart.
const DEVICES: [&str; 6] = ["--device", "0=n150", "--device", "1=n150", "--listen", "unix:http"];

/// This test's own process holds two buffers on device 0.
fn report(daemon: &Daemon) -> Connection {
    let mut connection = Connection::open(daemon, 144);
    connection.send(&[Frame::alloc(0, 3 << 30, 0x2a000), Frame::alloc(0, 512 << 20, 0x77000)]);
    connection.query(0);
    connection
}

/// Both ways to a daemon in a directory.
fn local(directory: &Path) -> String {
    let place = directory.display();
    format!("--socket {place}/socket --server unix:{place}/http")
}

#[test]
fn it_shows_devices_processes_and_buffers_and_goes_as_it_came() {
    let daemon = Daemon::start(&DEVICES);
    let _connection = report(&daemon);
    let screen = Screen::open(80, 24);
    screen.top("", &local(daemon.directory()));
    let pid = std::process::id().to_string();
    screen.wait(&[
        "ttmem top",
        "2 devices, 1 process, dram",
        "live",
        "n150",
        "29%",
        "3.5 GiB",
        &pid,
        "F1Help",
    ]);
    screen.keys(&["Enter"]);
    screen.wait(&["BUFFER", "0x2a000", "0x77000", "3.0 GiB", "512.0 MiB", "nothing looks like a leak"]);
    screen.keys(&["/"]);
    screen.run("0x77");
    wait_for("the filter", || (!screen.seen().contains("0x2a000")).then_some(()));
    screen.wait(&["0x77000", "filter: 0x77"]);
    screen.keys(&["Escape"]);
    screen.wait(&["0x2a000"]);
    screen.keys(&["Escape"]);
    // Only the overview has a second panel; a key that came right after Escape would be one with it.
    screen.wait(&["2 devices, 1 process", "TabPanel"]);
    screen.keys(&["F1"]);
    screen.wait(&["ttmem top: keys", "this help"]);
    screen.keys(&["q", "t"]);
    screen.wait(&["2 devices, 1 process, l1", "TabPanel"]);
    screen.keys(&["m"]);
    wait_for("the mouse", || {
        (screen.tmux(&["display-message", "-p", "#{mouse_any_flag}"]).trim() == "1").then_some(())
    });
    screen.keys(&["q"]);
    screen.assert_clean();
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let daemon = Daemon::start(&DEVICES);
    let _connection = report(&daemon);
    let screen = Screen::open(80, 24);
    screen.top("", &local(daemon.directory()));
    screen.wait(&["live", "F1Help"]);
    let resize = |columns: &str, rows: &str| screen.tmux(&["resize-window", "-x", columns, "-y", rows]);
    resize("300", "80");
    let wide = screen.wait(&["PEAK", "ALL TYPES", "POD OR JOB"]);
    assert!(wide.lines().any(|line| line.chars().count() > 250), "{wide}");
    resize("120", "40");
    wait_for("fewer columns", || (!screen.seen().contains("POD OR JOB")).then_some(()));
    screen.wait(&["PEAK", "live", "F1Help"]);
    resize("38", "5");
    screen.wait(&["This terminal has 38 x 5"]);
    resize("80", "24");
    screen.wait(&["live", "F1Help"]);
    screen.keys(&["C-c"]);
    screen.assert_clean();
}

#[test]
fn it_waits_for_a_daemon_and_for_the_next_one() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let screen = Screen::open(80, 24);
    screen.top("", &local(directory.path()));
    screen.wait(&["Waiting for a daemon", "no daemon answers", "F1Help"]);
    let daemon = Daemon::start_in(directory, &DEVICES);
    let connection = report(&daemon);
    screen.wait(&["live", "3.5 GiB"]);
    let directory = daemon.kill();
    drop(connection);
    // What was seen last stays, and is called old.
    screen.wait(&["OLD", "old: ", "no daemon answers", "3.5 GiB"]);
    let daemon = Daemon::start_in(directory, &DEVICES);
    let mut connection = Connection::open(&daemon, 144);
    connection.send(&[Frame::alloc(1, 7 << 30, 1)]);
    connection.query(0);
    screen.wait(&["live", "7.0 GiB"]);
    // One that has stopped working is found out although its page looks as ever.
    daemon.freeze();
    screen.wait(&["OLD", "old: the daemon does not answer", "7.0 GiB"]);
    daemon.thaw();
    screen.wait(&["live"]);
    screen.keys(&["q"]);
    screen.assert_clean();
}

#[test]
fn whatever_ends_or_stops_it_leaves_the_terminal_clean() {
    let daemon = Daemon::start(&DEVICES);
    let screen = Screen::open(80, 24);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        screen.top("", &format!("--mouse {}", local(daemon.directory())));
        screen.wait(&["live", "F1Help"]);
        send_signal(screen.program(), signal);
        screen.assert_clean();
        screen.run("clear");
    }
    screen.top("", &local(daemon.directory()));
    screen.wait(&["live", "F1Help"]);
    screen.keys(&["C-z"]);
    screen.wait(&["Stopped"]);
    screen.assert_clean();
    screen.run("clear; fg");
    screen.wait(&["live", "F1Help"]);
    // Somebody else's stop is no different.
    send_signal(screen.program(), Signal::TSTP);
    screen.wait(&["Stopped"]);
    screen.assert_clean();
    screen.run("clear; fg");
    screen.wait(&["live", "F1Help"]);
    screen.keys(&["F10"]);
    screen.assert_clean();
    // A terminal that goes takes it along.
    screen.top("", &local(daemon.directory()));
    screen.wait(&["live", "F1Help"]);
    let program = screen.program();
    screen.tmux(&["kill-server"]);
    wait_for("the end of a program without a terminal", || {
        (!Path::new(&format!("/proc/{program}/exe")).exists()).then_some(())
    });
}

/// How often a colour begins on the screen.
fn colours(screen: &Screen) -> usize {
    let told = screen.tmux(&["capture-pane", "-e", "-p"]);
    let codes = told.split("\x1b[").skip(1).filter_map(|rest| rest.split_once('m'));
    let codes = codes.flat_map(|(codes, _)| codes.split(';')).filter_map(|code| code.parse::<u8>().ok());
    codes.filter(|code| matches!(code, 30..=38 | 40..=48 | 90..=107)).count()
}

#[test]
fn it_asks_a_daemon_elsewhere_and_does_without_colours() {
    let daemon = Daemon::start(&DEVICES);
    let _connection = report(&daemon);
    let screen = Screen::open(100, 24);
    let server = format!("http://{}", daemon.http());
    screen.top("", &format!("--server {server}"));
    screen.wait(&["live", &server, "3.5 GiB"]);
    assert!(colours(&screen) > 2);
    screen.keys(&["q"]);
    screen.assert_clean();
    screen.run("clear");
    screen.top("NO_COLOR=1 LC_ALL=C", &format!("--server {server}"));
    let plain = screen.wait(&["live", &server, "3.5 GiB"]);
    assert_eq!(colours(&screen), 0);
    assert!(plain.is_ascii(), "{plain}");
    screen.keys(&["q"]);
    screen.assert_clean();
}

#[test]
fn a_secured_daemon_shows_itself_to_who_may_ask() {
    let (daemon, _certificates) = start(&format!("{TLS}basic_auth_users:\n  alice: {HASH}\n"));
    let place = daemon.directory().display();
    fs::write(daemon.directory().join("password"), "correct horse\n").unwrap();
    fs::write(daemon.directory().join("wrong"), "wrong\n").unwrap();
    let server = format!("--server https://localhost:{} --ca-file {place}/ca.crt", daemon.http().port());
    let screen = Screen::open(80, 24);
    screen.top("", &format!("{server} --user alice --password-file {place}/wrong"));
    screen.wait(&["Waiting for a daemon", "the user or the password is wrong"]);
    screen.keys(&["q"]);
    screen.assert_clean();
    screen.run("clear");
    screen.top("", &format!("{server} --user alice --password-file {place}/password"));
    screen.wait(&["live", "https://localhost"]);
    screen.keys(&["q"]);
    screen.assert_clean();
}

#[test]
fn what_is_no_terminal_is_told_what_to_use() {
    let output = ttmem().arg("top").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("needs a terminal") && told.contains("ttmem status --watch"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    let output = ttmem().args(["top", "--interval", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
