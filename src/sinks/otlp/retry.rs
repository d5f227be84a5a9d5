//! When a request that failed is tried again: pauses that double, blurred so that many daemons do not come back at once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Long enough for a hiccup to pass.
const FIRST: Duration = Duration::from_millis(500);
/// A collector that is back waits no longer than this, and one that is away is asked no more often.
const LONGEST: Duration = Duration::from_secs(30);

/// The pause after a number of failed attempts in a row, at least one: within a quarter of what doubling gives.
pub(super) fn pause(failures: u32) -> Duration {
    blurred(failures, RandomState::new().build_hasher().finish())
}

fn blurred(failures: u32, random: u64) -> Duration {
    let doubled =
        FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST);
    let share = (random % 1024) as f64 / 1024.0;
    doubled.mul_f64(0.75 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_within_a_quarter() {
        let check = |failures: u32, random: u64, expected_ms: u128| {
            assert_eq!(blurred(failures, random).as_millis(), expected_ms, "{failures} {random}");
        };
        check(1, 512, 500);
        check(1, 0, 375);
        check(1, 1023, 624);
        check(2, 512, 1000);
        check(6, 512, 16_000);
        check(7, 512, 30_000);
        check(32, 512, 30_000);
        check(u32::MAX, 512, 30_000);
        assert!((1..20).any(|_| pause(1) != pause(1)), "many daemons must not come back at once");
    }
}
