//! The Debian package and its unit on a machine with a real systemd: from the installation to the purge, with clients of other users.
//!
//! What happens here nobody sees before a user does: whether the sandbox leaves the daemon what it needs, and what an upgrade does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use support::{Metrics, Peer, installed, installed_peer, peers, wait_for};

const SOCKET: &str = "/tmp/tt_allocation_server.sock";
const CONFIG: &str = "/etc/ttmem/ttmem.toml";
const UNIT: &str = "/usr/lib/systemd/system/ttmem.service";
const SOCKET_UNIT: &str = "/usr/lib/systemd/system/ttmem-allocations.socket";
/// The worst exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: u32 = 30;
/// A user who is neither root nor the daemon: nobody.
const USER: u32 = 65534;
const SCRAPE: &str = "import urllib.request as http
print(http.urlopen('http://127.0.0.1:8080/metrics', timeout=10).read().decode(), end='')";

const CONTAINERS: &str = "/var/log/containers";
const CONTAINER: &str = "3f1c9a52d07be84416a5c0e97f2db3c8815e6fa40b9d72c3e1a84f5b60d79c2e";
const POD: &str = "0e4f6a1c-93bd-4f27-8a10-5d2c7be94f31";

/// Where packages and systems keep their own records, and what a booted machine changes all the time.
const RECORDS: [&str; 5] = ["/var/lib/dpkg/", "/var/cache/", "/var/log/", "/run/", "/tmp/systemd-private-"];
/// A user that is made is not removed, as Debian's policy advises: its number must not become another's. These are copies of the
/// files in which users are.
const USERS: [&str; 4] = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];

/// A machine that is thrown away with the test.
struct Machine {
    script: Child,
    first_process: String,
}

impl Machine {
    /// Boots one that finds the test's peers in /peers and the packages in /packages.
    fn boot(packages: &Path) -> Machine {
        let mut script = Command::new(peers().join("machine"))
            .arg(installed_peer("nspawn-root/root"))
            .arg(format!("--bind-ro={}:/peers", peers().display()))
            .arg(format!("--bind-ro={}:/packages", packages.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first_process = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut first_process).unwrap();
        let machine = Machine { script, first_process: first_process.trim().to_owned() };
        assert!(!machine.first_process.is_empty(), "no machine could be booted: it says above why");
        machine
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.first_process, "-m", "-p", "-u", "-i", "-n", program]);
        command
    }

    /// Runs a line of shell and gives what it has become, good or bad.
    fn try_run(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).output().unwrap()
    }

    /// Runs a line of shell, which must succeed, and gives its output.
    fn run(&self, line: &str) -> String {
        let output = self.try_run(line);
        assert!(output.status.success(), "{line}: {}\n{}", output.status, self.told(&output));
        text(&output.stdout)
    }

    /// What a command said, and what the daemon did.
    fn told(&self, output: &Output) -> String {
        let journal = self.try_run("journalctl --no-pager --lines=20 --unit=ttmem").stdout;
        format!("{}{}{}", text(&output.stdout), text(&output.stderr), text(&journal))
    }

    fn property(&self, name: &str) -> String {
        self.run(&format!("systemctl show --value --property={name} ttmem")).trim().to_owned()
    }

    fn metrics(&self) -> Metrics {
        let output = self.command("python3").args(["-c", SCRAPE]).output().unwrap();
        assert!(output.status.success(), "{}", self.told(&output));
        Metrics::parse(&text(&output.stdout))
    }

    fn wait_for_metrics(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        wait_for(what, || Some(self.metrics()).filter(|metrics| is_so(metrics)))
    }

    /// One of the field's clients, which another user runs, and its pid on the machine.
    fn client(&self) -> (Peer, u32) {
        let mut client =
            Peer::start(self.command("python3").args(["/peers/field_clients.py", "--socket", SOCKET]));
        client.ask(&format!(r#"{{"op":"be_user","user":{USER}}}"#));
        let pid = connect(&mut client);
        (client, pid)
    }

    /// Every file, and what kind it is.
    fn files(&self) -> BTreeSet<String> {
        let files = self.run("find / /dev/shm /run /tmp -xdev -path /proc -prune -o -printf '%p %y\\n'");
        let is_left = |file: &&str| {
            !RECORDS.iter().any(|record| file.starts_with(record))
                && !USERS.iter().any(|users| file.starts_with(users))
        };
        files.lines().filter(is_left).map(Into::into).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The machine lives as long as this is open.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn connect(client: &mut Peer) -> u32 {
    let answer = client.ask(r#"{"op":"connect","client":"seed"}"#);
    u32::try_from(answer["pid"].as_u64().unwrap()).unwrap()
}

fn allocate(client: &mut Peer, id: u32, size: u32) {
    client.ask(&format!(r#"{{"op":"allocate","device":0,"type":"dram","id":{id},"size":{size}}}"#));
}

/// A directory with two packages, ttmem_1.deb and ttmem_2.deb: the second is a later version of the first.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages");
        for revision in ["1", "2"] {
            let status = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build-deb"))
                .env("TTMEM_TEST_PEERS", installed())
                .args(["--deb-revision", revision, "--output"])
                .arg(directory.join(format!("ttmem_{revision}.deb")))
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "packaging/build-deb: {status}");
        }
        directory
    })
}

#[test]
fn a_package_lives_from_its_installation_to_its_purge() {
    let machine = Machine::boot(packages());
    // The host is a node: the kubelet has made this before.
    machine.run(&format!(
        "mkdir -p {CONTAINERS} && ln -s /var/log/pods/0.log {CONTAINERS}/llama-0_ml_server-{CONTAINER}.log"
    ));
    let before = machine.files();

    machine.run("dpkg --install /packages/ttmem_1.deb");
    assert_eq!(machine.property("ActiveState"), "active", "started by the installation");
    assert_eq!(machine.property("UnitFileState"), "enabled", "and at every boot");
    assert_eq!(
        machine.run("stat --format='%U %a' /proc/$(pgrep -x ttmem) /tmp/*.sock"),
        "ttmem 555\nroot 666\n"
    );
    check_unit(&machine);
    check_documentation(&machine);
    check_programs_can_be_run(&machine);
    check_other_users_are_seen(&machine);
    check_pods_are_named(&machine);
    check_reload(&machine);
    check_socket_outlives_the_daemon(&machine);

    let (mut client, pid) = machine.client();
    allocate(&mut client, 1, 4096);
    machine.wait_for_metrics("the report", |metrics| metrics.process_usage(pid, 0, "dram") == Some(4096.0));
    let process = machine.property("MainPID");
    let socket = machine.run(&format!("stat --format='%d %i' {SOCKET}"));
    machine.run("dpkg --install /packages/ttmem_2.deb");
    assert_eq!(machine.run(&format!("stat --format='%d %i' {SOCKET}")), socket, "it was there all the time");
    assert_eq!(machine.property("ActiveState"), "active");
    assert_ne!(machine.property("MainPID"), process, "the new version runs");
    assert!(machine.run("dpkg-query --show ttmem").trim().ends_with("-2"));
    assert!(machine.run(&format!("cat {CONFIG}")).contains("n150"), "the operator's settings stay");
    check_client_notices_nothing(&machine, &mut client, pid);
    client.kill();

    machine.run("dpkg --remove ttmem");
    assert_eq!(machine.property("LoadState"), "masked", "as Debian does until a purge");
    machine.run(&format!("test ! -e {SOCKET} && test ! -e /run/ttmem && test -e {CONFIG}"));
    machine.run("dpkg --purge ttmem");
    assert_eq!(machine.property("LoadState"), "not-found");
    let after = machine.files();
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new(), "left behind");
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), Vec::<&String>::new(), "taken along");
}

/// systemd finds nothing wrong with the unit, and little that it could still keep from the daemon.
fn check_unit(machine: &Machine) {
    let verified = machine.try_run(&format!("systemd-analyze verify {UNIT} {SOCKET_UNIT}"));
    assert!(verified.status.success(), "{}", machine.told(&verified));
    assert_eq!(text(&verified.stdout) + &text(&verified.stderr), "");
    machine.run(&format!(
        "systemd-analyze security --no-pager --offline=true --threshold={EXPOSURE_MAX} {UNIT}"
    ));
    let capabilities = machine.run("grep Cap /proc/$(pgrep -x ttmem)/status");
    let dac_read_search = 1 << 2;
    for line in capabilities.lines() {
        // The daemon itself gives up what it could hand on to others.
        let wanted =
            if line.starts_with("CapInh") || line.starts_with("CapAmb") { 0 } else { dac_read_search };
        let (_, set) = line.split_once('\t').unwrap();
        assert_eq!(
            u64::from_str_radix(set, 16).unwrap(),
            wanted,
            "not CAP_DAC_READ_SEARCH alone: {capabilities}"
        );
    }
}

fn check_documentation(machine: &Machine) {
    for page in ["ttmem", "ttmem-serve", "ttmem-status", "ttmem-run", "ttmem-check-config"] {
        machine.run(&format!("man --where 1 {page}"));
    }
    let completed = machine.run(
        "bash -c '. /usr/share/bash-completion/completions/ttmem; COMP_WORDS=(ttmem sta); COMP_CWORD=1; \
         _ttmem ttmem sta ttmem; echo $COMPREPLY'",
    );
    assert_eq!(completed.trim(), "status");
    for completions in ["zsh/vendor-completions/_ttmem", "fish/vendor_completions.d/ttmem.fish"] {
        machine.run(&format!("test -s /usr/share/{completions}"));
    }
    machine.run(&format!("ttmem check-config {CONFIG}"));
}

/// `ttmem run` finds the library that came with it, and any user may load it.
fn check_programs_can_be_run(machine: &Machine) {
    let loaded = machine.run(&format!(
        "setpriv --reuid={USER} --clear-groups ttmem run -- python3 -c \"import os; print(os.environ['LD_PRELOAD']); \
         print('libttmem_preload' in open('/proc/self/maps').read())\""
    ));
    assert_eq!(loaded, "/usr/lib/ttmem/libttmem_preload.so\nTrue\n");
}

/// All that the sandbox could hide from the daemon: a client of another user, the end of its process, and a region that is its own.
fn check_other_users_are_seen(machine: &Machine) {
    let (mut client, pid) = machine.client();
    allocate(&mut client, 1, 4096);
    let metrics = machine.wait_for_metrics("another user's report", |metrics| {
        metrics.process_usage(pid, 0, "dram") == Some(4096.0)
    });
    assert!(metrics.value("process_start_time_seconds", &[]).unwrap() > 0.0);
    client.kill();
    machine.run(&format!("kill -KILL {pid}"));
    machine.wait_for_metrics("the end of another user's process", |metrics| {
        metrics.process_usage(pid, 0, "dram") == Some(0.0)
    });

    let model =
        machine.run(&format!("setpriv --reuid={USER} --clear-groups sleep 600 > /dev/null 2>&1 & echo $!"));
    let model: u32 = model.trim().parse().unwrap();
    let region = "/dev/shm/tt_device_71001_memory";
    let written = serde_json::json!({
        "version": 4, "chip_unique_id": 71001, "processes": [{"pid": model, "name": "m", "dram": 8192}],
    });
    machine.run(&format!(
        "cd /dev/shm && umask 077 && echo '{written}' | python3 /peers/region.py write new && chown {USER} new \
         && mv new {region}"
    ));
    machine.wait_for_metrics("another user's region", |metrics| {
        metrics.process_usage(model, 0, "dram") == Some(8192.0)
    });
    machine.run(&format!("rm {region} && kill {model}"));
}

/// The sandbox leaves the daemon the names of containers and its own state, and nothing else of /var.
fn check_pods_are_named(machine: &Machine) {
    let seen = machine.run(
        "nsenter -t $(pgrep -x ttmem) -m find /var -mindepth 1 -not -path '/var/tmp*' \
         -not -path '/var/lib/ttmem/*' | sort",
    );
    assert_eq!(
        seen,
        format!(
            "/var/lib\n/var/lib/ttmem\n/var/log\n{CONTAINERS}\n{CONTAINERS}/llama-0_ml_server-{CONTAINER}.log\n"
        )
    );
    let mut client =
        Peer::start(machine.command("python3").args(["/peers/field_clients.py", "--socket", SOCKET]));
    let group = machine.run(&format!(
        "for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
             group=$hierarchy/kubepods/pod{POD}/{CONTAINER}
             mkdir -p $group 2> /dev/null && echo $group && exit
         done; exit 1"
    ));
    client.ask(&serde_json::json!({"op": "be_in", "group": group.trim()}).to_string());
    let pid = connect(&mut client).to_string();
    allocate(&mut client, 1, 4096);
    let labels = [
        ("pid", pid.as_str()),
        ("k8s_pod_name", "llama-0"),
        ("k8s_namespace_name", "ml"),
        ("k8s_pod_uid", POD),
    ];
    machine.wait_for_metrics("the pod", |metrics| metrics.value("ttmem_process_info", &labels) == Some(1.0));
    client.kill();
    machine.run(&format!("kill -KILL {pid}"));
}

/// While there is no daemon, clients wait for one: that it is started is theirs to cause, too.
fn check_socket_outlives_the_daemon(machine: &Machine) {
    machine.run("systemctl stop ttmem");
    assert_eq!(machine.property("ActiveState"), "inactive");
    let (mut client, pid) = machine.client();
    allocate(&mut client, 1, 4096);
    wait_for("a daemon", || (machine.property("ActiveState") == "active").then_some(()));
    machine.wait_for_metrics("a report from before the daemon", |metrics| {
        metrics.process_usage(pid, 0, "dram") == Some(4096.0)
    });
}

/// The client of the seed's protocol is on the connection that it opened before the upgrade, and stays on it when the daemon is killed.
fn check_client_notices_nothing(machine: &Machine, client: &mut Peer, pid: u32) {
    allocate(client, 2, 8192);
    machine.wait_for_metrics("what was held before the upgrade and since", |metrics| {
        metrics.process_usage(pid, 0, "dram") == Some(12_288.0)
    });
    let process = machine.property("MainPID");
    machine.run(&format!("kill -KILL {process}"));
    // Sent to nobody, unless another daemon is there already.
    allocate(client, 3, 16_384);
    wait_for("a new daemon", || {
        (machine.property("MainPID") != process && machine.property("ActiveState") == "active").then_some(())
    });
    let metrics = machine.wait_for_metrics("all that was ever reported", |metrics| {
        metrics.process_usage(pid, 0, "dram") == Some(28_672.0)
    });
    let (pid, labels) = (pid.to_string(), [("device", "0"), ("memory_type", "dram")]);
    let of_process = [("pid", pid.as_str()), labels[0], labels[1]];
    assert_eq!(
        metrics.value("ttmem_process_allocated_bytes_total", &of_process),
        Some(28_672.0),
        "each once"
    );
    assert_eq!(metrics.value("ttmem_state_kept", &[]), Some(1.0));
    machine.run("test $(stat --format='%U %a' /var/lib/ttmem | tr ' ' :) = ttmem:700");
}

/// A reload takes effect; one that is refused fails in systemctl, is told in the metrics, and changes nothing.
fn check_reload(machine: &Machine) {
    let is_reloaded = |metrics: &Metrics| metrics.value("ttmem_config_last_reload_successful", &[]);
    let process = machine.property("MainPID");
    machine.run(&format!("printf 'device = [\"0=n150\"]\\n' >> {CONFIG} && systemctl reload ttmem"));
    machine.wait_for_metrics("the new settings", |metrics| {
        metrics.sum("ttmem_device_memory_limit_bytes", &[("device", "0")]) > 0.0
    });
    machine.run(&format!("cp {CONFIG} /tmp/good && echo 'listne = 1' >> {CONFIG}"));
    let refused = machine.try_run("systemctl reload ttmem");
    assert!(!refused.status.success(), "{}", machine.told(&refused));
    assert!(machine.told(&refused).contains("did you mean listen?"), "the journal says what to do");
    machine.wait_for_metrics("the refusal", |metrics| is_reloaded(metrics) == Some(0.0));
    machine.run(&format!("cp /tmp/good {CONFIG} && rm /tmp/good && systemctl reload ttmem"));
    machine.wait_for_metrics("a good configuration", |metrics| is_reloaded(metrics) == Some(1.0));
    assert_eq!(machine.property("MainPID"), process, "all by the same process");
    assert_eq!(machine.property("ActiveState"), "active");
}

#[test]
fn the_package_is_as_debian_wants_packages_to_be() {
    let changelog =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/changelog")).unwrap();
    assert!(changelog.starts_with(&format!("ttmem ({}-", env!("CARGO_PKG_VERSION"))), "{changelog}");
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--no-cfg", "--fail-on", "error,warning"]);
    let output = command.arg(packages().join("ttmem_1.deb")).output();
    let output = output.unwrap_or_else(|error| panic!("lintian: {error}; apt-get install lintian"));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn a_daemon_that_dies_or_hangs_is_started_again_and_one_that_is_misconfigured_is_not() {
    let machine = Machine::boot(packages());
    // Three times the interval at which the daemon says that it works.
    machine.run(
        "mkdir -p /etc/systemd/system/ttmem.service.d && printf '[Service]\\nWatchdogSec=3\\nRestartSec=0\\n' \
         > /etc/systemd/system/ttmem.service.d/test.conf && dpkg --install /packages/ttmem_1.deb",
    );
    for (signal, restarts) in [("KILL", "1"), ("STOP", "2")] {
        machine.run(&format!("kill -{signal} $(pgrep -x ttmem)"));
        wait_for("a new daemon", || {
            (machine.property("NRestarts") == restarts && machine.property("ActiveState") == "active")
                .then_some(())
        });
        let (mut client, pid) = machine.client();
        allocate(&mut client, 1, 4096);
        machine.wait_for_metrics("a report", |metrics| metrics.process_usage(pid, 0, "dram") == Some(4096.0));
    }
    assert_eq!(machine.property("Result"), "success");
    machine.run(&format!("echo 'listne = 1' >> {CONFIG}"));
    let refused = machine.try_run("systemctl restart ttmem");
    assert!(!refused.status.success(), "{}", machine.told(&refused));
    assert_eq!(machine.property("ActiveState"), "failed");
    assert_eq!(machine.property("NRestarts"), "0", "counted anew for each start; no restart mends it");
}
