//! Fuzzes any bytes, as what an HTTP client sends.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::http(data));
