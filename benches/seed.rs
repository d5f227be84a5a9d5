//! The seed: the allocation server as its architecture document describes it, no better and no worse.
//!
//! A detached thread per client, one recv() per 72-byte frame, one mutex around one map keyed by the buffer's id alone,
//! atomics per device that a query reads without the lock, and a line printed per event (to whatever standard output
//! is; the measurements give it a file). Without the lines it is the plain blocking server that queries are compared to.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub(super) const FRAME_BYTES: usize = 72;
const DEVICES: usize = 8;
const MEMORY_TYPES: [&str; 4] = ["DRAM", "L1", "L1_SMALL", "TRACE"];

const ALLOC: u8 = 1;
const FREE: u8 = 2;
const QUERY: u8 = 3;
const RESPONSE: u8 = 4;

/// Whether a line is printed for each event.
#[derive(Clone, Copy)]
pub(super) enum Lines {
    Printed,
    Omitted,
}

pub(super) type Frame = [u8; FRAME_BYTES];

struct BufferInfo {
    device_id: i32,
    size_bytes: u64,
    memory_type: usize,
    owner_pid: i32,
    allocated_at_ns: u64,
}

#[derive(Default)]
struct DeviceStats {
    allocated_bytes: [AtomicU64; MEMORY_TYPES.len()],
    buffers: AtomicU64,
}

/// The server's state, and what it does about a frame.
pub(super) struct AllocationServer {
    allocations: Mutex<HashMap<u64, BufferInfo, foldhash::fast::FixedState>>,
    devices: [DeviceStats; DEVICES],
    lines: Lines,
}

/// Serves any number of clients until the process is ended.
pub(super) fn serve(socket: &Path, lines: Lines) -> anyhow::Result<()> {
    let server = Arc::new(AllocationServer::new(lines));
    for stream in UnixListener::bind(socket)?.incoming() {
        let stream = stream?;
        let server = Arc::clone(&server);
        // A client that goes away ends its thread, whatever the reason.
        thread::spawn(move || server.serve_client(stream));
    }
    Ok(())
}

impl AllocationServer {
    pub(super) fn new(lines: Lines) -> Self {
        Self { allocations: Mutex::default(), devices: Default::default(), lines }
    }

    fn serve_client(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut frame: Frame = [0; FRAME_BYTES];
        loop {
            stream.read_exact(&mut frame)?;
            if let Some(answer) = self.act(&frame) {
                stream.write_all(&answer)?;
            }
        }
    }

    /// Does what the frame says, and gives the answer if it wants one.
    pub(super) fn act(&self, frame: &Frame) -> Option<Frame> {
        match frame[0] {
            ALLOC => self.allocate(frame),
            FREE => self.free(frame),
            QUERY => return Some(self.answer(frame)),
            _ => {}
        }
        None
    }

    fn allocate(&self, frame: &Frame) {
        let buffer_id = u64_at(frame, 24);
        let info = BufferInfo {
            device_id: i32_at(frame, 4),
            size_bytes: u64_at(frame, 8),
            memory_type: usize::from(frame[16]).min(MEMORY_TYPES.len() - 1),
            owner_pid: i32_at(frame, 20),
            allocated_at_ns: u64_at(frame, 32),
        };
        let device = self.device(info.device_id);
        device.allocated_bytes[info.memory_type].fetch_add(info.size_bytes, Ordering::Relaxed);
        device.buffers.fetch_add(1, Ordering::Relaxed);
        if matches!(self.lines, Lines::Printed) {
            println!(
                "[ALLOC] device {} {} {} bytes, buffer {buffer_id}, pid {}, at {}",
                info.device_id,
                MEMORY_TYPES[info.memory_type],
                info.size_bytes,
                info.owner_pid,
                info.allocated_at_ns,
            );
        }
        self.allocations.lock().unwrap_or_else(PoisonError::into_inner).insert(buffer_id, info);
    }

    fn free(&self, frame: &Frame) {
        let buffer_id = u64_at(frame, 24);
        let removed = self.allocations.lock().unwrap_or_else(PoisonError::into_inner).remove(&buffer_id);
        let Some(info) = removed else { return };
        let device = self.device(info.device_id);
        device.allocated_bytes[info.memory_type].fetch_sub(info.size_bytes, Ordering::Relaxed);
        device.buffers.fetch_sub(1, Ordering::Relaxed);
        if matches!(self.lines, Lines::Printed) {
            println!(
                "[FREE] device {} {} {} bytes, buffer {buffer_id}, pid {}, from {}",
                info.device_id,
                MEMORY_TYPES[info.memory_type],
                info.size_bytes,
                info.owner_pid,
                info.allocated_at_ns,
            );
        }
    }

    fn answer(&self, query: &Frame) -> Frame {
        let device = self.device(i32_at(query, 4));
        let mut answer = *query;
        answer[0] = RESPONSE;
        for (bytes, field) in device.allocated_bytes.iter().zip(answer[40..].chunks_exact_mut(8)) {
            field.copy_from_slice(&bytes.load(Ordering::Relaxed).to_le_bytes());
        }
        answer
    }

    fn device(&self, device_id: i32) -> &DeviceStats {
        &self.devices[usize::try_from(device_id).unwrap_or(0).min(DEVICES - 1)]
    }
}

fn u64_at(frame: &Frame, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&frame[offset..offset + 8]);
    u64::from_le_bytes(bytes)
}

fn i32_at(frame: &Frame, offset: usize) -> i32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&frame[offset..offset + 4]);
    i32::from_le_bytes(bytes)
}
