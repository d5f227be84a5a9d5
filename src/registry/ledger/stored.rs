//! One process's ledger to and from what is stored of it.

use std::sync::Arc;

use super::{Batch, Ledger, PROCESS_BUFFERS_MAX};
use crate::registry::buffers::{NewBuffer, Record};
use crate::registry::by_size::Sort;
use crate::registry::image::{BufferImage, CellImage, ImageError, LedgerImage, ShareImage, memory_type_of};
use crate::registry::kernel::KernelKind;
use crate::registry::reporter::Reporter;
use crate::registry::{Counters, DEVICES_MAX, MemoryType, Process, Registry};

impl Ledger {
    /// All that there is.
    pub(in crate::registry) fn image(&self) -> LedgerImage {
        let buffer = |(record, references): (&Record, Vec<(u16, u32)>)| BufferImage {
            id: record.id,
            size_bytes: record.size_bytes,
            allocated_ns: record.allocated_ns,
            references,
        };
        let cells = self.cells.iter().map(|cell| CellImage {
            device: cell.device.index(),
            memory_type: cell.memory_type as u8,
            counters: cell.counters.to_words(),
            buffers: self.buffers.with_references(&cell.buffers).map(buffer).collect(),
        });
        let empty_in_region = self.empty_in_region.iter();
        let empty_in_region = empty_in_region.map(|(device, memory_type)| (*device, *memory_type as u8));
        LedgerImage {
            cells: cells.collect(),
            by_size: self.by_size.image(),
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
                && buffers.iter().all(|buffer| buffer.references.iter().any(|(_, count)| *count > 0));
            if !is_possible {
                return Err(ImageError("a place holds less than its buffers"));
            }
            batch.restore_place(device, memory_type_of(memory_type)?, counters, &buffers)?;
        }
        for ShareImage { device, memory_type, kernel, reporter, blocks, bytes } in stored.by_size {
            check(device)?;
            let kernel = kernel.map(kernel_kind_of).transpose()?;
            let sort = Sort { device, memory_type: memory_type_of(memory_type)?, kernel };
            batch.restore_share(sort, reporter_of(reporter)?, blocks, bytes);
        }
        let empty =
            stored.empty_in_region.into_iter().map(|(device, kind)| Ok((device, memory_type_of(kind)?)));
        batch.restore_rest(empty.collect::<Result<_, _>>()?, stored.has_ended);
        Ok(())
    }
}

impl Batch<'_> {
    /// A place is what a stored one was. Shown at the end of the batch, as of when it was stored.
    fn restore_place(
        &mut self,
        device: u16,
        memory_type: MemoryType,
        counters: Counters,
        stored: &[BufferImage],
    ) -> Result<(), ImageError> {
        let cell = self.cell(device, memory_type);
        let ledger = &mut *self.ledger;
        ledger.touch(cell).counters = counters;
        let restored = &mut ledger.cells[usize::from(cell)];
        restored.crest();
        for BufferImage { id, size_bytes, allocated_ns, references } in stored {
            let references = references.iter().map(|(place, count)| Ok((reporter_of(*place)?, *count)));
            let references: Vec<(Reporter, u32)> = references.collect::<Result<_, ImageError>>()?;
            references.iter().for_each(|(reporter, _)| ledger.reporters.add(*reporter));
            let reporter = references.first().map_or(Reporter::default(), |(reporter, _)| *reporter);
            let (id, size_bytes, allocated_ns) = (*id, *size_bytes, *allocated_ns);
            let buffer = NewBuffer { device, cell, id, size_bytes, allocated_ns, reporter };
            ledger.buffers.restore(&mut restored.buffers, buffer, &references);
        }
        Ok(())
    }

    /// What one client has taken is as it was.
    fn restore_share(&mut self, sort: Sort, reporter: Reporter, blocks: u64, bytes: u64) {
        self.ledger.reporters.add(reporter);
        self.ledger.by_size.restore(sort, reporter, blocks, bytes);
    }

    /// What else there is about a process.
    fn restore_rest(&mut self, empty_in_region: Vec<(u16, MemoryType)>, has_ended: bool) {
        let live = self.ledger.buffers.len();
        self.ledger.room.restore(live);
        self.ledger.empty_in_region = empty_in_region;
        (self.ledger.is_closed, self.ledger.has_ended) = (has_ended, has_ended);
    }
}

fn reporter_of(place: u16) -> Result<Reporter, ImageError> {
    Reporter::stored(place).ok_or(ImageError("a client's place is none"))
}

fn kernel_kind_of(number: u8) -> Result<KernelKind, ImageError> {
    KernelKind::ALL.get(usize::from(number)).copied().ok_or(ImageError("a kernel kind is unknown"))
}

fn check(device: u16) -> Result<(), ImageError> {
    if device < DEVICES_MAX { Ok(()) } else { Err(ImageError("a device's index is too large")) }
}
