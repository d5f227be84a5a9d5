//! libttmem: what clients/rust does, for programs in C and C++. `include/ttmem.h` is its documentation.
//!
//! The idea is that nothing here can harm the program that it is a part of: every argument is looked at before it is used, a client that
//! is null does nothing, a mistake of ours ends in a status, and nothing is printed.
//!
//! In the order of a call: `outcome` is what every call gives and the wall that no panic passes, `handle` makes and ends clients,
//! `memory` and `device` are what reports say, `report` makes them, `reading` tells what this process holds and `monitor` what all do.

#![allow(unsafe_code, reason = "it is called by C")]

mod outcome;

mod handle;
mod options;

mod device;
mod memory;

mod report;

mod reading;

mod monitor;
