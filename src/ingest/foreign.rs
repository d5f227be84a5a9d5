//! What is read of other programs' making, as functions of bytes: how the fuzzers, which know nothing of files and processes, get at it.

use super::cgroup;
use super::driver::Holders;
use super::procfs::{ProcessFacts, ProcessFiles};
use super::recovery::recover;
use super::region::Region;
use crate::config::Config;
use crate::journal::Found;

/// A region that was understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignRegion {
    /// The device that it is about.
    pub device: u32,
    /// The pids of the slots in use.
    pub pids: Vec<i32>,
}

/// What a region's bytes say: nothing while its writer sets it up, and why not where they are none.
pub fn region(bytes: &[u8]) -> Result<Option<ForeignRegion>, String> {
    let region = Region::parse(bytes).map_err(|error| error.to_string())?;
    Ok(region.map(|region| ForeignRegion {
        device: region.device_id,
        pids: region.processes.iter().map(|process| process.pid).collect(),
    }))
}

/// What is made of a process's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignProcess {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// The id of the container that it runs in.
    pub container_id: Option<String>,
    /// The unique id of that one's pod.
    pub pod_uid: Option<String>,
}

/// What five files of /proc say of a process: `status`, `stat`, `comm`, `cmdline` and `cgroup`, each of which may be cut short anywhere.
pub fn process([status, stat, comm, cmdline, cgroup]: [&str; 5]) -> ForeignProcess {
    let facts = ProcessFacts::parse(&ProcessFiles { status, stat, comm, cmdline, cgroup });
    let membership = facts.cgroup.as_deref().and_then(cgroup::membership);
    let (container_id, pod_uid) =
        membership.map_or((None, None), |found| (Some(found.container_id), found.pod_uid));
    ForeignProcess { name: facts.name, container_id, pod_uid }
}

/// The pids that the driver's list of holders names, each once.
pub fn holders(text: &str) -> Vec<u32> {
    Holders::parse(text).pids.into_iter().collect()
}

/// What a state directory comes to, as the content of a checkpoint of it, and why not where it is none of this version's.
pub fn recovered(found: &Found) -> Result<Vec<u8>, String> {
    let state = recover(found, &Config::default()).map_err(|error| error.to_string())?;
    state.encode().map_err(|error| error.to_string())
}
