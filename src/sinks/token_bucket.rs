//! How often something may happen: a bucket of tokens that fills at a steady rate.

use parking_lot::Mutex;

/// The rate and the size of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Time in which one token appears.
    pub(super) interval_ns: u64,
    /// Tokens that the bucket holds.
    pub(super) burst: u32,
}

impl Rate {
    /// Takes a token. All that is kept of a bucket is the time at which it will be full again. Without a token, the
    /// time until there is one.
    pub(super) fn take(self, full_at_ns: &mut u64, now_ns: u64) -> Result<(), u64> {
        let full_at = (*full_at_ns).max(now_ns).saturating_add(self.interval_ns);
        let latest = now_ns.saturating_add(self.interval_ns.saturating_mul(self.burst.into()));
        if full_at > latest {
            return Err(full_at - latest);
        }
        *full_at_ns = full_at;
        Ok(())
    }

    /// Puts a token back.
    pub(super) fn put_back(self, full_at_ns: &mut u64) {
        *full_at_ns = full_at_ns.saturating_sub(self.interval_ns);
    }
}

/// One bucket.
#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: Rate,
    full_at_ns: Mutex<u64>,
}

impl TokenBucket {
    pub(super) fn new(rate: Rate) -> TokenBucket {
        TokenBucket { rate, full_at_ns: Mutex::new(0) }
    }

    /// Takes a token, or says in how many nanoseconds there will be one.
    pub(super) fn take(&self, now_ns: u64) -> Result<(), u64> {
        self.rate.take(&mut self.full_at_ns.lock(), now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_steady_rate() {
        let bucket = TokenBucket::new(Rate { interval_ns: 10, burst: 3 });
        let taken = |now_ns: u64| bucket.take(now_ns);
        assert_eq!([taken(100), taken(100), taken(100)], [Ok(()); 3]);
        assert_eq!(taken(100), Err(10));
        assert_eq!(taken(104), Err(6));
        assert_eq!(taken(110), Ok(()));
        assert_eq!(taken(110), Err(10));
        assert_eq!([taken(1_000), taken(1_000), taken(1_000)], [Ok(()); 3], "it holds no more than its size");
        assert_eq!(taken(1_000), Err(10));
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let rate = Rate { interval_ns: 10, burst: 1 };
        let mut full_at_ns = 0;
        assert_eq!(rate.take(&mut full_at_ns, 50), Ok(()));
        assert_eq!(rate.take(&mut full_at_ns, 50), Err(10));
        rate.put_back(&mut full_at_ns);
        assert_eq!(rate.take(&mut full_at_ns, 50), Ok(()));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let rate = Rate { interval_ns: u64::MAX, burst: u32::MAX };
        let mut full_at_ns = 0;
        assert_eq!(rate.take(&mut full_at_ns, u64::MAX), Ok(()));
    }
}
