//! What waits for the collector: a bounded queue between whoever produces and a signal's worker, with an exact account of every item.
//!
//! The idea is that an item counts against the bounds from the moment it is offered until the collector has answered for it, so that what
//! waits and what is on its way together never take more than the configuration allows. Every change and the whole account are under one
//! lock: offered = exported + dropped + held, whenever it is read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::account::{Account, DropReason, FailureReason};

/// Something that can be exported.
pub trait Item: Send + Sync + 'static {
    /// What the counters count: 1 for a span or a log record, the number of data points for a metric.
    fn count(&self) -> u64;

    /// About how much memory it takes.
    fn size_bytes(&self) -> u64;
}

/// How much may be held, and how it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items held at once.
    pub items_max: u64,
    /// Bytes held at once.
    pub bytes_max: u64,
    /// Items in one request, unless a single one is more.
    pub batch_items_max: u64,
    /// Bytes in one request, likewise.
    pub batch_bytes_max: u64,
    /// How long the first item of a batch waits for more.
    pub batch_delay: Duration,
}

/// A bounded queue. When it is full the newest items are dropped: their producer knows at once, and what has waited longest is not
/// thrown away for what has just come.
#[derive(Debug)]
pub struct Outbox<T> {
    limits: Limits,
    inside: Mutex<Inside<T>>,
    /// Wakes the worker that waits for a first item.
    arrived: Notify,
    /// Wakes the worker that waits for a batch to fill.
    filled: Notify,
}

#[derive(Debug)]
struct Inside<T> {
    waiting: VecDeque<T>,
    waiting_items: u64,
    waiting_bytes: u64,
    account: Account,
    is_closed: bool,
}

impl<T: Item> Outbox<T> {
    /// An empty one.
    pub fn new(limits: Limits) -> Arc<Outbox<T>> {
        let inside = Inside {
            waiting: VecDeque::new(),
            waiting_items: 0,
            waiting_bytes: 0,
            account: Account::default(),
            is_closed: false,
        };
        Arc::new(Outbox { limits, inside: Mutex::new(inside), arrived: Notify::new(), filled: Notify::new() })
    }

    /// Takes an item, or drops and counts it where there is no room. Never waits for the collector.
    pub fn offer(&self, item: T) -> bool {
        let (count, size_bytes) = (item.count(), item.size_bytes());
        self.take_in(count, size_bytes, |waiting| waiting.push_back(item))
    }

    /// The same for items that only make sense together: all or none.
    pub fn offer_all(&self, items: Vec<T>) -> bool {
        let count = items.iter().map(Item::count).sum();
        let size_bytes = items.iter().map(Item::size_bytes).sum();
        self.take_in(count, size_bytes, |waiting| waiting.extend(items))
    }

    fn take_in(&self, count: u64, size_bytes: u64, push: impl FnOnce(&mut VecDeque<T>)) -> bool {
        let (was_empty, is_full) = {
            let mut inside = self.inside.lock();
            inside.account.offered += count;
            let held = inside.account.held;
            if inside.is_closed {
                inside.account.drop(DropReason::Shutdown, count);
                return false;
            }
            if held.items + count > self.limits.items_max || held.bytes + size_bytes > self.limits.bytes_max {
                inside.account.drop(DropReason::QueueFull, count);
                return false;
            }
            inside.account.held.items += count;
            inside.account.held.bytes += size_bytes;
            let was_empty = inside.waiting.is_empty();
            push(&mut inside.waiting);
            inside.waiting_items += count;
            inside.waiting_bytes += size_bytes;
            (was_empty, self.is_batch(&inside))
        };
        if was_empty {
            self.arrived.notify_one();
        }
        if is_full {
            self.filled.notify_one();
        }
        true
    }

    /// The account at one instant.
    pub fn account(&self) -> Account {
        self.inside.lock().account
    }

    /// Refuses whatever is offered from now on; what waits can still be taken, and without delay.
    pub fn close(&self) {
        self.inside.lock().is_closed = true;
        self.arrived.notify_one();
        self.filled.notify_one();
    }

    /// Gives up what waits, as lost to the shutdown. Whoever has taken items answers for those.
    pub fn abandon(&self) {
        let mut inside = self.inside.lock();
        let (items, bytes) = (inside.waiting_items, inside.waiting_bytes);
        inside.account.release(items, bytes);
        inside.account.drop(DropReason::Shutdown, items);
        (inside.waiting_items, inside.waiting_bytes) = (0, 0);
        inside.waiting.clear();
    }

    /// An attempt to export failed; what becomes of its items is told by their claim.
    pub(super) fn failed(&self, reason: FailureReason) {
        self.inside.lock().account.fail(reason);
    }

    /// The next batch, when it is full or its first item has waited long enough. `None` once the outbox is closed and empty.
    pub(super) async fn take(self: &Arc<Self>) -> Option<(Vec<T>, Claim<T>)> {
        loop {
            let (is_empty, is_due) = {
                let inside = self.inside.lock();
                let is_empty = inside.waiting.is_empty();
                if is_empty && inside.is_closed {
                    return None;
                }
                (is_empty, inside.is_closed || self.is_batch(&inside))
            };
            if is_empty {
                self.arrived.notified().await;
                continue;
            }
            if !is_due {
                // However it ends, there is something to take.
                let _ = tokio::time::timeout(self.limits.batch_delay, self.filled.notified()).await;
            }
            if let Some(batch) = self.take_out() {
                return Some(batch);
            }
        }
    }

    fn take_out(self: &Arc<Self>) -> Option<(Vec<T>, Claim<T>)> {
        let mut inside = self.inside.lock();
        let mut claim = Claim { outbox: Arc::clone(self), items: 0, bytes: 0 };
        let mut items = Vec::new();
        while let Some(item) = inside.waiting.front() {
            let (count, size_bytes) = (item.count(), item.size_bytes());
            let fits = claim.items + count <= self.limits.batch_items_max
                && claim.bytes + size_bytes <= self.limits.batch_bytes_max;
            if !fits && !items.is_empty() {
                break;
            }
            claim.items += count;
            claim.bytes += size_bytes;
            items.extend(inside.waiting.pop_front());
        }
        inside.waiting_items -= claim.items;
        inside.waiting_bytes -= claim.bytes;
        drop(inside);
        (!items.is_empty()).then_some((items, claim))
    }

    fn is_batch(&self, inside: &Inside<T>) -> bool {
        inside.waiting_items >= self.limits.batch_items_max
            || inside.waiting_bytes >= self.limits.batch_bytes_max
    }
}

/// Answers for items that were taken: they are held until it says what became of them, and lost to the shutdown if it never does.
#[derive(Debug)]
pub(super) struct Claim<T: Item> {
    outbox: Arc<Outbox<T>>,
    items: u64,
    bytes: u64,
}

impl<T: Item> Claim<T> {
    /// The collector has taken all but `rejected` of them.
    pub(super) fn exported(mut self, rejected: u64) {
        self.settle(|account, items| {
            let rejected = rejected.min(items);
            account.exported += items - rejected;
            account.drop(DropReason::Rejected, rejected);
        });
    }

    /// They are given up.
    pub(super) fn dropped(mut self, reason: DropReason) {
        self.settle(|account, items| account.drop(reason, items));
    }

    fn settle(&mut self, tell: impl FnOnce(&mut Account, u64)) {
        let (items, bytes) = (std::mem::take(&mut self.items), std::mem::take(&mut self.bytes));
        let mut inside = self.outbox.inside.lock();
        inside.account.release(items, bytes);
        tell(&mut inside.account, items);
    }

    /// How many items they are.
    pub(super) fn items(&self) -> u64 {
        self.items
    }
}

impl<T: Item> Drop for Claim<T> {
    fn drop(&mut self) {
        if self.items > 0 {
            self.settle(|account, items| account.drop(DropReason::Shutdown, items));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Item for u64 {
        fn count(&self) -> u64 {
            1
        }

        fn size_bytes(&self) -> u64 {
            *self
        }
    }

    fn outbox() -> Arc<Outbox<u64>> {
        Outbox::new(Limits {
            items_max: 4,
            bytes_max: 100,
            batch_items_max: 2,
            batch_bytes_max: 50,
            batch_delay: Duration::from_secs(3600),
        })
    }

    #[track_caller]
    fn assert_adds_up(outbox: &Outbox<u64>) -> Account {
        let account = outbox.account();
        assert_eq!(
            account.offered,
            account.exported + account.dropped_sum() + account.held.items,
            "{account:?}"
        );
        account
    }

    fn take(outbox: &Arc<Outbox<u64>>) -> Option<(Vec<u64>, Claim<u64>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(outbox.take())
    }

    #[test]
    fn both_bounds_count_what_is_on_its_way() {
        let outbox = outbox();
        assert!((0..4).all(|_| outbox.offer(1)));
        let (items, claim) = take(&outbox).expect("a batch is there");
        assert_eq!(items, [1, 1]);
        assert!(!outbox.offer(1), "two wait and two are on their way");
        claim.exported(1);
        assert!(outbox.offer(90) && !outbox.offer(20), "ninety and two bytes are held");
        let account = assert_adds_up(&outbox);
        assert_eq!((account.exported, account.dropped_for(DropReason::Rejected)), (1, 1));
        assert_eq!(account.dropped_for(DropReason::QueueFull), 2);
        assert_eq!((account.held.items, account.held.bytes), (3, 92));
    }

    #[test]
    fn batches_end_at_either_bound_and_keep_the_order() {
        let outbox = outbox();
        for size in [10, 20, 45, 5] {
            assert!(outbox.offer(size));
        }
        let batches = std::iter::from_fn(|| {
            outbox.close();
            take(&outbox).map(|(items, claim)| {
                claim.exported(0);
                items
            })
        });
        assert_eq!(batches.collect::<Vec<_>>(), [vec![10, 20], vec![45, 5]]);
        assert_eq!(assert_adds_up(&outbox).exported, 4);
    }

    #[test]
    fn all_or_none() {
        let outbox = outbox();
        assert!(outbox.offer_all(vec![1, 1, 1]));
        assert!(!outbox.offer_all(vec![1, 1]));
        assert_eq!(assert_adds_up(&outbox).dropped_for(DropReason::QueueFull), 2);
    }

    #[test]
    fn what_the_shutdown_overtakes_is_counted() {
        let outbox = outbox();
        assert!((0..3).all(|_| outbox.offer(1)));
        let (_, claim) = take(&outbox).expect("a batch is there");
        outbox.close();
        assert!(!outbox.offer(1), "it is closed");
        outbox.abandon();
        drop(claim);
        let account = assert_adds_up(&outbox);
        assert_eq!(
            (account.dropped_for(DropReason::Shutdown), account.held.items, account.held.bytes),
            (4, 0, 0)
        );
        assert!(take(&outbox).is_none());
    }
}
