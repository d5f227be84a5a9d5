//! Finds the functions of the tt-metal library that the process has loaded.
//!
//! The idea is to ask the loader for the library itself and not for "the next definition": an interpreter loads its extensions into
//! scopes of their own, in which there is no next one.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// How the library's file is called; a version may follow.
const LIBRARY: &[u8] = b"libtt_metal.so";

/// The loaded library.
#[derive(Clone, Copy)]
pub(crate) struct Library(*mut c_void);

impl Library {
    /// The one that the process has loaded, if it has.
    pub(crate) fn loaded() -> Option<Library> {
        let mut found: *mut c_void = ptr::null_mut();
        // SAFETY: the callback is called before this returns, with this pointer to a live variable, and does not unwind.
        unsafe { libc::dl_iterate_phdr(Some(open_if_metal), (&raw mut found).cast()) };
        (!found.is_null()).then_some(Library(found))
    }

    /// The address of one of its symbols; its own, whatever stands before it in the process.
    pub(crate) fn symbol(self, name: &CStr) -> Option<*const c_void> {
        // SAFETY: the handle is open for the rest of the process's life, and the name ends in a zero byte.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address.cast_const())
    }
}

/// Takes a handle of the library when it comes by. Anything but 0 ends the walk.
unsafe extern "C" fn open_if_metal(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the loader gives a valid record for the length of the call.
    let path: *const c_char = unsafe { (*info).dlpi_name };
    if path.is_null() {
        return 0;
    }
    // SAFETY: the loader's paths end in a zero byte.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    let file_name = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(bytes);
    if !file_name.starts_with(LIBRARY) {
        return 0;
    }
    // SAFETY: it is loaded already, so nothing is run; the handle is never closed, so that it cannot go while its functions are used.
    let handle = unsafe { libc::dlopen(path, libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    // SAFETY: `found` is the variable that `loaded` passed.
    unsafe { *found.cast::<*mut c_void>() = handle };
    c_int::from(!handle.is_null())
}
