//! Memory that the server reads, as words that are read and written whole.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// A mapping of memory that the server has made and sealed.
#[derive(Debug)]
pub(crate) struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: it is nothing but atomics, which every thread may use.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps that many words, if the memory has them and can never have fewer: a report must not end the program.
    pub(crate) fn new(memory: BorrowedFd<'_>, count: usize) -> io::Result<Mapping> {
        let bytes = count * size_of::<AtomicU64>();
        check(memory, bytes)?;
        // SAFETY: a new mapping at an address that the kernel chooses takes nothing away from anybody.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                memory.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { words, count })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has that many words, page-aligned, until it is dropped, and its memory cannot shrink. The server writes it
        // at any time, which atomics allow; any bits are a number.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the whole of our own mapping, and nobody borrows from it any more.
        let _ = unsafe { libc::munmap(self.words.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}

fn check(memory: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let seals = unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) };
    // SAFETY: any bytes are a valid stat, which the call fills in.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` outlives the call.
    let outcome = unsafe { libc::fstat(memory.as_raw_fd(), &raw mut status) };
    let is_large_enough = outcome == 0 && usize::try_from(status.st_size).is_ok_and(|size| size >= bytes);
    if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 || !is_large_enough {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}
