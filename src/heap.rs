//! How memory that is no longer needed goes back to the system: large blocks at once, whatever lies around them.

/// Blocks from this size on are mapped for themselves, and unmapped when they are freed. glibc begins with a larger bound and raises it to
/// the size of each such block that is freed, after which a burst's memory would stay with the process. The tables of live buffers come
/// in blocks larger than this; what is made and dropped again and again, such as the pieces of an answer, in smaller ones.
const MAPPED_BYTES_MIN: i32 = 68 * 1024;

/// Regions that the allocator hands small blocks out from. glibc makes eight for each core, and what was freed in one is not used from
/// another: a burst of processes left its memory behind on every thread that had served one. No report allocates anything, so the threads
/// seldom meet in the one there is.
const ARENAS: i32 = 1;

/// Makes it so for this process. Called once, before there are threads.
pub fn give_back_what_is_freed() {
    #[cfg(target_env = "gnu")]
    for (bound, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN), (libc::M_ARENA_MAX, ARENAS)] {
        #[allow(unsafe_code, reason = "the C library has no safe way to set its allocator's bounds")]
        // SAFETY: mallopt takes two numbers and no pointers, and may be called at any time.
        let accepted = unsafe { libc::mallopt(bound, value) };
        // A bound that the allocator does not accept leaves its own in force: more memory, and nothing wrong.
        debug_assert_eq!(accepted, 1);
    }
}
