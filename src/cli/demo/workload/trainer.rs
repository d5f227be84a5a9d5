//! Training of an image model, with a copy on each device: activations pile up through the forward pass and go through the backward one.

use std::time::Duration;

use ttmem_wire::{BufferType, KernelKind};

use super::super::holdings::{Holdings, Memory};
use super::{KIB, MIB, Step, Workload};
use crate::cli::random::Random;

/// The tensors of the model and the text encoder, and how many are loaded at a time.
const TENSORS: u32 = 684;
const TENSORS_PER_LOAD: u32 = 57;
const LOAD_PAUSE: Duration = Duration::from_millis(120);

/// The passes go block by block.
const BLOCKS: usize = 20;
const BLOCK_PAUSE: Duration = Duration::from_millis(100);

/// After so many steps the weights are saved, which takes no memory but time.
const STEPS_PER_SAVE: u32 = 12;
const SAVE_PAUSE: Duration = Duration::from_secs(4);

const KERNELS: u32 = 24;
const HALOS: u32 = 16;

pub(in super::super) struct Trainer {
    devices: u16,
    random: Random,
    phase: Phase,
    steps: u32,
    /// What the forward pass leaves for the backward pass, by block.
    activations: Vec<Vec<u64>>,
    /// What one block needs while it runs.
    scratch: Vec<u64>,
}

enum Phase {
    Load { tensors: u32 },
    Forward,
    Backward,
}

impl Trainer {
    pub(in super::super) fn new(devices: u16) -> Self {
        Self {
            devices,
            random: Random::new(0x5d7a1),
            phase: Phase::Load { tensors: 0 },
            steps: 0,
            activations: Vec::new(),
            scratch: Vec::new(),
        }
    }

    fn load(&mut self, tensors: u32, holdings: &mut Holdings) -> Step {
        for _ in 0..TENSORS_PER_LOAD {
            let size_bytes = self.random.between(1000, 4600) * KIB;
            holdings.take_on_all(self.devices, Memory::Buffer(BufferType::Dram), size_bytes);
        }
        let tensors = tensors + TENSORS_PER_LOAD;
        if tensors < TENSORS {
            self.phase = Phase::Load { tensors };
        } else {
            self.compile(holdings);
            self.phase = Phase::Forward;
        }
        Step::after(LOAD_PAUSE)
    }

    /// Kernels and halos are made once and stay.
    fn compile(&mut self, holdings: &mut Holdings) {
        for _ in 0..KERNELS {
            let size_bytes = self.random.between(64, 128) * KIB;
            holdings.take_on_all(self.devices, Memory::Kernel(KernelKind::Application), size_bytes);
        }
        for _ in 0..HALOS {
            holdings.take_on_all(self.devices, Memory::Buffer(BufferType::L1Small), 64 * KIB);
        }
    }

    fn forward(&mut self, holdings: &mut Holdings) -> Step {
        let size_bytes = self.random.between(24, 48) * MIB;
        let activation = holdings.take_on_all(self.devices, Memory::Buffer(BufferType::Dram), size_bytes);
        self.activations.push(activation);
        self.run_block(holdings);
        if self.activations.len() == BLOCKS {
            self.phase = Phase::Backward;
        }
        Step::after(BLOCK_PAUSE)
    }

    fn backward(&mut self, holdings: &mut Holdings) -> Step {
        for id in self.activations.pop().into_iter().flatten() {
            holdings.release(id);
        }
        self.run_block(holdings);
        let gradient = holdings.take_on_all(self.devices, Memory::Buffer(BufferType::Dram), 12 * MIB);
        self.scratch.extend(gradient);
        if !self.activations.is_empty() {
            return Step::after(BLOCK_PAUSE);
        }
        self.phase = Phase::Forward;
        self.steps += 1;
        if self.steps.is_multiple_of(STEPS_PER_SAVE) {
            self.release_scratch(holdings);
            return Step::after(SAVE_PAUSE);
        }
        Step::after(BLOCK_PAUSE)
    }

    /// Circular buffers and sharded tensors of one block, in place of the previous block's.
    fn run_block(&mut self, holdings: &mut Holdings) {
        self.release_scratch(holdings);
        let mut scratch = Vec::new();
        for _ in 0..4 {
            let size_bytes = 64 * self.random.between(16, 40) * KIB;
            scratch.extend(holdings.take_on_all(self.devices, Memory::CircularBuffer, size_bytes));
        }
        for _ in 0..2 {
            let size_bytes = self.random.between(1024, 3072) * KIB;
            scratch.extend(holdings.take_on_all(self.devices, Memory::Buffer(BufferType::L1), size_bytes));
        }
        self.scratch = scratch;
    }

    fn release_scratch(&mut self, holdings: &mut Holdings) {
        for id in self.scratch.drain(..) {
            holdings.release(id);
        }
    }
}

impl Workload for Trainer {
    fn step(&mut self, _elapsed: Duration, holdings: &mut Holdings) -> Step {
        match self.phase {
            Phase::Load { tensors } => self.load(tensors, holdings),
            Phase::Forward => self.forward(holdings),
            Phase::Backward => self.backward(holdings),
        }
    }
}
