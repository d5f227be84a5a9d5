//! What a report costs its thread through libttmem, beside the Rust client that libttmem stands on, in one run.
//!
//! usage: TTMEM_SOCKET=PATH cargo bench --package ttmem-c -- target/preload/libttmem_c.so, with a daemon at that path
//!
//! The idea is that the library is loaded as a program's loader does it, and called through pointers: nothing can be inlined.

use std::error::Error;
use std::ffi::{CString, c_void};
use std::ptr;
use std::time::{Duration, Instant};

use ttmem_client::{BufferType, Client};

/// Reports in one go: less than a ring holds, so that no report waits.
const BURST: u64 = 2048;
const BURSTS: usize = 2000;
/// Buffers that are allocated and freed in turn.
const WORKING_SET: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(10);
const DRAM: u32 = 0;

type Open = unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> i32;
type Allocated = unsafe extern "C" fn(*mut c_void, i32, u32, u64, u64) -> i32;
type Freed = unsafe extern "C" fn(*mut c_void, i32, u64) -> i32;
type Flush = unsafe extern "C" fn(*mut c_void, u32) -> i32;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let path = CString::new(path.ok_or("name the library: target/preload/libttmem_c.so")?)?;
    // SAFETY: the path is a string.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return Err(
            format!("{path:?} cannot be loaded: cargo build --profile preload --package ttmem-c").into()
        );
    }
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the library is open, and stays so.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        if found.is_null() { Err(format!("{path:?} has no {name:?}")) } else { Ok(found) }
    };
    // SAFETY: these are the functions' types in ttmem.h.
    let (open, allocated, freed, flush) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Open>(symbol(c"ttmem_open")?),
            std::mem::transmute::<*mut c_void, Allocated>(symbol(c"ttmem_allocated")?),
            std::mem::transmute::<*mut c_void, Freed>(symbol(c"ttmem_freed")?),
            std::mem::transmute::<*mut c_void, Flush>(symbol(c"ttmem_flush")?),
        )
    };
    let mut of_c = ptr::null_mut();
    // SAFETY: as ttmem.h asks for; the client stays open until the process ends. So for each call below.
    let opened = unsafe { open(ptr::null(), &raw mut of_c) };
    let of_rust = Client::new();
    let report_c = |index: u64| unsafe {
        let id = index / 2 % WORKING_SET;
        if index.is_multiple_of(2) {
            allocated(of_c, 0, DRAM, id, 4096)
        } else {
            freed(of_c, 0, id)
        };
    };
    let report_rust = |index: u64| {
        let id = index / 2 % WORKING_SET;
        if index.is_multiple_of(2) {
            of_rust.allocated(0, BufferType::Dram, id, 4096);
        } else {
            of_rust.freed(0, id);
        }
    };
    let settle = || unsafe { flush(of_c, PATIENCE.as_millis() as u32) == 0 } && of_rust.flush(PATIENCE);
    report_c(1);
    report_rust(1);
    if opened != 0 || !settle() {
        return Err(
            "no daemon answers: start ttmem serve, and set TTMEM_SOCKET if its socket is elsewhere".into()
        );
    }

    let (mut c_ns, mut rust_ns) = (Vec::new(), Vec::new());
    for _ in 0..BURSTS {
        c_ns.push(burst_ns(report_c));
        rust_ns.push(burst_ns(report_rust));
        if !settle() {
            return Err("the daemon does not take the reports".into());
        }
    }
    let mut more_ns: Vec<f64> = c_ns.iter().zip(&rust_ns).map(|(c, rust)| c - rust).collect();
    for (name, times) in
        [("C, libttmem", &mut c_ns), ("Rust, ttmem-client", &mut rust_ns), ("C more than Rust", &mut more_ns)]
    {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!("{name:20} ns a report: {:6.1} (10 % {:.1}, 90 % {:.1})", at(50), at(10), at(90));
    }
    Ok(())
}

/// The mean time of a report in one burst.
fn burst_ns(report: impl Fn(u64)) -> f64 {
    let begin = Instant::now();
    (0..BURST).for_each(report);
    begin.elapsed().as_nanos() as f64 / BURST as f64
}
