//! Fuzzes any names of processes, users and containers, in every format.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::views(data));
