//! What time it is: read here, handed on as a parameter.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A time of day that has come to differ by more than this from the one that the monotonic clock leads to has been set.
const JUMP_NS: u64 = 100_000_000;

/// The time of day minus the monotonic clock, as it was when the time of day was last found to have been set.
static OFFSET_NS: AtomicI64 = AtomicI64::new(i64::MIN);

/// Nanoseconds since the host started, suspended time included. Never jumps, and is the clock of processes' start times.
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds since the epoch. Jumps when somebody sets the clock.
pub fn unix_ns() -> u64 {
    now().1
}

/// Both at one instant, monotonic first, for what happens too often to look at both: the time of day is the one that the monotonic clock
/// leads to. If somebody has set it, that shows only when [`now`] has been asked, as every scrape does.
pub fn now_by_monotonic() -> (u64, u64) {
    let monotonic = monotonic_ns();
    unix_by(monotonic).map_or_else(now, |unix| (monotonic, unix))
}

/// Both at one instant, monotonic first. While nobody sets the clock their difference stays the same to the nanosecond, so that a
/// moment of the one is always the same moment of the other.
pub fn now() -> (u64, u64) {
    let monotonic = monotonic_ns();
    let unix = nanoseconds(libc::CLOCK_REALTIME);
    match unix_by(monotonic).filter(|steady| steady.abs_diff(unix) <= JUMP_NS) {
        Some(steady) => (monotonic, steady),
        None => {
            OFFSET_NS.store(unix.cast_signed().wrapping_sub(monotonic.cast_signed()), Relaxed);
            (monotonic, unix)
        }
    }
}

/// The time of day that the monotonic clock leads to, if it has been found out.
fn unix_by(monotonic: u64) -> Option<u64> {
    let unix = OFFSET_NS.load(Relaxed).checked_add_unsigned(monotonic)?;
    u64::try_from(unix).ok()
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[allow(
        unsafe_code,
        reason = "the safe wrapper finds the kernel's clock by itself, where valgrind, which counts our instructions, has removed it"
    )]
    // SAFETY: the kernel writes one timespec into `time`, which outlives the call. Both clocks exist on every Linux, so it cannot fail.
    unsafe {
        libc::clock_gettime(clock, &raw mut time);
    }
    // Both clocks are after 1970 on any host that runs this; one set before it reads as 0.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_of_one_clock_is_one_moment_of_the_other() {
        let difference = || {
            let (monotonic, unix) = now();
            unix - monotonic
        };
        let first = difference();
        assert!((0..1000).all(|_| difference() == first));
        let (monotonic, unix) = now_by_monotonic();
        assert_eq!(unix - monotonic, first);
    }
}
