//! /api/v1/fits: whether a buffer would fit on the devices, from a snapshot and the day before it.

use hyper::Response;

use super::parameters::FitRequest;
use super::problem::Problem;
use super::routes::{now, to_json};
use super::{Body, Sources, past};
use crate::analysis::{Room, fits};
use crate::registry::{DeviceSnapshot, Snapshot};
use crate::sinks::history::{HighestUsage, start_of_day_ms};
use crate::views::findings::{DeviceFit, Fits};

/// Answers a question.
pub(super) async fn answer(sources: &Sources, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let request = FitRequest::parse(query)?;
    let time = now();
    let now_ms = time.unix_ns / 1_000_000;
    let day = past::highest_usage(sources, request.memory_type, request.device, now_ms).await;
    Ok(to_json(&fits_of(&sources.registry.snapshot(time), &day, &request)))
}

/// The peak is the day's where a history is kept. Counters know the most since they began, to the byte and up to this moment: they say it
/// where there is no history, and beside it where they began within the day.
fn fits_of(snapshot: &Snapshot, day: &HighestUsage, request: &FitRequest) -> Fits {
    let started = snapshot.time.unix_seconds_of(snapshot.started_ns);
    let start_of_day = start_of_day_ms(snapshot.time.unix_ns / 1_000_000) as f64 / 1000.0;
    let counts = day.since_unix_seconds.is_none() || started >= start_of_day;
    let asked = |device: &&DeviceSnapshot| request.device.is_none_or(|index| index == device.index);
    let peak = |device: &DeviceSnapshot, counted_bytes: u64| {
        let of_day = day.bytes_by_device.get(&device.index).copied().unwrap_or(0);
        if counts { of_day.max(counted_bytes) } else { of_day }
    };
    let devices = snapshot.devices.iter().filter(asked).map(|device| device_fit(device, request, peak));
    Fits {
        timestamp_seconds: snapshot.time.unix_ns as f64 / 1e9,
        size_bytes: request.size_bytes,
        memory_type: request.memory_type.name().into(),
        peak_since_timestamp_seconds: day
            .since_unix_seconds
            .map_or(started, |since| if counts { since.min(started) } else { since }),
        devices: devices.collect(),
    }
}

fn device_fit(
    device: &DeviceSnapshot,
    request: &FitRequest,
    peak: impl Fn(&DeviceSnapshot, u64) -> u64,
) -> DeviceFit {
    let FitRequest { size_bytes, memory_type, .. } = *request;
    let memory = device.memory.iter().find(|memory| memory.memory_type == memory_type);
    let room = Room {
        limit_bytes: device.info.limit_bytes(memory_type),
        usage_bytes: memory.map_or(0, |memory| memory.usage_bytes),
        peak_bytes: peak(device, memory.map_or(0, |memory| memory.peak_bytes)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Identity, MemoryType, ProcessInfo, Registry, Source, Time};

    const GIB: u64 = 1 << 30;
    const HOUR_NS: u64 = 3_600_000_000_000;
    const UNIX_SECONDS: u64 = 1_800_000_000;

    /// For how many hours the peak is, and what was free then, on a device of 12 GiB that held 10 in its first hour and holds 2, so many
    /// hours after counting began.
    #[track_caller]
    fn check(hours: u64, day: &HighestUsage, expected: (f64, u64)) {
        let registry = Registry::new(0);
        registry.device(0).update_info(|info| info.dram_bytes = Some(12 * GIB));
        let info = ProcessInfo::new("model", 1000, "ml", Source::Socket);
        let process = registry.process(Identity { pid: 7, start_ticks: 7 }, 0, info);
        let mut batch = registry.batch(&process, HOUR_NS);
        for (id, gib) in [(1, 8), (2, 2)] {
            batch.allocate(0, MemoryType::Dram, id, gib * GIB).expect("there is room");
            batch.publish();
        }
        batch.free(0, 1).expect("it is live");
        drop(batch);
        let time = Time { monotonic_ns: hours * HOUR_NS, unix_ns: UNIX_SECONDS * 1_000_000_000 };
        let request = FitRequest { size_bytes: 1, memory_type: MemoryType::Dram, device: None };
        let fits = fits_of(&registry.snapshot(time), day, &request);
        let age_seconds = fits.timestamp_seconds - fits.peak_since_timestamp_seconds;
        assert_eq!(
            (age_seconds / 3600.0, fits.devices[0].free_at_peak_bytes),
            (expected.0, Some(expected.1))
        );
    }

    fn day(hours: u64, bytes: u64) -> HighestUsage {
        HighestUsage {
            since_unix_seconds: Some((UNIX_SECONDS - hours * 3600) as f64),
            bytes_by_device: [(0, bytes)].into(),
        }
    }

    #[test]
    fn the_peak_is_the_days_where_there_is_a_history() {
        check(72, &HighestUsage::default(), (72.0, 2 * GIB));
        check(72, &day(24, 4 * GIB), (24.0, 8 * GIB));
        check(72, &day(24, GIB), (24.0, 10 * GIB));
        // Counters that began within the day know of moments that the history has not yet, and the history of a daemon before this one.
        check(2, &day(24, 4 * GIB), (24.0, 2 * GIB));
        check(2, &day(24, 11 * GIB), (24.0, GIB));
        check(2, &day(1, 4 * GIB), (2.0, 2 * GIB));
    }
}
