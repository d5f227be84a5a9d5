//! Which buffers each allocator has handed out: closing a device gives them back all at once, without naming one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// What is known of what lives, by the addresses of tt-metal's objects.
#[derive(Default)]
pub(crate) struct Books {
    /// The chips of each buffer, by allocator and the buffer's number.
    buffers: HashMap<usize, HashMap<u64, Vec<i32>>>,
    /// Circular buffers that a device's programs hold together, in bytes on each chip.
    circular_bytes: HashMap<usize, u64>,
}

/// The books of this process.
pub(crate) fn books() -> MutexGuard<'static, Books> {
    static BOOKS: LazyLock<Mutex<Books>> = LazyLock::new(Mutex::default);
    // Nothing that is done while it is held can fail half way.
    BOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    /// An allocator has handed out a buffer. Gives its chips, if it is the first since the allocator was made, or since a close.
    pub(crate) fn enter(&mut self, allocator: usize, buffer: u64, devices: Vec<i32>) -> Option<Vec<i32>> {
        match self.buffers.entry(allocator) {
            Entry::Occupied(mut buffers) => {
                buffers.get_mut().insert(buffer, devices);
                None
            }
            Entry::Vacant(none) => {
                let first = devices.clone();
                none.insert(HashMap::from([(buffer, devices)]));
                Some(first)
            }
        }
    }

    /// It takes it back. Gives the buffer's chips, or none if it was handed out before anybody looked.
    pub(crate) fn strike(&mut self, allocator: usize, buffer: u64) -> Vec<i32> {
        self.buffers.get_mut(&allocator).and_then(|buffers| buffers.remove(&buffer)).unwrap_or_default()
    }

    /// It takes all of them back.
    pub(crate) fn strike_all(&mut self, allocator: usize) -> HashMap<u64, Vec<i32>> {
        self.buffers.remove(&allocator).unwrap_or_default()
    }

    /// A device's programs have got more circular buffers.
    pub(crate) fn enter_circular(&mut self, device: usize, bytes: u64) {
        *self.circular_bytes.entry(device).or_default() += bytes;
    }

    /// They give all of them back. Gives the bytes on each chip.
    pub(crate) fn strike_circular(&mut self, device: usize) -> u64 {
        self.circular_bytes.remove(&device).unwrap_or_default()
    }
}
