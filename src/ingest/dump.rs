//! What DUMP_REMAINING and DUMP_KERNELS ask for: what is held, written to the log.

use tracing::info;

use super::Context;
use crate::registry::{BufferFilter, Cursor, Time};

/// Buffers that one dump lists singly; the sums beside them cover all.
const DUMP_BUFFERS_MAX: usize = 1000;
/// Sums that one dump lists.
const DUMP_SUMS_MAX: usize = 1000;

/// The live buffers, by process, device and memory type, and some of them one by one.
pub(super) fn buffers(context: &Context, requested_by: u32, time: Time) {
    let Some(suppressed) = context.throttle.admit("dump", time.monotonic_ns) else { return };
    let snapshot = context.registry.snapshot(time);
    let held =
        snapshot.processes.iter().flat_map(|process| process.memory.iter().map(move |held| (process, held)));
    let held: Vec<_> = held.filter(|(_, held)| held.counters.usage_bytes() > 0).collect();
    for (process, held) in held.iter().take(DUMP_SUMS_MAX) {
        let (pid, name) = (process.process.pid(), process.process.info().name.as_str());
        let (memory_type, usage_bytes) = (held.memory_type.name(), held.counters.usage_bytes());
        let buffers = held.counters.buffers;
        info!(
            pid,
            process = name,
            device = held.device,
            memory_type,
            usage_bytes,
            buffers,
            "remaining memory"
        );
    }
    let (filter, start) = (BufferFilter::default(), Cursor::default());
    let page = context.registry.buffers(&filter, start, DUMP_BUFFERS_MAX, time.monotonic_ns);
    for buffer in &page.buffers {
        let (pid, memory_type) = (buffer.process.pid(), buffer.memory_type.name());
        let age_seconds = time.seconds_since(buffer.allocated_ns);
        let (buffer_id, size_bytes) = (buffer.id, buffer.size_bytes);
        info!(
            pid,
            device = buffer.device,
            memory_type,
            buffer_id,
            size_bytes,
            age_seconds,
            "remaining buffer"
        );
    }
    let is_complete = held.len() <= DUMP_SUMS_MAX && page.next.is_none();
    info!(requested_by, is_complete, suppressed, "end of the dump; /api/v1/buffers lists all");
}

/// The kernels that are loaded.
pub(super) fn kernels(context: &Context, requested_by: u32, time: Time) {
    let Some(suppressed) = context.throttle.admit("dump_kernels", time.monotonic_ns) else { return };
    let mut room = DUMP_SUMS_MAX;
    for process in context.registry.snapshot(time).processes {
        let (pid, name) = (process.process.pid(), process.process.info().name.as_str());
        for (device, kind, tally) in process.process.kernels().into_iter().take(room) {
            let (kernels, bytes) = (tally.kernels, tally.bytes);
            info!(pid, process = name, device, kind = kind.name(), kernels, bytes, "remaining kernels");
            room -= 1;
        }
    }
    info!(requested_by, is_complete = room > 0, suppressed, "end of the dump of kernels");
}
