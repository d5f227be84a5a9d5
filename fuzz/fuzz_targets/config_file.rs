//! Fuzzes any text, as a configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::config_file(data));
