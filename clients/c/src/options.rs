//! What a program asks for when it opens a client: a struct that may grow from one version to the next.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ttmem_client::{Options, Overrun};

use crate::outcome::Status;

const DROP_WHEN_FULL: u32 = 1;
const WITHOUT_RINGS: u32 = 2;
const KNOWN_FLAGS: u32 = DROP_WHEN_FULL | WITHOUT_RINGS;

/// ttmem.h: ttmem_options.
#[repr(C)]
pub(crate) struct OptionsOfC {
    struct_bytes: u32,
    flags: u32,
    socket_path: *const c_char,
    rings: u32,
    ring_records: u32,
}

// As the header asserts it.
const _: () = assert!(size_of::<OptionsOfC>() == 24 && std::mem::offset_of!(OptionsOfC, socket_path) == 8);

/// What a program wants; null wants nothing special.
///
/// # Safety
/// `options` is null, or points to as many bytes as its first field says; its path is null or a string.
pub(crate) unsafe fn read(options: *const OptionsOfC) -> Result<Options, Status> {
    let mut wanted = Options::default();
    // SAFETY: the caller's: there is a first field.
    let Some(struct_bytes) = (unsafe { options.cast::<u32>().as_ref() }) else { return Ok(wanted) };
    let later_bytes = (*struct_bytes as usize).checked_sub(size_of::<OptionsOfC>()).ok_or(Status::Options)?;
    // SAFETY: there are as many bytes as the first field says.
    let later = unsafe { std::slice::from_raw_parts(options.add(1).cast::<u8>(), later_bytes) };
    // What a later header appends is as if it were not there while it is zero. What it asks for otherwise would not be done.
    if later.iter().any(|byte| *byte != 0) {
        return Err(Status::Options);
    }
    // SAFETY: as above, so it is whole.
    let OptionsOfC { flags, socket_path, rings, ring_records, .. } = unsafe { options.read_unaligned() };
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Status::Options);
    }
    // SAFETY: the caller's.
    if let Some(path) = unsafe { path(socket_path) } {
        wanted.socket = path;
    }
    wanted.overrun = if flags & DROP_WHEN_FULL != 0 { Overrun::Drop } else { Overrun::Wait };
    wanted.uses_rings = flags & WITHOUT_RINGS == 0;
    // 0 is the library's own choice.
    wanted.rings = if rings == 0 { wanted.rings } else { rings };
    wanted.ring_records = if ring_records == 0 { wanted.ring_records } else { ring_records };
    Ok(wanted)
}

/// A path, unless it is null.
///
/// # Safety
/// `text` is null or a string.
pub(crate) unsafe fn path(text: *const c_char) -> Option<PathBuf> {
    // SAFETY: the caller's.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
    Some(PathBuf::from(OsStr::from_bytes(text.to_bytes())))
}
