//! What the journal holds beside the bytes that came in: everything that does not follow from them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ttmem_wire::HEADER_BYTES;

use super::procfs::ProcessFacts;
use super::ring::RingsImage;
use crate::registry::{Event, Identity, Loss, MemoryType, Rejection, SlurmJob, Source};

/// More than any note has; a turn's records of rings are the largest. Something else that has been written there may say of itself that it is
/// larger than all memory, and that is not to be tried.
const NOTE_BYTES_MAX: usize = 16 << 20;

/// One thing that happened.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) enum Note {
    /// A connection was taken: this is its peer, as the kernel and /proc described it then.
    Opened { peer_pid: u32, peer_uid: u32, facts: ProcessFacts },
    /// Nothing came for a while, so the first frame was taken for whole.
    Silent,
    /// What had been received was applied now, behind the rings.
    Resumed,
    /// The client is going to be given rings.
    GaveRings(RingsImage),
    /// Its question for more than frames has been answered.
    Answered,
    /// Records were taken from the rings, up to there.
    Records { lost: u64, records: Vec<Packed>, rings: RingsImage },
    /// A pid that messages claim was found to be this process; from the entry of that order on.
    Claimed { since: u64, pid: u32, identity: Identity, is_rejected: bool },
    /// A connection was closed.
    Closed { is_finished: bool },
    /// A process was heard of.
    Born(Birth),
    /// A process was seen to end, and what it held was reclaimed.
    Ended { identity: Identity },
    /// A region's figure for a process is now this.
    Region { identity: Identity, device: u16, memory_type: u8, bytes: Option<u64> },
    /// A container's names were found, or that it has none.
    Named { id: String, names: Option<(String, String, String)> },
    /// Something was counted that no message says.
    Counted(Counted),
}

/// A record of a ring.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Packed(pub(super) [u8; HEADER_BYTES]);

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (words, _) = self.0.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        <[u64; HEADER_BYTES / 8]>::serialize(&std::array::from_fn(|_| words.next().unwrap_or(0)), serializer)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Packed, D::Error> {
        let words = <[u64; HEADER_BYTES / 8]>::deserialize(deserializer)?;
        let mut packed = [0; HEADER_BYTES];
        for (place, word) in packed.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Ok(Packed(packed))
    }
}

/// What is counted beside messages.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Debug)]
pub(super) enum Counted {
    HiddenPeer,
    Connection,
    ClientsMax,
    RegionUpdate,
    Region,
    RegionSize,
    UserProcessesMax,
}

/// All that is remembered of a process from when it was first heard of.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub(super) struct Birth {
    pub(super) identity: Identity,
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) user: String,
    pub(super) cgroup: Option<String>,
    /// The id, the pod's, and whether it is settled that nobody knows names for it.
    pub(super) container: Option<(String, Option<String>, bool)>,
    pub(super) ns_pid: Option<u32>,
    pub(super) slurm: Option<SlurmJob>,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) source: Source,
    pub(super) seen_ns: u64,
}

impl Counted {
    /// Counts it.
    pub(super) fn count(self, events: &crate::registry::EventCounters) {
        match self {
            Counted::HiddenPeer => events.reject(Rejection::HiddenPeer),
            Counted::Connection => events.lose(Loss::Connection),
            Counted::ClientsMax => events.reject(Rejection::ClientsMax),
            Counted::RegionUpdate => events.count(Event::RegionUpdate, 1),
            Counted::Region => events.reject(Rejection::Region),
            Counted::RegionSize => events.reject(Rejection::SizeTooLarge),
            Counted::UserProcessesMax => events.reject(Rejection::UserProcessesMax),
        }
    }
}

impl Note {
    /// As it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Into memory and of plain values: there is nothing that could fail.
        bincode::serde::encode_to_vec(self, bincode::config::standard()).unwrap_or_default()
    }

    /// What was stored; `None` for what another version has written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Note> {
        let bounded = bincode::config::standard().with_limit::<NOTE_BYTES_MAX>();
        let (note, used) = bincode::serde::decode_from_slice(bytes, bounded).ok()?;
        (used == bytes.len()).then_some(note)
    }
}

/// The memory type that a note names.
pub(super) fn memory_type(number: u8) -> Option<MemoryType> {
    MemoryType::ALL.get(usize::from(number)).copied()
}
