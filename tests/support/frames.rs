//! A client of the test's own, for what the field's clients never send: whole frames, halves of them, and bytes that are none.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::Daemon;

pub const ALLOC: u8 = 1;
pub const FREE: u8 = 2;
pub const QUERY: u8 = 3;
pub const RESPONSE: u8 = 4;
pub const DUMP_REMAINING: u8 = 5;
pub const DEVICE_INFO_QUERY: u8 = 6;
pub const DEVICE_INFO_RESPONSE: u8 = 7;
pub const CB_ALLOC: u8 = 8;
pub const CB_FREE: u8 = 9;
pub const KERNEL_LOAD: u8 = 10;
pub const KERNEL_UNLOAD: u8 = 11;
pub const DUMP_KERNELS: u8 = 12;
pub const TRACE_CONTEXT: u8 = 14;
pub const ALLOCATION_FAILED: u8 = 15;
pub const CAPACITY: u8 = 17;
pub const NOTE: u8 = 18;

/// The sizes that a frame can have.
pub const FRAME_BYTES: [usize; 3] = [72, 112, 144];

/// A request; what is not said is 0, so its process is the one that sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    pub kind: u8,
    pub device: i32,
    pub size: u64,
    pub buffer_type: u8,
    pub process_id: i32,
    pub buffer_id: u64,
    pub timestamp: u64,
}

impl Frame {
    /// An ALLOC in DRAM, which every client calls 0.
    pub fn alloc(device: i32, size: u64, buffer_id: u64) -> Frame {
        Frame { kind: ALLOC, device, size, buffer_id, ..Frame::default() }
    }

    pub fn free(device: i32, buffer_id: u64) -> Frame {
        Frame { kind: FREE, device, buffer_id, ..Frame::default() }
    }

    pub fn query(device: i32) -> Frame {
        Frame { kind: QUERY, device, ..Frame::default() }
    }

    pub fn bytes(&self, frame_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; frame_bytes];
        bytes[0] = self.kind;
        bytes[4..8].copy_from_slice(&self.device.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16] = self.buffer_type;
        bytes[20..24].copy_from_slice(&self.process_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.buffer_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes
    }
}

/// A connection of the test's own process.
pub struct Connection {
    pub stream: UnixStream,
    pub frame_bytes: usize,
}

impl Connection {
    pub fn open(daemon: &Daemon, frame_bytes: usize) -> Connection {
        Connection { stream: daemon.connect(), frame_bytes }
    }

    /// Sends all frames at once.
    pub fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes(self.frame_bytes)).collect();
        self.send_bytes(&bytes);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends one frame and reads the answer to it.
    pub fn ask(&mut self, frame: Frame) -> Reply {
        self.send(&[frame]);
        self.reply()
    }

    pub fn reply(&mut self) -> Reply {
        let mut bytes = vec![0; self.frame_bytes];
        self.stream.read_exact(&mut bytes).unwrap();
        Reply(bytes)
    }

    /// Asks for a device's totals: when the answer is there, all that was sent before has been applied.
    pub fn query(&mut self, device: i32) -> Reply {
        let reply = self.ask(Frame::query(device));
        assert_eq!((reply.kind(), reply.device()), (RESPONSE, device));
        reply
    }

    /// Says that no more will come, and gives all that the daemon says before it closes.
    pub fn finish(&mut self) -> Vec<u8> {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.read_to_end()
    }

    /// All that the daemon says before it closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            // It closed without reading everything.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
            Err(error) => panic!("the daemon does not close: {error}"),
        }
    }
}

/// An answer, of the connection's frame size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply(pub Vec<u8>);

impl Reply {
    pub fn kind(&self) -> u8 {
        self.0[0]
    }

    pub fn device(&self) -> i32 {
        i32::from_le_bytes(self.0[4..8].try_into().unwrap())
    }

    pub fn dram(&self) -> u64 {
        self.u64_at(40)
    }

    pub fn u64_at(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.0[offset..offset + 8].try_into().unwrap())
    }

    pub fn u32_at(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.0[offset..offset + 4].try_into().unwrap())
    }
}
