//! Clients as C holds them: opened, closed, and the one that all of a process may share.

use std::ffi::c_char;
use std::ptr;
use std::sync::OnceLock;

use ttmem_client::Client;

use crate::options::{self, OptionsOfC};
use crate::outcome::{Status, be_quiet, within};

/// ttmem.h: ttmem_client.
pub(crate) struct Handle {
    client: Client,
    /// The one of the process is nobody's to close.
    is_shared: bool,
}

static SHARED: OnceLock<Handle> = OnceLock::new();

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// Does something with a client, if there is one.
///
/// # Safety
/// `handle` is null or open.
#[inline]
pub(crate) unsafe fn with(handle: *const Handle, action: impl FnOnce(&Client) -> Status) -> i32 {
    // SAFETY: the caller's.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return Status::NoClient as i32 };
    within(Status::Internal, || action(&handle.client)) as i32
}

/// ttmem.h: ttmem_version.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ttmem_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

/// ttmem.h: ttmem_open.
///
/// # Safety
/// As the header asks for.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_open(options: *const OptionsOfC, client: *mut *mut Handle) -> i32 {
    // SAFETY: the caller's.
    let Some(client) = (unsafe { client.as_mut() }) else { return Status::Argument as i32 };
    *client = ptr::null_mut();
    be_quiet();
    // SAFETY: the caller's.
    let opened =
        within(Err(Status::Internal), || unsafe { options::read(options) }.map(Client::with_options));
    match opened {
        Ok(opened) => {
            *client = Box::into_raw(Box::new(Handle { client: opened, is_shared: false }));
            Status::Ok as i32
        }
        Err(status) => status as i32,
    }
}

/// ttmem.h: ttmem_process_client.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn ttmem_process_client() -> *mut Handle {
    if let Some(shared) = SHARED.get() {
        return ptr::from_ref(shared).cast_mut();
    }
    be_quiet();
    let make = || ptr::from_ref(SHARED.get_or_init(|| Handle { client: Client::new(), is_shared: true }));
    within(ptr::null(), make).cast_mut()
}

/// ttmem.h: ttmem_close.
///
/// # Safety
/// As the header asks for.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ttmem_close(client: *mut Handle) {
    // SAFETY: the caller's.
    if unsafe { client.as_ref() }.is_some_and(|handle| !handle.is_shared) {
        // SAFETY: it came from `Box::into_raw` in ttmem_open(), and its owner gives it back.
        within((), || drop(unsafe { Box::from_raw(client) }));
    }
}
