//! What would still fit: whether a device has room for a buffer of a given size, now and at its fullest.

use crate::registry::Banks;

/// A buffer is spread over all banks in pages, and each bank gives the same number of them. A page is a tile of 32 by 32 values of two
/// bytes, as most tensors have; larger pages round up further.
const PAGE_BYTES: u64 = 2048;

/// A device's memory of one type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes that can be used, if that is known.
    pub limit_bytes: Option<u64>,
    /// Bytes in use now.
    pub usage_bytes: u64,
    /// The most that was in use at once, over whatever time the caller means.
    pub peak_bytes: u64,
    /// Its banks, if they are known.
    pub banks: Option<Banks>,
    /// The largest free block when an allocation failed last.
    pub largest_free_block_bytes: Option<u64>,
}

/// Whether a buffer would fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is room.
    Fits,
    /// There is room, but when an allocation failed last, no free block was large enough.
    Fragmented,
    /// There is less room than it takes.
    Full,
    /// How much the device can hold is not known.
    Unknown,
}

impl Verdict {
    /// What the API says.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Fits => "fits",
            Verdict::Fragmented => "fragmented",
            Verdict::Full => "full",
            Verdict::Unknown => "unknown",
        }
    }
}

/// What is to be said of one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fit {
    /// What the buffer really takes: the same of every bank.
    pub needed_bytes: u64,
    /// What is free now.
    pub free_bytes: Option<u64>,
    /// What was free when most was in use.
    pub free_at_peak_bytes: Option<u64>,
    /// Whether it fits now.
    pub now: Verdict,
    /// Whether it would have fitted then.
    pub at_peak: Verdict,
}

/// Whether a buffer of that size fits into a device's memory.
pub fn fits(size_bytes: u64, room: &Room) -> Fit {
    let needed_bytes = needed_bytes(size_bytes, room.banks);
    let free = |usage_bytes: u64| room.limit_bytes.map(|limit| limit.saturating_sub(usage_bytes));
    let (free_bytes, free_at_peak_bytes) =
        (free(room.usage_bytes), free(room.peak_bytes.max(room.usage_bytes)));
    let verdict = |free: Option<u64>| match free {
        None => Verdict::Unknown,
        Some(free) if free < needed_bytes => Verdict::Full,
        Some(_) if room.largest_free_block_bytes.is_some_and(|block| block < needed_bytes) => {
            Verdict::Fragmented
        }
        Some(_) => Verdict::Fits,
    };
    let (now, at_peak) = (verdict(free_bytes), verdict(free_at_peak_bytes));
    Fit { needed_bytes, free_bytes, free_at_peak_bytes, now, at_peak }
}

fn needed_bytes(size_bytes: u64, banks: Option<Banks>) -> u64 {
    let Some(banks) = banks.filter(|banks| banks.count > 0) else { return size_bytes };
    let pages_per_bank = size_bytes.div_ceil(PAGE_BYTES).div_ceil(u64::from(banks.count));
    pages_per_bank.saturating_mul(PAGE_BYTES).saturating_mul(u64::from(banks.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const N150_DRAM: Room = Room {
        limit_bytes: Some(12 * 1_072_603_072),
        usage_bytes: 0,
        peak_bytes: 0,
        banks: Some(Banks { count: 12, bank_bytes: 1_072_603_072 }),
        largest_free_block_bytes: None,
    };

    #[test]
    fn a_buffer_takes_the_same_of_every_bank() {
        // As tt-metal does it on a Wormhole: 22,528 bytes of each of 12 banks.
        assert_eq!(fits(256 << 10, &N150_DRAM).needed_bytes, 22_528 * 12);
        assert_eq!(fits(1, &N150_DRAM).needed_bytes, 2048 * 12);
        assert_eq!(fits(100, &Room { banks: None, ..N150_DRAM }).needed_bytes, 100);
        assert_eq!(fits(u64::MAX, &N150_DRAM).now, Verdict::Full, "and nothing overflows");
    }

    #[test]
    fn room_now_is_not_room_at_the_peak() {
        let room = Room { usage_bytes: 2 * GIB, peak_bytes: 9 * GIB, ..N150_DRAM };
        let fit = fits(6 * GIB, &room);
        assert_eq!((fit.now, fit.at_peak), (Verdict::Fits, Verdict::Full));
        assert_eq!(fit.free_bytes, Some(12 * 1_072_603_072 - 2 * GIB));
        assert_eq!(fits(11 * GIB, &room).now, Verdict::Full);
        assert_eq!(fits(1, &Room { limit_bytes: None, ..room }).now, Verdict::Unknown);
    }

    #[test]
    fn what_fits_in_all_but_in_no_block_is_said_to_be_so() {
        let room = Room { largest_free_block_bytes: Some(GIB), ..N150_DRAM };
        assert_eq!(fits(2 * GIB, &room).now, Verdict::Fragmented);
        assert_eq!(fits(GIB / 2, &room).now, Verdict::Fits);
    }
}
