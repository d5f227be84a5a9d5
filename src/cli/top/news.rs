//! What the source tells the model, and what the model wants of it.

use super::details::Details;
use crate::views::findings::Leak;
use crate::views::json::history::Range;
use crate::views::json::{Buffers, Devices, Process};

/// What is so at a moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) devices: Devices,
    pub(super) processes: Vec<Process>,
    /// Where it comes from: a socket's path or a URL.
    pub(super) source: String,
    /// Why it may be old, if it may.
    pub(super) doubt: Option<String>,
}

/// Something new, or that there is nothing.
#[derive(Clone, Debug)]
pub(super) enum News {
    Picture(Box<Picture>),
    /// Why there is no picture.
    Lost(String),
    /// The buffers of a process, or why they are not known.
    Buffers {
        pid: u32,
        told: Result<Buffers, String>,
    },
    /// What the analysis suspects, or why that is not known.
    Leaks(Result<Vec<Leak>, String>),
    /// What pictures from the stats pages leave out.
    Details(Details),
    /// What was held before.
    Past(Range),
}

/// What the source should tell beside pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// The buffers of this process.
    pub(super) buffers_of: Option<u32>,
}
