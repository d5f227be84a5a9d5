//! Memory of one process that is accounted by size alone: circular buffers and kernels, whose ids recur from program to program.
//!
//! The idea is to keep a sum for each client within the process that reports some, so that one of them may report anew what it holds.

use super::image::ShareImage;
use super::{KernelKind, KernelTally, MemoryType, Reporter};

/// What is added up: all circular buffers of a device, or its kernels of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sort {
    pub(super) device: u16,
    pub(super) memory_type: MemoryType,
    pub(super) kernel: Option<KernelKind>,
}

/// One client's sum.
pub(super) struct Share {
    pub(super) sort: Sort,
    reporter: Reporter,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

/// All sums. They are few: a search is faster than a table.
#[derive(Default)]
pub(super) struct BySize {
    shares: Vec<Share>,
}

impl BySize {
    /// All sums, as they are stored.
    pub(super) fn image(&self) -> Vec<ShareImage> {
        let image = |share: &Share| ShareImage {
            device: share.sort.device,
            memory_type: share.sort.memory_type as u8,
            kernel: share.sort.kernel.map(|kind| kind as u8),
            reporter: share.reporter.place(),
            blocks: share.blocks,
            bytes: share.bytes,
        };
        self.shares.iter().map(image).collect()
    }

    /// A sum that was stored.
    pub(super) fn restore(&mut self, sort: Sort, reporter: Reporter, blocks: u64, bytes: u64) {
        self.shares.push(Share { sort, reporter, blocks, bytes });
    }

    /// A client has taken a block.
    pub(super) fn take(&mut self, sort: Sort, reporter: Reporter, bytes: u64) {
        let is_wanted = |share: &Share| share.sort == sort && share.reporter == reporter;
        let index = self.shares.iter().position(is_wanted).unwrap_or_else(|| {
            self.shares.push(Share { sort, reporter, blocks: 0, bytes: 0 });
            self.shares.len() - 1
        });
        self.shares[index].blocks += 1;
        self.shares[index].bytes += bytes;
    }

    /// Bytes have been given back, by the client that took them or by another: gives the blocks that ended. `None` if there are not as many.
    pub(super) fn give_back(&mut self, sort: Sort, reporter: Reporter, bytes: u64) -> Option<u64> {
        let of_sort = self.shares.iter().filter(|share| share.sort == sort);
        if of_sort.map(|share| share.bytes).sum::<u64>() < bytes {
            return None;
        }
        let (mut rest, mut ended) = (bytes, 0);
        for is_own in [true, false] {
            for share in &mut self.shares {
                if rest > 0 && share.sort == sort && (share.reporter == reporter) == is_own {
                    let part = rest.min(share.bytes);
                    rest -= part;
                    ended += share.give_back(part);
                }
            }
        }
        Some(ended)
    }

    /// Forgets what a client holds, and gives it.
    pub(super) fn leave(&mut self, reporter: Reporter) -> Vec<Share> {
        self.shares.extract_if(.., |share| share.reporter == reporter).collect()
    }

    /// Kernels, by device and kind.
    pub(super) fn kernels(&self) -> Vec<(u16, KernelKind, KernelTally)> {
        let mut kernels: Vec<(u16, KernelKind, KernelTally)> = Vec::new();
        for share in &self.shares {
            let Some(kind) = share.sort.kernel.filter(|_| share.blocks > 0) else { continue };
            let place = (share.sort.device, kind);
            match kernels.iter_mut().find(|(device, kind, _)| (*device, *kind) == place) {
                Some((_, _, tally)) => {
                    tally.kernels += share.blocks;
                    tally.bytes += share.bytes;
                }
                None => {
                    let tally = KernelTally { kernels: share.blocks, bytes: share.bytes };
                    kernels.push((place.0, kind, tally));
                }
            }
        }
        kernels
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.shares.clear();
    }
}

impl Share {
    /// What was taken at once may be given back in parts, and the other way round: the last byte ends the last block.
    fn give_back(&mut self, bytes: u64) -> u64 {
        self.bytes -= bytes;
        let ended = if self.bytes == 0 { self.blocks } else { u64::from(self.blocks > 1) };
        self.blocks -= ended;
        ended
    }
}
