//! What a program asks its client: whether the server has taken everything, and what the program holds.

use std::mem::offset_of;
use std::time::Duration;

use ttmem_client::Statistic;

use crate::handle::{Handle, with};
use crate::memory::number;
use crate::outcome::Status;

/// ttmem.h: ttmem_statistic.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct StatisticOfC {
    device: i32,
    memory_type: u32,
    allocated_bytes: u64,
    peak_bytes: u64,
    buffers: u64,
    largest_bytes: u64,
}

// As the header asserts it.
const _: () = assert!(size_of::<StatisticOfC>() == 40 && offset_of!(StatisticOfC, largest_bytes) == 32);

impl From<&Statistic> for StatisticOfC {
    fn from(row: &Statistic) -> StatisticOfC {
        StatisticOfC {
            device: row.device,
            memory_type: number(row.memory_type),
            allocated_bytes: row.allocated_bytes,
            peak_bytes: row.peak_bytes,
            buffers: row.buffers,
            largest_bytes: row.largest_bytes,
        }
    }
}

/// ttmem.h: ttmem_flush.
///
/// # Safety
/// `client` is null or open.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_flush(client: *const Handle, timeout_milliseconds: u32) -> i32 {
    let timeout = Duration::from_millis(u64::from(timeout_milliseconds));
    // SAFETY: the caller's.
    unsafe { with(client, |client| if client.flush(timeout) { Status::Ok } else { Status::Timeout }) }
}

/// ttmem.h: ttmem_statistics.
///
/// # Safety
/// `client` is null or open; `rows` points to `rows_max` rows of `row_bytes` each, or `rows_max` is 0; `count` is null or can be
/// written to.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_statistics(
    client: *const Handle,
    rows: *mut StatisticOfC,
    rows_max: usize,
    row_bytes: usize,
    count: *mut usize,
) -> i32 {
    // SAFETY: the caller's.
    let Some(count) = (unsafe { count.as_mut() }) else { return Status::Argument as i32 };
    *count = 0;
    let has_rows = rows_max > 0;
    if has_rows && (rows.is_null() || row_bytes < size_of::<StatisticOfC>()) {
        return Status::Argument as i32;
    }
    // SAFETY: the caller's.
    unsafe {
        with(client, |client| {
            let statistics = client.statistics();
            for (index, row) in statistics.iter().take(rows_max).enumerate() {
                // What a later header's rows have behind ours is left as it is.
                let place = rows.cast::<u8>().add(index * row_bytes);
                place.cast::<StatisticOfC>().write_unaligned(row.into());
            }
            *count = statistics.len();
            Status::Ok
        })
    }
}
