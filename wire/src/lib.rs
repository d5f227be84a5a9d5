//! What travels between a process that holds device memory and the allocation server: frames, and nothing that does I/O.
//!
//! The idea is that a connection is a run of frames of one size, of which three are in use. [`detect()`] finds the size in the first
//! bytes of a connection, [`decode_request`] turns each frame into a [`Header`], and a [`Reply`] goes back in the peer's own
//! [`Layout`]. A client that asks with a [`Hello`] may get rings in shared memory instead: [`ring`]. `PROTOCOL.md`, beside this crate, is the normative text.
//!
//! ```
//! use ttmem_wire::{BufferType, Detection, Header, Kind, Layout, decode_request, detect, encode_request};
//!
//! let layout = Layout::Bytes144;
//! let alloc = Header {
//!     device_id: 2,
//!     size_bytes: 4096,
//!     buffer_type: layout.buffer_types().encode(BufferType::L1Small).unwrap(),
//!     buffer_id: 0x1000,
//!     ..Header::request(Kind::Alloc)
//! };
//! let frame = encode_request(&alloc, layout);
//! assert_eq!(detect(&frame), Ok(Detection::Known(layout)));
//! assert_eq!(decode_request(&frame, layout), Ok(alloc));
//! ```

#![no_std]
#![deny(missing_docs, unsafe_code)]

#[cfg(test)]
extern crate std;

mod limits;

mod detect;
mod layout;

mod frame;
mod header;
mod kind;

mod buffer_type;
mod error;
mod note;
mod reply;
mod trace_context;

mod hello;
pub mod ring;
pub mod stats;

pub use buffer_type::{BufferType, BufferTypes, KernelKind};
pub use detect::{Detection, detect};
pub use error::{FrameError, ReplyError};
pub use frame::{Frame, decode_request, encode_request};
pub use header::{HEADER_BYTES, Header};
pub use hello::{DESCRIPTORS_MAX, Descriptor, DescriptorKind, Features, HELLO_VERSION, Hello, HelloReply};
pub use kind::Kind;
pub use layout::{FRAME_BYTES_MAX, Layout, REPLY_PREFIX_BYTES};
pub use limits::{
    BANKS_MAX, BUFFER_BYTES_MAX, DEFAULT_SOCKET_PATH, DETECTION_SILENCE_MILLISECONDS, DEVICE_COUNT_QUERY,
    DEVICE_ID_MAX, FREED_BY_CLOSE,
};
pub use note::Note;
pub use reply::{Arch, DeviceInfo, Reply, Totals};
pub use ring::{Geometry, RECORD_BYTES, Record};
pub use trace_context::TraceContext;
