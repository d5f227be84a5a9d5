//! ttmem: an allocation server and observability exporter for the memory of Tenstorrent accelerators.
//!
//! The modules stand in the order in which the data flows: [`ingest`] turns what processes report into changes of the [`registry`],
//! [`views`] turn an immutable snapshot of it into bytes, [`sinks`] hand those to whoever asks, and [`daemon`] wires them together.

pub mod clock;
pub mod config;
pub(crate) mod grpc;
pub mod heap;
pub mod journal;
pub mod mapping;
pub mod sandbox;
pub mod socket;
pub mod throttle;

pub mod ingest;

pub mod registry;

pub mod analysis;
pub mod views;

pub mod sinks;

pub mod activation;
pub mod daemon;

pub mod cli;

#[path = "../benches/mod.rs"]
pub mod bench;
