//! The bounds and fixed values that the protocol sets, each with its reason.

/// Where a server listens unless it is told otherwise: the path that existing clients have built in.
pub const DEFAULT_SOCKET_PATH: &str = "/tmp/tt_allocation_server.sock";

/// The highest device index. Hosts have 1 to 32 devices today; 1,024 leaves room for a large one and bounds the server's tables.
pub const DEVICE_ID_MAX: i32 = 1023;

/// The `device_id` with which a DEVICE_INFO_QUERY asks how many devices there are.
pub const DEVICE_COUNT_QUERY: i32 = -1;

/// The largest size that one report may carry: 1 TiB. No device has as much, and sums of them stay far from the end of a `u64`.
pub const BUFFER_BYTES_MAX: u64 = 1 << 40;

/// Banks of one memory that a CAPACITY may name. A chip has some hundred cores; this leaves room for thirty such in one.
pub const BANKS_MAX: u64 = 4096;

/// How long a connection must be silent before a [`crate::Detection::Candidate`] is taken for the answer. A client that is still
/// writing its frame goes on within microseconds, and a person who waits for a reply does not notice it.
pub const DETECTION_SILENCE_MILLISECONDS: u64 = 50;

/// In the `buffer_type` of a FREE: the buffer went with its device, which was closed. No memory type has this number.
pub const FREED_BY_CLOSE: u8 = 255;
