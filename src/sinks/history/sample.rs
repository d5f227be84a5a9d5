//! One sample: what the history needs of a snapshot, small enough to wait in a queue while a disk is slow.

use std::sync::Arc;

use crate::registry::{Counters, MemoryType, Moment, Process, Snapshot, Time};

/// What flows: allocated bytes, freed bytes, allocations and frees, in this order.
pub(super) const FLOWS: usize = 4;

/// What was so at one moment, and what had happened since the one before.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) time: Time,
    pub(super) figures: Vec<Figures>,
    pub(super) processes: Vec<Arc<Process>>,
    /// Every known device, and where its capacity comes from.
    pub(super) devices: Vec<(u16, Option<&'static str>)>,
    pub(super) moments: Vec<Moment>,
}

/// What is held in one place: on a device as a whole, or by one process of it.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// `None` for the device as a whole.
    pub(super) owner: Option<Arc<Process>>,
    pub(super) device: u16,
    pub(super) memory_type: MemoryType,
    pub(super) usage_bytes: u64,
    /// The most since counting began.
    pub(super) peak_bytes: u64,
    /// What only per-buffer reports can tell.
    pub(super) reported: Option<ReportedFigures>,
    /// Whether nothing more will come.
    pub(super) is_final: bool,
}

/// What only per-buffer reports can tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReportedFigures {
    pub(super) buffers: u64,
    /// Sums since counting began.
    pub(super) flows: [u64; FLOWS],
}

impl ReportedFigures {
    fn of(counters: &Counters) -> ReportedFigures {
        let Counters { allocated_bytes, freed_bytes, allocations, frees, buffers, .. } = *counters;
        ReportedFigures { buffers, flows: [allocated_bytes, freed_bytes, allocations, frees] }
    }
}

impl Sample {
    pub(super) fn of(snapshot: &Snapshot, moments: Vec<Moment>) -> Sample {
        let of_devices = snapshot.devices.iter().flat_map(|device| {
            device.memory.iter().map(|memory| Figures {
                owner: None,
                device: device.index,
                memory_type: memory.memory_type,
                usage_bytes: memory.usage_bytes,
                peak_bytes: memory.peak_bytes,
                reported: memory.reported.as_ref().map(|reported| ReportedFigures::of(&reported.counters)),
                is_final: false,
            })
        });
        let of_processes = snapshot.processes.iter().flat_map(|process| {
            process.memory.iter().map(|memory| Figures {
                owner: Some(Arc::clone(&process.process)),
                device: memory.device,
                memory_type: memory.memory_type,
                usage_bytes: memory.counters.usage_bytes(),
                peak_bytes: memory.counters.peak_bytes,
                reported: (memory.counters.is_reported != 0).then(|| ReportedFigures::of(&memory.counters)),
                is_final: process.has_ended,
            })
        });
        Sample {
            time: snapshot.time,
            figures: of_devices.chain(of_processes).collect(),
            processes: snapshot.processes.iter().map(|process| Arc::clone(&process.process)).collect(),
            devices: snapshot
                .devices
                .iter()
                .map(|device| (device.index, device.info.capacity_source))
                .collect(),
            moments,
        }
    }
}
