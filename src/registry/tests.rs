//! The registry's rules, and that its totals always add up.

use super::*;

const NOW: Time = Time { monotonic_ns: 1_000, unix_ns: 5_000_000_000 };

/// A minute in monotonic nanoseconds.
pub(super) const MINUTE_NS: u64 = 60_000_000_000;

/// A registry with one process.
pub(super) fn registry_with_process() -> (Registry, Arc<Process>) {
    let registry = Registry::new(0);
    let process = process(&registry, 1);
    (registry, process)
}

fn process(registry: &Registry, pid: u32) -> Arc<Process> {
    registry.process(
        Identity { pid, start_ticks: 1 },
        1,
        ProcessInfo::new(&format!("model-{pid}"), 1000, "ml", Source::Socket),
    )
}

/// The usage, buffers, allocations and frees of a device's memory, from a snapshot whose sums are checked on the way.
fn totals(registry: &Registry, device: u16, memory_type: MemoryType) -> (u64, u64, u64, u64) {
    let snapshot = registry.snapshot(NOW);
    assert_adds_up(&snapshot);
    let device = snapshot.devices.iter().find(|known| known.index == device).expect("a known device");
    let memory =
        device.memory.iter().find(|memory| memory.memory_type == memory_type).expect("memory of that type");
    let counters = memory.reported.as_ref().expect("reported memory").counters;
    (memory.usage_bytes, counters.buffers, counters.allocations, counters.frees)
}

fn assert_adds_up(snapshot: &Snapshot) {
    for device in &snapshot.devices {
        for memory in &device.memory {
            let places = snapshot.processes.iter().flat_map(|process| &process.memory);
            let here = places
                .filter(|place| (place.device, place.memory_type) == (device.index, memory.memory_type));
            assert_eq!(memory.usage_bytes, here.map(|place| place.counters.usage_bytes()).sum::<u64>());
            assert!(memory.peak_bytes >= memory.usage_bytes);
            if let Some(Reported { counters, .. }) = &memory.reported {
                assert_eq!(counters.reported_bytes, counters.allocated_bytes - counters.freed_bytes);
                assert_eq!(counters.buffers, counters.allocations - counters.frees);
            }
        }
    }
}

#[test]
fn two_processes_with_the_same_ids_hold_different_buffers() {
    let registry = Registry::new(0);
    let (first, second) = (process(&registry, 1), process(&registry, 2));
    registry.batch(&first, 1).allocate(0, MemoryType::Dram, 7, 100).expect("new");
    registry.batch(&second, 1).allocate(0, MemoryType::Dram, 7, 50).expect("new");
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (150, 2, 2, 0));
    registry.batch(&second, 2).free(0, 7).expect("known");
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (100, 1, 2, 1));
}

#[test]
fn a_buffer_allocated_twice_counts_once_and_is_freed_twice() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    assert_eq!(batch.allocate(0, MemoryType::L1, 7, 100), Ok(Allocated::New));
    assert_eq!(batch.allocate(0, MemoryType::L1, 7, 100), Ok(Allocated::Referenced));
    assert_eq!(batch.free(0, 7), Ok(()));
    batch.publish();
    assert_eq!(totals(&registry, 0, MemoryType::L1), (100, 1, 1, 0));
    assert_eq!(batch.free(0, 7), Ok(()));
    assert_eq!(batch.free(0, 7), Err(Refusal::UnknownFree));
    drop(batch);
    assert_eq!(totals(&registry, 0, MemoryType::L1), (0, 0, 1, 1));
}

#[test]
fn an_id_that_comes_again_with_another_size_ends_the_old_buffer() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    batch.allocate(0, MemoryType::Dram, 7, 100).expect("new");
    assert_eq!(batch.allocate(0, MemoryType::L1, 7, 30), Ok(Allocated::Replaced));
    drop(batch);
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (0, 0, 1, 1));
    assert_eq!(totals(&registry, 0, MemoryType::L1), (30, 1, 1, 0));
}

#[test]
fn a_free_with_the_wrong_device_finds_the_only_match_and_never_guesses() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    batch.allocate(3, MemoryType::Dram, 7, 100).expect("new");
    assert_eq!(batch.free(0, 7), Ok(()));
    batch.allocate(3, MemoryType::Dram, 7, 100).expect("new");
    batch.allocate(4, MemoryType::L1, 7, 100).expect("new");
    assert_eq!(batch.free(0, 7), Err(Refusal::AmbiguousFree));
    assert_eq!(batch.free(4, 7), Ok(()));
    assert_eq!(batch.free(0, 7), Ok(()));
}

#[test]
fn memory_accounted_by_size_never_goes_below_zero() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    assert_eq!(batch.give_back(0, MemoryType::Cb, 10), Err(Refusal::UnknownFree));
    batch.take(0, MemoryType::Cb, 10).expect("a size");
    assert_eq!(batch.give_back(0, MemoryType::Cb, 11), Err(Refusal::UnknownFree));
    assert_eq!(batch.give_back(0, MemoryType::Cb, 10), Ok(()));
    batch.load_kernel(0, KernelKind::Fabric, 64).expect("a size");
    drop(batch);
    assert_eq!(owner.kernels(), [(0, KernelKind::Fabric, KernelTally { kernels: 1, bytes: 64 })]);
    assert_eq!(totals(&registry, 0, MemoryType::Cb), (0, 0, 1, 1));
    assert_eq!(totals(&registry, 0, MemoryType::Kernel), (64, 1, 1, 0));
}

#[test]
fn absurd_sizes_are_refused_and_nothing_wraps() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    assert_eq!(batch.allocate(0, MemoryType::Dram, 1, 0), Err(Refusal::ZeroSize));
    assert_eq!(batch.allocate(0, MemoryType::Dram, 1, u64::MAX), Err(Refusal::SizeTooLarge));
    for id in 0..CELL_BYTES_MAX / BUFFER_BYTES_MAX {
        assert_eq!(batch.allocate(0, MemoryType::Dram, id, BUFFER_BYTES_MAX), Ok(Allocated::New));
    }
    assert_eq!(batch.allocate(0, MemoryType::Dram, u64::MAX, 1), Err(Refusal::SizeTooLarge));
    drop(batch);
    assert_eq!(totals(&registry, 0, MemoryType::Dram).0, CELL_BYTES_MAX);
}

#[test]
fn the_peak_inside_a_batch_is_not_lost() {
    let registry = Registry::new(0);
    let (first, second) = (process(&registry, 1), process(&registry, 2));
    registry.batch(&second, 1).allocate(0, MemoryType::Dram, 1, 1000).expect("new");
    let mut batch = registry.batch(&first, 1);
    batch.allocate(0, MemoryType::Dram, 1, 500).expect("new");
    batch.free(0, 1).expect("known");
    batch.allocate(0, MemoryType::Dram, 2, 10).expect("new");
    drop(batch);
    let memory = registry.device(0).memory(MemoryType::Dram);
    assert_eq!((memory.usage_bytes(), memory.peak_bytes()), (1010, 1500));
}

#[test]
fn a_device_that_clients_alone_have_named_is_forgotten_when_nobody_uses_it() {
    let registry = Registry::new(0);
    let shown = |now_ns: u64| {
        registry.review_devices(now_ns);
        let snapshot = registry.snapshot(Time { monotonic_ns: now_ns, unix_ns: NOW.unix_ns });
        assert_adds_up(&snapshot);
        snapshot.devices.iter().map(|device| device.index).collect::<Vec<_>>()
    };
    registry.device(3).update_info(|info| info.is_vouched_for = true);
    let liar = process(&registry, 1);
    for device in 0..3 {
        registry.batch(&liar, 1).allocate(device, MemoryType::Dram, 1, 100).expect("new");
    }
    assert_eq!(shown(DEVICE_LINGER_NS * 2), [0, 1, 2, 3], "as long as its process lives");
    let mut now_ns = DEVICE_LINGER_NS * 3;
    registry.end(&liar, now_ns);
    assert_eq!(shown(now_ns).len(), 4, "and is shown");
    registry.retire(now_ns, 0);
    assert_eq!(shown(now_ns).len(), 4);
    assert_eq!(shown(now_ns + DEVICE_LINGER_NS - 1).len(), 4);
    now_ns += DEVICE_LINGER_NS;
    assert_eq!(shown(now_ns), [3]);

    // Whoever names it again finds what it has counted.
    let another = process(&registry, 2);
    registry.batch(&another, now_ns).allocate(1, MemoryType::Dram, 1, 7).expect("new");
    let snapshot = registry.snapshot(Time { monotonic_ns: now_ns, unix_ns: NOW.unix_ns });
    assert_eq!(snapshot.devices.iter().map(|device| device.index).collect::<Vec<_>>(), [1, 3]);
    let dram = snapshot.devices[0].memory[0].reported.as_ref().expect("reported").counters;
    assert_eq!((dram.allocations, dram.allocated_bytes, dram.buffers), (2, 107, 1));
    assert_eq!(shown(now_ns), [1, 3]);
    registry.end(&another, now_ns);
    registry.retire(now_ns, 0);
    assert_eq!(shown(now_ns + 1), [1, 3], "a new hour begins");
}

#[test]
fn an_ended_process_is_reclaimed_shown_for_a_while_and_never_forgotten_in_the_sums() {
    let registry = Registry::new(0);
    let (first, second) = (process(&registry, 1), process(&registry, 2));
    registry.batch(&first, 1).allocate(0, MemoryType::Dram, 1, 100).expect("new");
    registry.batch(&second, 1).allocate(0, MemoryType::Dram, 1, 11).expect("new");
    assert_eq!(registry.end(&first, 50), Orphaned { buffers: 1, bytes: 100 });
    assert_eq!(registry.end(&first, 51), Orphaned::default(), "once only");
    assert_eq!(registry.batch(&first, 60).allocate(0, MemoryType::Dram, 2, 1), Err(Refusal::ProcessEnded));
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (11, 1, 2, 1));
    assert_eq!(registry.device(0).memory(MemoryType::Dram).usage_bytes(), 11);

    registry.retire(59, 10);
    assert_eq!(registry.snapshot(NOW).processes.len(), 2, "its last values can still be scraped");
    registry.retire(60, 10);
    assert_eq!(registry.snapshot(NOW).processes.len(), 1);
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (11, 1, 2, 1));
    let again = registry.process(first.identity(), 70, first.info().clone());
    assert!(!again.has_ended(), "the identity is free again");
}

#[test]
fn reports_win_over_the_region_and_the_difference_is_drift() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let memory = || registry.snapshot(NOW).devices[0].memory[MemoryType::Dram.index()].clone();
    registry.batch(&owner, 1).set_region(0, MemoryType::Dram, Some(300)).expect("alive");
    assert_eq!((memory().usage_bytes, memory().drift_bytes), (300, None));
    assert!(memory().reported.is_none(), "a region knows no buffers");
    registry.batch(&owner, 1).allocate(0, MemoryType::Dram, 1, 100).expect("new");
    assert_eq!((memory().usage_bytes, memory().drift_bytes), (100, Some(200)));
    assert_eq!(registry.device(0).memory(MemoryType::Dram).usage_bytes(), 100);
    registry.batch(&owner, 1).set_region(0, MemoryType::Dram, None).expect("alive");
    assert_eq!((memory().usage_bytes, memory().drift_bytes), (100, None));
    assert_eq!(memory().peak_bytes, 300);
}

#[test]
fn a_known_and_empty_device_says_zero_and_an_unknown_capacity_says_nothing() {
    let registry = Registry::new(0);
    registry.device(5).update_info(|info| info.dram_bytes = Some(1 << 30));
    let snapshot = registry.snapshot(NOW);
    let [device] = &snapshot.devices[..] else { panic!("one device, not {:?}", snapshot.devices) };
    let shown: Vec<_> = device
        .memory
        .iter()
        .map(|memory| (memory.memory_type.name(), memory.usage_bytes, memory.limit_bytes))
        .collect();
    assert_eq!(
        shown,
        [("dram", 0, Some(1 << 30)), ("l1", 0, None), ("l1_small", 0, None), ("trace", 0, None)]
    );
}

#[test]
fn the_oldest_buffer_is_known_by_its_time_of_day() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let oldest = |monotonic_ns, unix_ns| {
        let snapshot = registry.snapshot(Time { monotonic_ns, unix_ns });
        snapshot.devices[0].memory[0].reported.as_ref().and_then(|reported| reported.oldest_timestamp_seconds)
    };
    registry.batch(&owner, 1_000_000_000).allocate(0, MemoryType::Dram, 1, 1).expect("new");
    registry.batch(&owner, 2_000_000_000).allocate(0, MemoryType::Dram, 2, 1).expect("new");
    assert_eq!(oldest(3_000_000_000, 103_000_000_000), Some(101.0));
    registry.batch(&owner, 3_000_000_000).free(0, 1).expect("known");
    assert_eq!(oldest(3_000_000_000, 103_000_000_000), Some(102.0));
    registry.batch(&owner, 3_000_000_000).free(0, 2).expect("known");
    assert_eq!(oldest(3_000_000_000, 103_000_000_000), None);
}

#[test]
fn a_listing_pages_through_every_buffer_once_while_others_come_and_go() {
    let registry = Registry::new(0);
    let (first, second) = (process(&registry, 1), process(&registry, 2));
    for id in 0..5000 {
        registry.batch(&first, 1).allocate(0, MemoryType::Dram, id, 1).expect("new");
    }
    registry.batch(&second, 1).allocate(1, MemoryType::L1, 9, 1).expect("new");
    let (mut ids, mut cursor, mut pages) = (Vec::new(), Some(Cursor::default()), 0);
    while let Some(from) = cursor {
        let page = registry.buffers(&BufferFilter::default(), from, 1000, 2);
        assert!(page.buffers.len() <= 1000);
        ids.extend(page.buffers.iter().map(|buffer| (buffer.process.pid(), buffer.id)));
        registry.batch(&first, 2).free(0, pages).expect("listed already");
        registry.batch(&first, 2).allocate(0, MemoryType::Dram, 100_000 + pages, 1).expect("new");
        cursor = page.next;
        pages += 1;
    }
    let unique: std::collections::HashSet<_> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    let lived_through = (pages..5000).map(|id| (1, id)).chain([(2, 9)]);
    assert!(lived_through.into_iter().all(|buffer| unique.contains(&buffer)));
    let filter = BufferFilter { memory_type: Some(MemoryType::L1), ..BufferFilter::default() };
    assert_eq!(registry.buffers(&filter, Cursor::default(), 10, 2).buffers.len(), 1);
    let filter =
        BufferFilter { min_age_ns: Some(1), pid: Some(2), device: Some(0), ..BufferFilter::default() };
    assert!(registry.buffers(&filter, Cursor::default(), 10, 2).buffers.is_empty());
}

#[test]
fn snapshots_add_up_while_processes_allocate_and_end() {
    let registry = Registry::new(0);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let registry = &registry;
            scope.spawn(move || {
                for round in 0..200 {
                    let owner = process(registry, worker * 1000 + round);
                    for id in 0..50 {
                        let mut batch = registry.batch(&owner, 1);
                        batch.allocate(0, MemoryType::Dram, id, 64).expect("new");
                        if id % 3 == 0 {
                            batch.free(0, id).expect("known");
                        }
                    }
                    registry.end(&owner, 2);
                    registry.retire(3, 0);
                }
            });
        }
        for _ in 0..300 {
            assert_adds_up(&registry.snapshot(NOW));
        }
    });
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (0, 0, 30_000, 30_000));
    assert_eq!(registry.device(0).memory(MemoryType::Dram).usage_bytes(), 0);
}

#[test]
fn memory_taken_at_once_may_be_given_back_in_parts_and_the_other_way_round() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    batch.take(0, MemoryType::Cb, 100).expect("a size");
    assert_eq!(batch.give_back(0, MemoryType::Cb, 40), Ok(()));
    assert_eq!(batch.give_back(0, MemoryType::Cb, 60), Ok(()));
    batch.publish();
    assert_eq!(totals(&registry, 0, MemoryType::Cb), (0, 0, 1, 1));
    for _ in 0..3 {
        batch.take(0, MemoryType::Cb, 10).expect("a size");
    }
    assert_eq!(batch.give_back(0, MemoryType::Cb, 30), Ok(()));
    drop(batch);
    assert_eq!(totals(&registry, 0, MemoryType::Cb), (0, 0, 4, 4));
}

#[test]
fn a_kernel_is_unloaded_as_the_kind_that_it_was_loaded_as() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    batch.load_kernel(0, KernelKind::Fabric, 64).expect("a size");
    assert_eq!(batch.unload_kernel(0, KernelKind::Dispatch, 64), Err(Refusal::UnknownFree));
    assert_eq!(batch.unload_kernel(0, KernelKind::Fabric, 64), Ok(()));
    drop(batch);
    assert_eq!(owner.kernels(), []);
}

/// What a process holds in DRAM, circular buffers and kernels: bytes and buffers.
fn held(process: &Process) -> [(u64, u64); 3] {
    let memory = process.memory();
    [MemoryType::Dram, MemoryType::Cb, MemoryType::Kernel].map(|memory_type| {
        let cell = memory.iter().find(|cell| cell.memory_type == memory_type).expect("a cell");
        (cell.counters.reported_bytes, cell.counters.buffers)
    })
}

#[test]
fn who_begins_anew_takes_nothing_of_the_others_with_it() {
    const OWN: u64 = 0;
    const OTHERS: u64 = 1;
    const BOTH: u64 = 2;
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    for (reporter, id) in [(Reporter::at(0), OWN), (Reporter::at(1), OTHERS)] {
        batch.report_as(reporter);
        batch.allocate(0, MemoryType::Dram, id, 10).expect("new");
        for _ in 0..2 {
            batch.allocate(0, MemoryType::Dram, BOTH, 100).expect("new or known");
        }
        batch.take(0, MemoryType::Cb, 7).expect("a size");
        batch.load_kernel(0, KernelKind::Fabric, 3).expect("a size");
    }
    batch.publish();
    assert_eq!(held(&owner), [(120, 3), (14, 2), (6, 2)]);
    batch.report_as(Reporter::at(0));
    batch.forget();
    batch.publish();
    assert_eq!(held(&owner), [(110, 2), (7, 1), (3, 1)]);
    assert_eq!(batch.free(0, OWN), Err(Refusal::UnknownFree));
    // What is left of the other's may be ended by anybody: by the other two references.
    assert_eq!((batch.free(0, BOTH), batch.free(0, BOTH)), (Ok(()), Ok(())));
    assert_eq!(batch.free(0, BOTH), Err(Refusal::UnknownFree));
    assert_eq!(batch.give_back(0, MemoryType::Cb, 7), Ok(()));
    assert_eq!(batch.unload_kernel(0, KernelKind::Fabric, 3), Ok(()));
    batch.publish();
    assert_eq!(held(&owner), [(10, 1), (0, 0), (0, 0)]);
    batch.report_as(Reporter::at(1));
    batch.forget();
    drop(batch);
    assert_eq!(held(&owner), [(0, 0); 3]);
    assert_adds_up(&registry.snapshot(NOW));
}

#[test]
fn references_are_counted_exactly_however_many_there_are() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    let references = u32::from(u16::MAX) + 10;
    for _ in 0..references {
        batch.allocate(0, MemoryType::Dram, 1, 100).expect("a size");
    }
    drop(batch);
    let filter = BufferFilter::default();
    let page = registry.buffers(&filter, Cursor::default(), 10, 1);
    assert_eq!(page.buffers.iter().map(|buffer| buffer.references).collect::<Vec<_>>(), [references]);
    let mut batch = registry.batch(&owner, 1);
    for _ in 0..references {
        assert_eq!(batch.free(0, 1), Ok(()));
    }
    assert_eq!(batch.free(0, 1), Err(Refusal::UnknownFree));
}

#[test]
fn a_size_may_be_given_back_by_whoever() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    for place in 0..3 {
        batch.report_as(Reporter::at(place));
        batch.take(0, MemoryType::Cb, 10).expect("a size");
    }
    assert_eq!(batch.give_back(0, MemoryType::Cb, 31), Err(Refusal::UnknownFree));
    assert_eq!(batch.give_back(0, MemoryType::Cb, 25), Ok(()));
    batch.publish();
    assert_eq!(totals(&registry, 0, MemoryType::Cb), (5, 1, 3, 2));
    assert_eq!(batch.give_back(0, MemoryType::Cb, 5), Ok(()));
    drop(batch);
    assert_eq!(totals(&registry, 0, MemoryType::Cb), (0, 0, 3, 3));
}

#[test]
fn a_pid_that_is_used_again_has_one_set_of_series() {
    let registry = Registry::new(0);
    let first = process(&registry, 7);
    registry.batch(&first, 1).allocate(0, MemoryType::Dram, 1, 100).expect("new");
    registry.end(&first, 2);
    let again = registry.process(Identity { pid: 7, start_ticks: 2 }, 3, first.info().clone());
    registry.batch(&again, 3).allocate(0, MemoryType::Dram, 1, 5).expect("new");
    let snapshot = registry.snapshot(NOW);
    assert_eq!(snapshot.processes.len(), 1, "the ended one has been retired");
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (5, 1, 2, 1));
}

#[test]
fn a_page_holds_a_ledger_no_longer_for_what_has_been_freed() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    let mut batch = registry.batch(&owner, 1);
    for id in 0..20_000 {
        batch.allocate(0, MemoryType::Dram, id, 1).expect("new");
    }
    for id in 0..19_999 {
        batch.free(0, id).expect("known");
    }
    drop(batch);
    let page = registry.buffers(&BufferFilter::default(), Cursor::default(), 10, 2);
    assert_eq!(page.buffers.iter().map(|buffer| buffer.id).collect::<Vec<_>>(), [19_999]);
    assert_eq!(page.next, None);
}

const SECOND_NS: u64 = 1_000_000_000;

fn told_registry() -> Registry {
    Registry::new(0).told(FeedPolicy {
        size_bytes_min: 1000,
        lifetime_ns_min: SECOND_NS,
        burst_gap_ns: SECOND_NS / 10,
        burst_buffers_min: 100,
    })
}

fn hear(registry: &Registry) -> Vec<Occurrence> {
    let mut heard = Vec::new();
    registry.hear(&mut heard);
    heard
}

fn omitted(registry: &Registry, reason: &str) -> u64 {
    let events = registry.snapshot(NOW).events;
    events.omitted.iter().find(|(name, _)| *name == reason).map(|(_, count)| *count).expect("a reason")
}

#[test]
fn a_life_is_told_in_its_order() {
    let registry = told_registry();
    let owner = process(&registry, 1);
    registry.batch(&owner, 5).allocate(0, MemoryType::Dram, 7, 5000).expect("new");
    registry.batch(&owner, 5).allocate(0, MemoryType::Dram, 8, 6000).expect("new");
    registry.batch(&owner, 5 + SECOND_NS).free(0, 7).expect("known");
    registry.end(&owner, 6 + SECOND_NS);
    let heard = hear(&registry);
    let [Occurrence::Released(owner, released), Occurrence::Ended(_, ending)] = &heard[..] else {
        panic!("{heard:?}")
    };
    assert_eq!(owner.pid(), 1);
    assert_eq!((released.id, released.size_bytes, released.end), (7, 5000, End::Freed));
    assert_eq!((released.allocated_ns, released.released_ns), (5, 5 + SECOND_NS));
    assert_eq!(ending.orphaned, Orphaned { buffers: 1, bytes: 6000 });
    let [orphan] = ending.orphans.largest[..] else { panic!("{ending:?}") };
    assert_eq!((orphan.id, orphan.end), (8, End::ProcessExit));
    assert!(hear(&registry).is_empty());
}

#[test]
fn where_nobody_listens_nothing_is_kept_and_nothing_is_counted() {
    let registry = Registry::new(0);
    let owner = process(&registry, 1);
    registry.batch(&owner, 5).allocate(0, MemoryType::Dram, 7, 5000).expect("new");
    registry.end(&owner, 6 + SECOND_NS);
    assert!(hear(&registry).is_empty());
    assert!(registry.snapshot(NOW).events.omitted.is_empty());
}

#[test]
fn a_full_feed_loses_buffers_first_and_counts_them() {
    let registry = told_registry();
    let owner = process(&registry, 1);
    let buffers = FEED_OCCURRENCES_MAX as u64 + 10;
    for id in 0..buffers {
        registry.batch(&owner, 5).allocate(0, MemoryType::Dram, id, 5000).expect("new");
        registry.batch(&owner, 5 + SECOND_NS).free(0, id).expect("known");
    }
    registry.end(&owner, 9 * SECOND_NS);
    let heard = hear(&registry);
    assert!(matches!(heard.last(), Some(Occurrence::Ended(..))), "the end has a place of its own");
    let told = heard.iter().filter(|heard| matches!(heard, Occurrence::Released(..))).count() as u64;
    assert!(told > buffers / 2 && told < buffers);
    assert_eq!(omitted(&registry, "queue"), buffers - told);
}

#[test]
fn a_burst_is_told_when_nothing_has_come_for_a_while() {
    let registry = told_registry();
    let owner = process(&registry, 1);
    for id in 0..100 {
        registry.batch(&owner, 5 + id).allocate(0, MemoryType::Dram, id, 10).expect("new");
    }
    registry.settle(SECOND_NS);
    let heard = hear(&registry);
    let Some(Occurrence::BurstAllocated(_, burst)) = heard.last() else { panic!("{heard:?}") };
    assert_eq!((burst.first_ns, burst.last_ns, burst.parts[0].buffers), (5, 104, 100));
    registry.end(&owner, 2 * SECOND_NS);
    let heard = hear(&registry);
    let [Occurrence::Ended(_, ending)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((ending.bursts[0].orphaned_buffers, ending.orphans.largest.len()), (100, 0));
}

#[test]
fn a_failure_is_counted_by_its_reason_and_changes_nothing_that_is_held() {
    let registry = told_registry();
    let owner = process(&registry, 1);
    registry.batch(&owner, 5).allocate(0, MemoryType::Dram, 7, 5000).expect("new");
    let failure = |requested_bytes, free_bytes| AllocationFailure {
        device: 0,
        memory_type: MemoryType::Dram,
        requested_bytes,
        largest_free_block_bytes: 40,
        free_bytes,
        at_ns: 9,
    };
    for (requested, free) in [(100, 99), (100, 100), (100, 500)] {
        registry.batch(&owner, 9).fail(failure(requested, free)).expect("alive");
    }
    assert_eq!(registry.batch(&owner, 9).fail(failure(0, 1)), Err(Refusal::ZeroSize));
    assert_eq!(totals(&registry, 0, MemoryType::Dram), (5000, 1, 1, 0));
    let snapshot = registry.snapshot(NOW);
    let memory = &snapshot.devices[0].memory[0];
    assert_eq!((memory.failures, memory.largest_free_block_bytes), ([1, 2], Some(40)));
    let failed = hear(&registry).into_iter().filter(|heard| matches!(heard, Occurrence::Failed(..)));
    assert_eq!(failed.count(), 3);
}

#[test]
fn a_process_is_in_one_trace() {
    let registry = Registry::new(0);
    let context = |byte| TraceContext { trace_id: [byte; 16], parent_id: [byte; 8], flags: 1 };
    let (first, second) = (process(&registry, 1), process(&registry, 2));
    assert_eq!(registry.batch(&first, 1).join_trace(context(1)), Ok(()));
    assert_eq!(registry.batch(&first, 1).join_trace(context(1)), Ok(()), "said again, as by another thread");
    assert_eq!(registry.batch(&first, 1).join_trace(context(2)), Err(Refusal::OtherTrace));
    assert_eq!(first.settle_trace(), Some(context(1)));
    assert_eq!(second.settle_trace(), None);
    assert_eq!(registry.batch(&second, 1).join_trace(context(1)), Err(Refusal::OtherTrace), "spans exist");
}

#[test]
fn of_too_many_ended_processes_the_first_go() {
    assert_eq!(last_of_surplus(vec![], 2), None);
    assert_eq!(last_of_surplus(vec![30, 10], 2), None);
    assert_eq!(last_of_surplus(vec![30, 10, 20], 2), Some(10));
    assert_eq!(last_of_surplus(vec![30, 10, 20, 40], 1), Some(30));
    assert_eq!(last_of_surplus(vec![5, 7], 0), Some(7));
}
