//! What one process holds: its buffers and its counters, changed in batches by whoever holds the ledger's lock.
//!
//! The idea is to work on plain numbers while the lock is held and to publish at the end of a batch: once per cell and batch to the
//! readers' [`Cell`], once to the device's atomics. Publishing a whole batch as one step keeps the device's peak exact, because the
//! highest point inside the batch is published with it.

mod stored;

use std::ops::Range;
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::buffers::{Buffers, List, NewBuffer, Record};
use super::by_size::{BySize, Sort};
use super::device::{Device, DeviceMemory};
use super::feed::{AllocationFailure, Ending, Occurrence};
use super::histogram::{Observations, Scale};
use super::process::TraceContext;
use super::reporter::{Reporter, Reporters};
use super::room::Room;
use super::telling::{End, Release, Telling};
use super::{Cell, Counters, KernelKind, KernelTally, MemoryType, Moment, Orphaned, Process, Registry};

mod renewal;

/// The largest buffer that is believed: a tebibyte is more than any card or host of this field has.
pub const BUFFER_BYTES_MAX: u64 = 1 << 40;
/// The most that one process can hold on one device in one memory type, so that no sum over processes can leave 64 bits.
pub const CELL_BYTES_MAX: u64 = 1 << 48;
/// Live buffers of one process: a bound on what a peer can make the daemon remember (less than a gigabyte), far above any model.
pub const PROCESS_BUFFERS_MAX: usize = 1 << 24;

const NO_CELL: u16 = u16::MAX;

/// Why the registry did not do what a message asked. The peer is at fault, or an earlier message of it was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The size is 0.
    ZeroSize,
    /// The size, or the sum that it would lead to, is more than any machine has.
    SizeTooLarge,
    /// The release names a buffer that is not known: allocated before tracking began, released twice, or larger than what is held.
    UnknownFree,
    /// The release names no known device, and its buffer id is in use on several.
    AmbiguousFree,
    /// The process has ended and its memory has been reclaimed.
    ProcessEnded,
    /// The process has as many live buffers as one process may have.
    TooManyBuffers,
    /// The processes of its user have as many live buffers as those of one user may have together.
    UserBuffersMax,
    /// All processes together have as many live buffers as there may be.
    BuffersMax,
    /// Spans of the process are already in another trace.
    OtherTrace,
}

/// What an allocation report came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocated {
    /// A buffer that was not there.
    New,
    /// One more reference to a buffer that counts once.
    Referenced,
    /// The id was in use with another size or memory type: its free must have been lost, and the old buffer has been ended.
    Replaced,
}

/// One cell while the ledger is held.
struct LedgerCell {
    device: Arc<Device>,
    memory_type: MemoryType,
    counters: Counters,
    buffers: List,
    published_usage_bytes: u64,
    /// The highest usage since the last publication.
    crest_bytes: u64,
    is_dirty: bool,
    readers: Arc<Cell>,
}

impl LedgerCell {
    fn memory(&self) -> DeviceMemory<'_> {
        self.device.memory(self.memory_type)
    }

    /// Notes the usage after a change.
    fn crest(&mut self) {
        let usage = self.counters.usage_bytes();
        self.crest_bytes = self.crest_bytes.max(usage);
        self.counters.peak_bytes = self.counters.peak_bytes.max(usage);
    }

    fn publish(&mut self, oldest_ns: Option<u64>, now_ns: u64, has_ended: bool) {
        self.counters.oldest_ns_plus_one = oldest_ns.map_or(0, |ns| ns.saturating_add(1));
        self.counters.hold(self.published_usage_bytes, now_ns);
        let usage = self.counters.usage_bytes();
        self.memory().shift(self.published_usage_bytes, self.crest_bytes, usage);
        self.published_usage_bytes = usage;
        self.crest_bytes = usage;
        self.is_dirty = false;
        self.readers.publish(&self.counters);
        if has_ended {
            self.readers.end();
        }
    }
}

/// Observations about one cell that its device does not know yet. A run of messages is mostly about one cell, so one is enough.
struct Noted {
    cell: u16,
    sizes: Observations,
    lifetimes: Observations,
}

impl Default for Noted {
    fn default() -> Self {
        let (sizes, lifetimes) = (Observations::new(Scale::Bytes), Observations::new(Scale::Seconds));
        Self { cell: 0, sizes, lifetimes }
    }
}

/// The mutable state of one process.
pub(super) struct Ledger {
    buffers: Buffers,
    room: Room,
    cells: Vec<LedgerCell>,
    /// The cell of each memory type, by device index.
    cell_by_device: Vec<[u16; MemoryType::COUNT]>,
    /// What is accounted by size alone.
    by_size: BySize,
    reporters: Reporters,
    dirty: Vec<u16>,
    noted: Noted,
    /// Where a region says 0 and nothing has been reported: no cell is made for it until there is something to compare.
    empty_in_region: Vec<(u16, MemoryType)>,
    /// What is worth telling; `None` where nobody listens.
    telling: Option<Box<Telling>>,
    /// No more is taken: its process is gone, whether what it held has been reclaimed yet or not.
    is_closed: bool,
    has_ended: bool,
}

impl Ledger {
    pub(super) fn new(telling: Option<Telling>, room: Room) -> Self {
        Self {
            buffers: Buffers::default(),
            room,
            cells: Vec::new(),
            cell_by_device: Vec::new(),
            by_size: BySize::default(),
            reporters: Reporters::default(),
            dirty: Vec::new(),
            noted: Noted::default(),
            empty_in_region: Vec::new(),
            telling: telling.map(Box::new),
            is_closed: false,
            has_ended: false,
        }
    }

    fn existing_cell(&self, device: u16, memory_type: MemoryType) -> Option<u16> {
        let cell = self.cell_by_device.get(usize::from(device))?[memory_type.index()];
        (cell != NO_CELL).then_some(cell)
    }

    fn touch(&mut self, cell: u16) -> &mut LedgerCell {
        let touched = &mut self.cells[usize::from(cell)];
        if !touched.is_dirty {
            touched.is_dirty = true;
            self.dirty.push(cell);
        }
        touched
    }

    /// Where observations about a cell are noted.
    fn noted(&mut self, cell: u16) -> &mut Noted {
        if self.noted.cell != cell {
            self.observe();
            self.noted.cell = cell;
        }
        &mut self.noted
    }

    /// Tells the device what has been noted.
    fn observe(&mut self) {
        let Noted { cell, sizes, lifetimes } = &mut self.noted;
        if let Some(cell) = self.cells.get(usize::from(*cell)) {
            cell.memory().observe(sizes, lifetimes);
        }
    }

    fn publish(&mut self, now_ns: u64) {
        self.observe();
        self.room.shrink(self.buffers.len());
        for cell in self.dirty.drain(..) {
            let cell = &mut self.cells[usize::from(cell)];
            let oldest_ns = self.buffers.oldest(&cell.buffers).map(|record| record.allocated_ns);
            cell.publish(oldest_ns, now_ns, self.has_ended);
        }
    }

    pub(super) fn kernels(&self) -> Vec<(u16, KernelKind, KernelTally)> {
        self.by_size.kernels()
    }

    /// How many references there are to the buffer in a slot.
    pub(super) fn references(&self, slot: u32) -> u32 {
        self.buffers.references(slot)
    }

    /// One more than the highest slot that was ever in use.
    pub(super) fn slots(&self) -> u32 {
        self.buffers.slots()
    }

    /// Live buffers in a range of slots, with their memory type.
    pub(super) fn live(&self, slots: Range<u32>) -> impl Iterator<Item = (u32, MemoryType, &Record)> {
        let memory_type = |record: &Record| self.cells[usize::from(record.cell)].memory_type;
        self.buffers.live(slots).map(move |(slot, record)| (slot, memory_type(record), record))
    }
}

/// Changes to one process's ledger, which readers see when the batch is dropped or [`Batch::publish`]ed.
pub struct Batch<'a> {
    registry: &'a Registry,
    process: &'a Arc<Process>,
    ledger: MutexGuard<'a, Ledger>,
    now_ns: u64,
    /// Who speaks.
    reporter: Reporter,
    /// Searches for buffers on other devices than the one that was named.
    searches: u32,
}

impl<'a> Batch<'a> {
    pub(super) fn new(registry: &'a Registry, process: &'a Arc<Process>, now_ns: u64) -> Self {
        let reporter = Reporter::default();
        Self { registry, process, ledger: process.ledger(), now_ns, reporter, searches: 0 }
    }

    /// What follows is said by that client of the process.
    #[inline]
    pub fn report_as(&mut self, reporter: Reporter) {
        self.reporter = reporter;
        self.ledger.reporters.add(reporter);
    }

    /// A buffer was allocated, or one more reference to it taken. `device` is below [`super::DEVICES_MAX`], here and below.
    pub fn allocate(
        &mut self,
        device: u16,
        memory_type: MemoryType,
        id: u64,
        size_bytes: u64,
    ) -> Result<Allocated, Refusal> {
        self.check_alive()?;
        check_size(size_bytes)?;
        let mut outcome = Allocated::New;
        if let Some(slot) = self.ledger.buffers.find(device, id) {
            let record = self.ledger.buffers.get(slot);
            if record.size_bytes == size_bytes
                && self.ledger.cells[usize::from(record.cell)].memory_type == memory_type
            {
                self.ledger.buffers.add_reference(slot, self.reporter);
                return Ok(Allocated::Referenced);
            }
            self.release(slot, End::Replaced);
            outcome = Allocated::Replaced;
        } else {
            let live = self.ledger.buffers.len();
            self.ledger.room.grow(live)?;
        }
        let cell = self.cell(device, memory_type);
        self.grow(cell, size_bytes)?;
        let ledger = &mut *self.ledger;
        let list = &mut ledger.cells[usize::from(cell)].buffers;
        let (allocated_ns, reporter) = (self.now_ns, self.reporter);
        ledger.buffers.insert(list, NewBuffer { device, cell, id, size_bytes, allocated_ns, reporter });
        if let Some(telling) = &mut ledger.telling {
            telling.allocate(cell, device, memory_type, size_bytes, self.now_ns);
        }
        Ok(outcome)
    }

    /// A buffer was freed. Where the device does not fit, the process's other devices are searched, as some clients always name device 0.
    pub fn free(&mut self, device: u16, id: u64) -> Result<(), Refusal> {
        self.remove(device, id, End::Freed)
    }

    /// A buffer went with its device, which was closed; otherwise as [`Batch::free`].
    pub fn free_by_close(&mut self, device: u16, id: u64) -> Result<(), Refusal> {
        self.remove(device, id, End::DeviceClosed)
    }

    fn remove(&mut self, device: u16, id: u64, end: End) -> Result<(), Refusal> {
        self.check_alive()?;
        let slot = match self.ledger.buffers.find(device, id) {
            Some(slot) => slot,
            None => self.find_elsewhere(device, id)?,
        };
        if self.ledger.buffers.remove_reference(slot, self.reporter) {
            self.release(slot, end);
        }
        Ok(())
    }

    /// Memory was taken that is accounted by size alone: circular buffers, whose ids recur from program to program.
    pub fn take(&mut self, device: u16, memory_type: MemoryType, size_bytes: u64) -> Result<(), Refusal> {
        self.take_sort(Sort { device, memory_type, kernel: None }, size_bytes)
    }

    /// Memory accounted by size alone was given back; the message carries the size.
    pub fn give_back(
        &mut self,
        device: u16,
        memory_type: MemoryType,
        size_bytes: u64,
    ) -> Result<(), Refusal> {
        self.give_back_sort(Sort { device, memory_type, kernel: None }, size_bytes)
    }

    /// A kernel was loaded.
    pub fn load_kernel(&mut self, device: u16, kind: KernelKind, size_bytes: u64) -> Result<(), Refusal> {
        self.take_sort(Sort { device, memory_type: MemoryType::Kernel, kernel: Some(kind) }, size_bytes)
    }

    /// A kernel was unloaded.
    pub fn unload_kernel(&mut self, device: u16, kind: KernelKind, size_bytes: u64) -> Result<(), Refusal> {
        self.give_back_sort(Sort { device, memory_type: MemoryType::Kernel, kernel: Some(kind) }, size_bytes)
    }

    fn take_sort(&mut self, sort: Sort, size_bytes: u64) -> Result<(), Refusal> {
        self.check_alive()?;
        check_size(size_bytes)?;
        let cell = self.cell(sort.device, sort.memory_type);
        self.grow(cell, size_bytes)?;
        self.ledger.by_size.take(sort, self.reporter, size_bytes);
        Ok(())
    }

    fn give_back_sort(&mut self, sort: Sort, size_bytes: u64) -> Result<(), Refusal> {
        self.check_alive()?;
        check_size(size_bytes)?;
        let cell = self.ledger.existing_cell(sort.device, sort.memory_type).ok_or(Refusal::UnknownFree)?;
        let ended = self.ledger.by_size.give_back(sort, self.reporter, size_bytes);
        self.shrink(cell, size_bytes, ended.ok_or(Refusal::UnknownFree)?);
        Ok(())
    }

    /// What tt-metal's region shows for this process now; `None` when it shows it no longer.
    pub fn set_region(
        &mut self,
        device: u16,
        memory_type: MemoryType,
        bytes: Option<u64>,
    ) -> Result<(), Refusal> {
        self.check_alive()?;
        let known = self.ledger.existing_cell(device, memory_type);
        let empty = &mut self.ledger.empty_in_region;
        empty.retain(|place| *place != (device, memory_type));
        if known.is_none() && bytes.unwrap_or(0) == 0 {
            empty.extend(bytes.map(|_| (device, memory_type)));
            return Ok(());
        }
        let region_bytes = bytes.unwrap_or(0);
        if region_bytes > CELL_BYTES_MAX {
            return Err(Refusal::SizeTooLarge);
        }
        let cell = self.cell(device, memory_type);
        let counters = self.ledger.cells[usize::from(cell)].counters;
        let is_in_region = u64::from(bytes.is_some());
        if (counters.region_bytes, counters.is_in_region) != (region_bytes, is_in_region) {
            let cell = self.ledger.touch(cell);
            cell.counters.region_bytes = region_bytes;
            cell.counters.is_in_region = is_in_region;
            cell.crest();
        }
        Ok(())
    }

    /// The process asked for memory and did not get it. It holds what it held before.
    pub fn fail(&mut self, failure: AllocationFailure) -> Result<(), Refusal> {
        self.check_alive()?;
        check_size(failure.requested_bytes)?;
        self.cell(failure.device, failure.memory_type);
        self.registry.device(failure.device).memory(failure.memory_type).fail(&failure);
        self.registry.note(|| Moment::Failed(Arc::clone(self.process), failure));
        self.registry.tell(|| Occurrence::Failed(Arc::clone(self.process), failure));
        Ok(())
    }

    /// The process belongs to a trace of somebody else.
    pub fn join_trace(&mut self, context: TraceContext) -> Result<(), Refusal> {
        self.check_alive()?;
        if self.process.join_trace(context) { Ok(()) } else { Err(Refusal::OtherTrace) }
    }

    /// Closes a burst of allocations to which nothing has been added for a while.
    pub(super) fn settle(&mut self) {
        if let Some(telling) = &mut self.ledger.telling {
            telling.settle(self.now_ns);
        }
    }

    /// How many searches frees with a wrong device have cost since this was last asked.
    pub fn take_searches(&mut self) -> u32 {
        std::mem::take(&mut self.searches)
    }

    /// Shows readers all that the batch has changed so far.
    pub fn publish(&mut self) {
        self.ledger.publish(self.now_ns);
        self.tell();
    }

    /// Hands over what has been found worth telling.
    fn tell(&mut self) {
        if let Some(telling) = self.ledger.telling.as_mut().filter(|telling| telling.has_news()) {
            self.registry.tell_of(self.process, telling);
        }
    }

    /// The process is gone: further changes are refused.
    pub(super) fn close(&mut self) {
        self.ledger.is_closed = true;
    }

    /// The process is gone: reclaims all that it held. Further changes are refused. False if that was known already.
    pub(super) fn end(&mut self) -> bool {
        if self.ledger.has_ended {
            return false;
        }
        self.close();
        self.tell_end();
        for cell in 0..self.ledger.cells.len() as u16 {
            let (bytes, buffers) = self.end_reported(cell);
            let counters = &mut self.ledger.touch(cell).counters;
            counters.orphaned_buffers += buffers;
            counters.orphaned_bytes = counters.orphaned_bytes.wrapping_add(bytes);
            counters.region_bytes = 0;
            counters.is_in_region = 0;
        }
        self.ledger.buffers.clear();
        self.ledger.by_size.clear();
        self.ledger.room.close();
        self.ledger.has_ended = true;
        true
    }

    /// Tells of the end and of what the process still holds.
    fn tell_end(&mut self) {
        let Ledger { buffers, cells, telling, .. } = &mut *self.ledger;
        let Some(telling) = telling else { return };
        let held = cells.iter().flat_map(|cell| {
            buffers.iter(&cell.buffers).map(|record| release_of(record, cell.memory_type, self.now_ns))
        });
        let orphans = telling.end(held.map(|release| Release { end: End::ProcessExit, ..release }));
        let bursts = telling.take_unfinished(self.now_ns);
        let sums = cells.iter().map(|cell| &cell.counters);
        let orphaned = sums.fold(Orphaned::default(), |sum, counters| Orphaned {
            buffers: sum.buffers + counters.buffers,
            bytes: sum.bytes + counters.reported_bytes,
        });
        self.registry.tell_of(self.process, telling);
        let ending = Ending { at_ns: self.now_ns, orphaned, orphans, bursts };
        self.registry.tell(|| Occurrence::Ended(Arc::clone(self.process), Box::new(ending)));
    }

    /// Ends all that has been reported in a cell, and gives its bytes and buffers. The buffers' records are for the caller to clear.
    fn end_reported(&mut self, cell: u16) -> (u64, u64) {
        let ledger = &mut *self.ledger;
        let touched = ledger.touch(cell);
        let list = std::mem::take(&mut touched.buffers);
        let (bytes, buffers) = (touched.counters.reported_bytes, touched.counters.buffers);
        ledger.noted(cell);
        for record in ledger.buffers.iter(&list) {
            ledger.noted.lifetimes.note(self.now_ns.saturating_sub(record.allocated_ns));
        }
        self.shrink(cell, bytes, buffers);
        (bytes, buffers)
    }

    fn check_alive(&self) -> Result<(), Refusal> {
        if self.ledger.is_closed { Err(Refusal::ProcessEnded) } else { Ok(()) }
    }

    fn find_elsewhere(&mut self, device: u16, id: u64) -> Result<super::buffers::Slot, Refusal> {
        let devices = self.ledger.cell_by_device.len();
        self.searches = self.searches.saturating_add(devices as u32);
        let others = (0..devices).map(|other| other as u16).filter(|other| *other != device);
        let mut found = others
            .filter(|other| self.has_buffers_on(*other))
            .filter_map(|other| self.ledger.buffers.find(other, id));
        let slot = found.next().ok_or(Refusal::UnknownFree)?;
        if found.next().is_some() { Err(Refusal::AmbiguousFree) } else { Ok(slot) }
    }

    fn has_buffers_on(&self, device: u16) -> bool {
        let cells = self.ledger.cell_by_device[usize::from(device)];
        cells
            .iter()
            .any(|cell| *cell != NO_CELL && self.ledger.cells[usize::from(*cell)].counters.buffers > 0)
    }

    /// Ends a buffer whatever its references.
    fn release(&mut self, slot: super::buffers::Slot, end: End) {
        let cell = self.ledger.buffers.get(slot).cell;
        let ledger = &mut *self.ledger;
        let record = ledger.buffers.remove(&mut ledger.cells[usize::from(cell)].buffers, slot);
        ledger.noted(cell).lifetimes.note(self.now_ns.saturating_sub(record.allocated_ns));
        if let Some(telling) = &mut ledger.telling {
            telling.release(cell, record.size_bytes, record.allocated_ns, self.now_ns, || Release {
                end,
                ..release_of(&record, ledger.cells[usize::from(cell)].memory_type, self.now_ns)
            });
        }
        self.shrink(cell, record.size_bytes, 1);
    }

    fn grow(&mut self, cell: u16, size_bytes: u64) -> Result<(), Refusal> {
        if self.ledger.cells[usize::from(cell)].counters.reported_bytes + size_bytes > CELL_BYTES_MAX {
            return Err(Refusal::SizeTooLarge);
        }
        let touched = self.ledger.touch(cell);
        let counters = &mut touched.counters;
        counters.is_reported = 1;
        counters.reported_bytes += size_bytes;
        counters.buffers += 1;
        counters.allocations += 1;
        counters.allocated_bytes = counters.allocated_bytes.wrapping_add(size_bytes);
        touched.crest();
        self.ledger.noted(cell).sizes.note(size_bytes);
        Ok(())
    }

    fn shrink(&mut self, cell: u16, bytes: u64, buffers: u64) {
        let counters = &mut self.ledger.touch(cell).counters;
        counters.reported_bytes -= bytes;
        counters.buffers -= buffers;
        counters.frees += buffers;
        counters.freed_bytes = counters.freed_bytes.wrapping_add(bytes);
    }

    /// The cell of a device and memory type, made when it is first needed.
    fn cell(&mut self, device: u16, memory_type: MemoryType) -> u16 {
        if let Some(cell) = self.ledger.existing_cell(device, memory_type) {
            return cell;
        }
        let readers = Arc::new(self.process.new_cell(device, memory_type, self.registry.pages()));
        let ledger = &mut *self.ledger;
        let cell = ledger.cells.len() as u16;
        let is_in_region = u64::from(ledger.empty_in_region.contains(&(device, memory_type)));
        ledger.cells.push(LedgerCell {
            device: Arc::clone(self.registry.device(device)),
            memory_type,
            counters: Counters { is_in_region, ..Counters::default() },
            buffers: List::default(),
            published_usage_bytes: 0,
            crest_bytes: 0,
            is_dirty: false,
            readers: Arc::clone(&readers),
        });
        let index = usize::from(device);
        if ledger.cell_by_device.len() <= index {
            ledger.cell_by_device.resize(index + 1, [NO_CELL; MemoryType::COUNT]);
        }
        ledger.cell_by_device[index][memory_type.index()] = cell;
        self.process.add_cell(&readers);
        cell
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.publish();
    }
}

/// A record as one that was freed now.
fn release_of(record: &Record, memory_type: MemoryType, now_ns: u64) -> Release {
    Release {
        id: record.id,
        size_bytes: record.size_bytes,
        allocated_ns: record.allocated_ns,
        released_ns: now_ns,
        device: record.device,
        memory_type,
        end: End::Freed,
    }
}

fn check_size(size_bytes: u64) -> Result<(), Refusal> {
    match size_bytes {
        0 => Err(Refusal::ZeroSize),
        1..=BUFFER_BYTES_MAX => Ok(()),
        _ => Err(Refusal::SizeTooLarge),
    }
}
