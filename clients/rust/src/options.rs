//! How a client works, and where it looks for what it is not told: in the environment.

use std::path::PathBuf;

use ttmem_wire::{DEFAULT_SOCKET_PATH, TraceContext};

/// Rings, as many as a server gives.
const RINGS: u32 = 64;
/// Records of a ring: 192 KiB, which stay in a core's cache.
const RECORDS: u32 = 4096;

/// What happens to a report when its ring is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overrun {
    /// It waits, for two seconds at most if nothing moves. After 250 ms the server is given up; it hears everything when it is back.
    #[default]
    Wait,
    /// It is dropped and counted.
    Drop,
}

/// How a [`Client`] works. The default is right for most programs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server listens. By default what TTMEM_SOCKET says, or else [`DEFAULT_SOCKET_PATH`].
    pub socket: PathBuf,
    /// What happens to a report when its ring is full.
    pub overrun: Overrun,
    /// Whether the server is asked for rings in shared memory.
    pub uses_rings: bool,
    /// How many rings there are, up to 64. Each thread has its own, until only one is left, which all further threads share.
    pub rings: u32,
    /// How many records the ring of a thread holds; the nearest power of two below is taken.
    pub ring_records: u32,
    /// The trace that the program runs in. By default what TRACEPARENT says, if that is a valid `traceparent`.
    pub trace: Option<TraceContext>,
}

impl Default for Options {
    fn default() -> Options {
        let socket = std::env::var_os("TTMEM_SOCKET").filter(|path| !path.is_empty());
        Options {
            socket: socket.map_or_else(|| PathBuf::from(DEFAULT_SOCKET_PATH), PathBuf::from),
            overrun: Overrun::default(),
            uses_rings: true,
            rings: RINGS,
            ring_records: RECORDS,
            trace: std::env::var("TRACEPARENT").ok().and_then(|text| TraceContext::parse(&text)),
        }
    }
}
