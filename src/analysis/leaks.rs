//! Which memory seems to leak: every process's buffers, by device, memory type and size, followed through time.

use std::collections::HashMap;
use std::sync::Arc;

use super::track::{Growth, Survivors, Track};
use crate::registry::{
    CENSUS_AGES, CensusClass, Held, MemoryType, Process, ProcessMemory, SUSPECTED_SCORE, SizeClass,
    Suspicion, census_age_ns,
};

/// Groups of buffers that are followed at once: about 2 KiB each when they are old. Those that hold most come first.
const TRACKS_MAX: usize = 4096;

/// A process as it is at one moment.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Who it is.
    pub process: Arc<Process>,
    /// What it holds.
    pub memory: Vec<ProcessMemory>,
    /// Its buffers, counted.
    pub classes: Vec<CensusClass>,
}

/// Buffers that are followed together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Group {
    /// The process's serial number.
    process: u64,
    device: u16,
    memory_type: MemoryType,
    /// `None` for all sizes together.
    size_class: Option<SizeClass>,
}

/// What is seen of a group.
struct Seen<'a> {
    process: &'a Arc<Process>,
    group: Group,
    held_bytes: u64,
    /// By age; `None` where single buffers are not known.
    older: Option<[Held; CENSUS_AGES]>,
}

/// Follows everything that is held, and says what looks like a leak.
#[derive(Default, Debug)]
pub struct Detector {
    tracks: HashMap<Group, Track>,
    /// Since when a process's memory is suspected.
    suspected: HashMap<Group, u64>,
}

impl Detector {
    /// Takes in how everything is now. Gives one suspicion at most for each process, device and memory type, the surest first.
    pub fn look(&mut self, sightings: &[Sighting], now_ns: u64) -> Vec<Suspicion> {
        let mut seen: Vec<Seen<'_>> = sightings.iter().flat_map(groups).collect();
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.held_bytes));
        seen.truncate(TRACKS_MAX);
        let mut before = std::mem::take(&mut self.tracks);
        let mut surest: HashMap<Group, (Group, Growth, &Arc<Process>)> = HashMap::new();
        for Seen { process, group, held_bytes, older } in &seen {
            let mut track = before.remove(group).unwrap_or_else(|| Track::new(now_ns));
            let survivors = older.as_ref().map_or(Survivors::Total(*held_bytes), Survivors::Counted);
            if let Some(growth) = track.look(survivors, now_ns) {
                let place = Group { size_class: None, ..*group };
                let known = surest.get(&place).map_or(0.0, |(_, growth, _)| growth.score());
                if growth.score() > known || growth.score() == known && group.size_class.is_some() {
                    surest.insert(place, (*group, growth, process));
                }
            }
            self.tracks.insert(*group, track);
        }
        let mut suspicions: Vec<_> = surest
            .into_iter()
            .map(|(place, (group, growth, process))| self.suspicion(place, group, &growth, process, now_ns))
            .collect();
        let still = suspicions.iter().filter(|suspicion| suspicion.is_suspected()).map(place_of);
        let still: Vec<Group> = still.collect();
        self.suspected.retain(|place, _| still.contains(place));
        suspicions.sort_by(|left, right| right.score.total_cmp(&left.score));
        suspicions
    }

    fn suspicion(
        &mut self,
        place: Group,
        group: Group,
        growth: &Growth,
        process: &Arc<Process>,
        now_ns: u64,
    ) -> Suspicion {
        let score = growth.score();
        let since_ns = (score >= SUSPECTED_SCORE).then(|| *self.suspected.entry(place).or_insert(now_ns));
        Suspicion {
            process: Arc::clone(process),
            device: place.device,
            memory_type: place.memory_type,
            score,
            size_class: group.size_class,
            growth: growth.added,
            growth_ns: growth.duration_ns(),
            evidence: evidence(group.size_class, growth),
            since_ns,
        }
    }
}

fn place_of(suspicion: &Suspicion) -> Group {
    let Suspicion { process, device, memory_type, .. } = suspicion;
    Group { process: process.serial(), device: *device, memory_type: *memory_type, size_class: None }
}

/// The groups that a process's memory is followed in: each size, and all sizes together for what has many.
fn groups(sighting: &Sighting) -> Vec<Seen<'_>> {
    let process = &sighting.process;
    let mut seen = Vec::new();
    for place in &sighting.memory {
        let (device, memory_type) = (place.device, place.memory_type);
        let held_bytes = place.counters.usage_bytes();
        if held_bytes == 0 {
            continue;
        }
        let group = Group { process: process.serial(), device, memory_type, size_class: None };
        let classes = sighting.classes.iter();
        let classes: Vec<_> =
            classes.filter(|class| (class.device, class.memory_type) == (device, memory_type)).collect();
        let mut all = [Held::default(); CENSUS_AGES];
        for class in &classes {
            all.iter_mut().zip(class.older).for_each(|(sum, held)| sum.add(held));
            let group = Group { size_class: Some(class.size_class), ..group };
            seen.push(Seen { process, group, held_bytes: class.held.bytes, older: Some(class.older) });
        }
        if classes.len() != 1 {
            let older = (!classes.is_empty()).then_some(all);
            seen.push(Seen { process, group, held_bytes, older });
        }
    }
    seen
}

/// Why it looks like a leak, in words.
fn evidence(size_class: Option<SizeClass>, growth: &Growth) -> String {
    let Growth { scale, before, added, windows_grown, kept_ratio } = growth;
    let minutes = |ns: u64| ns / census_age_ns(0);
    let what = match (size_class, kept_ratio) {
        (Some(class), _) => {
            let (first, last) = (class.first_bytes(), class.last_bytes().saturating_add(1));
            format!("Buffers of {} to {}", binary(first), binary(last))
        }
        (None, Some(_)) => "Buffers of several sizes".to_owned(),
        (None, None) => "Memory".to_owned(),
    };
    let age_minutes = minutes(census_age_ns(*scale));
    let counts = match kept_ratio {
        Some(_) => format!("from {} to {}, ", before.buffers, before.buffers.saturating_add(added.buffers)),
        None => String::new(),
    };
    let kept = kept_ratio.map_or_else(String::new, |ratio| {
        format!(" {:.0} % of what came in that time is still held.", 100.0 * ratio.min(1.0))
    });
    format!(
        "{what} held for {age_minutes} min or longer grew {counts}by {} in {} min, in {windows_grown} of {} windows.{kept}",
        binary(added.bytes),
        minutes(growth.duration_ns()),
        Growth::WINDOWS_ALL,
    )
}

/// Bytes in binary units.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog2() / 10) as usize;
    let value = bytes as f64 / (1_u64 << (10 * unit)) as f64;
    let digits = usize::from(value.fract() != 0.0);
    format!("{value:.digits$} {}", UNITS[unit - 1])
}
