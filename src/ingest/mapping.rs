//! Memory that another process writes, as words that are read and written whole.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping of sealed memory.
pub(super) struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

#[allow(unsafe_code, reason = "memory shared with another process has no safe form")]
// SAFETY: it is nothing but atomics, which every thread may use.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps that many words of memory that cannot become shorter.
    pub(super) fn new(memory: impl AsFd, count: usize) -> io::Result<Mapping> {
        let bytes = count * size_of::<AtomicU64>();
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        #[allow(unsafe_code, reason = "a mapping has no safe form")]
        // SAFETY: a new mapping at an address that the kernel chooses takes nothing away from anybody.
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, flags, memory, 0) }?;
        match NonNull::new(start.cast()) {
            Some(words) => Ok(Mapping { words, count }),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        #[allow(unsafe_code, reason = "memory shared with another process has no safe form")]
        // SAFETY: the mapping has that many words, page-aligned, until it is dropped. It is sealed, so no access can fault. Others
        // write it at any time, which atomics allow; any bits are a number.
        unsafe {
            std::slice::from_raw_parts(self.words.as_ptr(), self.count)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "a mapping has no safe form")]
        // SAFETY: this is the whole of our own mapping, and nobody borrows from it any more. It cannot fail for one that exists.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}
