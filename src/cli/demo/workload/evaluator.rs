//! Evaluation of a speech model on the first device, which asks for too much once, and is killed in the middle of its work.

use std::time::Duration;

use ttmem_wire::BufferType;

use super::super::holdings::{Holdings, Memory};
use super::{DEVICE_DRAM_BYTES, KIB, MIB, Next, Step, Workload};
use crate::cli::random::Random;

const DEVICE: u16 = 0;

const TENSORS: u32 = 240;
const TENSORS_PER_LOAD: u32 = 40;
const LOAD_PAUSE: Duration = Duration::from_millis(200);

const CLIP_PAUSE: Duration = Duration::from_millis(400);

/// All clips at once would be faster, if a device had room for them.
const ALL_CLIPS_BYTES: u64 = 14 * 1024 * MIB;
const ALL_CLIPS_AT: Duration = Duration::from_secs(8);

const _: () = assert!(ALL_CLIPS_BYTES > DEVICE_DRAM_BYTES);

/// When the end comes.
const LIFETIME: Duration = Duration::from_secs(20);

pub(in super::super) struct Evaluator {
    random: Random,
    tensors: u32,
    has_tried_all: bool,
    /// What the clip in work needs.
    clip: Vec<u64>,
}

impl Evaluator {
    pub(in super::super) fn new() -> Self {
        Self { random: Random::new(0x3415e), tensors: 0, has_tried_all: false, clip: Vec::new() }
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
        if elapsed >= ALL_CLIPS_AT && !self.has_tried_all {
            self.has_tried_all = true;
            holdings.ask_too_much(DEVICE, Memory::Buffer(BufferType::Dram), ALL_CLIPS_BYTES);
        }
        self.transcribe(holdings);
        Step::after(CLIP_PAUSE)
    }
}
