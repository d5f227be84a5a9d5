//! The layout of the shared-memory region in which tt-metal publishes what processes hold on one chip, versions 3 and 4.
//!
//! Totals in the header are not used: a process that was killed leaves its bytes in them. The sums of live slots are right.

use crate::registry::MemoryType;

/// Bytes up to the end of the process table: the least that a region has.
const TABLE_END: usize = PROCESSES_AT + PROCESS_SLOTS * PROCESS_BYTES;
/// More than any known version has, and all that is ever read of a file.
pub(super) const REGION_BYTES_MAX: usize = 16 * 1024;

const VERSION_AT: usize = 0;
const CHIP_UNIQUE_ID_AT: usize = 32;
const DEVICE_ID_AT: usize = 40;
const PROCESSES_AT: usize = 856;
const PROCESS_SLOTS: usize = 64;
const PROCESS_BYTES: usize = 120;
const BYTES_AT: usize = 8;
const LAST_UPDATE_AT: usize = 48;
/// Version 4 says when the region has been set up.
const INIT_STATE_AT: usize = TABLE_END;
const INIT_READY: u32 = 0x5245_4459;

const _: () = assert!(TABLE_END == 8536 && TABLE_END + size_of::<u32>() <= REGION_BYTES_MAX);

/// The memory types that a slot has figures for, in their order there.
pub(super) const REGION_MEMORY_TYPES: [MemoryType; 5] =
    [MemoryType::Dram, MemoryType::L1, MemoryType::L1Small, MemoryType::Trace, MemoryType::Cb];

/// A region as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Region {
    pub(super) chip_unique_id: u64,
    pub(super) device_id: u32,
    pub(super) processes: Vec<RegionProcess>,
}

/// A slot in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RegionProcess {
    pub(super) pid: i32,
    pub(super) bytes: [u64; REGION_MEMORY_TYPES.len()],
    /// When the process last wrote here, in nanoseconds since the epoch.
    pub(super) last_update_ns: u64,
}

/// Why a file is not read as a region. Whoever wrote it is newer or older than this daemon, or it is no region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum RegionError {
    #[error("version {0} of the region is not known, only 3 and 4 are; a newer ttmem may know it")]
    Version(u32),
    #[error(
        "{0} bytes are too few for a region; its writer may not have finished, or it is another program's file"
    )]
    Size(usize),
    #[error("device id {0} is not 0 to 1023")]
    Device(u32),
}

impl Region {
    /// Reads a region; `None` while its writer is still setting it up.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Region>, RegionError> {
        let version = word(bytes, VERSION_AT).ok_or(RegionError::Size(bytes.len()))?;
        match version {
            // A file that has been made and sized, but not written yet.
            0 => return Ok(None),
            3 | 4 => {}
            other => return Err(RegionError::Version(other)),
        }
        let table = bytes.get(PROCESSES_AT..TABLE_END).ok_or(RegionError::Size(bytes.len()))?;
        if version == 4 && word(bytes, INIT_STATE_AT).ok_or(RegionError::Size(bytes.len()))? != INIT_READY {
            return Ok(None);
        }
        let too_short = RegionError::Size(bytes.len());
        let device_id = word(bytes, DEVICE_ID_AT).ok_or(too_short)?;
        if device_id >= u32::from(crate::registry::DEVICES_MAX) {
            return Err(RegionError::Device(device_id));
        }
        let chip_unique_id = long(bytes, CHIP_UNIQUE_ID_AT).ok_or(too_short)?;
        let (slots, _) = table.as_chunks::<PROCESS_BYTES>();
        let processes = slots.iter().filter_map(RegionProcess::parse).collect();
        Ok(Some(Region { chip_unique_id, device_id, processes }))
    }
}

impl RegionProcess {
    fn parse(slot: &[u8; PROCESS_BYTES]) -> Option<RegionProcess> {
        let pid = word(slot, 0)?.cast_signed();
        if pid <= 0 {
            // Unused, or being given back.
            return None;
        }
        let mut bytes = [0; REGION_MEMORY_TYPES.len()];
        for (index, bytes) in bytes.iter_mut().enumerate() {
            *bytes = long(slot, BYTES_AT + index * size_of::<u64>())?;
        }
        Some(RegionProcess { pid, bytes, last_update_ns: long(slot, LAST_UPDATE_AT)? })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by tt-metal 0.81.1 itself.
    const RECORDED: &[u8] = include_bytes!("../../tests/peers/regions/v3-recorded.bin");

    #[test]
    fn a_recorded_region_is_read() {
        let region = Region::parse(RECORDED).expect("version 3").expect("set up");
        assert_eq!(region.device_id, 0);
        assert!(
            !region.processes.is_empty() && region.processes[0].bytes.iter().any(|bytes| *bytes > 0),
            "{region:?}"
        );
    }

    #[test]
    fn version_four_is_read_once_it_is_ready() {
        let mut bytes = RECORDED.to_vec();
        bytes[VERSION_AT] = 4;
        bytes[INIT_STATE_AT..INIT_STATE_AT + 4].fill(0);
        assert_eq!(Region::parse(&bytes), Ok(None));
        bytes[INIT_STATE_AT..INIT_STATE_AT + 4].copy_from_slice(&INIT_READY.to_le_bytes());
        assert_eq!(Region::parse(&bytes), Region::parse(RECORDED));
    }

    #[test]
    fn what_is_no_region_is_named() {
        let check = |bytes: &[u8], expected| assert_eq!(Region::parse(bytes).map(|_| ()), expected);
        check(&[], Err(RegionError::Size(0)));
        check(&[5, 0, 0, 0], Err(RegionError::Version(5)));
        check(&RECORDED[..100], Err(RegionError::Size(100)));
        check(&[0; 8576], Ok(()));
        let mut out_of_range = RECORDED.to_vec();
        out_of_range[DEVICE_ID_AT + 1] = 4;
        check(&out_of_range, Err(RegionError::Device(1024)));
        for length in 0..RECORDED.len() {
            let _ = Region::parse(&RECORDED[..length]);
        }
    }
}
