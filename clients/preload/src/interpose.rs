//! The functions that stand in front of tt-metal's own: each calls the real one, and tells what came of it.
//!
//! The idea is that nothing here changes what the program does: arguments and results pass as they are, and so do exceptions, which
//! unwind through these frames; what is reported is reported after the real work.

use std::ffi::c_void;

use crate::books::books;
use crate::metal::{Allocator, Buffer, BufferType, Cores, DRAM, Device, L1, Metal, metal};
use crate::reports;

/// tt-metal's functions are called, so tt-metal is loaded; where it still cannot be found nothing sensible is left to do.
fn loaded_metal() -> &'static Metal {
    metal().unwrap_or_else(|| std::process::abort())
}

/// `AllocatorImpl::allocate_buffer`: gives a buffer its address, or throws if there is no room.
///
/// # Safety
/// As tt-metal calls it; so for every function below.
#[unsafe(export_name = "_ZN2tt8tt_metal13AllocatorImpl15allocate_bufferEPNS0_6BufferE")]
pub(crate) unsafe extern "C-unwind" fn allocate_buffer(allocator: Allocator, buffer: Buffer) -> u64 {
    let metal = loaded_metal();
    let Some(allocate) = metal.allocate else { std::process::abort() };
    let failure = Failure { metal, allocator, buffer };
    // SAFETY: the caller's.
    let address = unsafe { allocate(allocator, buffer) };
    std::mem::forget(failure);
    if metal.has_allocator() {
        // SAFETY: the buffer has just been used.
        unsafe { enter(metal, allocator, buffer) };
    }
    address
}

/// `AllocatorImpl::deallocate_buffer`: takes a buffer back.
#[unsafe(export_name = "_ZN2tt8tt_metal13AllocatorImpl17deallocate_bufferEPNS0_6BufferE")]
pub(crate) unsafe extern "C-unwind" fn deallocate_buffer(allocator: Allocator, buffer: Buffer) {
    let metal = loaded_metal();
    let Some(deallocate) = metal.deallocate else { std::process::abort() };
    // SAFETY: the buffer lives until it is given back.
    let id = unsafe { metal.unique_id(buffer) };
    // SAFETY: the caller's.
    unsafe { deallocate(allocator, buffer) };
    strike(allocator, id);
}

/// `AllocatorImpl::deallocate_buffers`: takes everything back, when a device is closed.
#[unsafe(export_name = "_ZN2tt8tt_metal13AllocatorImpl18deallocate_buffersEv")]
pub(crate) unsafe extern "C-unwind" fn deallocate_buffers(allocator: Allocator) {
    let metal = loaded_metal();
    let Some(deallocate_all) = metal.deallocate_all else { std::process::abort() };
    // SAFETY: the caller's.
    unsafe { deallocate_all(allocator) };
    for (id, devices) in books().strike_all(allocator.addr()) {
        devices.into_iter().for_each(|device| reports::freed_by_close(device, id));
    }
}

/// `GraphTracker::track_allocate`: told about every buffer. Counts only where the allocator's functions are not to be had.
#[unsafe(export_name = "_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE")]
pub(crate) unsafe extern "C-unwind" fn track_allocate(tracker: *mut c_void, buffer: Buffer) {
    let metal = loaded_metal();
    let Some(track) = metal.track_allocate else { std::process::abort() };
    // SAFETY: the caller's.
    unsafe { track(tracker, buffer) };
    // SAFETY: the caller's.
    if !metal.has_allocator() && unsafe { metal.has_memory(buffer) } {
        // SAFETY: the caller's.
        unsafe { enter(metal, std::ptr::null_mut(), buffer) };
    }
}

/// `GraphTracker::track_deallocate`: told about every buffer's end.
#[unsafe(export_name = "_ZN2tt8tt_metal12GraphTracker16track_deallocateEPNS0_6BufferE")]
pub(crate) unsafe extern "C-unwind" fn track_deallocate(tracker: *mut c_void, buffer: Buffer) {
    let metal = loaded_metal();
    let Some(track) = metal.track_deallocate else { std::process::abort() };
    // SAFETY: the buffer lives until it is given back.
    let id = unsafe { metal.unique_id(buffer) };
    // SAFETY: the caller's.
    unsafe { track(tracker, buffer) };
    if !metal.has_allocator() {
        strike(std::ptr::null_mut(), id);
    }
}

/// `GraphTracker::track_allocate_cb`: a program has got a circular buffer on each core of a set.
#[unsafe(export_name = "_ZN2tt8tt_metal12GraphTracker17track_allocate_cbERKNS0_12CoreRangeSetEmmbPKNS0_7IDeviceE")]
pub(crate) unsafe extern "C-unwind" fn track_allocate_cb(
    tracker: *mut c_void,
    cores: Cores,
    address: u64,
    size_bytes: u64,
    is_globally_allocated: bool,
    device: Device,
) {
    let metal = loaded_metal();
    let Some(track) = metal.track_allocate_cb else { std::process::abort() };
    // SAFETY: the caller's.
    unsafe { track(tracker, cores, address, size_bytes, is_globally_allocated, device) };
    // One that lies in a buffer of the allocator's has been told with it.
    if is_globally_allocated {
        return;
    }
    // SAFETY: the caller's.
    let Some(core_count) = (unsafe { metal.core_count(cores) }) else { return };
    let bytes = size_bytes * u64::from(core_count);
    books().enter_circular(device.addr(), bytes);
    // SAFETY: the caller's.
    for chip in unsafe { metal.devices(device) } {
        reports::circular_allocated(chip, bytes);
    }
}

/// `GraphTracker::track_deallocate_cb`: the programs of a device have given all their circular buffers back.
#[unsafe(export_name = "_ZN2tt8tt_metal12GraphTracker19track_deallocate_cbEPKNS0_7IDeviceE")]
pub(crate) unsafe extern "C-unwind" fn track_deallocate_cb(tracker: *mut c_void, device: Device) {
    let metal = loaded_metal();
    let Some(track) = metal.track_deallocate_cb else { std::process::abort() };
    // SAFETY: the caller's.
    unsafe { track(tracker, device) };
    let bytes = books().strike_circular(device.addr());
    if bytes > 0 {
        // SAFETY: the caller's.
        for chip in unsafe { metal.devices(device) } {
            reports::circular_freed(chip, bytes);
        }
    }
}

/// # Safety
/// The buffer lives, and the allocator has just handed it out, or is null.
unsafe fn enter(metal: &Metal, allocator: Allocator, buffer: Buffer) {
    // SAFETY: the caller's.
    let (id, buffer_type, devices) =
        unsafe { (metal.unique_id(buffer), metal.buffer_type(buffer), metal.devices_of(buffer)) };
    // SAFETY: the caller's.
    let bytes = match allocator.is_null() {
        true => unsafe { metal.asked_bytes(buffer) },
        false => unsafe { metal.taken_bytes(allocator, buffer) },
    };
    for device in &devices {
        reports::allocated(*device, buffer_type, id, bytes);
    }
    let opened = books().enter(allocator.addr(), id, devices);
    if let Some(devices) = opened.filter(|_| !allocator.is_null()) {
        for buffer_type in [DRAM, L1] {
            // SAFETY: the caller's; every allocator has these two.
            unsafe { state_capacity(metal, allocator, buffer_type, &devices) };
        }
    }
}

/// # Safety
/// The allocator lives, and has this kind of memory.
unsafe fn state_capacity(metal: &Metal, allocator: Allocator, buffer_type: BufferType, devices: &[i32]) {
    // SAFETY: the caller's.
    let Some((bank, banks)) = (unsafe { metal.bank_statistics(allocator, buffer_type) }) else { return };
    for device in devices {
        reports::capacity(*device, buffer_type, bank.total_bytes, banks);
    }
}

fn strike(allocator: Allocator, id: u64) {
    for device in books().strike(allocator.addr(), id) {
        reports::freed(device, id);
    }
}

/// Dropped only when an allocation is unwound: tells of it with what the allocator itself says.
struct Failure<'a> {
    metal: &'a Metal,
    allocator: Allocator,
    buffer: Buffer,
}

impl Drop for Failure<'_> {
    fn drop(&mut self) {
        let Failure { metal, allocator, buffer } = *self;
        // SAFETY: the buffer's constructor is still under way, and the allocator has only refused.
        let (buffer_type, asked_bytes, devices, told) = unsafe {
            let buffer_type: BufferType = metal.buffer_type(buffer);
            let told = metal.bank_statistics(allocator, buffer_type);
            (buffer_type, metal.asked_bytes(buffer), metal.devices_of(buffer), told)
        };
        let Some((bank, banks)) = told else { return };
        let banks = u64::from(banks);
        for device in devices {
            let (free_bytes, largest_bytes) =
                (bank.free_bytes * banks, bank.largest_free_block_bytes * banks);
            reports::failed(device, buffer_type, asked_bytes, free_bytes, largest_bytes);
        }
    }
}
