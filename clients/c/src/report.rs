//! The reports: each looks at its arguments and makes the client's report of the same name.
//!
//! # Safety
//! `client` is, in every function, null or open, as the header asks for.

#![allow(clippy::missing_safety_doc, reason = "it is the same for all of them, and said once")]

use std::ffi::{CStr, c_char};

use ttmem_client::{Client, TraceContext};

use crate::device::device;
use crate::handle::{Handle, with};
use crate::memory::{buffer_type, kernel_kind, size};
use crate::outcome::Status;

/// Makes a report whose arguments are right.
///
/// # Safety
/// `client` is null or open.
#[inline]
unsafe fn report(client: *const Handle, make: impl FnOnce(&Client) -> Result<(), Status>) -> i32 {
    // SAFETY: the caller's.
    unsafe { with(client, |client| make(client).err().unwrap_or(Status::Ok)) }
}

/// ttmem.h: ttmem_allocated.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_allocated(
    client: *const Handle,
    index: i32,
    memory_type: u32,
    buffer_id: u64,
    bytes: u64,
) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.allocated(device(index)?, buffer_type(memory_type)?, buffer_id, size(bytes)?);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_freed.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_freed(client: *const Handle, index: i32, buffer_id: u64) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.freed(device(index)?, buffer_id);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_device_closed.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_device_closed(client: *const Handle, index: i32) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.device_closed(device(index)?);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_circular_buffer_allocated.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_circular_buffer_allocated(
    client: *const Handle,
    index: i32,
    bytes: u64,
) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.circular_buffer_allocated(device(index)?, size(bytes)?);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_circular_buffer_freed.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_circular_buffer_freed(
    client: *const Handle,
    index: i32,
    bytes: u64,
) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.circular_buffer_freed(device(index)?, size(bytes)?);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_kernel_loaded.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_kernel_loaded(
    client: *const Handle,
    index: i32,
    kind: u32,
    bytes: u64,
) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.kernel_loaded(device(index)?, kernel_kind(kind)?, size(bytes)?);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_kernel_unloaded.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_kernel_unloaded(
    client: *const Handle,
    index: i32,
    kind: u32,
    bytes: u64,
) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            client.kernel_unloaded(device(index)?, kernel_kind(kind)?, size(bytes)?);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_allocation_failed.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_allocation_failed(
    client: *const Handle,
    index: i32,
    memory_type: u32,
    requested_bytes: u64,
    free_bytes: u64,
    largest_free_block_bytes: u64,
) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            let (device, memory) = (device(index)?, buffer_type(memory_type)?);
            client.allocation_failed(device, memory, requested_bytes, free_bytes, largest_free_block_bytes);
            Ok(())
        })
    }
}

/// ttmem.h: ttmem_trace_context.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_trace_context(
    client: *const Handle,
    traceparent: *const c_char,
) -> i32 {
    // SAFETY: the caller's: null or a string.
    let text = (!traceparent.is_null()).then(|| unsafe { CStr::from_ptr(traceparent) });
    // SAFETY: the caller's.
    unsafe {
        report(client, |client| {
            let context = text.and_then(|text| text.to_str().ok()).and_then(TraceContext::parse);
            client.trace_context(context.ok_or(Status::Argument)?);
            Ok(())
        })
    }
}
