//! What one worker holds on the devices, and what it has to report about it.

use std::collections::BTreeMap;
use std::mem;

use ttmem_wire::{BufferType, KernelKind};

/// The kinds of device memory that clients tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    Buffer(BufferType),
    CircularBuffer,
    Kernel(KernelKind),
}

/// Something that lies in a device's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) id: u64,
    pub(super) device: u16,
    pub(super) memory: Memory,
    pub(super) size_bytes: u64,
}

/// Something to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Taken(Piece),
    Released(Piece),
    /// It was asked for, and there was no room; its id means nothing.
    Refused(Piece),
}

/// The pieces that a worker holds. Ids look like addresses, and none is used twice.
pub(super) struct Holdings {
    live: BTreeMap<u64, Piece>,
    next_id: u64,
    events: Vec<Event>,
}

/// Where the first piece lies.
const FIRST_ID: u64 = 0x0010_0000;

/// What ids are a multiple of, as addresses are of the allocator's.
const ALIGNMENT_BYTES: u64 = 32;

impl Holdings {
    pub(super) fn new() -> Self {
        Self { live: BTreeMap::new(), next_id: FIRST_ID, events: Vec::new() }
    }

    /// Takes memory; the id to release it by.
    pub(super) fn take(&mut self, device: u16, memory: Memory, size_bytes: u64) -> u64 {
        let id = self.next_id;
        self.next_id += size_bytes.next_multiple_of(ALIGNMENT_BYTES);
        let piece = Piece { id, device, memory, size_bytes };
        self.live.insert(id, piece);
        self.events.push(Event::Taken(piece));
        id
    }

    /// Takes the same on each of the first `devices` devices.
    pub(super) fn take_on_all(&mut self, devices: u16, memory: Memory, size_bytes: u64) -> Vec<u64> {
        (0..devices).map(|device| self.take(device, memory, size_bytes)).collect()
    }

    /// Asks for more than the device has left, which an allocator refuses.
    pub(super) fn ask_too_much(&mut self, device: u16, memory: Memory, size_bytes: u64) {
        self.events.push(Event::Refused(Piece { id: 0, device, memory, size_bytes }));
    }

    /// Releases what was taken; nothing if it already was.
    pub(super) fn release(&mut self, id: u64) {
        self.events.extend(self.live.remove(&id).map(Event::Released));
    }

    pub(super) fn release_all(&mut self) {
        self.events.extend(mem::take(&mut self.live).into_values().map(Event::Released));
    }

    /// What is held, in the order in which it was taken.
    pub(super) fn live(&self) -> impl Iterator<Item = &Piece> {
        self.live.values()
    }

    /// What happened since this was last asked.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }
}
