//! The 40 bytes that begin every frame, in every layout and direction.

use crate::{FrameError, Kind};

/// The size of the part that all layouts share.
pub const HEADER_BYTES: usize = 40;

const KIND: usize = 0;
const DEVICE_ID: usize = 4;
const SIZE_BYTES: usize = 8;
const BUFFER_TYPE: usize = 16;
const PROCESS_ID: usize = 20;
const BUFFER_ID: usize = 24;
const TIMESTAMP_NS: usize = 32;

/// The padding behind each of the two fields of one byte.
const PADDING_BYTES: usize = 3;

/// A message: the fields of a request, and the beginning of a reply. What each field means depends on the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the frame says.
    pub kind: Kind,
    /// The device's index; -1 in a DEVICE_INFO_QUERY asks for the number of devices.
    pub device_id: i32,
    /// The size that is reported.
    pub size_bytes: u64,
    /// The kind of memory, to be read by [`crate::BufferTypes`], or of kernel, to be read by [`crate::KernelKind`].
    pub buffer_type: u8,
    /// The process that the report is about; 0 is the peer.
    pub process_id: i32,
    /// The buffer's name within its process and device.
    pub buffer_id: u64,
    /// When it happened, in nanoseconds since the Unix epoch; 0 if unknown.
    pub timestamp_ns: u64,
}

impl Header {
    /// A request of this kind with zero in all other fields.
    pub const fn request(kind: Kind) -> Header {
        Header {
            kind,
            device_id: 0,
            size_bytes: 0,
            buffer_type: 0,
            process_id: 0,
            buffer_id: 0,
            timestamp_ns: 0,
        }
    }

    /// Reads a header. Errors are the peer's: an unknown type, or padding that is not zero.
    #[inline]
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let kind = Kind::decode(bytes[KIND], KIND)?;
        let kind_word = u32::from_le_bytes(field::<KIND, 4>(bytes));
        let buffer_type_word = u32::from_le_bytes(field::<BUFFER_TYPE, 4>(bytes));
        if (kind_word | buffer_type_word) >> 8 != 0 {
            check_padding(bytes)?;
        }
        Ok(Header {
            kind,
            device_id: i32::from_le_bytes(field::<DEVICE_ID, 4>(bytes)),
            size_bytes: u64::from_le_bytes(field::<SIZE_BYTES, 8>(bytes)),
            buffer_type: bytes[BUFFER_TYPE],
            process_id: i32::from_le_bytes(field::<PROCESS_ID, 4>(bytes)),
            buffer_id: u64::from_le_bytes(field::<BUFFER_ID, 8>(bytes)),
            timestamp_ns: u64::from_le_bytes(field::<TIMESTAMP_NS, 8>(bytes)),
        })
    }

    /// Writes a header. Every value of every field has a place, so this cannot fail.
    #[inline]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        self.write(&mut bytes);
        bytes
    }

    /// Writes a header over zeros.
    #[inline]
    pub(crate) fn write(&self, bytes: &mut [u8; HEADER_BYTES]) {
        put::<KIND, 1>(bytes, [self.kind as u8]);
        put::<DEVICE_ID, 4>(bytes, self.device_id.to_le_bytes());
        put::<SIZE_BYTES, 8>(bytes, self.size_bytes.to_le_bytes());
        put::<BUFFER_TYPE, 1>(bytes, [self.buffer_type]);
        put::<PROCESS_ID, 4>(bytes, self.process_id.to_le_bytes());
        put::<BUFFER_ID, 8>(bytes, self.buffer_id.to_le_bytes());
        put::<TIMESTAMP_NS, 8>(bytes, self.timestamp_ns.to_le_bytes());
    }
}

/// Finds the first byte of padding that is not zero in a header of which perhaps only the beginning is there.
#[cold]
pub(crate) fn check_padding(header: &[u8]) -> Result<(), FrameError> {
    for field in [KIND, BUFFER_TYPE] {
        for offset in field + 1..=field + PADDING_BYTES {
            if header.get(offset).is_some_and(|&byte| byte != 0) {
                return Err(FrameError::Padding { offset });
            }
        }
    }
    Ok(())
}

/// The bytes of one field. Its place is checked when the code is compiled.
#[inline(always)]
fn field<const OFFSET: usize, const BYTES: usize>(header: &[u8; HEADER_BYTES]) -> [u8; BYTES] {
    const { assert!(OFFSET + BYTES <= HEADER_BYTES) };
    let mut field = [0; BYTES];
    field.copy_from_slice(&header[OFFSET..OFFSET + BYTES]);
    field
}

/// Writes the bytes of one field. Its place is checked when the code is compiled.
#[inline(always)]
fn put<const OFFSET: usize, const BYTES: usize>(header: &mut [u8; HEADER_BYTES], field: [u8; BYTES]) {
    const { assert!(OFFSET + BYTES <= HEADER_BYTES) };
    header[OFFSET..OFFSET + BYTES].copy_from_slice(&field);
}

const _: () = {
    assert!(KIND == 0);
    assert!(DEVICE_ID == KIND + 1 + PADDING_BYTES);
    assert!(SIZE_BYTES == DEVICE_ID + 4);
    assert!(BUFFER_TYPE == SIZE_BYTES + 8);
    assert!(PROCESS_ID == BUFFER_TYPE + 1 + PADDING_BYTES);
    assert!(BUFFER_ID == PROCESS_ID + 4);
    assert!(TIMESTAMP_NS == BUFFER_ID + 8);
    assert!(HEADER_BYTES == TIMESTAMP_NS + 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_type_and_the_padding_can_be_wrong() {
        let good = Header::request(Kind::Alloc).encode();
        for offset in 0..HEADER_BYTES {
            let mut bytes = good;
            bytes[offset] = 0xff;
            let expected = match offset {
                0 => Some(FrameError::UnknownType { byte: 0xff, offset }),
                1..=3 | 17..=19 => Some(FrameError::Padding { offset }),
                _ => None,
            };
            assert_eq!(Header::decode(&bytes).err(), expected);
        }
    }

    #[test]
    fn the_first_fault_is_the_one_reported() {
        let everything_wrong = [0xff; HEADER_BYTES];
        let error = Header::decode(&everything_wrong);
        assert_eq!(error.map_err(FrameError::reason), Err("unknown_type"));
        let mut padding_wrong = everything_wrong;
        padding_wrong[0] = Kind::DumpKernels as u8;
        let error = Header::decode(&padding_wrong);
        assert_eq!(error, Err(FrameError::Padding { offset: 1 }));
    }
}
