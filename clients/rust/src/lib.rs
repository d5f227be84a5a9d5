//! Tells the ttmem allocation server which device memory this process holds.
//!
//! The idea is that a program can forget about it: a report is a few stores into a ring of the calling thread's own. A thread in the
//! background does everything else. It connects, hands the rings to the server or sends frames where the server has no rings, and keeps
//! a list of what is held, so that a server that was started again hears all of it. Nothing here blocks, fails or prints; without a
//! server the list is all there is, and [`Client::statistics`] reads it.
//!
//! ```
//! use ttmem_client::{BufferType, Client, MemoryType};
//!
//! // TTMEM_SOCKET says where the server listens; this needs none to be there.
//! let client = Client::new();
//! client.allocated(0, BufferType::Dram, 0x1000, 1 << 20);
//! client.allocated(0, BufferType::L1, 0x2000, 4096);
//! client.freed(0, 0x1000);
//!
//! let statistics = client.statistics();
//! let dram = statistics.iter().find(|row| row.memory_type == MemoryType::Dram).unwrap();
//! assert_eq!((dram.allocated_bytes, dram.peak_bytes), (0, 1 << 20));
//! ```
//!
//! Report an allocation after it was made and a free before it is made: then no other thread can have the memory in between.

#![deny(missing_docs)]

mod fork;
mod mapping;
mod signals;
mod wake;

mod options;

mod handover;
mod lanes;
mod thread_lane;

mod books;
mod connection;
mod holdings;
mod pump;

mod client;
mod watch;

mod monitor;

pub use client::Client;
pub use holdings::{MemoryType, Statistic};
pub use monitor::{Monitor, MonitorError};
pub use options::{Options, Overrun};
/// What a [`Monitor`] shows.
pub use ttmem_wire::stats;
pub use ttmem_wire::{BufferType, DEFAULT_SOCKET_PATH, KernelKind, Note, TraceContext};
pub use watch::Watch;
