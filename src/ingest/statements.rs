//! What clients say of devices and of themselves: what an allocator has, and what a client cannot tell.

use tracing::warn;
use ttmem_wire::{BufferTypes, Header, Note};

use super::apply::{device_index, memory_type};
use super::attribution::Attribution;
use super::devices::{Devices, Statement};
use super::throttle::Throttle;
use crate::registry::{Rejection, Time};

/// A CAPACITY: believed as far as it can be true.
pub(super) fn capacity(
    devices: &Devices,
    message: &Header,
    buffer_types: BufferTypes,
) -> Result<(), Rejection> {
    let device = device_index(message.device_id).ok_or(Rejection::DeviceOutOfRange)?;
    let memory_type = memory_type(buffer_types, message.buffer_type)?;
    devices.state_capacity(device, memory_type, Statement::new(message.size_bytes, message.buffer_id)?)
}

/// A NOTE: a line for whoever runs the daemon, as the program itself keeps silent.
pub(super) fn note(throttle: &Throttle, peer: &Attribution, message: &Header, time: Time) {
    let Some(note) = Note::decode(message.buffer_type) else { return };
    let Some(suppressed) = throttle.admit(note.name(), time.monotonic_ns) else { return };
    let missing = match note {
        Note::Allocator => {
            "the allocator's functions: sizes are what buffers ask for, and failures go unnoticed"
        }
        Note::Banks => "the allocator's statistics: neither capacities nor the reasons of failures are told",
        Note::CircularBuffers => "the functions of circular buffers: they are not counted",
        Note::Mesh => "the functions of meshes: what lies on several devices is counted on one",
    };
    warn!(
        pid = peer.peer_pid(),
        process = peer.peer_name(),
        note = note.name(),
        suppressed,
        "a process cannot tell everything: its tt-metal lacks {missing}; run it with a ttnn that its \
         libttmem_preload.so is made for"
    );
}
