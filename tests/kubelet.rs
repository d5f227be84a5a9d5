//! A kubelet that answers on its Unix sockets, or does not, beside real clients in the control groups of its containers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::cgroup::ContainerGroup;
use support::{Daemon, Directory, Metrics, Peer, installed_peer, peers, ttmem, wait_for};

const USAGE: &str = "ttmem_container_memory_usage_bytes";
const BYTE_SECONDS: &str = "ttmem_container_memory_byte_seconds_total";
const LAST_SUCCESS: &str = "ttmem_kubelet_sync_last_success_timestamp_seconds";
const FAILURES: &str = "ttmem_kubelet_sync_failures_total";
const ASSIGNED: &str = "ttmem_container_assigned_devices";
const NAMES: [&str; 3] = ["ml-team", "llama-0", "server"];
const GIB: u64 = 1 << 30;

/// A kubelet, and where its sockets are.
struct Kubelet {
    peer: Peer,
    directory: Directory,
}

impl Kubelet {
    fn new() -> Kubelet {
        let mut command = Command::new(installed_peer("otlp/bin/python"));
        Kubelet { peer: Peer::start(command.arg(peers().join("kubelet.py"))), directory: Directory::new() }
    }

    /// One that answers as soon as it is there.
    fn serving(api: &str) -> Kubelet {
        let mut kubelet = Kubelet::new();
        kubelet.serve(api);
        kubelet
    }

    fn socket(&self, api: &str) -> PathBuf {
        self.directory.join(&format!("{api}.sock"))
    }

    fn serve(&mut self, api: &str) {
        let socket = self.socket(api);
        self.tell(&json!({"op": "serve", "api": api, "socket": socket}));
    }

    fn tell(&mut self, command: &Value) -> Value {
        self.peer.ask(&command.to_string())
    }

    /// How often one of its APIs has been asked.
    fn asked(&mut self, api: &str) -> Value {
        self.tell(&json!({"op": "asked", "api": api}))
    }

    /// A daemon that has no other source of names.
    fn daemon(&self) -> Daemon {
        self.asked_by(ttmem(), Directory::new())
    }

    /// One that is started in a way of its own.
    fn asked_by(&self, program: Command, directory: Directory) -> Daemon {
        let shm = directory.join("shm");
        fs::create_dir(&shm).unwrap();
        let [pods, resources] =
            ["pods", "resources"].map(|api| self.socket(api).to_str().unwrap().to_owned());
        let arguments = [
            "--container-log-dir",
            "none",
            "--kubelet-pods-socket",
            &pods,
            "--kubelet-resources-socket",
            &resources,
            "--process-linger-seconds",
            "0",
        ];
        Daemon::launch(program, directory, &shm, &arguments)
    }
}

/// A pod with one container, as the kubelet knows it.
fn pod([namespace, pod, container]: [&str; 3], group: &ContainerGroup) -> Value {
    let containers = json!([{"name": container, "id": group.container_id}]);
    json!({"name": pod, "namespace": namespace, "uid": group.pod_uid, "containers": containers})
}

/// A client in a container that has allocated some DRAM of device 0.
fn client(daemon: &Daemon, group: &ContainerGroup) -> Peer {
    let mut client = Peer::unconnected(daemon);
    group.take(client.pid());
    client.ask(r#"{"op":"connect","client":"metal"}"#);
    client.ask(&json!({"op": "allocate", "device": 0, "type": "dram", "size": GIB, "id": 1}).to_string());
    client.ask(r#"{"op":"query","device":0}"#);
    client
}

fn in_container(metrics: &Metrics, family: &str, [namespace, pod, container]: [&str; 3]) -> Option<f64> {
    let labels = [
        ("device", "0"),
        ("memory_type", "dram"),
        ("k8s_namespace_name", namespace),
        ("k8s_pod_name", pod),
        ("k8s_container_name", container),
    ];
    metrics.value(family, &labels)
}

fn wait_for_names(daemon: &Daemon, names: [&str; 3]) -> Metrics {
    daemon.wait_for_metrics("the names", |metrics| in_container(metrics, BYTE_SECONDS, names).is_some())
}

fn failures(metrics: &Metrics, source: &str, reason: &str) -> f64 {
    metrics.value(FAILURES, &[("source", source), ("reason", reason)]).unwrap_or(0.0)
}

#[test]
fn the_kubelet_names_containers_and_is_asked_for_nothing_more() {
    let mut kubelet = Kubelet::serving("pods");
    let (server, init, debug) = (ContainerGroup::new(), ContainerGroup::new(), ContainerGroup::new());
    let containers = [("server", &server), ("unmade", &server)];
    let containers = containers.map(
        |(name, group)| json!({"name": name, "id": if name == "unmade" { "" } else { &group.container_id }}),
    );
    kubelet.tell(&json!({"op": "pods", "pods": [{
        "name": "llama-0", "namespace": "ml-team", "uid": server.pod_uid,
        "containers": containers,
        "init": [{"name": "load", "id": init.container_id}],
        "ephemeral": [{"name": "look", "id": debug.container_id}],
    }]}));
    let daemon = kubelet.daemon();
    let clients = [&server, &init, &debug].map(|group| client(&daemon, group));
    for name in ["server", "load", "look"] {
        wait_for_names(&daemon, ["ml-team", "llama-0", name]);
    }
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(in_container(&metrics, USAGE, NAMES), Some(GIB as f64));
    assert_eq!(metrics.values(USAGE, &[]).len(), clients.len());
    let source = [("source", "pods_api")];
    assert!(metrics.value(LAST_SUCCESS, &source).unwrap() > 1.7e9);
    assert!(metrics.value("ttmem_kubelet_sync_duration_seconds", &source).unwrap() < 5.0);
    assert_eq!(metrics.sum(FAILURES, &[]), 0.0);

    // Neither environments nor annotations are wanted, and a scrape asks nobody.
    let asked = kubelet.asked("pods");
    let mask = asked["metadata"]["x-kubernetes-fieldmask"].as_str().unwrap();
    assert!(mask.contains("metadata.name") && !mask.contains("spec"), "{mask}");
    for _ in 0..20 {
        daemon.metrics();
    }
    assert_eq!(kubelet.asked("pods")["count"], asked["count"]);
}

#[test]
fn a_pod_that_is_made_anew_under_its_name_goes_on_and_a_renamed_one_does_not() {
    let mut kubelet = Kubelet::serving("pods");
    let (first, second, renamed) = (ContainerGroup::new(), ContainerGroup::new(), ContainerGroup::new());
    kubelet.tell(&json!({"op": "pods", "pods": [pod(NAMES, &first)]}));
    let daemon = kubelet.daemon();
    let mut before = client(&daemon, &first);
    wait_for_names(&daemon, NAMES);
    before.kill();
    let gone = daemon.wait_for_metrics("its end", |metrics| in_container(metrics, USAGE, NAMES).is_none());
    let held = in_container(&gone, BYTE_SECONDS, NAMES).unwrap();
    let other = ["ml-team", "llama-1", "server"];
    kubelet.tell(&json!({"op": "pods", "pods": [pod(NAMES, &second), pod(other, &renamed)]}));
    let _clients = [client(&daemon, &second), client(&daemon, &renamed)];
    wait_for_names(&daemon, other);
    let metrics = daemon.wait_for_metrics("the counter to go on", |metrics| {
        in_container(metrics, BYTE_SECONDS, NAMES).is_some_and(|now| now > held)
    });
    assert_eq!(metrics.values(BYTE_SECONDS, &[]).len(), 2);
}

/// What has been told of a container outlives the processes that were asked about, and the kubelet.
#[test]
fn a_container_keeps_its_names_while_the_kubelet_is_away() {
    let mut kubelet = Kubelet::serving("pods");
    let group = ContainerGroup::new();
    kubelet.tell(&json!({"op": "pods", "pods": [pod(NAMES, &group)]}));
    let daemon = kubelet.daemon();
    let mut before = client(&daemon, &group);
    wait_for_names(&daemon, NAMES);
    kubelet.tell(&json!({"op": "stop", "api": "pods"}));
    let _ = fs::remove_file(kubelet.socket("pods"));
    before.kill();
    let gone = daemon.wait_for_metrics("its end", |metrics| in_container(metrics, USAGE, NAMES).is_none());
    assert!(gone.values("ttmem_process_info", &[]).is_empty());
    // It is asked for one that nobody has told of, in vain.
    let unknown = ContainerGroup::new();
    let _unknown = client(&daemon, &unknown);
    daemon.wait_for_metrics("a failure", |metrics| failures(metrics, "pods_api", "unreachable") >= 1.0);
    let _after = client(&daemon, &group);
    let metrics =
        daemon.wait_for_metrics("the names", |metrics| in_container(metrics, USAGE, NAMES).is_some());
    assert_eq!(
        metrics.values(BYTE_SECONDS, &[]).len(),
        1,
        "its counter goes on, and the other waits for a name"
    );
    assert_eq!(in_container(&metrics, USAGE, NAMES), Some(GIB as f64));
}

#[test]
fn without_a_kubelet_there_are_ids_and_nothing_is_wrong() {
    let kubelet = Kubelet::new();
    let daemon = kubelet.daemon();
    let group = ContainerGroup::new();
    let _client = client(&daemon, &group);
    let metrics = wait_for_names(&daemon, [""; 3]);
    assert_eq!(in_container(&metrics, USAGE, [""; 3]), Some(GIB as f64));
    assert!(metrics.values(FAILURES, &[]).is_empty() && metrics.values(LAST_SUCCESS, &[]).is_empty());
    assert!(!daemon.log().iter().any(|line| line["level"] == "WARN"));
}

#[test]
fn a_kubelet_that_has_not_this_api_is_as_good_as_none() {
    let mut kubelet = Kubelet::serving("pods");
    kubelet.tell(&json!({"op": "behave", "api": "pods", "code": 12}));
    let daemon = kubelet.daemon();
    let group = ContainerGroup::new();
    let _client = client(&daemon, &group);
    let metrics = wait_for_names(&daemon, [""; 3]);
    assert!(kubelet.asked("pods")["count"].as_u64().unwrap() >= 1);
    assert!(metrics.values(FAILURES, &[]).is_empty());
}

/// What a kubelet does that is started again: its socket goes, is there without anybody, refuses for a while, and answers.
#[test]
fn a_kubelet_that_is_started_again_is_waited_for() {
    let mut kubelet = Kubelet::serving("pods");
    let (first, second) = (ContainerGroup::new(), ContainerGroup::new());
    let after = ["ml-team", "llama-1", "server"];
    kubelet.tell(&json!({"op": "pods", "pods": [pod(NAMES, &first)]}));
    let daemon = kubelet.daemon();
    let _first = client(&daemon, &first);
    wait_for_names(&daemon, NAMES);
    kubelet.tell(&json!({"op": "stop", "api": "pods"}));
    let socket = kubelet.socket("pods");
    let _ = fs::remove_file(&socket);
    let _second = client(&daemon, &second);
    let unreachable = |times: f64| {
        daemon.wait_for_metrics("a failure", |metrics| failures(metrics, "pods_api", "unreachable") >= times)
    };
    let gone = failures(&unreachable(1.0), "pods_api", "unreachable");
    kubelet.tell(&json!({"op": "abandon", "socket": socket}));
    let failed = unreachable(gone + 1.0);
    assert_eq!(in_container(&failed, USAGE, [""; 3]), Some(GIB as f64), "what it holds is told meanwhile");
    daemon.wait_for_log(
        "the kubelet does not tell the names of containers; give the daemon access to its socket, or set kubelet_pods_socket to none",
    );
    fs::remove_file(&socket).unwrap();
    kubelet.tell(&json!({"op": "behave", "api": "pods", "code": 9}));
    kubelet.serve("pods");
    daemon.wait_for_metrics("a refusal", |metrics| failures(metrics, "pods_api", "refused") >= 1.0);
    kubelet.tell(&json!({"op": "behave", "api": "pods"}));
    kubelet.tell(&json!({"op": "pods", "pods": [pod(NAMES, &first), pod(after, &second)]}));
    let metrics = wait_for_names(&daemon, after);
    assert_eq!(metrics.values(USAGE, &[]).len(), 2);
}

#[test]
fn a_kubelet_that_hangs_holds_up_neither_reports_nor_scrapes_nor_the_end() {
    let mut kubelet = Kubelet::serving("pods");
    kubelet.serve("resources");
    for api in ["pods", "resources"] {
        kubelet.tell(&json!({"op": "behave", "api": api, "hang": true}));
    }
    let mut daemon = kubelet.daemon();
    wait_for("a question", || (kubelet.asked("resources")["count"] == 1).then_some(()));
    let group = ContainerGroup::new();
    let started = Instant::now();
    let _client = client(&daemon, &group);
    assert_eq!(daemon.metrics().usage(0, "dram"), Some(GIB as f64));
    assert_eq!(in_container(&daemon.metrics(), USAGE, [""; 3]), Some(GIB as f64));
    assert!(started.elapsed() < Duration::from_secs(4), "nothing has waited for the kubelet");
    daemon.wait_for_metrics("the kubelet to be given up", |metrics| {
        failures(metrics, "pods_api", "timeout") >= 1.0
            && failures(metrics, "pod_resources", "timeout") >= 1.0
    });
    let stopping = Instant::now();
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().success());
    assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}", stopping.elapsed());
}

#[test]
fn what_is_no_answer_is_counted_as_that() {
    let check = |behave: fn(&mut Kubelet)| {
        let mut kubelet = Kubelet::new();
        behave(&mut kubelet);
        let daemon = kubelet.daemon();
        let group = ContainerGroup::new();
        let _client = client(&daemon, &group);
        let metrics =
            daemon.wait_for_metrics("a failure", |metrics| failures(metrics, "pods_api", "malformed") >= 1.0);
        assert_eq!(in_container(&metrics, USAGE, [""; 3]), Some(GIB as f64));
    };
    check(|kubelet| {
        let socket = kubelet.socket("pods");
        kubelet.tell(&json!({"op": "garbage", "socket": socket}));
    });
    // A message whose field is longer than it, and a pod that is none.
    for raw in ["0aff01", "0a03ffffff"] {
        let mut kubelet = Kubelet::serving("pods");
        kubelet.tell(&json!({"op": "behave", "api": "pods", "raw": raw}));
        let daemon = kubelet.daemon();
        daemon.wait_for_metrics("a failure", |metrics| failures(metrics, "pods_api", "malformed") >= 1.0);
    }
}

#[test]
fn one_pod_among_ten_thousand_is_found() {
    let mut kubelet = Kubelet::serving("pods");
    let group = ContainerGroup::new();
    kubelet.tell(&json!({"op": "pods", "pods": [pod(NAMES, &group)]}));
    kubelet.tell(&json!({"op": "fill", "count": 10_000}));
    let daemon = kubelet.daemon();
    let _client = client(&daemon, &group);
    let metrics = wait_for_names(&daemon, NAMES);
    assert_eq!(metrics.values(USAGE, &[]), [GIB as f64], "only who is seen has series");
}

#[test]
fn devices_that_a_container_was_given_are_told_whether_it_uses_them_or_not() {
    let mut kubelet = Kubelet::serving("resources");
    let ours = json!({"tenstorrent.com/n150": ["0", "1"], "nvidia.com/gpu": ["GPU-0"]});
    let claims = json!([["dra.tenstorrent.com", "node-7", "card-2"], ["dra.example.com", "node-7", "nic-0"]]);
    kubelet.tell(&json!({"op": "resources", "pods": [
        {"name": "llama-0", "namespace": "ml-team", "containers": [
            {"name": "server", "devices": ours}, {"name": "sidecar"},
        ]},
        {"name": "falcon", "namespace": "ml-team", "containers": [{"name": "server", "claims": claims}]},
        {"name": "web", "namespace": "shop", "containers": [{"name": "nginx"}]},
    ]}));
    let daemon = kubelet.daemon();
    let labels = |pod: &'static str, resource: &'static str| {
        [
            ("k8s_namespace_name", "ml-team"),
            ("k8s_pod_name", pod),
            ("k8s_container_name", "server"),
            ("resource", resource),
        ]
    };
    let metrics = daemon.wait_for_metrics("the devices", |metrics| !metrics.values(ASSIGNED, &[]).is_empty());
    assert_eq!(metrics.value(ASSIGNED, &labels("llama-0", "tenstorrent.com/n150")), Some(2.0));
    assert_eq!(metrics.value(ASSIGNED, &labels("falcon", "dra.tenstorrent.com")), Some(1.0));
    assert_eq!(metrics.values(ASSIGNED, &[]).len(), 2, "others' devices are none of ours");
    assert!(metrics.value(LAST_SUCCESS, &[("source", "pod_resources")]).is_some());
    let assigned = daemon.json("/api/v1/devices")["assigned"].clone();
    let claimed = json!({
        "k8s_namespace_name": "ml-team", "k8s_pod_name": "falcon", "k8s_container_name": "server",
        "resource": "dra.tenstorrent.com", "device_ids": ["node-7/card-2"],
    });
    assert!(assigned.as_array().unwrap().contains(&claimed), "{assigned}");
}

/// What docs/kubernetes.md says about the Debian unit: its user connects to root's sockets with CAP_DAC_OVERRIDE, and not with the one
/// capability that the unit has.
#[test]
fn a_service_user_needs_one_more_capability_to_ask() {
    const USER: u32 = 65_534;
    let kubelet = Kubelet::serving("resources");
    fs::set_permissions(kubelet.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(kubelet.socket("resources"), fs::Permissions::from_mode(0o600)).unwrap();
    let asks = |capabilities: &str| {
        let directory = Directory::new();
        chown(directory.path(), Some(USER), Some(USER)).unwrap();
        let mut program = Command::new("setpriv");
        let own = ttmem();
        program.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
        for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
            program.arg(format!("{set}=-all,{capabilities}"));
        }
        program.arg(own.get_program());
        let daemon = kubelet.asked_by(program, directory);
        let told = daemon.wait_for_metrics("an answer, or none", |metrics| {
            let is_told = metrics.value(LAST_SUCCESS, &[("source", "pod_resources")]).is_some();
            is_told || failures(metrics, "pod_resources", "unreachable") >= 1.0
        });
        assert_eq!(told.values("ttmem_sandbox_active", &[]), [1.0; 4]);
        told.value(LAST_SUCCESS, &[("source", "pod_resources")]).is_some()
    };
    assert!(!asks("+dac_read_search"));
    assert!(asks("+dac_read_search,+dac_override"));
}
