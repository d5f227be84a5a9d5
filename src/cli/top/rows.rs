//! Which rows a table has, and in which order: pure functions of a picture, the analysis and the operator's wishes.

use std::collections::HashMap;

use super::columns::{Column, Key};
use crate::views::findings::Leak;
use crate::views::json::{Buffer, Process};

/// A process, as far as the table tells of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ProcessRow {
    pub(super) pid: u32,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) name: String,
    pub(super) user: String,
    /// A pod, a container or a job.
    pub(super) belongs_to: String,
    /// Where it holds something, or has.
    pub(super) devices: Vec<u16>,
    /// Of the memory type that is shown.
    pub(super) usage_bytes: u64,
    pub(super) peak_bytes: u64,
    pub(super) buffers: Option<u64>,
    /// Of all types.
    pub(super) device_usage_bytes: u64,
    pub(super) leak_score: Option<f64>,
    pub(super) growth_bytes_per_second: Option<f64>,
}

/// What the analysis says of a process, its places taken together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Suspected {
    /// A process of another daemon may have the same pid.
    pub(super) process: String,
    pub(super) score: f64,
    pub(super) bytes_per_second: f64,
    /// Of the surest.
    pub(super) evidence: String,
}

/// Which rows, in which order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    pub(super) memory_type: &'a str,
    /// Only processes on this device, with what they hold there.
    pub(super) device: Option<u16>,
    pub(super) filter: &'a str,
    pub(super) sort: Sort,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sort {
    /// The column's place in its table.
    pub(super) column: usize,
    /// The other way round than the column does it by itself.
    pub(super) is_reversed: bool,
}

impl ProcessRow {
    fn of(process: &Process, suspected: Option<&Suspected>, wishes: &Wishes<'_>) -> ProcessRow {
        let here =
            || process.memory.iter().filter(|held| wishes.device.is_none_or(|device| device == held.device));
        let of_type = || here().filter(|held| held.memory_type == wishes.memory_type);
        let known: Vec<u64> = of_type().filter_map(|held| held.buffers).collect();
        let mut devices: Vec<u16> = process.memory.iter().map(|held| held.device).collect();
        devices.dedup();
        let container = process.container.as_ref().map(|container| match &container.names {
            Some(names) => format!("{}/{}", names.k8s_namespace_name, names.k8s_pod_name),
            None => container.container_id.clone(),
        });
        let job = process.slurm.as_ref().map(|job| match &job.step_id {
            Some(step_id) => format!("slurm {}.{step_id}", job.job_id),
            None => format!("slurm {}", job.job_id),
        });
        let suspected = suspected.filter(|suspected| suspected.process == process.process);
        ProcessRow {
            pid: process.pid,
            start_time_seconds: process.start_time_seconds,
            name: process.process.clone(),
            user: process.user.clone(),
            belongs_to: container.or(job).unwrap_or_default(),
            devices,
            usage_bytes: of_type().map(|held| held.usage_bytes).sum(),
            peak_bytes: of_type().map(|held| held.peak_bytes).sum(),
            buffers: (!known.is_empty()).then(|| known.iter().sum()),
            device_usage_bytes: process.device_usage_bytes,
            leak_score: suspected.map(|suspected| suspected.score),
            growth_bytes_per_second: suspected.map(|suspected| suspected.bytes_per_second),
        }
    }

    /// Who it is, also after a pid has been used again.
    pub(super) fn identity(&self) -> (u32, u64) {
        (self.pid, self.start_time_seconds.unwrap_or_default().to_bits())
    }

    /// Its devices in a few letters, runs of them taken together.
    pub(super) fn devices(&self) -> String {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for device in &self.devices {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *device => *last = *device,
                _ => runs.push((*device, *device)),
            }
        }
        let told = runs.iter().map(|(first, last)| match last - first {
            0 => first.to_string(),
            1 => format!("{first},{last}"),
            _ => format!("{first}-{last}"),
        });
        told.collect::<Vec<_>>().join(",")
    }

    fn matches(&self, filter: &str) -> bool {
        contains(&self.name, filter)
            || contains(&self.user, filter)
            || contains(&self.belongs_to, filter)
            || self.pid.to_string() == filter
    }
}

/// The rows of the processes that live.
pub(super) fn processes(
    all: &[Process],
    suspected: &HashMap<u32, Suspected>,
    wishes: &Wishes<'_>,
    columns: &[Column<ProcessRow>],
) -> Vec<ProcessRow> {
    let is_here = |process: &&Process| {
        let is_on = |device| process.memory.iter().any(|held| held.device == device);
        !process.ended && wishes.device.is_none_or(is_on)
    };
    let rows = all.iter().filter(is_here);
    let rows = rows.map(|process| ProcessRow::of(process, suspected.get(&process.pid), wishes));
    let filter = wishes.filter.to_lowercase();
    let rows = rows.filter(|row| filter.is_empty() || row.matches(&filter)).collect();
    ordered(rows, wishes.sort, columns)
}

/// The rows of buffers.
pub(super) fn buffers(all: &[Buffer], filter: &str, sort: Sort, columns: &[Column<Buffer>]) -> Vec<Buffer> {
    let filter = filter.to_lowercase();
    let is_wanted = |buffer: &&Buffer| {
        filter.is_empty()
            || contains(&buffer.buffer_id, &filter)
            || contains(&buffer.memory_type, &filter)
            || buffer.device.to_string() == filter
    };
    ordered(all.iter().filter(is_wanted).cloned().collect(), sort, columns)
}

/// What the analysis says, by process.
pub(super) fn by_process(leaks: &[Leak]) -> HashMap<u32, Suspected> {
    let mut found: HashMap<u32, Suspected> = HashMap::new();
    // The surest comes first.
    for leak in leaks {
        let suspected = found.entry(leak.pid).or_insert_with(|| Suspected {
            process: leak.process.clone(),
            score: leak.score,
            bytes_per_second: 0.0,
            evidence: leak.evidence.clone(),
        });
        suspected.bytes_per_second += leak.bytes_per_second;
    }
    found
}

/// Rows that are equal in the column stay as they came: processes with most bytes first.
fn ordered<R>(rows: Vec<R>, sort: Sort, columns: &[Column<R>]) -> Vec<R> {
    let Some(column) = columns.get(sort.column) else { return rows };
    let mut keyed: Vec<(Key, R)> = rows.into_iter().map(|row| ((column.key)(&row), row)).collect();
    let is_descending = column.is_descending != sort.is_reversed;
    keyed.sort_by(|(left, _), (right, _)| {
        let order = left.compare(right);
        if is_descending { order.reverse() } else { order }
    });
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// Whether a text contains another that is in small letters.
fn contains(text: &str, small: &str) -> bool {
    text.to_lowercase().contains(small)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::columns::{BUFFER, PROCESS, position};
    use crate::cli::top::invented;

    fn sorted(title: &str, is_reversed: bool) -> Sort {
        Sort { column: position(PROCESS, title).expect("a column"), is_reversed }
    }

    fn pids(filter: &str, device: Option<u16>, sort: Sort) -> Vec<u32> {
        let suspected = by_process(&invented::leaks());
        let wishes = Wishes { memory_type: "dram", device, filter, sort };
        let rows = processes(&invented::picture(2, 4).processes, &suspected, &wishes, PROCESS);
        rows.iter().map(|row| row.pid).collect()
    }

    #[test]
    fn rows_come_in_the_order_of_a_column() {
        assert_eq!(pids("", None, sorted("USED", false)), [4000, 4001, 4002, 4003]);
        assert_eq!(pids("", None, sorted("USED", true)), [4003, 4002, 4001, 4000]);
        assert_eq!(pids("", None, sorted("PROCESS", false)), [4003, 4000, 4001, 4002]);
        // What is not known comes last, where the largest comes first.
        assert_eq!(pids("", None, sorted("LEAK", false)), [4003, 4000, 4001, 4002]);
    }

    #[test]
    fn a_filter_looks_at_names_users_containers_and_pids() {
        let by_pid = sorted("PID", false);
        assert_eq!(pids("LLAMA", None, by_pid), [4000]);
        assert_eq!(pids("ml", None, by_pid), [4000, 4002]);
        assert_eq!(pids("4002", None, by_pid), [4002]);
        assert_eq!(pids("400", None, by_pid), [] as [u32; 0]);
        assert_eq!(pids("", Some(1), by_pid), [4000, 4001]);
    }

    #[test]
    fn devices_are_told_in_runs() {
        let devices = |devices: &[u16]| {
            let wishes = Wishes { memory_type: "dram", device: None, filter: "", sort: sorted("PID", false) };
            let all = invented::picture(2, 1).processes;
            let row = processes(&all, &HashMap::new(), &wishes, PROCESS).remove(0);
            ProcessRow { devices: devices.to_vec(), ..row }.devices()
        };
        assert_eq!(devices(&[]), "");
        assert_eq!(devices(&[0, 1, 3, 4, 5, 9]), "0,1,3-5,9");
    }

    #[test]
    fn buffers_are_found_by_type_and_id() {
        let all = invented::buffers(4).buffers;
        let by_size = Sort { column: position(BUFFER, "SIZE").expect("a column"), is_reversed: false };
        let ids = |filter: &str| -> Vec<String> {
            buffers(&all, filter, by_size, BUFFER).into_iter().map(|buffer| buffer.buffer_id).collect()
        };
        assert_eq!(ids(""), ["0x4000", "0x3000", "0x2000", "0x1000"]);
        assert_eq!(ids("0x2"), ["0x2000"]);
        assert_eq!(ids("l1"), ["0x4000", "0x2000"]);
    }
}
