//! A language model of 8 billion parameters, spread over all devices, loaded in one burst and then served to a load that comes and goes.

use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::time::Duration;

use ttmem_wire::{BufferType, KernelKind};

use super::super::holdings::{Holdings, Memory};
use super::{KIB, MIB, Step, Workload};
use crate::cli::random::Random;

const LAYERS: u32 = 32;
const LAYER_PAUSE: Duration = Duration::from_millis(45);
const SERVE_PAUSE: Duration = Duration::from_millis(100);

/// One device's half of a layer in 8-bit blocks: the matrix's bytes and the pieces in which it is loaded.
const MATRICES: [(u64, u32); 7] = [
    (8_912_896, 4),  // query
    (2_228_224, 4),  // key
    (2_228_224, 4),  // value
    (8_912_896, 4),  // output
    (31_195_136, 8), // gate
    (31_195_136, 8), // up
    (31_195_136, 8), // down
];
const NORMS: u32 = 2;
const NORM_BYTES: u64 = 256 * KIB;

/// The token embedding and the head of the model, each in pieces.
const EMBEDDING_BYTES: u64 = 525_336_576;
const HEAD_BYTES: u64 = 279_085_056;
const VOCABULARY_PIECES: u32 = 16;

/// A recorded trace for each of the common batch sizes.
const TRACES: u32 = 3;
const TRACE_BYTES: u64 = 9 * MIB;

/// Lookup tables and semaphores, which stay in L1.
const TABLES: u32 = 24;
const TABLE_BYTES: u64 = 96 * KIB;
const HALOS: u32 = 16;
const HALO_BYTES: u64 = 32 * KIB;

/// The cache of keys and values for 64 tokens.
const PAGE: Memory = Memory::Buffer(BufferType::Dram);
const PAGE_BYTES: u64 = 2 * MIB;
const PAGES_MAX: usize = 448;

/// The load swings between these numbers of requests once in this time.
const REQUESTS_LEAST: f64 = 2.0;
const REQUESTS_MOST: f64 = 16.0;
const WAVE_SECONDS: f64 = 75.0;

/// Steps between two pages of a request.
const PAGE_STEPS: u64 = 8;

/// Programs that stay compiled; beyond that the oldest is unloaded.
const PROGRAMS_MAX: usize = 3;
const PROGRAM_KERNELS: u64 = 5;

pub(in super::super) struct ModelServer {
    devices: u16,
    random: Random,
    layers: u32,
    requests: Vec<Request>,
    /// What one step needs: activations and circular buffers, released in the next.
    scratch: Vec<u64>,
    /// The compiled programs by batch size, the oldest first.
    programs: VecDeque<(u64, Vec<u64>)>,
}

struct Request {
    pages: Vec<u64>,
    steps_left: u64,
}

impl ModelServer {
    pub(in super::super) fn new(devices: u16) -> Self {
        Self {
            devices,
            random: Random::new(0x11a3a),
            layers: 0,
            requests: Vec::new(),
            scratch: Vec::new(),
            programs: VecDeque::new(),
        }
    }

    /// What opening a device loads before any program runs.
    fn open_devices(&self, holdings: &mut Holdings) {
        for (kind, size_bytes) in [
            (KernelKind::Dispatch, 420 * KIB),
            (KernelKind::Dispatch, 380 * KIB),
            (KernelKind::Fabric, 290 * KIB),
        ] {
            holdings.take_on_all(self.devices, Memory::Kernel(kind), size_bytes);
        }
    }

    fn load_layer(&self, holdings: &mut Holdings) {
        for (matrix_bytes, pieces) in MATRICES {
            self.load(holdings, BufferType::Dram, pieces, matrix_bytes / u64::from(pieces));
        }
        self.load(holdings, BufferType::Dram, NORMS, NORM_BYTES);
    }

    /// What comes after the layers.
    fn load_rest(&self, holdings: &mut Holdings) {
        for bytes in [EMBEDDING_BYTES, HEAD_BYTES] {
            self.load(holdings, BufferType::Dram, VOCABULARY_PIECES, bytes / u64::from(VOCABULARY_PIECES));
        }
        self.load(holdings, BufferType::L1, TABLES, TABLE_BYTES);
        self.load(holdings, BufferType::L1Small, HALOS, HALO_BYTES);
        self.load(holdings, BufferType::Trace, TRACES, TRACE_BYTES);
    }

    fn load(&self, holdings: &mut Holdings, memory: BufferType, pieces: u32, piece_bytes: u64) {
        for _ in 0..pieces {
            holdings.take_on_all(self.devices, Memory::Buffer(memory), piece_bytes);
        }
    }

    /// One step of decoding for all requests.
    fn serve(&mut self, elapsed: Duration, holdings: &mut Holdings) {
        for id in self.scratch.drain(..) {
            holdings.release(id);
        }
        self.finish_requests(holdings);
        self.grow_requests(holdings);
        let wave = 0.5 - 0.5 * (TAU * elapsed.as_secs_f64() / WAVE_SECONDS).cos();
        let wanted = REQUESTS_LEAST + (REQUESTS_MOST - REQUESTS_LEAST) * wave;
        if (self.requests.len() as f64) < wanted {
            self.admit(holdings);
        }
        let batch = self.requests.len().next_power_of_two() as u64;
        self.compile(batch, holdings);
        self.compute(batch, holdings);
    }

    fn finish_requests(&mut self, holdings: &mut Holdings) {
        self.requests.retain_mut(|request| {
            request.steps_left -= 1;
            if request.steps_left == 0 {
                request.pages.iter().for_each(|page| holdings.release(*page));
            }
            request.steps_left > 0
        });
    }

    fn grow_requests(&mut self, holdings: &mut Holdings) {
        let mut room = PAGES_MAX.saturating_sub(self.pages());
        let devices = self.devices;
        for request in &mut self.requests {
            if room > 0 && request.steps_left.is_multiple_of(PAGE_STEPS) {
                request.pages.extend(holdings.take_on_all(devices, PAGE, PAGE_BYTES));
                room -= 1;
            }
        }
    }

    /// A prompt takes its pages at once.
    fn admit(&mut self, holdings: &mut Holdings) {
        let prompt_pages = self.random.between(4, 24) as usize;
        if self.pages() + prompt_pages > PAGES_MAX {
            return;
        }
        let pages =
            (0..prompt_pages).flat_map(|_| holdings.take_on_all(self.devices, PAGE, PAGE_BYTES)).collect();
        self.requests.push(Request { pages, steps_left: self.random.between(40, 300) });
    }

    /// Pages in use on each device.
    fn pages(&self) -> usize {
        let pages: usize = self.requests.iter().map(|request| request.pages.len()).sum();
        pages / usize::from(self.devices)
    }

    /// Loads the kernels of a batch size that was not met lately.
    fn compile(&mut self, batch: u64, holdings: &mut Holdings) {
        if self.programs.iter().any(|(compiled, _)| *compiled == batch) {
            return;
        }
        if self.programs.len() == PROGRAMS_MAX
            && let Some((_, kernels)) = self.programs.pop_front()
        {
            kernels.into_iter().for_each(|kernel| holdings.release(kernel));
        }
        let kernels = (0..PROGRAM_KERNELS)
            .flat_map(|number| {
                let size_bytes = 120 * KIB + (number + batch) * 6 * KIB;
                holdings.take_on_all(self.devices, Memory::Kernel(KernelKind::Application), size_bytes)
            })
            .collect();
        self.programs.push_back((batch, kernels));
    }

    /// Activations and circular buffers, larger with the batch.
    fn compute(&mut self, batch: u64, holdings: &mut Holdings) {
        let mut scratch =
            holdings.take_on_all(self.devices, Memory::Buffer(BufferType::Dram), batch * 2 * MIB);
        for _ in 0..2 {
            let size_bytes = batch * self.random.between(96, 192) * KIB;
            scratch.extend(holdings.take_on_all(self.devices, Memory::Buffer(BufferType::L1), size_bytes));
        }
        for _ in 0..6 {
            let size_bytes = 64 * self.random.between(4, 8) * KIB + batch * 64 * KIB;
            scratch.extend(holdings.take_on_all(self.devices, Memory::CircularBuffer, size_bytes));
        }
        self.scratch = scratch;
    }
}

impl Workload for ModelServer {
    fn step(&mut self, elapsed: Duration, holdings: &mut Holdings) -> Step {
        if self.layers == LAYERS {
            self.serve(elapsed, holdings);
            return Step::after(SERVE_PAUSE);
        }
        if self.layers == 0 {
            self.open_devices(holdings);
        }
        self.load_layer(holdings);
        self.layers += 1;
        let mut step = Step::after(LAYER_PAUSE);
        if self.layers == LAYERS {
            self.load_rest(holdings);
            let (buffers, bytes) = holdings
                .live()
                .filter(|piece| piece.memory == Memory::Buffer(BufferType::Dram))
                .fold((0_u32, 0), |(buffers, bytes), piece| (buffers + 1, bytes + piece.size_bytes));
            step.remark = Some(format!(
                "has loaded its model: {buffers} buffers, {:.1} GB on each device, {:.1} s",
                bytes as f64 / 1e9 / f64::from(self.devices),
                elapsed.as_secs_f64()
            ));
        }
        step
    }
}
