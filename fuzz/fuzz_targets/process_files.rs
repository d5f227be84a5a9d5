//! Fuzzes any texts, as the files of a process in /proc and the driver's lists.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::process_files(data));
