//! The picture that `ttmem status` draws, from the stats pages of a daemon on this host.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ttmem_client::Monitor;
use ttmem_wire::Arch;
use ttmem_wire::stats::{DeviceFigures, Figure, HolderFigures, MEMORY_TYPE_NAMES, Text};

use crate::views::json::{Device, DeviceMemory, DeviceReported, Devices, HeldMemory, Process, Untracked};

/// The last of [`MEMORY_TYPE_NAMES`] is the host's memory.
const HOST_MEMORY: usize = MEMORY_TYPE_NAMES.len() - 1;

/// What the pages show at a moment, in seconds since the epoch; `None` where they do not show all, and only the daemon can tell.
pub(super) fn read(monitor: &Monitor, timestamp_seconds: f64) -> Option<(Devices, Vec<Process>)> {
    let holders = monitor.processes().ok()??;
    if holders.missing() > 0 {
        return None;
    }
    let holders: Vec<HolderFigures> = holders.holders().collect::<Result<_, _>>().ok()?;
    let page = monitor.devices().ok()?;
    let mut devices = Vec::new();
    for index in 0..page.devices_end() {
        let figures = page.device(index).ok()?;
        devices.extend(figures.map(|figures| device(index, &figures, &holders)));
    }
    Some((Devices { timestamp_seconds, devices, assigned: Vec::new() }, processes(&holders)))
}

fn device(index: u16, figures: &DeviceFigures, holders: &[HolderFigures]) -> Device {
    let here: Vec<_> = holders.iter().filter(|holder| holder.description.device == index).collect();
    let mut pids: Vec<_> =
        here.iter().filter(|holder| !holder.has_ended).map(|holder| holder.description.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let memory = MEMORY_TYPE_NAMES.iter().enumerate().map(|(memory_type, name)| {
        let of_type = here.iter().filter(|holder| usize::from(holder.description.memory_type) == memory_type);
        let of_type: Vec<_> = of_type.copied().collect();
        DeviceMemory {
            memory_type: (*name).to_owned(),
            usage_bytes: figures.usage_bytes[memory_type],
            peak_bytes: figures.peak_bytes[memory_type],
            limit_bytes: Some(figures.description.limit_bytes[memory_type]).filter(|limit| *limit > 0),
            reported: reported(&of_type),
            source_drift_bytes: None,
        }
    });
    let arch = figures.description.arch;
    Device {
        device: index,
        arch: (arch != Arch::Invalid).then(|| arch.name().to_owned()),
        board: Some(owned(&figures.description.board)).filter(|board| !board.is_empty()),
        asic_id: None,
        pci_bus_id: None,
        serial: None,
        firmware: None,
        // Their names are told over HTTP alone.
        untracked: figures.description.untracked.map(|processes| Untracked { processes, named: Vec::new() }),
        card: None,
        renumbered: Vec::new(),
        capacity_source: None,
        processes: pids.len() as u64,
        memory: memory.collect(),
    }
}

/// The sums over the holders that the page shows. Where tt-metal's regions alone speak there is nothing to sum.
fn reported(holders: &[&HolderFigures]) -> Option<DeviceReported> {
    let sum = |figure| holders.iter().map(|holder| holder.figure(figure)).fold(0, u64::wrapping_add);
    let is_known = sum(Figure::IsReported) > 0 || sum(Figure::IsInRegion) == 0;
    is_known.then(|| DeviceReported {
        buffers: sum(Figure::Buffers),
        allocations_total: sum(Figure::Allocations),
        frees_total: sum(Figure::Frees),
        allocated_bytes_total: sum(Figure::AllocatedBytes),
        freed_bytes_total: sum(Figure::FreedBytes),
        orphaned_buffers_total: sum(Figure::OrphanedBuffers),
        orphaned_bytes_total: sum(Figure::OrphanedBytes),
        oldest_buffer_timestamp_seconds: None,
    })
}

/// The holders by process, most bytes first.
fn processes(holders: &[HolderFigures]) -> Vec<Process> {
    let mut found: BTreeMap<(u32, u64), Process> = BTreeMap::new();
    for holder in holders {
        let who = &holder.description;
        let process = found.entry((who.pid, who.start_ticks)).or_insert_with(|| Process {
            pid: who.pid,
            // What is told over HTTP alone.
            ns_pid: None,
            slurm: None,
            process: owned(&who.name),
            user: owned(&who.user),
            uid: who.uid,
            source: String::new(),
            cgroup: None,
            container: None,
            start_time_seconds: Some(who.start_unix_ns as f64 / 1e9).filter(|start| *start > 0.0),
            trace_id: String::new(),
            span_id: String::new(),
            ended: holder.has_ended,
            device_usage_bytes: 0,
            memory: Vec::new(),
        });
        let memory_type = usize::from(who.memory_type);
        // A kind of memory that a later daemon tells of has no name here, and no column either.
        let Some(name) = MEMORY_TYPE_NAMES.get(memory_type) else { continue };
        if memory_type != HOST_MEMORY {
            process.device_usage_bytes += holder.usage_bytes();
        }
        let is_reported = holder.figure(Figure::IsReported) != 0;
        process.memory.push(HeldMemory {
            device: who.device,
            memory_type: (*name).to_owned(),
            usage_bytes: holder.usage_bytes(),
            peak_bytes: holder.figure(Figure::PeakBytes),
            buffers: is_reported.then(|| holder.figure(Figure::Buffers)),
            allocated_bytes_total: is_reported.then(|| holder.figure(Figure::AllocatedBytes)),
            // What it means is said by the API alone.
            leak_score: None,
        });
    }
    let mut processes: Vec<_> = found.into_values().collect();
    for process in &mut processes {
        process.memory.sort_by_key(|memory| memory.device);
    }
    processes.sort_by_key(|process| Reverse(process.device_usage_bytes));
    processes
}

fn owned<const WORDS: usize>(text: &Text<WORDS>) -> String {
    text.with(str::to_owned)
}
