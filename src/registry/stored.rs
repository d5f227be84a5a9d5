//! One process's ledger to and from what is stored of it.

use std::sync::Arc;

use super::buffers::{Buffers, Record};
use super::image::{BufferImage, CellImage, ImageError, LedgerImage, memory_type_of};
use super::kernel::KernelKind;
use super::ledger::{Ledger, PROCESS_BUFFERS_MAX};
use super::{Counters, DEVICES_MAX, KernelTally, Process, Registry};

impl Ledger {
    /// All that there is.
    pub(super) fn image(&self) -> LedgerImage {
        let buffer = |record: &Record| BufferImage {
            id: record.id,
            size_bytes: record.size_bytes,
            allocated_ns: record.allocated_ns,
            references: record.references,
        };
        let cells = self.places().map(|(device, memory_type, counters, buffers)| CellImage {
            device,
            memory_type: memory_type as u8,
            counters: counters.to_words(),
            buffers: buffers.map(buffer).collect(),
        });
        let kernels = self.kernels().map(|(device, kind, tally)| (device, kind as u8, tally.kernels, tally.bytes));
        LedgerImage {
            cells: cells.collect(),
            kernels: kernels.collect(),
            empty_in_region: self.empty_in_region().map(|(device, memory_type)| (device, memory_type as u8)).collect(),
            has_ended: self.has_ended(),
        }
    }
}

impl Registry {
    /// Makes a new process's ledger what a stored one was, and shows it.
    pub(super) fn restore_ledger(&self, process: &Arc<Process>, stored: LedgerImage) -> Result<(), ImageError> {
        let mut batch = self.batch(process, 0);
        for CellImage { device, memory_type, counters, buffers } in stored.cells {
            check(device)?;
            let counters = Counters::of_words(&counters)?;
            let live = buffers.iter().map(|buffer| buffer.size_bytes).sum::<u64>();
            let is_possible = buffers.len() <= PROCESS_BUFFERS_MAX
                && live <= counters.reported_bytes
                && buffers.len() as u64 <= counters.buffers
                && buffers.iter().all(|buffer| buffer.references > 0);
            if !is_possible {
                return Err(ImageError("a place holds less than its buffers"));
            }
            batch.restore_place(device, memory_type_of(memory_type)?, counters, |cell, list, table: &mut Buffers| {
                for buffer in &buffers {
                    table.restore(list, device, cell, buffer);
                }
            });
        }
        for (device, kind, kernels, bytes) in stored.kernels {
            check(device)?;
            let kind = KernelKind::ALL.get(usize::from(kind)).ok_or(ImageError("a kernel kind is unknown"))?;
            batch.restore_kernels(device, *kind, KernelTally { kernels, bytes });
        }
        let empty = stored.empty_in_region.into_iter().map(|(device, kind)| Ok((device, memory_type_of(kind)?)));
        batch.restore_rest(empty.collect::<Result<_, _>>()?, stored.has_ended);
        Ok(())
    }
}

fn check(device: u16) -> Result<(), ImageError> {
    if device < DEVICES_MAX { Ok(()) } else { Err(ImageError("a device's index is too large")) }
}
