//! What the registry's figures mean: which memory seems to leak, and what would still fit.
//!
//! Everything here is a function of what it is given, time included.

mod fits;
mod leaks;
mod track;

pub use fits::{Fit, Room, Verdict, fits};
pub use leaks::{Detector, Sighting};
