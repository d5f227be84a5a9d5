//! A file in memory: what is stored there outlives the process that stored it, however that ends.

#![allow(unsafe_code, reason = "mapping memory, and letting the kernel write into it, has no safe way")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes that the kernel's description of one message takes, in words.
pub(super) const MESSAGE_WORDS: usize = size_of::<libc::mmsghdr>().div_ceil(size_of::<u64>());
/// What stands where the kernel will say how many bytes it has moved.
pub(super) const NOT_YET: u32 = u32::MAX;

/// A file of this process's own, mapped whole. Nobody else may cut it short: it is in a directory that nobody else can write to.
pub(super) struct FileMap {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value alone. What is written goes through `&mut self` or through the one writer that holds the
// segment, and what is lent out is no longer written.
unsafe impl Send for FileMap {}
// SAFETY: as above.
unsafe impl Sync for FileMap {}

/// Which way bytes go between a socket and the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    In,
    Out,
}

/// What the kernel said about a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    pub(super) bytes: usize,
    /// There were descriptors, which are closed, and there may be more to read.
    pub(super) is_cut: bool,
}

impl FileMap {
    /// Maps a file of that size, a multiple of 8. All of it must be allocated: a store into a hole on a full disk is a signal.
    pub(super) fn new(file: impl AsFd, bytes: usize) -> io::Result<FileMap> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let address = unsafe { mmap(null_mut(), bytes, protection, flags, file.as_fd(), 0) }?;
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(FileMap { address, bytes })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(
            offset <= self.bytes && bytes <= self.bytes - offset,
            "{offset} and {bytes} more of {}",
            self.bytes
        );
        // SAFETY: it was just checked that this lies in the mapping, or at its end.
        unsafe { self.address.as_ptr().add(offset) }
    }

    /// A word, at a multiple of 8.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(size_of::<u64>()));
        // SAFETY: it lies in the mapping, which begins at a page, and is aligned. Any bits are a word.
        unsafe { AtomicU64::from_ptr(self.at(offset, size_of::<u64>()).cast()) }
    }

    /// Stores words beside each other.
    pub(super) fn store(&self, offset: usize, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            self.word(offset + index * size_of::<u64>()).store(*word, Relaxed);
        }
    }

    /// Stores one word, after everything that was stored before it.
    pub(super) fn publish(&self, offset: usize, word: u64) {
        self.word(offset).store(word, Release);
    }

    /// Stores bytes.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: the place lies in the mapping, and nobody has been lent it: only the segment's writer, which calls this, knows it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset, bytes.len()), bytes.len()) };
    }

    /// Bytes that are not written any more.
    pub(super) fn bytes(&self, offset: usize, bytes: usize) -> &[u8] {
        // SAFETY: the place lies in the mapping, whose file is as long as it was when it was mapped, and its writer has gone on.
        unsafe { std::slice::from_raw_parts(self.at(offset, bytes), bytes) }
    }

    /// Moves bytes between a socket and a place here, without waiting. How many they were, the kernel notes in the file itself, in
    /// the last word of the message at `message`: if this process dies in the next instant, that is known.
    pub(super) fn move_bytes(
        &self,
        socket: BorrowedFd<'_>,
        way: Way,
        message: usize,
        place: usize,
        bytes: usize,
    ) -> io::Result<Moved> {
        let mut space = libc::iovec { iov_base: self.at(place, bytes).cast(), iov_len: bytes };
        let header: *mut libc::mmsghdr = self.at(message, MESSAGE_WORDS * size_of::<u64>()).cast();
        assert!(message.is_multiple_of(align_of::<libc::mmsghdr>()));
        // SAFETY: the header lies in the mapping, aligned, and all zeros are one. `space` outlives the call, and what it points to
        // lies in the mapping and is lent to nobody. The kernel writes nothing else.
        let (outcome, moved) = unsafe {
            let mut told: libc::mmsghdr = std::mem::zeroed();
            told.msg_hdr.msg_iov = &raw mut space;
            told.msg_hdr.msg_iovlen = 1;
            told.msg_len = NOT_YET;
            header.write_volatile(told);
            let outcome = match way {
                Way::In => libc::recvmmsg(socket.as_raw_fd(), header, 1, libc::MSG_DONTWAIT, null_mut()),
                Way::Out => {
                    libc::sendmmsg(socket.as_raw_fd(), header, 1, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                }
            };
            (outcome, header.read_volatile())
        };
        if outcome < 0 {
            return Err(io::Error::last_os_error());
        }
        let is_cut = moved.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0;
        Ok(Moved { bytes: moved.msg_len as usize, is_cut })
    }

    /// What the kernel has noted in a message, if it has noted anything.
    pub(super) fn moved(&self, message: usize) -> Option<usize> {
        let header: *const libc::mmsghdr = self.at(message, MESSAGE_WORDS * size_of::<u64>()).cast();
        // SAFETY: it lies in the mapping, aligned, and any bits are one, as it has nothing but numbers and raw pointers.
        let moved = unsafe { header.read_volatile() };
        (moved.msg_len != NOT_YET).then_some(moved.msg_len as usize)
    }
}

impl Drop for FileMap {
    fn drop(&mut self) {
        let address: *mut c_void = self.address.as_ptr().cast();
        // SAFETY: nothing borrows it any more. It fails only for ranges that were never mapped.
        let _ = unsafe { munmap(address, self.bytes) };
    }
}
