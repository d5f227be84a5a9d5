//! The shapes in which the JSON API tells what the analysis has found: suspected leaks, and what would fit.

use serde::{Deserialize, Serialize};

use crate::registry::{SizeClass, Snapshot, Suspicion};

/// The answer to /api/v1/leaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaks {
    /// When this was so, in seconds since the epoch.
    pub timestamp_seconds: f64,
    /// What looks like a leak, the surest first. A score of one half or more is suspected; below, it is watched.
    pub leaks: Vec<Leak>,
}

/// Memory of a process that looks as if it leaked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Who holds it.
    pub pid: u32,
    /// That process's name.
    pub process: String,
    /// Its user.
    pub user: String,
    /// The device.
    pub device: u16,
    /// The memory type.
    pub memory_type: String,
    /// How sure it is: above 0, below 1.
    pub score: f64,
    /// Since when it is suspected, in seconds since the epoch; absent while it is only watched.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspected_timestamp_seconds: Option<f64>,
    /// The smallest size of the buffers that grow in number, where it is some sizes alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_min_bytes: Option<u64>,
    /// Their largest size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size_max_bytes: Option<u64>,
    /// Bytes that have been added to what is held for long.
    pub growth_bytes: u64,
    /// Buffers that have been added.
    pub growth_buffers: u64,
    /// In how many seconds.
    pub growth_seconds: f64,
    /// How fast it grows.
    pub bytes_per_second: f64,
    /// When the device is full at this rate; absent where its capacity is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub full_in_seconds: Option<f64>,
    /// Why, in words.
    pub evidence: String,
}

/// The answer to /api/v1/fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fits {
    /// When this was so, in seconds since the epoch.
    pub timestamp_seconds: f64,
    /// The size that was asked about.
    pub size_bytes: u64,
    /// The memory type that was asked about.
    pub memory_type: String,
    /// Of which time the peak is, in seconds since the epoch: the last day where a history is kept, else since counting began.
    pub peak_since_timestamp_seconds: f64,
    /// Every device, by index.
    pub devices: Vec<DeviceFit>,
}

/// Whether it would fit on one device: fits, fragmented, full or unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceFit {
    /// The device.
    pub device: u16,
    /// Its product.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub board: Option<String>,
    /// What it takes: the same of every bank.
    pub needed_bytes: u64,
    /// What is free now; absent where the capacity is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub free_bytes: Option<u64>,
    /// What was free at the peak.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub free_at_peak_bytes: Option<u64>,
    /// The largest free block when an allocation last failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub largest_free_block_bytes: Option<u64>,
    /// Whether it fits now.
    pub now: String,
    /// Whether it would have fitted at the peak.
    pub at_peak: String,
}

impl Leaks {
    /// What a snapshot suspects.
    pub fn of(snapshot: &Snapshot) -> Leaks {
        let living = snapshot.suspicions.iter().filter(|suspicion| !suspicion.process.has_ended());
        let leaks = living.map(|suspicion| Leak::of(suspicion, snapshot)).collect();
        Leaks { timestamp_seconds: snapshot.time.unix_ns as f64 / 1e9, leaks }
    }
}

impl Leak {
    fn of(suspicion: &Suspicion, snapshot: &Snapshot) -> Leak {
        let Suspicion { process, device, memory_type, score, size_class, growth, evidence, .. } = suspicion;
        let bytes_per_second = suspicion.bytes_per_second();
        let known = snapshot.devices.iter().find(|known| known.index == *device);
        let memory =
            known.and_then(|known| known.memory.iter().find(|memory| memory.memory_type == *memory_type));
        let free_bytes =
            memory.and_then(|memory| Some(memory.limit_bytes?.saturating_sub(memory.usage_bytes)));
        Leak {
            pid: process.pid(),
            process: process.info().name.clone(),
            user: process.info().user.clone(),
            device: *device,
            memory_type: memory_type.name().into(),
            score: *score,
            suspected_timestamp_seconds: suspicion.since_ns.map(|since| snapshot.time.unix_seconds_of(since)),
            size_min_bytes: size_class.map(SizeClass::first_bytes),
            size_max_bytes: size_class.map(SizeClass::last_bytes),
            growth_bytes: growth.bytes,
            growth_buffers: growth.buffers,
            growth_seconds: suspicion.growth_ns as f64 / 1e9,
            bytes_per_second,
            full_in_seconds: free_bytes.map(|free| free as f64 / bytes_per_second),
            evidence: evidence.clone(),
        }
    }
}
