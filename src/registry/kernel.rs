//! Kernel code as it is accounted: by what it is for.

/// What a kernel is loaded for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KernelKind {
    /// A program's own.
    Application,
    /// Routing between chips.
    Fabric,
    /// Feeding programs to the cores.
    Dispatch,
}

impl KernelKind {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [KernelKind; 3] =
        [KernelKind::Application, KernelKind::Fabric, KernelKind::Dispatch];

    /// Its name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            KernelKind::Application => "application",
            KernelKind::Fabric => "fabric",
            KernelKind::Dispatch => "dispatch",
        }
    }
}

/// Kernel code of one kind on one device.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct KernelTally {
    /// Kernels loaded and not unloaded.
    pub kernels: u64,
    /// Their bytes.
    pub bytes: u64,
}
