//! The reference model: what the daemon has to say after what was reported, written after PROTOCOL.md and as simple as it can be.

use std::collections::BTreeMap;

use ttmem_wire::{BUFFER_BYTES_MAX, DEVICE_ID_MAX, Kind};

use super::report::{CIRCULAR_BUFFER, KERNEL, MEMORY, Report};

/// A device and a type of its memory.
pub(super) type Place = (u16, &'static str);

/// A live buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Buffer {
    pub(super) memory_type: &'static str,
    pub(super) size_bytes: u64,
    pub(super) references: u64,
}

/// What a device has seen in one type of its memory since the daemon's first start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    pub(super) allocations: u64,
    pub(super) frees: u64,
    pub(super) allocated_bytes: u64,
    pub(super) freed_bytes: u64,
    pub(super) orphaned_buffers: u64,
    pub(super) orphaned_bytes: u64,
}

/// Bytes and the number of blocks that they are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) buffers: u64,
}

/// What one live process holds.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) buffers: BTreeMap<(u16, u64), Buffer>,
    /// Circular buffers and kernels, which have no names.
    pub(super) sums: BTreeMap<Place, Usage>,
}

impl Holdings {
    /// By device and memory type.
    pub(super) fn usage(&self) -> BTreeMap<Place, Usage> {
        let mut usage = self.sums.clone();
        for ((device, _), buffer) in &self.buffers {
            let place: &mut Usage = usage.entry((*device, buffer.memory_type)).or_default();
            place.bytes += buffer.size_bytes;
            place.buffers += 1;
        }
        usage
    }
}

/// Everything that has been reported, as it should come out.
#[derive(Default)]
pub(super) struct Model {
    pub(super) processes: BTreeMap<u32, Holdings>,
    pub(super) counts: BTreeMap<Place, Counts>,
    pub(super) rejected: BTreeMap<&'static str, u64>,
    /// Buffers whose id came again with another size or memory.
    pub(super) lost_frees: u64,
}

impl Model {
    /// A process reports.
    pub(super) fn apply(&mut self, pid: u32, report: &Report) {
        if let Err(reason) = self.try_apply(pid, report) {
            self.reject(reason);
        }
    }

    /// Something that is counted as rejected.
    pub(super) fn reject(&mut self, reason: &'static str) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    fn try_apply(&mut self, pid: u32, report: &Report) -> Result<(), &'static str> {
        if report.device > DEVICE_ID_MAX {
            return Err("device_out_of_range");
        }
        let device = u16::try_from(report.device).map_err(|_| "device_out_of_range")?;
        if report.kind != Kind::Free {
            match report.size_bytes {
                0 => return Err("zero_size"),
                size if size > BUFFER_BYTES_MAX => return Err("size_too_large"),
                _ => {}
            }
        }
        match report.kind {
            Kind::Alloc => self.allocate(pid, device, report)?,
            Kind::Free => self.free(pid, device, report.buffer_id)?,
            Kind::CbAlloc => self.take(pid, (device, CIRCULAR_BUFFER), report.size_bytes),
            Kind::KernelLoad => self.take(pid, (device, KERNEL), report.size_bytes),
            Kind::CbFree => self.give_back(pid, (device, CIRCULAR_BUFFER), report.size_bytes)?,
            _ => self.give_back(pid, (device, KERNEL), report.size_bytes)?,
        }
        Ok(())
    }

    fn allocate(&mut self, pid: u32, device: u16, report: &Report) -> Result<(), &'static str> {
        let (_, memory_type) = *MEMORY.get(usize::from(report.memory)).ok_or("buffer_type")?;
        let key = (device, report.buffer_id);
        let held = &mut self.processes.entry(pid).or_default().buffers;
        if let Some(buffer) = held.get_mut(&key) {
            if (buffer.memory_type, buffer.size_bytes) == (memory_type, report.size_bytes) {
                buffer.references += 1;
                return Ok(());
            }
            let old = *buffer;
            self.lost_frees += 1;
            self.count_free((device, old.memory_type), old.size_bytes);
        }
        let buffer = Buffer { memory_type, size_bytes: report.size_bytes, references: 1 };
        self.processes.entry(pid).or_default().buffers.insert(key, buffer);
        self.count_allocation((device, memory_type), report.size_bytes);
        Ok(())
    }

    /// Where the device does not fit, the process's other devices count, if the id is live on one of them alone.
    fn free(&mut self, pid: u32, device: u16, id: u64) -> Result<(), &'static str> {
        let held = &mut self.processes.entry(pid).or_default().buffers;
        let key = if held.contains_key(&(device, id)) {
            (device, id)
        } else {
            let mut elsewhere = held.keys().filter(|(_, other)| *other == id);
            match (elsewhere.next(), elsewhere.next()) {
                (None, _) => return Err("unknown_free"),
                (Some(key), None) => *key,
                _ => return Err("ambiguous_free"),
            }
        };
        let Some(buffer) = held.get_mut(&key) else { return Err("unknown_free") };
        buffer.references -= 1;
        if buffer.references == 0 {
            let buffer = *buffer;
            held.remove(&key);
            self.count_free((key.0, buffer.memory_type), buffer.size_bytes);
        }
        Ok(())
    }

    fn take(&mut self, pid: u32, place: Place, size_bytes: u64) {
        let usage = self.processes.entry(pid).or_default().sums.entry(place).or_default();
        usage.bytes += size_bytes;
        usage.buffers += 1;
        self.count_allocation(place, size_bytes);
    }

    fn give_back(&mut self, pid: u32, place: Place, size_bytes: u64) -> Result<(), &'static str> {
        let usage = self.processes.entry(pid).or_default().sums.entry(place).or_default();
        if usage.bytes < size_bytes {
            return Err("unknown_free");
        }
        usage.bytes -= size_bytes;
        usage.buffers -= 1;
        self.count_free(place, size_bytes);
        Ok(())
    }

    fn count_allocation(&mut self, place: Place, size_bytes: u64) {
        let counts = self.counts.entry(place).or_default();
        counts.allocations += 1;
        counts.allocated_bytes += size_bytes;
    }

    fn count_free(&mut self, place: Place, size_bytes: u64) {
        let counts = self.counts.entry(place).or_default();
        counts.frees += 1;
        counts.freed_bytes += size_bytes;
    }

    /// A process has ended: what it held is reclaimed.
    pub(super) fn end(&mut self, pid: u32) {
        let Some(holdings) = self.processes.remove(&pid) else { return };
        for (place, usage) in holdings.usage() {
            let counts = self.counts.entry(place).or_default();
            counts.frees += usage.buffers;
            counts.freed_bytes += usage.bytes;
            counts.orphaned_buffers += usage.buffers;
            counts.orphaned_bytes += usage.bytes;
        }
    }

    /// A process allocates and frees a buffer, again and again.
    pub(super) fn flood(&mut self, pid: u32, report: &Report, rounds: u64) {
        self.processes.entry(pid).or_default();
        if let Some((_, memory_type)) = MEMORY.get(usize::from(report.memory))
            && let Ok(device) = u16::try_from(report.device)
        {
            let counts = self.counts.entry((device, memory_type)).or_default();
            counts.allocations += rounds;
            counts.frees += rounds;
            counts.allocated_bytes += rounds * report.size_bytes;
            counts.freed_bytes += rounds * report.size_bytes;
        }
    }

    /// What all processes hold.
    pub(super) fn usage(&self) -> BTreeMap<Place, Usage> {
        let mut sum: BTreeMap<Place, Usage> = BTreeMap::new();
        for (place, usage) in self.processes.values().flat_map(Holdings::usage) {
            let place = sum.entry(place).or_default();
            place.bytes += usage.bytes;
            place.buffers += usage.buffers;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: u32 = 42;

    fn alloc(device: i32, buffer_id: u64, size_bytes: u64) -> Report {
        Report { buffer_id, size_bytes, ..Report::about(Kind::Alloc, device) }
    }

    fn free(device: i32, buffer_id: u64) -> Report {
        Report { buffer_id, ..Report::about(Kind::Free, device) }
    }

    /// What is held in DRAM of device 1 after some reports, what was rejected, and what was lost.
    #[track_caller]
    fn check(reports: &[Report], expected: (u64, u64), rejected: &[&str], lost_frees: u64) {
        let mut model = Model::default();
        for report in reports {
            model.apply(PID, report);
        }
        let usage = model.usage().get(&(1, "dram")).copied().unwrap_or_default();
        assert_eq!((usage.bytes, usage.buffers), expected);
        assert_eq!(model.rejected.keys().copied().collect::<Vec<_>>(), rejected);
        assert_eq!(model.lost_frees, lost_frees);
        let counts = model.counts.get(&(1, "dram")).copied().unwrap_or_default();
        assert_eq!(counts.allocated_bytes - counts.freed_bytes, usage.bytes);
        model.end(PID);
        assert!(model.usage().is_empty());
    }

    #[test]
    fn it_does_what_the_protocol_says() {
        check(&[alloc(1, 7, 10)], (10, 1), &[], 0);
        check(&[alloc(1, 7, 10), alloc(1, 7, 10), free(1, 7)], (10, 1), &[], 0);
        check(&[alloc(1, 7, 10), alloc(1, 7, 20)], (20, 1), &[], 1);
        check(&[alloc(1, 7, 10), free(0, 7)], (0, 0), &[], 0);
        check(&[alloc(1, 7, 10), alloc(2, 7, 10), free(0, 7)], (10, 1), &["ambiguous_free"], 0);
        check(&[alloc(1, 7, 10), free(1, 8)], (10, 1), &["unknown_free"], 0);
        check(&[alloc(1, 7, 0), alloc(1024, 7, 1)], (0, 0), &["device_out_of_range", "zero_size"], 0);
    }
}
