//! Fuzzes any bytes, as a frame of every layout: decode, encode, decode is a fixpoint.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_wire_fuzz::checks::frame(data));
