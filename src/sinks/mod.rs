//! What hands views to whoever asks: one module for each way out.

pub mod analyst;
pub mod http;
pub mod otlp;
pub mod state;
pub mod traces;

mod token_bucket;
