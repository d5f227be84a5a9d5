//! From frames to rings: what a session does about HELLO, and how it reads rings beside its socket.
//!
//! The idea is that the rings are always read before what came over the socket: so an answer reflects every report that its client made
//! before it asked. Until the client has said that it has switched, nothing is taken from them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tracing::warn;
use ttmem_wire::{DescriptorKind, Features, Geometry, HelloReply};

use super::{DRAIN_TURNS_MAX, Session, now};
use crate::clock;
use crate::ingest::apply::{BadFrame, Fault};
use crate::ingest::conversation::Ask;
use crate::ingest::note::{Note, Packed};
use crate::ingest::processes::Tracked;
use crate::ingest::ring::{RingFault, Rings};
use crate::registry::{Loss, Pages, Rejection, RingRefusal};

/// What is handed over with an answer.
#[derive(Default)]
struct Offer<'a> {
    features: Features,
    list: Vec<(DescriptorKind, u64)>,
    descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Offer<'a> {
    fn add(&mut self, feature: Features, kind: DescriptorKind, size_bytes: u64, descriptor: BorrowedFd<'a>) {
        self.features = self.features.with(feature);
        self.list.push((kind, size_bytes));
        self.descriptors.push(descriptor);
    }
}

impl Session {
    /// Answers with what the client may have. What it may not have it goes on without, so nothing here is an error of the session's.
    pub(super) async fn answer(&mut self, ask: Ask) -> Result<(), Fault> {
        if !self.conversation.speaks_largest() {
            self.context.registry.events().reject(Rejection::UnexpectedType);
            return Ok(());
        }
        let has_new_rings = ask.features.has(Features::RINGS) && self.make_rings(ask.geometry)?;
        let mut offer = Offer::default();
        let mut geometry = None;
        if let Some(rings) = self.rings.as_ref().filter(|_| has_new_rings) {
            let [memory, wake] = rings.descriptors();
            geometry = Some(rings.geometry());
            offer.add(Features::RINGS, DescriptorKind::Rings, rings.geometry().bytes(), memory);
            offer.add(Features::RINGS, DescriptorKind::RingsWake, 0, wake);
        }
        if let Some(pages) = self.context.registry.pages().filter(|_| ask.features.has(Features::STATS_PAGE))
        {
            let Pages { devices, processes } = pages;
            let bytes = devices.size_bytes();
            offer.add(Features::STATS_PAGE, DescriptorKind::DevicePage, bytes, devices.descriptor());
            // Whoever is in a namespace of its own is not to learn who else is on the host.
            if self.conversation.applier.sees_processes() {
                let bytes = processes.size_bytes();
                offer.add(Features::STATS_PAGE, DescriptorKind::ProcessPage, bytes, processes.descriptor());
            }
        }
        if offer.features.has(Features::STATS_PAGE) {
            // The pages are this daemon's: whoever reads them is to notice that another one has come.
            self.diary.forsake();
        } else if let Some(rings) = self.rings.as_ref().filter(|_| has_new_rings) {
            // Before the client has them, so that nothing is ever in them that the next daemon cannot read.
            self.diary.note(now(), &Note::GaveRings(rings.image()));
            for descriptor in rings.descriptors() {
                self.diary.keep_too(descriptor).await;
            }
        }
        let reply = HelloReply::new(offer.features, geometry, self.context.instance, &offer.list);
        self.stream.write_with(&reply.encode(), &offer.descriptors).await?;
        self.diary.note(now(), &Note::Answered);
        Ok(())
    }

    /// Makes the client's rings; false if it gets none, or has some already.
    fn make_rings(&mut self, geometry: Geometry) -> Result<bool, Fault> {
        let process = self.conversation.applier.join(now())?;
        if self.rings.is_some() {
            return Ok(false);
        }
        match self.rings_of(&process, geometry) {
            Ok(rings) => {
                self.conversation.has_rings = true;
                self.rings = Some(rings);
            }
            Err(refusal) => self.context.registry.events().refuse_rings(refusal),
        }
        Ok(self.rings.is_some())
    }

    fn rings_of(&self, process: &Arc<Tracked>, geometry: Geometry) -> Result<Rings, RingRefusal> {
        if !process.is_watched() {
            return Err(RingRefusal::Unwatched);
        }
        let applier = &self.conversation.applier;
        let (peer, uid) = (applier.peer_pid(), applier.peer_uid());
        let admit = || self.context.throttle.admit("rings", clock::monotonic_ns());
        let grant = self.context.ring_memory.grant(uid, geometry.bytes()).inspect_err(|refusal| {
            if let (RingRefusal::UserMemory, Some(suppressed)) = (refusal, admit()) {
                let bytes = geometry.bytes();
                warn!(peer, uid, bytes, suppressed, "no memory for rings is left to this user; the client goes on with frames; raise ring_memory_max_bytes if they are wanted");
            }
        })?;
        Rings::new(grant, process, geometry).map_err(|error| {
            if let Some(suppressed) = admit() {
                warn!(peer, %error, suppressed, "cannot make rings; the client goes on with frames");
            }
            RingRefusal::Unavailable
        })
    }

    /// Applies all that has been in the rings until now; false where that was too much for one turn.
    pub(super) fn catch_up(&mut self) -> Result<bool, Fault> {
        let Some(geometry) =
            self.rings.as_ref().filter(|_| self.conversation.is_switched()).map(Rings::geometry)
        else {
            return Ok(true);
        };
        let records = u64::from(geometry.rings()) * u64::from(geometry.records());
        for _ in 0..=records / Rings::TURN_RECORDS {
            let is_last = self.read_rings()? < Rings::TURN_RECORDS as usize;
            if self.rings.as_ref().is_some_and(Rings::has_backlog) {
                return Ok(false);
            }
            if is_last {
                break;
            }
        }
        Ok(true)
    }

    /// One turn of the rings: copies records if none wait, and applies them. Gives how many were applied.
    pub(super) fn read_rings(&mut self) -> Result<usize, Fault> {
        self.in_turn(|session| {
            let Some(rings) = &mut session.rings else { return Ok(0) };
            let copied = if rings.has_backlog() {
                Ok(0)
            } else {
                let copied = rings.copy();
                session.allowance.spend(rings.copied().len() as u64);
                session.write_down(&copied);
                copied
            };
            let applied = session.apply_copied()?;
            session.judge(&copied)?;
            Ok(applied)
        })
    }

    /// The peer is gone or says no more: applies all that it has left.
    pub(super) async fn empty_rings(&mut self) {
        loop {
            let is_empty = match self.in_turn(Session::take_rest) {
                Ok(is_empty) => is_empty,
                Err(fault) => return self.conversation.refuse(&fault),
            };
            if is_empty {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// One turn of rings into which no more will be written; true when nothing is left.
    fn take_rest(&mut self) -> Result<bool, Fault> {
        let Some(rings) = self.rings.as_mut().filter(|_| self.conversation.is_switched()) else {
            return Ok(true);
        };
        if rings.has_backlog() {
            return self.apply_copied().map(|_| false);
        }
        let copied = rings.copy_rest();
        let is_empty = !rings.has_backlog();
        self.write_down(&copied);
        self.apply_copied()?;
        self.judge(&copied)?;
        Ok(is_empty)
    }

    /// Puts into the journal what has just been copied, and only then gives its room back: what a ring has no more the journal has.
    fn write_down(&self, copied: &Result<u64, RingFault>) {
        let Some(rings) = &self.rings else { return };
        let lost = copied.as_ref().copied().unwrap_or(0);
        if self.diary.is_on() && (lost > 0 || rings.has_backlog()) {
            let records = rings.copied().iter().map(|record| Packed(record.encode())).collect();
            self.diary.note(now(), &Note::Records { lost, records, rings: rings.image() });
        }
        rings.give_back_room();
    }

    /// The daemon stops: applies what is there, as long as it comes to an end.
    pub(super) fn drain_rings(&mut self) {
        for _ in 0..DRAIN_TURNS_MAX {
            match self.catch_up() {
                Ok(false) => {}
                Ok(true) => return,
                Err(fault) => return self.conversation.refuse(&fault),
            }
        }
    }

    /// Applies copied records, as many as one turn may.
    fn apply_copied(&mut self) -> Result<usize, Fault> {
        let Some(rings) = &mut self.rings else { return Ok(0) };
        let mut records = rings.take_copied();
        let (time, applier) = (now(), &mut self.conversation.applier);
        let used = applier.apply_records(&records, time)?;
        // There is nothing to negotiate in a ring.
        let _ = applier.take_hello();
        records.drain(..used);
        rings.give_back(records);
        Ok(used)
    }

    /// What copying came to: reports that were lost, or a client that must not go on.
    fn judge(&self, copied: &Result<u64, RingFault>) -> Result<(), Fault> {
        match copied {
            Ok(0) => Ok(()),
            Ok(lost) => {
                self.context.registry.events().lose_many(Loss::Ring, *lost);
                Ok(())
            }
            Err(RingFault::Ring(error)) => Err(Fault::BadRing(*error)),
            Err(RingFault::Record(error)) => {
                let offset = self.rings.as_ref().map_or(0, Rings::offset);
                Err(Fault::BadFrame(BadFrame { error: *error, offset }))
            }
        }
    }
}
