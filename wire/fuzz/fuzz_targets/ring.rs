//! Fuzzes any order of writes into rings, honest ones and others: what was published is read once and in order, and nothing else breaks.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_wire_fuzz::checks::ring(data));
