//! The registry as it is kept on disk: plain values that say all that a snapshot or a later report could depend on.
//!
//! The idea is that these types are the stored format's and nobody else's. What the registry is made of stays free to change; what is
//! stored is read and written here alone, labels by name, so that a version with more of them reads what one with fewer has written.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::container::EndedContainers;
use super::{
    Births, Container, ContainerNames, Counters, Identity, MemoryType, Process, ProcessInfo, Registry,
    SlurmJob, Source, TraceContext, World,
};

/// The whole registry.
#[derive(Serialize, Deserialize, Default, PartialEq, Debug)]
pub struct RegistryImage {
    started_ns: u64,
    births: u64,
    /// Messages, rejections, losses and spans that were not made, by label.
    events: [Vec<(String, u64)>; 4],
    devices: Vec<DeviceImage>,
    containers: Vec<ContainerImage>,
    processes: Vec<ProcessImage>,
    retired: Vec<(u16, u8, Vec<u64>)>,
    ended_containers: Vec<EndedContainerImage>,
}

/// What a device has seen, by memory type.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct DeviceImage {
    index: u16,
    memory: Vec<(u8, MemoryImage)>,
}

/// What a device's memory of one type has seen.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct MemoryImage {
    pub(super) peak_bytes: u64,
    pub(super) sizes: DistributionImage,
    pub(super) lifetimes: DistributionImage,
    pub(super) failures: Vec<u64>,
    pub(super) largest_free_block_bytes: Option<u64>,
}

/// A distribution: the buckets that are not empty, and the sum.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct DistributionImage {
    pub(super) buckets: Vec<(u8, u64)>,
    pub(super) sum: u64,
}

/// A container, which processes refer to by its place among all.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct ContainerImage {
    id: String,
    pod_uid: Option<String>,
    /// Whether its names are settled, and what they are.
    names: Option<Option<(String, String, String)>>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct EndedContainerImage {
    container: u32,
    since_ns: u64,
    held: Vec<(u16, u8, u128)>,
}

/// One process.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct ProcessImage {
    identity: Identity,
    info: InfoImage,
    serial: u64,
    first_seen_ns: u64,
    ended_ns: Option<u64>,
    trace: Option<([u8; 16], [u8; 8], u8)>,
    ledger: LedgerImage,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct InfoImage {
    name: String,
    uid: u32,
    user: String,
    cgroup: Option<String>,
    container: Option<u32>,
    ns_pid: Option<u32>,
    slurm: Option<SlurmJob>,
    start_time_seconds: Option<f64>,
    source: Source,
}

/// What one process holds and has done.
#[derive(Serialize, Deserialize, Default, PartialEq, Debug)]
pub(super) struct LedgerImage {
    pub(super) cells: Vec<CellImage>,
    /// What is accounted by size alone.
    pub(super) by_size: Vec<ShareImage>,
    pub(super) empty_in_region: Vec<(u16, u8)>,
    pub(super) has_ended: bool,
}

/// What one process holds on one device in one memory type.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct CellImage {
    pub(super) device: u16,
    pub(super) memory_type: u8,
    pub(super) counters: Vec<u64>,
    pub(super) buffers: Vec<BufferImage>,
}

/// One buffer; those of a cell stand in the order of their allocation.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct BufferImage {
    pub(super) id: u64,
    pub(super) size_bytes: u64,
    pub(super) allocated_ns: u64,
    /// Who has reported it, and how often; of several all that they have.
    pub(super) references: Vec<(u16, u32)>,
}

/// What one client has taken of memory that is accounted by size alone.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
pub(super) struct ShareImage {
    pub(super) device: u16,
    pub(super) memory_type: u8,
    pub(super) kernel: Option<u8>,
    pub(super) reporter: u16,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

/// What is stored cannot be what a registry was: the file is right and its content is not, so another program has written it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stored state contradicts itself: {0}")]
pub struct ImageError(pub(super) &'static str);

impl RegistryImage {
    /// When the stored registry began to count, in monotonic nanoseconds.
    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }
}

impl Registry {
    /// All that there is. Nothing may change it meanwhile.
    pub fn image(&self) -> RegistryImage {
        let world = self.world();
        let mut containers = ContainerList::default();
        let processes =
            world.processes.iter().map(|process| process_image(process, &mut containers)).collect();
        let ended_containers = world.ended_containers.entries().map(|(container, since_ns, held)| {
            let held = held.into_iter();
            let held = held.map(|((device, memory_type), byte_ns)| (device, memory_type as u8, byte_ns));
            EndedContainerImage { container: containers.number(container), since_ns, held: held.collect() }
        });
        let ended_containers = ended_containers.collect();
        let retired = world
            .retired
            .iter()
            .map(|((device, memory_type), counters)| (*device, *memory_type as u8, counters.to_words()));
        let events = self.events.snapshot();
        let devices = self.devices().map(|device| {
            let memory =
                MemoryType::ALL.map(|memory_type| (memory_type as u8, device.memory(memory_type).image()));
            DeviceImage { index: device.index(), memory: memory.into() }
        });
        RegistryImage {
            started_ns: self.started_ns,
            births: self.births.lock().count,
            events: [events.events, events.rejected, events.lost, events.omitted].map(named),
            devices: devices.collect(),
            retired: retired.collect(),
            containers: containers.images(),
            processes,
            ended_containers,
        }
    }

    /// Makes this registry, which must be empty, what a stored one was. What processes lately held is shared with those who look
    /// containers up: `container` gives the one that they know.
    pub fn restore(
        &self,
        image: RegistryImage,
        mut container: impl FnMut(&Container, Option<&str>) -> Arc<Container>,
    ) -> Result<(), ImageError> {
        self.events.restore(&image.events);
        let known: Vec<Container> = image.containers.into_iter().map(ContainerImage::container).collect();
        let mut shared: BTreeMap<u32, Arc<Container>> = BTreeMap::new();
        let mut find = |number: u32, cgroup: Option<&str>| -> Result<Arc<Container>, ImageError> {
            let stored = known.get(number as usize).ok_or(ImageError("a container is missing"))?;
            Ok(Arc::clone(shared.entry(number).or_insert_with(|| container(stored, cgroup))))
        };
        let mut births = self.births.lock();
        births.count = image.births;
        let mut processes = Vec::new();
        for stored in image.processes {
            processes.push(self.restore_process(stored, &mut births, &mut find)?);
        }
        let mut retired = BTreeMap::new();
        for (device, memory_type, words) in image.retired {
            retired.insert((device, memory_type_of(memory_type)?), Counters::of_words(&words)?);
        }
        let mut ended_containers = EndedContainers::default();
        for EndedContainerImage { container, since_ns, held } in image.ended_containers {
            let held = held
                .into_iter()
                .map(|(device, memory_type, byte_ns)| Ok(((device, memory_type_of(memory_type)?), byte_ns)));
            ended_containers.restore(find(container, None)?, since_ns, held.collect::<Result<_, _>>()?);
        }
        // Last, as what the ledgers have published has raised the peaks to what they are now at the most.
        for DeviceImage { index, memory } in image.devices {
            if index >= super::DEVICES_MAX {
                return Err(ImageError("a device's index is too large"));
            }
            let device = self.device(index);
            for (memory_type, stored) in memory {
                device.memory(memory_type_of(memory_type)?).restore(&stored)?;
            }
        }
        let (retired, ended_containers) = (Arc::new(retired), Arc::new(ended_containers));
        let processes = processes.into_iter().collect();
        self.world.store(Arc::new(World { processes, retired, ended_containers }));
        Ok(())
    }

    fn restore_process(
        &self,
        stored: ProcessImage,
        births: &mut Births,
        find: &mut impl FnMut(u32, Option<&str>) -> Result<Arc<Container>, ImageError>,
    ) -> Result<Arc<Process>, ImageError> {
        let ProcessImage { identity, info, serial, first_seen_ns, ended_ns, trace, ledger } = stored;
        let InfoImage { name, uid, user, cgroup, container, ns_pid, slurm, start_time_seconds, source } =
            info;
        let container = container.map(|number| find(number, cgroup.as_deref())).transpose()?;
        let info =
            ProcessInfo { name, uid, user, cgroup, container, ns_pid, slurm, start_time_seconds, source };
        let empty = self.new_ledger(uid);
        let process = Arc::new(Process::new(identity, info, serial, first_seen_ns, empty));
        if let Some((trace_id, parent_id, flags)) = trace {
            process.join_trace(TraceContext { trace_id, parent_id, flags });
        }
        self.restore_ledger(&process, ledger)?;
        if let Some(ended_ns) = ended_ns {
            process.mark_ended(ended_ns);
        }
        births.known.insert(identity, Arc::clone(&process));
        Ok(process)
    }
}

fn process_image(process: &Arc<Process>, containers: &mut ContainerList) -> ProcessImage {
    let info = process.info();
    let trace = process.trace_context();
    ProcessImage {
        identity: process.identity(),
        info: InfoImage {
            name: info.name.clone(),
            uid: info.uid,
            user: info.user.clone(),
            cgroup: info.cgroup.clone(),
            container: info.container.as_ref().map(|container| containers.number(container)),
            ns_pid: info.ns_pid,
            slurm: info.slurm.clone(),
            start_time_seconds: info.start_time_seconds,
            source: info.source,
        },
        serial: process.serial(),
        first_seen_ns: process.first_seen_ns(),
        ended_ns: process.ended_ns(),
        trace: trace.map(|context| (context.trace_id, context.parent_id, context.flags)),
        ledger: process.ledger().image(),
    }
}

/// Containers in the order in which they were first named.
#[derive(Default)]
struct ContainerList(Vec<Arc<Container>>);

impl ContainerList {
    fn number(&mut self, container: &Arc<Container>) -> u32 {
        let known = self.0.iter().position(|known| Arc::ptr_eq(known, container));
        let number = known.unwrap_or_else(|| {
            self.0.push(Arc::clone(container));
            self.0.len() - 1
        });
        number as u32
    }

    fn images(&self) -> Vec<ContainerImage> {
        self.0.iter().map(|container| ContainerImage::of(container)).collect()
    }
}

impl ContainerImage {
    fn of(container: &Container) -> ContainerImage {
        let names = |ContainerNames { namespace, pod, container }: &ContainerNames| {
            (namespace.clone(), pod.clone(), container.clone())
        };
        ContainerImage {
            id: container.id().to_owned(),
            pod_uid: container.pod_uid().map(str::to_owned),
            names: container.settled().map(|settled| settled.map(names)),
        }
    }

    fn container(self) -> Container {
        let container = Container::new(self.id, self.pod_uid);
        if let Some(names) = self.names {
            container.settle(names.map(|(namespace, pod, container)| ContainerNames {
                namespace,
                pod,
                container,
            }));
        }
        container
    }
}

fn named(rows: Vec<(&'static str, u64)>) -> Vec<(String, u64)> {
    rows.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

pub(super) fn memory_type_of(number: u8) -> Result<MemoryType, ImageError> {
    MemoryType::ALL.get(usize::from(number)).copied().ok_or(ImageError("a memory type is unknown"))
}
