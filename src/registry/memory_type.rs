//! What kind of device memory a buffer lies in: the `memory_type` label. The kinds are disjoint, so sums over them are valid.

/// A kind of memory that a process can hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum MemoryType {
    /// Device DRAM.
    Dram,
    /// On-chip SRAM of the Tensix cores, the main region.
    L1,
    /// The region that is set aside in L1 for small, long-lived buffers.
    L1Small,
    /// The region that is set aside in DRAM for captured traces.
    Trace,
    /// Circular buffers, in L1.
    Cb,
    /// Kernel code, in L1.
    Kernel,
    /// Host memory that the runtime accounts beside the device's.
    SystemMemory,
}

impl MemoryType {
    /// How many there are.
    pub const COUNT: usize = 7;

    /// All of them, in the order of their indices.
    pub const ALL: [MemoryType; Self::COUNT] = [
        MemoryType::Dram,
        MemoryType::L1,
        MemoryType::L1Small,
        MemoryType::Trace,
        MemoryType::Cb,
        MemoryType::Kernel,
        MemoryType::SystemMemory,
    ];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryType::Dram => "dram",
            MemoryType::L1 => "l1",
            MemoryType::L1Small => "l1_small",
            MemoryType::Trace => "trace",
            MemoryType::Cb => "cb",
            MemoryType::Kernel => "kernel",
            MemoryType::SystemMemory => "system_memory",
        }
    }

    /// The memory type of that name.
    pub fn from_name(name: &str) -> Option<MemoryType> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether a device that is known and empty says 0 for it. The others may have no source at all, and a figure that nobody
    /// reported is not shown as 0.
    pub const fn is_allocated_by_every_runtime(self) -> bool {
        matches!(self, MemoryType::Dram | MemoryType::L1 | MemoryType::L1Small | MemoryType::Trace)
    }
}

const _: () = {
    let mut index = 0;
    while index < MemoryType::COUNT {
        assert!(MemoryType::ALL[index].index() == index);
        index += 1;
    }
};
