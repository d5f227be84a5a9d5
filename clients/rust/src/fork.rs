//! Notices that this process is a fork, whose connection and background thread are its parent's.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between this process and the one in which the library was loaded.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// Has forks counted from now on.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    extern "C" fn in_child() {
        GENERATION.fetch_add(1, Relaxed);
    }
    ONCE.call_once(|| {
        // SAFETY: the handler only adds to an atomic, which is allowed after a fork of a process with threads. If there is no memory
        // to register it, forks are not noticed, and the child's reports go nowhere.
        let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}
