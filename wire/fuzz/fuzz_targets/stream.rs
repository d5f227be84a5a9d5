//! Fuzzes any bytes, as a stream: it means the same however it is cut into reads.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_wire_fuzz::checks::stream(data));
