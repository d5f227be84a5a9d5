//! The preloaded library in programs that are no ttnn, or whose tt-metal is another: it changes nothing, and says what it cannot tell.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use support::preload::library;
use support::{Daemon, Directory, copy_ttmem, peers, ttmem, wait_for};

/// What a process needs for a connection or for a thread.
const TRACES: [&str; 6] = ["socket(", "connect(", "eventfd", "memfd_create", "pidfd_open", "CLONE_THREAD"];
const SIGTERM: i32 = 15;

/// `ttmem run` with the library that has been built, in front of a program.
fn run(program: &[&str]) -> Command {
    let mut command = ttmem();
    command.args(["run", "--preload"]).arg(library()).arg("--").args(program);
    command
}

/// What a program says with these variables, and every system call of it and of its children.
fn traced(program: &[&str], variables: &[&str]) -> (Output, String) {
    let directory = Directory::new();
    let trace = directory.join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&trace).args(variables.iter().flat_map(|variable| ["-E", variable]));
    let output = command.args(program).output().unwrap();
    (output, fs::read_to_string(trace).unwrap())
}

/// How often a trace shows each of [`TRACES`].
fn telling(trace: &str) -> [usize; TRACES.len()] {
    TRACES.map(|call| trace.lines().filter(|line| line.contains(call)).count())
}

/// A directory as a package has it: the program in bin, the library elsewhere or nowhere.
fn installation(library_in: Option<&str>) -> (Directory, Command) {
    let directory = Directory::new();
    fs::create_dir(directory.join("bin")).unwrap();
    copy_ttmem(&directory.join("bin/ttmem"));
    if let Some(place) = library_in {
        fs::create_dir_all(directory.join(place)).unwrap();
        fs::copy(library(), directory.join(place).join("libttmem_preload.so")).unwrap();
    }
    let mut command = Command::new(directory.join("bin/ttmem"));
    command.env_remove("TTMEM_PRELOAD").args(["run", "--", "printenv", "LD_PRELOAD"]);
    (directory, command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[test]
fn a_program_without_tt_metal_gets_no_thread_no_connection_and_no_output() {
    let daemon = Daemon::start(&[]);
    for program in [
        &["/bin/true"][..],
        &["python3", "-c", "import threading; print(threading.active_count())"],
        &["sh", "-c", "(echo child); echo parent & wait; /bin/echo other | cat; exit 3"],
    ] {
        let socket = format!("TTMEM_SOCKET={}", daemon.socket().display());
        let (without, by_itself) = traced(program, &[&socket]);
        let (with, trace) = traced(program, &[&socket, &format!("LD_PRELOAD={}", library().display())]);
        assert_eq!((with.status, with.stdout, with.stderr), (without.status, without.stdout, without.stderr));
        assert!(trace.contains("libttmem_preload.so"), "it was loaded: {trace}");
        // Not none: a shell of its own accord asks the daemon of users and groups who it is.
        assert_eq!(telling(&trace), telling(&by_itself), "{program:?}: {trace}");
    }
    assert_eq!(daemon.metrics().sum("ttmem_events_total", &[]), 0.0, "nobody has said anything");
}

#[test]
fn a_program_ends_as_it_does_by_itself() {
    let status = |script: &str| run(&["sh", "-c", script]).output().unwrap().status;
    assert_eq!(status("exit 7").code(), Some(7));
    assert_eq!(status("kill -TERM $$").signal(), Some(SIGTERM));
    let mut sleeping = run(&["sleep", "600"]).spawn().unwrap();
    let pid = sleeping.id();
    wait_for("the program in place of ours", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).ok().filter(|name| name == "sleep\n")
    });
    support::send_signal(pid, rustix::process::Signal::TERM);
    assert_eq!(sleeping.wait().unwrap().signal(), Some(SIGTERM), "a signal reaches the program itself");
}

#[test]
fn the_library_is_found_where_it_is() {
    for place in ["bin", "lib/ttmem"] {
        let (directory, mut command) = installation(Some(place));
        let output = command.output().unwrap();
        let expected = directory.path().canonicalize().unwrap().join(place).join("libttmem_preload.so");
        assert_eq!(text(&output.stdout), expected.to_str().unwrap(), "{}", text(&output.stderr));
    }
    let (directory, mut command) = installation(None);
    let refused = command.output().unwrap();
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(said.contains("libttmem_preload.so is neither beside this program nor in"), "{said}");
    assert!(said.contains("--preload"), "{said}");
    let named = directory.join("elsewhere.so");
    fs::copy(library(), &named).unwrap();
    let output = command.env("TTMEM_PRELOAD", &named).output().unwrap();
    assert_eq!(text(&output.stdout), named.canonicalize().unwrap().to_str().unwrap());
    // One that another has asked for stays.
    let output = command.env("LD_PRELOAD", library()).output().unwrap();
    let expected = format!("{}:{}", named.canonicalize().unwrap().display(), library().display());
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn what_cannot_be_run_is_named() {
    let refused = |arguments: &[&str]| {
        let output = ttmem().arg("run").args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let library = library();
    let library = library.to_str().unwrap();
    let missing = refused(&["--preload", library, "--", "/nowhere/model"]);
    assert!(missing.contains("cannot start /nowhere/model"), "{missing}");
    let no_library = refused(&["--preload", "/nowhere/lib.so", "--", "true"]);
    assert!(no_library.contains("cannot load /nowhere/lib.so"), "{no_library}");
    let nothing = refused(&[]);
    assert!(nothing.contains("<PROGRAM>"), "{nothing}");
}

/// A program over a tt-metal that stands in for the real one, with the flags of a compiler.
struct StandIn {
    directory: Directory,
    program: PathBuf,
}

impl StandIn {
    fn build(flags: &[&str]) -> StandIn {
        let directory = Directory::new();
        let sources = peers().join("stand_in");
        let compile = |arguments: &[&str], source: &str, output: &Path| {
            let mut command = Command::new("g++");
            command
                .args(["-std=c++17", "-O1", "-g"])
                .args(flags)
                .arg("-o")
                .arg(output)
                .arg(sources.join(source));
            let done = command.args(arguments).output().unwrap();
            assert!(done.status.success(), "{command:?}: {}", text(&done.stderr));
        };
        compile(&["-shared", "-fPIC"], "library.cpp", &directory.join("libtt_metal.so"));
        let program = directory.join("program");
        let search = format!("-L{}", directory.path().display());
        let load = format!("-Wl,-rpath,{}", directory.path().display());
        compile(&[&search, &load, "-ltt_metal", "-pthread"], "program.cpp", &program);
        StandIn { directory, program }
    }

    /// Starts it under the library; its report of itself has been read when this returns.
    fn start(&self, socket: &Path, threads: u32, rounds: u32) -> Running {
        let log = fs::File::create(self.directory.join("stderr")).unwrap();
        // The sanitizer cannot see by what code that it has not built keeps its threads apart; all else it watches.
        let unseen = self.directory.join("suppressions");
        fs::write(&unseen, "called_from_lib:libttmem_preload.so\n").unwrap();
        let mut child = ttmem()
            .args(["run", "--preload"])
            .arg(library())
            .arg("--socket")
            .arg(socket)
            .arg("--")
            .arg(&self.program)
            .args([threads.to_string(), rounds.to_string()])
            // The sanitizers' own libraries want to be the first.
            .env("ASAN_OPTIONS", "verify_asan_link_order=0:exitcode=99")
            .env("TSAN_OPTIONS", format!("exitcode=99:suppressions={}", unseen.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{} unwound\n", threads * rounds), "{}", self.said());
        Running { child, _output: output }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap()
    }
}

struct Running {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Running {
    fn finish(self) -> Output {
        self.child.wait_with_output().unwrap()
    }
}

/// Threads that throw through the library, in a build that would end at the first wrong access or race.
fn threads_throw(flags: &[&str]) {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 200;
    let daemon = Daemon::start(&[]);
    let stand_in = StandIn::build(flags);
    let running = stand_in.start(&daemon.socket(), THREADS, ROUNDS);
    let pid = running.child.id();
    let metrics = daemon.wait_for_metrics("what the threads keep", |metrics| {
        metrics.process_usage(pid, 3, "dram") == Some(f64::from(THREADS * 4096))
            && metrics.process_usage(pid, 3, "l1") == Some(0.0)
            && metrics.sum("ttmem_device_allocation_failures_total", &[]) == f64::from(THREADS * ROUNDS)
    });
    assert_eq!(metrics.value("ttmem_device_allocations_total", &[("memory_type", "l1")]), Some(1600.0));
    assert_eq!(
        metrics.values("ttmem_device_memory_limit_bytes", &[("device", "3")]),
        [f64::from(4 << 20); 2],
        "four banks of a mebibyte in DRAM and in L1"
    );
    let output = running.finish();
    assert!(output.status.success(), "{}: {}", output.status, stand_in.said());
    assert_eq!(stand_in.said(), "");
    assert_eq!(daemon.metrics().sum("ttmem_events_rejected_total", &[]), 0.0);
}

#[test]
fn exceptions_of_many_threads_pass_through() {
    threads_throw(&[]);
}

#[test]
fn the_same_under_the_address_sanitizer() {
    threads_throw(&["-fsanitize=address,undefined"]);
}

#[test]
fn the_same_under_the_thread_sanitizer() {
    threads_throw(&["-fsanitize=thread"]);
}

#[test]
fn what_a_tt_metal_lacks_is_a_line_in_the_daemons_log_and_silence_elsewhere() {
    let daemon = Daemon::start(&[]);
    let stand_in = StandIn::build(&["-DWITHOUT_ALLOCATOR"]);
    let running = stand_in.start(&daemon.socket(), 2, 3);
    let pid = running.child.id();
    // The tracker's own account: what is asked for.
    daemon.wait_for_metrics("what is kept", |metrics| {
        metrics.process_usage(pid, 3, "dram") == Some(8192.0) && metrics.events("note") == 4.0
    });
    let notes: Vec<_> = daemon.log().into_iter().filter(|line| line["note"].is_string()).collect();
    let told: Vec<_> = notes.iter().map(|line| line["note"].as_str().unwrap()).collect();
    assert_eq!(told, ["allocator", "banks", "circular_buffers", "mesh"]);
    for line in &notes {
        assert_eq!((&line["level"], &line["pid"]), (&"WARN".into(), &pid.into()), "{line}");
        assert_eq!(line["process"], "program");
        let message = line["message"].as_str().unwrap();
        assert!(
            message.contains("its tt-metal lacks") && message.contains("run it with a ttnn"),
            "{message}"
        );
    }
    assert!(running.finish().status.success());
    assert_eq!(stand_in.said(), "", "the program's user hears nothing of it");
}
