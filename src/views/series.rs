//! Which series a snapshot has, and their labels: put together once per walk, or kept with the process.

use std::collections::HashSet;
use std::ops::Range;

use super::exposition::{Exposition, kubernetes_labels};
use crate::registry::metrics::Samples;
use crate::registry::{
    ContainerMemory, DeviceSnapshot, MemorySnapshot, MemoryType, ProcessMemory, ProcessSnapshot, Snapshot,
};

/// Which processes have series of their own on which device. Ranked by their peak: it only grows, so the choice is steady, and whoever
/// holds much is among them.
pub(super) struct Shown {
    /// Devices on which everybody has.
    crowded: Vec<CrowdedDevice>,
}

pub(super) struct CrowdedDevice {
    device: u16,
    shown: HashSet<usize>,
    pub(super) suppressed: u64,
    pub(super) suppressed_bytes: [u64; MemoryType::COUNT],
}

impl Shown {
    pub(super) fn of(snapshot: &Snapshot, processes_max: usize) -> Shown {
        let crowded = snapshot
            .devices
            .iter()
            .filter_map(|device| CrowdedDevice::of(device.index, snapshot, processes_max));
        Shown { crowded: crowded.collect() }
    }

    pub(super) fn on(&self, device: u16) -> Option<&CrowdedDevice> {
        self.crowded.iter().find(|crowded| crowded.device == device)
    }

    fn shows(&self, process: usize, device: u16) -> bool {
        self.on(device).is_none_or(|crowded| crowded.shown.contains(&process))
    }
}

impl CrowdedDevice {
    fn of(device: u16, snapshot: &Snapshot, processes_max: usize) -> Option<CrowdedDevice> {
        let here = |process: &'_ ProcessSnapshot| {
            let from = process.memory.partition_point(|memory| memory.device < device);
            let to = process.memory.partition_point(|memory| memory.device <= device);
            from..to
        };
        let mut ranked: Vec<_> =
            snapshot.processes.iter().enumerate().filter(|(_, process)| !here(process).is_empty()).collect();
        if ranked.len() <= processes_max {
            return None;
        }
        ranked.sort_by_key(|(_, process)| {
            let peak: u64 =
                process.memory[here(process)].iter().map(|memory| memory.counters.peak_bytes).sum();
            (process.has_ended, std::cmp::Reverse(peak))
        });
        let suppressed = ranked.split_off(processes_max);
        let mut suppressed_bytes = [0; MemoryType::COUNT];
        for memory in suppressed.iter().flat_map(|(_, process)| &process.memory[here(process)]) {
            suppressed_bytes[memory.memory_type.index()] += memory.counters.usage_bytes();
        }
        let shown = ranked.into_iter().map(|(index, _)| index).collect();
        Some(CrowdedDevice { device, shown, suppressed: suppressed.len() as u64, suppressed_bytes })
    }
}

/// Rendered labels, beside the places in the snapshot of what they belong to.
pub(super) struct Series<E: Exposition> {
    /// Per device.
    devices: Vec<E::Labels>,
    device_memory: Vec<(E::Labels, Position)>,
    /// Processes that are shown.
    processes: Vec<u32>,
    /// What they hold, and which of the leading labels it has.
    process_memory: Vec<(u32, Position)>,
    /// The labels of a device's memory, to be followed by those of a process.
    leading: Vec<Vec<u8>>,
    /// With the beginning of each container's counters, in seconds since the epoch.
    container_memory: Vec<(E::Labels, f64, Position)>,
}

/// Where a process holds memory.
pub struct Place<'a> {
    device: u16,
    memory_type: MemoryType,
    /// What the format has rendered of it.
    pub(super) leading: &'a [u8],
}

impl Place<'_> {
    /// Its labels.
    pub(super) fn pairs<'b>(&self, index: &'b mut itoa::Buffer) -> [(&'static str, &'b str); 2] {
        [("device", index.format(self.device)), ("memory_type", self.memory_type.name())]
    }
}

/// A position in a snapshot: which device, process or container, and which of its memory.
#[derive(Clone, Copy)]
struct Position {
    owner: u32,
    memory: u32,
}

impl<E: Exposition> Series<E> {
    pub(super) fn of(snapshot: &Snapshot, shown: &Shown) -> Self {
        let mut index = itoa::Buffer::new();
        let mut series = Series {
            devices: Vec::with_capacity(snapshot.devices.len()),
            device_memory: Vec::new(),
            processes: Vec::with_capacity(snapshot.processes.len()),
            leading: Vec::new(),
            container_memory: Vec::new(),
            process_memory: Vec::with_capacity(
                snapshot.processes.iter().map(|process| process.memory.len()).sum(),
            ),
        };
        // Where a device's memory has its labels, by the device's index and the memory type.
        let mut labels_of: Vec<[u32; MemoryType::COUNT]> = Vec::new();
        for (device, owner) in snapshot.devices.iter().zip(0..) {
            let index = index.format(device.index);
            series.devices.push(E::labels(&[("device", index)]));
            labels_of.resize(usize::from(device.index) + 1, [u32::MAX; MemoryType::COUNT]);
            for (held, memory) in device.memory.iter().zip(0..) {
                labels_of[usize::from(device.index)][held.memory_type.index()] =
                    series.device_memory.len() as u32;
                let pairs = [("device", index), ("memory_type", held.memory_type.name())];
                series.device_memory.push((E::labels(&pairs), Position { owner, memory }));
                series.leading.push(E::leading_labels(&pairs));
            }
        }
        for (process, owner) in snapshot.processes.iter().zip(0..) {
            let before = series.process_memory.len();
            for (held, memory) in process.memory.iter().zip(0..) {
                if shown.shows(owner as usize, held.device) {
                    // The device has a row for it: the snapshot has summed that from these very places.
                    let labels = labels_of[usize::from(held.device)][held.memory_type.index()];
                    series.process_memory.push((labels, Position { owner, memory }));
                }
            }
            if series.process_memory.len() > before {
                series.processes.push(owner);
            }
        }
        series.add_containers(snapshot);
        series
    }

    fn add_containers(&mut self, snapshot: &Snapshot) {
        let mut index = itoa::Buffer::new();
        for (container, owner) in snapshot.containers.iter().zip(0..) {
            let names = kubernetes_labels(container.names.as_ref());
            let since = snapshot.time.unix_seconds_of(container.since_ns);
            for (held, memory) in container.memory.iter().zip(0..) {
                let place = [("device", index.format(held.device)), ("memory_type", held.memory_type.name())];
                let labels = E::labels(&[&place[..], &names[..]].concat());
                self.container_memory.push((labels, since, Position { owner, memory }));
            }
        }
    }

    /// How many rows a family has at most.
    pub(super) fn rows(&self, samples: &Samples) -> usize {
        match samples {
            Samples::Memory(_)
            | Samples::Allocations(..)
            | Samples::MemoryHistogram(_)
            | Samples::Failures(_)
            | Samples::Drift(_)
            | Samples::SuppressedMemory => self.device_memory.len(),
            Samples::Device(_) | Samples::DeviceInfo | Samples::Suppressed => self.devices.len(),
            Samples::ProcessMemory(_) => self.process_memory.len(),
            Samples::Process(_) | Samples::ProcessInfo => self.processes.len(),
            Samples::ContainerMemory(_) => self.container_memory.len(),
            // They are few, and written at once.
            Samples::Rows(_)
            | Samples::Labelled(_)
            | Samples::Containers(_)
            | Samples::Connections(_)
            | Samples::Series
            | Samples::Daemon => 1,
        }
    }
}

/// Some rows of a family, with all that they are made from.
pub(super) struct View<'a, E: Exposition> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) series: &'a Series<E>,
    pub(super) shown: &'a Shown,
    pub(super) rows: Range<usize>,
}

impl<'a, E: Exposition> View<'a, E> {
    pub(super) fn devices(&self) -> impl Iterator<Item = (&'a E::Labels, &'a DeviceSnapshot)> {
        let rows = self.rows.clone();
        self.series.devices[rows.clone()].iter().zip(&self.snapshot.devices[rows])
    }

    pub(super) fn device_memory(
        &self,
    ) -> impl Iterator<Item = (&'a E::Labels, &'a DeviceSnapshot, &'a MemorySnapshot)> {
        let snapshot = self.snapshot;
        self.series.device_memory[self.rows.clone()].iter().map(|(labels, position)| {
            let device = &snapshot.devices[position.owner as usize];
            (labels, device, &device.memory[position.memory as usize])
        })
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &'a ProcessSnapshot> {
        let snapshot = self.snapshot;
        self.series.processes[self.rows.clone()].iter().map(|owner| &snapshot.processes[*owner as usize])
    }

    pub(super) fn process_memory(
        &self,
    ) -> impl Iterator<Item = (Place<'a>, &'a ProcessSnapshot, &'a ProcessMemory)> {
        let (snapshot, series) = (self.snapshot, self.series);
        series.process_memory[self.rows.clone()].iter().map(|(leading, position)| {
            let process = &snapshot.processes[position.owner as usize];
            let memory = &process.memory[position.memory as usize];
            let ProcessMemory { device, memory_type, .. } = *memory;
            (Place { device, memory_type, leading: &series.leading[*leading as usize] }, process, memory)
        })
    }

    pub(super) fn container_memory(&self) -> impl Iterator<Item = (&'a E::Labels, f64, &'a ContainerMemory)> {
        let snapshot = self.snapshot;
        self.series.container_memory[self.rows.clone()].iter().map(|(labels, since, position)| {
            let container = &snapshot.containers[position.owner as usize];
            (labels, *since, &container.memory[position.memory as usize])
        })
    }
}
