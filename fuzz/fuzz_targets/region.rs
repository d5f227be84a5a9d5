//! Fuzzes any bytes, as a file of /dev/shm.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::region(data));
