//! The sequence counter of a row: how a reader knows that all it has read is of one instant, while writers wait for nobody.
//!
//! The idea is to count in one word both who is writing now (the low 16 bits) and how often something has been published (the rest).
//! A reader believes what it has read if nobody was writing and the word has not changed meanwhile. The word is never set back, not
//! even when a row comes to mean something else, so two meanings are never mixed.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Busy;
use crate::ring::Word;

/// One more writer. There are never 65,536 at once: they are the server's threads.
const WRITER: u64 = 1;
/// One more publication.
const PUBLICATION: u64 = 1 << 16;

/// How often a row is read before it is given up. A writer is inside for less than a tenth of a microsecond unless it has lost its
/// processor, and then waiting for longer than these some 20 microseconds helps nobody.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// Changes what the sequence guards. Only for the one writer that there is at a time.
#[inline]
pub fn write_alone<W: Word>(sequence: &W, change: impl FnOnce()) {
    let before = sequence.load(Relaxed);
    sequence.store(before.wrapping_add(WRITER), Relaxed);
    W::fence(Release);
    change();
    sequence.store(before.wrapping_add(PUBLICATION), Release);
}

/// Changes what the sequence guards, while others may do the same: each change of a word must be one atomic operation.
#[inline]
pub fn write_among_others<W: Word>(sequence: &W, change: impl FnOnce()) {
    sequence.add(WRITER, Relaxed);
    W::fence(Release);
    change();
    sequence.add(PUBLICATION - WRITER, Release);
}

/// Reads what the sequence guards, once; `None` if it was being written.
#[inline]
pub fn try_read<W: Word, T>(sequence: &W, read: impl FnOnce() -> T) -> Option<T> {
    let before = sequence.load(Acquire);
    let value = read();
    W::fence(Acquire);
    let is_still = before & (PUBLICATION - WRITER) == 0 && sequence.load(Relaxed) == before;
    is_still.then_some(value)
}

/// Reads what the sequence guards, again while it is being written.
#[inline]
pub fn read<W: Word, T>(sequence: &W, read: impl Fn() -> T) -> Result<T, Busy> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(value) = try_read(sequence, &read) {
            return Ok(value);
        }
        core::hint::spin_loop();
    }
    Err(Busy)
}
