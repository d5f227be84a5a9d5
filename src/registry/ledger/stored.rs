//! One process's ledger to and from what is stored of it.

use std::sync::Arc;

use super::{Batch, Ledger, PROCESS_BUFFERS_MAX};
use crate::registry::buffers::{Buffers, List, Record};
use crate::registry::image::{BufferImage, CellImage, ImageError, LedgerImage, memory_type_of};
use crate::registry::kernel::KernelKind;
use crate::registry::{Counters, DEVICES_MAX, KernelTally, MemoryType, Process, Registry};

impl Ledger {
    /// All that there is.
    pub(in crate::registry) fn image(&self) -> LedgerImage {
        let buffer = |record: &Record| BufferImage {
            id: record.id,
            size_bytes: record.size_bytes,
            allocated_ns: record.allocated_ns,
            references: record.references,
        };
        let cells = self.cells.iter().map(|cell| CellImage {
            device: cell.device.index(),
            memory_type: cell.memory_type as u8,
            counters: cell.counters.to_words(),
            buffers: self.buffers.iter(&cell.buffers).map(buffer).collect(),
        });
        let kernels =
            self.kernels().map(|(device, kind, tally)| (device, kind as u8, tally.kernels, tally.bytes));
        let empty_in_region = self.empty_in_region.iter();
        let empty_in_region = empty_in_region.map(|(device, memory_type)| (*device, *memory_type as u8));
        LedgerImage {
            cells: cells.collect(),
            kernels: kernels.collect(),
            empty_in_region: empty_in_region.collect(),
            has_ended: self.has_ended,
        }
    }
}

impl Registry {
    /// Makes a new process's ledger what a stored one was, and shows it.
    pub(in crate::registry) fn restore_ledger(
        &self,
        process: &Arc<Process>,
        stored: LedgerImage,
    ) -> Result<(), ImageError> {
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
            batch.restore_place(
                device,
                memory_type_of(memory_type)?,
                counters,
                |cell, list, table: &mut Buffers| {
                    for buffer in &buffers {
                        table.restore(list, device, cell, buffer);
                    }
                },
            );
        }
        for (device, kind, kernels, bytes) in stored.kernels {
            check(device)?;
            let kind =
                KernelKind::ALL.get(usize::from(kind)).ok_or(ImageError("a kernel kind is unknown"))?;
            batch.restore_kernels(device, *kind, KernelTally { kernels, bytes });
        }
        let empty =
            stored.empty_in_region.into_iter().map(|(device, kind)| Ok((device, memory_type_of(kind)?)));
        batch.restore_rest(empty.collect::<Result<_, _>>()?, stored.has_ended);
        Ok(())
    }
}

impl Batch<'_> {
    /// A place is what a stored one was; `fill` puts its buffers into its list. Shown at the end of the batch, as of when it was stored.
    fn restore_place(
        &mut self,
        device: u16,
        memory_type: MemoryType,
        counters: Counters,
        fill: impl FnOnce(u16, &mut List, &mut Buffers),
    ) {
        let cell = self.cell(device, memory_type);
        let ledger = &mut *self.ledger;
        ledger.touch(cell).counters = counters;
        let restored = &mut ledger.cells[usize::from(cell)];
        restored.crest();
        fill(cell, &mut restored.buffers, &mut ledger.buffers);
    }

    /// Kernels are loaded as they were.
    fn restore_kernels(&mut self, device: u16, kind: KernelKind, tally: KernelTally) {
        *self.kernel_tally(device, kind) = tally;
    }

    /// What else there is about a process.
    fn restore_rest(&mut self, empty_in_region: Vec<(u16, MemoryType)>, has_ended: bool) {
        self.ledger.empty_in_region = empty_in_region;
        self.ledger.has_ended = has_ended;
    }
}

fn check(device: u16) -> Result<(), ImageError> {
    if device < DEVICES_MAX { Ok(()) } else { Err(ImageError("a device's index is too large")) }
}
