//! What time it is: read here, handed on as a parameter.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since the host started, suspended time included. Never jumps, and is the clock of processes' start times.
pub fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Boottime))
}

/// Nanoseconds since the epoch. May jump when somebody sets the clock.
pub fn unix_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

fn nanoseconds(time: Timespec) -> u64 {
    // Both clocks are after 1970 on any host that runs this; one set before it reads as 0.
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
