//! What each message does: the one place that turns the protocol's words into changes of the registry and into replies.

use std::io;
use std::sync::Arc;

use tracing::warn;
use ttmem_wire as wire;
use wire::{Header, Hello, Kind, Layout, Reply, Totals};

use super::Context;
use super::attribution::Attribution;
use super::dump;
use super::processes::Tracked;
use super::reporters::ProcessClient;
use super::statements;
use crate::registry::{
    Allocated, AllocationFailure, Arch, Batch, DEVICES_MAX, Device, Event, EventTally, KernelKind, Loss,
    MemoryType, Refusal, Rejection, Reporter, Time, TraceContext,
};

/// What one turn of a session may cost beyond its messages themselves, in units of one search for a buffer, estimated at 20 ns:
/// half a millisecond. An honest client uses none of it.
const TURN_BUDGET: u32 = 25_000;
/// Finding the process of a claimed pid: several files of /proc.
const RESOLUTION_COST: u32 = 5_000;

/// Showing a device anew: its description is copied, and published.
const STATEMENT_COST: u32 = 50;

/// One connection's messages, applied in order.
pub(super) struct Applier {
    context: Arc<Context>,
    attribution: Attribution,
    /// Messages seen in the current run of frames.
    tally: EventTally,
    /// A HELLO that the session has to act on before it goes on.
    hello: Option<Hello>,
    /// Which of its process's clients speaks, if it has said so.
    speaker: Option<Speaker>,
}

/// Which client of its process a session is of.
struct Speaker {
    client: Arc<ProcessClient>,
    /// The client's generation when it said so: what the session still brings of an earlier one counts no more.
    generation: u64,
}

impl Applier {
    pub(super) fn new(context: Arc<Context>, attribution: Attribution) -> Self {
        Self { context, attribution, tally: EventTally::default(), hello: None, speaker: None }
    }

    /// What is applied next was received in the journal's entry of that order.
    pub(super) fn begin(&mut self, order: Option<u64>) {
        self.attribution.begin(order);
    }

    /// Which of its process's clients speaks, and its generation then, as they are stored.
    pub(super) fn speaker(&self) -> Option<(u64, u64)> {
        self.speaker.as_ref().map(|speaker| (speaker.client.name(), speaker.generation))
    }

    /// The client spoke before this daemon was there.
    pub(super) fn restore_speaker(&mut self, name: u64, generation: u64, time: Time) -> io::Result<()> {
        let client = self.peer_process(time)?.client(name);
        self.speaker = Some(Speaker { client, generation });
        Ok(())
    }

    pub(super) fn peer_pid(&self) -> u32 {
        self.attribution.peer_pid()
    }

    /// Applies whole frames, writing replies to `out`, and gives the number of bytes that were used: fewer than all where the work
    /// became too much for one turn. `offset` is where they begin in the connection. What stands before a fault has been applied.
    pub(super) fn apply(
        &mut self,
        frames: &[u8],
        layout: Layout,
        offset: u64,
        time: Time,
        out: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        let frame_bytes = layout.frame_bytes();
        let chunks = frames.chunks_exact(frame_bytes);
        let whole = frames.len() - chunks.remainder().len();
        let mut next = offset;
        let messages = chunks.map(|frame| {
            let at = next;
            next += frame_bytes as u64;
            let message = wire::decode_request(frame, layout).map_err(|error| BadFrame::new(error, at))?;
            Ok((message, at))
        });
        let stopped_at = self.apply_messages(messages, layout, time, out)?;
        Ok(stopped_at.map_or(whole, |at| (at - offset) as usize))
    }

    /// Applies messages out of a ring, and gives the number of those that were used.
    pub(super) fn apply_records(&mut self, records: &[Header], time: Time) -> Result<usize, Fault> {
        let messages = records.iter().zip(0_u64..).map(|(message, index)| Ok((*message, index)));
        // What is in a ring is read like the largest frame. Nothing in it is answered.
        let stopped_at = self.apply_messages(messages, Layout::Bytes144, time, &mut Vec::new())?;
        Ok(stopped_at.map_or(records.len(), |index| index as usize))
    }

    /// A HELLO that has come, once; the messages behind it wait.
    pub(super) fn take_hello(&mut self) -> Option<Hello> {
        self.hello.take()
    }

    /// The peer's process.
    pub(super) fn peer_process(&mut self, time: Time) -> io::Result<Arc<Tracked>> {
        self.attribution.process(self.attribution.peer_pid(), time)
    }

    /// The same, if it has reported and its end can be seen.
    pub(super) fn watched_peer(&self) -> Option<Arc<Tracked>> {
        self.attribution.watched_peer()
    }

    /// The peer's process, of one of whose clients this session is from now on: of the nameless, if it has not said which.
    pub(super) fn join(&mut self, time: Time) -> io::Result<Arc<Tracked>> {
        if self.speaker.is_none() {
            self.identify(0, time)?;
        }
        self.peer_process(time)
    }

    /// The session is of that client of the peer's process from now on, and of its present generation.
    pub(super) fn identify(&mut self, name: u64, time: Time) -> io::Result<()> {
        let client = self.peer_process(time)?.client(name);
        if !self.speaker.as_ref().is_some_and(|speaker| Arc::ptr_eq(&speaker.client, &client)) {
            let generation = client.generation();
            self.speaker = Some(Speaker { client, generation });
        }
        Ok(())
    }

    /// Whether the peer can see the host's processes anyway.
    pub(super) fn sees_processes(&self) -> bool {
        self.attribution.peer_sees_processes()
    }

    pub(super) fn peer_uid(&self) -> u32 {
        self.attribution.peer_uid()
    }

    /// That client of the peer's process will report anew what it holds: what it has reported is forgotten.
    pub(super) fn renew(&mut self, number: u64, name: u64, time: Time) -> io::Result<()> {
        let tracked = self.peer_process(time)?;
        let client = tracked.client(name);
        let mut batch = self.context.registry.batch(tracked.process(), time.monotonic_ns);
        // While the ledger is held, so that no older session comes in between. One that was overtaken by a newer one brings nothing.
        if client.renew(number) {
            batch.report_as(client.reporter());
            batch.forget();
        }
        self.speaker = Some(Speaker { client, generation: number });
        Ok(())
    }

    /// Who speaks for a claimed pid, and whether a newer session of the same client has said it all once more. To be called while the
    /// process's ledger is held.
    fn speaks_for(&self, claimed: u32) -> (Reporter, bool) {
        // A fork that goes on using its parent's socket is no client of its parent's process.
        let speaker = self.speaker.as_ref().filter(|_| claimed == self.peer_pid());
        speaker.map_or_else(Default::default, |speaker| {
            (speaker.client.reporter(), speaker.generation != speaker.client.generation())
        })
    }

    /// Applies messages until there are no more, or until one has to wait: its place is given.
    fn apply_messages(
        &mut self,
        messages: impl Iterator<Item = Result<(Header, u64), Fault>>,
        layout: Layout,
        time: Time,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Fault> {
        let outcome = self.apply_in_turn(messages, layout, time, out);
        self.context.registry.events().absorb(&mut self.tally);
        outcome
    }

    fn apply_in_turn(
        &mut self,
        mut messages: impl Iterator<Item = Result<(Header, u64), Fault>>,
        layout: Layout,
        time: Time,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Fault> {
        let buffer_types = self.buffer_types(layout);
        let mut budget = TURN_BUDGET;
        let Some(first) = messages.next() else { return Ok(None) };
        let (mut message, mut at) = first?;
        loop {
            if budget == 0 || self.hello.is_some() {
                // The other sessions of this thread come first, or what the HELLO asks for.
                return Ok(Some(at));
            }
            let Some(mut event) = reported(message.kind) else {
                if message.kind == Kind::Capacity {
                    budget = budget.saturating_sub(STATEMENT_COST);
                }
                self.answer(&message, layout, at, time, out);
                let Some(following) = messages.next() else { return Ok(None) };
                (message, at) = following?;
                continue;
            };
            // A run of reports of one process: its ledger is taken once.
            let claimed = self.attribution.claim(message.process_id);
            if !self.attribution.knows(claimed) {
                budget = budget.saturating_sub(RESOLUTION_COST);
            }
            let tracked = self.attribution.process(claimed, time)?;
            let registry = &self.context.registry;
            let mut batch = registry.batch(tracked.process(), time.monotonic_ns);
            let (reporter, is_outdated) = self.speaks_for(claimed);
            batch.report_as(reporter);
            loop {
                self.tally.note(event);
                let report = Report { event, message: &message, buffer_types };
                if is_outdated {
                    // A newer connection of the same process has reported it once more.
                } else if let Err(rejection) = report.apply(&mut batch, registry.events(), time) {
                    self.reject(rejection, at, time);
                }
                budget = budget.saturating_sub(batch.take_searches());
                let Some(following) = messages.next() else { return Ok(None) };
                (message, at) = following?;
                match reported(message.kind) {
                    Some(same) if budget > 0 && self.attribution.claim(message.process_id) == claimed => {
                        event = same;
                    }
                    _ => break,
                }
            }
        }
    }

    /// Whether the message says the same in every layout.
    pub(super) fn has_one_meaning(&self, message: &Header) -> bool {
        let [seed, metal] = [wire::BufferTypes::Seed, wire::BufferTypes::Metal];
        match message.kind {
            Kind::Alloc | Kind::AllocationFailed | Kind::Capacity => {
                self.context.policy.buffer_types.is_some()
                    || seed.decode(message.buffer_type) == metal.decode(message.buffer_type)
            }
            // Only the largest frame has room for its answer.
            Kind::Hello => false,
            _ => true,
        }
    }

    fn buffer_types(&self, layout: Layout) -> wire::BufferTypes {
        self.context.policy.buffer_types.unwrap_or(layout.buffer_types())
    }

    fn answer(&mut self, message: &Header, layout: Layout, at: u64, time: Time, out: &mut Vec<u8>) {
        match message.kind {
            Kind::DumpRemaining => {
                self.tally.note(Event::DumpRemaining);
                dump::buffers(&self.context, self.peer_pid(), time);
            }
            Kind::DumpKernels => {
                self.tally.note(Event::DumpKernels);
                dump::kernels(&self.context, self.peer_pid(), time);
            }
            Kind::Hello => {
                self.tally.note(Event::Hello);
                // Of a later version than ours: the client knows how to go on without it.
                self.hello = Hello::of(message);
            }
            Kind::Lost => {
                self.tally.note(Event::Lost);
                self.context.registry.events().lose_many(Loss::Client, message.size_bytes);
            }
            Kind::Capacity => {
                self.tally.note(Event::Capacity);
                let stated = statements::capacity(&self.context.devices, message, self.buffer_types(layout));
                if let Err(rejection) = stated {
                    self.reject(rejection, at, time);
                }
            }
            Kind::Note => {
                self.tally.note(Event::Note);
                statements::note(&self.context.throttle, &self.attribution, message, time);
            }
            _ => match self.reply(message, at, time) {
                Some(reply) => out.extend_from_slice(&reply.encode(layout)),
                None => self.reject(Rejection::UnexpectedType, at, time),
            },
        }
    }

    /// The reply to a message that wants one. It reads atomics only, and answers even what it has to reject: the peer waits for it.
    pub(super) fn reply(&self, message: &Header, at: u64, time: Time) -> Option<Reply> {
        let event = match message.kind {
            Kind::Query => Event::Query,
            Kind::DeviceInfoQuery => Event::DeviceInfoQuery,
            _ => return None,
        };
        self.context.registry.events().count(event, 1);
        let asks_for_count = event == Event::DeviceInfoQuery && message.device_id == wire::DEVICE_COUNT_QUERY;
        if device_index(message.device_id).is_none() && !asks_for_count {
            self.reject(Rejection::DeviceOutOfRange, at, time);
        }
        self.compose(message)
    }

    /// The reply alone, as it is now.
    pub(super) fn compose(&self, message: &Header) -> Option<Reply> {
        let kind = match message.kind {
            Kind::Query => Kind::Response,
            Kind::DeviceInfoQuery => Kind::DeviceInfoResponse,
            _ => return None,
        };
        let registry = &self.context.registry;
        let index = device_index(message.device_id);
        let device = index.and_then(|index| registry.known_device(index));
        let (mut totals, mut info) = (Totals::default(), wire::DeviceInfo::default());
        match kind {
            Kind::Response => totals = device.map(|device| device_totals(device)).unwrap_or_default(),
            _ => {
                info = device.map(|device| device_info(&device.info())).unwrap_or_default();
                info.num_devices = registry.devices().count() as u32;
            }
        }
        Some(Reply { kind, device_id: message.device_id, totals, info })
    }

    fn reject(&self, rejection: Rejection, at: u64, time: Time) {
        self.context.registry.events().reject(rejection);
        // What was allocated before tracking began is freed some time: that is no news.
        if rejection == Rejection::UnknownFree {
            return;
        }
        if let Some(suppressed) = self.context.throttle.admit(rejection.name(), time.monotonic_ns) {
            self.context.tell_rejected(self.peer_pid(), rejection, suppressed, time.monotonic_ns);
            warn!(
                peer = self.peer_pid(),
                offset = at,
                reason = rejection.name(),
                suppressed,
                remedy = remedy(rejection),
                "message rejected"
            );
        }
    }
}

/// Why a session cannot go on.
pub(super) enum Fault {
    /// The peer's.
    BadFrame(BadFrame),
    /// The peer's: a ring's writer claims what cannot be.
    BadRing(wire::ring::RingError),
    /// The connection's, or the system's.
    Io(io::Error),
}

impl From<BadFrame> for Fault {
    fn from(bad: BadFrame) -> Self {
        Fault::BadFrame(bad)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// A frame that cannot be one: the connection cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadFrame {
    pub(super) error: wire::FrameError,
    /// The byte in the connection.
    pub(super) offset: u64,
}

impl BadFrame {
    /// An error in a frame that begins at an offset in the connection.
    pub(super) fn new(error: wire::FrameError, frame_offset: u64) -> BadFrame {
        BadFrame { error, offset: frame_offset + error.offset() as u64 }
    }

    pub(super) fn rejection(self) -> Rejection {
        match self.error {
            wire::FrameError::UnknownType { .. } => Rejection::UnknownType,
            wire::FrameError::Padding { .. } => Rejection::Padding,
            wire::FrameError::Tail { .. } => Rejection::Tail,
        }
    }
}

/// What a message of that kind changes of what a process holds, if it changes anything.
fn reported(kind: Kind) -> Option<Event> {
    match kind {
        Kind::Alloc => Some(Event::Alloc),
        Kind::Free => Some(Event::Free),
        Kind::CbAlloc => Some(Event::CbAlloc),
        Kind::CbFree => Some(Event::CbFree),
        Kind::KernelLoad => Some(Event::KernelLoad),
        Kind::KernelUnload => Some(Event::KernelUnload),
        Kind::TraceContext => Some(Event::TraceContext),
        Kind::AllocationFailed => Some(Event::AllocationFailed),
        _ => None,
    }
}

/// A message that changes what a process holds.
struct Report<'a> {
    event: Event,
    message: &'a Header,
    buffer_types: wire::BufferTypes,
}

impl Report<'_> {
    fn apply(
        &self,
        batch: &mut Batch<'_>,
        events: &crate::registry::EventCounters,
        time: Time,
    ) -> Result<(), Rejection> {
        let Header { device_id, size_bytes, buffer_id, .. } = *self.message;
        if self.event == Event::TraceContext {
            let wire::TraceContext { trace_id, parent_id, flags } =
                wire::TraceContext::decode(self.message).ok_or(Rejection::TraceContext)?;
            return batch.join_trace(TraceContext { trace_id, parent_id, flags }).map_err(rejection);
        }
        let device = device_index(device_id).ok_or(Rejection::DeviceOutOfRange)?;
        let outcome = match self.event {
            Event::Alloc => {
                let memory_type = self.memory_type()?;
                batch.allocate(device, memory_type, buffer_id, size_bytes).map(|allocated| {
                    if allocated == Allocated::Replaced {
                        events.lose(Loss::Free);
                    }
                })
            }
            Event::Free if self.message.buffer_type == wire::FREED_BY_CLOSE => {
                batch.free_by_close(device, buffer_id)
            }
            Event::Free => batch.free(device, buffer_id),
            Event::CbAlloc => batch.take(device, MemoryType::Cb, size_bytes),
            Event::CbFree => batch.give_back(device, MemoryType::Cb, size_bytes),
            Event::KernelLoad => batch.load_kernel(device, self.kernel_kind()?, size_bytes),
            Event::KernelUnload => batch.unload_kernel(device, self.kernel_kind()?, size_bytes),
            Event::AllocationFailed => batch.fail(AllocationFailure {
                device,
                memory_type: self.memory_type()?,
                requested_bytes: size_bytes,
                largest_free_block_bytes: buffer_id,
                free_bytes: self.message.timestamp_ns,
                at_ns: time.monotonic_ns,
            }),
            other => unreachable!("{other:?} is not made into a report"),
        };
        outcome.map_err(rejection)
    }

    fn memory_type(&self) -> Result<MemoryType, Rejection> {
        memory_type(self.buffer_types, self.message.buffer_type)
    }

    fn kernel_kind(&self) -> Result<KernelKind, Rejection> {
        match wire::KernelKind::decode(self.message.buffer_type).ok_or(Rejection::BufferType)? {
            wire::KernelKind::Application => Ok(KernelKind::Application),
            wire::KernelKind::Fabric => Ok(KernelKind::Fabric),
            wire::KernelKind::Dispatch => Ok(KernelKind::Dispatch),
        }
    }
}

pub(super) fn memory_type(buffer_types: wire::BufferTypes, byte: u8) -> Result<MemoryType, Rejection> {
    match buffer_types.decode(byte).ok_or(Rejection::BufferType)? {
        wire::BufferType::Dram => Ok(MemoryType::Dram),
        wire::BufferType::L1 => Ok(MemoryType::L1),
        wire::BufferType::L1Small => Ok(MemoryType::L1Small),
        wire::BufferType::Trace => Ok(MemoryType::Trace),
        wire::BufferType::SystemMemory => Ok(MemoryType::SystemMemory),
    }
}

fn rejection(refusal: Refusal) -> Rejection {
    match refusal {
        Refusal::ZeroSize => Rejection::ZeroSize,
        Refusal::SizeTooLarge => Rejection::SizeTooLarge,
        Refusal::UnknownFree => Rejection::UnknownFree,
        Refusal::AmbiguousFree => Rejection::AmbiguousFree,
        Refusal::ProcessEnded => Rejection::ProcessEnded,
        Refusal::TooManyBuffers => Rejection::TooManyBuffers,
        Refusal::UserBuffersMax => Rejection::UserBuffersMax,
        Refusal::BuffersMax => Rejection::BuffersMax,
        Refusal::OtherTrace => Rejection::TraceContext,
    }
}

/// What the operator can do about a limit that was reached.
fn remedy(rejection: Rejection) -> Option<&'static str> {
    match rejection {
        Rejection::TooManyBuffers => {
            Some("16777216 live buffers of one process are a leak: mend the program")
        }
        Rejection::UserBuffersMax => Some("raise user_buffers_max if this user needs so many"),
        Rejection::BuffersMax => Some("raise buffers_max if so many are wanted; each takes about 60 bytes"),
        _ => None,
    }
}

pub(super) fn device_index(device_id: i32) -> Option<u16> {
    u16::try_from(device_id).ok().filter(|index| *index < DEVICES_MAX)
}

const _: () = assert!(wire::DEVICE_ID_MAX == DEVICES_MAX as i32 - 1);
const _: () = assert!(wire::BUFFER_BYTES_MAX == crate::registry::BUFFER_BYTES_MAX);

fn device_totals(device: &Device) -> Totals {
    let by_type = device.usage_bytes();
    let usage_bytes = |memory_type: MemoryType| by_type[memory_type.index()];
    Totals {
        dram_bytes: usage_bytes(MemoryType::Dram),
        l1_bytes: usage_bytes(MemoryType::L1),
        l1_small_bytes: usage_bytes(MemoryType::L1Small),
        trace_bytes: usage_bytes(MemoryType::Trace),
        cb_bytes: usage_bytes(MemoryType::Cb),
        kernel_bytes: usage_bytes(MemoryType::Kernel),
    }
}

fn device_info(info: &crate::registry::DeviceInfo) -> wire::DeviceInfo {
    wire::DeviceInfo {
        total_dram_bytes: info.dram_bytes.unwrap_or(0),
        total_l1_bytes: info.l1_bytes.unwrap_or(0),
        arch: Arch::published(info.arch),
        num_dram_channels: info.dram_banks.map_or(0, |banks| banks.count),
        dram_bytes_per_channel: info.dram_banks.map_or(0, |banks| saturate(banks.bank_bytes)),
        l1_bytes_per_core: info.l1_banks.map_or(0, |banks| saturate(banks.bank_bytes)),
        is_available: true,
        num_devices: 0,
    }
}

/// The message has 32 bits for it.
fn saturate(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_ids_outside_the_range_have_no_index() {
        let check = |device_id, expected| assert_eq!(device_index(device_id), expected, "{device_id}");
        check(0, Some(0));
        check(1023, Some(1023));
        check(1024, None);
        check(-1, None);
        check(i32::MIN, None);
        check(65_536, None);
    }
}
