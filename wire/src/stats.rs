//! The stats pages: what devices and processes hold, in memory that the server writes and everybody else reads.
//!
//! The idea is that a page is a header and rows of one size, that a row's first word is a sequence counter, and that the server's own
//! published state lies in these rows: reading them is neither a system call nor a message, and costs the server nothing.
//!
//! All code here works on words that both sides have mapped. A reader trusts nothing in them: sizes are checked against what it has
//! mapped, and a row that is never still is given up after a bounded number of attempts.
//!
//! ```
//! use core::sync::atomic::AtomicU64;
//! use ttmem_wire::stats::{DevicePage, PageError};
//!
//! let mapped = [const { AtomicU64::new(0) }; 512];
//! assert_eq!(DevicePage::open(&mapped).err(), Some(PageError::NotAPage));
//! ```

pub mod sequence;

mod text;

mod device;
mod process;

use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

pub use device::{DeviceDescription, DeviceFigures, DevicePage, DeviceRow, MemoryFigures};
pub use process::{
    FIGURES_MAX, Figure, HolderDescription, HolderFigures, HolderRow, HolderState, ProcessPage, describe,
    publish, set_state, try_figures,
};
pub use text::Text;

/// The first word of a page: "ttmempag" in ASCII, read as a little-endian number.
pub const PAGE_MAGIC: u64 = u64::from_le_bytes(*b"ttmempag");
/// The version that is described here. Within it, words that are zero now may come to mean something, and rows may become longer.
pub const PAGE_VERSION: u32 = 1;
/// The size of a page's header.
pub const PAGE_HEADER_BYTES: usize = 64;

/// Kinds of memory that a page tells of.
pub const MEMORY_TYPES: usize = 7;
/// Their names, in the order of their figures: those of the `memory_type` label.
pub const MEMORY_TYPE_NAMES: [&str; MEMORY_TYPES] =
    ["dram", "l1", "l1_small", "trace", "cb", "kernel", "system_memory"];

const HEADER_WORDS: usize = PAGE_HEADER_BYTES / 8;
const MAGIC: usize = 0;
const VERSION_AND_KIND: usize = 1;
const SIZES: usize = 2;
const ROWS_MAX: usize = 3;
const ROWS_USED: usize = 4;
const ROWS_MISSING: usize = 5;

/// What the rows of a page are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PageKind {
    /// Devices: the place of a row is the device's index.
    Devices = 1,
    /// Holders: what one process holds on one device in one kind of memory.
    Processes = 2,
}

impl PageKind {
    /// The words of a row.
    const fn row_words(self) -> usize {
        match self {
            PageKind::Devices => device::ROW_WORDS,
            PageKind::Processes => process::ROW_WORDS,
        }
    }

    /// The bytes of a page with so many rows.
    pub const fn page_bytes(self, rows_max: usize) -> usize {
        8 * (HEADER_WORDS + rows_max * self.row_words())
    }
}

/// Why words are no page that can be read. The server's fault, or it is of another version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageError {
    /// They do not begin as a page does.
    NotAPage,
    /// The page is of a version that is not known here.
    Version(u32),
    /// The page is of the other kind.
    Kind(u32),
    /// Its sizes cannot be, or are more than what is mapped.
    Sizes,
}

impl fmt::Display for PageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageError::NotAPage => write!(formatter, "the memory is no stats page"),
            PageError::Version(version) => {
                write!(
                    formatter,
                    "the stats page is of version {version}, and this reads version {PAGE_VERSION}"
                )
            }
            PageError::Kind(kind) => write!(formatter, "the stats page is of another kind ({kind})"),
            PageError::Sizes => write!(formatter, "the stats page is larger than its memory"),
        }
    }
}

impl core::error::Error for PageError {}

/// A row was being written at every attempt to read it. Its writer has no processor, or has been killed in the middle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the stats page is never still")
    }
}

impl core::error::Error for Busy {}

/// A page whose header has been checked.
#[derive(Clone, Copy, Debug)]
struct Page<'a> {
    words: &'a [AtomicU64],
    header_words: usize,
    row_words: usize,
    rows_max: usize,
}

impl<'a> Page<'a> {
    fn open(words: &'a [AtomicU64], kind: PageKind) -> Result<Self, PageError> {
        let header: &[AtomicU64; HEADER_WORDS] = words.first_chunk().ok_or(PageError::NotAPage)?;
        let word = |index: usize| header[index].load(Acquire);
        if word(MAGIC) != PAGE_MAGIC {
            return Err(PageError::NotAPage);
        }
        let (version, found) = halves(word(VERSION_AND_KIND));
        if version != PAGE_VERSION {
            return Err(PageError::Version(version));
        }
        if found != kind as u32 {
            return Err(PageError::Kind(found));
        }
        let (header_bytes, row_bytes) = halves(word(SIZES));
        let (header_words, row_words) = (header_bytes as usize / 8, row_bytes as usize / 8);
        let rows_max = usize::try_from(word(ROWS_MAX)).map_err(|_| PageError::Sizes)?;
        let is_whole = header_bytes % 8 == 0 && row_bytes % 8 == 0;
        let is_known = header_words >= HEADER_WORDS && row_words >= kind.row_words();
        let end = row_words.checked_mul(rows_max).and_then(|rows| rows.checked_add(header_words));
        if !is_whole || !is_known || end.is_none_or(|end| end > words.len()) {
            return Err(PageError::Sizes);
        }
        Ok(Self { words, header_words, row_words, rows_max })
    }

    /// Rows that have ever been written; those behind are zero.
    fn rows_used(&self) -> usize {
        usize::try_from(self.words[ROWS_USED].load(Acquire)).unwrap_or(usize::MAX).min(self.rows_max)
    }

    fn rows_missing(&self) -> u64 {
        self.words[ROWS_MISSING].load(Acquire)
    }

    /// The part of a row that this version knows.
    #[inline]
    fn row<const WORDS: usize>(&self, index: usize) -> Option<&'a [AtomicU64; WORDS]> {
        if index >= self.rows_max {
            return None;
        }
        self.words.get(self.header_words + index * self.row_words..)?.first_chunk()
    }
}

/// A page as its server writes it.
#[derive(Clone, Copy, Debug)]
pub struct PageWriter<'a> {
    words: &'a [AtomicU64],
    kind: PageKind,
}

impl<'a> PageWriter<'a> {
    /// Makes zeroed words an empty page.
    ///
    /// # Panics
    ///
    /// If the words are not [`PageKind::page_bytes`] long.
    pub fn initialise(words: &'a [AtomicU64], kind: PageKind, rows_max: usize) -> Self {
        assert!(words.len() * 8 == kind.page_bytes(rows_max), "a page has exactly its size");
        words[VERSION_AND_KIND].store(joined(PAGE_VERSION, kind as u32), Relaxed);
        words[SIZES].store(joined(PAGE_HEADER_BYTES as u32, 8 * kind.row_words() as u32), Relaxed);
        words[ROWS_MAX].store(rows_max as u64, Relaxed);
        words[MAGIC].store(PAGE_MAGIC, Release);
        Self { words, kind }
    }

    /// The page that [`PageWriter::initialise`] has made of these words.
    pub fn of(words: &'a [AtomicU64], kind: PageKind) -> Self {
        Self { words, kind }
    }

    /// The words of a row.
    ///
    /// # Panics
    ///
    /// If there is no such row, or rows of this kind have not so many words.
    #[inline]
    pub fn row<const WORDS: usize>(&self, index: usize) -> &'a [AtomicU64; WORDS] {
        assert!(WORDS == self.kind.row_words(), "rows of a kind have one size");
        let row = self.words[HEADER_WORDS + index * WORDS..].first_chunk();
        row.expect("the page has this row: the caller has taken it from the page")
    }

    /// Readers look at so many rows from now on.
    pub fn set_rows_used(&self, rows: usize) {
        self.words[ROWS_USED].fetch_max(rows as u64, Release);
    }

    /// So many rows have found no place.
    pub fn set_rows_missing(&self, rows: u64) {
        self.words[ROWS_MISSING].store(rows, Release);
    }
}

const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

const fn joined(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

const _: () = {
    assert!(ROWS_MISSING < HEADER_WORDS && PAGE_HEADER_BYTES.is_multiple_of(64));
    assert!((8 * device::ROW_WORDS).is_multiple_of(64), "two rows share no line of the cache");
    assert!((8 * process::ROW_WORDS).is_multiple_of(64), "two rows share no line of the cache");
};

#[cfg(test)]
mod tests;
