//! Where the published half of the registry lies: in rows of the stats pages, or in memory of its own where there is no page or no room.
//!
//! The idea is that a row is the same either way, so whoever publishes and whoever reads need not know.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use ttmem_wire::stats::{
    DeviceRow, HolderDescription, HolderRow, HolderState, PageKind, PageWriter, describe, set_state,
};

use super::DEVICES_MAX;
use crate::mapping::Shared;

/// Holders that the page has rows for: as many as 10,000 clients on one device with six kinds of memory. Rows that are never used take
/// no memory, all of them would take 20 MiB.
pub const HOLDERS_MAX: usize = 1 << 16;

/// The pages that other processes can map.
#[derive(Clone)]
pub struct Pages {
    /// What devices hold.
    pub devices: Arc<Page>,
    /// What processes hold.
    pub processes: Arc<Page>,
}

impl Pages {
    /// Empty ones.
    pub fn create() -> io::Result<Pages> {
        Pages::with_holders_max(HOLDERS_MAX)
    }

    pub(super) fn with_holders_max(holders_max: usize) -> io::Result<Pages> {
        let devices = Page::create("ttmem-devices", PageKind::Devices, usize::from(DEVICES_MAX))?;
        let processes = Page::create("ttmem-processes", PageKind::Processes, holders_max)?;
        Ok(Pages { devices: Arc::new(devices), processes: Arc::new(processes) })
    }
}

/// A page, and which of its rows are in use.
pub struct Page {
    memory: Shared,
    kind: PageKind,
    rows_max: usize,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    /// Rows that were in use and are not any more.
    vacant: Vec<usize>,
    /// Rows from here on were never in use.
    used: usize,
    /// Holders without a row.
    missing: u64,
}

impl Page {
    fn create(name: &str, kind: PageKind, rows_max: usize) -> io::Result<Page> {
        let memory = Shared::create(name, kind.page_bytes(rows_max))?;
        PageWriter::initialise(memory.words(), kind, rows_max);
        Ok(Page { memory, kind, rows_max, rows: Mutex::default() })
    }

    /// What others map it by, for reading.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.descriptor()
    }

    /// Its size.
    pub fn size_bytes(&self) -> u64 {
        size_of_val(self.memory.words()) as u64
    }

    /// The words that readers see.
    pub fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    fn writer(&self) -> PageWriter<'_> {
        PageWriter::of(self.memory.words(), self.kind)
    }

    /// A row for a holder, or `None` where all are in use.
    fn take(&self) -> Option<usize> {
        let mut rows = self.rows.lock();
        if let Some(index) = rows.vacant.pop() {
            return Some(index);
        }
        if rows.used == self.rows_max {
            rows.missing += 1;
            self.writer().set_rows_missing(rows.missing);
            return None;
        }
        rows.used += 1;
        Some(rows.used - 1)
    }

    fn give_back(&self, index: usize) {
        self.rows.lock().vacant.push(index);
    }

    fn miss_one_less(&self) {
        let mut rows = self.rows.lock();
        rows.missing -= 1;
        self.writer().set_rows_missing(rows.missing);
    }
}

/// The row of a device.
pub(super) enum DevicePlace {
    Paged { page: Arc<Page>, index: usize },
    Own(Box<DeviceRow>),
}

impl DevicePlace {
    /// The row of the device of that index, which is below [`DEVICES_MAX`].
    pub(super) fn new(pages: Option<&Pages>, index: u16) -> DevicePlace {
        match pages {
            None => DevicePlace::Own(Box::new([const { AtomicU64::new(0) }; _])),
            Some(pages) => {
                let (page, index) = (Arc::clone(&pages.devices), usize::from(index));
                page.writer().set_rows_used(index + 1);
                DevicePlace::Paged { page, index }
            }
        }
    }

    #[inline]
    pub(super) fn row(&self) -> &DeviceRow {
        match self {
            DevicePlace::Paged { page, index } => page.writer().row(*index),
            DevicePlace::Own(row) => row,
        }
    }
}

/// The row of a holder, which is vacant again when this is dropped.
pub(super) enum HolderPlace {
    Paged {
        page: Arc<Page>,
        index: usize,
    },
    Own {
        row: Box<HolderRow>,
        /// The page that had no room, and says so as long as this lives.
        missing_in: Option<Arc<Page>>,
    },
}

impl HolderPlace {
    /// A row for a holder that holds nothing yet.
    pub(super) fn new(pages: Option<&Pages>, holder: &HolderDescription) -> HolderPlace {
        let page = pages.map(|pages| &pages.processes);
        match page.and_then(|page| Some((page, page.take()?))) {
            Some((page, index)) => {
                describe(page.writer().row(index), holder);
                page.writer().set_rows_used(index + 1);
                HolderPlace::Paged { page: Arc::clone(page), index }
            }
            None => HolderPlace::Own {
                row: Box::new([const { AtomicU64::new(0) }; _]),
                missing_in: page.cloned(),
            },
        }
    }

    #[inline]
    pub(super) fn row(&self) -> &HolderRow {
        match self {
            HolderPlace::Paged { page, index } => page.writer().row(*index),
            HolderPlace::Own { row, .. } => row,
        }
    }
}

impl Drop for HolderPlace {
    fn drop(&mut self) {
        match self {
            HolderPlace::Paged { page, index } => {
                set_state(page.writer().row(*index), HolderState::Vacant);
                page.give_back(*index);
            }
            HolderPlace::Own { missing_in: Some(page), .. } => page.miss_one_less(),
            HolderPlace::Own { missing_in: None, .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use ttmem_wire::Totals;
    use ttmem_wire::stats::{DevicePage, Figure, HolderFigures, ProcessPage};

    use super::super::{Arch, Identity, MemoryType, Process, ProcessInfo, Registry, Source};
    use super::*;

    fn registry(holders_max: usize) -> (Registry, Pages) {
        let pages = Pages::with_holders_max(holders_max).expect("this kernel seals memory");
        (Registry::with_pages(0, Some(pages.clone())), pages)
    }

    fn process(registry: &Registry, pid: u32) -> Arc<Process> {
        let info = ProcessInfo {
            name: format!("model-{pid}"),
            uid: 1000,
            user: "ml".into(),
            cgroup: None,
            container: None,
            ns_pid: None,
            slurm: None,
            start_time_seconds: Some(1.5),
            source: Source::Socket,
        };
        registry.process(Identity { pid, start_ticks: 7 }, 1, info)
    }

    fn holders(pages: &Pages) -> Vec<HolderFigures> {
        let page = ProcessPage::open(pages.processes.words()).expect("a page");
        page.holders().map(|holder| holder.expect("nobody writes")).collect()
    }

    fn missing(pages: &Pages) -> u64 {
        ProcessPage::open(pages.processes.words()).expect("a page").missing()
    }

    #[test]
    fn the_pages_say_what_the_registry_knows() {
        let (registry, pages) = registry(8);
        let devices = DevicePage::open(pages.devices.words()).expect("a page");
        assert_eq!(devices.totals(2), Ok(None), "not known");
        registry.device(2).update_info(|info| {
            info.arch = Some(Arch::WormholeB0);
            info.board = Some("n300".into());
            info.dram_bytes = Some(12 << 30);
        });
        assert_eq!((devices.totals(2), devices.devices_end()), (Ok(Some(Totals::default())), 3));

        let (first, second) = (process(&registry, 1), process(&registry, 2));
        registry.batch(&first, 1).allocate(2, MemoryType::Dram, 1, 100).expect("new");
        registry.batch(&second, 1).allocate(2, MemoryType::Dram, 1, 11).expect("new");
        registry.batch(&second, 1).take(2, MemoryType::Kernel, 5).expect("a size");
        registry.batch(&first, 2).free(2, 1).expect("known");
        let totals = Totals { dram_bytes: 11, kernel_bytes: 5, ..Totals::default() };
        assert_eq!(devices.totals(2), Ok(Some(totals)));
        let device = devices.device(2).expect("nobody writes").expect("known");
        device.description.board.with(|board| assert_eq!(board, "n300"));
        assert_eq!(device.description.arch, ttmem_wire::Arch::WormholeB0);
        assert_eq!((device.description.limit_bytes[0], device.peak_bytes[0]), (12 << 30, 111));

        let [one, two, three] = holders(&pages)[..] else { panic!("three holders") };
        one.description.name.with(|name| assert_eq!(name, "model-1"));
        one.description.user.with(|user| assert_eq!(user, "ml"));
        assert_eq!((one.description.pid, one.description.start_ticks, one.description.uid), (1, 7, 1000));
        assert_eq!(one.description.start_unix_ns, 1_500_000_000);
        assert_eq!(
            (one.usage_bytes(), one.figure(Figure::PeakBytes), one.figure(Figure::Frees)),
            (0, 100, 1)
        );
        assert_eq!((two.description.device, two.description.memory_type, two.usage_bytes()), (2, 0, 11));
        assert_eq!((three.description.memory_type, three.usage_bytes()), (MemoryType::Kernel as u8, 5));
    }

    #[test]
    fn the_row_of_a_process_that_is_no_longer_shown_is_used_again() {
        let (registry, pages) = registry(1);
        let first = process(&registry, 1);
        registry.batch(&first, 1).allocate(0, MemoryType::Dram, 1, 100).expect("new");
        assert!(!holders(&pages)[0].has_ended);
        registry.end(&first, 5);
        let [ended] = holders(&pages)[..] else { panic!("one holder") };
        assert!(ended.has_ended);
        assert_eq!((ended.usage_bytes(), ended.figure(Figure::OrphanedBytes)), (0, 100));
        registry.retire(100, 1);
        drop(first);
        assert!(holders(&pages).is_empty());
        registry.batch(&process(&registry, 2), 101).allocate(0, MemoryType::L1, 1, 3).expect("new");
        let [again] = holders(&pages)[..] else { panic!("one holder") };
        assert_eq!((again.description.pid, again.has_ended, again.usage_bytes()), (2, false, 3));
        assert_eq!((again.figure(Figure::OrphanedBytes), missing(&pages)), (0, 0));
    }

    #[test]
    fn what_has_no_room_is_counted_and_works_all_the_same() {
        let (registry, pages) = registry(1);
        let (first, second) = (process(&registry, 1), process(&registry, 2));
        registry.batch(&first, 1).allocate(0, MemoryType::Dram, 1, 100).expect("new");
        registry.batch(&second, 1).allocate(0, MemoryType::Dram, 1, 11).expect("new");
        assert_eq!((holders(&pages).len(), missing(&pages)), (1, 1));
        assert_eq!((second.buffers(), registry.device(0).memory(MemoryType::Dram).usage_bytes()), (1, 111));
        registry.end(&second, 5);
        registry.retire(100, 1);
        drop(second);
        assert_eq!((holders(&pages).len(), missing(&pages)), (1, 0));
    }
}
