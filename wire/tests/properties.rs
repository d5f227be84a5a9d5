//! What holds for all messages, all bytes and all splits of a stream.

use proptest::collection::vec;
use proptest::prelude::*;
use ttmem_wire::{
    Arch, Detection, DeviceInfo, FRAME_BYTES_MAX, Header, Kind, Layout, Reply, Totals, decode_request,
    detect, encode_request,
};

#[path = "../fuzz/src/checks.rs"]
pub mod checks;

fn layouts() -> impl Strategy<Value = Layout> {
    prop::sample::select(Layout::ALL.to_vec())
}

fn headers() -> impl Strategy<Value = Header> {
    let kinds = prop::sample::select(Kind::ALL.to_vec());
    let fields = any::<(i32, u64, u8, i32, u64, u64)>();
    (kinds, fields).prop_map(|(kind, fields)| {
        let (device_id, size_bytes, buffer_type, process_id, buffer_id, timestamp_ns) = fields;
        Header { kind, device_id, size_bytes, buffer_type, process_id, buffer_id, timestamp_ns }
    })
}

fn replies() -> impl Strategy<Value = Reply> {
    let kinds = prop::sample::select(vec![Kind::Response, Kind::DeviceInfoResponse]);
    let archs = prop::sample::select(Arch::ALL.to_vec());
    let rest = any::<(i32, [u64; 8], [u32; 4], bool)>();
    (kinds, archs, rest).prop_map(|(kind, arch, (device_id, large, small, is_available))| {
        let [dram_bytes, l1_bytes, l1_small_bytes, trace_bytes, cb_bytes, kernel_bytes, ..] = large;
        let [.., total_dram_bytes, total_l1_bytes] = large;
        let [num_dram_channels, dram_bytes_per_channel, l1_bytes_per_core, num_devices] = small;
        Reply {
            kind,
            device_id,
            totals: Totals { dram_bytes, l1_bytes, l1_small_bytes, trace_bytes, cb_bytes, kernel_bytes },
            info: DeviceInfo {
                total_dram_bytes,
                total_l1_bytes,
                arch,
                num_dram_channels,
                dram_bytes_per_channel,
                l1_bytes_per_core,
                is_available,
                num_devices,
            },
        }
    })
}

/// Bytes of which most are zero, as in real frames: otherwise nearly all of them fail in the first few.
fn sparse_bytes() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![20 => Just(0_u8), 2 => 1..=16_u8, 1 => any::<u8>()];
    vec(bytes, 0..400)
}

proptest! {
    #[test]
    fn a_request_comes_back(header in headers(), layout in layouts()) {
        let frame = encode_request(&header, layout);
        prop_assert_eq!(frame.len(), layout.frame_bytes());
        prop_assert_eq!(decode_request(&frame, layout), Ok(header));
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn a_reply_comes_back(reply in replies()) {
        let frame = reply.encode(Layout::Bytes144);
        prop_assert_eq!(Reply::decode(&frame, Layout::Bytes144), Ok(reply));
    }

    #[test]
    fn a_changed_byte_is_an_error_or_another_message(
        header in headers(),
        layout in layouts(),
        place in any::<prop::sample::Index>(),
        change in 1..=u8::MAX,
    ) {
        let mut bytes = encode_request(&header, layout).to_vec();
        let offset = place.index(bytes.len());
        bytes[offset] ^= change;
        match decode_request(&bytes, layout) {
            Ok(other) => prop_assert_ne!(other, header),
            Err(error) => prop_assert_eq!(error.offset(), offset),
        }
    }

    #[test]
    fn detection_is_right_after_every_byte(messages in vec(headers(), 2..6), layout in layouts()) {
        let frames = messages.iter().map(|header| encode_request(header, layout).to_vec());
        let stream = frames.collect::<Vec<_>>().concat();
        for length in 0..=stream.len() {
            let proven = length > layout.frame_bytes() || length == FRAME_BYTES_MAX;
            let expected = match Layout::from_frame_bytes(length) {
                _ if proven => Detection::Known(layout),
                Some(candidate) => Detection::Candidate(candidate),
                None => Detection::Incomplete,
            };
            prop_assert_eq!(detect(&stream[..length]), Ok(expected), "after {} bytes", length);
        }
    }

    #[test]
    fn the_fuzzers_checks_hold_for_random_bytes(dense in vec(any::<u8>(), 0..200), sparse in sparse_bytes()) {
        for bytes in [dense, sparse] {
            checks::frame(&bytes);
            checks::stream(&bytes);
        }
    }

    #[test]
    fn the_fuzzers_checks_hold_for_damaged_streams(
        messages in vec(headers(), 1..6),
        layout in layouts(),
        read_sizes: [u8; 8],
        place in any::<prop::sample::Index>(),
        change: u8,
    ) {
        let mut data = read_sizes.to_vec();
        for header in &messages {
            data.extend_from_slice(&encode_request(header, layout));
        }
        let damaged = 8 + place.index(data.len() - 8);
        data[damaged] ^= change;
        checks::stream(&data);
    }
}
