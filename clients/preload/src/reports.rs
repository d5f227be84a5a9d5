//! prototype
use crate::metal::BufferType;
use std::io::Write;
fn line(text: String) {
    if let Some(path) = std::env::var_os("PROTO_OUT") {
        let mut f = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        let _ = f.write_all(text.as_bytes());
    }
}
pub(crate) fn allocated(device: i32, buffer_type: BufferType, id: u64, bytes: u64) {
    line(format!("alloc dev={device} type={buffer_type} id={id} bytes={bytes}\n"))
}
pub(crate) fn freed(device: i32, id: u64) {
    line(format!("free dev={device} id={id}\n"))
}
pub(crate) fn circular_allocated(device: i32, bytes: u64) {
    line(format!("cb dev={device} bytes={bytes}\n"))
}
pub(crate) fn circular_freed(device: i32, bytes: u64) {
    line(format!("cbfree dev={device} bytes={bytes}\n"))
}
pub(crate) fn failed(device: i32, t: BufferType, requested: u64, free: u64, largest: u64) {
    line(format!("fail dev={device} type={t} requested={requested} free={free} largest={largest}\n"))
}
pub(crate) fn capacity(device: i32, t: BufferType, bytes: u64) {
    line(format!("capacity dev={device} type={t} bytes={bytes}\n"))
}
