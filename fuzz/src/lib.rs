//! The checks that the fuzz targets share with `cargo test`.

pub mod checks;
