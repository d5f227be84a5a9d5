//! Evaluation of a speech model on the first device, which is killed in the middle of its work and frees nothing.

use std::time::Duration;

use ttmem_wire::BufferType;

use super::super::holdings::{Holdings, Memory};
use super::super::random::Random;
use super::{KIB, MIB, Next, Step, Workload};

const DEVICE: u16 = 0;

const TENSORS: u32 = 240;
const TENSORS_PER_LOAD: u32 = 40;
const LOAD_PAUSE: Duration = Duration::from_millis(200);

const CLIP_PAUSE: Duration = Duration::from_millis(400);

/// When the end comes.
const LIFETIME: Duration = Duration::from_secs(20);

pub(in super::super) struct Evaluator {
    random: Random,
    tensors: u32,
    /// What the clip in work needs.
    clip: Vec<u64>,
}

impl Evaluator {
    pub(in super::super) fn new() -> Self {
        Self { random: Random::new(0x3415e), tensors: 0, clip: Vec::new() }
    }

    fn load(&mut self, holdings: &mut Holdings) {
        for _ in 0..TENSORS_PER_LOAD {
            let size_bytes = self.random.between(2400, 4200) * KIB;
            holdings.take(DEVICE, Memory::Buffer(BufferType::Dram), size_bytes);
        }
        self.tensors += TENSORS_PER_LOAD;
    }

    /// Audio features, the decoder's cache and a sharded tensor for the next clip, in place of the last one's.
    fn transcribe(&mut self, holdings: &mut Holdings) {
        for id in self.clip.drain(..) {
            holdings.release(id);
        }
        for (memory, size_bytes) in [
            (BufferType::Dram, self.random.between(8, 16) * MIB),
            (BufferType::Dram, self.random.between(24, 40) * MIB),
            (BufferType::L1, self.random.between(1024, 4096) * KIB),
        ] {
            self.clip.push(holdings.take(DEVICE, Memory::Buffer(memory), size_bytes));
        }
    }
}

impl Workload for Evaluator {
    fn step(&mut self, elapsed: Duration, holdings: &mut Holdings) -> Step {
        if elapsed >= LIFETIME {
            return Step { next: Next::Die, remark: None };
        }
        if self.tensors < TENSORS {
            self.load(holdings);
            return Step::after(LOAD_PAUSE);
        }
        self.transcribe(holdings);
        Step::after(CLIP_PAUSE)
    }
}
