//! Pure functions from a snapshot to bytes: the METRICS table walked once, and one module for each format.

pub mod trace;

pub mod exposition;
mod series;

pub mod otlp;
pub mod protobuf;
pub mod text;

pub mod findings;
pub mod json;
