//! PROTOCOL.md names every message, bound and reason as the code does.

use ttmem_wire::{
    BUFFER_BYTES_MAX, DEFAULT_SOCKET_PATH, DETECTION_SILENCE_MILLISECONDS, DEVICE_COUNT_QUERY, DEVICE_ID_MAX,
    FrameError, Kind, REPLY_PREFIX_BYTES,
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
