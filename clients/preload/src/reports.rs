//! What is told to the daemon, in its own terms.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use ttmem_client::{BufferType, Client};
use ttmem_wire::BufferTypes;

use crate::metal::{self, Metal};

/// Starts with the first report: a process that only loads this library gets no thread and no connection. What cannot be told at all is
/// said first, to the daemon and to nobody else.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let client = Client::new();
    metal::metal().into_iter().flat_map(Metal::shortcomings).for_each(|note| client.note(note));
    client
});

/// A buffer was handed out on a chip.
pub(crate) fn allocated(chip: i32, buffer_type: metal::BufferType, id: u64, bytes: u64) {
    if let (Some(chip), Some(buffer_type)) = (device(chip), memory(buffer_type)) {
        quietly(|| CLIENT.allocated(chip, buffer_type, id, bytes));
    }
}

/// A buffer was taken back on a chip.
pub(crate) fn freed(chip: i32, id: u64) {
    if let Some(chip) = device(chip) {
        quietly(|| CLIENT.freed(chip, id));
    }
}

/// A buffer went with its chip, which was closed.
pub(crate) fn freed_by_close(chip: i32, id: u64) {
    if let Some(chip) = device(chip) {
        quietly(|| CLIENT.freed_by_close(chip, id));
    }
}

/// What an allocator has of a kind of memory on a chip, empty or not.
pub(crate) fn capacity(chip: i32, buffer_type: metal::BufferType, bank_bytes: u64, banks: u32) {
    if let (Some(chip), Some(buffer_type)) = (device(chip), memory(buffer_type)) {
        quietly(|| CLIENT.capacity(chip, buffer_type, bank_bytes * u64::from(banks), banks));
    }
}

/// The programs of a chip have got circular buffers.
pub(crate) fn circular_allocated(chip: i32, bytes: u64) {
    if let Some(chip) = device(chip) {
        quietly(|| CLIENT.circular_buffer_allocated(chip, bytes));
    }
}

/// They have given circular buffers back.
pub(crate) fn circular_freed(chip: i32, bytes: u64) {
    if let Some(chip) = device(chip) {
        quietly(|| CLIENT.circular_buffer_freed(chip, bytes));
    }
}

/// The allocator of a chip had no room: what was asked for, and what it had.
pub(crate) fn failed(
    chip: i32,
    buffer_type: metal::BufferType,
    asked_bytes: u64,
    free_bytes: u64,
    largest_bytes: u64,
) {
    if let (Some(chip), Some(buffer_type)) = (device(chip), memory(buffer_type)) {
        quietly(|| CLIENT.allocation_failed(chip, buffer_type, asked_bytes, free_bytes, largest_bytes));
    }
}

fn device(chip: i32) -> Option<u16> {
    u16::try_from(chip).ok()
}

fn memory(buffer_type: metal::BufferType) -> Option<BufferType> {
    BufferTypes::Metal.decode(u8::try_from(buffer_type).ok()?)
}

/// A mistake of ours must not become an exception in somebody else's program.
fn quietly(report: impl FnOnce()) {
    // What a panic leaves behind is lost with the report.
    let _ = catch_unwind(AssertUnwindSafe(report));
}
