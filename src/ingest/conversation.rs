//! What is said on one connection: frames out of bytes, what follows from them, and what is to be answered.
//!
//! The idea is that there is neither a socket nor a clock in here: the same bytes at the same times lead to the same state, for a client
//! that sends them as well as for a journal that they are read from.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;
use ttmem_wire::{
    DETECTION_SILENCE_MILLISECONDS, Detection, Features, Geometry, Header, Hello, Layout, Reply, detect,
};

use super::Context;
use super::apply::{Applier, BadFrame, Fault};
use crate::clock;
use crate::registry::{ConnectionLayout, Rejection, Time};

/// What a client has asked for.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    pub(super) features: Features,
    pub(super) geometry: Geometry,
}

/// One connection's state.
pub(super) struct Conversation {
    context: Arc<Context>,
    pub(super) applier: Applier,
    framing: Framing,
    /// The beginning of a frame whose rest has not come yet, or what was too much for one turn.
    carry: Vec<u8>,
    /// Bytes of the connection before `carry`.
    offset: u64,
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    /// A question for more than frames that waits for its answer.
    pub(super) ask: Option<Ask>,
    /// Whether the client has been given rings.
    pub(super) has_rings: bool,
    /// Whether the client has said that its reports are in the rings.
    is_switched: bool,
}

/// What is known about the frames of a connection.
enum Framing {
    /// Not their size yet: the first frame waits in `carry`.
    Undetected(FirstFrame),
    Known(Layout),
}

/// What has been done about a first frame whose size is still open.
#[derive(Default)]
enum FirstFrame {
    #[default]
    Waiting,
    Applied,
    /// The answer given to it, and how many bytes of it have been sent.
    Answered(Reply, usize),
}

/// A conversation as it is stored.
#[derive(Serialize, Deserialize, Default, PartialEq, Debug)]
pub(super) struct ConversationImage {
    framing: FramingImage,
    carry: Vec<u8>,
    offset: u64,
    out: Vec<u8>,
    /// Features, rings and records of a question that waits for its answer.
    ask: Option<(u64, u32, u32)>,
    has_rings: bool,
    is_switched: bool,
    /// Which client of its process speaks, and its generation then.
    speaker: Option<(u64, u64)>,
}

#[derive(Serialize, Deserialize, Default, PartialEq, Debug)]
enum FramingImage {
    #[default]
    Waiting,
    Applied,
    Answered {
        sent: u32,
    },
    Known {
        frame_bytes: u32,
    },
}

impl ConversationImage {
    /// That of a connection which has just been opened.
    pub(super) fn fresh(context: &Context) -> ConversationImage {
        let known = |layout: Layout| FramingImage::Known { frame_bytes: layout.frame_bytes() as u32 };
        let framing = context.policy.layout.map_or(FramingImage::Waiting, known);
        ConversationImage { framing, ..ConversationImage::default() }
    }
}

impl Conversation {
    /// One that begins.
    pub(super) fn new(context: Arc<Context>, applier: Applier, time: Time) -> io::Result<Self> {
        let fresh = ConversationImage::fresh(&context);
        Conversation::restore(context, applier, fresh, time)
    }

    /// One that was stored, and goes on.
    pub(super) fn restore(
        context: Arc<Context>,
        mut applier: Applier,
        image: ConversationImage,
        time: Time,
    ) -> io::Result<Self> {
        let ConversationImage { framing, carry, offset, out, ask, has_rings, is_switched, speaker } = image;
        let ask = ask.map(|(features, rings, records)| Ask {
            features: Features(features),
            geometry: Geometry::nearest(rings, records),
        });
        if let Some((name, generation)) = speaker {
            applier.restore_speaker(name, generation, time)?;
        }
        let framing = match framing {
            FramingImage::Waiting => Framing::Undetected(FirstFrame::Waiting),
            FramingImage::Applied => Framing::Undetected(FirstFrame::Applied),
            FramingImage::Answered { sent } => {
                let header = carry.first_chunk().and_then(|bytes| Header::decode(bytes).ok());
                let reply = header.and_then(|header| applier.compose(&header));
                let answered = reply.map(|reply| FirstFrame::Answered(reply, sent as usize));
                Framing::Undetected(answered.unwrap_or_default())
            }
            FramingImage::Known { frame_bytes } => {
                let layout =
                    Layout::ALL.into_iter().find(|layout| layout.frame_bytes() == frame_bytes as usize);
                layout.map_or(Framing::Undetected(FirstFrame::Waiting), Framing::Known)
            }
        };
        context.registry.events().connect(framing.label());
        let mut restored =
            Self { context, applier, framing, carry, offset, out, ask, has_rings, is_switched: false };
        if is_switched {
            restored.switch();
        }
        Ok(restored)
    }

    /// All that a later conversation has to know to go on with this one.
    pub(super) fn image(&self) -> ConversationImage {
        let framing = match &self.framing {
            Framing::Undetected(FirstFrame::Waiting) => FramingImage::Waiting,
            Framing::Undetected(FirstFrame::Applied) => FramingImage::Applied,
            Framing::Undetected(FirstFrame::Answered(_, sent)) => {
                FramingImage::Answered { sent: *sent as u32 }
            }
            Framing::Known(layout) => FramingImage::Known { frame_bytes: layout.frame_bytes() as u32 },
        };
        ConversationImage {
            framing,
            carry: self.carry.clone(),
            offset: self.offset,
            out: self.out.clone(),
            ask: self
                .ask
                .map(|Ask { features, geometry }| (features.0, geometry.rings(), geometry.records())),
            has_rings: self.has_rings,
            is_switched: self.is_switched,
            speaker: self.applier.speaker(),
        }
    }

    /// Whether a client waits to hear what it gets beside frames.
    pub(super) fn is_asked(&self) -> bool {
        self.ask.is_some()
    }

    pub(super) fn is_switched(&self) -> bool {
        self.is_switched
    }

    /// Whether the size of frames is known.
    pub(super) fn is_detected(&self) -> bool {
        matches!(self.framing, Framing::Known(_))
    }

    /// How many frames that many bytes are; one at least, as pieces of frames take turns as well.
    pub(super) fn frames_in(&self, bytes: usize) -> u64 {
        match self.framing {
            Framing::Known(layout) => bytes.div_ceil(layout.frame_bytes()) as u64,
            Framing::Undetected(_) => 1,
        }
    }

    /// Whether frames of the largest size are spoken, which alone have room for what else there is.
    pub(super) fn speaks_largest(&self) -> bool {
        matches!(self.framing, Framing::Known(Layout::Bytes144))
    }

    /// What stands before the next bytes.
    pub(super) fn carry(&self) -> &[u8] {
        &self.carry
    }

    /// The same, for whoever consumes it now.
    pub(super) fn take_carry(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }

    /// The client's reports are in its rings from now on.
    fn switch(&mut self) {
        let events = self.context.registry.events();
        events.disconnect(self.framing.label());
        events.connect_ring();
        self.is_switched = true;
    }

    /// Acts on a HELLO, or notes what is to be answered.
    fn heed(&mut self, hello: Hello, time: Time) -> Result<(), Fault> {
        match hello {
            Hello::Ask { features, rings, records, client } => {
                self.identify(client, time)?;
                self.ask = Some(Ask { features, geometry: Geometry::nearest(rings, records) });
            }
            Hello::Switch if self.has_rings && !self.is_switched => self.switch(),
            Hello::Switch => self.context.registry.events().reject(Rejection::UnexpectedType),
            Hello::Renew { number, client } => self.applier.renew(number, client, time)?,
            Hello::Identify { client } => self.identify(client, time)?,
        }
        Ok(())
    }

    /// Heeds who the client says that it is. One that only wants to read says nothing, and is not made known as a process.
    fn identify(&mut self, client: u64, time: Time) -> Result<(), Fault> {
        if client == 0 { Ok(()) } else { Ok(self.applier.identify(client, time)?) }
    }

    /// Applies the whole frames in `bytes`, which begin with what was carried, and keeps the rest.
    pub(super) fn consume(&mut self, bytes: &[u8], time: Time) -> Result<(), Fault> {
        let mut rest = bytes;
        if let Framing::Undetected(first) = &mut self.framing {
            match detect(rest).map_err(|error| BadFrame::new(error, self.offset))? {
                Detection::Known(layout) => {
                    let first = std::mem::take(first);
                    rest = self.begin(layout, &first, rest);
                }
                Detection::Candidate(layout) => self.act_early(layout, rest, time)?,
                Detection::Incomplete => {}
            }
        }
        let Framing::Known(layout) = self.framing else {
            self.keep(rest);
            return Ok(());
        };
        let used = self.applier.apply(rest, layout, self.offset, time, &mut self.out)?;
        self.offset += used as u64;
        self.keep(&rest[used..]);
        match self.applier.take_hello() {
            Some(hello) => self.heed(hello, time),
            None => Ok(()),
        }
    }

    /// Whether whole frames wait that were too much for the turn before.
    pub(super) fn has_backlog(&self) -> bool {
        matches!(self.framing, Framing::Known(layout) if self.carry.len() >= layout.frame_bytes())
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.carry.clear();
        self.carry.extend_from_slice(bytes);
    }

    /// The size is known: what is still owed to the first frame is done. Gives the bytes after what was done already.
    fn begin<'a>(&mut self, layout: Layout, first: &FirstFrame, bytes: &'a [u8]) -> &'a [u8] {
        self.set_layout(layout);
        match first {
            FirstFrame::Waiting => return bytes,
            FirstFrame::Applied => {}
            FirstFrame::Answered(reply, sent) => self.out.extend_from_slice(&reply.encode(layout)[*sent..]),
        }
        let (frame, rest) = bytes.split_at(layout.frame_bytes());
        self.offset += frame.len() as u64;
        rest
    }

    /// Does with a first frame, which ends where one of that layout would, what is right whatever its size is.
    fn act_early(&mut self, layout: Layout, frame: &[u8], time: Time) -> Result<(), Fault> {
        let Some(Ok(header)) = frame.first_chunk().map(Header::decode) else { return Ok(()) };
        if header.kind.wants_answer() {
            // Every layout's reply begins with the smallest one's.
            if layout == Layout::Bytes72 {
                self.answer_first(layout, frame, time);
            }
            return Ok(());
        }
        let is_waiting = matches!(self.framing, Framing::Undetected(FirstFrame::Waiting));
        if is_waiting && self.applier.has_one_meaning(&header) {
            self.apply_first(layout, frame, time)
        } else {
            Ok(())
        }
    }

    fn apply_first(&mut self, layout: Layout, frame: &[u8], time: Time) -> Result<(), Fault> {
        self.applier.apply(frame, layout, self.offset, time, &mut self.out)?;
        self.framing = Framing::Undetected(FirstFrame::Applied);
        Ok(())
    }

    /// How long to wait for more before the first frame is taken for complete.
    pub(super) fn silence(&self) -> Option<Duration> {
        let is_waiting = match &self.framing {
            Framing::Known(_) | Framing::Undetected(FirstFrame::Applied) => false,
            Framing::Undetected(FirstFrame::Answered(_, sent)) => *sent < self.carry.len(),
            Framing::Undetected(FirstFrame::Waiting) => true,
        };
        let is_candidate = || matches!(detect(&self.carry), Ok(Detection::Candidate(_)));
        (is_waiting && is_candidate()).then_some(Duration::from_millis(DETECTION_SILENCE_MILLISECONDS))
    }

    /// The peer says no more, so its first frame must be whole. If more zeros follow after all, the size is still open.
    pub(super) fn assume_layout(&mut self, time: Time) -> Result<(), Fault> {
        let Framing::Undetected(FirstFrame::Waiting | FirstFrame::Answered(..)) = self.framing else {
            return Ok(());
        };
        let Ok(Detection::Candidate(layout)) = detect(&self.carry) else { return Ok(()) };
        let frame = std::mem::take(&mut self.carry);
        if !self.answer_first(layout, &frame, time) {
            self.apply_first(layout, &frame, time)?;
        }
        self.carry = frame;
        Ok(())
    }

    /// Answers the first frame as one of that layout, if it wants an answer.
    fn answer_first(&mut self, layout: Layout, frame: &[u8], time: Time) -> bool {
        let Framing::Undetected(first) = &mut self.framing else { return false };
        if let FirstFrame::Waiting = first {
            let Some(Ok(header)) = frame.first_chunk().map(Header::decode) else { return false };
            let Some(reply) = self.applier.reply(&header, self.offset, time) else { return false };
            *first = FirstFrame::Answered(reply, 0);
        }
        let FirstFrame::Answered(reply, sent) = first else { return false };
        self.out.extend_from_slice(&reply.encode(layout)[*sent..]);
        *sent = layout.frame_bytes();
        true
    }

    fn set_layout(&mut self, layout: Layout) {
        let events = self.context.registry.events();
        events.disconnect(self.framing.label());
        self.framing = Framing::Known(layout);
        events.connect(self.framing.label());
    }

    /// The peer has closed its end.
    pub(super) fn finish(&mut self, time: Time) {
        if let Framing::Undetected(FirstFrame::Waiting) = &self.framing {
            // A single frame and goodbye: if it is not one, that is said below.
            let _ = self.assume_layout(time);
        }
        let is_whole =
            matches!(&self.framing, Framing::Undetected(FirstFrame::Applied | FirstFrame::Answered(..)));
        if !is_whole && !self.carry.is_empty() {
            self.context.registry.events().reject(Rejection::Truncated);
            if let Some(suppressed) = self.context.throttle.admit("truncated", clock::monotonic_ns()) {
                let (peer, offset, bytes) = (self.applier.peer_pid(), self.offset, self.carry.len());
                warn!(peer, offset, bytes, suppressed, "connection ended inside a frame");
            }
        }
    }

    /// Framing is lost: says where and why, and closes.
    pub(super) fn refuse(&self, fault: &Fault) {
        let (rejection, offset, error): (_, _, &dyn std::error::Error) = match fault {
            Fault::BadFrame(bad) => (bad.rejection(), bad.offset, &bad.error),
            Fault::BadRing(error) => (Rejection::Ring, 0, error),
            Fault::Io(_) => return,
        };
        self.context.registry.events().reject(rejection);
        let now_ns = clock::monotonic_ns();
        if let Some(suppressed) = self.context.throttle.admit(rejection.name(), now_ns) {
            let (peer, reason) = (self.applier.peer_pid(), rejection.name());
            self.context.tell_rejected(peer, rejection, suppressed, now_ns);
            warn!(peer, offset, reason, suppressed, error, "framing lost; connection closed");
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let events = self.context.registry.events();
        if self.is_switched {
            events.disconnect_ring();
        } else {
            events.disconnect(self.framing.label());
        }
    }
}

impl Framing {
    fn label(&self) -> ConnectionLayout {
        match self {
            Framing::Undetected(_) => ConnectionLayout::Undetected,
            Framing::Known(Layout::Bytes72) => ConnectionLayout::Bytes72,
            Framing::Known(Layout::Bytes112) => ConnectionLayout::Bytes112,
            Framing::Known(Layout::Bytes144) => ConnectionLayout::Bytes144,
        }
    }
}
