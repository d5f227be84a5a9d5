//! The message types: the first byte of every frame.

use crate::FrameError;

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A buffer was allocated.
    Alloc = 1,
    /// A buffer was freed.
    Free = 2,
    /// Asks for the totals of one device.
    Query = 3,
    /// The server's answer to [`Kind::Query`].
    Response = 4,
    /// Asks the server to write its live buffers to its log.
    DumpRemaining = 5,
    /// Asks for the capacities of one device, or for the number of devices.
    DeviceInfoQuery = 6,
    /// The server's answer to [`Kind::DeviceInfoQuery`].
    DeviceInfoResponse = 7,
    /// A circular buffer was placed in L1.
    CbAlloc = 8,
    /// A circular buffer was removed from L1.
    CbFree = 9,
    /// Kernel code was placed in L1.
    KernelLoad = 10,
    /// Kernel code was removed from L1.
    KernelUnload = 11,
    /// Asks the server to write its kernel totals to its log.
    DumpKernels = 12,
    /// Says what else than frames the client can speak; the server answers those that ask for something. See [`crate::Hello`].
    Hello = 13,
    /// Says which trace the process belongs to: see [`crate::TraceContext`].
    TraceContext = 14,
    /// A device had no room for a buffer.
    AllocationFailed = 15,
    /// Reports were lost in the client.
    Lost = 16,
    /// What a device has of a kind of memory, as the client's allocator says.
    Capacity = 17,
    /// What keeps the client from telling everything: see [`crate::Note`].
    Note = 18,
}

impl Kind {
    /// All of them, by their number.
    pub const ALL: [Kind; 18] = [
        Kind::Alloc,
        Kind::Free,
        Kind::Query,
        Kind::Response,
        Kind::DumpRemaining,
        Kind::DeviceInfoQuery,
        Kind::DeviceInfoResponse,
        Kind::CbAlloc,
        Kind::CbFree,
        Kind::KernelLoad,
        Kind::KernelUnload,
        Kind::DumpKernels,
        Kind::Hello,
        Kind::TraceContext,
        Kind::AllocationFailed,
        Kind::Lost,
        Kind::Capacity,
        Kind::Note,
    ];

    /// The message type with that number.
    #[inline]
    pub const fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Alloc),
            2 => Some(Kind::Free),
            3 => Some(Kind::Query),
            4 => Some(Kind::Response),
            5 => Some(Kind::DumpRemaining),
            6 => Some(Kind::DeviceInfoQuery),
            7 => Some(Kind::DeviceInfoResponse),
            8 => Some(Kind::CbAlloc),
            9 => Some(Kind::CbFree),
            10 => Some(Kind::KernelLoad),
            11 => Some(Kind::KernelUnload),
            12 => Some(Kind::DumpKernels),
            13 => Some(Kind::Hello),
            14 => Some(Kind::TraceContext),
            15 => Some(Kind::AllocationFailed),
            16 => Some(Kind::Lost),
            17 => Some(Kind::Capacity),
            18 => Some(Kind::Note),
            _ => None,
        }
    }

    /// The message type in the byte at `offset`.
    #[inline]
    pub(crate) fn decode(byte: u8, offset: usize) -> Result<Kind, FrameError> {
        Kind::from_byte(byte).ok_or(FrameError::UnknownType { byte, offset })
    }

    /// Its name, in the form of a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Alloc => "alloc",
            Kind::Free => "free",
            Kind::Query => "query",
            Kind::Response => "response",
            Kind::DumpRemaining => "dump_remaining",
            Kind::DeviceInfoQuery => "device_info_query",
            Kind::DeviceInfoResponse => "device_info_response",
            Kind::CbAlloc => "cb_alloc",
            Kind::CbFree => "cb_free",
            Kind::KernelLoad => "kernel_load",
            Kind::KernelUnload => "kernel_unload",
            Kind::DumpKernels => "dump_kernels",
            Kind::Hello => "hello",
            Kind::TraceContext => "trace_context",
            Kind::AllocationFailed => "allocation_failed",
            Kind::Lost => "lost",
            Kind::Capacity => "capacity",
            Kind::Note => "note",
        }
    }

    /// Whether a client sends it. The other two are the server's answers.
    pub const fn is_request(self) -> bool {
        !matches!(self, Kind::Response | Kind::DeviceInfoResponse)
    }

    /// Whether the server always answers it with one frame.
    pub const fn wants_answer(self) -> bool {
        matches!(self, Kind::Query | Kind::DeviceInfoQuery)
    }
}

const _: () = {
    let mut index = 0;
    while index < Kind::ALL.len() {
        let kind = Kind::ALL[index];
        assert!(index == 0 || (Kind::ALL[index - 1] as u8) < kind as u8);
        assert!(matches!(Kind::from_byte(kind as u8), Some(found) if found as u8 == kind as u8));
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_bytes_are_types() {
        for byte in 0..=u8::MAX {
            let known = Kind::ALL.iter().find(|kind| **kind as u8 == byte);
            assert_eq!(Kind::from_byte(byte), known.copied());
        }
    }

    #[test]
    fn names_are_distinct_labels() {
        for kind in Kind::ALL {
            assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            let namesakes = Kind::ALL.iter().filter(|other| other.name() == kind.name());
            assert_eq!(namesakes.count(), 1);
        }
    }

    #[test]
    fn only_requests_want_answers() {
        let requests = Kind::ALL.iter().filter(|kind| kind.is_request());
        assert_eq!(requests.count(), Kind::ALL.len() - 2);
        assert!(Kind::ALL.iter().all(|kind| kind.is_request() || !kind.wants_answer()));
    }
}
