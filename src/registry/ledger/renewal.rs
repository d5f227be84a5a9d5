//! Beginning anew: a client that has lost its connection reports once more all that it holds, and what it reported before is forgotten.

use super::super::reporter::Reporters;
use super::super::telling::{End, Release};
use super::{Batch, Ledger, release_of};

impl Batch<'_> {
    /// What the client that speaks holds will be reported once more: ends all that it has reported so far. A buffer that another client of
    /// the process has reported too lives on by that.
    pub fn forget(&mut self) {
        if self.ledger.reporters == Reporters::Only(self.reporter) {
            return self.forget_all();
        }
        for cell in 0..self.ledger.cells.len() {
            let Ledger { buffers, cells, .. } = &mut *self.ledger;
            for slot in buffers.leave(&cells[cell].buffers, self.reporter) {
                self.release(slot, End::Replaced);
            }
        }
        for share in self.ledger.by_size.leave(self.reporter) {
            if let Some(cell) = self.ledger.existing_cell(share.sort.device, share.sort.memory_type) {
                self.shrink(cell, share.bytes, share.blocks);
            }
        }
    }

    /// The same, where nobody else has reported anything: without looking for each buffer.
    fn forget_all(&mut self) {
        let Ledger { buffers, cells, telling, .. } = &mut *self.ledger;
        for (index, cell) in cells.iter().enumerate() {
            let Some(telling) = telling.as_mut() else { break };
            for record in buffers.iter(&cell.buffers) {
                telling.release(index as u16, record.size_bytes, record.allocated_ns, self.now_ns, || {
                    let release = release_of(record, cell.memory_type, self.now_ns);
                    Release { end: End::Replaced, ..release }
                });
            }
        }
        for cell in 0..self.ledger.cells.len() as u16 {
            self.end_reported(cell);
        }
        self.ledger.buffers.clear();
        self.ledger.by_size.clear();
    }
}
