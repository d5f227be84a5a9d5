//! Short text in whole words: names, cut where they are too long and never inside a character.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// Text of at most `8 * WORDS` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text<const WORDS: usize> {
    words: [u64; WORDS],
    length: u8,
}

impl<const WORDS: usize> Text<WORDS> {
    /// As much of the text as there is room for.
    pub fn new(text: &str) -> Self {
        const { assert!(8 * WORDS <= u8::MAX as usize) };
        let length = text.floor_char_boundary(8 * WORDS);
        let mut words = [0; WORDS];
        for (index, byte) in text.bytes().take(length).enumerate() {
            words[index / 8] |= u64::from(byte) << (8 * (index % 8));
        }
        Self { words, length: length as u8 }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Calls `take` with the text: all of it that is UTF-8, whoever has written it.
    pub fn with<T>(&self, take: impl FnOnce(&str) -> T) -> T {
        let words = self.words.map(u64::to_le_bytes);
        let bytes = words.as_flattened();
        let bytes = &bytes[..usize::from(self.length).min(bytes.len())];
        let text = match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        take(text)
    }

    pub(super) fn store(&self, places: &[AtomicU64]) {
        for (place, word) in places.iter().zip(self.words) {
            place.store(word, Relaxed);
        }
    }

    pub(super) fn of(words: [u64; WORDS], length: u8) -> Self {
        Self { words, length }
    }
}
