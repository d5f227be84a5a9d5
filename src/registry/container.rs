//! Containers: what is known about the one that a process runs in, and what is remembered of one whose processes are gone.
//!
//! The idea is that series are told apart by Kubernetes' names alone: a container that is started again goes on with the counters that it
//! had. Whatever has no such names shares one set of series.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::{Counters, MemoryType};

/// Containers without a process that are remembered, so that one that is started again finds its counters. A kubelet runs 110 pods
/// unless it is told otherwise, and is supported up to 250.
const ENDED_CONTAINERS_MAX: usize = 256;

/// What Kubernetes calls a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerNames {
    /// The namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its name in the pod.
    pub container: String,
}

impl ContainerNames {
    /// Whether none of them is missing.
    pub fn is_whole(&self) -> bool {
        ![&self.namespace, &self.pod, &self.container].iter().any(|name| name.is_empty())
    }
}

/// A container, as far as its control group and whoever knows its names tell.
#[derive(Clone, PartialEq, Debug)]
pub struct Container {
    id: String,
    pod_uid: Option<String>,
    /// Not set while they are looked for; `None` where there are none to be found.
    names: OnceLock<Option<ContainerNames>>,
}

impl Container {
    /// A container whose names are still looked for.
    pub fn new(id: String, pod_uid: Option<String>) -> Self {
        Self { id, pod_uid, names: OnceLock::new() }
    }

    /// The id that its runtime gave it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The unique id of its pod, where it is in one.
    pub fn pod_uid(&self) -> Option<&str> {
        self.pod_uid.as_deref()
    }

    /// Its names, where they are known.
    pub fn names(&self) -> Option<&ContainerNames> {
        self.names.get()?.as_ref()
    }

    /// Says what its names are, or that nobody knows. They stay what was said first: a counter cannot move to other labels.
    pub fn settle(&self, names: Option<ContainerNames>) {
        // Said again, it is left as it is.
        let _ = self.names.set(names);
    }

    /// Whether it is settled that nobody knows names for it.
    pub fn is_nameless(&self) -> bool {
        self.names.get().is_some_and(Option::is_none)
    }

    /// What is settled about its names, if that is.
    pub(super) fn settled(&self) -> Option<Option<&ContainerNames>> {
        self.names.get().map(Option::as_ref)
    }

    /// Whether there will be no other word about its names.
    pub fn is_settled(&self) -> bool {
        self.names.get().is_some()
    }

    fn shares_series_with(&self, other: &Container) -> bool {
        std::ptr::eq(self, other)
            || (self.is_settled() && other.is_settled() && self.names() == other.names())
    }
}

/// One set of container names, and what is held under them.
#[derive(Clone, Debug)]
pub struct ContainerSnapshot {
    /// The names; `None` for all containers that have none.
    pub names: Option<ContainerNames>,
    /// When the first of its processes was first heard of that are counted, in monotonic nanoseconds.
    pub since_ns: u64,
    /// What its processes hold and have held, by device and memory type.
    pub memory: Vec<ContainerMemory>,
}

/// What a container holds and has held on one device in one memory type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ContainerMemory {
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// Bytes that its processes hold; `None` when none of them is shown any more.
    pub usage_bytes: Option<u64>,
    /// Bytes held times the seconds for which they were; `None` while it is not settled under which names they count.
    pub byte_seconds: Option<f64>,
}

/// Byte-nanoseconds by device and memory type.
pub(super) type HeldPlaces = BTreeMap<(u16, MemoryType), u128>;

/// What processes that are no longer shown have held, by container.
#[derive(Clone, Default)]
pub(super) struct EndedContainers {
    /// The one in which a process was retired last comes last.
    ended: Vec<Ended>,
}

#[derive(Clone)]
struct Ended {
    container: Arc<Container>,
    since_ns: u64,
    held: HeldPlaces,
}

impl EndedContainers {
    /// A process of a container is no longer shown; these are its last counters.
    pub(super) fn absorb(
        &mut self,
        container: &Arc<Container>,
        mut since_ns: u64,
        places: impl Iterator<Item = (u16, MemoryType, Counters)>,
    ) {
        let mut held = HeldPlaces::new();
        // Those that were not settled when they came may belong together by now.
        for other in self.ended.extract_if(.., |other| other.container.shares_series_with(container)) {
            since_ns = since_ns.min(other.since_ns);
            other.held.into_iter().for_each(|(place, byte_ns)| *held.entry(place).or_default() += byte_ns);
        }
        for (device, memory_type, counters) in places {
            *held.entry((device, memory_type)).or_default() += counters.held_byte_ns();
        }
        self.ended.push(Ended { container: Arc::clone(container), since_ns, held });
    }

    /// All of them: the container, since when it counts, and what it has held.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Arc<Container>, u64, HeldPlaces)> {
        self.ended.iter().map(|Ended { container, since_ns, held }| (container, *since_ns, held.clone()))
    }

    /// Adds one that was stored.
    pub(super) fn restore(&mut self, container: Arc<Container>, since_ns: u64, held: HeldPlaces) {
        self.ended.push(Ended { container, since_ns, held });
    }

    /// Forgets those that ended longest ago, if they are too many. Containers that still have processes are no matter of this.
    pub(super) fn forget<'a>(&mut self, living: impl Iterator<Item = &'a Container>) {
        if self.ended.len() <= ENDED_CONTAINERS_MAX {
            return;
        }
        let living: Vec<&Container> = living.collect();
        let alive: HashSet<_> = living.iter().map(|container| std::ptr::from_ref(*container)).collect();
        let names_alive: HashSet<_> = living.iter().filter_map(|container| container.names()).collect();
        let has_ended = |Ended { container, .. }: &Ended| match container.names() {
            Some(names) => !names_alive.contains(names),
            // Those that have no names share one entry, which is no container's.
            None => !container.is_settled() && !alive.contains(&Arc::as_ptr(container)),
        };
        let mut excess = self.ended.iter().filter(|entry| has_ended(entry)).count();
        self.ended.retain(|entry| {
            let is_forgotten = excess > ENDED_CONTAINERS_MAX && has_ended(entry);
            excess -= usize::from(is_forgotten);
            !is_forgotten
        });
    }
}

/// The containers of one snapshot while it is being put together.
#[derive(Default)]
pub(super) struct Containers {
    parts: BTreeMap<Option<ContainerNames>, Part>,
}

struct Part {
    since_ns: u64,
    places: BTreeMap<(u16, MemoryType), Place>,
}

#[derive(Default)]
struct Place {
    usage_bytes: Option<u64>,
    held_byte_ns: Option<u128>,
}

impl Containers {
    pub(super) fn of(ended: &EndedContainers) -> Self {
        let mut containers = Containers::default();
        for Ended { container, since_ns, held } in &ended.ended {
            let (part, is_settled) = containers.part(container, *since_ns);
            for (place, byte_ns) in held {
                part.places.entry(*place).or_default().hold(is_settled, *byte_ns);
            }
        }
        containers
    }

    /// Adds what a process of a container, heard of first at `since_ns`, holds and has held up to now.
    pub(super) fn add<'a>(
        &mut self,
        container: &Container,
        since_ns: u64,
        places: impl Iterator<Item = ((u16, MemoryType), &'a Counters)>,
        now_ns: u64,
    ) {
        let (part, is_settled) = self.part(container, since_ns);
        for (place, counters) in places {
            let place = part.places.entry(place).or_default();
            place.usage_bytes = Some(place.usage_bytes.unwrap_or(0) + counters.usage_bytes());
            place.hold(is_settled, counters.held_byte_ns_until(now_ns));
        }
    }

    pub(super) fn finish(self) -> Vec<ContainerSnapshot> {
        let memory = |((device, memory_type), place): ((u16, MemoryType), Place)| ContainerMemory {
            device,
            memory_type,
            usage_bytes: place.usage_bytes,
            byte_seconds: place.held_byte_ns.map(|byte_ns| byte_ns as f64 / 1e9),
        };
        let of = |(names, part): (Option<ContainerNames>, Part)| ContainerSnapshot {
            names,
            since_ns: part.since_ns,
            memory: part.places.into_iter().map(memory).collect(),
        };
        self.parts.into_iter().map(of).collect()
    }

    /// Where a container is counted, and whether that is settled: looked at once, as it may change at any moment.
    fn part(&mut self, container: &Container, since_ns: u64) -> (&mut Part, bool) {
        let settled = container.names.get();
        let part = self.parts.entry(settled.cloned().flatten());
        let part = part.or_insert(Part { since_ns, places: BTreeMap::new() });
        part.since_ns = part.since_ns.min(since_ns);
        (part, settled.is_some())
    }
}

impl Place {
    fn hold(&mut self, is_settled: bool, byte_ns: u128) {
        if is_settled {
            self.held_byte_ns = Some(self.held_byte_ns.unwrap_or(0) + byte_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Process, ProcessInfo, Registry, Snapshot, Source, Time};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn container(id: &str, pod: &str) -> Arc<Container> {
        let container = Arc::new(Container::new(id.to_owned(), None));
        container.settle(names(pod));
        container
    }

    fn names(pod: &str) -> Option<ContainerNames> {
        let [namespace, pod, container] = ["ml", pod, "server"].map(str::to_owned);
        Some(ContainerNames { namespace, pod, container })
    }

    fn process(registry: &Registry, pid: u32, container: &Arc<Container>) -> Arc<Process> {
        let info = ProcessInfo {
            name: "model".into(),
            uid: 0,
            user: "root".into(),
            cgroup: None,
            container: Some(Arc::clone(container)),
            ns_pid: None,
            slurm: None,
            start_time_seconds: None,
            source: Source::Socket,
        };
        registry.process(Identity { pid, start_ticks: 1 }, u64::from(pid), info)
    }

    fn snapshot(registry: &Registry, second: u64) -> Snapshot {
        registry.snapshot(Time { monotonic_ns: second * SECOND, unix_ns: second * SECOND })
    }

    fn allocate(registry: &Registry, process: &Arc<Process>, second: u64, size_bytes: u64) {
        let mut batch = registry.batch(process, second * SECOND);
        batch.allocate(0, MemoryType::Dram, second, size_bytes).expect("new");
    }

    fn end(registry: &Registry, process: &Arc<Process>, second: u64) {
        registry.end(process, second * SECOND);
        registry.retire(second * SECOND, 0);
    }

    /// What is held and has been held in a pod's DRAM.
    fn held(snapshot: &Snapshot, names: &Option<ContainerNames>) -> Option<(Option<u64>, Option<f64>)> {
        let container = snapshot.containers.iter().find(|container| container.names == *names)?;
        let [memory] = container.memory[..] else { panic!("one place, not {:?}", container.memory) };
        Some((memory.usage_bytes, memory.byte_seconds))
    }

    #[test]
    fn what_was_held_is_added_up_exactly_over_processes_and_restarts() {
        let registry = Registry::new(0);
        let first = container("1", "llama");
        let (one, two) = (process(&registry, 1, &first), process(&registry, 2, &first));
        allocate(&registry, &one, 10, 100);
        assert_eq!(held(&snapshot(&registry, 10), &names("llama")), Some((Some(100), Some(0.0))));
        allocate(&registry, &two, 20, 7);
        // 100 bytes for 10 seconds; then 107.
        assert_eq!(held(&snapshot(&registry, 20), &names("llama")), Some((Some(107), Some(1000.0))));
        assert_eq!(held(&snapshot(&registry, 30), &names("llama")), Some((Some(107), Some(2070.0))));
        end(&registry, &one, 30);
        assert_eq!(held(&snapshot(&registry, 40), &names("llama")), Some((Some(7), Some(2140.0))));
        end(&registry, &two, 40);
        assert_eq!(held(&snapshot(&registry, 90), &names("llama")), Some((None, Some(2140.0))));
        // It is started again, as another container of the same name.
        let again = process(&registry, 3, &container("2", "llama"));
        allocate(&registry, &again, 100, 5);
        assert_eq!(held(&snapshot(&registry, 102), &names("llama")), Some((Some(5), Some(2150.0))));
        end(&registry, &again, 104);
        assert_eq!(held(&snapshot(&registry, 200), &names("llama")), Some((None, Some(2160.0))));
        let [container] = &snapshot(&registry, 200).containers[..] else { panic!("one container") };
        assert_eq!(container.since_ns, 1, "the counter began with the first process");
    }

    #[test]
    fn gigabytes_over_years_fit() {
        let registry = Registry::new(0);
        let owner = process(&registry, 1, &container("1", "llama"));
        allocate(&registry, &owner, 0, 1 << 40);
        let years = 100 * 365 * 86_400;
        let expected = (1_u64 << 40) as f64 * years as f64;
        assert_eq!(held(&snapshot(&registry, years), &names("llama")), Some((Some(1 << 40), Some(expected))));
        end(&registry, &owner, years);
        assert_eq!(held(&snapshot(&registry, years), &names("llama")), Some((None, Some(expected))));
    }

    #[test]
    fn a_counter_waits_for_its_names_and_loses_nothing() {
        let registry = Registry::new(0);
        let unsettled = Arc::new(Container::new("1".into(), Some("uid".into())));
        let (one, two) = (process(&registry, 1, &unsettled), process(&registry, 2, &unsettled));
        allocate(&registry, &one, 0, 10);
        end(&registry, &one, 5);
        allocate(&registry, &two, 6, 1);
        assert_eq!(held(&snapshot(&registry, 6), &None), Some((Some(1), None)), "the usage is told at once");
        unsettled.settle(names("llama"));
        assert_eq!(held(&snapshot(&registry, 6), &names("llama")), Some((Some(1), Some(50.0))));
        assert_eq!(held(&snapshot(&registry, 6), &None), None);
        let nameless = Arc::new(Container::new("2".into(), None));
        nameless.settle(None);
        allocate(&registry, &process(&registry, 3, &nameless), 6, 3);
        assert_eq!(held(&snapshot(&registry, 8), &None), Some((Some(3), Some(6.0))));
    }

    #[test]
    fn of_ended_containers_a_bounded_number_is_remembered_and_the_living_are_not_forgotten() {
        let registry = Registry::new(0);
        let run = |pid: u32, container: &Arc<Container>, second| {
            let one = process(&registry, pid, container);
            allocate(&registry, &one, second, 10);
            end(&registry, &one, second + 1);
        };
        let living = container("living", "living");
        run(1, &living, 0);
        let _stays = process(&registry, 2, &living);
        let nameless = Arc::new(Container::new("nameless".into(), None));
        nameless.settle(None);
        run(3, &nameless, 1);
        let pods: Vec<String> = (0..ENDED_CONTAINERS_MAX + 2).map(|number| format!("job-{number}")).collect();
        for (number, pod) in pods.iter().enumerate() {
            run(4, &container(pod, pod), 10 + number as u64);
        }
        let snapshot = snapshot(&registry, 1_000_000);
        assert_eq!(snapshot.containers.len(), ENDED_CONTAINERS_MAX + 2, "with the living and the nameless");
        assert_eq!(held(&snapshot, &names("living")), Some((None, Some(10.0))));
        assert_eq!(held(&snapshot, &None), Some((None, Some(10.0))));
        assert_eq!([0, 1, 2].map(|pod| held(&snapshot, &names(&pods[pod])).is_some()), [false, false, true]);
    }
}
