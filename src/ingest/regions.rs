//! Follows the shared-memory regions of tt-metal: finds them, reads them when they have changed, and tells the registry.
//!
//! The idea is to read and never to map: a region that is cut short while it is looked at then gives fewer bytes, not a signal.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::Pid;
use tracing::{info, warn};

use super::Context;
use super::diary::Diary;
use super::note::{Counted, Note};
use super::now;
use super::peer::open_pidfd;
use super::processes::{Sighting, Tracked, has_ended};
use super::procfs::{ProcessFacts, ticks_to_ns};
use super::region::{REGION_BYTES_MAX, REGION_MEMORY_TYPES, Region, RegionProcess};
use crate::clock;
use crate::registry::{DEVICES_MAX, MemoryType, Source};

/// How much earlier than its process's start a slot may have been written and still be believed: ticks are coarse, and clocks are
/// nudged. A pid is not used again that fast.
const START_TOLERANCE_NS: u64 = 2_000_000_000;
/// Reads of one region while it keeps changing under the reader.
const READS_MAX: usize = 4;
/// Root's regions may show anybody's processes.
const ROOT: u32 = 0;
/// Looks after which a file that is no region is read again although it seems unchanged: writes through a mapping leave no trace.
const LOOKS_BETWEEN_TRIES: u32 = 20;
/// Regions that are followed: one for each device there can be. Anybody can put more into the directory.
const FILES_MAX: usize = DEVICES_MAX as usize;

/// What the regions showed when they were last read.
pub(super) struct Regions {
    context: Arc<Context>,
    diary: Diary,
    directory: PathBuf,
    files: BTreeMap<PathBuf, File>,
    shown: HashMap<Place, Shown>,
    has_looked: bool,
    /// Whether something could not be looked at for a reason that may pass.
    is_unsettled: bool,
    /// What was last said about the directory in the log.
    complaint: Option<String>,
}

#[derive(PartialEq, Eq, Default)]
struct File {
    bytes: Vec<u8>,
    /// Whose it is: a process can only show up in a region of its own user.
    owner: u32,
    region: Option<Region>,
    /// What was last said about it in the log.
    complaint: Option<String>,
    /// Looks for which a file that is no region is left alone, as long as it looks the same from outside.
    pause: u32,
    stamp: Option<Stamp>,
}

/// What a file looks like from outside: size, inode, owner, mode, time of change.
type Stamp = (u64, u64, u32, u32, i64);

/// One figure that a region shows: pid, device, memory type.
type Place = (i32, u16, MemoryType);

struct Shown {
    process: Arc<Tracked>,
    bytes: u64,
}

impl Regions {
    pub(super) fn new(context: Arc<Context>, directory: PathBuf) -> Self {
        // What a daemon before this one was shown is taken back when it is shown no more.
        let shown = context.processes.in_regions().into_iter().map(|(process, place)| {
            let pid = process.process().pid().cast_signed();
            let bytes = place.counters.region_bytes;
            ((pid, place.device, place.memory_type), Shown { process, bytes })
        });
        let (files, shown) = (BTreeMap::new(), shown.collect());
        let diary = context.diaries.common();
        Self {
            context,
            diary,
            directory,
            files,
            shown,
            has_looked: false,
            is_unsettled: false,
            complaint: None,
        }
    }

    /// Looks again and again until told to stop.
    pub(super) fn follow(mut self, interval: Duration, stop: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(interval) {
            self.look();
        }
    }

    /// Reads what has changed and brings the registry up to it.
    fn look(&mut self) {
        let paths = self.paths();
        let mut has_changed = false;
        let mut files = BTreeMap::new();
        let mut room = FILES_MAX;
        for path in paths {
            let mut file = self.files.remove(&path).unwrap_or_default();
            if room == 0 {
                has_changed |= file.region.is_some();
                continue;
            }
            has_changed |= self.read(&path, &mut file);
            room -= usize::from(file.region.is_some());
            files.insert(path, file);
        }
        has_changed |= self.files.values().any(|gone| gone.region.is_some());
        self.files = files;
        if has_changed {
            self.context.count(Counted::RegionUpdate);
        }
        if has_changed || !self.has_looked || self.is_unsettled {
            self.tell();
        }
        self.has_looked = true;
    }

    fn paths(&mut self) -> Vec<PathBuf> {
        let directory = readable(&self.directory);
        let (paths, complaint) = match region_paths(&self.directory) {
            Ok(paths) => (paths, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        if let Some(error) =
            complaint.as_ref().filter(|complaint| Some(*complaint) != self.complaint.as_ref())
        {
            warn!(
                directory,
                error, "cannot follow all of tt-metal's regions; set shm_dir to their directory, or to none"
            );
        }
        self.complaint = complaint;
        paths
    }

    /// Whether the file shows something else than before.
    fn read(&self, path: &Path, file: &mut File) -> bool {
        if file.pause > 0 && stamp(path) == file.stamp {
            file.pause -= 1;
            return false;
        }
        let before = file.owner;
        let outcome = read_settled(path).map_err(|error| complaint(&error)).and_then(|(bytes, owner)| {
            if (bytes.as_slice(), owner) == (file.bytes.as_slice(), file.owner) {
                return Ok(None);
            }
            let region = Region::parse(&bytes).map_err(|error| error.to_string());
            (file.bytes, file.owner) = (bytes, owner);
            region.map(Some)
        });
        match outcome {
            Ok(None) => false,
            Ok(Some(region)) => {
                if let (None, Some(region)) = (&file.region, &region) {
                    self.say(path, region.device_id);
                }
                file.complaint = None;
                let has_changed = std::mem::replace(&mut file.region, region) != file.region;
                has_changed || before != file.owner
            }
            Err(error) => {
                if file.complaint.as_ref() != Some(&error) {
                    self.complain(path, &error);
                    file.complaint = Some(error);
                }
                // It is read anew even if it then is as it was before, but not at every look: there may be any number like it.
                file.bytes.clear();
                file.stamp = stamp(path);
                file.pause = LOOKS_BETWEEN_TRIES;
                file.region.take().is_some()
            }
        }
    }

    fn say(&self, path: &Path, device: u32) {
        if let Some(suppressed) = self.context.throttle.admit("region", clock::monotonic_ns()) {
            info!(path = readable(path), device, suppressed, "reading tt-metal's region");
        }
    }

    fn complain(&self, path: &Path, error: &str) {
        self.context.count(Counted::Region);
        if let Some(suppressed) = self.context.throttle.admit("region skipped", clock::monotonic_ns()) {
            warn!(path = readable(path), error, suppressed, "region skipped");
        }
    }

    /// Hands on the differences between what the regions show now and what they showed before.
    fn tell(&mut self) {
        let mut shown = HashMap::new();
        self.is_unsettled = false;
        let files = std::mem::take(&mut self.files);
        for (file, region) in files.values().filter_map(|file| Some((file, file.region.as_ref()?))) {
            let device = region.device_id as u16;
            self.context.devices.name_chip(device, region.chip_unique_id, false);
            for slot in &region.processes {
                let process = match self.live_process(slot, device, file.owner) {
                    Ok(Some(process)) => process,
                    Ok(None) => continue,
                    Err(error) => {
                        self.is_unsettled = true;
                        self.complain(Path::new(&format!("/proc/{}", slot.pid)), &error.to_string());
                        continue;
                    }
                };
                self.context.devices.name_chip(device, region.chip_unique_id, true);
                for (memory_type, bytes) in REGION_MEMORY_TYPES.into_iter().zip(slot.bytes) {
                    let place = (slot.pid, device, memory_type);
                    let figure = shown
                        .entry(place)
                        .or_insert_with(|| Shown { process: Arc::clone(&process), bytes: 0 });
                    figure.bytes = figure.bytes.saturating_add(bytes);
                }
            }
        }
        self.files = files;
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
        let (time, process) = (now(), figure.process.process());
        let (identity, kind) = (process.identity(), *memory_type as u8);
        let _turn = self.diary.turn();
        self.diary.note(time, &Note::Region { identity, device: *device, memory_type: kind, bytes });
        let mut batch = self.context.registry.batch(process, time.monotonic_ns);
        // A process that has ended meanwhile has been reclaimed; a figure beyond all sense is not believed.
        if batch.set_region(*device, *memory_type, bytes) == Err(crate::registry::Refusal::SizeTooLarge) {
            self.context.count(Counted::RegionSize);
        }
    }

    /// The process that a slot is about, if it lives and is the one that wrote it.
    fn live_process(
        &self,
        slot: &RegionProcess,
        device: u16,
        owner: u32,
    ) -> io::Result<Option<Arc<Tracked>>> {
        let known = self.shown.get(&(slot.pid, device, MemoryType::Dram));
        let may_say = |uid| owner == ROOT || owner == uid;
        if let Some(known) = known.filter(|known| !known.process.has_ended()) {
            let process = &known.process;
            return Ok(may_say(process.process().info().uid).then(|| Arc::clone(process)));
        }
        let Some(raw_pid) = Pid::from_raw(slot.pid) else { return Ok(None) };
        let Some(pidfd) = open_pidfd(raw_pid)?.filter(|pidfd| !has_ended(pidfd)) else { return Ok(None) };
        let pid = slot.pid.cast_unsigned();
        let facts = ProcessFacts::of(pid, &pidfd, &self.context.arguments);
        let (Some(uid), Some(start_ticks)) = (facts.effective_uid, facts.start_ticks) else {
            return Ok(None);
        };
        let age_ns = clock::monotonic_ns().saturating_sub(ticks_to_ns(start_ticks));
        let started_ns = clock::unix_ns().saturating_sub(age_ns);
        let is_reused = slot.last_update_ns.saturating_add(START_TOLERANCE_NS) < started_ns;
        if is_reused || !may_say(uid) {
            return Ok(None);
        }
        let processes = &self.context.processes;
        if !processes.is_tracked(pid) && !processes.has_room(uid) {
            return Ok(None);
        }
        let sighting = Sighting {
            pid,
            uid,
            pidfd: Some(Arc::new(pidfd)),
            facts: &facts,
            source: Source::Region,
            seen_ns: clock::monotonic_ns(),
        };
        let tracked = Arc::clone(processes.track(sighting)?.tracked());
        Ok((!tracked.has_ended()).then_some(tracked))
    }
}

/// A path for the log: anybody can choose a file's name, line feeds included.
fn readable(path: &Path) -> String {
    path.to_string_lossy().escape_debug().to_string()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.len(), metadata.ino(), metadata.uid(), metadata.mode(), metadata.ctime_nsec()))
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

/// The file's bytes, once two reads agree (its writer does not stop for readers), and its owner.
fn read_settled(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let mut content = read(path)?;
    for _ in 1..READS_MAX {
        let again = read(path)?;
        if again == content {
            break;
        }
        content = again;
    }
    Ok(content)
}

fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    // Not through a link, and not waiting for the other end of a pipe: any user can put anything into this directory.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(REGION_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.uid()))
}

fn complaint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; regions are their owner's alone: run the daemon as that user or as root")
        }
        _ => error.to_string(),
    }
}
