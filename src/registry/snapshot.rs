//! The whole registry at one instant, immutable: what every view and every analysis is a function of.
//!
//! The idea is that a device's totals are sums over the very process counters that the snapshot has captured, plus those of processes
//! that are gone, so that the parts of one snapshot always add up, however busy the daemon is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::container::{ContainerSnapshot, Containers};
use super::device::Device;
use super::histogram::HistogramSnapshot;
use super::{
    Cell, Counters, DeviceInfo, EventSnapshot, Exemplars, FailureReason, KubeletSnapshot, MemoryType,
    Process, Registry, Suspicion,
};

/// How often the processes are read while their sum is more than was ever held at once.
const CAPTURES_MAX: usize = 4;

/// One instant on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Time {
    /// Nanoseconds on a clock that never jumps.
    pub monotonic_ns: u64,
    /// Nanoseconds since the epoch.
    pub unix_ns: u64,
}

impl Time {
    /// How many seconds before this instant something happened.
    pub fn seconds_since(&self, earlier_monotonic_ns: u64) -> f64 {
        self.monotonic_ns.saturating_sub(earlier_monotonic_ns) as f64 / 1e9
    }

    /// The time of day of an earlier moment, in nanoseconds since the epoch.
    pub fn unix_ns_of(&self, earlier_monotonic_ns: u64) -> u64 {
        self.unix_ns.saturating_sub(self.monotonic_ns.saturating_sub(earlier_monotonic_ns))
    }

    /// The time of day of an earlier moment, in seconds since the epoch: the same at every later instant.
    pub fn unix_seconds_of(&self, earlier_monotonic_ns: u64) -> f64 {
        let age_ns = self.monotonic_ns.saturating_sub(earlier_monotonic_ns);
        self.unix_ns.saturating_sub(age_ns) as f64 / 1e9
    }
}

/// The registry at one instant.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub time: Time,
    /// Since when everything has been counted, in monotonic nanoseconds.
    pub started_ns: u64,
    /// Every known device, by index.
    pub devices: Vec<DeviceSnapshot>,
    /// Every process that holds memory or held some a short while ago, in the order of their first reports.
    pub processes: Vec<ProcessSnapshot>,
    /// What the containers hold that those processes run in, and what containers have held whose processes are gone.
    pub containers: Vec<ContainerSnapshot>,
    /// Messages, rejections, losses, connections.
    pub events: EventSnapshot,
    /// Buffers whose spans a collector has.
    pub exemplars: Arc<Exemplars>,
    /// What is known of the kubelet.
    pub kubelet: KubeletSnapshot,
    /// What looks as if it leaked, the surest first.
    pub suspicions: Arc<Vec<Suspicion>>,
}

/// One device.
#[derive(Clone, Debug)]
pub struct DeviceSnapshot {
    /// Its index.
    pub index: u16,
    /// What it is.
    pub info: Arc<DeviceInfo>,
    /// Live processes that use it.
    pub processes: u64,
    /// Its memory, one row for each type that has a source.
    pub memory: Vec<MemorySnapshot>,
}

/// A device's memory of one type.
#[derive(Clone, Debug)]
pub struct MemorySnapshot {
    /// The type.
    pub memory_type: MemoryType,
    /// Bytes that can be used, where the capacity is known.
    pub limit_bytes: Option<u64>,
    /// Bytes in use.
    pub usage_bytes: u64,
    /// The most bytes that have been in use at once.
    pub peak_bytes: u64,
    /// What per-buffer reports tell; `None` where only totals are known.
    pub reported: Option<Reported>,
    /// Allocation failures reported so far, by reason.
    pub failures: [u64; FailureReason::ALL.len()],
    /// The largest free block at the last failure that was reported; `None` while none has been.
    pub largest_free_block_bytes: Option<u64>,
    /// Another source's figure minus ours, over the processes that both know.
    pub drift_bytes: Option<i64>,
}

/// What only per-buffer reports can tell.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The counters, summed over processes; the oldest buffer is the oldest of all.
    pub counters: Counters,
    /// When the oldest live buffer was allocated, in seconds since the epoch.
    pub oldest_timestamp_seconds: Option<f64>,
    /// Sizes of the buffers allocated so far, in bytes.
    pub sizes: HistogramSnapshot,
    /// Lifetimes of the buffers released so far, in seconds; `None` for memory that is accounted by size alone.
    pub lifetimes: Option<HistogramSnapshot>,
}

/// One process.
#[derive(Clone, Debug)]
pub struct ProcessSnapshot {
    /// Who it is.
    pub process: Arc<Process>,
    /// Whether it has ended; its counters stay for one staleness interval.
    pub has_ended: bool,
    /// What it holds, by device and memory type.
    pub memory: Vec<ProcessMemory>,
}

/// What a process holds on one device in one memory type.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory {
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// The counters.
    pub counters: Counters,
    /// How sure it is that it leaks, above 0 and below 1; `None` where nothing looks like it.
    pub leak_score: Option<f64>,
}

impl Snapshot {
    /// Processes are read one after the other, so under load their sum can be more than was ever held at once. That is seen by the
    /// peak, and read again; where it does not help, the peak is what was told, so that it never falls.
    pub(super) fn take(registry: &Registry, time: Time) -> Snapshot {
        let mut snapshot = Snapshot::capture(registry, time);
        for _ in 1..CAPTURES_MAX {
            if snapshot.overshoots().next().is_none() {
                return snapshot;
            }
            snapshot = Snapshot::capture(registry, time);
        }
        for (device, memory) in snapshot.overshoots() {
            memory.peak_bytes =
                registry.device(device).memory(memory.memory_type).raise_peak(memory.usage_bytes);
        }
        snapshot
    }

    fn overshoots(&mut self) -> impl Iterator<Item = (u16, &mut MemorySnapshot)> {
        let memory = self
            .devices
            .iter_mut()
            .flat_map(|device| device.memory.iter_mut().map(|memory| (device.index, memory)));
        memory.filter(|(_, memory)| memory.usage_bytes > memory.peak_bytes)
    }

    fn capture(registry: &Registry, time: Time) -> Snapshot {
        // Read first: what they tell of has then been done to what is read after them.
        let events = registry.event_snapshot();
        let world = registry.world();
        let mut sums = Sums::default();
        for ((device, memory_type), counters) in world.retired.iter() {
            sums.add(*device, *memory_type, counters);
        }
        let mut users: BTreeMap<u16, u64> = BTreeMap::new();
        let mut processes = Vec::with_capacity(world.processes.count());
        let mut containers = Containers::of(&world.ended_containers);
        for process in world.processes.iter() {
            let has_ended = process.has_ended();
            let memory = process.memory();
            for place in &memory {
                sums.add(place.device, place.memory_type, &place.counters);
            }
            if let Some(container) = &process.info().container {
                let places = memory.iter().map(|place| ((place.device, place.memory_type), &place.counters));
                containers.add(container, process.first_seen_ns(), places, time.monotonic_ns);
            }
            if !has_ended {
                let devices = memory.chunk_by(|left, right| left.device == right.device);
                devices.for_each(|device| *users.entry(device[0].device).or_default() += 1);
            }
            processes.push(ProcessSnapshot { process: Arc::clone(process), has_ended, memory });
        }
        let mut devices: Vec<_> = registry.devices().collect();
        let is_forgotten = |device: &Device| device.is_forgotten(time.monotonic_ns);
        // Rarely is one, and then it may be in use again since it was last looked at.
        if devices.iter().any(|device| is_forgotten(device)) {
            let in_use = in_use(&processes);
            devices.retain(|device| !is_forgotten(device) || in_use.contains(&device.index()));
        }
        let devices =
            devices.into_iter().map(|device| device_snapshot(device, &sums, &users, time)).collect();
        let containers = containers.finish();
        let exemplars = registry.exemplars.load_full();
        let suspicions = registry.suspicions.load_full();
        score(&mut processes, &suspicions);
        let started_ns = registry.started_ns;
        let kubelet = registry.kubelet.snapshot();
        Snapshot { time, started_ns, devices, processes, containers, events, exemplars, kubelet, suspicions }
    }
}

/// The devices that processes use or have used which are still shown.
fn in_use(processes: &[ProcessSnapshot]) -> BTreeSet<u16> {
    processes.iter().flat_map(|process| &process.memory).map(|place| place.device).collect()
}

impl ProcessMemory {
    pub(super) fn of(cell: &Cell) -> ProcessMemory {
        let (device, memory_type, counters) = (cell.device(), cell.memory_type(), cell.read());
        ProcessMemory { device, memory_type, counters, leak_score: None }
    }
}

/// Marks the memory that is suspected.
fn score(processes: &mut [ProcessSnapshot], suspicions: &[Suspicion]) {
    for suspicion in suspicions {
        let serial = suspicion.process.serial();
        let Ok(number) = processes.binary_search_by_key(&serial, |process| process.process.serial()) else {
            continue;
        };
        let place = (suspicion.device, suspicion.memory_type);
        let memory = processes[number].memory.iter_mut();
        let suspected = memory.filter(|memory| (memory.device, memory.memory_type) == place);
        suspected.for_each(|memory| memory.leak_score = Some(suspicion.score));
    }
}

/// Sums by device and memory type, as many devices as there are in use.
#[derive(Default)]
struct Sums(Vec<[Option<Sum>; MemoryType::COUNT]>);

impl Sums {
    fn add(&mut self, device: u16, memory_type: MemoryType, counters: &Counters) {
        let device = usize::from(device);
        if self.0.len() <= device {
            self.0.resize_with(device + 1, Default::default);
        }
        self.0[device][memory_type.index()].get_or_insert_default().add(counters);
    }

    fn of(&self, device: u16, memory_type: MemoryType) -> Option<&Sum> {
        self.0.get(usize::from(device))?[memory_type.index()].as_ref()
    }
}

/// The sum of several processes' counters in one place.
#[derive(Default)]
struct Sum {
    usage_bytes: u64,
    counters: Counters,
    drift_bytes: Option<i64>,
}

impl Sum {
    fn add(&mut self, counters: &Counters) {
        self.usage_bytes += counters.usage_bytes();
        if let Some(drift) = counters.drift_bytes() {
            self.drift_bytes = Some(self.drift_bytes.unwrap_or(0).saturating_add(drift));
        }
        self.counters.absorb(counters);
    }
}

fn device_snapshot(device: &Device, sums: &Sums, users: &BTreeMap<u16, u64>, time: Time) -> DeviceSnapshot {
    let index = device.index();
    let info = Arc::clone(&device.info());
    let memory = MemoryType::ALL.into_iter().filter_map(|memory_type| {
        let sum = sums.of(index, memory_type);
        if sum.is_none() && !memory_type.is_allocated_by_every_runtime() {
            return None;
        }
        Some(memory_snapshot(
            device,
            memory_type,
            sum.unwrap_or(&Sum::default()),
            info.limit_bytes(memory_type),
            time,
        ))
    });
    let memory = memory.collect();
    DeviceSnapshot { index, info, processes: users.get(&index).copied().unwrap_or(0), memory }
}

fn memory_snapshot(
    device: &Device,
    memory_type: MemoryType,
    sum: &Sum,
    limit_bytes: Option<u64>,
    time: Time,
) -> MemorySnapshot {
    let atomics = device.memory(memory_type);
    // Where a region alone speaks there are no per-buffer figures; where nobody has spoken yet they are all 0.
    let is_reported = sum.counters.is_reported != 0 || sum.counters.is_in_region == 0;
    let by_size_alone = matches!(memory_type, MemoryType::Cb | MemoryType::Kernel);
    MemorySnapshot {
        memory_type,
        limit_bytes,
        usage_bytes: sum.usage_bytes,
        peak_bytes: atomics.peak_bytes(),
        reported: is_reported.then(|| Reported {
            counters: sum.counters,
            oldest_timestamp_seconds: sum.counters.oldest_ns().map(|ns| time.unix_seconds_of(ns)),
            sizes: atomics.sizes(),
            lifetimes: (!by_size_alone).then(|| atomics.lifetimes()),
        }),
        failures: atomics.failures(),
        largest_free_block_bytes: atomics.largest_free_block_bytes(),
        drift_bytes: sum.drift_bytes,
    }
}
