//! /api/v1/fits: whether a buffer would fit on the devices, from a snapshot.

use super::parameters::FitRequest;
use crate::analysis::{Room, fits};
use crate::registry::{DeviceSnapshot, Snapshot};
use crate::views::findings::{DeviceFit, Fits};

/// The answer to a question.
pub(super) fn answer(snapshot: &Snapshot, request: &FitRequest) -> Fits {
    let asked = |device: &&DeviceSnapshot| request.device.is_none_or(|index| index == device.index);
    Fits {
        timestamp_seconds: snapshot.time.unix_ns as f64 / 1e9,
        size_bytes: request.size_bytes,
        memory_type: request.memory_type.name().into(),
        peak_since_timestamp_seconds: snapshot.time.unix_seconds_of(snapshot.started_ns),
        devices: snapshot.devices.iter().filter(asked).map(|device| device_fit(device, request)).collect(),
    }
}

fn device_fit(device: &DeviceSnapshot, request: &FitRequest) -> DeviceFit {
    let FitRequest { size_bytes, memory_type, .. } = *request;
    let memory = device.memory.iter().find(|memory| memory.memory_type == memory_type);
    let room = Room {
        limit_bytes: device.info.limit_bytes(memory_type),
        usage_bytes: memory.map_or(0, |memory| memory.usage_bytes),
        peak_bytes: memory.map_or(0, |memory| memory.peak_bytes),
        banks: device.info.banks(memory_type),
        largest_free_block_bytes: memory.and_then(|memory| memory.largest_free_block_bytes),
    };
    let fit = fits(size_bytes, &room);
    DeviceFit {
        device: device.index,
        board: device.info.board.clone(),
        needed_bytes: fit.needed_bytes,
        free_bytes: fit.free_bytes,
        free_at_peak_bytes: fit.free_at_peak_bytes,
        largest_free_block_bytes: room.largest_free_block_bytes,
        now: fit.now.name().into(),
        at_peak: fit.at_peak.name().into(),
    }
}
