//! Exemplars: for each bucket of a distribution, the last buffer in it whose span a collector has.
//!
//! The idea is one immutable map that is replaced as a whole: a scrape takes it with its snapshot, and only what has been exported is
//! ever put into it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MemoryType, Scale};

/// A buffer, and the span that tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exemplar {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// The span's id.
    pub span_id: [u8; 8],
    /// The buffer's size.
    pub size_bytes: u64,
    /// How long it lived.
    pub lifetime_ns: u64,
    /// When it was released, in nanoseconds since the epoch.
    pub at_unix_ns: u64,
}

/// The exemplars of one place, by the exponent of their bucket.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct PlaceExemplars {
    sizes: BTreeMap<i32, Exemplar>,
    lifetimes: BTreeMap<i32, Exemplar>,
    last: Option<Exemplar>,
}

/// All exemplars.
#[derive(Clone, Default, Debug)]
pub struct Exemplars(BTreeMap<(u16, MemoryType), Arc<PlaceExemplars>>);

impl Exemplars {
    pub(super) fn add(&mut self, device: u16, memory_type: MemoryType, exemplar: Exemplar) {
        let place = Arc::make_mut(self.0.entry((device, memory_type)).or_default());
        place.sizes.insert(Scale::Bytes.exponent_of(exemplar.size_bytes), exemplar);
        place.lifetimes.insert(Scale::Seconds.exponent_of(exemplar.lifetime_ns), exemplar);
        place.last = Some(exemplar);
    }

    /// Those of one device and memory type.
    pub fn of(&self, device: u16, memory_type: MemoryType) -> Option<&PlaceExemplars> {
        self.0.get(&(device, memory_type)).map(|place| &**place)
    }
}

impl PlaceExemplars {
    /// The last buffer of all.
    pub fn last(&self) -> Option<&Exemplar> {
        self.last.as_ref()
    }

    /// The last buffer in each bucket of a distribution of that scale.
    pub fn buckets(&self, scale: Scale) -> &BTreeMap<i32, Exemplar> {
        match scale {
            Scale::Bytes => &self.sizes,
            Scale::Seconds => &self.lifetimes,
        }
    }
}

impl Exemplar {
    /// Its value in a distribution of that scale, in bytes or seconds.
    pub fn value(&self, scale: Scale) -> f64 {
        match scale {
            Scale::Bytes => self.size_bytes as f64,
            Scale::Seconds => self.lifetime_ns as f64 / 1e9,
        }
    }
}
