//! Reports every device buffer of an unmodified tt-metal to ttmem, from inside the process that holds it: `LD_PRELOAD` it.
//!
//! In the order of the data: `interpose` stands in front of tt-metal's functions, `symbols` finds the real ones, `metal` asks
//! tt-metal's objects what they are, `books` remembers what lives, `reports` tells the daemon.

#![allow(unsafe_code, reason = "it is called by C++ and calls it")]

mod symbols;

mod metal;

mod interpose;

mod books;

mod reports;
