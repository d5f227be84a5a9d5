//! Processes of Slurm's jobs: real clients in control groups as slurmstepd makes them, and with environments as it gives them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::process::Command;

use serde_json::{Value, json};
use support::cgroup::Group;
use support::{Daemon, Peer, peers};

/// A client whose environment names a job, or none.
fn client(daemon: &Daemon, group: Option<&Group>, environment: &[(&str, &str)]) -> Peer {
    let mut command = Command::new("python3");
    command.arg(peers().join("field_clients.py")).arg("--socket").arg(daemon.socket());
    command.env_remove("SLURM_JOB_ID").envs(environment.iter().copied());
    let mut client = Peer::start(&mut command);
    if let Some(group) = group {
        group.take(client.pid());
    }
    client.ask(r#"{"op":"connect","client":"metal"}"#);
    client.ask(r#"{"op":"allocate","device":0,"type":"dram","size":4096,"id":1}"#);
    client.ask(r#"{"op":"query","device":0}"#);
    client
}

/// What the API says of its job.
fn job(daemon: &Daemon, client: &Peer) -> Value {
    daemon.json(&format!("/api/v1/processes?pid={}", client.pid()))["processes"][0]["slurm"].clone()
}

/// What the metrics say of it: job and step.
fn labels<'a>(pid: &'a str, job_id: &'a str, step_id: &'a str) -> [(&'a str, &'a str); 3] {
    [("pid", pid), ("slurm_job_id", job_id), ("slurm_step_id", step_id)]
}

#[test]
fn a_process_is_its_steps_whatever_its_environment_says() {
    let daemon = Daemon::start(&["--process-environment"]);
    let step = Group::new(&["slurmstepd.scope", "job_4711", "step_0", "user", "task_0"]);
    let inside = client(&daemon, Some(&step), &[("SLURM_JOB_ID", "1"), ("SLURM_STEP_ID", "9")]);
    let outside = client(&daemon, None, &[]);
    assert_eq!(job(&daemon, &inside), json!({"job_id": 4711, "step_id": "0", "source": "cgroup"}));
    assert!(job(&daemon, &outside).is_null());
    let metrics = daemon.metrics();
    let told = |client: &Peer, job_id, step_id| {
        metrics.value("ttmem_process_info", &labels(&client.pid().to_string(), job_id, step_id))
    };
    assert_eq!(told(&inside, "4711", "0"), Some(1.0), "{}", metrics.text);
    assert_eq!(told(&outside, "", ""), Some(1.0));
}

#[test]
fn an_environment_is_read_only_if_that_is_wanted_and_said_to_be_that() {
    let environment = [("SLURM_JOB_ID", "77"), ("SLURM_STEP_ID", "batch")];
    let daemon = Daemon::start(&["--process-environment"]);
    let named = client(&daemon, None, &environment);
    let expected = json!({"job_id": 77, "step_id": "batch", "source": "environment"});
    assert_eq!(job(&daemon, &named), expected);
    let nonsense = client(&daemon, None, &[("SLURM_JOB_ID", "77; reboot")]);
    assert!(job(&daemon, &nonsense).is_null());

    let default = Daemon::start(&[]);
    let unread = client(&default, None, &environment);
    assert!(job(&default, &unread).is_null());
}
