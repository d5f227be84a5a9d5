//! PROTOCOL.md names every message, bound and reason as the code does.

use ttmem_wire::ring::{RING_RECORDS_MAX, RING_RECORDS_MIN, RINGS_MAX};
use ttmem_wire::stats::{Figure, PAGE_HEADER_BYTES, PageKind};
use ttmem_wire::{
    BUFFER_BYTES_MAX, DEFAULT_SOCKET_PATH, DESCRIPTORS_MAX, DETECTION_SILENCE_MILLISECONDS,
    DEVICE_COUNT_QUERY, DEVICE_ID_MAX, DescriptorKind, Features, FrameError, Geometry, HEADER_BYTES,
    HELLO_VERSION, Hello, Kind, RECORD_BYTES, REPLY_PREFIX_BYTES,
};

fn check(what: &str) {
    let document = include_str!("../PROTOCOL.md");
    assert!(document.contains(what), "PROTOCOL.md does not say: {what}");
}

#[test]
fn every_message_has_its_row() {
    for kind in Kind::ALL {
        let name = kind.name().to_uppercase();
        let sender = if kind.is_request() { "client" } else { "server" };
        check(&format!("| {} | {name} | {sender} |", kind as u8));
    }
}

#[test]
fn the_bounds_are_the_ones_in_force() {
    check(DEFAULT_SOCKET_PATH);
    check(&format!("a device_id outside 0 to {DEVICE_ID_MAX};"));
    check(&format!("{DEVICE_COUNT_QUERY} asks for the number"));
    check("2^40 (1,099,511,627,776)");
    assert_eq!(BUFFER_BYTES_MAX, 1_099_511_627_776);
    check(&format!("{DETECTION_SILENCE_MILLISECONDS} ms of silence"));
    check(&format!("The first {REPLY_PREFIX_BYTES} bytes of a reply"));
}

#[test]
fn every_reason_for_a_closed_connection_has_its_row() {
    for error in [
        FrameError::UnknownType { byte: 0, offset: 0 },
        FrameError::Padding { offset: 1 },
        FrameError::Tail { offset: 40 },
    ] {
        check(&format!("| {} |", error.reason()));
    }
}

#[test]
fn the_tables_of_the_stats_pages_are_the_layout() {
    // The rows of a section's tables: offset, size, field.
    let rows = |section: &str| -> Vec<(usize, usize, &str)> {
        let document = include_str!("../PROTOCOL.md");
        let (_, text) = document.split_once(section).unwrap_or_else(|| panic!("no section {section}"));
        let text = text.split("\n##").next().unwrap_or_default();
        let cells = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let row = |cells: Vec<&'static str>| {
            Some((cells.get(1)?.parse().ok()?, cells.get(2)?.parse().ok()?, *cells.get(4)?))
        };
        cells.filter_map(row).collect()
    };
    let check = |section: &str, bytes: usize| {
        let rows = rows(section);
        let end = rows.iter().fold(0, |at, (offset, size, field)| {
            assert_eq!(*offset, at, "{section}: {field}");
            offset + size
        });
        assert_eq!(end, bytes, "{section}");
        rows
    };
    check(".1 The header, in every page", PAGE_HEADER_BYTES);
    let row_bytes = |kind: PageKind| kind.page_bytes(2) - kind.page_bytes(1);
    check(".3 Devices", row_bytes(PageKind::Devices));
    let holder = check(".4 Processes", row_bytes(PageKind::Processes));
    let figures: Vec<_> =
        holder.iter().filter(|(offset, ..)| (40..144).contains(offset)).map(|row| row.2).collect();
    assert_eq!(figures, Figure::ALL.map(Figure::name));
}

#[test]
fn the_rings_are_laid_out_as_it_says() {
    let geometry = |rings, records| Geometry::new(rings, records).expect("in bounds");
    assert_eq!(geometry(3, 64).bytes(), 256 + 3 * (256 + 48 * 64));
    check("ring i begins at 256 + i * (256 + 48 * records)");
    check(&format!(
        "A record is the {HEADER_BYTES} bytes of section 2.1 and, at offset {HEADER_BYTES}, its order"
    ));
    assert_eq!(RECORD_BYTES, HEADER_BYTES + 8);
    check(&format!("1 to {RINGS_MAX}, and a power of two from {RING_RECORDS_MIN} to {RING_RECORDS_MAX}"));
    check(&format!("at most {DESCRIPTORS_MAX}"));
    for (kind, what) in [
        (DescriptorKind::Rings, "memory of the rings"),
        (DescriptorKind::RingsWake, "eventfd that wakes the rings' reader"),
        (DescriptorKind::DevicePage, "stats page of devices"),
        (DescriptorKind::ProcessPage, "stats page of processes"),
    ] {
        check(&format!("{} {what}", kind as u32));
    }
    for (hello, name) in [
        (Hello::Ask { features: Features::RINGS, rings: 1, records: 8, client: 0 }, "ASK"),
        (Hello::Switch, "SWITCH"),
        (Hello::Renew { number: 1, client: 2 }, "RENEW"),
        (Hello::Identify { client: 1 }, "IDENTIFY"),
    ] {
        check(&format!("| {} | {name} |", hello.header().buffer_type));
        assert_eq!(hello.header().device_id, HELLO_VERSION);
    }
    assert_eq!((Features::RINGS.0, Features::STATS_PAGE.0), (1 << 0, 1 << 1));
    check("Feature bits: 0 rings, 1 the stats pages");
}
