//! The ends of processes, as the daemon sees them: what they held, what stays of them, and for how long.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::json;
use support::frames::{CB_ALLOC, Connection, Frame, KERNEL_LOAD};
use support::{Daemon, Directory, Metrics, Peer, exposition, peers, send_signal, ttmem, wait_for};

/// Reclaiming takes a few milliseconds. A machine that is busy with other things is no reason to fail.
const RECLAIM_BOUND: Duration = Duration::from_secs(1);

fn allocate(client: &mut Peer, device: i32, memory_type: &str, size: u64, id: u64, count: u64) {
    let mut allocation = json!({"op": "allocate", "device": device, "type": memory_type, "size": size});
    allocation["id"] = id.into();
    allocation["count"] = count.into();
    client.ask(&allocation.to_string());
}

/// Waits until all that the client has sent has been applied.
fn settle(client: &mut Peer) {
    client.ask(r#"{"op":"query","device":0}"#);
}

/// Waits until so many processes have ended, and gives what is so then.
fn wait_for_ends(daemon: &Daemon, count: f64) -> Metrics {
    daemon.wait_for_metrics(&format!("the end of {count} processes"), |metrics| {
        metrics.events("process_end") == count
    });
    // The end that was counted may have come while the other figures of that scrape had been read already.
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    metrics
}

fn wait_for_connections(daemon: &Daemon, count: f64) {
    daemon.wait_for_metrics(&format!("{count} connections"), |metrics| {
        metrics.sum("ttmem_client_connections", &[]) == count
    });
}

#[test]
fn a_killed_process_gives_back_at_once_what_it_held() {
    let daemon = Daemon::start(&[]);
    let mut observer = Connection::open(&daemon, 144);
    let mut victim = Peer::field_client(&daemon, "metal");
    let mut survivor = Peer::field_client(&daemon, "metal");
    allocate(&mut victim, 0, "dram", 1000, 1, 10_000);
    allocate(&mut victim, 1, "l1", 64, 1, 5);
    victim.ask(r#"{"op":"cb_allocate","device":0,"size":4096,"id":1}"#);
    victim.ask(r#"{"op":"kernel_load","device":0,"size":300,"id":1,"kind":"dispatch"}"#);
    allocate(&mut survivor, 0, "dram", 7, 1, 1);
    settle(&mut victim);
    settle(&mut survivor);
    assert_eq!(observer.query(0).dram(), 10_000_007);

    let killed = Instant::now();
    send_signal(victim.pid(), Signal::KILL);
    wait_for("its memory to be reclaimed", || (observer.query(0).dram() == 7).then_some(()));
    let elapsed = killed.elapsed();
    println!("reclaimed {:.1} ms after the kill", elapsed.as_secs_f64() * 1e3);
    assert!(elapsed < RECLAIM_BOUND, "reclaimed only after {elapsed:?}");

    // A device's memory is given back type by type.
    let metrics = wait_for_ends(&daemon, 1.0);
    for (device, memory_type, bytes, buffers) in [
        ("0", "dram", 10_000_000.0, 10_000.0),
        ("1", "l1", 320.0, 5.0),
        ("0", "cb", 4096.0, 1.0),
        ("0", "kernel", 300.0, 1.0),
    ] {
        let labels = [("device", device), ("memory_type", memory_type)];
        let value = |name| metrics.value(name, &labels);
        assert_eq!(value("ttmem_device_orphaned_bytes_total"), Some(bytes), "{labels:?}");
        assert_eq!(value("ttmem_device_orphaned_buffers_total"), Some(buffers), "{labels:?}");
        assert_eq!(value("ttmem_device_freed_bytes_total"), Some(bytes), "{labels:?}");
        assert_eq!(value("ttmem_device_frees_total"), Some(buffers), "{labels:?}");
    }
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(1.0));
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "1")]), Some(0.0));
    assert_eq!(metrics.process_usage(survivor.pid(), 0, "dram"), Some(7.0));
    let line = daemon.wait_for_log("process ended with memory held; reclaimed it");
    assert_eq!(line["pid"], victim.pid());
    assert_eq!((line["buffers"].as_u64(), line["bytes"].as_u64()), (Some(10_007), Some(10_004_716)));
}

#[test]
fn a_process_that_ends_by_itself_leaves_nothing_either() {
    let daemon = Daemon::start(&[]);
    let mut tidy = Peer::field_client(&daemon, "seed");
    allocate(&mut tidy, 0, "dram", 4096, 1, 3);
    tidy.ask(r#"{"op":"free","id":1,"count":3}"#);
    tidy.finish();
    wait_for_ends(&daemon, 1.0);
    let mut careless = Peer::field_client(&daemon, "seed");
    allocate(&mut careless, 0, "dram", 4096, 1, 3);
    careless.finish();
    let metrics = wait_for_ends(&daemon, 2.0);
    assert_eq!(metrics.usage(0, "dram"), Some(0.0));
    let dram = [("memory_type", "dram")];
    assert_eq!(metrics.value("ttmem_device_orphaned_buffers_total", &dram), Some(3.0), "of the careless one");
    assert_eq!(metrics.value("ttmem_device_frees_total", &dram), Some(6.0));
}

#[test]
fn a_closed_socket_frees_nothing_while_its_process_lives() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "metal");
    allocate(&mut client, 0, "dram", 4096, 1, 2);
    settle(&mut client);
    client.ask(r#"{"op":"close"}"#);
    wait_for_connections(&daemon, 0.0);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(client.pid(), 0, "dram"), Some(8192.0));
    assert_eq!(metrics.events("process_end"), 0.0);

    // It is the same process when it comes back, and its buffers are the same ones.
    client.ask(r#"{"op":"connect","client":"python"}"#);
    client.ask(r#"{"op":"free","id":1}"#);
    settle(&mut client);
    let metrics = daemon.metrics();
    assert_eq!(metrics.process_usage(client.pid(), 0, "dram"), Some(4096.0));
    assert_eq!(metrics.rejected("unknown_free"), 0.0);
    client.ask(r#"{"op":"close"}"#);
    wait_for_connections(&daemon, 0.0);

    // Without a connection its end is seen all the same.
    client.kill();
    let metrics =
        daemon.wait_for_metrics("its memory to go", |metrics| metrics.usage(0, "dram") == Some(0.0));
    assert_eq!(metrics.sum("ttmem_device_orphaned_bytes_total", &[]), 4096.0);
}

#[test]
fn a_process_is_one_however_many_connections_it_has() {
    let daemon = Daemon::start(&[]);
    let mut first = Connection::open(&daemon, 72);
    let mut second = Connection::open(&daemon, 144);
    first.send(&[Frame::alloc(0, 4096, 1)]);
    first.query(0);
    second.send(&[Frame::alloc(0, 4096, 1), Frame::alloc(0, 512, 2)]);
    assert_eq!(second.query(0).dram(), 4608, "the address that both name is one buffer");
    second.send(&[Frame::free(0, 1), Frame::free(0, 1)]);
    assert_eq!(second.query(0).dram(), 512);
    first.send(&[Frame::free(0, 2)]);
    assert_eq!(first.query(0).dram(), 0);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(std::process::id(), 0, "dram"), Some(0.0));
    assert_eq!(metrics.rejected("unknown_free"), 0.0);
}

#[test]
fn the_last_values_of_a_process_stay_for_a_while() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "metal");
    allocate(&mut client, 0, "dram", 4096, 1, 3);
    settle(&mut client);
    let pid = client.pid();
    client.kill();
    let metrics = wait_for_ends(&daemon, 1.0);
    assert_eq!(metrics.process_usage(pid, 0, "dram"), Some(0.0));
    let label = pid.to_string();
    let labels = [("pid", label.as_str())];
    assert_eq!(metrics.value("ttmem_process_buffers", &labels), Some(0.0));
    assert_eq!(metrics.value("ttmem_process_memory_peak_bytes", &labels), Some(12_288.0));
    assert_eq!(metrics.value("ttmem_process_allocated_bytes_total", &labels), Some(12_288.0));
    assert_eq!(metrics.value("ttmem_process_info", &labels), Some(1.0));
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(0.0));
    let processes = daemon.json("/api/v1/processes");
    assert_eq!(processes["processes"][0]["pid"], pid, "{processes}");
    assert_eq!(processes["processes"][0]["ended"], true, "{processes}");
    assert_eq!(daemon.json("/api/v1/buffers")["buffers"], json!([]));
}

#[test]
fn a_process_that_ended_goes_and_the_devices_counters_keep_what_it_did() {
    for linger_seconds in ["0", "1"] {
        let daemon = Daemon::start(&["--process-linger-seconds", linger_seconds]);
        let mut client = Peer::field_client(&daemon, "metal");
        let mut survivor = Peer::field_client(&daemon, "metal");
        allocate(&mut client, 0, "dram", 4096, 1, 3);
        client.ask(r#"{"op":"free","id":1}"#);
        settle(&mut client);
        allocate(&mut survivor, 0, "dram", 100, 1, 1);
        settle(&mut survivor);
        let pid = client.pid().to_string();
        client.kill();
        let metrics = daemon.wait_for_metrics("its series to vanish", |metrics| {
            metrics.values("ttmem_process_info", &[("pid", &pid)]).is_empty()
        });
        metrics.assert_adds_up();
        assert!(!metrics.text.contains(&format!("pid=\"{pid}\"")), "not one of its series is left");
        let dram = [("memory_type", "dram")];
        for (name, value) in [
            ("ttmem_device_memory_usage_bytes", 100.0),
            ("ttmem_device_memory_peak_bytes", 12_288.0),
            ("ttmem_device_buffers", 1.0),
            ("ttmem_device_allocations_total", 4.0),
            ("ttmem_device_allocated_bytes_total", 12_388.0),
            ("ttmem_device_frees_total", 3.0),
            ("ttmem_device_freed_bytes_total", 12_288.0),
            ("ttmem_device_orphaned_buffers_total", 2.0),
            ("ttmem_device_orphaned_bytes_total", 8192.0),
            ("ttmem_buffer_size_bytes_count", 4.0),
            ("ttmem_buffer_lifetime_seconds_count", 3.0),
        ] {
            assert_eq!(metrics.value(name, &dram), Some(value), "{name}, linger {linger_seconds}");
        }
        let processes = daemon.json("/api/v1/processes");
        assert_eq!(processes["processes"].as_array().unwrap().len(), 1, "{processes}");
        assert_eq!(processes["processes"][0]["pid"], survivor.pid());
    }
}

#[test]
fn a_process_that_is_gone_before_it_is_looked_at_is_counted() {
    let daemon = Daemon::start(&[]);
    daemon.freeze();
    let mut client = Peer::unconnected(&daemon);
    client.ask(r#"{"op":"connect","client":"metal"}"#);
    allocate(&mut client, 0, "dram", 4096, 1, 50);
    let pid = client.pid();
    client.finish();
    daemon.thaw();
    let metrics = wait_for_ends(&daemon, 1.0);
    assert_eq!(metrics.process_usage(pid, 0, "dram"), Some(0.0));
    let dram = [("memory_type", "dram")];
    for (name, value) in [
        ("ttmem_device_memory_usage_bytes", 0.0),
        ("ttmem_device_memory_peak_bytes", 204_800.0),
        ("ttmem_device_allocations_total", 50.0),
        ("ttmem_device_orphaned_buffers_total", 50.0),
        ("ttmem_device_orphaned_bytes_total", 204_800.0),
    ] {
        assert_eq!(metrics.value(name, &dram), Some(value), "{name}");
    }
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "0")]), Some(0.0));
    wait_for_connections(&daemon, 0.0);
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_a_frame() {
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "metal");
    allocate(&mut client, 0, "dram", 4096, 1, 2);
    settle(&mut client);
    client.ask(&json!({"op": "raw", "hex": "01".to_owned() + &"00".repeat(99)}).to_string());
    client.kill();
    let metrics = wait_for_ends(&daemon, 1.0);
    assert_eq!(metrics.usage(0, "dram"), Some(0.0));
    assert_eq!(metrics.sum("ttmem_device_orphaned_buffers_total", &[]), 2.0);
    assert_eq!(metrics.rejected("truncated"), 1.0);
    let line = daemon.wait_for_log("connection ended inside a frame");
    assert_eq!((line["peer"].as_u64(), line["bytes"].as_u64()), (Some(client.pid().into()), Some(100)));
    assert_eq!(line["offset"], 3 * 144, "after two reports and a question");
}

#[test]
fn a_parents_end_leaves_its_child_what_is_the_childs() {
    let daemon = Daemon::start(&[]);
    let mut parent = Peer::field_client(&daemon, "metal");
    allocate(&mut parent, 0, "dram", 4096, 1, 1);
    let forked =
        parent.ask(r#"{"op":"fork_allocate","device":0,"type":"dram","size":512,"id":1,"outlives":true}"#);
    let child = forked["child_pid"].as_u64().unwrap() as u32;
    settle(&mut parent);
    parent.kill();
    // The child keeps the parent's connection open, so its end has to be seen by other means.
    let metrics = daemon.wait_for_metrics("the parent's memory to be reclaimed", |metrics| {
        metrics.usage(0, "dram") == Some(512.0)
    });
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(parent.pid(), 0, "dram"), Some(0.0));
    assert_eq!(metrics.process_usage(child, 0, "dram"), Some(512.0));
    assert_eq!(metrics.sum("ttmem_client_connections", &[]), 1.0);
    send_signal(child, Signal::KILL);
    daemon.wait_for_metrics("the child's, too", |metrics| metrics.usage(0, "dram") == Some(0.0));
    wait_for_connections(&daemon, 0.0);
}

#[test]
fn what_comes_in_the_name_of_an_ended_process_is_counted() {
    let daemon = Daemon::start(&[]);
    let mut parent = Peer::field_client(&daemon, "metal");
    allocate(&mut parent, 0, "dram", 4096, 1, 1);
    let forked = parent.ask(r#"{"op":"fork_allocate","device":0,"type":"dram","size":512,"id":1}"#);
    settle(&mut parent);
    parent.ask(r#"{"op":"end_child"}"#);
    wait_for_ends(&daemon, 1.0);
    // A report that the child wrote before its end, and the daemon read after it.
    let process_id = forked["child_pid"].as_i64().unwrap() as i32;
    let late = Frame { process_id, ..Frame::alloc(0, 64, 2) };
    let hex: String = late.bytes(144).iter().map(|byte| format!("{byte:02x}")).collect();
    parent.ask(&json!({"op": "raw", "hex": hex}).to_string());
    settle(&mut parent);
    let metrics = daemon.metrics();
    metrics.assert_adds_up();
    assert_eq!(metrics.process_usage(process_id as u32, 0, "dram"), Some(0.0), "it does not come back");
    let refused = metrics.rejected("process_ended") + metrics.rejected("claimed_pid");
    assert_eq!(refused, 1.0, "the report is counted as one that was not believed as it stood");
}

#[test]
fn who_a_process_is_is_told() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let daemon = Daemon::start(&[]);
    let mut client = Peer::field_client(&daemon, "python");
    allocate(&mut client, 0, "dram", 4096, 1, 1);
    settle(&mut client);
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let metrics = daemon.metrics();
    let pid = client.pid().to_string();
    let start = metrics.value("ttmem_process_start_time_seconds", &[("pid", &pid)]).unwrap();
    // The kernel counts in hundredths of a second.
    assert!((before - 0.1..after + 0.1).contains(&start), "{before} {start} {after}");
    let families = exposition::read(&metrics.text).unwrap();
    let info = families.iter().find(|family| family.name == "ttmem_process_info").unwrap();
    let labels = &info.samples[0].labels;
    assert_eq!(
        labels["process"].split_once(':').unwrap().1,
        "field_clients.py",
        "the script, not only python"
    );
    assert_eq!(labels["source"], "socket");
    let id = Command::new("id").arg("-un").output().unwrap();
    assert_eq!(labels["user"], String::from_utf8(id.stdout).unwrap().trim_end());
    let processes = daemon.json("/api/v1/processes");
    let process = &processes["processes"][0];
    assert_eq!(process["uid"], rustix::process::geteuid().as_raw());
    assert_eq!(process["process"], labels["process"]);
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    if let Some(cgroup) = cgroup {
        assert_eq!(process["cgroup"], cgroup);
    }
}

#[test]
fn the_largest_processes_have_series_and_the_others_a_sum() {
    let daemon = Daemon::start(&["--processes-max", "2"]);
    let mut clients: Vec<Peer> = (0..5).map(|_| Peer::field_client(&daemon, "metal")).collect();
    for (client, size) in clients.iter_mut().zip([10, 5000, 30, 4000, 20]) {
        allocate(client, 3, "dram", size, 1, 1);
        settle(client);
    }
    let metrics = daemon.metrics();
    let dram = [("device", "3"), ("memory_type", "dram")];
    assert_eq!(metrics.value("ttmem_device_memory_usage_bytes", &dram), Some(9060.0));
    assert_eq!(metrics.values("ttmem_process_memory_usage_bytes", &dram), [5000.0, 4000.0]);
    assert_eq!(metrics.value("ttmem_process_suppressed_memory_usage_bytes", &dram), Some(60.0));
    assert_eq!(metrics.value("ttmem_process_suppressed", &[("device", "3")]), Some(3.0));
    assert_eq!(metrics.value("ttmem_device_processes", &[("device", "3")]), Some(5.0));
    // Whoever grows above them takes a place.
    allocate(&mut clients[0], 3, "dram", 10_000, 2, 1);
    settle(&mut clients[0]);
    let metrics = daemon.metrics();
    assert_eq!(metrics.values("ttmem_process_memory_usage_bytes", &dram), [10_010.0, 5000.0]);
    assert_eq!(metrics.value("ttmem_process_suppressed_memory_usage_bytes", &dram), Some(4050.0));
    exposition::read(&metrics.text).unwrap();
}

/// In a pid namespace of its own a client calls itself 1, and so do all others.
#[test]
fn a_client_in_a_pid_namespace_is_known_by_the_hosts_pid() {
    let daemon = Daemon::start(&[]);
    let clients = [4096, 8192].map(|size| {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--", "python3"]);
        command.arg(peers().join("field_clients.py")).arg("--socket").arg(daemon.socket());
        let mut client = Peer::start(&mut command);
        // Without such a namespace there is nobody who could answer.
        client.ask(r#"{"op":"connect","client":"metal"}"#);
        allocate(&mut client, 0, "dram", size, 1, 1);
        settle(&mut client);
        client
    });
    let processes = daemon.json("/api/v1/processes")["processes"].clone();
    let found: Vec<_> = processes.as_array().unwrap().iter().map(|process| &process["pid"]).collect();
    assert_eq!(found.len(), 2, "{processes}");
    for (client, size) in clients.iter().zip([4096.0, 8192.0]) {
        // What unshare runs is its only child.
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", client.pid())).unwrap();
        let pid: u32 = children.trim().parse().unwrap();
        assert_eq!(daemon.metrics().process_usage(pid, 0, "dram"), Some(size));
        let told = daemon.json(&format!("/api/v1/processes?pid={pid}"))["processes"][0].clone();
        assert_eq!(told["ns_pid"], 1, "{told}");
    }
    assert_eq!(daemon.metrics().rejected("claimed_pid"), 0.0, "each speaks of itself");
    let mut own = Peer::field_client(&daemon, "metal");
    allocate(&mut own, 0, "dram", 1, 1, 1);
    settle(&mut own);
    let own = daemon.json(&format!("/api/v1/processes?pid={}", own.pid()))["processes"][0].clone();
    assert!(own["pid"].is_u64() && own["ns_pid"].is_null(), "{own}");

    let server = format!("http://{}", daemon.http());
    let shown = |arguments: &[&str]| {
        let output = ttmem().args(["status", "--server", &server]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(shown(&[]).contains("(ns_pid 1)"), "{}", shown(&[]));
    assert!(shown(&["--json"]).contains("\"ns_pid\":1") || shown(&["--json"]).contains("\"ns_pid\": 1"));
}

#[test]
fn a_client_whose_pid_the_daemon_cannot_know_is_not_lost_without_a_word() {
    // As when the daemon runs in a container and its clients do not: the kernel has no pid to tell then.
    let program = ttmem();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    let permits = Command::new("unshare").args(command.get_args()).arg("true").output();
    assert!(
        permits.as_ref().is_ok_and(|run| run.status.success()),
        "no pid namespace can be made here: run the tests as root, outside of a container that forbids it: {permits:?}"
    );
    command.arg("--").arg(program.get_program());
    for (variable, _) in program.get_envs() {
        command.env_remove(variable);
    }
    let directory = Directory::new();
    fs::create_dir(directory.join("shm")).unwrap();
    let shm = directory.join("shm");
    let daemon = Daemon::launch(command, directory, &shm, &[]);
    for _ in 0..20 {
        let mut client = Peer::field_client(&daemon, "metal");
        client.ask_anything(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
        client.ask_anything(r#"{"op":"query","device":0}"#);
    }
    let metrics = daemon.metrics();
    let counted = metrics.sum("ttmem_device_allocated_bytes_total", &[]) > 0.0;
    let refused = metrics.sum("ttmem_events_rejected_total", &[]) > 0.0;
    assert!(counted || refused, "neither their memory nor their refusal is counted");
    let log = daemon.log();
    let complaints: Vec<_> = log
        .iter()
        .filter(|line| line["level"] == "WARN" && line.to_string().to_lowercase().contains("namespace"))
        .collect();
    assert!(counted || !complaints.is_empty(), "the operator is not told what to mend: {log:?}");
    assert!(log.len() < 15, "whatever is said of each client is said of a few of them: {log:?}");
}

/// Every series of an exposition is there once, or its scraper keeps one of the two and drops the other.
#[track_caller]
fn check_unambiguous(daemon: &Daemon) {
    let metrics = daemon.metrics();
    if let Err(problem) = exposition::read(&metrics.text) {
        panic!("{problem}");
    }
    metrics.assert_adds_up();
}

#[test]
fn a_pid_that_is_used_again_does_not_double_a_series() {
    let daemon = Daemon::start(&[]);
    let mut first = Peer::field_client(&daemon, "metal");
    allocate(&mut first, 0, "dram", 4096, 1, 1);
    settle(&mut first);
    let pid = first.pid();
    first.kill();
    wait_for_ends(&daemon, 1.0);

    // The kernel gives out the number after this one next, unless somebody else is quicker.
    let attempts = (0..100).find_map(|_| {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let peer = Peer::unconnected(&daemon);
        Some(peer).filter(|peer| peer.pid() == pid)
    });
    let Some(mut second) = attempts else {
        eprintln!("not tested: this system does not permit to choose the next pid");
        return;
    };
    second.ask(r#"{"op":"connect","client":"metal"}"#);
    allocate(&mut second, 0, "dram", 512, 1, 1);
    settle(&mut second);
    let metrics = daemon.metrics();
    assert_eq!(metrics.usage(0, "dram"), Some(512.0), "another process, though of the same pid and name");
    let dram = [("memory_type", "dram")];
    assert_eq!(metrics.value("ttmem_device_allocated_bytes_total", &dram), Some(4608.0));
    check_unambiguous(&daemon);
    assert_eq!(metrics.process_usage(pid, 0, "dram"), Some(512.0));
    second.kill();
    wait_for_ends(&daemon, 2.0);
    check_unambiguous(&daemon);
}

#[test]
fn a_simulated_pid_that_is_used_again_does_not_double_a_series() {
    let daemon = Daemon::start(&["--trust-claimed-pids"]);
    let buffer = |id| Frame { process_id: 4242, ..Frame::alloc(0, 4096, id) };
    let mut first = Connection::open(&daemon, 144);
    first.send(&[buffer(1)]);
    first.query(0);
    first.finish();
    wait_for_ends(&daemon, 1.0);
    let mut second = Connection::open(&daemon, 144);
    second.send(&[buffer(1)]);
    second.query(0);
    check_unambiguous(&daemon);
    assert_eq!(daemon.metrics().process_usage(4242, 0, "dram"), Some(4096.0));
}

#[test]
fn two_sessions_may_speak_for_one_simulated_process() {
    let daemon = Daemon::start(&["--trust-claimed-pids"]);
    let report = |kind| Frame { kind, process_id: 4242, ..Frame::alloc(0, 4096, 1) };
    let mut first = Connection::open(&daemon, 144);
    let mut second = Connection::open(&daemon, 72);
    first.send(&[report(CB_ALLOC)]);
    first.query(0);
    second.send(&[report(KERNEL_LOAD), report(CB_ALLOC)]);
    second.query(0);
    check_unambiguous(&daemon);
    assert_eq!(daemon.metrics().process_usage(4242, 0, "cb"), Some(8192.0));
    // It lives as long as one of them names it.
    second.finish();
    wait_for_connections(&daemon, 1.0);
    first.query(0);
    assert_eq!(daemon.metrics().process_usage(4242, 0, "cb"), Some(8192.0));
}
