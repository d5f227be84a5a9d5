//! What the `buffer_type` byte means: a kind of memory, in one of two numberings, or a kind of kernel.

/// Which of the two numberings of memory a connection uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BufferTypes {
    /// The first protocol's: 0 DRAM, 1 L1, 2 L1_SMALL, 3 TRACE, and 4 is read as TRACE too.
    Seed,
    /// tt-metal's own: 0 DRAM, 1 L1, 2 SYSTEM_MEMORY, 3 L1_SMALL, 4 TRACE.
    Metal,
}

/// The kind of memory that a buffer lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BufferType {
    /// Device DRAM.
    Dram,
    /// The SRAM of the cores.
    L1,
    /// The part of L1 that is set aside for small buffers.
    L1Small,
    /// The part of DRAM that holds recorded traces.
    Trace,
    /// Memory of the host, not of the device.
    SystemMemory,
}

/// Whose kernel code a KERNEL_LOAD or KERNEL_UNLOAD is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum KernelKind {
    /// The program's own.
    Application,
    /// That of the fabric between devices.
    Fabric,
    /// That of the dispatcher.
    Dispatch,
}

impl BufferTypes {
    /// The memory that `byte` names; `None` if it names none.
    #[inline]
    pub const fn decode(self, byte: u8) -> Option<BufferType> {
        match (self, byte) {
            (_, 0) => Some(BufferType::Dram),
            (_, 1) => Some(BufferType::L1),
            (BufferTypes::Seed, 2) => Some(BufferType::L1Small),
            (BufferTypes::Seed, 3 | 4) => Some(BufferType::Trace),
            (BufferTypes::Metal, 2) => Some(BufferType::SystemMemory),
            (BufferTypes::Metal, 3) => Some(BufferType::L1Small),
            (BufferTypes::Metal, 4) => Some(BufferType::Trace),
            (_, 5..) => None,
        }
    }

    /// The byte that names this memory; `None` if the numbering has none for it.
    pub const fn encode(self, buffer_type: BufferType) -> Option<u8> {
        match (self, buffer_type) {
            (_, BufferType::Dram) => Some(0),
            (_, BufferType::L1) => Some(1),
            (BufferTypes::Seed, BufferType::L1Small) => Some(2),
            (BufferTypes::Seed, BufferType::Trace) => Some(3),
            (BufferTypes::Seed, BufferType::SystemMemory) => None,
            (BufferTypes::Metal, BufferType::SystemMemory) => Some(2),
            (BufferTypes::Metal, BufferType::L1Small) => Some(3),
            (BufferTypes::Metal, BufferType::Trace) => Some(4),
        }
    }
}

impl BufferType {
    /// All of them.
    pub const ALL: [BufferType; 5] =
        [BufferType::Dram, BufferType::L1, BufferType::L1Small, BufferType::Trace, BufferType::SystemMemory];
}

impl KernelKind {
    /// All of them, by their number.
    pub const ALL: [KernelKind; 3] = [KernelKind::Application, KernelKind::Fabric, KernelKind::Dispatch];

    /// The kind that `byte` names; `None` if it names none.
    #[inline]
    pub const fn decode(byte: u8) -> Option<KernelKind> {
        match byte {
            0 => Some(KernelKind::Application),
            1 => Some(KernelKind::Fabric),
            2 => Some(KernelKind::Dispatch),
            _ => None,
        }
    }

    /// The byte that names this kind.
    pub const fn encode(self) -> u8 {
        match self {
            KernelKind::Application => 0,
            KernelKind::Fabric => 1,
            KernelKind::Dispatch => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(buffer_types: BufferTypes, meanings: [BufferType; 5]) {
        for byte in 0..=u8::MAX {
            let expected = meanings.get(usize::from(byte)).copied();
            assert_eq!(buffer_types.decode(byte), expected, "{byte}");
        }
        for buffer_type in BufferType::ALL {
            let expected = meanings.iter().position(|&meaning| meaning == buffer_type);
            let byte = buffer_types.encode(buffer_type);
            assert_eq!(byte.map(usize::from), expected, "{buffer_type:?}");
        }
    }

    #[test]
    fn the_first_protocols_numbering() {
        use BufferType::{Dram, L1, L1Small, Trace};
        check(BufferTypes::Seed, [Dram, L1, L1Small, Trace, Trace]);
    }

    #[test]
    fn the_numbering_of_tt_metal() {
        use BufferType::{Dram, L1, L1Small, SystemMemory, Trace};
        check(BufferTypes::Metal, [Dram, L1, SystemMemory, L1Small, Trace]);
    }

    #[test]
    fn kernel_kinds() {
        for byte in 0..=u8::MAX {
            let expected = KernelKind::ALL.get(usize::from(byte)).copied();
            assert_eq!(KernelKind::decode(byte), expected);
            if let Some(kind) = expected {
                assert_eq!(kind.encode(), byte);
            }
        }
    }
}
