//! The rows about holders: what one process holds on one device in one kind of memory, and who it is.
//!
//! The idea is that a row says all of itself, identity included, under one sequence: when it is used again for another holder, a reader
//! sees the one or the other, and pid and start time tell which.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::text::Text;
use super::{Busy, Page, PageError, PageKind, halves, joined, sequence};

pub(super) const ROW_WORDS: usize = 40;

const SEQUENCE: usize = 0;
const START_TICKS: usize = 1;
const PID_AND_UID: usize = 2;
const PLACE: usize = 3;
const START_TIME: usize = 4;
const FIGURES: usize = 5;
const NAME: usize = FIGURES + FIGURES_MAX;
const NAME_WORDS: usize = 8;
const USER: usize = NAME + NAME_WORDS;
const USER_WORDS: usize = 3;

/// Figures that a row has room for. A server may keep figures of its own behind those of [`Figure`]; readers pass over them.
pub const FIGURES_MAX: usize = 24;

/// A holder's row, as its writer has it.
pub type HolderRow = [AtomicU64; ROW_WORDS];

macro_rules! figures {
    ($($(#[$doc:meta])* $figure:ident => $name:literal),* $(,)?) => {
        /// The figures of a row, in their order.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Figure {
            $($(#[$doc])* $figure),*
        }

        impl Figure {
            /// All of them, in their order.
            pub const ALL: [Figure; [$($name),*].len()] = [$(Figure::$figure),*];

            /// What PROTOCOL.md calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Figure::$figure => $name),*
                }
            }
        }
    };
}

figures! {
    /// Bytes held by buffers that the process reported one by one.
    ReportedBytes => "reported_bytes",
    /// Bytes that tt-metal's shared-memory region shows for the process.
    RegionBytes => "region_bytes",
    /// 1 once the process has reported any buffer here.
    IsReported => "is_reported",
    /// 1 while a region has a figure for the process.
    IsInRegion => "is_in_region",
    /// The most bytes that were in use at once.
    PeakBytes => "peak_bytes",
    /// Live buffers.
    Buffers => "buffers",
    /// Allocations so far.
    Allocations => "allocations",
    /// Releases so far.
    Frees => "frees",
    /// Bytes allocated so far.
    AllocatedBytes => "allocated_bytes",
    /// Bytes released so far.
    FreedBytes => "freed_bytes",
    /// Buffers reclaimed at the process's end.
    OrphanedBuffers => "orphaned_buffers",
    /// Bytes reclaimed at the process's end.
    OrphanedBytes => "orphaned_bytes",
    /// When the oldest live buffer was allocated, on the clock that counts from the host's start, plus one; 0 when there is none.
    OldestNsPlusOne => "oldest_ns_plus_one",
}

/// Whether a row is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum HolderState {
    /// It says nothing.
    Vacant = 0,
    /// The process lives.
    Live = 1,
    /// The process has ended: it holds nothing any more, and its counters are final.
    Ended = 2,
}

/// Who holds what kind of memory where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HolderDescription {
    /// The process, as the server sees it.
    pub pid: u32,
    /// When it started, in clock ticks since the host did: a pid that is used again has another.
    pub start_ticks: u64,
    /// When it started, in nanoseconds since the epoch; 0 where that is not known.
    pub start_unix_ns: u64,
    /// Its user.
    pub uid: u32,
    /// The device's index.
    pub device: u16,
    /// The kind of memory.
    pub memory_type: u8,
    /// The process's name.
    pub name: Text<NAME_WORDS>,
    /// The user's name.
    pub user: Text<USER_WORDS>,
}

/// Fills a row for a holder that holds nothing yet. Only for the row's one writer, here and below.
pub fn describe(row: &HolderRow, holder: &HolderDescription) {
    sequence::write_alone(&row[SEQUENCE], || {
        row[START_TICKS].store(holder.start_ticks, Relaxed);
        row[PID_AND_UID].store(joined(holder.pid, holder.uid), Relaxed);
        row[START_TIME].store(holder.start_unix_ns, Relaxed);
        for place in &row[FIGURES..NAME] {
            place.store(0, Relaxed);
        }
        holder.name.store(&row[NAME..USER]);
        holder.user.store(&row[USER..]);
        row[PLACE].store(place(holder, HolderState::Live), Relaxed);
    });
}

/// Replaces the figures of a row.
#[inline]
pub fn publish<const FIGURES_COUNT: usize>(row: &HolderRow, figures: [u64; FIGURES_COUNT]) {
    const { assert!(FIGURES_COUNT <= FIGURES_MAX) };
    sequence::write_alone(&row[SEQUENCE], || {
        for (place, figure) in row[FIGURES..].iter().zip(figures) {
            place.store(figure, Relaxed);
        }
    });
}

/// The figures of a row, if they could be read at once.
#[inline]
pub fn try_figures<const FIGURES_COUNT: usize>(row: &HolderRow) -> Option<[u64; FIGURES_COUNT]> {
    const { assert!(FIGURES_COUNT <= FIGURES_MAX) };
    sequence::try_read(&row[SEQUENCE], || core::array::from_fn(|index| row[FIGURES + index].load(Relaxed)))
}

/// Says whether a row is in use.
pub fn set_state(row: &HolderRow, state: HolderState) {
    sequence::write_alone(&row[SEQUENCE], || {
        let place = row[PLACE].load(Relaxed) & !(0xff << STATE_SHIFT);
        row[PLACE].store(place | (state as u64) << STATE_SHIFT, Relaxed);
    });
}

const STATE_SHIFT: u32 = 24;

fn place(holder: &HolderDescription, state: HolderState) -> u64 {
    u64::from(holder.device)
        | u64::from(holder.memory_type) << 16
        | (state as u64) << STATE_SHIFT
        | u64::from(holder.name.length()) << 32
        | u64::from(holder.user.length()) << 40
}

/// A holder at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HolderFigures {
    /// Who holds what where.
    pub description: HolderDescription,
    /// Whether its process has ended.
    pub has_ended: bool,
    figures: [u64; Figure::ALL.len()],
}

impl HolderFigures {
    /// One of the figures.
    pub fn figure(&self, figure: Figure) -> u64 {
        self.figures[figure as usize]
    }

    /// Bytes held: per-buffer reports where there are any, the region's figure otherwise.
    pub fn usage_bytes(&self) -> u64 {
        let is_reported = self.figure(Figure::IsReported) != 0;
        self.figure(if is_reported { Figure::ReportedBytes } else { Figure::RegionBytes })
    }
}

/// The page with a row for each holder.
#[derive(Clone, Copy, Debug)]
pub struct ProcessPage<'a>(Page<'a>);

impl<'a> ProcessPage<'a> {
    /// Checks the header of what has been mapped.
    pub fn open(words: &'a [AtomicU64]) -> Result<Self, PageError> {
        Page::open(words, PageKind::Processes).map(Self)
    }

    /// Holders for which the page has no room: if there are any, only the server knows all.
    pub fn missing(&self) -> u64 {
        self.0.rows_missing()
    }

    /// The holders, each at an instant of its own. A row that is never still is told in its place.
    pub fn holders(&self) -> impl Iterator<Item = Result<HolderFigures, Busy>> + 'a {
        let page = self.0;
        let rows = (0..page.rows_used()).map_while(move |index| page.row::<ROW_WORDS>(index));
        rows.filter_map(|row| holder(row).transpose())
    }
}

fn holder(row: &HolderRow) -> Result<Option<HolderFigures>, Busy> {
    let words: [u64; ROW_WORDS] =
        sequence::read(&row[SEQUENCE], || core::array::from_fn(|index| row[index].load(Relaxed)))?;
    let place = words[PLACE];
    let state = (place >> STATE_SHIFT) as u8;
    if state != HolderState::Live as u8 && state != HolderState::Ended as u8 {
        return Ok(None);
    }
    let (pid, uid) = halves(words[PID_AND_UID]);
    let description = HolderDescription {
        pid,
        start_ticks: words[START_TICKS],
        start_unix_ns: words[START_TIME],
        uid,
        device: place as u16,
        memory_type: (place >> 16) as u8,
        name: Text::of(core::array::from_fn(|word| words[NAME + word]), (place >> 32) as u8),
        user: Text::of(core::array::from_fn(|word| words[USER + word]), (place >> 40) as u8),
    };
    let figures = core::array::from_fn(|figure| words[FIGURES + figure]);
    Ok(Some(HolderFigures { description, has_ended: state == HolderState::Ended as u8, figures }))
}

const _: () = {
    assert!(USER + USER_WORDS == ROW_WORDS);
    assert!(Figure::ALL.len() <= FIGURES_MAX);
};
