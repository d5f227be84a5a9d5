//! What must hold for any bytes whatever. The fuzzers call these with bytes of their choice, `cargo test` with those that they have found.

mod configuration;
mod files;
mod http;
mod journal;
mod ledger;
mod views;

#[allow(dead_code, unreachable_pub, reason = "other tests ask it for more")]
#[path = "../../../tests/support/exposition.rs"]
mod exposition;

pub use configuration::{config_file, web_config};
pub use files::{process_files, region};
pub use http::http;
pub use journal::journal;
pub use ledger::ledger;
pub use views::views;
