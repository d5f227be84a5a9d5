//! tt-metal's own objects, as far as they are looked at: what an allocator and a buffer can be asked, by whichever way this version has.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::{ptr, slice};

use ttmem_wire::Note;

use crate::symbols::Library;

/// An `AllocatorImpl` of tt-metal's.
pub(crate) type Allocator = *mut c_void;
/// A `Buffer` of tt-metal's.
pub(crate) type Buffer = *const c_void;
/// An `IDevice` of tt-metal's.
pub(crate) type Device = *const c_void;
/// A `CoreRangeSet` of tt-metal's.
pub(crate) type Cores = *const c_void;

/// A kind of memory, in tt-metal's own numbering: DRAM, L1, SYSTEM_MEMORY, L1_SMALL, TRACE. As wide as any version's enumeration, so that
/// a reference to it can be passed to all of them.
pub(crate) type BufferType = u32;
pub(crate) const DRAM: BufferType = 0;
pub(crate) const L1: BufferType = 1;
/// What of a returned one counts in every version.
const BUFFER_TYPE_MASK: BufferType = 0xff;

pub(crate) type Allocate = unsafe extern "C-unwind" fn(Allocator, Buffer) -> u64;
pub(crate) type Deallocate = unsafe extern "C-unwind" fn(Allocator, Buffer);
pub(crate) type DeallocateAll = unsafe extern "C-unwind" fn(Allocator);
pub(crate) type TrackAllocate = unsafe extern "C-unwind" fn(*mut c_void, Buffer);
pub(crate) type TrackDeallocate = unsafe extern "C-unwind" fn(*mut c_void, Buffer);
pub(crate) type TrackAllocateCb = unsafe extern "C-unwind" fn(*mut c_void, Cores, u64, u64, bool, Device);
pub(crate) type TrackDeallocateCb = unsafe extern "C-unwind" fn(*mut c_void, Device);

type BufferNumber = unsafe extern "C-unwind" fn(Buffer) -> u64;
type BufferKind = unsafe extern "C-unwind" fn(Buffer) -> BufferType;
type BufferDevice = unsafe extern "C-unwind" fn(Buffer) -> Device;
type Banks = unsafe extern "C-unwind" fn(Allocator, *const BufferType) -> u32;
type Statistics = unsafe extern "C-unwind" fn(*mut PaddedStatistics, Allocator, *const BufferType);
type DeviceIds = unsafe extern "C-unwind" fn(*mut CxxVector, Device);
type DeviceId = unsafe extern "C-unwind" fn(Device) -> i32;
type CoreCount = unsafe extern "C-unwind" fn(Cores) -> u32;
type Delete = unsafe extern "C" fn(*mut c_void);

/// What an allocator knows of one kind of memory, per bank.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct BankStatistics {
    pub(crate) total_bytes: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) largest_free_block_bytes: u64,
}

/// The return value of `get_statistics`: the figures, and after them whatever a version adds, a vector for instance. What that owns is
/// not freed: a few bytes for each failure.
#[repr(C)]
struct PaddedStatistics {
    figures: BankStatistics,
    rest: [u64; 28],
}

/// A `std::vector<int>` of the C++ library's.
#[repr(C)]
struct CxxVector {
    begin: *mut i32,
    end: *mut i32,
    capacity: *mut i32,
}

/// How a `Buffer` tells what it is.
enum Accessors {
    /// By its own functions, exported since 0.79.
    Exported { size: BufferNumber, unique_id: BufferNumber, buffer_type: BufferKind, device: BufferDevice },
    /// By where they lie, from 0.62 to 0.78.
    Placed,
}

/// Where `Buffer` has its fields in versions that export no functions for them.
const DEVICE_AT: usize = 16;
const SIZE_AT: usize = 24;
const BUFFER_TYPE_AT: usize = 32;

/// Where an object's virtual functions begin, behind what its table begins with.
const VIRTUAL_FUNCTIONS_AT: usize = 16;
/// Which of them `IDevice::id` is.
const DEVICE_ID_SLOT: usize = 3;

/// Everything that is called.
pub(crate) struct Metal {
    pub(crate) allocate: Option<Allocate>,
    pub(crate) deallocate: Option<Deallocate>,
    pub(crate) deallocate_all: Option<DeallocateAll>,
    banks: Option<Banks>,
    statistics: Option<Statistics>,
    pub(crate) track_allocate: Option<TrackAllocate>,
    pub(crate) track_deallocate: Option<TrackDeallocate>,
    pub(crate) track_allocate_cb: Option<TrackAllocateCb>,
    pub(crate) track_deallocate_cb: Option<TrackDeallocateCb>,
    accessors: Accessors,
    address: Option<BufferNumber>,
    aligned_size_per_bank: Option<BufferNumber>,
    core_count: Option<CoreCount>,
    mesh: Option<Mesh>,
}

/// What a mesh needs to be known and asked.
struct Mesh {
    virtual_functions: *const c_void,
    device_ids: DeviceIds,
    delete: Delete,
}

// SAFETY: it holds addresses of code and constant tables of a library that is never unloaded.
unsafe impl Send for Metal {}
// SAFETY: as above; nothing in it is ever written.
unsafe impl Sync for Metal {}

/// tt-metal in this process. `None` until it is loaded.
pub(crate) fn metal() -> Option<&'static Metal> {
    static METAL: OnceLock<Metal> = OnceLock::new();
    if let Some(metal) = METAL.get() {
        return Some(metal);
    }
    let library = Library::loaded()?;
    Some(METAL.get_or_init(|| Metal::of(library)))
}

/// A function by its mangled name.
macro_rules! function {
    ($library:expr, $name:literal as $signature:ty) => {
        $library.symbol($name).map(|address| {
            // SAFETY: the mangled name is that of a function with this signature, and a pointer to code is as large as one to data.
            unsafe { std::mem::transmute::<*const c_void, $signature>(address) }
        })
    };
}

impl Metal {
    fn of(library: Library) -> Metal {
        Metal {
            allocate: function!(
                library,
                c"_ZN2tt8tt_metal13AllocatorImpl15allocate_bufferEPNS0_6BufferE" as Allocate
            ),
            deallocate: function!(
                library,
                c"_ZN2tt8tt_metal13AllocatorImpl17deallocate_bufferEPNS0_6BufferE" as Deallocate
            ),
            deallocate_all: function!(
                library,
                c"_ZN2tt8tt_metal13AllocatorImpl18deallocate_buffersEv" as DeallocateAll
            ),
            banks: function!(
                library,
                c"_ZNK2tt8tt_metal13AllocatorImpl13get_num_banksERKNS0_10BufferTypeE" as Banks
            ),
            statistics: function!(
                library,
                c"_ZNK2tt8tt_metal13AllocatorImpl14get_statisticsERKNS0_10BufferTypeE" as Statistics
            ),
            track_allocate: function!(
                library,
                c"_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE" as TrackAllocate
            ),
            track_deallocate: function!(
                library,
                c"_ZN2tt8tt_metal12GraphTracker16track_deallocateEPNS0_6BufferE" as TrackDeallocate
            ),
            track_allocate_cb: function!(
                library,
                c"_ZN2tt8tt_metal12GraphTracker17track_allocate_cbERKNS0_12CoreRangeSetEmmbPKNS0_7IDeviceE"
                    as TrackAllocateCb
            ),
            track_deallocate_cb: function!(
                library,
                c"_ZN2tt8tt_metal12GraphTracker19track_deallocate_cbEPKNS0_7IDeviceE" as TrackDeallocateCb
            ),
            accessors: Accessors::of(library),
            address: function!(library, c"_ZNK2tt8tt_metal6Buffer7addressEv" as BufferNumber),
            aligned_size_per_bank: function!(
                library,
                c"_ZNK2tt8tt_metal6Buffer21aligned_size_per_bankEv" as BufferNumber
            ),
            core_count: function!(library, c"_ZNK2tt8tt_metal12CoreRangeSet9num_coresEv" as CoreCount),
            mesh: Mesh::of(library),
        }
    }

    /// Whether every buffer passes allocator functions that are known: all three of them, or else nothing is told of by them.
    pub(crate) fn has_allocator(&self) -> bool {
        self.allocate.is_some() && self.deallocate.is_some() && self.deallocate_all.is_some()
    }

    /// What this version lacks, and what cannot be told for that.
    pub(crate) fn shortcomings(&self) -> impl Iterator<Item = Note> {
        let has_banks = self.banks.is_some() && self.statistics.is_some();
        let has_circular = self.track_allocate_cb.is_some()
            && self.track_deallocate_cb.is_some()
            && self.core_count.is_some();
        [
            (self.has_allocator(), Note::Allocator),
            (has_banks, Note::Banks),
            (has_circular, Note::CircularBuffers),
            (self.mesh.is_some(), Note::Mesh),
        ]
        .into_iter()
        .filter_map(|(is_there, note)| (!is_there).then_some(note))
    }

    /// The number that the buffer alone has in this process while it lives.
    ///
    /// # Safety
    /// The buffer lives; so for every function below that is given one.
    pub(crate) unsafe fn unique_id(&self, buffer: Buffer) -> u64 {
        match self.accessors {
            // SAFETY: the caller's.
            Accessors::Exported { unique_id, .. } => unsafe { unique_id(buffer) },
            Accessors::Placed => buffer.addr() as u64,
        }
    }

    /// Whether it has memory of its own; a graph that is only recorded makes buffers without any.
    pub(crate) unsafe fn has_memory(&self, buffer: Buffer) -> bool {
        // SAFETY: the caller's.
        self.address.is_none_or(|address| unsafe { address(buffer) } != 0)
    }

    /// Which kind of memory it is in.
    pub(crate) unsafe fn buffer_type(&self, buffer: Buffer) -> BufferType {
        match self.accessors {
            // SAFETY: the caller's.
            Accessors::Exported { buffer_type, .. } => unsafe { buffer_type(buffer) & BUFFER_TYPE_MASK },
            // SAFETY: the caller's; in these versions the field is there.
            Accessors::Placed => unsafe { buffer.byte_add(BUFFER_TYPE_AT).cast::<u8>().read().into() },
        }
    }

    /// The bytes that it asks for on each of its devices, before they are dealt out to banks.
    pub(crate) unsafe fn asked_bytes(&self, buffer: Buffer) -> u64 {
        match self.accessors {
            // SAFETY: the caller's.
            Accessors::Exported { size, .. } => unsafe { size(buffer) },
            // SAFETY: the caller's; in these versions the field is there.
            Accessors::Placed => unsafe { buffer.byte_add(SIZE_AT).cast::<u64>().read() },
        }
    }

    /// The bytes that it takes on each of its devices: the same range of every bank, whether the buffer fills it or not. What it asks for,
    /// where this version does not tell.
    pub(crate) unsafe fn taken_bytes(&self, allocator: Allocator, buffer: Buffer) -> u64 {
        let taken = self.aligned_size_per_bank.zip(self.banks).map(|(aligned_size_per_bank, banks)| {
            // SAFETY: the caller's, and the allocator is the one that has just worked.
            unsafe { aligned_size_per_bank(buffer) * u64::from(banks(allocator, &self.buffer_type(buffer))) }
        });
        // SAFETY: the caller's.
        taken.filter(|bytes| *bytes > 0).unwrap_or_else(|| unsafe { self.asked_bytes(buffer) })
    }

    /// The chips that it lies on, each with the whole size.
    pub(crate) unsafe fn devices_of(&self, buffer: Buffer) -> Vec<i32> {
        let device = match self.accessors {
            // SAFETY: the caller's.
            Accessors::Exported { device, .. } => unsafe { device(buffer) },
            // SAFETY: the caller's; in these versions the field is there.
            Accessors::Placed => unsafe { buffer.byte_add(DEVICE_AT).cast::<Device>().read() },
        };
        // SAFETY: a buffer's device lives as long as the buffer.
        unsafe { self.devices(device) }
    }

    /// The chips that a device stands for.
    ///
    /// # Safety
    /// The device lives, or is null.
    pub(crate) unsafe fn devices(&self, device: Device) -> Vec<i32> {
        if device.is_null() {
            return Vec::new();
        }
        // SAFETY: an object with virtual functions begins with the address of their table.
        let virtual_functions = unsafe { device.cast::<*const c_void>().read() };
        if let Some(mesh) = self.mesh.as_ref().filter(|mesh| mesh.virtual_functions == virtual_functions) {
            // SAFETY: the table says that it is a mesh.
            return unsafe { mesh.devices(device) };
        }
        // SAFETY: every device has this function in this place of its table.
        let id = unsafe {
            let slot = virtual_functions.cast::<*const c_void>().add(DEVICE_ID_SLOT).read();
            std::mem::transmute::<*const c_void, DeviceId>(slot)(device)
        };
        vec![id]
    }

    /// What an allocator has of a kind of memory: the figures of one bank, and how many banks there are.
    ///
    /// # Safety
    /// The allocator lives, and has just been asked for this kind of memory: of one that it does not have it would throw.
    pub(crate) unsafe fn bank_statistics(
        &self,
        allocator: Allocator,
        buffer_type: BufferType,
    ) -> Option<(BankStatistics, u32)> {
        let (banks, statistics) = self.banks.zip(self.statistics)?;
        let mut told = PaddedStatistics { figures: BankStatistics::default(), rest: [0; 28] };
        // SAFETY: the caller's; the return value is larger than that of any version.
        let banks = unsafe {
            statistics(&raw mut told, allocator, &buffer_type);
            banks(allocator, &buffer_type)
        };
        Some((told.figures, banks))
    }

    /// How many cores there are in a set; each has a circular buffer of its own. `None` where this version does not tell.
    ///
    /// # Safety
    /// The set lives.
    pub(crate) unsafe fn core_count(&self, cores: Cores) -> Option<u32> {
        // SAFETY: the caller's.
        self.core_count.map(|core_count| unsafe { core_count(cores) })
    }
}

impl Accessors {
    fn of(library: Library) -> Accessors {
        let exported = || {
            Some(Accessors::Exported {
                size: function!(library, c"_ZNK2tt8tt_metal6Buffer4sizeEv" as BufferNumber)?,
                unique_id: function!(library, c"_ZNK2tt8tt_metal6Buffer9unique_idEv" as BufferNumber)?,
                buffer_type: function!(library, c"_ZNK2tt8tt_metal6Buffer11buffer_typeEv" as BufferKind)?,
                device: function!(library, c"_ZNK2tt8tt_metal6Buffer6deviceEv" as BufferDevice)?,
            })
        };
        exported().unwrap_or(Accessors::Placed)
    }
}

impl Mesh {
    fn of(library: Library) -> Option<Mesh> {
        Some(Mesh {
            // SAFETY: the table is longer than what it begins with.
            virtual_functions: unsafe {
                library.symbol(c"_ZTVN2tt8tt_metal11distributed10MeshDeviceE")?.byte_add(VIRTUAL_FUNCTIONS_AT)
            },
            device_ids: function!(
                library,
                c"_ZNK2tt8tt_metal11distributed10MeshDevice14get_device_idsEv" as DeviceIds
            )?,
            delete: function!(library, c"_ZdlPv" as Delete)?,
        })
    }

    /// # Safety
    /// The device is a mesh that lives.
    unsafe fn devices(&self, device: Device) -> Vec<i32> {
        let mut ids = CxxVector { begin: ptr::null_mut(), end: ptr::null_mut(), capacity: ptr::null_mut() };
        // SAFETY: the caller's; the vector is returned into memory of its size, is copied, and its memory given back as C++ would.
        unsafe {
            (self.device_ids)(&raw mut ids, device);
            let count = usize::try_from(ids.end.offset_from(ids.begin)).unwrap_or(0);
            let devices =
                if count == 0 { Vec::new() } else { slice::from_raw_parts(ids.begin, count).to_vec() };
            (self.delete)(ids.begin.cast());
            devices
        }
    }
}
