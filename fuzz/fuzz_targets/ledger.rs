//! Fuzzes any order of allocations, frees and ends, beside a model.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ttmem_fuzz::checks::ledger(data));
