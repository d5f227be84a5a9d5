//! The library that `ttmem run` loads into programs.

use std::path::{Path, PathBuf};

/// The library, as `cargo build --profile preload --package ttmem-preload` leaves it.
pub fn library() -> PathBuf {
    let library =
        Path::new(env!("CARGO_BIN_EXE_ttmem")).parent().unwrap().join("../preload/libttmem_preload.so");
    assert!(library.exists(), "{} is missing: tests/run builds it", library.display());
    library.canonicalize().unwrap()
}
