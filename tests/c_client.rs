//! libttmem as a program in C or C++ has it: installed below a prefix, found by pkg-config or CMake, against the real daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Daemon, Directory, Metrics, Peer, peers, ttmem, wait_for};

/// What a careful project compiles with.
const STRICT: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"];
/// The kinds of memory that buffers are in, by their numbers in ttmem.h.
const MEMORY_TYPES: [&str; 5] = ["dram", "l1", "system_memory", "l1_small", "trace"];

const TTMEM_OK: i32 = 0;
const TTMEM_NO_CLIENT: i32 = 1;
const TTMEM_BAD_OPTIONS: i32 = 6;
const TTMEM_BAD_ARGUMENT: i32 = 7;
const TTMEM_TIMEOUT: i32 = 8;
const TTMEM_NO_DAEMON: i32 = 10;
const TTMEM_UNKNOWN_DEVICE: i32 = 11;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn headers() -> PathBuf {
    repository().join("clients/c/include")
}

/// What `cargo build --profile preload --package ttmem-c` leaves.
fn built() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_ttmem")).parent().unwrap().join("../preload");
    assert!(
        built.join("libttmem_c.so").exists(),
        "{} has no libttmem_c.so: tests/run builds it",
        built.display()
    );
    built
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A prefix with the library in it.
struct Prefix(Directory);

impl Prefix {
    fn install() -> Prefix {
        let prefix = Prefix(Directory::new());
        succeeds(Command::new(repository().join("clients/c/install")).arg(prefix.0.path()).arg(built()));
        prefix
    }

    fn library(&self) -> PathBuf {
        self.0.join("lib/libttmem.so.0")
    }

    fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", self.0.join("lib/pkgconfig")).args(arguments).arg("ttmem");
        text(succeeds(&mut command)).split_whitespace().map(str::to_owned).collect()
    }

    /// One of the peers' programs, compiled and linked as its users would.
    fn compile(&self, source: &str, flags: &[&str]) -> PathBuf {
        let (compiler, standard) =
            if source.ends_with(".c") { ("gcc", "-std=c11") } else { ("g++", "-std=c++17") };
        let program = self.0.join(&source.replace('.', "-"));
        let mut command = Command::new(compiler);
        command.arg(standard).args(STRICT).args(flags).arg("-o").arg(&program).arg(peers().join(source));
        command.args(self.pkg_config(&["--cflags", "--libs"]));
        succeeds(command.arg(format!("-Wl,-rpath,{}", self.0.join("lib").display())).arg("-pthread"));
        program
    }
}

/// A program that reports, whose standard error is its own.
struct Program {
    peer: Peer,
    errors: Directory,
}

impl Program {
    fn start(program: &Path, environment: &[(&str, &str)]) -> Program {
        Program::run(Command::new(program).envs(environment.iter().copied()))
    }

    fn run(command: &mut Command) -> Program {
        let errors = Directory::new();
        let file = fs::File::create(errors.join("errors")).unwrap();
        for name in ["TTMEM_SOCKET", "TT_ALLOC_TRACKING_ENABLED"] {
            if !command.get_envs().any(|(known, _)| known == name) {
                command.env_remove(name);
            }
        }
        Program { peer: Peer::start(command.stderr(file)), errors }
    }

    /// A C program with a client.
    fn open(prefix: &Prefix, socket: &Path) -> Program {
        let mut program = Program::start(&prefix.compile("c_program.c", &[]), &[]);
        program.does(&format!("open {}", socket.display()));
        program
    }

    fn pid(&self) -> u32 {
        self.peer.pid()
    }

    /// Has it do something for which it has a status, which must be that all is well.
    #[track_caller]
    fn does(&mut self, line: &str) {
        assert_eq!(self.status(line), TTMEM_OK, "{line}");
    }

    fn status(&mut self, line: &str) -> i32 {
        self.peer.ask(line)["status"].as_i64().unwrap().try_into().unwrap()
    }

    /// Lets it end by itself; it must have said nothing.
    fn finish(mut self) {
        self.peer.finish();
        assert_eq!(self.said(), "", "a library prints nothing, and a sanitizer has nothing to say");
    }

    fn said(&self) -> String {
        fs::read_to_string(self.errors.join("errors")).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the program said: {}", self.said());
        }
    }
}

/// A process's live buffers: device, id, memory type and size.
fn buffers(daemon: &Daemon, pid: u32) -> BTreeSet<(u64, String, String, u64)> {
    let answer = daemon.json(&format!("/api/v1/buffers?pid={pid}&limit=1000"));
    let row = |buffer: &Value| {
        let text = |key: &str| buffer[key].as_str().unwrap().to_owned();
        assert_eq!(buffer["pid"], pid);
        (
            buffer["device"].as_u64().unwrap(),
            text("buffer_id"),
            text("memory_type"),
            buffer["size_bytes"].as_u64().unwrap(),
        )
    };
    answer["buffers"].as_array().unwrap().iter().map(row).collect()
}

#[track_caller]
fn assert_nothing_amiss(metrics: &Metrics) {
    for name in
        ["ttmem_events_rejected_total", "ttmem_events_lost_total", "ttmem_device_orphaned_buffers_total"]
    {
        assert_eq!(metrics.sum(name, &[]), 0.0, "{name}: {}", metrics.text);
    }
    metrics.assert_adds_up();
}

/// Compiles a file of one line, which includes a header by its path, and gives what the compiler says.
fn include(compiler: &str, language: &str, standard: &str, header: &Path) -> Result<(), String> {
    let directory = Directory::new();
    fs::write(directory.join("source"), format!("#include \"{}\"\n", header.display())).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-fsyntax-only", "-x", language, standard]).args(STRICT).arg(directory.join("source"));
    let output =
        command.output().unwrap_or_else(|error| panic!("{compiler}: {error}; tests/run installs it"));
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

#[test]
fn the_headers_satisfy_strict_compilers() {
    let is_there = |compiler: &&str| {
        ["gcc", "g++"].contains(compiler)
            || Command::new(compiler).arg("--version").stdout(Stdio::null()).status().is_ok()
    };
    for compiler in ["gcc", "clang"].iter().filter(|compiler| is_there(compiler)) {
        for standard in ["-std=c99", "-std=c11", "-std=c17"] {
            include(compiler, "c", standard, &headers().join("ttmem.h")).unwrap();
        }
    }
    let header = ["ttmem.h", "ttmem.hpp", "ttmem/allocation_client.hpp"];
    let by_metals_path = "ttmem/tt_metal/impl/allocator/allocation_client.hpp";
    for compiler in ["g++", "clang++"].iter().filter(|compiler| is_there(compiler)) {
        for standard in ["-std=c++17", "-std=c++20"] {
            for header in header.into_iter().chain([by_metals_path]) {
                include(compiler, "c++", standard, &headers().join(header)).unwrap();
            }
        }
    }
}

#[test]
fn a_layout_that_is_not_the_librarys_does_not_compile() {
    let directory = Directory::new();
    let header = fs::read_to_string(headers().join("ttmem.h")).unwrap();
    for (of_ours, of_another) in
        [("uint32_t memory_type; ", "uint64_t memory_type; "), ("uint32_t rings; ", "uint64_t rings; ")]
    {
        assert!(header.contains(of_ours), "{of_ours}");
        fs::write(directory.join("ttmem.h"), header.replace(of_ours, of_another)).unwrap();
        for (compiler, language, standard) in [("gcc", "c", "-std=c11"), ("g++", "c++", "-std=c++17")] {
            let error = include(compiler, language, standard, &directory.join("ttmem.h")).unwrap_err();
            assert!(error.contains("lays structs out in another way than libttmem"), "{error}");
        }
    }
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let header = fs::read_to_string(headers().join("ttmem.h")).unwrap();
    let declared: BTreeSet<&str> = header
        .lines()
        .filter(|line| {
            line.starts_with("ttmem_") || line.starts_with("const char *") || line.starts_with("void ")
        })
        .map(|line| line.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap())
        .collect();
    assert!(declared.len() > 10, "{declared:?}");
    let prefix = Prefix::install();
    let symbols = text(succeeds(Command::new("nm").args(["-D", "--defined-only"]).arg(prefix.library())));
    let exported: BTreeSet<&str> =
        symbols.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(exported, declared);
    let dynamic = text(succeeds(Command::new("readelf").arg("-d").arg(prefix.library())));
    assert!(dynamic.contains("Library soname: [libttmem.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn a_c_program_reports_every_kind_of_memory() {
    let daemon = Daemon::start(&[]);
    let prefix = Prefix::install();
    // The path comes from the environment, as for a program whose code nobody touches.
    let socket = daemon.socket();
    let environment = [("TTMEM_SOCKET", socket.to_str().unwrap())];
    let mut program = Program::start(&prefix.compile("c_program.c", &[]), &environment);
    program.does("open");
    for (number, _) in MEMORY_TYPES.iter().enumerate() {
        program.does(&format!("allocated 3 {number} {} {} 1", 0x1000 + number, 4096 + number));
    }
    program.does("allocated 1023 0 7 1099511627776 1");
    program.does("allocated 3 0 9 64 2");
    program.does("freed 3 9 2");
    program.does("cb_allocated 3 1000");
    program.does("cb_allocated 3 24");
    program.does("cb_freed 3 24");
    for kind in 0..3 {
        program.does(&format!("kernel_loaded 3 {kind} 100"));
    }
    program.does("kernel_unloaded 3 1 100");
    program.does("failed 3 1 4096 5000 100");
    program.does("trace 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    program.does("flush 20000");

    let expected = MEMORY_TYPES.iter().enumerate().map(|(number, memory_type)| {
        let number = number as u64;
        (3, format!("{:#x}", 0x1000 + number), (*memory_type).to_owned(), 4096 + number)
    });
    let far = (1023, "0x7".to_owned(), "dram".to_owned(), 1 << 40);
    assert_eq!(buffers(&daemon, program.pid()), expected.chain([far]).collect());
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(program.pid(), 3, "cb"), Some(1000.0));
    assert_eq!(metrics.process_usage(program.pid(), 3, "kernel"), Some(200.0));
    let failure = [("device", "3"), ("memory_type", "l1"), ("reason", "fragmented")];
    assert_eq!(metrics.value("ttmem_device_allocation_failures_total", &failure), Some(1.0));
    assert_eq!(metrics.events("trace_context"), 1.0);
    assert_nothing_amiss(&metrics);

    program.does("close");
    assert_eq!(program.status("freed 3 1 1"), TTMEM_NO_CLIENT);
    assert_eq!(daemon.metrics().process_usage(program.pid(), 3, "l1"), Some(4097.0), "a close frees nothing");
    program.finish();
}

#[test]
fn a_closed_device_gives_everything_back() {
    let daemon = Daemon::start(&[]);
    let mut program = Program::open(&Prefix::install(), &daemon.socket());
    for device in [1, 2] {
        program.does(&format!("allocated {device} 0 1 4096 5000"));
        // Twice the same is one buffer with two references.
        program.does(&format!("allocated {device} 0 1 4096 1"));
        program.does(&format!("cb_allocated {device} 10"));
        program.does(&format!("cb_allocated {device} 20"));
        program.does(&format!("kernel_loaded {device} 2 30"));
    }
    program.does("device_closed 1");
    program.does("flush 20000");
    let metrics = daemon.metrics();
    for (memory_type, bytes) in [("dram", 4096.0 * 5000.0), ("cb", 30.0), ("kernel", 30.0)] {
        assert_eq!(metrics.process_usage(program.pid(), 1, memory_type), Some(0.0), "{memory_type}");
        assert_eq!(metrics.process_usage(program.pid(), 2, memory_type), Some(bytes), "{memory_type}");
    }
    assert_nothing_amiss(&metrics);
}

#[test]
fn a_program_reads_what_the_whole_host_holds() {
    let daemon = Daemon::start(&["--device", "0=n150"]);
    let prefix = Prefix::install();
    let mut program = Program::open(&prefix, &daemon.socket());
    let mut other = Program::open(&prefix, &daemon.socket());
    for (number, _) in MEMORY_TYPES.iter().enumerate() {
        program.does(&format!("allocated 0 {number} {number} {} 1", 100 + number));
        other.does(&format!("allocated 0 {number} {number} 1000 1"));
    }
    other.does("cb_allocated 0 5");
    other.does("kernel_loaded 0 1 6");
    other.does("freed 0 1 1");
    for program in [&mut program, &mut other] {
        program.does("flush 20000");
    }
    assert_eq!(program.status("monitor_check"), TTMEM_NO_DAEMON);
    program.does(&format!("monitor {}", daemon.socket().display()));
    program.does("monitor_check");
    let devices = daemon.json("/api/v1/devices");
    let memory = devices["devices"][0]["memory"].as_array().unwrap();
    let told = program.peer.ask("host 0");
    assert_eq!(told["status"], TTMEM_OK);
    let types = MEMORY_TYPES.iter().chain(&["cb", "kernel"]);
    for (name, row) in types.zip(told["memory"].as_array().unwrap()) {
        let known = memory.iter().find(|known| known["memory_type"] == *name).unwrap();
        let figure = |key: &str| known[key].as_u64().unwrap_or(0);
        assert_eq!(
            row,
            &json!([figure("usage_bytes"), figure("peak_bytes"), figure("limit_bytes")]),
            "{name}"
        );
    }
    assert_eq!(program.status("host 7"), TTMEM_UNKNOWN_DEVICE);
    assert_eq!(program.status("monitor /nowhere"), TTMEM_NO_DAEMON);
    assert_eq!(program.status("host 0"), TTMEM_NO_DAEMON);
    program.does(&format!("monitor {}", daemon.socket().display()));
    let _directory = daemon.kill();
    assert_eq!(program.status("monitor_check"), TTMEM_NO_DAEMON);
}

#[test]
fn statistics_need_no_daemon() {
    let directory = Directory::new();
    let mut program = Program::open(&Prefix::install(), &directory.join("socket"));
    for (id, size) in [(1, 100), (2, 300), (3, 200)] {
        program.does(&format!("allocated 0 1 {id} {size} 1"));
    }
    program.does("freed 0 2 1");
    program.does("allocated 5 4 1 8 1");
    program.does("cb_allocated 5 16");
    let rows = json!([[0, 1, 300, 600, 2, 300], [5, 4, 8, 8, 1, 8], [5, 5, 16, 16, 1, 16]]);
    let mut check = |rows_max: usize| {
        let told = program.peer.ask(&format!("statistics {rows_max}"));
        assert_eq!((&told["status"], &told["count"]), (&json!(TTMEM_OK), &json!(3)));
        assert_eq!(told["rows"].as_array().unwrap()[..], rows.as_array().unwrap()[..rows_max.min(3)]);
        assert_eq!(told["untouched"], true, "what is behind the rows is the program's");
    };
    [0, 1, 2, 3, 10].into_iter().for_each(&mut check);
    assert_eq!(program.status("flush 0"), TTMEM_TIMEOUT);
    program.finish();
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let directory = Directory::new();
    let prefix = Prefix::install();
    let mut program = Program::start(&prefix.compile("c_program.c", &[]), &[]);
    // Every function, without a client.
    for line in [
        "allocated 0 0 1 1 1",
        "freed 0 1 1",
        "device_closed 0",
        "cb_allocated 0 1",
        "cb_freed 0 1",
        "flush 1",
        "kernel_loaded 0 0 1",
        "kernel_unloaded 0 0 1",
        "failed 0 0 1 1 1",
        "statistics 4",
    ] {
        assert_eq!(program.status(line), TTMEM_NO_CLIENT, "{line}");
    }
    program.does("close");
    let told = program.peer.ask("unknown_options");
    assert_eq!(told["zero"], TTMEM_OK, "fields that a later header appends are harmless while they are zero");
    for reason in ["later", "short", "flag"] {
        assert_eq!(told[reason], TTMEM_BAD_OPTIONS, "{reason}");
    }
    assert_eq!((&told["nowhere"], &told["is_null"]), (&json!(TTMEM_BAD_ARGUMENT), &json!(true)));

    program.does(&format!("open {}", directory.join("socket").display()));
    let mut check = |line: &str, expected: &str| {
        let answer = program.peer.ask(line);
        let text = answer["text"].as_str().unwrap();
        assert!(answer["status"] != TTMEM_OK && text.contains(expected), "{line}: {text}");
    };
    check("allocated -1 0 1 1 1", "not an index from 0 to 1023");
    check("allocated 1024 0 1 1 1", "not an index from 0 to 1023");
    check("freed 65536 1 1", "not an index from 0 to 1023");
    check("allocated 0 5 1 1 1", "none of TTMEM_DRAM");
    check("failed 0 256 1 1 1", "none of TTMEM_DRAM");
    check("allocated 0 0 1 0 1", "from 1 to 2^40");
    check("cb_allocated 0 1099511627777", "from 1 to 2^40");
    check("kernel_loaded 0 3 1", "TTMEM_KERNEL_APPLICATION");
    check("trace 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", "not of the form");
    check("trace_null", "not of the form");
    check("no_such_word", "no status of this libttmem");
    assert_eq!(program.peer.ask("statistics 16")["count"], 0, "nothing was reported");
    program.finish();
}

#[test]
fn the_header_the_library_and_the_daemon_are_of_one_version() {
    let version = text(succeeds(ttmem().arg("--version")));
    let version = version.trim_start_matches("ttmem ");
    let prefix = Prefix::install();
    let mut program = Program::start(&prefix.compile("c_program.c", &[]), &[]);
    let told = program.peer.ask("version");
    assert_eq!((&told["header"], &told["library"]), (&json!(version), &json!(version)));
    let numbers = version.split('.').map(|number| number.parse::<u64>().unwrap());
    assert_eq!(told["number"], numbers.fold(0, |number, part| number * 1000 + part));
    assert_eq!(prefix.pkg_config(&["--modversion"]), [version]);
    assert!(prefix.0.join(&format!("lib/libttmem.so.{version}")).exists());
}

#[test]
fn what_links_the_library_and_reports_nothing_has_no_thread_and_no_connection() {
    let daemon = Daemon::start(&[]);
    let mut program = Program::open(&Prefix::install(), &daemon.socket());
    let handled = |program: &Program| {
        let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("SigCgt")).unwrap().to_owned();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert_eq!(traces(&program), (1, 0));
    program.does("allocated 0 0 1 1 1");
    program.does("flush 20000");
    assert_eq!(traces(&program), (2, 1));
    // glibc's own two, for cancelling threads and for setuid(), are above the 31 classic ones.
    assert_eq!(handled(&program) & 0x7fff_ffff, 0, "no signal is handled");
    program.finish();
}

/// How many threads and how many sockets a program has.
fn traces(program: &Program) -> (usize, usize) {
    let entries = |name: &str| fs::read_dir(format!("/proc/{}/{name}", program.pid())).unwrap();
    let is_socket = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    (entries("task").count(), entries("fd").filter(|entry| is_socket(entry.as_ref().unwrap())).count())
}

#[test]
fn a_daemon_that_is_late_killed_and_back_is_exact_again() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let mut program = Program::open(&Prefix::install(), &directory.join("socket"));
    program.does("allocated 0 0 1 4096 100");
    program.does("kernel_loaded 0 1 50");
    let mut daemon = Daemon::start_in(directory, &[]);
    for round in 1..=3 {
        let metrics = daemon.wait_for_metrics("everything that lives", |metrics| {
            metrics.process_usage(program.pid(), 0, "dram") == Some(4096.0 * 100.0 * f64::from(round))
        });
        assert_eq!(metrics.process_usage(program.pid(), 0, "kernel"), Some(50.0));
        metrics.assert_adds_up();
        let directory = daemon.kill();
        program.does(&format!("allocated 0 0 {} 4096 200", round * 1000));
        program.does(&format!("freed 0 {} 100", round * 1000));
        daemon = Daemon::start_in(directory, &[]);
    }
    program.does("flush 20000");
    assert_eq!(daemon.metrics().process_usage(program.pid(), 0, "dram"), Some(4096.0 * 400.0));
    program.finish();
}

#[test]
fn cmake_finds_the_library_and_builds_the_examples() {
    let daemon = Daemon::start(&[]);
    let prefix = Prefix::install();
    // The prefix may be moved as a whole.
    let (moved, build) = (Directory::new(), Directory::new());
    fs::remove_dir(moved.path()).unwrap();
    fs::rename(prefix.0.path(), moved.path()).unwrap();
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(repository().join("clients/c/examples")).arg("-B").arg(build.path());
    succeeds(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", moved.path().display())));
    succeeds(Command::new("cmake").arg("--build").arg(build.path()));
    // The first links the shared library, the second the static one.
    for example in ["model_c", "model_cpp"] {
        let mut command = Command::new(build.join(example));
        let mut model = command
            .env("TTMEM_SOCKET", daemon.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let weights = (0..4).map(|layer| (0, format!("{:#x}", 0x1000 + layer), "dram".to_owned(), 64 << 20));
        let weights: BTreeSet<_> = weights.collect();
        wait_for("the weights", || (buffers(&daemon, model.id()) == weights).then_some(()));
        drop(model.stdin.take());
        let output = model.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "device 0 memory type 0: 268435456 bytes in 4 buffers, at most 268435456\n\
             device 0 memory type 1: 0 bytes in 0 buffers, at most 1048576\n"
        );
    }
    assert_nothing_amiss(&daemon.metrics());
}

#[test]
fn the_debian_packages_are_sound_and_programs_build_with_them() {
    let (packages, root) = (Directory::new(), Directory::new());
    let mut build = Command::new(repository().join("packaging/build-libttmem-deb"));
    let paths = text(succeeds(build.arg(packages.path()).arg(built())));
    let paths: Vec<&str> = paths.lines().collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    for path in &paths {
        let mut lintian = Command::new("lintian");
        let told = text(succeeds(lintian.args(["--allow-root", "--fail-on", "error,warning,info", path])));
        assert_eq!(told, "");
        succeeds(Command::new("dpkg-deb").arg("-x").arg(path).arg(root.path()));
    }
    assert!(paths[0].contains("/libttmem0_") && paths[1].contains("/libttmem-dev_"), "{paths:?}");
    let library = text(succeeds(Command::new("dpkg-deb").args(["-c", paths[0]])));
    for needless in ["/include", "libttmem.so ", "libttmem.a"] {
        assert!(!library.contains(needless), "a program needs no {needless} to run: {library}");
    }
    let folder = text(succeeds(Command::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH")));
    let folder = root.join("usr/lib").join(folder);
    let mut flags = Command::new("pkg-config");
    flags.env("PKG_CONFIG_PATH", folder.join("pkgconfig")).env("PKG_CONFIG_SYSROOT_DIR", root.path());
    let flags = text(succeeds(flags.args(["--cflags", "--libs", "ttmem"])));
    let program = root.join("program");
    let mut compile = Command::new("gcc");
    compile.arg("-std=c11").arg("-o").arg(&program).arg(peers().join("c_program.c"));
    succeeds(compile.args(flags.split_whitespace()));
    let mut program = Program::start(&program, &[("LD_LIBRARY_PATH", folder.to_str().unwrap())]);
    program.does(&format!("open {}", root.join("socket").display()));
    program.finish();
}

/// What a C++ program does, alone and under the sanitizers.
fn lives_and_dies(program: &mut Program, daemon: &Daemon) {
    let peer = &mut program.peer;
    peer.ask(&format!("open {}", daemon.socket().display()));
    for (number, _) in MEMORY_TYPES.iter().enumerate() {
        peer.ask(&format!("allocation 0 {number} {number} 4096"));
    }
    peer.ask("move");
    peer.ask("flush");
    let metrics = daemon.metrics();
    for memory_type in MEMORY_TYPES {
        assert_eq!(metrics.process_usage(peer.pid(), 0, memory_type), Some(4096.0), "{memory_type}");
    }
    assert_eq!(metrics.process_usage(peer.pid(), 1, "dram"), Some(100.0));
    assert_eq!(peer.ask("host 1")["dram"], 100);
    let rows = peer.ask("statistics")["rows"].clone();
    assert_eq!(rows.as_array().unwrap().len(), MEMORY_TYPES.len() + 1, "{rows}");
    assert_eq!(rows.as_array().unwrap().last(), Some(&json!([1, 0, 100, 200, 1, 100])));
    peer.ask("threads 8 1000");
    peer.ask("drop");
    peer.ask("flush");
    let metrics = daemon.metrics();
    for memory_type in MEMORY_TYPES {
        assert_eq!(metrics.process_usage(peer.pid(), 0, memory_type), Some(0.0), "{memory_type}");
    }
    assert_eq!(
        metrics.value("ttmem_device_allocations_total", &[("device", "0"), ("memory_type", "l1")]),
        Some(8001.0)
    );
    assert_nothing_amiss(&metrics);
}

/// Children that go on with their parent's client.
fn forks(program: &mut Program, daemon: &Daemon) {
    let peer = &mut program.peer;
    let held = daemon.metrics().process_usage(peer.pid(), 2, "dram");
    peer.ask("allocation 2 0 1 4096");
    let children = peer.ask("fork 5 77")["children"].clone();
    peer.ask("flush");
    let metrics = daemon.metrics();
    for child in children.as_array().unwrap() {
        let child = u32::try_from(child.as_u64().unwrap()).unwrap();
        assert_eq!(metrics.process_usage(child, 2, "dram"), Some(77.0));
    }
    assert_eq!(metrics.process_usage(peer.pid(), 2, "dram"), Some(held.unwrap_or(0.0) + 4096.0));
    peer.ask("end_children");
    daemon.wait_for_metrics("the children's end", |metrics| metrics.usage(2, "dram") == Some(4096.0));
}

#[test]
fn a_cpp_program_reports() {
    let daemon = Daemon::start(&[]);
    let prefix = Prefix::install();
    let mut program = Program::start(&prefix.compile("cpp_program.cpp", &["-O2"]), &[]);
    lives_and_dies(&mut program, &daemon);
    forks(&mut program, &daemon);
    program.finish();
}

#[test]
fn the_address_and_leak_sanitizers_have_nothing_to_say() {
    let daemon = Daemon::start(&[]);
    let prefix = Prefix::install();
    let program = prefix.compile("cpp_program.cpp", &["-O1", "-g", "-fsanitize=address,undefined"]);
    let environment = [("ASAN_OPTIONS", "detect_leaks=1:detect_stack_use_after_return=1")];
    let mut program = Program::start(&program, &environment);
    lives_and_dies(&mut program, &daemon);
    forks(&mut program, &daemon);
    program.finish();
}

#[test]
fn the_thread_sanitizer_has_nothing_to_say() {
    let daemon = Daemon::start(&[]);
    let prefix = Prefix::install();
    let program = prefix.compile("cpp_program.cpp", &["-O1", "-g", "-fsanitize=thread"]);
    let suppressions = format!("suppressions={}", prefix.0.join("share/ttmem/tsan.supp").display());
    // It knows where a process lies without randomisation. A fork of several threads is more than it follows.
    let mut command = Command::new("setarch");
    command.env("TSAN_OPTIONS", suppressions);
    let mut program = Program::run(command.arg("-R").arg(program));
    lives_and_dies(&mut program, &daemon);
    program.finish();
}

/// A program that is built as an instrumented tt-metal tree is, with another include path.
fn metal_program(prefix: &Prefix, environment: &[(&str, &str)]) -> Program {
    let include = format!("-I{}", prefix.0.join("include/ttmem").display());
    Program::start(
        &prefix.compile("metal_program.cpp", &["-fsanitize=address,undefined", &include]),
        environment,
    )
}

#[test]
fn tt_metals_allocation_client_reports_by_its_own_calls() {
    let daemon = Daemon::start(&[]);
    let (prefix, socket) = (Prefix::install(), daemon.socket());
    let environment = [("TTMEM_SOCKET", socket.to_str().unwrap()), ("TT_ALLOC_TRACKING_ENABLED", "1")];
    let mut program = metal_program(&prefix, &environment);
    let pid = program.pid();
    let mut call = |lines: &[&str]| {
        for line in lines {
            program.peer.ask(line);
        }
    };
    let wait = |what: &str, expected: &[(u16, &str, f64)]| {
        daemon.wait_for_metrics(what, |metrics| {
            expected.iter().all(|(device, memory, bytes)| {
                metrics.process_usage(pid, *device, memory).unwrap_or(0.0) == *bytes
            })
        })
    };
    call(&["is_enabled"]);
    for (number, _) in MEMORY_TYPES.iter().enumerate() {
        call(&[&format!("allocation 1 {} {number} {}", 4096 + number, 0x2000_0000 + number)]);
    }
    // Cached programs: one address, several sizes. Kernels of all three owners.
    call(&["cb_allocation 1 100 7", "cb_allocation 1 200 7", "cb_allocation 1 400 8"]);
    call(&["kernel_load 1 1000 1 1", "kernel_load 1 2000 2 2", "kernel_load_application 1 4000 3"]);
    let mut all = vec![(1, "cb", 700.0), (1, "kernel", 7000.0)];
    all.extend(MEMORY_TYPES.iter().zip(0_u32..).map(|(name, number)| (1, *name, f64::from(4096 + number))));
    assert_nothing_amiss(&wait("every kind of memory", &all));
    let expected = MEMORY_TYPES
        .iter()
        .zip(0_u64..)
        .map(|(name, number)| (1, format!("{:#x}", 0x2000_0000 + number), (*name).to_owned(), 4096 + number));
    assert_eq!(buffers(&daemon, pid), expected.collect());

    // An unload does not say whose kernel it was, and in some trees not how large.
    call(&["kernel_unload 1 1000 1", "kernel_unload 1 0 2", "kernel_unload_by_id 1 3"]);
    call(&["cb_deallocation 1 200 7", "cb_deallocation_by_id 1 7", "cb_deallocation 1 400 8"]);
    call(&["deallocation 1 536870912", "deallocation_by_id 536870913"]);
    let metrics = wait(
        "what is left",
        &[(1, "cb", 0.0), (1, "kernel", 0.0), (1, "dram", 0.0), (1, "l1", 0.0), (1, "trace", 4100.0)],
    );
    assert_nothing_amiss(&metrics);
    // What was never seen is counted, and harmless.
    call(&["kernel_unload 1 5 9", "cb_deallocation 1 5 9", "cb_deallocation_by_id 1 9", "deallocation 1 9"]);
    let metrics =
        daemon.wait_for_metrics("three frees of nothing", |metrics| metrics.rejected("unknown_free") == 3.0);
    assert_eq!(metrics.process_usage(pid, 1, "trace"), Some(4100.0));
    program.finish();
}

#[test]
fn tt_metals_allocation_client_does_nothing_unless_it_is_asked_to() {
    let daemon = Daemon::start(&[]);
    let (prefix, socket) = (Prefix::install(), daemon.socket());
    for wanted in [None, Some(""), Some("0"), Some("true"), Some("11")] {
        let mut environment = vec![("TTMEM_SOCKET", socket.to_str().unwrap())];
        environment.extend(wanted.map(|wanted| ("TT_ALLOC_TRACKING_ENABLED", wanted)));
        let mut program = metal_program(&prefix, &environment);
        assert_eq!(program.peer.ask_anything("is_enabled")["ok"], false, "{wanted:?}");
        for line in ["allocation 0 1 0 1", "cb_allocation 0 1 1", "kernel_load 0 1 1 0", "deallocation 0 1"] {
            program.peer.ask(line);
        }
        assert_eq!(traces(&program), (1, 0), "{wanted:?}");
        program.finish();
    }
    assert_eq!(daemon.metrics().sum("ttmem_client_connections", &[]), 0.0);
}
