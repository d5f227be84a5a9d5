//! The fuzzers' seeds, run through the same checks on every `cargo test`.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/checks.rs"]
pub mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut replayed = 0;
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        check(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        replayed += 1;
    }
    assert!(replayed > 0, "{} has no seeds", folder.display());
}

#[test]
fn the_seeds_of_frame_pass() {
    replay("frame", checks::frame);
}

#[test]
fn the_seeds_of_stream_pass() {
    replay("stream", checks::stream);
}

#[test]
fn the_seeds_of_ring_pass() {
    replay("ring", checks::ring);
}
