//! How a thread that reports and the one that puts other rings into force find out about each other, without waiting for one another's locks.
//!
//! The idea is that both draw a number from the same counter. All draws are in one order: either the thread's comes first, and whoever
//! replaces the rings sees that it is busy, or it comes second, and the thread sees the new epoch. No further fence is needed.

use std::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use ttmem_wire::ring::Word;

/// Begins a report into rings of an epoch: its number, if that epoch is still in force. The thread is busy until [`end`] says otherwise.
#[inline]
pub(crate) fn begin<W: Word>(order: &W, epoch: &W, busy: &W, own_epoch: u64) -> Option<u64> {
    busy.store(1, Relaxed);
    let number = order.add(1, AcqRel);
    if epoch.load(Acquire) == own_epoch {
        return Some(number);
    }
    end(busy);
    None
}

/// Ends a report that has begun.
#[inline]
pub(crate) fn end<W: Word>(busy: &W) {
    busy.store(0, Release);
}

/// Ends an epoch, whose threads may still be busy. Only for one thread at a time. Reports of that epoch have smaller numbers than the
/// one that is given.
pub(crate) fn end_epoch<W: Word>(order: &W, epoch: &W) -> u64 {
    epoch.add(1, Release);
    order.add(1, AcqRel)
}

/// Whether a thread is in the middle of a report of an epoch that has ended; once it is not, it never will be again.
pub(crate) fn is_busy<W: Word>(busy: &W) -> bool {
    busy.load(Acquire) != 0
}

/// Under the model checker, which goes through every way in which threads can meet and memory can be late. The models are the code that
/// runs, over the checker's words. They fail when it is weakened in a single place: without the Release of a draw or its Acquire, without
/// the draw of who replaces, without the Release at a report's end or the Acquire of the look at it. Miri cannot switch the checker's
/// stacks.
#[cfg(all(test, not(miri)))]
mod tests {
    use std::sync::atomic::Ordering;

    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, fence};
    use loom::thread;

    use super::*;

    /// Threads are stopped in mid-run at most this often; more finds nothing new and takes minutes.
    const PREEMPTIONS_MAX: usize = 3;

    struct LoomWord(AtomicU64);

    impl Word for LoomWord {
        fn load(&self, ordering: Ordering) -> u64 {
            self.0.load(ordering)
        }

        fn store(&self, value: u64, ordering: Ordering) {
            self.0.store(value, ordering);
        }

        fn swap(&self, value: u64, ordering: Ordering) -> u64 {
            self.0.swap(value, ordering)
        }

        fn add(&self, value: u64, ordering: Ordering) -> u64 {
            self.0.fetch_add(value, ordering)
        }

        fn fence(ordering: Ordering) {
            fence(ordering);
        }
    }

    /// Two threads' rings of the first epoch, each only ever for one at a time: the checker sees where two meet in it.
    struct Rings {
        order: LoomWord,
        epoch: LoomWord,
        busy: [LoomWord; 2],
        records: [UnsafeCell<Vec<u64>>; 2],
    }

    impl Rings {
        fn new() -> Arc<Rings> {
            let word = || LoomWord(AtomicU64::new(0));
            let records = || UnsafeCell::new(Vec::new());
            Arc::new(Rings {
                order: word(),
                epoch: word(),
                busy: [word(), word()],
                records: [records(), records()],
            })
        }

        /// As many reports as go into the first epoch's ring.
        fn report(&self, ring: usize, reports: u32) {
            for _ in 0..reports {
                let Some(number) = begin(&self.order, &self.epoch, &self.busy[ring], 0) else { return };
                // SAFETY: the ring is this thread's while it is busy, which is what is checked here.
                self.records[ring].with_mut(|records| unsafe { (*records).push(number) });
                end(&self.busy[ring]);
            }
        }

        /// What all of `end_epoch` has to wait for before the rings are its caller's.
        fn take(&self) -> [Vec<u64>; 2] {
            std::array::from_fn(|ring| {
                while is_busy(&self.busy[ring]) {
                    thread::yield_now();
                }
                // SAFETY: as above, no thread begins a report of this epoch any more.
                self.records[ring].with_mut(|records| unsafe { std::mem::take(&mut *records) })
            })
        }
    }

    fn model(check: impl Fn() + Sync + Send + 'static) {
        let mut checker = loom::model::Builder::new();
        checker.preemption_bound = Some(PREEMPTIONS_MAX);
        checker.check(check);
    }

    #[test]
    fn rings_that_were_replaced_are_written_by_nobody() {
        model(|| {
            let rings = Rings::new();
            let threads = [0, 1].map(|ring| {
                let rings = Arc::clone(&rings);
                thread::spawn(move || rings.report(ring, 1))
            });
            let number = end_epoch(&rings.order, &rings.epoch);
            let taken = rings.take();
            assert!(taken.iter().flatten().all(|earlier| *earlier < number), "{taken:?}, {number}");
            threads.into_iter().for_each(|thread| thread.join().expect("a thread ends"));
            assert!(rings.take().iter().all(Vec::is_empty), "a report after the last");
        });
    }

    #[test]
    fn a_thread_that_goes_on_reporting_is_stopped_once() {
        model(|| {
            let rings = Rings::new();
            let reporter = {
                let rings = Arc::clone(&rings);
                thread::spawn(move || rings.report(0, 2))
            };
            let number = end_epoch(&rings.order, &rings.epoch);
            let [taken, _] = rings.take();
            assert!(taken.is_sorted() && taken.iter().all(|earlier| *earlier < number));
            reporter.join().expect("a thread ends");
            assert!(rings.take().iter().all(Vec::is_empty), "a report after the last");
        });
    }
}
