//! Processes in containers: real clients in control groups as the kubelet makes them, and their names, sums and costs in /metrics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use support::cgroup::ContainerGroup;
use support::prometheus::Prometheus;
use support::{Daemon, Directory, Metrics, Peer, exposition, ttmem, wait_for};

const USAGE: &str = "ttmem_container_memory_usage_bytes";
const BYTE_SECONDS: &str = "ttmem_container_memory_byte_seconds_total";
const NAMES: [&str; 3] = ["ml-team", "llama-0", "server"];
const GIB: u64 = 1 << 30;

/// A daemon that takes names from a directory of its own.
fn daemon(arguments: &[&str]) -> (Daemon, PathBuf) {
    let directory = Directory::new();
    let (shm, logs) = (directory.join("shm"), directory.join("containers"));
    fs::create_dir(&shm).unwrap();
    fs::create_dir(&logs).unwrap();
    let daemon = start(directory, &logs, arguments);
    (daemon, logs)
}

fn start(directory: Directory, logs: &Path, arguments: &[&str]) -> Daemon {
    let shm = directory.join("shm");
    let arguments = [&["--container-log-dir", logs.to_str().unwrap()], arguments].concat();
    Daemon::launch(ttmem(), directory, &shm, &arguments)
}

/// A client in a container that has allocated some DRAM of device 0.
fn client(daemon: &Daemon, group: &ContainerGroup, bytes: u64) -> Peer {
    let mut client = Peer::unconnected(daemon);
    group.take(client.pid());
    client.ask(r#"{"op":"connect","client":"metal"}"#);
    client.ask(&json!({"op": "allocate", "device": 0, "type": "dram", "size": bytes, "id": 1}).to_string());
    settle(&mut client);
    client
}

/// All that it has sent has been applied once this is answered.
fn settle(client: &mut Peer) {
    client.ask(r#"{"op":"query","device":0}"#);
}

fn labels(names: [&str; 3]) -> [(&str, &str); 5] {
    let [namespace, pod, container] = names;
    [
        ("device", "0"),
        ("memory_type", "dram"),
        ("k8s_namespace_name", namespace),
        ("k8s_pod_name", pod),
        ("k8s_container_name", container),
    ]
}

fn in_container(metrics: &Metrics, family: &str, names: [&str; 3]) -> Option<f64> {
    metrics.value(family, &labels(names))
}

/// All of a process's info labels that tell of its container.
fn told(metrics: &Metrics, pid: u32) -> [String; 5] {
    let families = exposition::read(&metrics.text).unwrap();
    let info = families.iter().find(|family| family.name == "ttmem_process_info").unwrap();
    let sample = info.samples.iter().find(|sample| sample.labels["pid"] == pid.to_string()).unwrap();
    let labels = ["k8s_namespace_name", "k8s_pod_name", "k8s_container_name", "k8s_pod_uid", "container_id"];
    labels.map(|label| sample.labels[label].clone())
}

#[test]
fn a_process_in_a_pod_is_known_by_the_pods_names() {
    let (daemon, logs) = daemon(&[]);
    let (llama, falcon) = (ContainerGroup::new(), ContainerGroup::new());
    llama.log_in(&logs, NAMES);
    falcon.log_in(&logs, ["ml-team", "falcon", "server"]);
    // Others' logs, and what is no log.
    fs::write(logs.join("broken_name-12.log"), "").unwrap();
    fs::write(logs.join("README"), "").unwrap();
    let (first, second) = (client(&daemon, &llama, 5 * GIB), client(&daemon, &llama, 3 * GIB));
    let other = client(&daemon, &falcon, GIB);
    let outside = {
        let mut outside = Peer::field_client(&daemon, "metal");
        outside.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
        settle(&mut outside);
        outside
    };
    let metrics = daemon.wait_for_metrics("the names", |metrics| {
        in_container(metrics, BYTE_SECONDS, NAMES).is_some()
            && in_container(metrics, BYTE_SECONDS, ["ml-team", "falcon", "server"]).is_some()
    });
    metrics.assert_adds_up();
    let [namespace, pod, container] = NAMES;
    let expected = [namespace, pod, container, &llama.pod_uid, &llama.container_id];
    assert_eq!(told(&metrics, first.pid()), expected);
    assert_eq!(told(&metrics, second.pid()), expected);
    assert_eq!(told(&metrics, other.pid())[1..4], ["falcon", "server", &falcon.pod_uid]);
    assert_eq!(told(&metrics, outside.pid()), [""; 5]);

    // A container holds what its processes hold, and what runs in none is in none.
    let held = |client: &Peer| metrics.process_usage(client.pid(), 0, "dram").unwrap();
    assert_eq!(in_container(&metrics, USAGE, NAMES), Some(held(&first) + held(&second)));
    assert_eq!(in_container(&metrics, USAGE, ["ml-team", "falcon", "server"]), Some(held(&other)));
    assert_eq!(metrics.sum(USAGE, &[]), 9.0 * GIB as f64);

    let processes = daemon.json("/api/v1/processes");
    let of = |client: &Peer| {
        let mut all = processes["processes"].as_array().unwrap().iter();
        &all.find(|process| process["pid"] == client.pid()).unwrap()["container"]
    };
    assert_eq!(
        *of(&first),
        json!({
            "container_id": llama.container_id,
            "k8s_pod_uid": llama.pod_uid,
            "k8s_namespace_name": namespace,
            "k8s_pod_name": pod,
            "k8s_container_name": container,
        })
    );
    assert!(of(&outside).is_null());
}

#[test]
fn what_was_held_is_the_integral_and_goes_on_after_an_exit_and_a_restart() {
    let (daemon, logs) = daemon(&["--process-linger-seconds", "0"]);
    let group = ContainerGroup::new();
    group.log_in(&logs, NAMES);
    let mut client_of_pod = client(&daemon, &group, GIB);
    let named = |metrics: &Metrics| in_container(metrics, BYTE_SECONDS, NAMES).is_some();
    daemon.wait_for_metrics("the names", named);
    // Between the two scrapes lies a time that is known from both sides.
    let scrape = || {
        let before = Instant::now();
        let metrics = daemon.metrics();
        (before, in_container(&metrics, BYTE_SECONDS, NAMES).unwrap(), Instant::now())
    };
    let first = scrape();
    let second = {
        // Long enough that what an answer takes is little beside it.
        while first.2.elapsed().as_millis() < 200 {
            settle(&mut client_of_pod);
        }
        scrape()
    };
    let held = (second.1 - first.1) / GIB as f64;
    let (least, most) = ((second.0 - first.2).as_secs_f64(), (second.2 - first.0).as_secs_f64());
    assert!((least..=most).contains(&held), "{held} gibibyte-seconds within {least} to {most} s");

    let pid = client_of_pod.pid();
    client_of_pod.kill();
    let gone =
        daemon.wait_for_metrics("its retirement", |metrics| metrics.process_usage(pid, 0, "dram").is_none());
    assert_eq!(in_container(&gone, USAGE, NAMES), None, "nobody is there who could hold anything");
    let at_the_end = in_container(&gone, BYTE_SECONDS, NAMES).unwrap();
    assert!(at_the_end >= second.1, "{at_the_end} {}", second.1);
    assert_eq!(
        in_container(&daemon.metrics(), BYTE_SECONDS, NAMES),
        Some(at_the_end),
        "nothing is held any more"
    );

    // The pod's container is started again, and has another id.
    let again = ContainerGroup::new();
    again.log_in(&logs, NAMES);
    let _restarted = client(&daemon, &again, GIB);
    let metrics = daemon.wait_for_metrics("it to go on", |metrics| {
        in_container(metrics, BYTE_SECONDS, NAMES).is_some_and(|held| held > at_the_end)
    });
    assert_eq!(in_container(&metrics, USAGE, NAMES), Some(GIB as f64));
    assert_eq!(metrics.values(BYTE_SECONDS, &[]).len(), 1);
}

#[test]
fn names_that_come_late_are_found_and_until_then_the_usage_is_told() {
    let (daemon, logs) = daemon(&[]);
    let group = ContainerGroup::new();
    let client_of_pod = client(&daemon, &group, GIB);
    let metrics = daemon.metrics();
    let nobody = ["", "", "", &group.pod_uid, &group.container_id];
    assert_eq!(told(&metrics, client_of_pod.pid()), nobody);
    assert_eq!(in_container(&metrics, USAGE, [""; 3]), Some(GIB as f64));
    assert_eq!(in_container(&metrics, BYTE_SECONDS, [""; 3]), None, "a counter cannot change its labels");
    group.log_in(&logs, NAMES);
    let metrics =
        daemon.wait_for_metrics("the names", |metrics| in_container(metrics, USAGE, NAMES).is_some());
    assert_eq!(metrics.values(USAGE, &[]), [GIB as f64]);
    assert_eq!(told(&metrics, client_of_pod.pid())[..3], NAMES);
}

#[test]
fn without_a_directory_there_are_ids() {
    for logs in ["/nowhere/containers", "none"].map(Path::new) {
        let directory = Directory::new();
        fs::create_dir(directory.join("shm")).unwrap();
        let daemon = start(directory, logs, &[]);
        let group = ContainerGroup::new();
        let client_of_pod = client(&daemon, &group, GIB);
        let metrics = daemon.wait_for_metrics("the sum of those without names", |metrics| {
            in_container(metrics, BYTE_SECONDS, [""; 3]).is_some()
        });
        let expected = ["", "", "", &group.pod_uid, &group.container_id];
        assert_eq!(told(&metrics, client_of_pod.pid()), expected, "{logs:?}");
        assert_eq!(in_container(&metrics, USAGE, [""; 3]), Some(GIB as f64));
        assert!(!daemon.log().iter().any(|line| line["level"] == "WARN"), "nothing is wrong with that");
    }
}

#[test]
fn a_directory_that_cannot_be_read_is_told_of() {
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let logs = directory.join("containers");
    fs::write(&logs, "no directory").unwrap();
    let daemon = start(directory, &logs, &[]);
    let group = ContainerGroup::new();
    let client_of_pod = client(&daemon, &group, GIB);
    let line = daemon.wait_for_log(
        "cannot read the names of containers; make the directory readable, or set container_log_dir to none",
    );
    assert_eq!(line["directory"], logs.to_str().unwrap());
    assert_eq!(told(&daemon.metrics(), client_of_pod.pid())[4], group.container_id);
}

/// A pod that is there for less than an interval counts as well, where Prometheus takes the beginnings of counters.
#[test]
fn prometheus_learns_when_a_counter_began() {
    let (daemon, logs) = daemon(&["--process-linger-seconds", "0"]);
    let scrape = format!(
        "{{job_name: ttmem, scrape_interval: 1s, static_configs: [{{targets: ['{}']}}]}}",
        daemon.http()
    );
    let prometheus = Prometheus::start_with(
        &format!("scrape_configs: [{scrape}]\n"),
        &["--enable-feature=created-timestamp-zero-ingestion"],
    );
    wait_for("a scrape", || prometheus.value("up"));
    let group = ContainerGroup::new();
    group.log_in(&logs, NAMES);
    client(&daemon, &group, GIB).kill();
    let value = |function: &str| {
        prometheus.value(&format!("{function}({BYTE_SECONDS}{{k8s_pod_name='llama-0'}}[1h])"))
    };
    let last = wait_for("its counter", || value("last_over_time"));
    assert!(last > 0.0);
    assert_eq!(value("min_over_time"), Some(0.0), "it began with nothing");
}
