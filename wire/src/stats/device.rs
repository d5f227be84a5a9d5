//! The rows about devices: how much of each kind of memory is in use, how much ever was at once, and how much there is.
//!
//! The idea is that what is asked for most, the totals that a RESPONSE carries, lies in one line of the processor's cache together with
//! the sequence that guards it.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::text::Text;
use super::{Busy, MEMORY_TYPES, Page, PageError, PageKind, sequence};
use crate::{Arch, Totals};

pub(super) const ROW_WORDS: usize = 32;

const SEQUENCE: usize = 0;
const DESCRIPTION: usize = 1;
const USAGE: usize = 2;
const PEAK: usize = USAGE + MEMORY_TYPES;
const LIMIT: usize = PEAK + MEMORY_TYPES;
const UNTRACKED: usize = LIMIT + MEMORY_TYPES;
const BOARD: usize = UNTRACKED + 1;
const BOARD_WORDS: usize = 4;

const IS_KNOWN: u64 = 1;

/// A device's row, as its writer has it.
pub type DeviceRow = [AtomicU64; ROW_WORDS];

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceDescription {
    /// Its architecture.
    pub arch: Arch,
    /// Its board's product name, empty where it is not known.
    pub board: Text<BOARD_WORDS>,
    /// What there is of each kind of memory; 0 where that is not known or the kind has no limit of its own.
    pub limit_bytes: [u64; MEMORY_TYPES],
    /// Processes that hold it open and report nothing, where the kernel tells.
    pub untracked: Option<u64>,
}

/// The words of one kind of memory: its writer changes them within [`sequence::write_among_others`].
#[derive(Clone, Copy, Debug)]
pub struct MemoryFigures<'a> {
    /// What guards them.
    pub sequence: &'a AtomicU64,
    /// Bytes in use.
    pub usage_bytes: &'a AtomicU64,
    /// The most bytes that have been in use at once.
    pub peak_bytes: &'a AtomicU64,
}

impl<'a> MemoryFigures<'a> {
    /// Those of one kind of memory, below [`MEMORY_TYPES`].
    #[inline]
    pub fn of(row: &'a DeviceRow, memory_type: usize) -> Self {
        assert!(memory_type < MEMORY_TYPES);
        Self {
            sequence: &row[SEQUENCE],
            usage_bytes: &row[USAGE + memory_type],
            peak_bytes: &row[PEAK + memory_type],
        }
    }
}

impl DeviceDescription {
    /// Replaces what a row says about the device, which is known from then on. For one writer of descriptions at a time.
    pub fn write(&self, row: &DeviceRow) {
        let board_bytes = u64::from(self.board.length());
        sequence::write_among_others(&row[SEQUENCE], || {
            row[DESCRIPTION].store(IS_KNOWN | (self.arch as u64) << 8 | board_bytes << 16, Relaxed);
            row[UNTRACKED].store(self.untracked.map_or(0, |processes| processes.saturating_add(1)), Relaxed);
            for (place, bytes) in row[LIMIT..].iter().zip(self.limit_bytes) {
                place.store(bytes, Relaxed);
            }
            self.board.store(&row[BOARD..BOARD + BOARD_WORDS]);
        });
    }
}

/// A device at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceFigures {
    /// What it is.
    pub description: DeviceDescription,
    /// Bytes in use, by kind of memory.
    pub usage_bytes: [u64; MEMORY_TYPES],
    /// The most bytes that have been in use at once, by kind of memory.
    pub peak_bytes: [u64; MEMORY_TYPES],
}

/// The page with a row for each device.
#[derive(Clone, Copy, Debug)]
pub struct DevicePage<'a>(Page<'a>);

impl<'a> DevicePage<'a> {
    /// Checks the header of what has been mapped.
    pub fn open(words: &'a [AtomicU64]) -> Result<Self, PageError> {
        Page::open(words, PageKind::Devices).map(Self)
    }

    /// One more than the highest index of a known device.
    pub fn devices_end(&self) -> u16 {
        u16::try_from(self.0.rows_used()).unwrap_or(u16::MAX)
    }

    /// What a QUERY would be answered with, all of one instant; `None` for a device that is not known.
    #[inline]
    pub fn totals(&self, device: u16) -> Result<Option<Totals>, Busy> {
        let Some(row) = self.0.row::<ROW_WORDS>(usize::from(device)) else { return Ok(None) };
        let word = |index: usize| row[index].load(Relaxed);
        sequence::read(&row[SEQUENCE], || {
            let totals = Totals {
                dram_bytes: word(USAGE),
                l1_bytes: word(USAGE + 1),
                l1_small_bytes: word(USAGE + 2),
                trace_bytes: word(USAGE + 3),
                cb_bytes: word(USAGE + 4),
                kernel_bytes: word(USAGE + 5),
            };
            (word(DESCRIPTION) & IS_KNOWN != 0).then_some(totals)
        })
    }

    /// All that the page says about a device; `None` for one that is not known.
    pub fn device(&self, device: u16) -> Result<Option<DeviceFigures>, Busy> {
        let Some(row) = self.0.row::<ROW_WORDS>(usize::from(device)) else { return Ok(None) };
        let words: [u64; ROW_WORDS] =
            sequence::read(&row[SEQUENCE], || core::array::from_fn(|index| row[index].load(Relaxed)))?;
        let described = words[DESCRIPTION];
        let of = |first: usize| core::array::from_fn(|memory_type| words[first + memory_type]);
        let figures = || DeviceFigures {
            description: DeviceDescription {
                arch: Arch::from_number((described >> 8) as u32 & 0xff).unwrap_or_default(),
                board: Text::of(core::array::from_fn(|word| words[BOARD + word]), (described >> 16) as u8),
                limit_bytes: of(LIMIT),
                untracked: words[UNTRACKED].checked_sub(1),
            },
            usage_bytes: of(USAGE),
            peak_bytes: of(PEAK),
        };
        Ok((described & IS_KNOWN != 0).then(figures))
    }
}

const _: () = {
    assert!(BOARD + BOARD_WORDS <= ROW_WORDS);
    assert!(8 * (USAGE + 6) <= 64, "the totals share a line of the cache with their sequence");
};
