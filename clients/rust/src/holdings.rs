//! What this process holds, by its own reports: for its statistics, and to be told to a server that does not know it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ttmem_wire::{BUFFER_BYTES_MAX, BufferType, BufferTypes, FREED_BY_CLOSE, Header, Kind};

mod replay;

/// The kind of memory that a [`Statistic`] is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum MemoryType {
    /// Device DRAM.
    Dram,
    /// The SRAM of the cores.
    L1,
    /// The part of L1 that is set aside for small buffers.
    L1Small,
    /// The part of DRAM that holds recorded traces.
    Trace,
    /// Memory of the host.
    SystemMemory,
    /// Circular buffers in L1.
    CircularBuffer,
    /// Kernel code in L1.
    Kernel,
}

const MEMORY_TYPES: usize = 7;
/// 144-byte frames and rings have tt-metal's numbering.
const NUMBERING: BufferTypes = BufferTypes::Metal;

impl MemoryType {
    /// All of them.
    pub const ALL: [MemoryType; MEMORY_TYPES] = [
        MemoryType::Dram,
        MemoryType::L1,
        MemoryType::L1Small,
        MemoryType::Trace,
        MemoryType::SystemMemory,
        MemoryType::CircularBuffer,
        MemoryType::Kernel,
    ];

    /// Its name, as in the `memory_type` label.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryType::Dram => "dram",
            MemoryType::L1 => "l1",
            MemoryType::L1Small => "l1_small",
            MemoryType::Trace => "trace",
            MemoryType::SystemMemory => "system_memory",
            MemoryType::CircularBuffer => "cb",
            MemoryType::Kernel => "kernel",
        }
    }

    fn of(buffer_type: BufferType) -> MemoryType {
        match buffer_type {
            BufferType::Dram => MemoryType::Dram,
            BufferType::L1 => MemoryType::L1,
            BufferType::L1Small => MemoryType::L1Small,
            BufferType::Trace => MemoryType::Trace,
            BufferType::SystemMemory => MemoryType::SystemMemory,
        }
    }
}

/// Last words that are kept: three hundred devices with all kinds of memory.
const SAID_MAX: usize = 2048;

/// What this process has on one device in one kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistic {
    /// The device's index.
    pub device: i32,
    /// The kind of memory.
    pub memory_type: MemoryType,
    /// What is allocated now.
    pub allocated_bytes: u64,
    /// The most that was allocated at once.
    pub peak_bytes: u64,
    /// How many buffers there are now.
    pub buffers: u64,
    /// The largest buffer that there ever was.
    pub largest_bytes: u64,
}

#[derive(Clone, Copy)]
struct Buffer {
    size_bytes: u64,
    /// As the wire has it.
    buffer_type: u8,
    references: u32,
    /// Whether the server has heard of it, while it is being told what is held.
    is_told: bool,
}

/// Multiplies and folds: ids come from this process itself, so nobody chooses them to collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // The digits of the golden ratio, which spread neighbours far apart.
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_i32(&mut self, word: i32) {
        self.write_u64(u64::from(word.cast_unsigned()));
    }
}

/// Everything that is held.
#[derive(Default)]
pub(crate) struct Holdings {
    buffers: HashMap<(i32, u64), Buffer, BuildHasherDefault<IdHasher>>,
    /// Circular buffers and kernels, which sizes alone tell: by device, message that adds one, and kind of kernel.
    by_size: HashMap<(i32, u8, u8), (u64, u64)>,
    cells: Vec<Statistic>,
    /// The last TRACE_CONTEXT.
    trace: Option<Header>,
    /// What has been said of devices and of this client, as it was said: the last word of each.
    said: Vec<Header>,
    /// Buffers that are still to be told, perhaps with some that are no more.
    untold: Vec<(i32, u64)>,
}

impl Holdings {
    /// Keeps what a report says, by the rules that the server follows.
    pub(crate) fn apply(&mut self, header: &Header) {
        match header.kind {
            Kind::Alloc => self.allocate(header),
            Kind::Free => self.free(header),
            Kind::CbAlloc => self.take(header, Kind::CbAlloc, 0),
            Kind::CbFree => self.give_back(header, Kind::CbAlloc, 0),
            Kind::KernelLoad => self.take(header, Kind::KernelLoad, header.buffer_type),
            Kind::KernelUnload => self.give_back(header, Kind::KernelLoad, header.buffer_type),
            Kind::TraceContext => self.trace = Some(*header),
            Kind::Capacity | Kind::Note => self.say(header),
            _ => {}
        }
    }

    /// What a server is to be told first: whose trace this process belongs to.
    pub(crate) fn trace(&self) -> Option<Header> {
        self.trace
    }

    /// The reports with which everything on a device goes when it is closed.
    pub(crate) fn closing(&self, device: i32) -> Vec<Header> {
        let buffers = self.buffers.iter().filter(|((device_id, _), _)| *device_id == device);
        let frees = buffers.flat_map(|(&(device_id, buffer_id), buffer)| {
            let buffer_type = FREED_BY_CLOSE;
            let free = Header { device_id, buffer_id, buffer_type, ..Header::request(Kind::Free) };
            std::iter::repeat_n(free, buffer.references as usize)
        });
        let by_size = self.by_size.iter().filter(|((device_id, ..), _)| *device_id == device);
        let rests = by_size.map(|(&(device_id, kind, buffer_type), &(size_bytes, _))| {
            let kind = if kind == Kind::CbAlloc as u8 { Kind::CbFree } else { Kind::KernelUnload };
            Header { device_id, buffer_type, size_bytes, ..Header::request(kind) }
        });
        frees.chain(rests).collect()
    }

    /// What is and was held, by device and kind of memory.
    pub(crate) fn statistics(&self) -> Vec<Statistic> {
        let mut statistics = self.cells.clone();
        statistics.sort_by_key(|cell| (cell.device, cell.memory_type));
        statistics
    }

    fn allocate(&mut self, header: &Header) {
        let Header { device_id, buffer_id, size_bytes, buffer_type, .. } = *header;
        let Some(memory_type) = NUMBERING.decode(buffer_type).map(MemoryType::of) else { return };
        if !is_believable(size_bytes) {
            return;
        }
        let mut buffer = Buffer { size_bytes, buffer_type, references: 1, is_told: true };
        if let Some(known) = self.buffers.get_mut(&(device_id, buffer_id)) {
            if (known.size_bytes, known.buffer_type) == (size_bytes, buffer_type) {
                known.references += 1;
                return;
            }
            buffer.is_told = known.is_told;
            let old = std::mem::replace(known, buffer);
            self.shrink(device_id, old);
        } else {
            self.buffers.insert((device_id, buffer_id), buffer);
        }
        self.cell(device_id, memory_type).grow(size_bytes);
    }

    fn free(&mut self, header: &Header) {
        let Some(device_id) = self.device_of(header) else { return };
        let key = (device_id, header.buffer_id);
        let Some(buffer) = self.buffers.get_mut(&key) else { return };
        buffer.references -= 1;
        if buffer.references == 0 {
            let buffer = *buffer;
            self.buffers.remove(&key);
            self.shrink(device_id, buffer);
        }
    }

    /// Which device a free is about: the one that it names, or the only other one that has such a buffer.
    fn device_of(&self, free: &Header) -> Option<i32> {
        let has_it = |device: i32| self.buffers.contains_key(&(device, free.buffer_id));
        if has_it(free.device_id) {
            return Some(free.device_id);
        }
        let mut others = self.cells.iter().map(|cell| cell.device).filter(|device| has_it(*device));
        let found = others.next()?;
        others.all(|other| other == found).then_some(found)
    }

    fn take(&mut self, header: &Header, kind: Kind, which: u8) {
        if !is_believable(header.size_bytes) {
            return;
        }
        let (bytes, blocks) = self.by_size.entry((header.device_id, kind as u8, which)).or_default();
        *bytes += header.size_bytes;
        *blocks += 1;
        self.cell(header.device_id, memory_type_by_size(kind)).grow(header.size_bytes);
    }

    fn give_back(&mut self, header: &Header, kind: Kind, which: u8) {
        let key = (header.device_id, kind as u8, which);
        let Some((bytes, blocks)) = self.by_size.get_mut(&key) else { return };
        let Some(rest) = bytes.checked_sub(header.size_bytes) else { return };
        // Blocks may come back in parts: the last byte ends the last one.
        let ended = if rest == 0 { *blocks } else { u64::from(*blocks > 1) };
        *bytes = rest;
        *blocks -= ended;
        if rest == 0 {
            self.by_size.remove(&key);
        }
        let cell = self.cell(header.device_id, memory_type_by_size(kind));
        cell.allocated_bytes -= header.size_bytes;
        cell.buffers -= ended;
    }

    /// As few as the devices, with two kinds of memory or so: a search is fast enough.
    fn say(&mut self, header: &Header) {
        let subject = |said: &Header| (said.kind, said.device_id, said.buffer_type);
        let known = self.said.iter().position(|said| subject(said) == subject(header));
        match known {
            Some(index) => self.said[index] = *header,
            None if self.said.len() < SAID_MAX => self.said.push(*header),
            None => {}
        }
    }

    fn shrink(&mut self, device: i32, buffer: Buffer) {
        if let Some(memory_type) = NUMBERING.decode(buffer.buffer_type).map(MemoryType::of) {
            let cell = self.cell(device, memory_type);
            cell.allocated_bytes -= buffer.size_bytes;
            cell.buffers -= 1;
        }
    }

    /// Few devices with few kinds each: a search is faster than a table.
    fn cell(&mut self, device: i32, memory_type: MemoryType) -> &mut Statistic {
        let known =
            self.cells.iter().position(|cell| cell.device == device && cell.memory_type == memory_type);
        let index = known.unwrap_or_else(|| {
            self.cells.push(Statistic {
                device,
                memory_type,
                allocated_bytes: 0,
                peak_bytes: 0,
                buffers: 0,
                largest_bytes: 0,
            });
            self.cells.len() - 1
        });
        &mut self.cells[index]
    }
}

impl Statistic {
    fn grow(&mut self, size_bytes: u64) {
        self.allocated_bytes += size_bytes;
        self.buffers += 1;
        self.peak_bytes = self.peak_bytes.max(self.allocated_bytes);
        self.largest_bytes = self.largest_bytes.max(size_bytes);
    }
}

fn memory_type_by_size(kind: Kind) -> MemoryType {
    if kind == Kind::CbAlloc { MemoryType::CircularBuffer } else { MemoryType::Kernel }
}

/// The byte that names a kind of memory in a report.
pub(crate) fn buffer_type_byte(buffer_type: BufferType) -> u8 {
    // This numbering has a byte for each; the protocol's own test holds it to that.
    NUMBERING.encode(buffer_type).unwrap_or(u8::MAX)
}

/// The server refuses other sizes.
fn is_believable(size_bytes: u64) -> bool {
    (1..=BUFFER_BYTES_MAX).contains(&size_bytes)
}

const _: () = assert!(MemoryType::ALL.len() == BufferType::ALL.len() + 2);

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn buffer(kind: Kind, buffer_id: u64, size_bytes: u64, buffer_type: u8) -> Header {
        Header { device_id: 1, buffer_id, size_bytes, buffer_type, ..Header::request(kind) }
    }

    fn check(holdings: &Holdings, memory_type: MemoryType, expected: (u64, u64, u64, u64)) {
        let statistics = holdings.statistics();
        let row = statistics.iter().find(|row| row.memory_type == memory_type).expect("a row");
        let found = (row.allocated_bytes, row.peak_bytes, row.buffers, row.largest_bytes);
        assert_eq!(found, expected, "{memory_type:?}");
    }

    /// Every report from which a server learns what is held.
    fn replay(holdings: &mut Holdings) -> Vec<Header> {
        let mut told: Vec<Header> = holdings.begin_replay().collect();
        while let Some(next) = holdings.replay_next() {
            told.extend(next);
        }
        told
    }

    /// What is held now: each buffer, and what sizes alone tell.
    pub(super) fn everything(holdings: &Holdings) -> impl PartialEq + std::fmt::Debug + use<> {
        let buffers = holdings.buffers.iter();
        let mut buffers: Vec<_> = buffers
            .map(|(key, buffer)| (*key, buffer.size_bytes, buffer.buffer_type, buffer.references))
            .collect();
        buffers.sort_unstable();
        let rows = holdings.statistics().into_iter().filter(|row| row.buffers > 0);
        let rows = rows.map(|row| (row.device, row.memory_type, row.allocated_bytes, row.buffers));
        (buffers, rows.collect::<Vec<_>>(), holdings.by_size.clone())
    }

    /// Whoever hears the replay holds the same, and would replay the same.
    fn check_replay(holdings: &mut Holdings) {
        let mut other = Holdings::default();
        let told = replay(holdings);
        told.iter().for_each(|header| other.apply(header));
        assert_eq!(everything(&other), everything(holdings));
        assert_eq!(replay(&mut other).len(), told.len());
    }

    #[test]
    fn buffers_are_counted_once_however_often_they_are_referenced() {
        let mut holdings = Holdings::default();
        for _ in 0..3 {
            holdings.apply(&buffer(Kind::Alloc, 7, 100, 0));
        }
        holdings.apply(&buffer(Kind::Alloc, 8, 300, 0));
        check(&holdings, MemoryType::Dram, (400, 400, 2, 300));
        assert_eq!(replay(&mut holdings).len(), 4);
        check_replay(&mut holdings);
        for rest in [400, 400, 300, 300] {
            holdings.apply(&buffer(Kind::Free, 7, 0, 0));
            check(&holdings, MemoryType::Dram, (rest, 400, if rest == 400 { 2 } else { 1 }, 300));
        }
    }

    #[test]
    fn an_id_that_comes_again_ends_what_had_it() {
        let mut holdings = Holdings::default();
        holdings.apply(&buffer(Kind::Alloc, 7, 100, 0));
        holdings.apply(&buffer(Kind::Alloc, 7, 50, 1));
        check(&holdings, MemoryType::Dram, (0, 100, 0, 100));
        check(&holdings, MemoryType::L1, (50, 50, 1, 50));
        check_replay(&mut holdings);
    }

    #[test]
    fn what_has_no_identity_is_kept_by_size() {
        let mut holdings = Holdings::default();
        for size_bytes in [10, 20, 31] {
            holdings.apply(&buffer(Kind::CbAlloc, 0, size_bytes, 0));
            holdings.apply(&buffer(Kind::KernelLoad, 0, size_bytes, 2));
        }
        holdings.apply(&buffer(Kind::CbFree, 0, 20, 0));
        check(&holdings, MemoryType::CircularBuffer, (41, 61, 2, 31));
        check(&holdings, MemoryType::Kernel, (61, 61, 3, 31));
        check_replay(&mut holdings);
        holdings.apply(&buffer(Kind::KernelUnload, 0, 61, 1));
        check(&holdings, MemoryType::Kernel, (61, 61, 3, 31));
        holdings.apply(&buffer(Kind::KernelUnload, 0, 61, 2));
        check(&holdings, MemoryType::Kernel, (0, 61, 0, 31));
    }

    #[test]
    fn a_free_that_names_another_device_finds_the_only_one() {
        let mut holdings = Holdings::default();
        let on = |device_id, header| Header { device_id, ..header };
        for (id, device) in [(7, 1), (8, 1), (8, 2), (9, 2)] {
            holdings.apply(&on(device, buffer(Kind::Alloc, id, 100, 0)));
        }
        // Host memory too: the device has two rows.
        holdings.apply(&on(1, buffer(Kind::Alloc, 10, 1, 2)));
        for id in [7, 8, 9, 11] {
            holdings.apply(&on(0, buffer(Kind::Free, id, 0, 0)));
        }
        let held = holdings.statistics().into_iter().map(|row| (row.device, row.allocated_bytes));
        assert_eq!(held.collect::<Vec<_>>(), [(1, 100), (1, 1), (2, 100)], "8 is on two of them");
    }

    #[test]
    fn a_close_ends_everything_on_its_device() {
        let mut holdings = Holdings::default();
        for (kind, id) in [(Kind::Alloc, 1), (Kind::Alloc, 1), (Kind::CbAlloc, 0), (Kind::CbAlloc, 0)] {
            holdings.apply(&buffer(kind, id, 100, 0));
            holdings.apply(&Header { device_id: 2, ..buffer(kind, id, 100, 0) });
        }
        holdings.apply(&buffer(Kind::KernelLoad, 0, 30, 2));
        let closing = holdings.closing(1);
        assert_eq!(closing.len(), 4, "{closing:?}");
        closing.iter().for_each(|header| holdings.apply(header));
        let statistics = holdings.statistics();
        let rests = statistics.iter().map(|row| (row.device, row.allocated_bytes, row.buffers));
        assert_eq!(rests.collect::<Vec<_>>(), [(1, 0, 0), (1, 0, 0), (1, 0, 0), (2, 100, 1), (2, 200, 2)]);
        assert_eq!(holdings.closing(1), []);
    }

    #[test]
    fn the_last_word_about_a_device_is_said_again() {
        let mut holdings = Holdings::default();
        for (size_bytes, buffer_type) in [(100, 0), (200, 1), (300, 0)] {
            holdings.apply(&buffer(Kind::Capacity, 3, size_bytes, buffer_type));
        }
        holdings.apply(&buffer(Kind::Note, 0, 0, 1));
        let told = replay(&mut holdings).into_iter();
        let told: Vec<_> = told.map(|header| (header.kind, header.size_bytes)).collect();
        assert_eq!(told, [(Kind::Capacity, 300), (Kind::Capacity, 200), (Kind::Note, 0)]);
        assert_eq!(holdings.statistics(), [], "nothing is held");
    }

    #[test]
    fn what_the_server_refuses_is_not_kept() {
        let mut holdings = Holdings::default();
        for (size_bytes, buffer_type) in [(0, 0), (BUFFER_BYTES_MAX + 1, 0), (1, 5)] {
            holdings.apply(&buffer(Kind::Alloc, 1, size_bytes, buffer_type));
        }
        holdings.apply(&buffer(Kind::CbAlloc, 1, u64::MAX, 0));
        assert_eq!((holdings.statistics(), replay(&mut holdings)), (Vec::new(), Vec::new()));
    }
}
