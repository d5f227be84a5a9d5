//! Fuzzes what a state directory holds: entries, checkpoints, and files that are damaged.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::journal(data));
