//! Which of a process's buffers are worth telling of one by one, and which of them came together: decided where they are released.
//!
//! The idea is that both follow from what a record holds anyway. A buffer is told when it was large and lived long. It belonged to a
//! burst, such as the loading of a model, when it was allocated while that burst lasted: so no buffer remembers its burst.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{MemoryType, Omission};

/// Bursts of one process that are remembered while buffers of them live; of older ones the buffers are told one by one.
const BURSTS_MAX: usize = 32;
/// A burst that lasts longer is told in parts, so that a day of steady work does not become one.
const BURST_NS_MAX: u64 = 60_000_000_000;
/// Orphans of one process that are told one by one, the largest; the rest is a sum.
pub const ORPHANS_TOLD_MAX: usize = 100;
/// Room for releases that a process keeps between batches.
const RELEASES_KEPT: usize = 64;

/// Which releases are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeedPolicy {
    /// Smaller buffers are not told.
    pub size_bytes_min: u64,
    /// Buffers that lived shorter are not told, nor any that lived for no time at all.
    pub lifetime_ns_min: u64,
    /// Allocations that follow one another within this time belong together.
    pub burst_gap_ns: u64,
    /// So many of them, held at the end of the burst, are told as one.
    pub burst_buffers_min: u64,
}

/// Why a buffer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The process freed it.
    Freed,
    /// Its id came again with another size or memory type: its free was lost.
    Replaced,
    /// Its device was closed while it was live.
    DeviceClosed,
    /// The process ended and still held it.
    ProcessExit,
}

/// One buffer, from allocation to release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Release {
    /// The id that the process gave it.
    pub id: u64,
    /// Its size.
    pub size_bytes: u64,
    /// When it was allocated, in monotonic nanoseconds.
    pub allocated_ns: u64,
    /// When it was released, in monotonic nanoseconds.
    pub released_ns: u64,
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// Why it ended.
    pub end: End,
}

/// Buffers and bytes of a burst in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BurstPart {
    /// The device's index.
    pub device: u16,
    /// The memory type.
    pub memory_type: MemoryType,
    /// Buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Many allocations in a short time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BurstAllocated {
    /// The first allocation, in monotonic nanoseconds.
    pub first_ns: u64,
    /// The last one.
    pub last_ns: u64,
    /// What of it is held at its end, by device and memory type.
    pub parts: Vec<BurstPart>,
}

/// How long the buffers of a burst were held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BurstHeld {
    /// The burst's first allocation, in monotonic nanoseconds.
    pub first_ns: u64,
    /// The burst's last allocation.
    pub last_ns: u64,
    /// When the last buffer was released.
    pub released_ns: u64,
    /// Buffers held at the burst's end.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Buffers that the process still held when it ended.
    pub orphaned_buffers: u64,
    /// Their bytes.
    pub orphaned_bytes: u64,
    live: u64,
}

/// What a process held at its end and that belonged to no burst.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Orphans {
    /// The largest ones.
    pub largest: Vec<Release>,
    /// Buffers beside these.
    pub more_buffers: u64,
    /// Their bytes.
    pub more_bytes: u64,
    /// When the oldest of them was allocated, in monotonic nanoseconds.
    pub more_oldest_ns: u64,
}

/// A burst that may still grow.
#[derive(Debug)]
struct OpenBurst {
    /// The end of time while there is none: no buffer is as young.
    first_ns: u64,
    last_ns: u64,
    /// What of it is held, by the number of the ledger's cell.
    parts: Vec<BurstPart>,
}

/// What one process's ledger has to tell.
#[derive(Debug)]
pub(super) struct Telling {
    policy: FeedPolicy,
    open: OpenBurst,
    /// Oldest first.
    closed: Vec<BurstHeld>,
    /// The last allocation of the last closed burst.
    closed_until_ns: u64,
    pub(super) releases: Vec<Release>,
    pub(super) allocated: Vec<BurstAllocated>,
    pub(super) released: Vec<BurstHeld>,
    pub(super) omitted: [u64; Omission::ALL.len()],
}

impl Telling {
    pub(super) fn new(policy: FeedPolicy) -> Self {
        Self {
            policy,
            open: OpenBurst { first_ns: u64::MAX, last_ns: 0, parts: Vec::new() },
            closed: Vec::new(),
            closed_until_ns: 0,
            releases: Vec::new(),
            allocated: Vec::new(),
            released: Vec::new(),
            omitted: [0; Omission::ALL.len()],
        }
    }

    /// A buffer was allocated, in the cell of that number.
    #[inline]
    pub(super) fn allocate(
        &mut self,
        cell: u16,
        device: u16,
        memory_type: MemoryType,
        size_bytes: u64,
        now_ns: u64,
    ) {
        // All of a batch happens at one time, and most of it in one place.
        if now_ns != self.open.last_ns || self.open.parts.len() <= usize::from(cell) {
            self.advance(cell, now_ns);
        }
        let part = &mut self.open.parts[usize::from(cell)];
        if part.buffers == 0 {
            (part.device, part.memory_type) = (device, memory_type);
        }
        part.buffers += 1;
        part.bytes += size_bytes;
    }

    /// Goes on to another time and to another cell.
    #[cold]
    fn advance(&mut self, cell: u16, now_ns: u64) {
        let is_over = now_ns.saturating_sub(self.open.last_ns) > self.policy.burst_gap_ns
            || now_ns.saturating_sub(self.open.first_ns) > BURST_NS_MAX;
        if is_over {
            self.close();
        }
        let open = &mut self.open;
        // Another thread's batch may be a little behind.
        open.first_ns = open.first_ns.min(now_ns);
        open.last_ns = open.last_ns.max(now_ns);
        if open.parts.len() <= usize::from(cell) {
            let empty = BurstPart { device: 0, memory_type: MemoryType::Dram, buffers: 0, bytes: 0 };
            open.parts.resize(usize::from(cell) + 1, empty);
        }
    }

    /// A buffer was released, in the cell of that number. The release is put together only if it is needed.
    #[inline]
    pub(super) fn release(
        &mut self,
        cell: u16,
        size_bytes: u64,
        allocated_ns: u64,
        now_ns: u64,
        release: impl Fn() -> Release,
    ) {
        if allocated_ns >= self.open.first_ns {
            if let Some(part) = self.open.parts.get_mut(usize::from(cell)) {
                part.buffers = part.buffers.saturating_sub(1);
                part.bytes = part.bytes.saturating_sub(size_bytes);
            }
        } else if allocated_ns <= self.closed_until_ns && self.fold(&release()) {
            return;
        }
        if size_bytes < self.policy.size_bytes_min {
            self.omitted[Omission::Small as usize] += 1;
        } else if now_ns.saturating_sub(allocated_ns) < self.policy.lifetime_ns_min.max(1) {
            self.omitted[Omission::Short as usize] += 1;
        } else {
            self.releases.push(release());
        }
    }

    /// Adds a release to the burst that the buffer belonged to; false if that is not known.
    #[cold]
    fn fold(&mut self, release: &Release) -> bool {
        let next = self.closed.partition_point(|burst| burst.first_ns <= release.allocated_ns);
        let Some(index) = next.checked_sub(1) else { return false };
        let burst = &mut self.closed[index];
        if release.allocated_ns > burst.last_ns {
            return false;
        }
        self.omitted[Omission::Burst as usize] += 1;
        burst.live = burst.live.saturating_sub(1);
        burst.released_ns = burst.released_ns.max(release.released_ns);
        if release.end == End::ProcessExit {
            burst.orphaned_buffers += 1;
            burst.orphaned_bytes += release.size_bytes;
        }
        if burst.live == 0 {
            let held = self.closed.remove(index);
            self.released.push(held);
        }
        true
    }

    /// Closes a burst to which nothing has been added for a while.
    pub(super) fn settle(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.open.last_ns) > self.policy.burst_gap_ns {
            self.close();
        }
    }

    fn close(&mut self) {
        let open = &mut self.open;
        let held = open.parts.iter().map(|part| part.buffers).sum();
        if held >= self.policy.burst_buffers_min && held > 0 {
            let parts: Vec<_> = open.parts.iter().filter(|part| part.buffers > 0).copied().collect();
            let bytes = parts.iter().map(|part| part.bytes).sum();
            if self.closed.len() == BURSTS_MAX {
                self.closed.remove(0);
            }
            self.closed.push(BurstHeld {
                first_ns: open.first_ns,
                last_ns: open.last_ns,
                released_ns: 0,
                buffers: held,
                bytes,
                orphaned_buffers: 0,
                orphaned_bytes: 0,
                live: held,
            });
            self.closed_until_ns = open.last_ns;
            self.allocated.push(BurstAllocated { first_ns: open.first_ns, last_ns: open.last_ns, parts });
        }
        (open.first_ns, open.last_ns) = (u64::MAX, 0);
        for part in &mut open.parts {
            (part.buffers, part.bytes) = (0, 0);
        }
    }

    /// The process has ended and these were its buffers. What belonged to a burst is told with it, the rest by size.
    pub(super) fn end(&mut self, held: impl Iterator<Item = Release>) -> Orphans {
        self.close();
        let mut largest = BinaryHeap::with_capacity(ORPHANS_TOLD_MAX + 1);
        let mut orphans = Orphans { more_oldest_ns: u64::MAX, ..Orphans::default() };
        for release in held {
            if release.allocated_ns <= self.closed_until_ns && self.fold(&release) {
                continue;
            }
            largest.push(Reverse(BySize(release)));
            if largest.len() > ORPHANS_TOLD_MAX
                && let Some(Reverse(BySize(smallest))) = largest.pop()
            {
                orphans.more_buffers += 1;
                orphans.more_bytes = orphans.more_bytes.saturating_add(smallest.size_bytes);
                orphans.more_oldest_ns = orphans.more_oldest_ns.min(smallest.allocated_ns);
            }
        }
        self.omitted[Omission::Orphans as usize] += orphans.more_buffers;
        orphans.largest = largest.into_iter().map(|Reverse(BySize(release))| release).collect();
        orphans.largest.sort_unstable_by_key(|release| (release.allocated_ns, release.id));
        orphans
    }

    /// The bursts that still have live buffers, for a process that has ended: nothing more will come of them.
    pub(super) fn take_unfinished(&mut self, now_ns: u64) -> Vec<BurstHeld> {
        let mut rest = std::mem::take(&mut self.released);
        rest.extend(self.closed.drain(..).map(|burst| BurstHeld { released_ns: now_ns, ..burst }));
        rest
    }

    /// Whether there is anything to hand over.
    pub(super) fn has_news(&self) -> bool {
        !self.releases.is_empty()
            || !self.allocated.is_empty()
            || !self.released.is_empty()
            || self.omitted.iter().any(|count| *count > 0)
    }

    /// Forgets what there is to hand over, but for what was left out already. Gives the number of spans.
    pub(super) fn hush(&mut self) -> u64 {
        let spans = self.releases.len() + self.allocated.len() + self.released.len();
        self.releases.clear();
        self.allocated.clear();
        self.released.clear();
        spans as u64
    }

    /// Gives back room that only a flood needs.
    pub(super) fn relax(&mut self) {
        self.releases.shrink_to(RELEASES_KEPT);
    }
}

/// Ordered by size; ids make the order of equal ones the same every time.
struct BySize(Release);

impl BySize {
    fn key(&self) -> (u64, Reverse<(u64, u16, u64)>) {
        (self.0.size_bytes, Reverse((self.0.allocated_ns, self.0.device, self.0.id)))
    }
}

impl PartialEq for BySize {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for BySize {}

impl PartialOrd for BySize {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BySize {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const POLICY: FeedPolicy = FeedPolicy {
        size_bytes_min: 1000,
        lifetime_ns_min: 1000 * MS,
        burst_gap_ns: 100 * MS,
        burst_buffers_min: 10,
    };

    fn telling() -> Telling {
        Telling::new(POLICY)
    }

    fn allocate(telling: &mut Telling, size_bytes: u64, now_ns: u64) {
        telling.allocate(0, 0, MemoryType::Dram, size_bytes, now_ns);
    }

    fn buffer(id: u64, size_bytes: u64, allocated_ns: u64, released_ns: u64) -> Release {
        let (device, memory_type, end) = (0, MemoryType::Dram, End::Freed);
        Release { id, size_bytes, allocated_ns, released_ns, device, memory_type, end }
    }

    fn release(telling: &mut Telling, release: Release) {
        let Release { size_bytes, allocated_ns, released_ns, .. } = release;
        telling.release(0, size_bytes, allocated_ns, released_ns, || release);
    }

    fn omitted(telling: &Telling, omission: Omission) -> u64 {
        telling.omitted[omission as usize]
    }

    #[test]
    fn only_large_buffers_that_lived_long_are_told() {
        let mut telling = telling();
        let check = |telling: &mut Telling, size_bytes, lifetime_ms: u64, is_told: bool| {
            let before = telling.releases.len();
            allocate(telling, size_bytes, 0);
            release(telling, buffer(1, size_bytes, 0, lifetime_ms * MS));
            assert_eq!(telling.releases.len() - before, usize::from(is_told), "{size_bytes} {lifetime_ms}");
        };
        check(&mut telling, 1000, 1000, true);
        check(&mut telling, 999, 1000, false);
        check(&mut telling, 1000, 999, false);
        check(&mut telling, 999, 1, false);
        assert_eq!((omitted(&telling, Omission::Small), omitted(&telling, Omission::Short)), (2, 1));
    }

    #[test]
    fn a_lifetime_of_nothing_is_never_told_so_that_no_two_spans_are_the_same() {
        let mut telling = Telling::new(FeedPolicy { lifetime_ns_min: 0, ..POLICY });
        allocate(&mut telling, 5000, 7);
        release(&mut telling, buffer(1, 5000, 7, 7));
        assert_eq!((telling.releases.len(), omitted(&telling, Omission::Short)), (0, 1));
    }

    #[test]
    fn a_load_is_one_burst_and_its_buffers_end_as_one() {
        let mut telling = telling();
        for index in 0..20 {
            allocate(&mut telling, 5000 + index, index * 50 * MS);
        }
        telling.settle(1000 * MS);
        assert_eq!(telling.allocated.len(), 0, "50 ms after the last one it may go on");
        telling.settle(1051 * MS);
        let [burst] = &telling.allocated[..] else { panic!("{:?}", telling.allocated) };
        assert_eq!((burst.first_ns, burst.last_ns), (0, 950 * MS));
        assert_eq!((burst.parts[0].buffers, burst.parts[0].bytes), (20, 20 * 5000 + 190));
        for index in 0..20 {
            assert!(telling.released.is_empty());
            release(&mut telling, buffer(index, 5000 + index, index * 50 * MS, 9000 * MS + index));
        }
        let [held] = telling.released[..] else { panic!("{:?}", telling.released) };
        assert_eq!((held.buffers, held.bytes, held.released_ns), (20, 20 * 5000 + 190, 9000 * MS + 19));
        assert!(telling.releases.is_empty());
        assert_eq!(omitted(&telling, Omission::Burst), 20);
    }

    #[test]
    fn steady_work_is_no_burst_however_dense() {
        let mut telling = telling();
        for index in 0..10_000 {
            allocate(&mut telling, 5000, index * MS);
            if let Some(earlier) = index.checked_sub(5) {
                release(&mut telling, buffer(earlier, 5000, earlier * MS, index * MS));
            }
        }
        telling.settle(20_000 * MS);
        assert!(telling.allocated.is_empty(), "never more than five are held");
    }

    #[test]
    fn a_burst_that_does_not_end_is_told_in_parts() {
        let mut telling = telling();
        for index in 0..2000 {
            allocate(&mut telling, 1, index * 50 * MS);
        }
        assert_eq!(telling.allocated.len(), 1, "100 seconds");
        assert_eq!(telling.allocated[0].last_ns, BURST_NS_MAX);
    }

    #[test]
    fn of_what_a_dead_process_held_the_largest_are_told_and_the_rest_is_a_sum() {
        let mut telling = telling();
        let held =
            (0..250u64).map(|index| Release { end: End::ProcessExit, ..buffer(index, 1 + index, 5, 9) });
        let orphans = telling.end(held);
        assert_eq!(orphans.largest.len(), ORPHANS_TOLD_MAX);
        assert!(orphans.largest.iter().all(|orphan| orphan.size_bytes > 150));
        assert_eq!((orphans.more_buffers, orphans.more_bytes), (150, 150 * 151 / 2));
        assert_eq!(omitted(&telling, Omission::Orphans), 150);
    }

    #[test]
    fn a_burst_that_was_still_held_is_told_with_the_end() {
        let mut telling = telling();
        for index in 0..12 {
            allocate(&mut telling, 100, index);
        }
        let held = (0..12).map(|index| Release { end: End::ProcessExit, ..buffer(index, 100, index, 50) });
        let orphans = telling.end(held.take(11));
        assert_eq!(orphans.largest, []);
        let [burst] = telling.take_unfinished(60)[..] else { panic!("one burst") };
        assert_eq!((burst.buffers, burst.orphaned_buffers, burst.released_ns), (12, 11, 60));
    }

    /// Whatever happens in whatever order, every buffer is told, folded into a burst or left out for a reason: once.
    #[test]
    fn every_buffer_is_accounted_for_once() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut telling = telling();
            let (mut live, mut now_ns, mut ended) = (Vec::new(), 1u64, 0);
            for id in 0..2000 {
                now_ns += [0, 1, MS, 90 * MS, 3000 * MS][random(5).min(random(5)) as usize];
                if random(3) > 0 {
                    let size_bytes = 1 + random(2000);
                    allocate(&mut telling, size_bytes, now_ns);
                    live.push(buffer(id, size_bytes, now_ns, 0));
                } else if !live.is_empty() {
                    let index = random(live.len() as u64) as usize;
                    release(&mut telling, Release { released_ns: now_ns, ..live.swap_remove(index) });
                    ended += 1;
                } else {
                    telling.settle(now_ns);
                }
            }
            let held = live.len() as u64;
            let exit = live.into_iter().map(|buffer| Release {
                released_ns: now_ns,
                end: End::ProcessExit,
                ..buffer
            });
            let orphans = telling.end(exit);
            let told = (telling.releases.len() + orphans.largest.len()) as u64;
            assert_eq!(told + telling.omitted.iter().sum::<u64>(), ended + held, "seed {seed}");
            for burst in telling.take_unfinished(now_ns) {
                assert!(burst.orphaned_buffers <= burst.buffers && burst.orphaned_bytes <= burst.bytes);
                assert_eq!(burst.live, 0, "seed {seed}: all of its buffers have been released: {burst:?}");
            }
        }
    }
}
