//! One device: what it is, what it can hold, and the atomics that answer a query without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ttmem_wire::Arch as WireArch;
use ttmem_wire::stats::{DeviceDescription, MEMORY_TYPES, MemoryFigures, Text, sequence};

use super::MemoryType;
use super::feed::{AllocationFailure, FailureReason};
use super::histogram::{Histogram, HistogramSnapshot, Observations, Scale};
use super::image::{ImageError, MemoryImage};
use super::page::{DevicePlace, Pages};

/// Devices that one host can have; an index is below this.
pub const DEVICES_MAX: u16 = 1024;

/// How long a device that clients alone have named stays known after the last process that used it: longer than the breaks of whoever
/// works with it, and no more than a nuisance where somebody has named a thousand that do not exist.
pub const DEVICE_LINGER_NS: u64 = 3_600_000_000_000;

/// The architecture of a chip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    /// Grayskull.
    Grayskull,
    /// Wormhole B0.
    WormholeB0,
    /// Blackhole.
    Blackhole,
    /// Quasar.
    Quasar,
}

impl Arch {
    /// The label's value, as tt-metal spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Grayskull => "grayskull",
            Arch::WormholeB0 => "wormhole_b0",
            Arch::Blackhole => "blackhole",
            Arch::Quasar => "quasar",
        }
    }

    /// What other processes are told.
    pub const fn published(arch: Option<Arch>) -> WireArch {
        match arch {
            None => WireArch::Invalid,
            Some(Arch::Grayskull) => WireArch::Grayskull,
            Some(Arch::WormholeB0) => WireArch::WormholeB0,
            Some(Arch::Blackhole) => WireArch::Blackhole,
            Some(Arch::Quasar) => WireArch::Quasar,
        }
    }
}

/// A number of equal banks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Banks {
    /// How many.
    pub count: u32,
    /// Bytes in each.
    pub bank_bytes: u64,
}

/// What is known about a device beside its memory in use.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// The chip's architecture.
    pub arch: Option<Arch>,
    /// The board's product name.
    pub board: Option<String>,
    /// The chip's unique id, in hexadecimal.
    pub asic_id: Option<String>,
    /// The board's address on the PCI bus.
    pub pci_bus_id: Option<String>,
    /// Where the capacities come from.
    pub capacity_source: Option<&'static str>,
    /// DRAM that buffers can use, in bytes.
    pub dram_bytes: Option<u64>,
    /// L1 that buffers can use, in bytes.
    pub l1_bytes: Option<u64>,
    /// The DRAM's banks, where the product is known.
    pub dram_banks: Option<Banks>,
    /// The L1 banks, where the product is known.
    pub l1_banks: Option<Banks>,
    /// The board's serial number, in hexadecimal.
    pub serial: Option<String>,
    /// The version of its firmware bundle.
    pub firmware: Option<String>,
    /// Who holds it open and reports nothing; `None` where the driver does not tell.
    pub untracked: Option<Untracked>,
    /// The kernel driver's number of its card.
    pub card: Option<u16>,
    /// Whether the operator or the kernel driver knows it, and not clients alone.
    pub is_vouched_for: bool,
    /// Who means another card by this device's number; `None` where the driver does not tell.
    pub renumbered: Option<Vec<Renumbered>>,
}

/// A process to which a device's number is another card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renumbered {
    /// Its process id.
    pub pid: u32,
    /// The kernel driver's number of the only card that it holds open.
    pub card: u16,
}

/// Processes that hold a device open and report nothing.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Untracked {
    /// How many.
    pub processes: u64,
    /// Some of them.
    pub named: Vec<UntrackedProcess>,
}

/// A process that reports nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UntrackedProcess {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its user's name, or the id where there is none.
    pub user: String,
}

impl DeviceInfo {
    /// The banks of a memory type, where they are known.
    pub fn banks(&self, memory_type: MemoryType) -> Option<Banks> {
        match memory_type {
            MemoryType::Dram => self.dram_banks,
            MemoryType::L1 => self.l1_banks,
            _ => None,
        }
    }

    /// The capacity for a memory type in bytes; `None` where it is not known or the type has none of its own.
    pub fn limit_bytes(&self, memory_type: MemoryType) -> Option<u64> {
        match memory_type {
            MemoryType::Dram => self.dram_bytes,
            MemoryType::L1 => self.l1_bytes,
            _ => None,
        }
    }
}

/// A device that has been configured or seen.
pub struct Device {
    index: u16,
    info: ArcSwap<DeviceInfo>,
    /// Held while `info` changes and is published.
    description: Mutex<()>,
    place: DevicePlace,
    history: [History; MemoryType::COUNT],
    /// Since when nobody uses it, in monotonic nanoseconds plus one; 0 while somebody does.
    unused_since_ns_plus_one: AtomicU64,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Device {
    pub(super) fn new(index: u16, pages: Option<&Pages>) -> Self {
        let device = Self {
            index,
            info: ArcSwap::default(),
            description: Mutex::default(),
            place: DevicePlace::new(pages, index),
            history: std::array::from_fn(|_| History::new()),
            unused_since_ns_plus_one: AtomicU64::new(0),
        };
        device.update_info(|_| {});
        device
    }

    /// The index that clients use for it.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// What is known about it.
    pub fn info(&self) -> arc_swap::Guard<Arc<DeviceInfo>> {
        self.info.load()
    }

    /// Changes what is known about it.
    pub fn update_info(&self, change: impl FnOnce(&mut DeviceInfo)) {
        let _one_at_a_time = self.description.lock();
        let mut info = DeviceInfo::clone(&self.info.load());
        change(&mut info);
        let description = DeviceDescription {
            arch: Arch::published(info.arch),
            board: Text::new(info.board.as_deref().unwrap_or_default()),
            untracked: info.untracked.as_ref().map(|untracked| untracked.processes),
            limit_bytes: MemoryType::ALL.map(|memory_type| info.limit_bytes(memory_type).unwrap_or(0)),
        };
        description.write(self.place.row());
        self.info.store(Arc::new(info));
    }

    /// Notes whether it is in use or vouched for at that moment.
    pub(super) fn note_use(&self, is_used: bool, now_ns: u64) {
        let since = if is_used { 0 } else { now_ns.saturating_add(1) };
        if is_used || self.unused_since_ns_plus_one.load(Relaxed) == 0 {
            self.unused_since_ns_plus_one.store(since, Relaxed);
        }
    }

    /// Whether nobody has used it for so long that it is no longer shown.
    pub(super) fn is_forgotten(&self, now_ns: u64) -> bool {
        let since = self.unused_since_ns_plus_one.load(Relaxed).checked_sub(1);
        since.is_some_and(|since| now_ns.saturating_sub(since) >= DEVICE_LINGER_NS)
    }

    /// Bytes in use, by memory type: what a query asks for.
    pub fn usage_bytes(&self) -> [u64; MemoryType::COUNT] {
        let row = self.place.row();
        std::array::from_fn(|index| MemoryFigures::of(row, index).usage_bytes.load(Relaxed))
    }

    /// Its memory of one type.
    pub fn memory(&self, memory_type: MemoryType) -> DeviceMemory<'_> {
        let index = memory_type.index();
        DeviceMemory { figures: MemoryFigures::of(self.place.row(), index), history: &self.history[index] }
    }
}

/// What a device's memory of one type has seen: how large its buffers were, how long they lived, and what found no room.
#[derive(Debug)]
struct History {
    sizes: Histogram,
    lifetimes: Histogram,
    failures: [AtomicU64; FailureReason::ALL.len()],
    /// Plus one; 0 while nobody has told.
    largest_free_block_bytes_plus_one: AtomicU64,
}

impl History {
    fn new() -> Self {
        Self {
            sizes: Histogram::new(Scale::Bytes),
            lifetimes: Histogram::new(Scale::Seconds),
            failures: [const { AtomicU64::new(0) }; _],
            largest_free_block_bytes_plus_one: AtomicU64::new(0),
        }
    }
}

/// A device's memory of one type: what a query reads.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMemory<'a> {
    figures: MemoryFigures<'a>,
    history: &'a History,
}

impl DeviceMemory<'_> {
    /// Counts an allocation that found no room.
    pub(super) fn fail(&self, failure: &AllocationFailure) {
        self.history.failures[failure.reason() as usize].fetch_add(1, Relaxed);
        let largest = failure.largest_free_block_bytes.saturating_add(1);
        self.history.largest_free_block_bytes_plus_one.store(largest, Relaxed);
    }

    pub(super) fn failures(&self) -> [u64; FailureReason::ALL.len()] {
        std::array::from_fn(|reason| self.history.failures[reason].load(Relaxed))
    }

    pub(super) fn largest_free_block_bytes(&self) -> Option<u64> {
        self.history.largest_free_block_bytes_plus_one.load(Relaxed).checked_sub(1)
    }

    /// Bytes in use.
    pub fn usage_bytes(&self) -> u64 {
        self.figures.usage_bytes.load(Relaxed)
    }

    /// The most bytes that have been in use at once.
    pub fn peak_bytes(&self) -> u64 {
        self.figures.peak_bytes.load(Relaxed)
    }

    /// Raises the peak to what a reader was told, and gives it.
    pub(super) fn raise_peak(&self, told_bytes: u64) -> u64 {
        self.figures.peak_bytes.fetch_max(told_bytes, Relaxed).max(told_bytes)
    }

    pub(super) fn sizes(&self) -> HistogramSnapshot {
        self.history.sizes.snapshot()
    }

    pub(super) fn lifetimes(&self) -> HistogramSnapshot {
        self.history.lifetimes.snapshot()
    }

    /// One part of the usage went from one value to another, and was as high as `crest` on the way.
    pub(super) fn shift(&self, from_bytes: u64, crest_bytes: u64, to_bytes: u64) {
        let MemoryFigures { sequence, usage_bytes, peak_bytes } = self.figures;
        sequence::write_among_others(sequence, || {
            let before = usage_bytes.fetch_add(to_bytes.wrapping_sub(from_bytes), Relaxed);
            let highest = before.wrapping_add(crest_bytes.wrapping_sub(from_bytes));
            if highest > peak_bytes.load(Relaxed) {
                peak_bytes.fetch_max(highest, Relaxed);
            }
        });
    }

    /// What is stored of it.
    pub(super) fn image(&self) -> MemoryImage {
        MemoryImage {
            peak_bytes: self.peak_bytes(),
            sizes: self.history.sizes.image(),
            lifetimes: self.history.lifetimes.image(),
            failures: self.failures().into(),
            largest_free_block_bytes: self.largest_free_block_bytes(),
        }
    }

    /// What has been seen is what a stored one had seen.
    pub(super) fn restore(&self, image: &MemoryImage) -> Result<(), ImageError> {
        self.raise_peak(image.peak_bytes);
        self.history.sizes.restore(&image.sizes)?;
        self.history.lifetimes.restore(&image.lifetimes)?;
        for (count, stored) in self.history.failures.iter().zip(&image.failures) {
            count.store(*stored, Relaxed);
        }
        let largest = image.largest_free_block_bytes.map_or(0, |bytes| bytes.saturating_add(1));
        self.history.largest_free_block_bytes_plus_one.store(largest, Relaxed);
        Ok(())
    }

    /// Adds sizes of buffers that were allocated and lifetimes of buffers that were released.
    pub(super) fn observe(&self, sizes: &mut Observations, lifetimes: &mut Observations) {
        self.history.sizes.absorb(sizes);
        self.history.lifetimes.absorb(lifetimes);
    }
}

const _: () = assert!(MemoryType::COUNT == MEMORY_TYPES);
