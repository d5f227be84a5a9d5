//! Reads the rings into the list of what is held, and into frames where the server does not read them itself.

use std::sync::Arc;

use ttmem_wire::ring::{self, Consumer};
use ttmem_wire::{Header, Layout, encode_request};

use crate::holdings::Holdings;
use crate::lanes::Lanes;

/// Records in one turn, so that frames are sent while more come.
pub(crate) const TURN_RECORDS: u64 = 4096;
/// Frames that may wait for the socket: more than a kernel's buffer, so that it never runs dry; beyond that the rings have to hold.
const OUT_BYTES_MAX: usize = 1 << 20;
/// So many of these bytes are of what was held before, while that is told: the rest is for what is reported meanwhile.
const REPLAY_BYTES: usize = OUT_BYTES_MAX / 4;

/// The list, and where it stands in the rings.
pub(crate) struct Books {
    pub(crate) holdings: Holdings,
    lanes: Arc<Lanes>,
    consumers: Vec<Consumer>,
    /// Bytes for the socket, while there is a connection that wants them.
    pub(crate) out: Option<Vec<u8>>,
    /// Reports that did not fit into a ring of our own, and of which the server has not heard.
    pub(crate) lost: u64,
}

impl Books {
    pub(crate) fn new(lanes: Arc<Lanes>) -> Books {
        let consumers = consumers(&lanes);
        Books { holdings: Holdings::default(), lanes, consumers, out: None, lost: 0 }
    }

    /// Reads one turn, and gives how many records there were.
    pub(crate) fn turn(&mut self) -> u64 {
        if self.is_full() {
            return 0;
        }
        let Books { holdings, lanes, consumers, out, .. } = self;
        // What the server reads itself needs no frame.
        let mut out = out.as_mut().filter(|_| !lanes.is_servers());
        let drained = ring::drain(lanes.words(), consumers, TURN_RECORDS, |record| {
            enter(record, holdings, out.as_deref_mut());
        });
        self.account(drained)
    }

    /// Reads everything that is there now; false if the socket has to take something first.
    pub(crate) fn catch_up(&mut self) -> bool {
        while !self.is_full() {
            if self.turn() < TURN_RECORDS {
                return true;
            }
        }
        false
    }

    /// Whether no more frames are made until the socket has taken some.
    fn is_full(&self) -> bool {
        !self.lanes.is_servers() && self.out.as_ref().is_some_and(|out| out.len() >= OUT_BYTES_MAX)
    }

    /// Goes over to other rings. No thread writes into the old ones any more; they are read to their end.
    pub(crate) fn move_to(&mut self, lanes: Arc<Lanes>) {
        let Books { holdings, lanes: old, consumers: old_consumers, out, .. } = self;
        let mut out = out.as_mut().filter(|_| !old.is_servers());
        let drained = ring::drain_all(old.words(), old_consumers, |record| {
            enter(record, holdings, out.as_deref_mut());
        });
        self.account(drained);
        self.consumers = consumers(&lanes);
        self.lanes = lanes;
    }

    /// Whether the reader of these rings may sleep until it is woken.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.lanes.is_servers()
            || ring::prepare_sleep(self.lanes.words(), &mut self.consumers).unwrap_or(true)
    }

    /// The reader is awake again.
    pub(crate) fn wake(&self) {
        if !self.lanes.is_servers() {
            ring::wake(self.lanes.words());
        }
    }

    /// Adds a frame to what is to be sent.
    pub(crate) fn send(&mut self, header: &Header) {
        if let Some(out) = &mut self.out {
            add(out, header);
        }
    }

    /// Begins to tell the server everything that is held.
    pub(crate) fn replay(&mut self) {
        let Books { holdings, out: Some(out), .. } = self else { return };
        holdings.begin_replay().for_each(|header| add(out, &header));
        self.replay_more();
    }

    /// Tells more of it, where the socket has taken what was told.
    pub(crate) fn replay_more(&mut self) {
        let Books { holdings, out: Some(out), .. } = self else { return };
        while out.len() < REPLAY_BYTES
            && let Some(buffer) = holdings.replay_next()
        {
            buffer.for_each(|header| add(out, &header));
        }
    }

    /// Whether all that was held or has been reported has been taken by the socket.
    pub(crate) fn is_told(&self) -> bool {
        !self.holdings.is_replaying() && self.out.as_ref().is_none_or(Vec::is_empty)
    }

    /// Nobody is there any more to send to.
    pub(crate) fn fall_silent(&mut self) {
        self.out = None;
        self.holdings.end_replay();
    }

    /// A ring that makes no sense can only be one that the server has written over: it is left as it is.
    fn account(&mut self, drained: Result<ring::Drained, ring::RingError>) -> u64 {
        let drained = drained.unwrap_or_default();
        for (consumer, ring) in self.consumers.iter().zip(0..) {
            self.lanes.set_observed(ring, consumer.head());
        }
        // The server reads its own rings' losses itself.
        if !self.lanes.is_servers() {
            self.lost += drained.lost;
        }
        drained.records
    }
}

fn enter(record: &ttmem_wire::Record, holdings: &mut Holdings, out: Option<&mut Vec<u8>>) {
    // It was written by this library.
    let Ok(header) = record.header() else { return };
    if let Some(out) = out.filter(|_| !holdings.withholds(&header)) {
        add(out, &header);
    }
    holdings.apply(&header);
}

fn add(out: &mut Vec<u8>, header: &Header) {
    out.extend_from_slice(&encode_request(header, Layout::Bytes144));
}

fn consumers(lanes: &Lanes) -> Vec<Consumer> {
    let geometry = lanes.geometry();
    let new = if lanes.is_servers() { Consumer::observer } else { Consumer::new };
    (0..geometry.rings()).map(|ring| new(geometry, ring)).collect()
}
