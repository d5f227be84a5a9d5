//! Fuzzes any text, as a web configuration file.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::web_config(data));
