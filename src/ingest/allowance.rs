//! How many reports a connection, and all connections of a user, may bring in a second: what is beyond is read later, and nothing is lost.
//!
//! The idea is buckets of tokens that are paid afterwards. What a turn has brought is known when it has been read, so a bucket may be
//! overdrawn, and for as long as it then takes to be even again the connection is not read: its socket or ring fills, and its client waits.
//! A connection pays by the thousand, so a report costs an addition and a comparison, and neither lock nor clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::registry::RateLimit;

/// Reports between two payments: a millisecond's at the default rate.
const PAYMENT_REPORTS: u64 = 1024;
/// A bucket holds what comes in this time: a model that loads a second's worth of buffers at once is not delayed.
const BURST_NS: u64 = 1_000_000_000;
/// Reports that are read without delay of a process that has ended: more than its socket's buffer can hold.
const LAST_REPORTS: u64 = 64 * 1024;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Reports a second, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rate(u64);

impl Rate {
    /// None where nothing is limited.
    fn new(reports_per_second: u64) -> Option<Rate> {
        (reports_per_second > 0).then_some(Rate(reports_per_second))
    }

    /// Takes tokens for reports that have been read, and gives the time until the bucket is even again. All that is kept of it is the time
    /// at which it will be full.
    fn pay(self, full_at_ns: &mut u64, reports: u64, now_ns: u64) -> u64 {
        let cost_ns = u128::from(reports) * u128::from(NS_PER_SECOND) / u128::from(self.0);
        let cost_ns = u64::try_from(cost_ns).unwrap_or(u64::MAX);
        *full_at_ns = (*full_at_ns).max(now_ns).saturating_add(cost_ns);
        full_at_ns.saturating_sub(now_ns.saturating_add(BURST_NS))
    }
}

/// The limits, and the bucket of each user that is connected or was a moment ago.
#[derive(Debug)]
pub(super) struct Allowances {
    connection: Option<Rate>,
    user: Option<Rate>,
    by_user: Mutex<HashMap<u32, Bucket>>,
}

/// When it is full again.
type Bucket = Arc<Mutex<u64>>;

impl Allowances {
    /// With so many reports a second for each connection, and for those of each user; 0 for no limit.
    pub(super) fn new(connection_reports_per_second: u64, user_reports_per_second: u64) -> Arc<Allowances> {
        Arc::new(Allowances {
            connection: Rate::new(connection_reports_per_second),
            user: Rate::new(user_reports_per_second),
            by_user: Mutex::default(),
        })
    }

    /// That of a new connection.
    pub(super) fn open(self: &Arc<Self>, uid: u32, now_ns: u64) -> Allowance {
        let mut by_user = self.by_user.lock();
        if !by_user.contains_key(&uid) {
            // A bucket outlives its connections until it is full: whoever connects again finds it as it was.
            by_user.retain(|_, bucket| Arc::strong_count(bucket) > 1 || *bucket.lock() > now_ns);
        }
        let of_user = Arc::clone(by_user.entry(uid).or_default());
        Allowance { limits: Arc::clone(self), of_user, full_at_ns: 0, owed: 0, free: 0, is_excused: false }
    }
}

/// That of one connection.
#[derive(Debug)]
pub(super) struct Allowance {
    limits: Arc<Allowances>,
    of_user: Bucket,
    full_at_ns: u64,
    /// Reports that are read and not paid.
    owed: u64,
    /// Reports that are still to be read and need not be paid.
    free: u64,
    /// Whether its process has ended, which was made allowance for.
    is_excused: bool,
}

/// A time in which a connection is not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pause {
    pub(super) limit: RateLimit,
    pub(super) duration: Duration,
}

impl Allowance {
    /// That many reports have been read.
    pub(super) fn spend(&mut self, reports: u64) {
        self.owed += reports;
    }

    /// Whether enough has been read to pay for it.
    pub(super) fn is_due(&self) -> bool {
        self.owed >= PAYMENT_REPORTS
    }

    /// Pays for what has been read, and gives the time for which no more is to be read.
    pub(super) fn settle(&mut self, now_ns: u64) -> Option<Pause> {
        let read = std::mem::take(&mut self.owed);
        let reports = read.saturating_sub(self.free);
        self.free -= read - reports;
        let own_ns = self.limits.connection.map_or(0, |rate| rate.pay(&mut self.full_at_ns, reports, now_ns));
        let user_ns = self.limits.user.map_or(0, |rate| rate.pay(&mut self.of_user.lock(), reports, now_ns));
        let (limit, pause_ns) =
            if own_ns >= user_ns { (RateLimit::Connection, own_ns) } else { (RateLimit::User, user_ns) };
        (pause_ns > 0 && reports > 0).then_some(Pause { limit, duration: Duration::from_nanos(pause_ns) })
    }

    /// The process has ended: what its socket still holds is read at once, before what it held is reclaimed. Only that much, and once, as a
    /// fork may hold the other end and go on.
    pub(super) fn excuse(&mut self) {
        self.is_excused = true;
        self.free = LAST_REPORTS;
    }

    pub(super) fn is_excused(&self) -> bool {
        self.is_excused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NS_PER_SECOND;

    /// Reads as fast as it may until a time, `turn` reports at once, and gives how many it has read.
    fn flood(allowance: &mut Allowance, start_ns: u64, end_ns: u64, turn: u64) -> u64 {
        let (mut now_ns, mut read) = (start_ns, 0);
        while now_ns < end_ns {
            allowance.spend(turn);
            read += turn;
            if allowance.is_due()
                && let Some(pause) = allowance.settle(now_ns)
            {
                now_ns += pause.duration.as_nanos() as u64;
            }
            // A turn takes time as well.
            now_ns += 1000;
        }
        read
    }

    #[test]
    fn a_second_s_worth_at_once_and_then_the_rate() {
        for (rate, turn) in [(50_000, 1), (333_333, 910), (1_000_000, 4096), (1_000_000, 17), (7, 4096)] {
            let limits = Allowances::new(rate, 0);
            let mut allowance = limits.open(1000, 0);
            let first = flood(&mut allowance, 0, 10 * SECOND, turn);
            let (least, most) = (10 * rate, 11 * rate + turn + PAYMENT_REPORTS);
            assert!((least..=most).contains(&first), "{first} reports at {rate}/s, {turn} at once");
        }
    }

    #[test]
    fn what_is_slower_is_never_delayed() {
        let mut allowance = Allowances::new(1_000_000, 1_000_000).open(1000, 0);
        for millisecond in 0..20_000 {
            allowance.spend(999);
            assert_eq!(allowance.settle(millisecond * 1_000_000), None);
        }
        // Nor is the burst of a load, before which it was still.
        allowance.spend(999_000);
        assert_eq!(allowance.settle(21 * SECOND), None);
        allowance.spend(2 * 1_000_000);
        let pause = Pause { limit: RateLimit::Connection, duration: Duration::from_nanos(1_999_000_000) };
        assert_eq!(allowance.settle(21 * SECOND), Some(pause), "what is overdrawn is waited for");
    }

    #[test]
    fn a_user_s_connections_share_and_another_s_do_not() {
        let limits = Allowances::new(0, 1_000_000);
        let (mut first, mut second) = (limits.open(1000, 0), limits.open(1000, 0));
        let mut other = limits.open(1001, 0);
        first.spend(1_000_000);
        assert_eq!(first.settle(SECOND), None);
        second.spend(1024);
        let pause = second.settle(SECOND).expect("a pause");
        assert_eq!((pause.limit, pause.duration), (RateLimit::User, Duration::from_micros(1024)));
        other.spend(1_000_000);
        assert_eq!(other.settle(SECOND), None);
    }

    #[test]
    fn to_connect_again_pays_no_debts() {
        let limits = Allowances::new(0, 1_000_000);
        let mut first = limits.open(1000, 0);
        first.spend(3_000_000);
        assert!(first.settle(SECOND).is_some());
        drop(first);
        let mut again = limits.open(1000, SECOND);
        again.spend(1);
        assert_eq!(again.settle(SECOND).expect("a pause").duration, Duration::from_micros(2_000_001));
        drop(again);
        drop(limits.open(1001, 10 * SECOND));
        assert!(!limits.by_user.lock().contains_key(&1000), "a full bucket need not be remembered");
    }

    #[test]
    fn the_last_words_of_a_process_are_free_once() {
        let mut allowance = Allowances::new(1_000_000, 0).open(1000, 0);
        allowance.spend(2_000_000);
        assert!(allowance.settle(0).is_some());
        allowance.excuse();
        allowance.spend(LAST_REPORTS);
        assert_eq!(allowance.settle(0), None);
        allowance.spend(1);
        assert!(allowance.settle(0).is_some() && allowance.is_excused());
    }

    #[test]
    fn nothing_is_limited_by_zero_and_nothing_overflows() {
        let mut allowance = Allowances::new(0, 0).open(1000, 0);
        allowance.spend(u64::MAX);
        assert_eq!(allowance.settle(u64::MAX), None);
        let mut allowance = Allowances::new(1, 1).open(1000, 0);
        allowance.spend(u64::MAX);
        assert!(allowance.settle(1).is_some());
        allowance.spend(u64::MAX);
        assert!(allowance.settle(1).is_some());
    }
}
