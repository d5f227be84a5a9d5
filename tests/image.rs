//! The container image: built from the Containerfile by the real buildah, looked through, and run as its own user with a client outside.
//!
//! Like the tests themselves, the binary in it is built for debugging unless they are built with --release: `cargo test --release --test
//! image -- --nocapture` prints the size of the image that is shipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use rustix::process::Signal;
use serde_json::Value;
use support::frames::Frame;
use support::{Directory, Metrics, PATIENCE, installed_peer, request, send_signal, wait_for};

/// The user in the Containerfile.
const USER: u32 = 65532;
const ALLOCATED_BYTES: u64 = 3 << 20;
/// How these tests, and the binary in the image, are built.
const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

#[test]
fn the_image_holds_the_daemon_alone_and_serves_as_its_own_user() {
    let binary = static_binary();
    let context = Directory::new();
    let place = format!("target/{}/release", target());
    fs::create_dir_all(context.join(&place)).unwrap();
    fs::copy(&binary, context.join(&place).join("ttmem")).unwrap();
    for file in ["Containerfile", ".containerignore"] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(file), context.join(file)).unwrap();
    }
    // What lies around in a working copy stays out.
    fs::write(context.join(".env"), "PASSWORD=1").unwrap();
    fs::write(context.join(&place).join("ttmem.d"), "x").unwrap();

    let buildah = Buildah::default();
    let argument = format!("BINARY={place}/ttmem");
    buildah.run(&["bud", "--isolation", "chroot", "--build-arg", &argument, "-t", "ttmem"], context.path());
    look_through(&buildah, &binary);

    let container = buildah.run(&["from", "ttmem"], "").trim().to_owned();
    let running = Running::start(&buildah, &container);
    serves_a_client_outside(&running);

    // Names are resolved without any library or file in the image.
    let server = format!("http://localhost:{}", running.http.port());
    let shown = buildah.run(
        &["run", "--isolation", "chroot", &container, "--", "/ttmem", "status", "--server", &server],
        "",
    );
    assert!(shown.contains("3.0 MiB"), "{shown}");
    running.stop();
}

fn look_through(buildah: &Buildah, binary: &Path) {
    let container = buildah.run(&["from", "ttmem"], "").trim().to_owned();
    let root = buildah.run(&["mount", &container], "");
    let files: Vec<_> = fs::read_dir(root.trim()).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>(), ["ttmem"]);
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o7777, 0o755);

    let inspected = buildah.run(&["inspect", "--type", "image", "ttmem"], "");
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected["OCIv1"]["config"];
    assert_eq!(config["User"], format!("{USER}:{USER}"));
    assert_eq!(config["Entrypoint"], serde_json::json!(["/ttmem"]));
    assert_eq!(config["Cmd"], serde_json::json!(["serve"]));
    assert_eq!(config["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");

    let archive = buildah.directory.join("image.tar");
    buildah.run(&["push", "-q", "ttmem"], format!("oci-archive:{}", archive.display()));
    let (packed, unpacked) = (size_bytes(&archive), size_bytes(binary));
    println!("image ({PROFILE}): {unpacked} bytes, {packed} as a compressed OCI archive");
    assert!(packed < unpacked, "the archive holds more than the binary");
}

fn serves_a_client_outside(running: &Running) {
    let mut client = UnixStream::connect(running.directory.join("socket")).unwrap();
    let server = rustix::net::sockopt::socket_peercred(client.as_fd()).unwrap();
    assert_eq!((server.uid.as_raw(), server.gid.as_raw()), (USER, USER), "the kernel says who listens");
    client.write_all(&Frame::alloc(0, ALLOCATED_BYTES, 1).bytes(72)).unwrap();
    let pid = std::process::id().to_string();
    wait_for("the report to arrive", || {
        let metrics = Metrics::parse(&get(running.http, "/metrics"));
        let labels = [("pid", pid.as_str()), ("memory_type", "dram")];
        (metrics.value("ttmem_process_memory_usage_bytes", &labels)? == ALLOCATED_BYTES as f64).then_some(())
    });
    for probe in ["/-/healthy", "/-/ready"] {
        assert!(!get(running.http, probe).is_empty());
    }
}

fn get(server: SocketAddr, path: &str) -> String {
    let response =
        request(server, &format!("GET {path} HTTP/1.1\r\nHost: ttmem\r\nConnection: close\r\n\r\n"));
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    response.body
}

fn size_bytes(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The binary as the Containerfile says it is built, in a folder of its own beside the tests'.
fn static_binary() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--bin", "ttmem", "--target", &target(), "--target-dir"]).arg(&folder);
    if PROFILE == "release" {
        command.arg("--release");
    }
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .envs([("CARGO_PROFILE_DEV_DEBUG", "false"), ("CARGO_PROFILE_DEV_STRIP", "symbols")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join(target()).join(PROFILE).join("ttmem")
}

/// buildah with a storage of its own.
struct Buildah {
    directory: Directory,
}

impl Default for Buildah {
    fn default() -> Buildah {
        Buildah { directory: Directory::new() }
    }
}

impl Buildah {
    fn command(&self) -> Command {
        let mut command = Command::new(installed_peer("bin/buildah"));
        command
            .arg("--root")
            .arg(self.directory.join("storage"))
            .arg("--runroot")
            .arg(self.directory.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }

    /// Runs a command to its end and gives what it prints; the last argument may be left empty.
    fn run(&self, arguments: &[&str], last: impl AsRef<std::ffi::OsStr>) -> String {
        let mut command = self.command();
        command.args(arguments).args(Some(last.as_ref()).filter(|last| !last.is_empty()));
        let Output { status, stdout, stderr } = command.output().unwrap();
        assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

/// The daemon in a container, with a directory of the host for its socket.
struct Running {
    buildah: Child,
    directory: Directory,
    http: SocketAddr,
}

impl Running {
    fn start(buildah: &Buildah, container: &str) -> Running {
        let directory = Directory::new();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = buildah.command();
        command.args(["run", "--isolation", "chroot", "--volume"]);
        command
            .arg(format!("{}:/run/ttmem", directory.path().display()))
            .args([container, "--", "/ttmem", "serve"]);
        command.args(["--socket", "/run/ttmem/socket", "--listen", "127.0.0.1:0", "--shm-dir", "none"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let told: Option<Value> = serde_json::from_str(&line).ok();
                if let Some(address) = told.as_ref().and_then(|told| told["address"].as_str()) {
                    let _ = sender.send(address.parse().unwrap());
                }
                eprintln!("container: {line}");
            }
        });
        let http = receiver.recv_timeout(PATIENCE);
        let http = http.unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("the daemon does not listen");
        });
        Running { buildah: child, directory, http }
    }

    /// Ends the daemon as a container engine does, and buildah ends with it.
    fn stop(mut self) {
        let client = UnixStream::connect(self.directory.join("socket")).unwrap();
        let daemon = rustix::net::sockopt::socket_peercred(client.as_fd()).unwrap().pid;
        send_signal(daemon.as_raw_nonzero().get().cast_unsigned(), Signal::TERM);
        let status = wait_for("the container to end", || self.buildah.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed: the daemon is the one that listens there.
        if self.buildah.try_wait().unwrap().is_none() {
            if let Ok(client) = UnixStream::connect(self.directory.join("socket")) {
                let daemon = rustix::net::sockopt::socket_peercred(client.as_fd()).unwrap().pid;
                send_signal(daemon.as_raw_nonzero().get().cast_unsigned(), Signal::KILL);
            }
            let _ = self.buildah.wait();
        }
    }
}
