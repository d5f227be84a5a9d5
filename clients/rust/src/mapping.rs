//! Memory that is shared with the server, as words that are read and written whole.

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
    /// Maps that many words for reading and writing, if the memory has them and can never have fewer: a report must not end the program.
    pub(crate) fn for_both(memory: BorrowedFd<'_>, count: usize) -> io::Result<Mapping> {
        if sealed_bytes(memory)? < count * size_of::<AtomicU64>() {
            return Err(io::Error::other("the memory is smaller than it was said to be"));
        }
        Mapping::new(memory, count, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps all of it for reading, if it can never become less.
    pub(crate) fn for_reading(memory: BorrowedFd<'_>) -> io::Result<Mapping> {
        let count = sealed_bytes(memory)? / size_of::<AtomicU64>();
        Mapping::new(memory, count, libc::PROT_READ)
    }

    fn new(memory: BorrowedFd<'_>, count: usize, protection: libc::c_int) -> io::Result<Mapping> {
        let bytes = count * size_of::<AtomicU64>();
        // SAFETY: a new mapping at an address that the kernel chooses takes nothing away from anybody.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, memory.as_raw_fd(), 0)
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

/// The size of memory that can never shrink.
fn sealed_bytes(memory: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: takes no pointers.
    let seals = unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_GET_SEALS) };
    if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
        return Err(io::Error::other("the memory can be taken away while it is used: it is not sealed"));
    }
    // SAFETY: any bytes are a valid stat, which the call fills in.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` outlives the call.
    if unsafe { libc::fstat(memory.as_raw_fd(), &raw mut status) } < 0 {
        return Err(io::Error::last_os_error());
    }
    usize::try_from(status.st_size).map_err(io::Error::other)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    const BYTES: i64 = 8192;

    fn memory(seals: libc::c_int) -> OwnedFd {
        // SAFETY: the name outlives the call; what it opens is nobody else's.
        let memory = unsafe {
            OwnedFd::from_raw_fd(libc::memfd_create(
                c"test".as_ptr(),
                libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC,
            ))
        };
        // SAFETY: takes no pointers.
        let outcome = unsafe { libc::ftruncate(memory.as_raw_fd(), BYTES) };
        // SAFETY: as above.
        let sealed = unsafe { libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        assert_eq!((outcome, sealed), (0, 0));
        memory
    }

    #[test]
    fn memory_that_can_be_taken_away_is_not_mapped() {
        for seals in [0, libc::F_SEAL_GROW] {
            let unsealed = memory(seals);
            assert!(Mapping::for_reading(unsealed.as_fd()).is_err());
            assert!(Mapping::for_both(unsealed.as_fd(), 8).is_err());
        }
        let (no_memory, _) = io::pipe().expect("a pipe");
        assert!(Mapping::for_reading(no_memory.as_fd()).is_err());
    }

    #[test]
    fn no_more_is_mapped_than_there_is() {
        let sealed = memory(libc::F_SEAL_SHRINK);
        let words = BYTES as usize / 8;
        assert!(Mapping::for_both(sealed.as_fd(), words + 1).is_err());
        let both = Mapping::for_both(sealed.as_fd(), words).expect("a mapping");
        let reading = Mapping::for_reading(sealed.as_fd()).expect("a mapping");
        both.words()[words - 1].store(7, Relaxed);
        assert_eq!((reading.words().len(), reading.words()[words - 1].load(Relaxed)), (words, 7));
    }
}
