//! What the daemon says of everything, and how it differs from the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;

use super::http;
use super::model::{Counts, Holdings, Model, Place, Usage};
use super::report::{CIRCULAR_BUFFER, KERNEL, MEMORY};
use crate::views::json;

/// Devices that processes with frames report about; the library's have the numbers from here on. A library that finds the daemon
/// standing still reports once more all that it holds, so of its devices only what is held is known exactly.
pub(super) const FRAME_DEVICES: u16 = 4;
/// Buffers that are asked for at once, as many as the API gives.
const PAGE_BUFFERS: usize = 10_000;
/// How a refused report is counted whose process ended before the daemon had read it.
const PROCESS_ENDED: &str = "process_ended";

/// What the daemon says, asked while nobody reports.
#[derive(Default)]
pub(super) struct Told {
    usage: BTreeMap<Place, Usage>,
    counts: BTreeMap<Place, Counts>,
    processes: BTreeMap<u32, BTreeMap<Place, Usage>>,
    buffers: BTreeSet<(u32, u16, u64, Place, u64, u64)>,
    rejected: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
}

/// How the daemon and the model differ.
#[derive(Default)]
pub(super) struct Differences {
    /// In words, of what is exact always.
    pub(super) exact: Vec<String>,
    /// Of what the library may still be about to report once more.
    pub(super) library: Vec<String>,
    /// Buffers that live and that the daemon does not know.
    pub(super) lost: u64,
    /// Buffers that the daemon knows and that do not live.
    pub(super) ghosts: u64,
}

/// Processes that the daemon takes for alive.
pub(super) fn alive(http: &Path) -> anyhow::Result<BTreeSet<u32>> {
    let processes: json::Processes = serde_json::from_str(&http::get(http, "/api/v1/processes")?)?;
    Ok(processes.processes.iter().filter(|process| !process.ended).map(|process| process.pid).collect())
}

impl Told {
    /// Asks for everything.
    pub(super) fn read(http: &Path) -> anyhow::Result<Told> {
        let mut told = Told::default();
        told.read_devices(&serde_json::from_str(&http::get(http, "/api/v1/devices")?)?)?;
        let processes: json::Processes = serde_json::from_str(&http::get(http, "/api/v1/processes")?)?;
        for process in processes.processes {
            let held = told.processes.entry(process.pid).or_default();
            for memory in process.memory.into_iter().filter(|memory| memory.usage_bytes > 0) {
                let place = (memory.device, known(&memory.memory_type)?);
                held.insert(place, Usage { bytes: memory.usage_bytes, buffers: memory.buffers.unwrap_or(0) });
            }
        }
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/buffers?limit={PAGE_BUFFERS}{cursor}");
            let page: json::Buffers = serde_json::from_str(&http::get(http, &path)?)?;
            for buffer in page.buffers {
                let id = u64::from_str_radix(buffer.buffer_id.trim_start_matches("0x"), 16)?;
                let place = (buffer.device, known(&buffer.memory_type)?);
                let references = u64::from(buffer.references);
                told.buffers.insert((buffer.pid, buffer.device, id, place, buffer.size_bytes, references));
            }
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        let metrics = http::get(http, "/metrics")?;
        told.rejected = by_reason(&metrics, "ttmem_events_rejected_total");
        told.lost = by_reason(&metrics, "ttmem_events_lost_total");
        Ok(told)
    }

    fn read_devices(&mut self, devices: &json::Devices) -> anyhow::Result<()> {
        for device in &devices.devices {
            for memory in &device.memory {
                let Some(reported) = &memory.reported else { continue };
                let Ok(memory_type) = known(&memory.memory_type) else { continue };
                let place = (device.device, memory_type);
                self.usage.insert(place, Usage { bytes: memory.usage_bytes, buffers: reported.buffers });
                let counts = Counts {
                    allocations: reported.allocations_total,
                    frees: reported.frees_total,
                    allocated_bytes: reported.allocated_bytes_total,
                    freed_bytes: reported.freed_bytes_total,
                    orphaned_buffers: reported.orphaned_buffers_total,
                    orphaned_bytes: reported.orphaned_bytes_total,
                };
                self.counts.insert(place, counts);
            }
        }
        Ok(())
    }

    /// How it differs from the model.
    pub(super) fn differences(&self, model: &Model) -> Differences {
        let mut differences = Differences::default();
        let expected = model.usage();
        let places: BTreeSet<Place> =
            self.usage.keys().chain(expected.keys()).chain(model.counts.keys()).copied().collect();
        for place in places {
            let of = |usages: &BTreeMap<Place, Usage>| usages.get(&place).copied().unwrap_or_default();
            differences.compare(place, "held", of(&self.usage), of(&expected));
            if place.0 < FRAME_DEVICES {
                let of = |counts: &BTreeMap<Place, Counts>| counts.get(&place).copied().unwrap_or_default();
                differences.compare(place, "counted", of(&self.counts), of(&model.counts));
            }
        }
        for pid in self.processes.keys().chain(model.processes.keys()).copied().collect::<BTreeSet<u32>>() {
            let mut told = self.processes.get(&pid).cloned().unwrap_or_default();
            let mut expected = model.processes.get(&pid).map(Holdings::usage).unwrap_or_default();
            expected.retain(|_, usage| usage.bytes > 0);
            for place in expected.keys().chain(told.keys()).copied().collect::<BTreeSet<Place>>() {
                let what = format!("held by {pid}");
                let pair =
                    (told.remove(&place).unwrap_or_default(), expected.remove(&place).unwrap_or_default());
                differences.compare(place, &what, pair.0, pair.1);
            }
        }
        self.compare_buffers(model, &mut differences);
        self.compare_events(model, &mut differences);
        differences
    }

    fn compare_buffers(&self, model: &Model, differences: &mut Differences) {
        let expected: BTreeSet<_> = model
            .processes
            .iter()
            .flat_map(|(pid, holdings)| {
                holdings.buffers.iter().map(|((device, id), buffer)| {
                    let place = (*device, buffer.memory_type);
                    (*pid, *device, *id, place, buffer.size_bytes, buffer.references)
                })
            })
            .collect();
        for lost in expected.difference(&self.buffers) {
            differences.lost += 1;
            differences.tell(lost.1, format!("lost: {lost:x?}"));
        }
        for ghost in self.buffers.difference(&expected) {
            differences.ghosts += 1;
            differences.tell(ghost.1, format!("ghost: {ghost:x?}"));
        }
    }

    fn compare_events(&self, model: &Model, differences: &mut Differences) {
        let known = model.rejected.keys().copied();
        let reasons: BTreeSet<&str> = self.rejected.keys().map(String::as_str).chain(known).collect();
        for reason in reasons {
            let told = self.rejected.get(reason).copied().unwrap_or(0);
            let expected = model.rejected.get(reason).copied().unwrap_or(0);
            if told != expected {
                differences.exact.push(format!("rejected as {reason}: {told}, expected {expected}"));
            }
        }
        for (reason, told) in &self.lost {
            let expected = if reason == "free" { model.lost_frees } else { 0 };
            if *told != expected {
                differences.exact.push(format!("lost by {reason}: {told}, expected {expected}"));
            }
        }
    }

    /// Where processes were killed with reports unread that the daemon then refused, as it may: the model goes on from what was counted, if
    /// that is no more than was sent and no less than was refused. What is held is not touched. Gives the number of refused reports.
    pub(super) fn excuse(&self, model: &mut Model) -> Result<u64, String> {
        let refused = self.rejected.get(PROCESS_ENDED).copied().unwrap_or(0);
        let refused = refused - model.rejected.get(PROCESS_ENDED).copied().unwrap_or(0).min(refused);
        if refused == 0 {
            return Ok(0);
        }
        let mut missing = 0;
        for (place, counts) in model.counts.iter_mut().filter(|(place, _)| place.0 < FRAME_DEVICES) {
            let told = self.counts.get(place).copied().unwrap_or_default();
            let fewer = counts.allocations.checked_sub(told.allocations);
            missing += fewer.ok_or_else(|| format!("{place:?}: more allocations than were sent"))?;
            *counts = told;
        }
        for (reason, expected) in &mut model.rejected {
            let told = self.rejected.get(*reason).copied().unwrap_or(0);
            missing += expected.saturating_sub(told);
            *expected = told;
        }
        let told = self.lost.get("free").copied().unwrap_or(0);
        model.lost_frees = model.lost_frees.min(told);
        model.rejected.insert(PROCESS_ENDED, self.rejected.get(PROCESS_ENDED).copied().unwrap_or(0));
        if missing > refused {
            return Err(format!("{missing} reports are missing where only {refused} were refused"));
        }
        Ok(refused)
    }
}

impl Differences {
    fn compare<T: Copy + PartialEq + std::fmt::Debug>(
        &mut self,
        place: Place,
        what: &str,
        told: T,
        expected: T,
    ) {
        if told != expected {
            self.tell(
                place.0,
                format!("device {} {}: {what} {told:?}, expected {expected:?}", place.0, place.1),
            );
        }
    }

    fn tell(&mut self, device: u16, text: String) {
        if device < FRAME_DEVICES { self.exact.push(text) } else { self.library.push(text) }
    }
}

/// In one scrape, what all processes hold must be what the device has in use. Says what does not add up.
pub(super) fn adds_up(metrics: &str) -> Result<(), String> {
    let mut of_processes: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let mut of_devices = of_processes.clone();
    for line in metrics.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let sums = match name {
            "ttmem_process_memory_usage_bytes" | "ttmem_process_suppressed_memory_usage_bytes" => {
                &mut of_processes
            }
            "ttmem_device_memory_usage_bytes" => &mut of_devices,
            _ => continue,
        };
        let place = label(rest, "device").zip(label(rest, "memory_type"));
        let value = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        let (Some(place), Some(value)) = (place, value) else { return Err(format!("not a sample: {line}")) };
        *sums.entry(place).or_default() += value;
    }
    for (place, device) in of_devices {
        let processes = of_processes.remove(&place).unwrap_or(0.0);
        if device.to_bits() != processes.to_bits() {
            return Err(format!("{place:?}: the device has {device}, its processes {processes}"));
        }
    }
    Ok(())
}

fn by_reason(metrics: &str, name: &str) -> BTreeMap<String, u64> {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
    let counted = samples.filter_map(|sample| {
        let value = sample.rsplit(' ').next()?.parse().ok()?;
        Some((label(sample, "reason")?.to_owned(), value))
    });
    counted.collect()
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut parts = labels.split([',', '{', '}']);
    parts.find_map(|part| part.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// The name as the model has it.
fn known(memory_type: &str) -> anyhow::Result<&'static str> {
    let names = MEMORY.iter().map(|(_, name)| *name).chain([CIRCULAR_BUFFER, KERNEL]);
    names
        .into_iter()
        .find(|name| *name == memory_type)
        .with_context(|| format!("memory of type {memory_type}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_adds_up_or_does_not() {
        let scrape = |held: u64| {
            format!(
                "ttmem_device_memory_usage_bytes{{device=\"0\",memory_type=\"l1\"}} 30\n\
                 ttmem_process_memory_usage_bytes{{device=\"0\",memory_type=\"l1\",pid=\"1\",process=\"a\"}} 10\n\
                 ttmem_process_memory_usage_bytes{{device=\"0\",memory_type=\"l1\",pid=\"2\",process=\"b\"}} {held}\n"
            )
        };
        assert_eq!(adds_up(&scrape(20)), Ok(()));
        assert!(adds_up(&scrape(21)).is_err());
    }

    #[test]
    fn what_is_lost_and_what_is_left_is_told_apart() {
        let buffer = |id| (7, 1, id, (1, "dram"), 10, 1);
        let told = Told { buffers: [buffer(1), buffer(2)].into(), ..Told::default() };
        let differences = told.differences(&Model::default());
        assert_eq!((differences.lost, differences.ghosts, differences.exact.len()), (0, 2, 2));
    }
}
