//! What the kubelet is asked for: whether it answers, and which containers it gave devices to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::ContainerNames;
use super::metrics::{LabelledRow, Value};

/// Where the kubelet tells something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KubeletSource {
    /// The directory with an entry for each container's log.
    LogDirectory,
    /// The pods API on its socket.
    PodsApi,
    /// The pod-resources API on its socket.
    PodResources,
}

impl KubeletSource {
    /// All of them.
    pub const ALL: [KubeletSource; 3] =
        [KubeletSource::LogDirectory, KubeletSource::PodsApi, KubeletSource::PodResources];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            KubeletSource::LogDirectory => "log_dir",
            KubeletSource::PodsApi => "pods_api",
            KubeletSource::PodResources => "pod_resources",
        }
    }
}

/// Why the kubelet could not be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KubeletFailure {
    /// Nobody answers, or the daemon may not ask.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// It answered that it would not tell.
    Refused,
    /// What it answered is none of what its API has.
    Malformed,
}

impl KubeletFailure {
    /// All of them.
    pub const ALL: [KubeletFailure; 4] = [
        KubeletFailure::Unreachable,
        KubeletFailure::Timeout,
        KubeletFailure::Refused,
        KubeletFailure::Malformed,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            KubeletFailure::Unreachable => "unreachable",
            KubeletFailure::Timeout => "timeout",
            KubeletFailure::Refused => "refused",
            KubeletFailure::Malformed => "malformed",
        }
    }
}

/// Devices of one resource that the kubelet gave to a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assigned {
    /// The container.
    pub names: ContainerNames,
    /// The resource of a device plugin, or the driver of dynamic allocation.
    pub resource: String,
    /// What the plugin or driver calls them.
    pub device_ids: Vec<String>,
}

/// What is known of the kubelet.
#[derive(Default)]
pub struct Kubelet {
    sources: [Account; KubeletSource::ALL.len()],
    assigned: ArcSwap<Vec<Assigned>>,
}

/// How asking one source has gone.
#[derive(Default)]
struct Account {
    /// 0 while it has never answered.
    last_success_unix_ns: AtomicU64,
    duration_ns: AtomicU64,
    failures: [AtomicU64; KubeletFailure::ALL.len()],
}

impl Kubelet {
    /// A source has answered.
    pub fn succeed(&self, source: KubeletSource, unix_ns: u64, duration_ns: u64) {
        let account = &self.sources[source as usize];
        account.duration_ns.store(duration_ns, Relaxed);
        account.last_success_unix_ns.store(unix_ns, Relaxed);
    }

    /// A source has not.
    pub fn fail(&self, source: KubeletSource, failure: KubeletFailure) {
        self.sources[source as usize].failures[failure as usize].fetch_add(1, Relaxed);
    }

    /// Whether a source has ever answered.
    pub fn has_answered(&self, source: KubeletSource) -> bool {
        self.sources[source as usize].last_success_unix_ns.load(Relaxed) != 0
    }

    /// Which containers have which devices now.
    pub fn assign(&self, assigned: Vec<Assigned>) {
        self.assigned.store(Arc::new(assigned));
    }

    pub(super) fn snapshot(&self) -> KubeletSnapshot {
        let sources = KubeletSource::ALL.map(|source| {
            let account = &self.sources[source as usize];
            let last_success_unix_ns =
                Some(account.last_success_unix_ns.load(Relaxed)).filter(|unix_ns| *unix_ns != 0);
            SourceSnapshot {
                source,
                last_success_unix_ns,
                duration_ns: account.duration_ns.load(Relaxed),
                failures: std::array::from_fn(|reason| account.failures[reason].load(Relaxed)),
            }
        });
        KubeletSnapshot { sources, assigned: self.assigned.load_full() }
    }
}

/// What is known of the kubelet at one instant.
#[derive(Clone, Debug)]
pub struct KubeletSnapshot {
    sources: [SourceSnapshot; KubeletSource::ALL.len()],
    /// Which containers have which devices.
    pub assigned: Arc<Vec<Assigned>>,
}

/// How asking one source has gone up to an instant.
#[derive(Clone, Debug)]
pub struct SourceSnapshot {
    /// Which.
    pub source: KubeletSource,
    /// When it last answered, in nanoseconds since the epoch; `None` while it never has.
    pub last_success_unix_ns: Option<u64>,
    /// How long that took, in nanoseconds.
    pub duration_ns: u64,
    /// How often it did not, by reason.
    pub failures: [u64; KubeletFailure::ALL.len()],
}

impl KubeletSnapshot {
    /// The sources that are there: a host without a kubelet has none.
    pub fn sources(&self) -> impl Iterator<Item = &SourceSnapshot> {
        self.sources.iter().filter(|source| {
            source.last_success_unix_ns.is_some() || source.failures.iter().any(|count| *count > 0)
        })
    }

    /// A time of each source in seconds, given in nanoseconds; none where there is none.
    pub(super) fn rows(&self, of_ns: impl Fn(&SourceSnapshot) -> Option<u64>) -> Vec<LabelledRow> {
        let row = |source: &SourceSnapshot| {
            Some((vec![source.source.name().to_owned()], Value::Float(of_ns(source)? as f64 / 1e9)))
        };
        self.sources().filter_map(row).collect()
    }

    /// How often each source has failed, by reason.
    pub(super) fn failure_rows(&self) -> Vec<LabelledRow> {
        let rows = |source: &SourceSnapshot| {
            let name = source.source.name();
            KubeletFailure::ALL.into_iter().zip(source.failures).map(move |(reason, count)| {
                (vec![name.to_owned(), reason.name().to_owned()], Value::Unsigned(count))
            })
        };
        self.sources().flat_map(rows).collect()
    }

    /// How many devices each container has, by resource.
    pub(super) fn assigned_rows(&self) -> Vec<LabelledRow> {
        let row = |assigned: &Assigned| {
            let ContainerNames { namespace, pod, container } = assigned.names.clone();
            let labels = vec![namespace, pod, container, assigned.resource.clone()];
            (labels, Value::Unsigned(assigned.device_ids.len() as u64))
        };
        self.assigned.iter().map(row).collect()
    }
}
