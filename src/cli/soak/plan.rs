//! What may happen next, and how often: drawn from the seed and from nothing else.

use ttmem_wire::{BUFFER_BYTES_MAX, DEVICE_ID_MAX, FREED_BY_CLOSE, Kind};

use super::model::Holdings;
use super::report::{CIRCULAR_BUFFER, KERNEL, MEMORY, Report};
use super::told::FRAME_DEVICES;
use crate::cli::random::Random;

/// Devices beyond those of [`FRAME_DEVICES`].
const LIBRARY_DEVICES: u64 = 2;
/// Few sizes and few ids, so that both come again.
const SIZES: [u64; 4] = [4096, 65_536, 1 << 20, 12 << 20];
const IDS: u64 = 48;
/// One size each: then the number of blocks follows from the protocol.
const CIRCULAR_BUFFER_BYTES: u64 = 2048;
const KERNEL_BYTES: u64 = 1024;
/// Reports of one burst.
const BURST_MAX: u64 = 60;
/// Where the name of the connection stands in an id.
pub(super) const CONNECTION_SHIFT: u32 = 20;

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Spawn,
    Burst,
    Flood,
    Connect,
    Close,
    CloseDevice,
    RaiseHeir,
    Leave,
    Kill,
    KillUnread,
    Stop,
    Continue,
    Garbage,
    HalfFrame,
    Compare,
    Freeze,
    KillDaemon,
    KillDaemonUnderLoad,
    Upgrade,
}

/// How often each comes, against the others.
const WEIGHTS: &[(Operation, u64)] = &[
    (Operation::Spawn, 60),
    (Operation::Burst, 300),
    (Operation::Flood, 8),
    (Operation::Connect, 15),
    (Operation::Close, 10),
    (Operation::CloseDevice, 10),
    (Operation::RaiseHeir, 10),
    (Operation::Leave, 12),
    (Operation::Kill, 25),
    (Operation::KillUnread, 15),
    (Operation::Stop, 10),
    (Operation::Continue, 12),
    (Operation::Garbage, 10),
    (Operation::HalfFrame, 10),
    (Operation::Compare, 40),
    (Operation::Freeze, 6),
    (Operation::KillDaemon, 12),
    (Operation::KillDaemonUnderLoad, 6),
    (Operation::Upgrade, 4),
];

/// Operations from one rough time to the next, and how long each lasts. In between, the daemon is left alone, as otherwise no daemon would
/// ever live long enough to show what it accumulates.
const CYCLE: u64 = 10_000;
const ROUGH: u64 = 2_000;

/// What happens next, after so many operations.
pub(super) fn draw(random: &mut Random, operations: u64) -> Operation {
    let drawn = draw_any(random);
    let ends_daemon =
        matches!(drawn, Operation::KillDaemon | Operation::KillDaemonUnderLoad | Operation::Upgrade);
    if ends_daemon && operations % CYCLE >= ROUGH { Operation::Burst } else { drawn }
}

fn draw_any(random: &mut Random) -> Operation {
    let sum: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut place = random.between(1, sum);
    for (operation, weight) in WEIGHTS {
        if place <= *weight {
            return *operation;
        }
        place -= weight;
    }
    Operation::Compare
}

/// One of so many.
pub(super) fn index(random: &mut Random, count: usize) -> usize {
    random.between(0, (count as u64).saturating_sub(1)) as usize
}

/// One of a list.
pub(super) fn one_of<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[index(random, choices.len())]
}

/// What a process with frames says over one of its connections; `has_sums` on one of them alone, as sums have no names to tell them by.
pub(super) fn burst(random: &mut Random, held: &Holdings, connection: u32, has_sums: bool) -> Vec<Report> {
    let first_id = u64::from(connection) << CONNECTION_SHIFT;
    let live: Vec<(u16, u64)> = held
        .buffers
        .keys()
        .copied()
        .filter(|(_, id)| id >> CONNECTION_SHIFT == u64::from(connection))
        .collect();
    let count = random.between(1, BURST_MAX);
    (0..count).map(|_| report(random, &live, first_id, has_sums)).collect()
}

fn report(random: &mut Random, live: &[(u16, u64)], first_id: u64, has_sums: bool) -> Report {
    let device = random.between(0, u64::from(FRAME_DEVICES) - 1) as i32;
    match random.between(0, 99) {
        0..50 => Report {
            memory: index(random, MEMORY.len()) as u8,
            buffer_id: first_id + random.between(1, IDS),
            size_bytes: one_of(random, &SIZES),
            ..Report::about(Kind::Alloc, device)
        },
        50..80 if !live.is_empty() => {
            let (device, buffer_id) = one_of(random, live);
            // Some clients always say device 0.
            let said = if random.between(0, 9) == 0 { 0 } else { device };
            Report { buffer_id, ..Report::about(Kind::Free, said.into()) }
        }
        50..84 => {
            Report { buffer_id: first_id + random.between(1, IDS), ..Report::about(Kind::Free, device) }
        }
        84..92 if has_sums => sum(random, device),
        _ => bad(random, device, first_id),
    }
}

fn sum(random: &mut Random, device: i32) -> Report {
    let (kind, size_bytes) = one_of(
        random,
        &[
            (Kind::CbAlloc, CIRCULAR_BUFFER_BYTES),
            (Kind::CbFree, CIRCULAR_BUFFER_BYTES),
            (Kind::KernelLoad, KERNEL_BYTES),
            (Kind::KernelUnload, KERNEL_BYTES),
        ],
    );
    Report { size_bytes, ..Report::about(kind, device) }
}

/// What the daemon has to refuse, and goes on.
fn bad(random: &mut Random, device: i32, first_id: u64) -> Report {
    let good =
        Report { buffer_id: first_id + IDS + 1, size_bytes: 4096, ..Report::about(Kind::Alloc, device) };
    match random.between(0, 4) {
        0 => Report { device: DEVICE_ID_MAX + 1, ..good },
        1 => Report { size_bytes: 0, ..good },
        2 => Report { size_bytes: BUFFER_BYTES_MAX + 1, ..good },
        3 => Report { memory: 77, ..good },
        _ => Report { kind: Kind::Free, size_bytes: 0, ..good },
    }
}

/// What a process with the library says: each buffer once, and frees of what it holds.
pub(super) fn library_burst(random: &mut Random, held: &Holdings, next_id: &mut u32) -> Vec<Report> {
    let mut live: Vec<(u16, u64)> = held.buffers.keys().copied().collect();
    let mut sums = held.sums.clone();
    let count = random.between(1, BURST_MAX);
    let mut reports = Vec::new();
    for _ in 0..count {
        let device = u64::from(FRAME_DEVICES) + random.between(0, LIBRARY_DEVICES - 1);
        let choice = random.between(0, 9);
        reports.push(match choice {
            5..8 if !live.is_empty() => {
                let (device, buffer_id) = live.swap_remove(index(random, live.len()));
                Report { buffer_id, ..Report::about(Kind::Free, device.into()) }
            }
            8..=9 => {
                let report = sum(random, device as i32);
                let is_kernel = matches!(report.kind, Kind::KernelLoad | Kind::KernelUnload);
                let memory_type = if is_kernel { KERNEL } else { CIRCULAR_BUFFER };
                let usage = sums.entry((device as u16, memory_type)).or_default();
                if matches!(report.kind, Kind::CbAlloc | Kind::KernelLoad) {
                    usage.bytes += report.size_bytes;
                } else if usage.bytes == 0 {
                    // There is nothing to give back.
                    continue;
                } else {
                    usage.bytes -= report.size_bytes;
                }
                report
            }
            _ => {
                *next_id += 1;
                Report {
                    memory: index(random, MEMORY.len()) as u8,
                    buffer_id: u64::from(*next_id),
                    size_bytes: one_of(random, &SIZES),
                    ..Report::about(Kind::Alloc, device as i32)
                }
            }
        });
    }
    reports
}

/// The frees of all that was reported over one connection and lies on one device, which is closed.
pub(super) fn device_close(held: &Holdings, connection: Option<u32>, device: u16) -> Vec<Report> {
    let is_meant =
        |id: u64| connection.is_none_or(|connection| id >> CONNECTION_SHIFT == u64::from(connection));
    let buffers = held.buffers.iter().filter(|((on, id), _)| *on == device && is_meant(*id));
    buffers
        .flat_map(|((_, id), buffer)| {
            let free =
                Report { memory: FREED_BY_CLOSE, buffer_id: *id, ..Report::about(Kind::Free, device.into()) };
            (0..buffer.references).map(move |_| free)
        })
        .collect()
}

/// A buffer to flood with, whose id no burst uses.
pub(super) fn flooded(random: &mut Random, connection: u32) -> Report {
    Report {
        memory: index(random, MEMORY.len()) as u8,
        buffer_id: (u64::from(connection) << CONNECTION_SHIFT) + IDS + 2,
        size_bytes: one_of(random, &SIZES),
        ..Report::about(Kind::Alloc, random.between(0, u64::from(FRAME_DEVICES) - 1) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_again_and_all_of_it() {
        let plan = |seed| {
            let mut random = Random::new(seed);
            (0..20_000).map(|operations| draw(&mut random, operations)).collect::<Vec<_>>()
        };
        let drawn = plan(1);
        assert_eq!(drawn, plan(1));
        assert_ne!(drawn, plan(2));
        assert!(WEIGHTS.iter().all(|(operation, _)| drawn.contains(operation)));
    }

    #[test]
    fn a_burst_keeps_to_its_connection() {
        let held = Holdings::default();
        let reports = burst(&mut Random::new(3), &held, 5, true);
        assert!(
            reports.iter().all(|report| report.buffer_id == 0 || report.buffer_id >> CONNECTION_SHIFT == 5)
        );
    }
}
