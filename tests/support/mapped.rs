//! Memory that a test shares with another process: words of a mapped file.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Words that stay mapped to the end of the process.
pub struct Words(&'static [AtomicU64]);

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        self.0
    }
}

/// Maps a whole file.
pub fn words(path: &Path) -> Words {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let bytes = file.metadata().unwrap().len() as usize;
    words_of(&file, bytes)
}

/// Maps that many bytes.
pub fn words_of(file: &impl AsFd, bytes: usize) -> Words {
    // SAFETY: a new mapping takes nothing away from anybody.
    let start = unsafe {
        mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
    };
    // SAFETY: the mapping is never removed, nobody makes its file shorter, and any bits are an atomic word.
    Words(unsafe { std::slice::from_raw_parts(start.unwrap().cast(), bytes / 8) })
}
