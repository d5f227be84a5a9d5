//! A notebook on the last device that forgets one tensor per cell, until the device would be nearly full and it is restarted.

use std::time::Duration;

use ttmem_wire::BufferType;

use super::super::holdings::{Holdings, Memory};
use super::{MIB, Next, Step, Workload, notebook_budget};
use crate::cli::random::Random;

/// What the notebook needs in earnest.
const TENSORS: u64 = 10;
const TENSOR_BYTES: u64 = 15 * MIB;

/// Temporary tensors of a cell.
const TEMPORARIES: u64 = 3;
const TEMPORARY_MIB_MOST: u64 = 16;

const CELL_PAUSE: Duration = Duration::from_secs(1);

/// Cells until the leak has used up what there is for it.
const CELLS: u64 = 660;

pub(in super::super) struct Notebook {
    device: u16,
    random: Random,
    opened: bool,
    temporaries: Vec<u64>,
    /// What may still be forgotten.
    room_bytes: u64,
    /// What one cell forgets, on average.
    leak_bytes: u64,
}

impl Notebook {
    pub(in super::super) fn new(devices: u16) -> Self {
        let needed_bytes = TENSORS * TENSOR_BYTES + TEMPORARIES * TEMPORARY_MIB_MOST * MIB;
        let room_bytes = notebook_budget(devices).dram_bytes - needed_bytes;
        Self {
            device: devices - 1,
            random: Random::new(0x10701),
            opened: false,
            temporaries: Vec::new(),
            room_bytes,
            leak_bytes: room_bytes / CELLS,
        }
    }

    fn take(&self, holdings: &mut Holdings, size_bytes: u64) -> u64 {
        holdings.take(self.device, Memory::Buffer(BufferType::Dram), size_bytes)
    }
}

impl Workload for Notebook {
    fn step(&mut self, _elapsed: Duration, holdings: &mut Holdings) -> Step {
        if !self.opened {
            for _ in 0..TENSORS {
                self.take(holdings, TENSOR_BYTES);
            }
            self.opened = true;
            return Step::after(CELL_PAUSE);
        }
        for id in self.temporaries.drain(..) {
            holdings.release(id);
        }
        let forgotten_bytes = self.leak_bytes * self.random.between(80, 120) / 100;
        let Some(room_bytes) = self.room_bytes.checked_sub(forgotten_bytes) else {
            let remark = format!("would take device {} above 90 % and is restarted", self.device);
            return Step { next: Next::Leave, remark: Some(remark) };
        };
        self.room_bytes = room_bytes;
        self.take(holdings, forgotten_bytes);
        for _ in 0..TEMPORARIES {
            let size_bytes = self.random.between(4, TEMPORARY_MIB_MOST) * MIB;
            self.temporaries.push(self.take(holdings, size_bytes));
        }
        Step::after(CELL_PAUSE)
    }
}
