//! Pages that are written and read, and pages that nobody honest has written.

use std::sync::atomic::AtomicBool;
use std::vec::Vec;

use super::sequence::{write_alone, write_among_others};
use super::*;
use crate::{Arch, Totals};

const ROWS: usize = 3;

fn words(bytes: usize) -> Vec<AtomicU64> {
    (0..bytes / 8).map(|_| AtomicU64::new(0)).collect()
}

fn page(kind: PageKind) -> Vec<AtomicU64> {
    let words = words(kind.page_bytes(ROWS));
    PageWriter::initialise(&words, kind, ROWS);
    words
}

fn description() -> DeviceDescription {
    DeviceDescription {
        arch: Arch::Blackhole,
        board: Text::new("p150b"),
        limit_bytes: [34_087_108_608, 0, 0, 0, 0, 0, 0],
        untracked: Some(2),
    }
}

fn holder_of(pid: u32) -> HolderDescription {
    HolderDescription {
        pid,
        start_ticks: 77,
        start_unix_ns: 1_764_547_200_000_000_000,
        uid: 1000,
        device: 2,
        memory_type: 1,
        name: Text::new("llama-serving"),
        user: Text::new("ml"),
    }
}

#[test]
fn a_device_is_read_as_it_was_written() {
    let words = page(PageKind::Devices);
    let writer = PageWriter::of(&words, PageKind::Devices);
    let page = DevicePage::open(&words).expect("a page");
    assert_eq!((page.devices_end(), page.totals(1)), (0, Ok(None)));
    let row = writer.row(1);
    description().write(row);
    writer.set_rows_used(2);
    for memory_type in 0..MEMORY_TYPES {
        let figures = MemoryFigures::of(row, memory_type);
        write_among_others(figures.sequence, || {
            figures.usage_bytes.store(10 + memory_type as u64, Relaxed);
            figures.peak_bytes.store(20 + memory_type as u64, Relaxed);
        });
    }
    let totals = Totals {
        dram_bytes: 10,
        l1_bytes: 11,
        l1_small_bytes: 12,
        trace_bytes: 13,
        cb_bytes: 14,
        kernel_bytes: 15,
    };
    assert_eq!((page.devices_end(), page.totals(0), page.totals(1)), (2, Ok(None), Ok(Some(totals))));
    let figures = DeviceFigures {
        description: description(),
        usage_bytes: [10, 11, 12, 13, 14, 15, 16],
        peak_bytes: [20, 21, 22, 23, 24, 25, 26],
    };
    assert_eq!(page.device(1), Ok(Some(figures)));
    assert_eq!((page.device(ROWS as u16), page.totals(u16::MAX)), (Ok(None), Ok(None)));
}

#[test]
fn a_row_that_is_used_again_has_nothing_of_its_last_holder() {
    let words = page(PageKind::Processes);
    let writer = PageWriter::of(&words, PageKind::Processes);
    let page = ProcessPage::open(&words).expect("a page");
    let row = writer.row(2);
    describe(row, &holder_of(4711));
    publish(row, [100, 0, 1, 0, 200]);
    assert_eq!(page.holders().count(), 0, "it is not among those in use");
    writer.set_rows_used(3);
    let [Ok(holder)] = page.holders().collect::<Vec<_>>()[..] else { panic!("one holder") };
    assert_eq!((holder.description, holder.has_ended), (holder_of(4711), false));
    assert_eq!((holder.usage_bytes(), holder.figure(Figure::PeakBytes)), (100, 200));
    assert_eq!(try_figures(row), Some([100, 0, 1, 0, 200, 0]));
    set_state(row, HolderState::Ended);
    assert!(page.holders().all(|holder| holder.is_ok_and(|holder| holder.has_ended)));
    set_state(row, HolderState::Vacant);
    assert_eq!(page.holders().count(), 0);
    describe(row, &holder_of(12));
    let [Ok(holder)] = page.holders().collect::<Vec<_>>()[..] else { panic!("one holder") };
    assert_eq!((holder.description.pid, holder.usage_bytes(), holder.figure(Figure::PeakBytes)), (12, 0, 0));
    writer.set_rows_missing(5);
    assert_eq!(page.missing(), 5);
}

#[test]
fn reports_win_over_the_region() {
    let words = page(PageKind::Processes);
    let writer = PageWriter::of(&words, PageKind::Processes);
    describe(writer.row(0), &holder_of(1));
    writer.set_rows_used(1);
    let page = ProcessPage::open(&words).expect("a page");
    let usage = || page.holders().map(|holder| holder.map(|holder| holder.usage_bytes())).collect::<Vec<_>>();
    publish(writer.row(0), [0, 7, 0, 1]);
    assert_eq!(usage(), [Ok(7)]);
    publish(writer.row(0), [9, 7, 1, 1]);
    assert_eq!(usage(), [Ok(9)]);
}

#[test]
fn a_header_that_cannot_be_is_refused() {
    #[track_caller]
    fn check(word: usize, value: u64, expected: PageError) {
        let words = page(PageKind::Devices);
        words[word].store(value, Relaxed);
        assert_eq!(DevicePage::open(&words).err(), Some(expected));
    }
    let rows = |bytes: u32| joined(PAGE_HEADER_BYTES as u32, bytes);
    check(MAGIC, PAGE_MAGIC + 1, PageError::NotAPage);
    check(VERSION_AND_KIND, joined(2, 1), PageError::Version(2));
    check(VERSION_AND_KIND, joined(1, 2), PageError::Kind(2));
    check(ROWS_MAX, ROWS as u64 + 1, PageError::Sizes);
    check(ROWS_MAX, u64::MAX, PageError::Sizes);
    check(SIZES, rows(0), PageError::Sizes);
    check(SIZES, rows(257), PageError::Sizes);
    check(SIZES, rows(!7), PageError::Sizes);
    check(SIZES, joined(8, 256), PageError::Sizes);
    check(SIZES, joined(!7, 256), PageError::Sizes);
    assert_eq!(DevicePage::open(&[]).err(), Some(PageError::NotAPage));
    assert_eq!(DevicePage::open(&page(PageKind::Devices)[..20]).err(), Some(PageError::Sizes));
}

#[test]
fn a_later_page_with_longer_rows_is_read() {
    let words = words(PAGE_HEADER_BYTES + 2 * (256 + 64));
    for (place, value) in words.iter().zip([PAGE_MAGIC, joined(1, 1), joined(64, 320), 2, 9]) {
        place.store(value, Relaxed);
    }
    let second = words[8 + 40..].first_chunk().expect("the second row");
    description().write(second);
    let page = DevicePage::open(&words).expect("a page");
    assert_eq!(page.devices_end(), 2, "no more than there is room for");
    assert_eq!(page.device(1).map(|device| device.map(|device| device.description)), Ok(Some(description())));
}

#[test]
fn whatever_a_page_says_a_reader_comes_back() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    for _ in 0..200 {
        let words = page(PageKind::Processes);
        for word in &words[ROWS_USED..] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.store(state, Relaxed);
        }
        let page = ProcessPage::open(&words).expect("the header is left");
        for holder in page.holders().flatten() {
            holder.description.name.with(|name| assert!(name.len() <= 64));
            holder.description.user.with(|user| assert!(user.len() <= 24));
        }
    }
}

#[test]
fn a_row_whose_writer_was_killed_inside_is_given_up() {
    let words = page(PageKind::Devices);
    let row: &DeviceRow = PageWriter::of(&words, PageKind::Devices).row(0);
    description().write(row);
    row[0].fetch_add(1, Relaxed);
    let page = DevicePage::open(&words).expect("a page");
    assert_eq!((page.totals(0), page.device(0)), (Err(Busy), Err(Busy)));
}

#[test]
fn text_is_cut_between_characters() {
    let check = |text: &str, expected: &str| Text::<1>::new(text).with(|text| assert_eq!(text, expected));
    check("", "");
    check("12345678", "12345678");
    check("123456789", "12345678");
    check("1234567é", "1234567");
    Text::<1>::of([0xff61], 2).with(|text| assert_eq!(text, "a"));
    Text::<1>::of([0x61], 200).with(|text| assert_eq!(text, "a\0\0\0\0\0\0\0"));
}

#[test]
fn several_writers_and_a_reader_agree() {
    const WRITERS: u64 = 3;
    const CHANGES: u64 = 20_000;
    let words = page(PageKind::Devices);
    let row: &DeviceRow = PageWriter::of(&words, PageKind::Devices).row(0);
    description().write(row);
    let page = DevicePage::open(&words).expect("a page");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..CHANGES {
                        write_among_others(&row[0], || {
                            for memory_type in 0..MEMORY_TYPES {
                                MemoryFigures::of(row, memory_type).usage_bytes.fetch_add(1, Relaxed);
                            }
                        });
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Acquire) {
                // Under load a row may stay busy; what is read is never torn.
                if let Ok(Some(Totals { dram_bytes, kernel_bytes, .. })) = page.totals(0) {
                    assert_eq!(dram_bytes, kernel_bytes);
                }
            }
        });
        for writer in writers {
            writer.join().expect("a writer");
        }
        done.store(true, Release);
    });
    assert_eq!(
        page.totals(0).map(|totals| totals.map(|totals| totals.dram_bytes)),
        Ok(Some(WRITERS * CHANGES))
    );
}

#[test]
fn one_writer_and_a_reader_agree() {
    let [sequence, low, high] = [const { AtomicU64::new(0) }; 3];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 0..20_000 {
                write_alone(&sequence, || {
                    low.store(value, Relaxed);
                    high.store(value, Relaxed);
                });
            }
            done.store(true, Release);
        });
        while !done.load(Acquire) {
            if let Some((low, high)) =
                sequence::try_read(&sequence, || (low.load(Relaxed), high.load(Relaxed)))
            {
                assert_eq!(low, high);
            }
        }
    });
}
