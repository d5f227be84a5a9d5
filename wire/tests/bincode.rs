//! The 72-byte frame is bincode's fixed-integer little-endian encoding of the struct with its padding written out.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use ttmem_wire::{DeviceInfo, Header, Kind, Layout, Reply, Totals, decode_request, encode_request};

#[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
struct AllocMessage {
    kind: u8,
    padding_after_kind: [u8; 3],
    device_id: i32,
    size: u64,
    buffer_type: u8,
    padding_after_buffer_type: [u8; 3],
    process_id: i32,
    buffer_id: u64,
    timestamp: u64,
    dram_allocated: u64,
    l1_allocated: u64,
    l1_small_allocated: u64,
    trace_allocated: u64,
}

fn check(message: &AllocMessage, frame: &[u8]) {
    let config = bincode::config::standard().with_fixed_int_encoding();
    let mut encoded = [0; 72];
    let written = bincode::serde::encode_into_slice(message, &mut encoded, config);
    assert!(matches!(written, Ok(72)), "{written:?}");
    assert_eq!(encoded[..], *frame);
    let (decoded, read) = bincode::serde::decode_from_slice::<AllocMessage, _>(frame, config)
        .expect("bincode reads our frames");
    assert_eq!((&decoded, read), (message, 72));

    let mut by_the_older_default = [0; 72];
    let legacy = bincode::config::legacy();
    let written = bincode::serde::encode_into_slice(message, &mut by_the_older_default, legacy);
    assert!(matches!(written, Ok(72)), "{written:?}");
    assert_eq!(by_the_older_default, encoded);
}

proptest! {
    #[test]
    fn a_request_is_its_bincode(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        fields in any::<(i32, u64, u8, i32, u64, u64)>(),
    ) {
        let (device_id, size_bytes, buffer_type, process_id, buffer_id, timestamp_ns) = fields;
        let header =
            Header { kind, device_id, size_bytes, buffer_type, process_id, buffer_id, timestamp_ns };
        let message = AllocMessage {
            kind: kind as u8,
            device_id,
            size: size_bytes,
            buffer_type,
            process_id,
            buffer_id,
            timestamp: timestamp_ns,
            ..AllocMessage::default()
        };
        let frame = encode_request(&header, Layout::Bytes72);
        check(&message, &frame);
        prop_assert_eq!(decode_request(&frame, Layout::Bytes72), Ok(header));
    }

    #[test]
    fn a_reply_is_its_bincode(device_id: i32, totals: [u64; 4]) {
        let [dram_bytes, l1_bytes, l1_small_bytes, trace_bytes] = totals;
        let totals =
            Totals { dram_bytes, l1_bytes, l1_small_bytes, trace_bytes, ..Totals::default() };
        let reply = Reply { kind: Kind::Response, device_id, totals, info: DeviceInfo::default() };
        let message = AllocMessage {
            kind: Kind::Response as u8,
            device_id,
            dram_allocated: dram_bytes,
            l1_allocated: l1_bytes,
            l1_small_allocated: l1_small_bytes,
            trace_allocated: trace_bytes,
            ..AllocMessage::default()
        };
        let frame = reply.encode(Layout::Bytes72);
        check(&message, &frame);
        prop_assert_eq!(Reply::decode(&frame, Layout::Bytes72), Ok(reply));
    }
}
