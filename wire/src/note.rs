//! What keeps a client from telling everything, as a NOTE says it.

/// What a client cannot tell, by the number that its NOTE has in `buffer_type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Note {
    /// The allocator's own functions are not to be had: sizes are what buffers ask for, and a failure is not noticed.
    Allocator = 1,
    /// The allocator tells nothing of its banks: neither why it had no room, nor what the device has.
    Banks = 2,
    /// Circular buffers cannot be followed.
    CircularBuffers = 3,
    /// A mesh cannot be told from a single device: what lies on several is told of one.
    Mesh = 4,
}

impl Note {
    /// All of them, by their number.
    pub const ALL: [Note; 4] = [Note::Allocator, Note::Banks, Note::CircularBuffers, Note::Mesh];

    /// The one that `byte` names; `None` if it is none that is known.
    pub fn decode(byte: u8) -> Option<Note> {
        Note::ALL.into_iter().find(|note| *note as u8 == byte)
    }

    /// The byte that names it.
    pub const fn encode(self) -> u8 {
        self as u8
    }

    /// Its name, in the form of a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Note::Allocator => "allocator",
            Note::Banks => "banks",
            Note::CircularBuffers => "circular_buffers",
            Note::Mesh => "mesh",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_names_at_most_one() {
        for byte in 0..=u8::MAX {
            assert_eq!(Note::decode(byte).map(Note::encode), (1..=4).contains(&byte).then_some(byte));
        }
    }
}
