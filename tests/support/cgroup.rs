//! Control groups as the kubelet and containerd make them for a pod's container, into which a test puts real processes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::wait_for;

/// Hierarchies in which a group may be made: of systemd's own in version 1, and of version 2.
const HIERARCHIES: &[&str] = &["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// A control group, removed with the test. Its processes have to have ended by then.
pub struct Group {
    /// What is made, the outermost first.
    levels: Vec<PathBuf>,
}

/// A container's control group.
pub struct ContainerGroup {
    group: Group,
    pub pod_uid: String,
    pub container_id: String,
}

impl Group {
    /// A group of that name, below others.
    pub fn new(names: &[&str]) -> Group {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut levels = vec![hierarchy().join(format!("ttmem-test-{}-{number}", std::process::id()))];
        for name in names {
            levels.push(levels[levels.len() - 1].join(name));
        }
        fs::create_dir_all(&levels[levels.len() - 1]).unwrap();
        Group { levels }
    }

    /// Puts a process into it.
    pub fn take(&self, pid: u32) {
        fs::write(self.processes(), pid.to_string()).unwrap();
    }

    fn processes(&self) -> PathBuf {
        self.levels[self.levels.len() - 1].join("cgroup.procs")
    }
}

impl ContainerGroup {
    /// The group of a container of a pod of its own.
    pub fn new() -> ContainerGroup {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let test = std::process::id();
        let pod_uid = format!("{test:08x}-93bd-4f27-8a10-{number:012x}");
        let container_id = format!("{test:032x}{number:032x}");
        let pod = format!("kubepods-burstable-pod{}.slice", pod_uid.replace('-', "_"));
        let container = format!("cri-containerd-{container_id}.scope");
        let group = Group::new(&["kubepods.slice", "kubepods-burstable.slice", &pod, &container]);
        ContainerGroup { group, pod_uid, container_id }
    }

    /// Puts a process into it.
    pub fn take(&self, pid: u32) {
        self.group.take(pid);
    }

    /// A command that is run in it.
    pub fn command(&self, program: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(self.group.processes());
        command.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// Makes the entry that the kubelet makes for it, in a directory of a test's own.
    pub fn log_in(&self, directory: &Path, [namespace, pod, container]: [&str; 3]) {
        fs::create_dir_all(directory).unwrap();
        let entry = directory.join(format!("{pod}_{namespace}_{container}-{}.log", self.container_id));
        // It leads to a place that only the node has.
        std::os::unix::fs::symlink("/var/log/pods/elsewhere/0.log", entry).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for level in self.levels.iter().rev() {
            // A process that has just been ended leaves it a moment later.
            wait_for("a control group to be empty", || match fs::remove_dir(level) {
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => None,
                _ => Some(()),
            });
        }
    }
}

fn hierarchy() -> PathBuf {
    let is_writable = |path: &&&str| {
        let file = fs::OpenOptions::new().write(true).open(Path::new(path).join("cgroup.procs"));
        // To leave the process where it is changes nothing, and needs the same rights.
        file.is_ok_and(|mut file| file.write(b"").is_ok())
    };
    let found = HIERARCHIES.iter().find(is_writable);
    PathBuf::from(found.unwrap_or_else(|| {
        panic!("no control group can be made below any of {HIERARCHIES:?}: run the tests as root")
    }))
}
