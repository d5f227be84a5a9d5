//! Which container, which pod and which Slurm job a control group's path stands for: pure, from the forms that runtimes give their paths.
//!
//! The idea is to look at one component after the other and to ask nothing of those around it. A daemon in a container sees the paths of
//! others from its own place, with `..` in front, and the kubelet's root can be moved below any other.

use crate::registry::{SlurmJob, SlurmSource};

/// Hexadecimal digits of a container's id, in every runtime.
const ID_CHARS: usize = 64;
/// Digits of a pod's unique id without its dashes. Static pods have a hash of that length.
const POD_UID_DIGITS: usize = 32;
/// Where the dashes of a unique id are.
const POD_UID_DASHES: [usize; 4] = [8, 13, 18, 23];

/// Beside numbers, steps are called batch, extern and interactive; a longer name is nothing of Slurm's.
const STEP_CHARS_MAX: usize = 16;
/// Below it a user can give groups any name, also that of another's pod or job.
const USERS_OWN: &str = "user.slice";

/// What a path tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Membership {
    pub(super) container_id: String,
    pub(super) pod_uid: Option<String>,
}

/// The path by which a process is shown, out of what /proc says of its control groups: the one that leads to a container, first that of a
/// pod; or else the unified hierarchy's, or the first one's.
pub(super) fn path(proc_cgroup: &str) -> Option<&str> {
    let mut paths: Vec<(&str, &str)> =
        proc_cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
    // systemd's own hierarchy is the one that no runtime leaves out.
    paths.sort_by_key(|(controllers, _)| match *controllers {
        "" => 0,
        "name=systemd" => 1,
        _ => 2,
    });
    let rank = |path: &str| membership(path).map_or(2, |found| u8::from(found.pod_uid.is_none()));
    // The first of those that are as good.
    paths.into_iter().map(|(_, path)| path).min_by_key(|path| rank(path))
}

/// The container that a path leads to. In a pod it is the one that the kubelet made, whatever runs inside of it; a pod inside of a
/// container, as where nodes are containers, wins over what it is in.
pub(super) fn membership(path: &str) -> Option<Membership> {
    let (mut container_id, mut pod_uid) = (None, None);
    for component in path.split('/') {
        if let Some(uid) = pod_uid_in(component) {
            (container_id, pod_uid) = (None, Some(uid));
        }
        if let Some(id) = container_id_in(component)
            && (container_id.is_none() || pod_uid.is_none())
        {
            container_id = Some(id);
        }
    }
    Some(Membership {
        container_id: container_id?.to_owned(),
        pod_uid: pod_uid.filter(|_| !is_users_own(path)),
    })
}

fn is_users_own(path: &str) -> bool {
    path.split('/').any(|component| component == USERS_OWN)
}

/// The Slurm job that a process belongs to, out of what /proc says of its control groups. In version 1 not every hierarchy is Slurm's, so
/// all of them are looked at.
pub(super) fn slurm_job(proc_cgroup: &str) -> Option<SlurmJob> {
    proc_cgroup.lines().find_map(|line| slurm_job_of(line.split_once(':')?.1.split_once(':')?.1))
}

/// `…/slurmstepd.scope/job_N/step_X/…`, or `…/slurm/uid_U/job_N/step_X/…` in version 1; a node that plays several puts its name before or
/// behind. Only the outermost counts: what lies below a step is the job's own to name.
fn slurm_job_of(path: &str) -> Option<SlurmJob> {
    let is_slurms = |component: &&str| {
        component.ends_with("slurmstepd.scope") || *component == "slurm" || component.starts_with("slurm_")
    };
    let mut below = path.split('/').skip_while(|component| !is_slurms(component)).skip(1);
    let job = below.next()?;
    let job = if job.starts_with("uid_") { below.next()? } else { job };
    let job_id = job.strip_prefix("job_")?.parse().ok()?;
    let step_id = below.next().and_then(|step| slurm_step(step.strip_prefix("step_")?));
    (!is_users_own(path)).then_some(SlurmJob { job_id, step_id, source: SlurmSource::Cgroup })
}

/// A step's id, if it can be one.
pub(super) fn slurm_step(step: &str) -> Option<String> {
    let is_id = !step.is_empty()
        && step.len() <= STEP_CHARS_MAX
        && step.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'.'));
    is_id.then(|| step.to_owned())
}

/// `ID`, `RUNTIME-ID`, `RUNTIME-ID.scope`, or `SLICE:RUNTIME:ID` where runtime and kubelet disagree about the driver.
fn container_id_in(component: &str) -> Option<&str> {
    let name = component.rsplit(':').next()?;
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    // Runs beside the container, to watch it.
    let is_monitor = runtime.ends_with("conmon");
    (id.len() == ID_CHARS && is_hexadecimal(id) && !is_monitor).then_some(id)
}

/// `podUID`, or `…-podUID.slice` with underscores, as dashes have a meaning in the names of slices.
fn pod_uid_in(component: &str) -> Option<String> {
    let name = component.split(':').next()?;
    let last = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit('-').next()?,
        None => name,
    };
    let uid = last.strip_prefix("pod")?.replace('_', "-");
    let dashes: Vec<usize> = uid.match_indices('-').map(|(at, _)| at).collect();
    let digits = uid.replace('-', "");
    let is_uid = digits.len() == POD_UID_DIGITS && (dashes.is_empty() || dashes == POD_UID_DASHES);
    (is_uid && is_hexadecimal(&digits)).then_some(uid)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c9a52d07be84416a5c0e97f2db3c8815e6fa40b9d72c3e1a84f5b60d79c2e";
    const OTHER: &str = "aa00000000000000000000000000000000000000000000000000000000000001";
    const UID: &str = "0e4f6a1c-93bd-4f27-8a10-5d2c7be94f31";
    const STATIC_UID: &str = "6e1e9ae4b4bcd31e32c6f5bcbba2bc28";

    /// ID, OTHER, UID and UID_ (with underscores) in the path stand for those above.
    #[track_caller]
    fn check(path: &str, expected: Option<(&str, Option<&str>)>) {
        let path = path.replace("UID_", &UID.replace('-', "_")).replace("STATIC", STATIC_UID);
        let path = path.replace("UID", UID).replace("OTHER", OTHER).replace("ID", ID);
        let expected = expected.map(|(id, pod_uid)| Membership {
            container_id: id.to_owned(),
            pod_uid: pod_uid.map(str::to_owned),
        });
        assert_eq!(membership(&path), expected, "{path}");
    }

    #[test]
    fn the_kubelets_paths() {
        let in_pod = Some((ID, Some(UID)));
        for path in [
            // cgroupfs: containerd, docker and CRI-O; guaranteed pods have no class of their own.
            "/kubepods/burstable/podUID/ID",
            "/kubepods/podUID/ID",
            "/kubepods/besteffort/podUID/crio-ID",
            "/kubepods/besteffort/podUID/crio-ID/container",
            // systemd.
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/crio-ID.scope/container",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID_.slice/docker-ID.scope",
            // The kubelet has systemd's driver, containerd the other one.
            "/system.slice/containerd.service/kubepods-burstable-podUID_.slice:cri-containerd:ID",
            // A kubelet with a root of its own, and one whose node is a container.
            "/kubelet/kubepods/burstable/podUID/ID",
            "/docker/OTHER/kubelet/kubepods/burstable/podUID/ID",
            "/system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podUID_.slice/cri-containerd-ID.scope",
            // Containers inside of the pod's.
            "/kubepods/burstable/podUID/ID/docker/OTHER",
            "/kubepods.slice/kubepods-podUID_.slice/cri-containerd-ID.scope/system.slice/docker-OTHER.scope",
            // As a daemon in another pod sees it.
            "/../../burstable/podUID/ID",
            "/../../../kubepods-burstable.slice/kubepods-burstable-podUID_.slice/cri-containerd-ID.scope",
        ] {
            check(path, in_pod);
        }
        check("/kubepods/burstable/podSTATIC/ID", Some((ID, Some(STATIC_UID))));
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/cri-containerd-ID.scope",
            Some((ID, Some(STATIC_UID))),
        );
        check("/kubepods/burstable/podUID", None);
    }

    #[test]
    fn containers_outside_of_pods() {
        let alone = Some((ID, None));
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/system.slice/docker-ID.scope/init.scope",
            "/docker/OTHER/docker/ID",
            "/machine.slice/libpod-ID.scope/container",
            "/machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope",
            "/libpod_parent/libpod-ID",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            // Another container of the daemon's own pod.
            "/../ID",
            "/../cri-containerd-ID.scope",
        ] {
            check(path, alone);
        }
    }

    #[test]
    fn what_is_no_container() {
        for path in [
            "",
            "/",
            "/..",
            "/init.scope",
            "/system.slice/ttmem.service",
            "/user.slice/user-1000.slice/session-2.scope",
            "/system.slice/docker.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/kubepods-podUID_.slice/crio-conmon-ID.scope",
            "/docker/3f1c9a52d07b",
            "/docker/IDa",
            "/kubepods/podnotauid/web",
        ] {
            check(path, None);
        }
    }

    #[test]
    fn nobody_becomes_a_pod_by_the_name_of_a_group_of_his_own() {
        check(
            "/user.slice/user-1000.slice/user@1000.service/kubepods-podUID_.slice/cri-containerd-ID.scope",
            Some((ID, None)),
        );
    }

    #[test]
    fn slurms_jobs() {
        let check = |proc_cgroup: &str, expected: Option<(u32, Option<&str>)>| {
            let found = slurm_job(proc_cgroup);
            let told = found.as_ref().map(|job| (job.job_id, job.step_id.as_deref()));
            assert_eq!(told, expected, "{proc_cgroup}");
        };
        check("0::/system.slice/slurmstepd.scope/job_123/step_0/user/task_0\n", Some((123, Some("0"))));
        check("0::/system.slice/slurmstepd.scope/job_123/step_batch/user\n", Some((123, Some("batch"))));
        check("0::/system.slice/node7_slurmstepd.scope/job_9/step_extern\n", Some((9, Some("extern"))));
        check("0::/../../slurmstepd.scope/job_9\n", Some((9, None)));
        check(
            "9:memory:/slurm/uid_1000/job_77/step_2/task_0\n1:name=systemd:/system.slice/slurmd.service\n",
            Some((77, Some("2"))),
        );
        check("4:cpuset:/slurm_node7/uid_0/job_77/step_interactive\n", Some((77, Some("interactive"))));
        // A job that makes groups of its own stays the job that it is.
        let nested = "0::/system.slice/slurmstepd.scope/job_1/step_0/slurmstepd.scope/job_2/step_0\n";
        check(nested, Some((1, Some("0"))));
        check("0::/user.slice/user-1000.slice/user@1000.service/slurmstepd.scope/job_1/step_0\n", None);
        for no_job in [
            "0::/system.slice/slurmd.service\n",
            "0::/system.slice/slurmstepd.scope/system\n",
            "0::/system.slice/slurmstepd.scope/job_x/step_0\n",
            "0::/job_1/step_0\n",
            "",
        ] {
            check(no_job, None);
        }
        check("0::/system.slice/slurmstepd.scope/job_1/step_A B\n", Some((1, None)));
    }

    #[test]
    fn of_several_hierarchies_the_one_that_tells_most() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(path(&text.replace("UID", UID).replace("ID", ID)), expected, "{text}");
        };
        check("0::/system.slice/a.service\n", Some("/system.slice/a.service"));
        check("3:cpu:/a\n1:name=systemd:/b\n0::/c\n", Some("/c"));
        check("3:cpu:/a\n1:name=systemd:/b\n", Some("/b"));
        check("12:memory:/docker/ab\n1:cpu:/docker/cd\n", Some("/docker/ab"));
        let docker = format!("/docker/{ID}");
        check("4:memory:/docker/ID\n1:name=systemd:/\n0::/\n", Some(&docker));
        let pod = format!("/kubepods/pod{UID}/{ID}");
        check("4:memory:/docker/ID\n1:name=systemd:/kubepods/podUID/ID\n0::/\n", Some(&pod));
        let colons = format!(
            "/system.slice/containerd.service/kubepods-pod{}.slice:cri-containerd:{ID}",
            UID.replace('-', "_")
        );
        check(&format!("1:name=systemd:{colons}\n"), Some(&colons));
        check("", None);
        check("nonsense\n", None);
    }
}
