//! What two processes report, in any order and whether it makes sense or not, beside a model that remembers every buffer singly.

use std::collections::BTreeMap;
use std::sync::Arc;

use ttmem::registry::{
    BUFFER_BYTES_MAX, Batch, BufferFilter, CELL_BYTES_MAX, Cursor, Identity, KernelKind, MemoryType, Process,
    ProcessInfo, Refusal, Registry, Source, Time,
};

const PROCESSES: usize = 2;
const DEVICES: u16 = 3;
const KINDS: [KernelKind; 3] = [KernelKind::Application, KernelKind::Fabric, KernelKind::Dispatch];
/// Bytes that one step is made of.
const STEP_BYTES: usize = 4;
/// Sizes by their number in a step: what is refused as well.
const SIZES_BYTES: [u64; 8] =
    [0, 1, 32, 4096, 1 << 30, BUFFER_BYTES_MAX - 1, BUFFER_BYTES_MAX, BUFFER_BYTES_MAX + 1];

/// After every step the answer is the model's, and after every eighth one so are the snapshot and the list of buffers.
pub fn ledger(data: &[u8]) {
    let registry = Registry::new(0);
    let processes: [Arc<Process>; PROCESSES] = std::array::from_fn(|index| born(&registry, index as u32 + 1));
    let mut models: [Model; PROCESSES] = Default::default();
    let (steps, _) = data.as_chunks::<STEP_BYTES>();
    for (number, step) in steps.iter().enumerate() {
        let index = usize::from(step[0] >> 7);
        let (process, model) = (&processes[index], &mut models[index]);
        if Step::of(step) == Step::End {
            let held =
                model.cells.values().fold((0, 0), |sum, cell| (sum.0 + cell.buffers, sum.1 + cell.bytes));
            let expected = if model.has_ended { (model.orphaned.0, model.orphaned.1) } else { held };
            let orphaned = registry.end(process, number as u64);
            if !model.has_ended {
                assert_eq!((orphaned.buffers, orphaned.bytes), expected);
            }
            model.end(expected);
        } else {
            let mut batch = registry.batch(process, number as u64);
            assert_eq!(Step::of(step).apply(&mut batch), Step::of(step).expect(model), "step {number}");
        }
        if number % 8 == 7 {
            compare(&registry, &models);
        }
    }
    compare(&registry, &models);
}

fn born(registry: &Registry, pid: u32) -> Arc<Process> {
    let info = ProcessInfo::new("model", 1000, "ml", Source::Socket);
    registry.process(Identity { pid, start_ticks: 1 }, 1, info)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Allocate { device: u16, memory_type: MemoryType, id: u64, size_bytes: u64 },
    Free { device: u16, id: u64 },
    Take { device: u16, size_bytes: u64 },
    GiveBack { device: u16, size_bytes: u64 },
    Load { device: u16, kind: KernelKind, size_bytes: u64 },
    Unload { device: u16, kind: KernelKind, size_bytes: u64 },
    Forget,
    End,
}

impl Step {
    fn of(&[what, place, id, size]: &[u8; STEP_BYTES]) -> Step {
        let device = u16::from(place) % DEVICES;
        let memory_type = [MemoryType::Dram, MemoryType::L1][usize::from(place >> 7)];
        let kind = KINDS[usize::from(place >> 4) % KINDS.len()];
        let size_bytes = SIZES_BYTES[usize::from(size) % SIZES_BYTES.len()];
        let id = u64::from(id);
        match what & 0x7f {
            0..=49 => Step::Allocate { device, memory_type, id, size_bytes },
            50..=89 => Step::Free { device, id },
            90..=99 => Step::Take { device, size_bytes },
            100..=109 => Step::GiveBack { device, size_bytes },
            110..=117 => Step::Load { device, kind, size_bytes },
            118..=124 => Step::Unload { device, kind, size_bytes },
            125 | 126 => Step::Forget,
            _ => Step::End,
        }
    }

    fn apply(self, batch: &mut Batch<'_>) -> Result<(), Refusal> {
        match self {
            Step::Allocate { device, memory_type, id, size_bytes } => {
                batch.allocate(device, memory_type, id, size_bytes).map(|_| ())
            }
            Step::Free { device, id } => batch.free(device, id),
            Step::Take { device, size_bytes } => batch.take(device, MemoryType::Cb, size_bytes),
            Step::GiveBack { device, size_bytes } => batch.give_back(device, MemoryType::Cb, size_bytes),
            Step::Load { device, kind, size_bytes } => batch.load_kernel(device, kind, size_bytes),
            Step::Unload { device, kind, size_bytes } => batch.unload_kernel(device, kind, size_bytes),
            Step::Forget => {
                batch.forget();
                Ok(())
            }
            Step::End => Ok(()),
        }
    }

    fn expect(self, model: &mut Model) -> Result<(), Refusal> {
        match self {
            Step::Allocate { device, memory_type, id, size_bytes } => {
                model.allocate((device, memory_type), id, size_bytes)
            }
            Step::Free { device, id } => model.free(device, id),
            Step::Take { device, size_bytes } => {
                model.take_sort(((device, MemoryType::Cb), None), size_bytes)
            }
            Step::GiveBack { device, size_bytes } => {
                model.give_back(((device, MemoryType::Cb), None), size_bytes)
            }
            Step::Load { device, kind, size_bytes } => {
                model.take_sort(((device, MemoryType::Kernel), Some(kind as u8)), size_bytes)
            }
            Step::Unload { device, kind, size_bytes } => {
                model.give_back(((device, MemoryType::Kernel), Some(kind as u8)), size_bytes)
            }
            Step::Forget => {
                model.forget();
                Ok(())
            }
            Step::End => Ok(()),
        }
    }
}

type Place = (u16, MemoryType);
/// What is accounted by size alone: all circular buffers of a device, or its kernels of one kind.
type Sort = (Place, Option<u8>);

#[derive(Clone, Copy, Default)]
struct Cell {
    bytes: u64,
    buffers: u64,
}

#[derive(Clone, Copy)]
struct Buffer {
    place: Place,
    size_bytes: u64,
    references: u32,
}

/// What one process holds, by every buffer.
#[derive(Default)]
struct Model {
    buffers: BTreeMap<(u16, u64), Buffer>,
    cells: BTreeMap<Place, Cell>,
    sorts: BTreeMap<Sort, Cell>,
    orphaned: (u64, u64),
    has_ended: bool,
}

impl Model {
    fn allocate(&mut self, place: Place, id: u64, size_bytes: u64) -> Result<(), Refusal> {
        self.check_alive()?;
        check_size(size_bytes)?;
        let key = (place.0, id);
        if let Some(known) = self.buffers.get_mut(&key) {
            if (known.place, known.size_bytes) == (place, size_bytes) {
                known.references += 1;
                return Ok(());
            }
            self.release(key);
        }
        self.take(place, size_bytes)?;
        self.buffers.insert(key, Buffer { place, size_bytes, references: 1 });
        Ok(())
    }

    fn free(&mut self, device: u16, id: u64) -> Result<(), Refusal> {
        self.check_alive()?;
        let key = if self.buffers.contains_key(&(device, id)) {
            (device, id)
        } else {
            let mut others = (0..DEVICES).filter(|other| self.buffers.contains_key(&(*other, id)));
            let key = (others.next().ok_or(Refusal::UnknownFree)?, id);
            if others.next().is_some() {
                return Err(Refusal::AmbiguousFree);
            }
            key
        };
        if let Some(buffer) = self.buffers.get_mut(&key) {
            buffer.references -= 1;
            if buffer.references == 0 {
                self.release(key);
            }
        }
        Ok(())
    }

    fn release(&mut self, key: (u16, u64)) {
        if let Some(Buffer { place, size_bytes, .. }) = self.buffers.remove(&key) {
            let cell = self.cells.entry(place).or_default();
            cell.bytes -= size_bytes;
            cell.buffers -= 1;
        }
    }

    fn take(&mut self, place: Place, size_bytes: u64) -> Result<(), Refusal> {
        self.check_alive()?;
        check_size(size_bytes)?;
        let cell = self.cells.entry(place).or_default();
        if cell.bytes + size_bytes > CELL_BYTES_MAX {
            return Err(Refusal::SizeTooLarge);
        }
        cell.bytes += size_bytes;
        cell.buffers += 1;
        Ok(())
    }

    fn take_sort(&mut self, sort: Sort, size_bytes: u64) -> Result<(), Refusal> {
        self.take(sort.0, size_bytes)?;
        let sum = self.sorts.entry(sort).or_default();
        sum.bytes += size_bytes;
        sum.buffers += 1;
        Ok(())
    }

    /// The last byte ends the last block, and what comes before it one each, as long as there are others.
    fn give_back(&mut self, sort: Sort, size_bytes: u64) -> Result<(), Refusal> {
        self.check_alive()?;
        check_size(size_bytes)?;
        let sum = self.sorts.get_mut(&sort).ok_or(Refusal::UnknownFree)?;
        sum.bytes = sum.bytes.checked_sub(size_bytes).ok_or(Refusal::UnknownFree)?;
        let ended = match (sum.bytes, sum.buffers) {
            (0, all) => all,
            (_, 2..) => 1,
            _ => 0,
        };
        sum.buffers -= ended;
        let cell = self.cells.entry(sort.0).or_default();
        cell.bytes -= size_bytes;
        cell.buffers -= ended;
        Ok(())
    }

    fn forget(&mut self) {
        self.buffers.clear();
        self.sorts.clear();
        self.cells.values_mut().for_each(|cell| *cell = Cell::default());
    }

    fn end(&mut self, orphaned: (u64, u64)) {
        self.forget();
        self.orphaned = orphaned;
        self.has_ended = true;
    }

    fn check_alive(&self) -> Result<(), Refusal> {
        if self.has_ended { Err(Refusal::ProcessEnded) } else { Ok(()) }
    }
}

fn check_size(size_bytes: u64) -> Result<(), Refusal> {
    match size_bytes {
        0 => Err(Refusal::ZeroSize),
        1..=BUFFER_BYTES_MAX => Ok(()),
        _ => Err(Refusal::SizeTooLarge),
    }
}

fn compare(registry: &Registry, models: &[Model; PROCESSES]) {
    let snapshot = registry.snapshot(Time { monotonic_ns: u64::from(u32::MAX), unix_ns: 1 << 60 });
    for device in &snapshot.devices {
        for memory in &device.memory {
            let place = (device.index, memory.memory_type);
            let expected: u64 =
                models.iter().filter_map(|model| model.cells.get(&place)).map(|cell| cell.bytes).sum();
            assert_eq!(memory.usage_bytes, expected, "{place:?}");
            assert!(memory.peak_bytes >= memory.usage_bytes);
        }
    }
    for process in &snapshot.processes {
        let model = &models[process.process.pid() as usize - 1];
        for held in &process.memory {
            let cell = model.cells.get(&(held.device, held.memory_type)).copied().unwrap_or_default();
            let counters = held.counters;
            assert_eq!((counters.usage_bytes(), counters.buffers), (cell.bytes, cell.buffers));
            assert_eq!(counters.allocated_bytes - counters.freed_bytes, counters.reported_bytes);
            assert_eq!(counters.allocations - counters.frees, counters.buffers);
        }
    }
    let page = registry.buffers(&BufferFilter::default(), Cursor::default(), usize::MAX, u64::from(u32::MAX));
    assert_eq!(page.buffers.len(), models.iter().map(|model| model.buffers.len()).sum::<usize>());
    for buffer in &page.buffers {
        let model = &models[buffer.process.pid() as usize - 1];
        let known = model.buffers[&(buffer.device, buffer.id)];
        assert_eq!((buffer.size_bytes, buffer.references), (known.size_bytes, known.references));
        assert_eq!((buffer.device, buffer.memory_type), known.place);
    }
}
