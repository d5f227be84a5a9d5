//! Which memory a report is about, and how much: the numbers of ttmem.h and what they mean.

use ttmem_client::{BufferType, KernelKind, MemoryType};
use ttmem_wire::{BUFFER_BYTES_MAX, BufferTypes};

use crate::outcome::Status;

/// The kind of memory that a buffer is in: tt-metal's own numbers.
#[inline]
pub(crate) fn buffer_type(number: u32) -> Result<BufferType, Status> {
    let byte = u8::try_from(number).ok();
    byte.and_then(|byte| BufferTypes::Metal.decode(byte)).ok_or(Status::MemoryType)
}

/// The number of a kind of memory, buffers' kinds first.
pub(crate) fn number(memory_type: MemoryType) -> u32 {
    match memory_type {
        MemoryType::Dram => 0,
        MemoryType::L1 => 1,
        MemoryType::SystemMemory => 2,
        MemoryType::L1Small => 3,
        MemoryType::Trace => 4,
        MemoryType::CircularBuffer => 5,
        MemoryType::Kernel => 6,
    }
}

#[inline]
pub(crate) fn kernel_kind(number: u32) -> Result<KernelKind, Status> {
    u8::try_from(number).ok().and_then(KernelKind::decode).ok_or(Status::KernelKind)
}

/// A size that the server would take.
#[inline]
pub(crate) fn size(bytes: u64) -> Result<u64, Status> {
    if (1..=BUFFER_BYTES_MAX).contains(&bytes) { Ok(bytes) } else { Err(Status::Size) }
}
