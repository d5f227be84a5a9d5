//! The offsets are those of the C structs that clients are compiled with. The compiler checks them; there is nothing to run but
//! one comparison of bytes.

#![allow(dead_code, reason = "most fields are only there for their places, which the compiler checks")]

use std::mem::{offset_of, size_of};

use ttmem_wire::{Arch, DeviceInfo, HEADER_BYTES, Header, Kind, Layout, REPLY_PREFIX_BYTES, Reply, Totals};

#[repr(C)]
struct CHeader {
    kind: u8,
    device_id: i32,
    size: u64,
    buffer_type: u8,
    process_id: i32,
    buffer_id: u64,
    timestamp: u64,
}

#[repr(C)]
struct CTotals {
    dram: u64,
    l1: u64,
    l1_small: u64,
    trace: u64,
}

#[repr(C)]
struct CInfo {
    total_dram: u64,
    total_l1: u64,
    arch_type: u32,
    num_dram_channels: u32,
    dram_per_channel: u32,
    l1_per_core: u32,
    is_available: u32,
    num_devices: u32,
}

#[repr(C)]
struct C72 {
    header: CHeader,
    totals: CTotals,
}

#[repr(C)]
struct C112 {
    header: CHeader,
    totals: CTotals,
    info: CInfo,
}

#[repr(C)]
struct C144 {
    header: CHeader,
    totals: CTotals,
    cb: u64,
    kernel: u64,
    info: CInfo,
    ring_buffer: [u32; 4],
}

const _: () = {
    assert!(size_of::<CHeader>() == HEADER_BYTES);
    assert!(offset_of!(CHeader, device_id) == 4);
    assert!(offset_of!(CHeader, size) == 8);
    assert!(offset_of!(CHeader, buffer_type) == 16);
    assert!(offset_of!(CHeader, process_id) == 20);
    assert!(offset_of!(CHeader, buffer_id) == 24);
    assert!(offset_of!(CHeader, timestamp) == 32);
    assert!(offset_of!(C72, totals) == HEADER_BYTES);
    assert!(offset_of!(C112, info) == REPLY_PREFIX_BYTES);
    assert!(offset_of!(C144, cb) == REPLY_PREFIX_BYTES);
    assert!(offset_of!(C144, info) == 88);
    assert!(offset_of!(C144, ring_buffer) == 128);
    assert!(size_of::<C72>() == Layout::Bytes72.frame_bytes());
    assert!(size_of::<C112>() == Layout::Bytes112.frame_bytes());
    assert!(size_of::<C144>() == Layout::Bytes144.frame_bytes());
};

/// Checks that the only field of the body that is not zero begins at `offset`.
fn check(reply: Reply, layout: Layout, offset: usize) {
    let frame = reply.encode(layout);
    let type_alone = Header::request(reply.kind).encode();
    assert_eq!(frame[..HEADER_BYTES], type_alone);
    let first = frame[HEADER_BYTES..].iter().position(|&byte| byte != 0);
    assert_eq!(first, Some(offset - HEADER_BYTES), "{reply:?} in {layout}");
}

#[test]
fn replies_have_their_fields_where_c_has_them() {
    let empty = Reply {
        kind: Kind::DeviceInfoResponse,
        device_id: 0,
        totals: Totals::default(),
        info: DeviceInfo::default(),
    };
    let totals = |totals| Reply { totals, ..empty };
    let trace = totals(Totals { trace_bytes: 1, ..empty.totals });
    for layout in Layout::ALL {
        check(trace, layout, HEADER_BYTES + offset_of!(CTotals, trace));
    }
    let kernel = totals(Totals { kernel_bytes: 1, ..empty.totals });
    check(kernel, Layout::Bytes144, offset_of!(C144, kernel));

    let info = |info| Reply { info, ..empty };
    for (reply, offset) in [
        (info(DeviceInfo { total_dram_bytes: 1, ..empty.info }), offset_of!(CInfo, total_dram)),
        (info(DeviceInfo { arch: Arch::Blackhole, ..empty.info }), offset_of!(CInfo, arch_type)),
        (info(DeviceInfo { is_available: true, ..empty.info }), offset_of!(CInfo, is_available)),
        (info(DeviceInfo { num_devices: 1, ..empty.info }), offset_of!(CInfo, num_devices)),
    ] {
        check(reply, Layout::Bytes112, offset_of!(C112, info) + offset);
        check(reply, Layout::Bytes144, offset_of!(C144, info) + offset);
    }
}
