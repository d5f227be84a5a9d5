//! Follows the shared-memory regions of tt-metal: finds them, reads them when they have changed, and tells the registry.
//!
//! The idea is to read and never to map: a region that is cut short while it is looked at then gives fewer bytes, not a signal.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::Pid;
use tracing::{info, warn};

use super::Context;
use super::peer::open_pidfd;
use super::processes::{Tracked, has_ended};
use super::procfs::{ProcessFacts, ticks_to_ns};
use super::region::{REGION_BYTES_MAX, REGION_MEMORY_TYPES, Region, RegionProcess};
use crate::clock;
use crate::registry::{Event, MemoryType, Rejection, Source};

/// How much earlier than its process's start a slot may have been written and still be believed: ticks are coarse, and clocks are
/// nudged. A pid is not used again that fast.
const START_TOLERANCE_NS: u64 = 2_000_000_000;
/// Reads of one region while it keeps changing under the reader.
const READS_MAX: usize = 4;

/// What the regions showed when they were last read.
pub(super) struct Regions {
    context: Arc<Context>,
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    shown: HashMap<Place, Shown>,
    directory_failed: bool,
}

#[derive(PartialEq, Eq, Default)]
struct File {
    bytes: Vec<u8>,
    region: Option<Region>,
    /// What was last said about it in the log.
    complaint: Option<String>,
}

/// One figure that a region shows: pid, device, memory type.
type Place = (i32, u16, MemoryType);

struct Shown {
    process: Arc<Tracked>,
    bytes: u64,
}

impl Regions {
    pub(super) fn new(context: Arc<Context>, directory: PathBuf) -> Self {
        Self { context, directory, files: BTreeMap::new(), shown: HashMap::new(), directory_failed: false }
    }

    /// Looks again and again until told to stop.
    pub(super) fn follow(mut self, interval: Duration, stop: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(interval) {
            self.look();
        }
    }

    /// Reads what has changed and brings the registry up to it.
    fn look(&mut self) {
        let paths = match region_paths(&self.directory) {
            Ok(paths) => {
                self.directory_failed = false;
                paths
            }
            Err(error) => {
                if !std::mem::replace(&mut self.directory_failed, true) {
                    let directory = self.directory.display();
                    warn!(%directory, %error, "cannot list tt-metal's regions; set shm_dir to their directory, or to none");
                }
                Vec::new()
            }
        };
        let mut has_changed = false;
        let mut files = BTreeMap::new();
        for path in paths {
            let mut file = self.files.remove(&path).unwrap_or_default();
            has_changed |= self.read(&path, &mut file);
            files.insert(path, file);
        }
        has_changed |= self.files.values().any(|gone| gone.region.is_some());
        self.files = files;
        if has_changed {
            self.context.registry.events().count(Event::RegionUpdate, 1);
            self.tell();
        }
    }

    /// Whether the file shows something else than before.
    fn read(&self, path: &Path, file: &mut File) -> bool {
        let outcome = read_settled(path).map_err(|error| complaint(&error)).and_then(|bytes| {
            if bytes == file.bytes {
                return Ok(None);
            }
            let region = Region::parse(&bytes).map_err(|error| error.to_string());
            file.bytes = bytes;
            region.map(Some)
        });
        match outcome {
            Ok(None) => false,
            Ok(Some(region)) => {
                if let (None, Some(region)) = (&file.region, &region) {
                    info!(path = %path.display(), device = region.device_id, "reading tt-metal's region");
                }
                file.complaint = None;
                std::mem::replace(&mut file.region, region) != file.region
            }
            Err(error) => {
                if file.complaint.as_ref() != Some(&error) {
                    self.context.registry.events().reject(Rejection::Region);
                    warn!(path = %path.display(), error, "region skipped");
                    file.complaint = Some(error);
                }
                file.region.take().is_some()
            }
        }
    }

    /// Hands on the differences between what the regions show now and what they showed before.
    fn tell(&mut self) {
        let mut shown = HashMap::new();
        for region in self.files.values().filter_map(|file| file.region.as_ref()) {
            let device = region.device_id as u16;
            self.name_chip(device, region.chip_unique_id);
            for slot in &region.processes {
                let Some(process) = self.live_process(slot, device) else { continue };
                for (memory_type, bytes) in REGION_MEMORY_TYPES.into_iter().zip(slot.bytes) {
                    let place = (slot.pid, device, memory_type);
                    let figure = shown
                        .entry(place)
                        .or_insert_with(|| Shown { process: Arc::clone(&process), bytes: 0 });
                    figure.bytes = figure.bytes.saturating_add(bytes);
                }
            }
        }
        for (place, figure) in &shown {
            let known = self.shown.get(place).filter(|known| Arc::ptr_eq(&known.process, &figure.process));
            if known.is_none_or(|known| known.bytes != figure.bytes) {
                self.set(place, figure, Some(figure.bytes));
            }
        }
        for (place, figure) in &self.shown {
            if !shown.contains_key(place) {
                self.set(place, figure, None);
            }
        }
        self.shown = shown;
    }

    fn set(&self, (_, device, memory_type): &Place, figure: &Shown, bytes: Option<u64>) {
        let mut batch = self.context.registry.batch(figure.process.process(), clock::monotonic_ns());
        // A process that has ended meanwhile has been reclaimed; a figure beyond all sense is not believed.
        if batch.set_region(*device, *memory_type, bytes) == Err(crate::registry::Refusal::SizeTooLarge) {
            self.context.registry.events().reject(Rejection::SizeTooLarge);
        }
    }

    /// The process that a slot is about, if it lives and is the one that wrote it.
    fn live_process(&self, slot: &RegionProcess, device: u16) -> Option<Arc<Tracked>> {
        let known = self.shown.get(&(slot.pid, device, MemoryType::Dram));
        if let Some(known) = known.filter(|known| !known.process.has_ended()) {
            return Some(Arc::clone(&known.process));
        }
        let pidfd = open_pidfd(Pid::from_raw(slot.pid)?).filter(|pidfd| !has_ended(pidfd))?;
        let pid = slot.pid.cast_unsigned();
        let facts = ProcessFacts::read(pid);
        let uid = facts.effective_uid?;
        let age_ns = clock::monotonic_ns().saturating_sub(ticks_to_ns(facts.start_ticks?));
        let started_ns = clock::unix_ns().saturating_sub(age_ns);
        if slot.last_update_ns.saturating_add(START_TOLERANCE_NS) < started_ns {
            // The pid was used again after the writer's end.
            return None;
        }
        let attachment = self.context.processes.track(pid, uid, Some(pidfd), &facts, Source::Region);
        let tracked = Arc::clone(attachment.tracked());
        (!tracked.has_ended()).then_some(tracked)
    }

    fn name_chip(&self, device: u16, chip_unique_id: u64) {
        let device = self.context.registry.device(device);
        if device.info().asic_id.is_none() {
            device.update_info(|info| info.asic_id = Some(format!("{chip_unique_id:x}")));
        }
    }
}

fn region_paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_region = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("tt_device_") && name.ends_with("_memory"));
        if is_region {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The file's bytes, once two reads agree: its writer does not stop for readers.
fn read_settled(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = read(path)?;
    for _ in 1..READS_MAX {
        let again = read(path)?;
        if again == bytes {
            break;
        }
        bytes = again;
    }
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Not through a link, and not waiting for the other end of a pipe: any user can put anything into this directory.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(REGION_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn complaint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; regions are their owner's alone: run the daemon as that user or as root")
        }
        _ => error.to_string(),
    }
}
