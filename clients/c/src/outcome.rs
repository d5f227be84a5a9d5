//! What every call gives, and the wall that no panic of ours passes.

use std::ffi::{CStr, c_char};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// The statuses of ttmem.h, by their numbers there.
#[repr(i32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Ok = 0,
    /// The caller's: there is no client.
    NoClient = 1,
    /// The caller's: no such device.
    Device = 2,
    /// The caller's: no such kind of memory, or not one that buffers are in.
    MemoryType = 3,
    /// The caller's: a size that no buffer has.
    Size = 4,
    /// The caller's: no such kind of kernel.
    KernelKind = 5,
    /// The caller's: options that this version cannot follow.
    Options = 6,
    /// The caller's: no place to write to.
    Argument = 7,
    /// Nobody's: the server has not answered in time, or there is none.
    Timeout = 8,
    /// Ours. What was asked for has not been done.
    Internal = 9,
    /// The environment's: there is no server, or one without stats pages.
    NoDaemon = 10,
    /// Nobody's: the server has never heard of the device.
    UnknownDevice = 11,
}

impl Status {
    const ALL: [Status; 12] = [
        Status::Ok,
        Status::NoClient,
        Status::Device,
        Status::MemoryType,
        Status::Size,
        Status::KernelKind,
        Status::Options,
        Status::Argument,
        Status::Timeout,
        Status::Internal,
        Status::NoDaemon,
        Status::UnknownDevice,
    ];

    fn text(self) -> &'static CStr {
        match self {
            Status::Ok => c"done",
            Status::NoClient => c"there is no client: ttmem_open() has not been called, or has failed",
            Status::Device => c"the device is not an index from 0 to 1023",
            Status::MemoryType => {
                c"the memory type is none of TTMEM_DRAM, TTMEM_L1, TTMEM_SYSTEM_MEMORY, TTMEM_L1_SMALL and TTMEM_TRACE"
            }
            Status::Size => c"the size is not a number of bytes from 1 to 2^40",
            Status::KernelKind => c"the kernel kind is not one of TTMEM_KERNEL_APPLICATION, _FABRIC and _DISPATCH",
            Status::Options => {
                c"the options are of a newer ttmem.h or were not begun with TTMEM_OPTIONS_INIT: install the libttmem of that header"
            }
            Status::Argument => c"an argument is null, or not of the form that ttmem.h asks for",
            Status::Timeout => c"the server has not taken everything in time: is one running, at that socket?",
            Status::NoDaemon => {
                c"no daemon with stats pages answers: start ttmem serve, or set TTMEM_SOCKET if its socket is elsewhere"
            }
            Status::UnknownDevice => c"the daemon knows no such device: nobody has reported on it, and nothing configures it",
            Status::Internal => c"a mistake of libttmem's own: what was asked for has not been done",
        }
    }
}

/// ttmem.h: ttmem_status_text.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ttmem_status_text(status: i32) -> *const c_char {
    let known = Status::ALL.into_iter().find(|known| *known as i32 == status);
    known.map_or(c"no status of this libttmem", Status::text).as_ptr()
}

/// Runs the inside of a call: a panic would end the program, so it ends in a value instead.
#[inline]
pub(crate) fn within<T>(otherwise: T, inside: impl FnOnce() -> T) -> T {
    // What a panic leaves behind is lost with the call.
    panic::catch_unwind(AssertUnwindSafe(inside)).unwrap_or(otherwise)
}

/// Has panics print nothing: standard error is the program's. This library has a Rust runtime of its own, so nobody else's are meant.
pub(crate) fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(|_| {})));
}
