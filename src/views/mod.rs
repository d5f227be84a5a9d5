//! Pure functions from a snapshot to bytes: one module for each format.

pub mod json;
pub mod prometheus;
