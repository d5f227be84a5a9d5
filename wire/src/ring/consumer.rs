//! The reader's end of all rings of one process: what the writers left, in the order in which it happened.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::geometry::{Geometry, Place, asleep};
use super::{RECORD_WORDS, Record, Word};

/// What the writer of a ring has done wrong: the ring cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingError {
    /// The ring.
    pub ring: u32,
    /// Where its writer claims to be.
    pub tail: u64,
    /// Where its reader is.
    pub head: u64,
}

impl fmt::Display for RingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RingError { ring, tail, head } = self;
        write!(
            formatter,
            "ring {ring} has its tail at {tail} and its head at {head}, which is more than it holds or less than it held: write only \
             the tail, let it only grow, and wait for room"
        )
    }
}

impl core::error::Error for RingError {}

/// What a turn came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Records that were taken.
    pub records: u64,
    /// Reports that the writers have counted as lost since the last turn.
    pub lost: u64,
}

/// The reader of one ring.
#[derive(Debug)]
pub struct Consumer {
    place: Place,
    ring: u32,
    head: u64,
    /// As it was last read, and found to be possible.
    tail: u64,
    /// The record at the head, once it has been copied: it is never read a second time.
    front: Option<Record>,
    lost: u64,
    /// Whether the room that it has read goes back to the writer.
    gives_back: bool,
}

impl Consumer {
    /// Begins where fresh memory does.
    pub fn new(geometry: Geometry, ring: u32) -> Consumer {
        Consumer {
            place: geometry.ring(ring),
            ring,
            head: 0,
            tail: 0,
            front: None,
            lost: 0,
            gives_back: true,
        }
    }

    /// A second reader, in the writer's own process: the head in the mapping is not its own, so it leaves that alone. The writer is
    /// told otherwise what it has read ([`super::Producer::make_room`]).
    pub fn observer(geometry: Geometry, ring: u32) -> Consumer {
        Consumer { gives_back: false, ..Consumer::new(geometry, ring) }
    }

    /// One that goes on where another has ended, and gives room back only when it is told to ([`Consumer::give_back`]): when what it
    /// has read is where nothing can take it away any more.
    pub fn resume(geometry: Geometry, ring: u32, head: u64, lost: u64) -> Consumer {
        Consumer { head, tail: head, lost, gives_back: false, ..Consumer::new(geometry, ring) }
    }

    /// How many reports the writer has counted as lost, as far as that has been read.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Gives the room back that has been read.
    pub fn give_back<W: Word>(&self, words: &[W]) {
        self.place.head(words).store(self.head.to_le(), Release);
    }

    /// How many records have been taken.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Reads the tail, which is anything that the writer likes until it has been compared.
    fn look<W: Word>(&mut self, words: &[W]) -> Result<(), RingError> {
        let tail = u64::from_le(self.place.tail(words).load(Acquire));
        let (seen, claimed) = (self.tail.wrapping_sub(self.head), tail.wrapping_sub(self.head));
        // One that goes back would take away a record that has been copied.
        if claimed > self.place.records() || claimed < seen {
            return Err(RingError { ring: self.ring, tail, head: self.head });
        }
        self.tail = tail;
        Ok(())
    }

    fn copy<W: Word>(&self, words: &[W], position: u64) -> Record {
        let mut copy = [0; RECORD_WORDS];
        for (word, place) in copy.iter_mut().zip(self.place.record(words, position)) {
            *word = u64::from_le(place.load(Relaxed));
        }
        Record { words: copy }
    }

    /// The order of the newest record that is there.
    fn newest<W: Word>(&self, words: &[W]) -> Option<u64> {
        (self.tail != self.head).then(|| self.copy(words, self.tail.wrapping_sub(1)).order())
    }

    /// The order of the record at the head.
    fn front<W: Word>(&mut self, words: &[W]) -> Option<u64> {
        if self.front.is_none() && self.tail != self.head {
            self.front = Some(self.copy(words, self.head));
        }
        self.front.as_ref().map(Record::order)
    }

    fn take(&mut self) -> Option<Record> {
        let record = self.front.take()?;
        self.head = self.head.wrapping_add(1);
        Some(record)
    }

    /// Gives the room back.
    fn publish<W: Word>(&self, words: &[W]) {
        if self.gives_back {
            self.give_back(words);
        }
    }

    fn take_lost<W: Word>(&mut self, words: &[W]) -> u64 {
        let lost = u64::from_le(self.place.lost(words).load(Relaxed));
        lost.wrapping_sub(core::mem::replace(&mut self.lost, lost))
    }
}

/// Takes up to `records_max` records, in the order in which the process reported them.
///
/// A record is taken only when everything that can have come before it is there: the tails are read twice, and nothing is taken
/// whose order is above the highest that the first look has found. Whoever published a record before that one's number was drawn did
/// so before the first look, so the second one finds it.
pub fn drain<W: Word>(
    words: &[W],
    consumers: &mut [Consumer],
    records_max: u64,
    apply: impl FnMut(&Record),
) -> Result<Drained, RingError> {
    let mut horizon = None;
    for consumer in &mut *consumers {
        consumer.look(words)?;
        horizon = horizon.max(consumer.newest(words));
    }
    match horizon {
        Some(horizon) => take(words, consumers, horizon, records_max, apply),
        None => take(words, consumers, 0, 0, apply),
    }
}

/// Takes all that is there, when no thread of the process writes any more.
pub fn drain_all<W: Word>(
    words: &[W],
    consumers: &mut [Consumer],
    apply: impl FnMut(&Record),
) -> Result<Drained, RingError> {
    drain_rest(words, consumers, u64::MAX, apply)
}

/// The same, up to `records_max` of them.
pub fn drain_rest<W: Word>(
    words: &[W],
    consumers: &mut [Consumer],
    records_max: u64,
    apply: impl FnMut(&Record),
) -> Result<Drained, RingError> {
    take(words, consumers, u64::MAX, records_max, apply)
}

fn take<W: Word>(
    words: &[W],
    consumers: &mut [Consumer],
    horizon: u64,
    records_max: u64,
    mut apply: impl FnMut(&Record),
) -> Result<Drained, RingError> {
    let mut drained = Drained::default();
    for consumer in &mut *consumers {
        drained.lost = drained.lost.wrapping_add(consumer.take_lost(words));
        consumer.look(words)?;
        consumer.front(words);
    }
    while drained.records < records_max {
        let Some((index, bound)) = earliest(consumers) else { break };
        let (consumer, bound) = (&mut consumers[index], bound.min(horizon));
        let before = drained.records;
        while drained.records < records_max && consumer.front(words).is_some_and(|order| order <= bound) {
            let Some(record) = consumer.take() else { break };
            apply(&record);
            drained.records += 1;
        }
        if drained.records == before {
            break;
        }
        consumer.publish(words);
    }
    Ok(drained)
}

/// The ring whose front comes first, and up to where it may be read before another one has to be looked at.
fn earliest(consumers: &[Consumer]) -> Option<(usize, u64)> {
    let mut first: Option<(usize, u64)> = None;
    let mut second = u64::MAX;
    for (index, consumer) in consumers.iter().enumerate() {
        let Some(order) = consumer.front.as_ref().map(Record::order) else { continue };
        match first {
            Some((_, least)) if order >= least => second = second.min(order),
            _ => {
                second = first.map_or(second, |(_, least)| second.min(least));
                first = Some((index, order));
            }
        }
    }
    first.map(|(index, _)| (index, second))
}

/// Says that the reader is about to sleep until it is woken, and looks once more: false if there is something to read after all.
pub fn prepare_sleep<W: Word>(words: &[W], consumers: &mut [Consumer]) -> Result<bool, RingError> {
    asleep(words).store(1, Relaxed);
    // Stands between the flag and the last look, as the writer's stands between its tail and the flag.
    W::fence(SeqCst);
    for consumer in consumers {
        consumer.look(words)?;
        if consumer.tail != consumer.head {
            wake(words);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Says that the reader is awake.
pub fn wake<W: Word>(words: &[W]) {
    asleep(words).store(0, Relaxed);
}
