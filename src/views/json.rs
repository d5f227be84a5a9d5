//! The shapes of the JSON API, in base units, and how a snapshot becomes them. Absent means not known.

pub mod daemon;
pub mod history;

use serde::{Deserialize, Serialize};

use super::trace::{Host, ProcessIds, hex};
use crate::registry::{
    self, BufferPage, BufferSnapshot, Cursor, DeviceSnapshot, MemorySnapshot, ProcessMemory, ProcessSnapshot,
    Snapshot, Time, Untracked as NotReporting,
};

/// The answer to /api/v1/devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Devices {
    /// When this was so, in seconds since the epoch.
    pub timestamp_seconds: f64,
    /// Every known device, by index.
    pub devices: Vec<Device>,
    /// The containers that the kubelet has given devices to.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub assigned: Vec<Assigned>,
}

/// Devices of one resource that a container was given, whether it uses them or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assigned {
    /// The container.
    #[serde(flatten)]
    pub names: ContainerNames,
    /// The resource of a device plugin, or the driver of dynamic allocation.
    pub resource: String,
    /// What the plugin or driver calls them; nothing says which device of this host that is.
    pub device_ids: Vec<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The index that clients use for it.
    pub device: u16,
    /// Its architecture.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arch: Option<String>,
    /// Its product.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub board: Option<String>,
    /// Its unique id, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asic_id: Option<String>,
    /// Its address on the PCI bus.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pci_bus_id: Option<String>,
    /// Its board's serial number, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<String>,
    /// The version of its firmware bundle.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub firmware: Option<String>,
    /// Where the limits come from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capacity_source: Option<String>,
    /// Live processes that use it.
    pub processes: u64,
    /// Processes that hold it open and report nothing; absent where the kernel driver does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub untracked: Option<Untracked>,
    /// The kernel driver's number of its card, as in /dev/tenstorrent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub card: Option<u16>,
    /// Processes that mean another card by this device's number: what they hold is counted here, and lies there.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub renumbered: Vec<Renumbered>,
    /// Its memory, by type.
    pub memory: Vec<DeviceMemory>,
}

/// A process to which a device's number is another card.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Renumbered {
    /// Its process id.
    pub pid: u32,
    /// The kernel driver's number of the only card that it holds open.
    pub card: u16,
}

/// Processes that hold a device open and report nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Untracked {
    /// How many.
    pub processes: u64,
    /// Some of them.
    pub named: Vec<UntrackedProcess>,
}

/// A process that reports nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UntrackedProcess {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub process: String,
    /// Its user.
    pub user: String,
}

/// A device's memory of one type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// The type.
    pub memory_type: String,
    /// Bytes in use.
    pub usage_bytes: u64,
    /// The most bytes in use at once since the daemon started.
    pub peak_bytes: u64,
    /// Bytes that can be used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit_bytes: Option<u64>,
    /// What per-buffer reports tell.
    #[serde(skip_serializing_if = "Option::is_none", default, flatten)]
    pub reported: Option<DeviceReported>,
    /// tt-metal's own figure minus the reported one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_drift_bytes: Option<i64>,
}

/// What per-buffer reports tell about a device's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceReported {
    /// Live buffers.
    pub buffers: u64,
    /// Buffers allocated so far.
    pub allocations_total: u64,
    /// Buffers released so far.
    pub frees_total: u64,
    /// Bytes allocated so far.
    pub allocated_bytes_total: u64,
    /// Bytes released so far.
    pub freed_bytes_total: u64,
    /// Buffers reclaimed from ended processes so far.
    pub orphaned_buffers_total: u64,
    /// Bytes reclaimed from ended processes so far.
    pub orphaned_bytes_total: u64,
    /// When the oldest live buffer was allocated, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_buffer_timestamp_seconds: Option<f64>,
}

/// The answer to /api/v1/processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// When this was so, in seconds since the epoch.
    pub timestamp_seconds: f64,
    /// The processes, most bytes first.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its process id as it knows it itself, where it is in a pid namespace of its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ns_pid: Option<u32>,
    /// Its name.
    pub process: String,
    /// Its user.
    pub user: String,
    /// Its user's numeric id.
    pub uid: u32,
    /// How it was first heard of: socket or shm.
    pub source: String,
    /// Its control group.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<String>,
    /// The container that it runs in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<Container>,
    /// The Slurm job that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slurm: Option<SlurmJob>,
    /// When it started, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_time_seconds: Option<f64>,
    /// The trace that its spans are in, in hexadecimal.
    #[serde(default)]
    pub trace_id: String,
    /// The span that stands for it, whether it has been exported or not.
    #[serde(default)]
    pub span_id: String,
    /// Whether it has ended; it is shown for a while with what it did.
    pub ended: bool,
    /// Bytes that it holds on devices, host memory left out.
    pub device_usage_bytes: u64,
    /// What it holds, by device and type.
    pub memory: Vec<HeldMemory>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// The id that its runtime gave it.
    pub container_id: String,
    /// The unique id of its pod.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub k8s_pod_uid: Option<String>,
    /// What Kubernetes calls it.
    #[serde(skip_serializing_if = "Option::is_none", default, flatten)]
    pub names: Option<ContainerNames>,
}

/// What Kubernetes calls a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerNames {
    /// The namespace of its pod.
    pub k8s_namespace_name: String,
    /// Its pod.
    pub k8s_pod_name: String,
    /// Its name in the pod.
    pub k8s_container_name: String,
}

/// A Slurm job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlurmJob {
    /// Its number.
    pub job_id: u32,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub step_id: Option<String>,
    /// Who says so: cgroup, or environment, for which nothing vouches.
    pub source: String,
}

/// What a process holds on one device in one memory type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldMemory {
    /// The device.
    pub device: u16,
    /// The type.
    pub memory_type: String,
    /// Bytes held.
    pub usage_bytes: u64,
    /// The most bytes held at once.
    pub peak_bytes: u64,
    /// Live buffers; absent where only tt-metal's totals are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub buffers: Option<u64>,
    /// Bytes allocated so far; absent where only tt-metal's totals are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allocated_bytes_total: Option<u64>,
    /// How sure it is that it leaks: above 0, below 1, suspected from one half on; absent where nothing looks like it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leak_score: Option<f64>,
}

/// The answer to /api/v1/buffers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffers {
    /// The buffers, by process and place in its table.
    pub buffers: Vec<Buffer>,
    /// What to ask for next; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_cursor: Option<String>,
}

/// One live buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// Who holds it.
    pub pid: u32,
    /// That process's name.
    pub process: String,
    /// The device.
    pub device: u16,
    /// The memory type.
    pub memory_type: String,
    /// The id that the process gave it, in hexadecimal: it is often an address, and JSON numbers end at 2^53.
    pub buffer_id: String,
    /// Its size.
    pub size_bytes: u64,
    /// How many allocations without a free there were.
    pub references: u32,
    /// When it was allocated, in seconds since the epoch.
    pub allocated_timestamp_seconds: f64,
    /// How long ago that was.
    pub age_seconds: f64,
}

impl Devices {
    /// The devices of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Devices {
        let devices = snapshot.devices.iter().map(Device::of).collect();
        let assigned = snapshot.kubelet.assigned.iter().map(Assigned::of).collect();
        Devices { timestamp_seconds: snapshot.time.unix_ns as f64 / 1e9, devices, assigned }
    }
}

impl Assigned {
    fn of(assigned: &registry::Assigned) -> Assigned {
        Assigned {
            names: ContainerNames::of(&assigned.names),
            resource: assigned.resource.clone(),
            device_ids: assigned.device_ids.clone(),
        }
    }
}

impl Device {
    fn of(device: &DeviceSnapshot) -> Device {
        let info = &device.info;
        Device {
            device: device.index,
            arch: info.arch.map(|arch| arch.name().into()),
            board: info.board.clone(),
            asic_id: info.asic_id.clone(),
            pci_bus_id: info.pci_bus_id.clone(),
            serial: info.serial.clone(),
            firmware: info.firmware.clone(),
            capacity_source: info.capacity_source.map(Into::into),
            processes: device.processes,
            untracked: info.untracked.as_ref().map(Untracked::of),
            card: info.card,
            renumbered: info.renumbered.iter().flatten().map(Renumbered::of).collect(),
            memory: device.memory.iter().map(DeviceMemory::of).collect(),
        }
    }
}

impl Renumbered {
    fn of(renumbered: &registry::Renumbered) -> Renumbered {
        Renumbered { pid: renumbered.pid, card: renumbered.card }
    }
}

impl Untracked {
    fn of(untracked: &NotReporting) -> Untracked {
        let named = untracked.named.iter().map(|process| UntrackedProcess {
            pid: process.pid,
            process: process.name.clone(),
            user: process.user.clone(),
        });
        Untracked { processes: untracked.processes, named: named.collect() }
    }
}

impl DeviceMemory {
    fn of(memory: &MemorySnapshot) -> DeviceMemory {
        DeviceMemory {
            memory_type: memory.memory_type.name().into(),
            usage_bytes: memory.usage_bytes,
            peak_bytes: memory.peak_bytes,
            limit_bytes: memory.limit_bytes,
            reported: memory.reported.as_ref().map(|reported| DeviceReported {
                buffers: reported.counters.buffers,
                allocations_total: reported.counters.allocations,
                frees_total: reported.counters.frees,
                allocated_bytes_total: reported.counters.allocated_bytes,
                freed_bytes_total: reported.counters.freed_bytes,
                orphaned_buffers_total: reported.counters.orphaned_buffers,
                orphaned_bytes_total: reported.counters.orphaned_bytes,
                oldest_buffer_timestamp_seconds: reported.oldest_timestamp_seconds,
            }),
            source_drift_bytes: memory.drift_bytes,
        }
    }
}

impl Processes {
    /// The processes of a snapshot that a filter lets through, most bytes first.
    pub fn of(snapshot: &Snapshot, host: &Host, wanted: impl Fn(&ProcessSnapshot) -> bool) -> Processes {
        let processes = snapshot.processes.iter().filter(|process| wanted(process));
        let processes = processes.map(|process| Process::of(process, host));
        let mut processes: Vec<_> = processes.collect();
        processes.sort_by_key(|process| std::cmp::Reverse(process.device_usage_bytes));
        Processes { timestamp_seconds: snapshot.time.unix_ns as f64 / 1e9, processes }
    }
}

impl Process {
    fn of(process: &ProcessSnapshot, host: &Host) -> Process {
        let info = process.process.info();
        let ids = ProcessIds::new(host, &process.process, process.process.trace_context());
        let on_device =
            process.memory.iter().filter(|memory| memory.memory_type != registry::MemoryType::SystemMemory);
        Process {
            pid: process.process.pid(),
            ns_pid: info.ns_pid,
            process: info.name.clone(),
            user: info.user.clone(),
            uid: info.uid,
            source: info.source.name().into(),
            cgroup: info.cgroup.clone(),
            container: info.container.as_deref().map(Container::of),
            slurm: info.slurm.as_ref().map(SlurmJob::of),
            start_time_seconds: info.start_time_seconds,
            trace_id: hex(&ids.trace_id),
            span_id: hex(&ids.root_id),
            ended: process.has_ended,
            device_usage_bytes: on_device.map(|memory| memory.counters.usage_bytes()).sum(),
            memory: process.memory.iter().map(HeldMemory::of).collect(),
        }
    }
}

impl SlurmJob {
    fn of(job: &registry::SlurmJob) -> SlurmJob {
        SlurmJob { job_id: job.job_id, step_id: job.step_id.clone(), source: job.source.name().into() }
    }
}

impl Container {
    fn of(container: &registry::Container) -> Container {
        Container {
            container_id: container.id().to_owned(),
            k8s_pod_uid: container.pod_uid().map(str::to_owned),
            names: container.names().map(ContainerNames::of),
        }
    }
}

impl ContainerNames {
    fn of(names: &registry::ContainerNames) -> ContainerNames {
        ContainerNames {
            k8s_namespace_name: names.namespace.clone(),
            k8s_pod_name: names.pod.clone(),
            k8s_container_name: names.container.clone(),
        }
    }
}

impl HeldMemory {
    fn of(memory: &ProcessMemory) -> HeldMemory {
        let counters = &memory.counters;
        let reported = |value| (counters.is_reported != 0).then_some(value);
        HeldMemory {
            device: memory.device,
            memory_type: memory.memory_type.name().into(),
            usage_bytes: counters.usage_bytes(),
            peak_bytes: counters.peak_bytes,
            buffers: reported(counters.buffers),
            allocated_bytes_total: reported(counters.allocated_bytes),
            leak_score: memory.leak_score,
        }
    }
}

impl Buffers {
    /// A page of buffers.
    pub fn of(page: &BufferPage, time: Time) -> Buffers {
        let buffers = page.buffers.iter().map(|buffer| Buffer::of(buffer, time)).collect();
        Buffers { buffers, next_cursor: page.next.map(encode_cursor) }
    }
}

impl Buffer {
    fn of(buffer: &BufferSnapshot, time: Time) -> Buffer {
        Buffer {
            pid: buffer.process.pid(),
            process: buffer.process.info().name.clone(),
            device: buffer.device,
            memory_type: buffer.memory_type.name().into(),
            buffer_id: format!("{:#x}", buffer.id),
            size_bytes: buffer.size_bytes,
            references: buffer.references,
            allocated_timestamp_seconds: time.unix_seconds_of(buffer.allocated_ns),
            age_seconds: time.seconds_since(buffer.allocated_ns),
        }
    }
}

/// A cursor as text, for a URL.
pub fn encode_cursor(cursor: Cursor) -> String {
    format!("{:x}-{:x}", cursor.process, cursor.slot)
}

/// The cursor that a text stands for.
pub fn decode_cursor(text: &str) -> Option<Cursor> {
    let (process, slot) = text.split_once('-')?;
    Some(Cursor {
        process: u64::from_str_radix(process, 16).ok()?,
        slot: u32::from_str_radix(slot, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = Cursor { process: 77, slot: 4096 };
        assert_eq!(decode_cursor(&encode_cursor(cursor)), Some(cursor));
        for broken in ["", "-", "1", "x-1", "1-100000000"] {
            assert_eq!(decode_cursor(broken), None, "{broken}");
        }
    }
}
