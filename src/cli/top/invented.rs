//! What the tests show: devices, processes, buffers and leaks that nobody has.

use super::news::Picture;
use crate::views::findings::Leak;
use crate::views::json::{
    Buffer, Buffers, Device, DeviceMemory, DeviceReported, Devices, HeldMemory, Process,
};

/// The time of every picture.
pub(super) const NOW: f64 = 1_795_000_000.0;

const GIB: u64 = 1 << 30;
const NAMES: [&str; 4] = ["llama-serve", "sd-train", "模型服务\x1b[2J", "a.out"];

/// So many devices and processes: each process holds less than the one before; the first two are on the first two devices.
pub(super) fn picture(devices: u16, processes: u32) -> Picture {
    let devices = (0..devices).map(device).collect();
    let processes = (0..processes).map(process).collect();
    Picture {
        devices: Devices { timestamp_seconds: NOW, devices, assigned: Vec::new() },
        processes,
        source: "/tmp/tt_allocation_server.sock".to_owned(),
        doubt: None,
    }
}

fn device(index: u16) -> Device {
    // From nearly empty to nearly full, over and over.
    let sixteenths = 1 + u64::from(index) * 7 % 16;
    let memory = |memory_type: &str, usage_bytes: u64, limit_bytes: Option<u64>| DeviceMemory {
        memory_type: memory_type.to_owned(),
        usage_bytes,
        peak_bytes: (usage_bytes + usage_bytes / 8).min(limit_bytes.unwrap_or(u64::MAX)),
        limit_bytes,
        reported: Some(DeviceReported {
            buffers: 1204,
            allocations_total: 0,
            frees_total: 0,
            allocated_bytes_total: 0,
            freed_bytes_total: 0,
            orphaned_buffers_total: 0,
            orphaned_bytes_total: 0,
            oldest_buffer_timestamp_seconds: None,
        }),
        source_drift_bytes: None,
    };
    Device {
        device: index,
        arch: Some("wormhole_b0".to_owned()),
        board: Some("n150".to_owned()),
        asic_id: None,
        pci_bus_id: None,
        serial: None,
        firmware: None,
        card: None,
        renumbered: Vec::new(),
        capacity_source: None,
        processes: 2,
        untracked: None,
        memory: vec![
            memory("dram", sixteenths * 12 * GIB / 16, Some(12 * GIB)),
            memory("l1", sixteenths << 20, Some(96 << 20)),
            memory("trace", 27 << 20, None),
            memory("kernel", 0, None),
        ],
    }
}

fn process(number: u32) -> Process {
    let held = |device, memory_type: &str, usage_bytes| HeldMemory {
        device,
        memory_type: memory_type.to_owned(),
        usage_bytes,
        peak_bytes: usage_bytes + (64 << 20),
        buffers: Some(1000 / u64::from(number + 1)),
        allocated_bytes_total: Some(0),
        leak_score: None,
    };
    let usage_bytes = 6 * GIB / u64::from(number + 1);
    let mut memory = vec![held(0, "dram", usage_bytes)];
    if number < 2 {
        memory.push(held(0, "l1", 4 << 20));
        memory.push(held(1, "dram", usage_bytes));
    }
    Process {
        pid: 4000 + number,
        ns_pid: None,
        slurm: None,
        process: NAMES[number as usize % NAMES.len()].to_owned(),
        user: if number.is_multiple_of(2) { "ml" } else { "root" }.to_owned(),
        uid: 1000,
        source: "socket".to_owned(),
        cgroup: None,
        container: None,
        start_time_seconds: Some(NOW - 90.0 * f64::from(number + 1)),
        trace_id: String::new(),
        span_id: String::new(),
        ended: false,
        device_usage_bytes: memory.iter().map(|held| held.usage_bytes).sum(),
        memory,
    }
}

/// The last of four processes leaks.
pub(super) fn leaks() -> Vec<Leak> {
    vec![Leak {
        pid: 4003,
        process: "a.out".to_owned(),
        user: "root".to_owned(),
        device: 0,
        memory_type: "dram".to_owned(),
        score: 0.93,
        suspected_timestamp_seconds: Some(NOW - 60.0),
        size_min_bytes: None,
        size_max_bytes: None,
        growth_bytes: 96 << 20,
        growth_buffers: 12,
        growth_seconds: 120.0,
        bytes_per_second: 838_860.8,
        full_in_seconds: None,
        evidence: "12 buffers of 8.0 MiB in 2 minutes, none of them freed".to_owned(),
    }]
}

/// So many buffers of the first process, each larger than the one before.
pub(super) fn buffers(count: u32) -> Buffers {
    let buffer = |number: u32| Buffer {
        pid: 4000,
        process: NAMES[0].to_owned(),
        device: (number % 2) as u16,
        memory_type: if number.is_multiple_of(2) { "l1" } else { "dram" }.to_owned(),
        buffer_id: format!("{:#x}", number * 0x1000),
        size_bytes: u64::from(number) << 20,
        references: 1,
        allocated_timestamp_seconds: NOW - f64::from(number) * 3.0,
        age_seconds: f64::from(number) * 3.0,
    };
    Buffers { buffers: (1..=count).map(buffer).collect(), next_cursor: None }
}
