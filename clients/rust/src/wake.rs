//! Wakes a sleeping reader: an eventfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Something that a reader sleeps on.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Wake> {
        // SAFETY: takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened it for us, and nothing else owns it.
        Ok(Wake(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// The one that the server made.
    pub(crate) fn received(descriptor: OwnedFd) -> Wake {
        Wake(descriptor)
    }

    pub(crate) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: reads eight bytes that outlive the call. A count that is full already wakes as well, and the descriptor does not block.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets the wakes so far.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        // SAFETY: writes at most eight bytes to `count`, which outlives the call, and does not block.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
