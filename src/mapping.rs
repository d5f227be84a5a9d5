//! Memory that is shared with other processes: made and sealed here, and mapped by whoever gets its descriptor.
//!
//! The idea is that what a descriptor is good for is decided by seals, which nobody can undo: never to take the memory away from under a
//! reader, and for memory that is ours alone to write, set when our own writable mapping exists already, never to write it either.

#![allow(unsafe_code, reason = "mapping memory, and using what is mapped as words, has no safe way")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Words of shared memory in this process's address space.
struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory belongs to the mapping alone, and all access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(descriptor: BorrowedFd<'_>, bytes: usize, protection: ProtFlags) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe { mmap(null_mut(), bytes, protection, MapFlags::SHARED, descriptor, 0) }?;
        let words = NonNull::new(address.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { words, count: bytes / size_of::<AtomicU64>() })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, is `count` words long, and lives as long as `self`. Its file cannot shrink, as
        // `Shared` has sealed it. Any bits are a word, and other processes' writes are seen as atomic ones.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let address: *mut c_void = self.words.as_ptr().cast();
        // SAFETY: nothing borrows the words any more. It fails only for ranges that were never mapped.
        let _ = unsafe { munmap(address, self.count * size_of::<AtomicU64>()) };
    }
}

/// Memory that this process writes.
pub struct Shared {
    mapping: Mapping,
    descriptor: OwnedFd,
}

impl Shared {
    /// Zeroed memory of that size, a multiple of 8, that others can only read. Pages that nobody writes to cost nothing.
    pub fn create(name: &str, bytes: usize) -> io::Result<Shared> {
        Shared::sealed(name, bytes, SealFlags::FUTURE_WRITE)
    }

    /// The same, but whoever gets its descriptor writes it too.
    pub fn create_for_both(name: &str, bytes: usize) -> io::Result<Shared> {
        Shared::sealed(name, bytes, SealFlags::empty())
    }

    fn sealed(name: &str, bytes: usize, seals: SealFlags) -> io::Result<Shared> {
        let sealable = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know of memory that can never be executed, and newer ones may allow no other.
        let descriptor = match memfd_create(name, sealable | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create(name, sealable)?,
            made => made?,
        };
        ftruncate(&descriptor, bytes as u64)?;
        let mapping = Mapping::new(descriptor.as_fd(), bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        fcntl_add_seals(&descriptor, seals | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Shared { mapping, descriptor })
    }

    /// Memory for both that another process of ours has made; nothing else than that is taken for it.
    pub fn adopt(descriptor: OwnedFd, bytes: usize) -> io::Result<Shared> {
        let is_fixed = fcntl_get_seals(&descriptor)?.contains(SealFlags::SHRINK | SealFlags::GROW);
        if !is_fixed || fstat(&descriptor)?.st_size != bytes as i64 {
            return Err(io::Error::other("the memory is not what it was said to be"));
        }
        let mapping = Mapping::new(descriptor.as_fd(), bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Shared { mapping, descriptor })
    }

    /// The words that it is made of.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        self.mapping.words()
    }

    /// What others map it by, for reading.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    const BYTES: usize = 8192;

    #[test]
    fn what_is_written_is_seen_by_who_maps_it() {
        let shared = Shared::create("test", BYTES).expect("memory");
        let view = Mapping::new(shared.descriptor(), BYTES, ProtFlags::READ).expect("a mapping");
        assert_eq!((view.words().len(), view.words()[1023].load(Relaxed)), (BYTES / 8, 0));
        shared.words()[1023].store(7, Relaxed);
        assert_eq!(view.words()[1023].load(Relaxed), 7);
        drop(shared);
        assert_eq!(view.words()[1023].load(Relaxed), 7, "the memory outlives its maker");
    }

    #[test]
    fn a_descriptor_is_good_for_nothing_but_reading() {
        let shared = Shared::create("test", BYTES).expect("memory");
        let descriptor = shared.descriptor();
        let writable = Mapping::new(descriptor, BYTES, ProtFlags::READ | ProtFlags::WRITE);
        assert_eq!(writable.err().and_then(|error| error.raw_os_error()), Some(libc::EPERM));
        assert_eq!(rustix::io::pwrite(descriptor, &[1], 0), Err(Errno::PERM));
        for bytes in [0, 2 * BYTES as u64] {
            assert_eq!(ftruncate(descriptor, bytes), Err(Errno::PERM));
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(descriptor, hole, 0, 4096), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(descriptor, SealFlags::WRITE), Err(Errno::PERM));
    }

    #[test]
    fn memory_for_both_is_written_by_both_and_keeps_its_size() {
        let shared = Shared::create_for_both("test", BYTES).expect("memory");
        let theirs =
            Mapping::new(shared.descriptor(), BYTES, ProtFlags::READ | ProtFlags::WRITE).expect("a mapping");
        theirs.words()[0].store(7, Relaxed);
        assert_eq!(shared.words()[0].load(Relaxed), 7);
        assert_eq!(ftruncate(shared.descriptor(), 0), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(shared.descriptor(), SealFlags::WRITE), Err(Errno::PERM));
    }
}
