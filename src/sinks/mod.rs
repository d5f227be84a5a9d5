//! What hands views to whoever asks: one module for each way out.

pub mod sampler;

pub mod pressure;

pub mod analyst;
pub mod history;
pub mod http;
pub mod otlp;
pub mod state;
pub mod traces;

pub mod query;
mod token_bucket;
