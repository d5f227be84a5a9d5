//! Looks at how much memory the daemon takes, and has details given up before totals are in danger.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::sampler::Listener;
use crate::config::Config;
use crate::registry::{Pressure, Registry};

/// Where control groups are.
const CGROUP_DIRECTORY: &str = "/sys/fs/cgroup";

/// How much is too much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Marks {
    /// Live buffers: an eighth below those that are refused.
    buffers: u64,
    /// Memory of the daemon's own, where it is known how much it may have.
    memory_bytes: Option<u64>,
}

impl Marks {
    fn new(config: &Config) -> Marks {
        // A quarter is for what files and rings take in the same group, and for what comes in a second.
        let of_group = || memory_limit(Path::new("/proc/self/cgroup"), Path::new(CGROUP_DIRECTORY));
        let memory_bytes = match config.memory_high_bytes {
            None => of_group().map(|limit| limit - limit / 4),
            Some(0) => None,
            said => said,
        };
        Marks { buffers: config.buffers_max - config.buffers_max / 8, memory_bytes }
    }
}

/// Whoever looks, for the sampler.
pub fn listener(registry: Arc<Registry>, config: &Config) -> Listener {
    let marks = Marks::new(config);
    Box::new(move |_| {
        let (buffers, memory_bytes) = (registry.live_buffers(), own_memory_bytes());
        let of_memory = marks.memory_bytes.zip(memory_bytes);
        let of_memory = of_memory.map_or(Pressure::Low, |(mark, used)| Pressure::of(used, mark));
        let pressure = Pressure::of(buffers, marks.buffers).max(of_memory);
        let memory_bytes = memory_bytes.unwrap_or(0);
        match registry.events().details().adapt(pressure) {
            None => {}
            Some((detail, true)) => {
                info!(
                    detail = detail.name(),
                    buffers, memory_bytes, "there is memory again; detail taken up"
                );
            }
            Some((detail, false)) => warn!(
                detail = detail.name(),
                buffers,
                memory_bytes,
                "memory gets short; detail given up, totals stay exact; raise buffers_max or memory_high_bytes if there is more"
            ),
        }
    })
}

/// Memory of the daemon's own: no files, and nothing that it shares.
fn own_memory_bytes() -> Option<u64> {
    anonymous_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

fn anonymous_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least that the daemon's control group, or one around it, allows.
fn memory_limit(cgroup: &Path, directory: &Path) -> Option<u64> {
    let cgroup = fs::read_to_string(cgroup).ok()?;
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group: PathBuf = directory.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(directory));
    let limits = groups.filter_map(|group| fs::read_to_string(group.join("memory.max")).ok());
    // "max" is no number, and no limit.
    limits.filter_map(|limit| limit.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_is_nobody_elses() {
        let status = "VmRSS:\t   9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t 6952 kB\n";
        assert_eq!(anonymous_bytes(status), Some(2 << 20));
        assert_eq!(anonymous_bytes("VmRSS: 1 kB"), None);
        assert!(own_memory_bytes().expect("/proc is there") > 100_000);
    }

    #[test]
    fn the_narrowest_group_around_counts() {
        let directory = std::env::temp_dir().join(format!("ttmem-pressure-{}", std::process::id()));
        let group = directory.join("outer/inner");
        fs::create_dir_all(&group).expect("a directory");
        let write = |path: &str, text: &str| fs::write(directory.join(path), text).expect("a file");
        write("cgroup", "1:name=systemd:/x\n0::/outer/inner\n");
        let limit = || memory_limit(&directory.join("cgroup"), &directory);
        assert_eq!(limit(), None);
        write("outer/memory.max", "4096\n");
        write("outer/inner/memory.max", "max\n");
        assert_eq!(limit(), Some(4096));
        write("outer/inner/memory.max", "1024\n");
        assert_eq!(limit(), Some(1024));
        fs::remove_dir_all(&directory).expect("it was there");
    }

    #[test]
    fn what_the_operator_says_goes_before_what_is_found() {
        let marks = |memory_high_bytes| {
            Marks::new(&Config { memory_high_bytes, buffers_max: 8000, ..Config::default() })
        };
        assert_eq!(marks(Some(5)), Marks { buffers: 7000, memory_bytes: Some(5) });
        assert_eq!(marks(Some(0)).memory_bytes, None);
    }
}
