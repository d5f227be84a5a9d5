//! Single buffers, a page at a time. A process's ledger is held for a bounded number of records, so no report waits longer than that.

use std::sync::Arc;

use super::{MemoryType, Process, Registry};

/// Records looked at while a ledger is held: about ten microseconds.
const RECORDS_PER_HOLD: u32 = 4096;

/// Which buffers are wanted; `None` means any.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct BufferFilter {
    /// On this device.
    pub device: Option<u16>,
    /// Of the process with this pid.
    pub pid: Option<u32>,
    /// In this memory type.
    pub memory_type: Option<MemoryType>,
    /// At least this old, in nanoseconds.
    pub min_age_ns: Option<u64>,
}

/// Where a page goes on. It stays valid while buffers and processes come and go: what lives through the whole listing is listed once.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The process's place in the order of first reports.
    pub process: u64,
    /// The slot in that process's table.
    pub slot: u32,
}

/// One live buffer.
#[derive(Clone, Debug)]
pub struct BufferSnapshot {
    /// Who holds it.
    pub process: Arc<Process>,
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// The id the process gave it: an address or a counter.
    pub id: u64,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// How many allocations without a free there were.
    pub references: u32,
    /// When it was allocated, in monotonic nanoseconds.
    pub allocated_ns: u64,
}

/// Some live buffers.
#[derive(Clone, Debug)]
pub struct BufferPage {
    /// The buffers.
    pub buffers: Vec<BufferSnapshot>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

impl Registry {
    /// Live buffers that pass the filter, `limit` at most, from a cursor on.
    pub fn buffers(
        &self,
        filter: &BufferFilter,
        mut cursor: Cursor,
        limit: usize,
        now_ns: u64,
    ) -> BufferPage {
        let world = self.world();
        let mut buffers = Vec::new();
        for process in world.processes.since(cursor.process) {
            if process.serial() != cursor.process {
                cursor = Cursor { process: process.serial(), slot: 0 };
            }
            if filter.pid.is_some_and(|pid| pid != process.pid()) {
                continue;
            }
            loop {
                let wanted = limit - buffers.len();
                match hold(process, filter, cursor.slot, wanted, now_ns, &mut buffers) {
                    Some(slot) if buffers.len() == limit => {
                        return BufferPage { buffers, next: Some(Cursor { slot, ..cursor }) };
                    }
                    Some(slot) => cursor.slot = slot,
                    None => break,
                }
            }
        }
        BufferPage { buffers, next: None }
    }
}

/// Looks at a bounded number of a process's records; gives the slot to go on from, or `None` at the end.
fn hold(
    process: &Arc<Process>,
    filter: &BufferFilter,
    first_slot: u32,
    wanted: usize,
    now_ns: u64,
    buffers: &mut Vec<BufferSnapshot>,
) -> Option<u32> {
    let ledger = process.ledger();
    let slots = ledger.slots();
    let end = slots.min(first_slot.saturating_add(RECORDS_PER_HOLD));
    let mut found = 0;
    for (slot, memory_type, record) in ledger.live(first_slot..end) {
        if found == wanted {
            return Some(slot);
        }
        let passes = filter.device.is_none_or(|device| device == record.device)
            && filter.memory_type.is_none_or(|wanted| wanted == memory_type)
            && filter.min_age_ns.is_none_or(|age| now_ns.saturating_sub(record.allocated_ns) >= age);
        if passes {
            found += 1;
            buffers.push(BufferSnapshot {
                process: Arc::clone(process),
                device: record.device,
                memory_type,
                id: record.id,
                size_bytes: record.size_bytes,
                references: ledger.references(slot),
                allocated_ns: record.allocated_ns,
            });
        }
    }
    (end < slots).then_some(end)
}
