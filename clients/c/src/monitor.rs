//! What all processes of the host hold, read from the daemon's stats pages.

use std::ffi::c_char;
use std::ptr;

use ttmem_client::{MemoryType, Monitor, Options};

use crate::device::device;
use crate::memory::number;
use crate::options;
use crate::outcome::{Status, be_quiet, within};

const MEMORY_TYPES: usize = MemoryType::ALL.len();

/// The pages' order of the kinds of memory.
const ORDER: [MemoryType; MEMORY_TYPES] = [
    MemoryType::Dram,
    MemoryType::L1,
    MemoryType::L1Small,
    MemoryType::Trace,
    MemoryType::CircularBuffer,
    MemoryType::Kernel,
    MemoryType::SystemMemory,
];

/// ttmem.h: ttmem_device_memory.
#[repr(C)]
pub(crate) struct DeviceMemory {
    allocated_bytes: [u64; MEMORY_TYPES],
    peak_bytes: [u64; MEMORY_TYPES],
    limit_bytes: [u64; MEMORY_TYPES],
}

// As the header asserts it.
const _: () = assert!(size_of::<DeviceMemory>() == 168);

/// ttmem.h: ttmem_monitor_open.
///
/// # Safety
/// `socket_path` is null or a string; `monitor` is null or can be written to.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_monitor_open(
    socket_path: *const c_char,
    monitor: *mut *mut Monitor,
) -> i32 {
    // SAFETY: the caller's.
    let Some(monitor) = (unsafe { monitor.as_mut() }) else { return Status::Argument as i32 };
    *monitor = ptr::null_mut();
    be_quiet();
    let opened = within(Err(Status::Internal), || {
        // SAFETY: the caller's.
        let path = unsafe { options::path(socket_path) }.unwrap_or_else(|| Options::default().socket);
        Monitor::connect(path).map_err(|_| Status::NoDaemon)
    });
    match opened {
        Ok(opened) => {
            *monitor = Box::into_raw(Box::new(opened));
            Status::Ok as i32
        }
        Err(status) => status as i32,
    }
}

/// ttmem.h: ttmem_monitor_close.
///
/// # Safety
/// `monitor` is null or open, and nobody uses it any more.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_monitor_close(monitor: *mut Monitor) {
    if !monitor.is_null() {
        // SAFETY: it came from `Box::into_raw` in ttmem_monitor_open(), and its owner gives it back.
        within((), || drop(unsafe { Box::from_raw(monitor) }));
    }
}

/// ttmem.h: ttmem_monitor_check.
///
/// # Safety
/// `monitor` is null or open.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_monitor_check(monitor: *const Monitor) -> i32 {
    // SAFETY: the caller's.
    let Some(monitor) = (unsafe { monitor.as_ref() }) else { return Status::NoDaemon as i32 };
    let is_connected = || if monitor.is_connected() { Status::Ok } else { Status::NoDaemon };
    within(Status::Internal, is_connected) as i32
}

/// ttmem.h: ttmem_monitor_device.
///
/// # Safety
/// `monitor` is null or open; `memory` is null or can be written to, `memory_bytes` of it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_monitor_device(
    monitor: *const Monitor,
    index: i32,
    memory: *mut DeviceMemory,
    memory_bytes: usize,
) -> i32 {
    // SAFETY: the caller's.
    let Some(monitor) = (unsafe { monitor.as_ref() }) else { return Status::NoDaemon as i32 };
    if memory.is_null() || memory_bytes < size_of::<DeviceMemory>() {
        return Status::Argument as i32;
    }
    let read = || match figures(monitor, index) {
        Ok(figures) => {
            // SAFETY: the caller's. What a later header has behind it is left as it is.
            unsafe { memory.write_unaligned(figures) };
            Status::Ok
        }
        Err(status) => status,
    };
    within(Status::Internal, read) as i32
}

/// A device's figures in the order of the header's numbers.
fn figures(monitor: &Monitor, index: i32) -> Result<DeviceMemory, Status> {
    let device = device(index)?;
    let page = monitor.devices().map_err(|_| Status::NoDaemon)?;
    // A row that stays unfinished is one of a server that was killed while it wrote.
    let told = page.device(device).map_err(|_busy| Status::Timeout)?.ok_or(Status::UnknownDevice)?;
    let ordered = |of_page: [u64; MEMORY_TYPES]| {
        let mut ordered = [0; MEMORY_TYPES];
        for (memory_type, bytes) in ORDER.into_iter().zip(of_page) {
            ordered[number(memory_type) as usize] = bytes;
        }
        ordered
    };
    Ok(DeviceMemory {
        allocated_bytes: ordered(told.usage_bytes),
        peak_bytes: ordered(told.peak_bytes),
        limit_bytes: ordered(told.description.limit_bytes),
    })
}
