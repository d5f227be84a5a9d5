//! The three frame sizes that are in use, and what follows from each.

use core::fmt;

use crate::{BufferTypes, HEADER_BYTES};

/// The size of the largest frame.
pub const FRAME_BYTES_MAX: usize = 144;

/// How many bytes at the start of a reply are the same in every layout: the header and the first four totals.
///
/// A server that does not know the peer's layout yet can send these at once and the rest when it knows.
pub const REPLY_PREFIX_BYTES: usize = 72;

/// The size of every frame of a connection, in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Layout {
    /// 72 bytes: the first protocol, four totals in a reply.
    Bytes72,
    /// 112 bytes: the four totals and the device's capacities in a reply.
    Bytes112,
    /// 144 bytes: what instrumented tt-metal builds speak; six totals and the capacities in a reply.
    Bytes144,
}

impl Layout {
    /// All of them, from the smallest to the largest.
    pub const ALL: [Layout; 3] = [Layout::Bytes72, Layout::Bytes112, Layout::Bytes144];

    /// The size of a frame.
    pub const fn frame_bytes(self) -> usize {
        match self {
            Layout::Bytes72 => 72,
            Layout::Bytes112 => 112,
            Layout::Bytes144 => FRAME_BYTES_MAX,
        }
    }

    /// The layout whose frames have this size.
    pub const fn from_frame_bytes(bytes: usize) -> Option<Layout> {
        match bytes {
            72 => Some(Layout::Bytes72),
            112 => Some(Layout::Bytes112),
            FRAME_BYTES_MAX => Some(Layout::Bytes144),
            _ => None,
        }
    }

    /// The meaning that the `buffer_type` byte has in this layout unless the listener's configuration says otherwise.
    pub const fn buffer_types(self) -> BufferTypes {
        match self {
            Layout::Bytes72 | Layout::Bytes112 => BufferTypes::Seed,
            Layout::Bytes144 => BufferTypes::Metal,
        }
    }
}

/// The size in bytes: `72`, `112` or `144`.
impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.frame_bytes(), formatter)
    }
}

const _: () = {
    assert!(REPLY_PREFIX_BYTES > HEADER_BYTES);
    let mut index = 0;
    while index < Layout::ALL.len() {
        let bytes = Layout::ALL[index].frame_bytes();
        assert!(
            bytes.is_multiple_of(8),
            "a tail is checked in whole words, and frames stay aligned in a run"
        );
        assert!(bytes >= REPLY_PREFIX_BYTES && bytes <= FRAME_BYTES_MAX);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_layout_is_its_size() {
        for (layout, bytes, text) in
            [(Layout::Bytes72, 72, "72"), (Layout::Bytes112, 112, "112"), (Layout::Bytes144, 144, "144")]
        {
            assert_eq!(layout.frame_bytes(), bytes);
            assert_eq!(layout.to_string(), text);
            assert_eq!(Layout::from_frame_bytes(bytes), Some(layout));
        }
        let known = (0..=1024).filter(|&bytes| Layout::from_frame_bytes(bytes).is_some()).count();
        assert_eq!(known, Layout::ALL.len());
    }
}
