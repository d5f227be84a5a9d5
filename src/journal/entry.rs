//! One entry of the journal: who, when, in which order, and the bytes.

/// What an entry's bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// Bytes that a session has received.
    Received,
    /// A session's answer went out: its payload is nothing, its number is in `Entry::sent_bytes`.
    Sent,
    /// Something else that has happened, encoded by whoever writes it.
    Note,
}

impl EntryKind {
    pub(super) const fn code(self) -> u64 {
        match self {
            EntryKind::Received => 1,
            EntryKind::Sent => 2,
            EntryKind::Note => 3,
        }
    }

    pub(super) const fn of(code: u64) -> Option<EntryKind> {
        match code {
            1 => Some(EntryKind::Received),
            2 => Some(EntryKind::Sent),
            3 => Some(EntryKind::Note),
            _ => None,
        }
    }
}

/// When something happened, on both clocks, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// Since the host started.
    pub monotonic_ns: u64,
    /// Since the epoch.
    pub unix_ns: u64,
}

/// An entry as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its place among all entries of its generation.
    pub order: u64,
    /// When it was made.
    pub moment: Moment,
    /// The session that it is about; 0 for none.
    pub session: u64,
    /// What its bytes are.
    pub kind: EntryKind,
    /// The bytes; those of [`EntryKind::Sent`] are a number's.
    pub bytes: &'a [u8],
}

impl Entry<'_> {
    /// How many bytes were sent.
    pub fn sent_bytes(&self) -> usize {
        self.bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize)
    }
}

/// The words before the bytes of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) order: u64,
    pub(super) moment: Moment,
    pub(super) session: u64,
    pub(super) kind: EntryKind,
    pub(super) bytes: usize,
}

/// Words of a head, its seal included.
pub(super) const HEAD_WORDS: usize = 6;
/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = HEAD_WORDS * size_of::<u64>();

/// Bytes that an entry takes, whose end is the next one's beginning.
pub(super) const fn entry_bytes(payload: usize) -> usize {
    HEAD_BYTES + payload.next_multiple_of(size_of::<u64>())
}

impl Head {
    const KIND_SHIFT: u32 = 32;

    /// All words but the seal.
    pub(super) fn words(&self) -> [u64; HEAD_WORDS - 1] {
        let kind_and_length = self.kind.code() << Self::KIND_SHIFT | self.bytes as u64;
        [self.order, self.moment.monotonic_ns, self.moment.unix_ns, self.session, kind_and_length]
    }

    pub(super) fn of(words: [u64; HEAD_WORDS - 1]) -> Option<Head> {
        let [order, monotonic_ns, unix_ns, session, kind_and_length] = words;
        let kind = EntryKind::of(kind_and_length >> Self::KIND_SHIFT)?;
        let bytes = usize::try_from(kind_and_length & u64::from(u32::MAX)).ok()?;
        Some(Head { order, moment: Moment { monotonic_ns, unix_ns }, session, kind, bytes })
    }
}

/// A number that a head and its bytes have nowhere else: neither after a page that never reached the disk nor in a file that is used
/// again. Of our own making, so that another version of a dependency cannot make it another one.
pub(super) fn seal(generation: u64, offset: usize, head: &[u64; HEAD_WORDS - 1], bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| {
        let product = u128::from(sum ^ word) * u128::from(ODD);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut sum = mix(ODD, generation).wrapping_add(offset as u64 | 1);
    for word in head {
        sum = mix(sum, *word);
    }
    // Two sums that do not wait for each other: long entries are as fast as they can be multiplied.
    let (mut left, mut right) = (sum, !sum);
    let mut pairs = bytes.chunks_exact(16);
    for pair in &mut pairs {
        let (Some(first), Some(second)) = (pair.first_chunk(), pair.last_chunk()) else { continue };
        left = mix(left, u64::from_le_bytes(*first));
        right = mix(right, u64::from_le_bytes(*second).rotate_left(32));
    }
    for byte in pairs.remainder() {
        left = mix(left, u64::from(*byte) + 1);
    }
    // Never 0, which is what an empty place holds.
    mix(left, right) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_its_words_say() {
        let moment = Moment { monotonic_ns: 1, unix_ns: 2 };
        let head = Head { order: 7, moment, session: 9, kind: EntryKind::Received, bytes: 72 };
        assert_eq!(Head::of(head.words()), Some(head));
        assert_eq!(Head::of([0; HEAD_WORDS - 1]), None, "no kind is 0");
    }

    #[test]
    fn a_seal_depends_on_every_byte_and_place() {
        let head = [1, 2, 3, 4, 5];
        let bytes: Vec<u8> = (0..100).collect();
        let whole = seal(1, 512, &head, &bytes);
        for changed in 0..bytes.len() {
            let mut other = bytes.clone();
            other[changed] ^= 1;
            assert_ne!(seal(1, 512, &head, &other), whole, "byte {changed}");
        }
        assert_ne!(seal(2, 512, &head, &bytes), whole);
        assert_ne!(seal(1, 520, &head, &bytes), whole);
        assert_ne!(seal(1, 512, &[1, 2, 3, 4, 6], &bytes), whole);
    }
}
