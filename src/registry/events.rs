//! What has come in, by kind, what was refused and what was lost: one row per counter, label values included.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::detail::{Detail, Details};

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The label's value.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $label),*
                }
            }
        }
    };
}

/// Reports that one message of a peer can call lost: minutes of a busy client, and too few to turn a counter over.
const CLAIMED_LOSS_MAX: u64 = 1 << 32;

labels! {
    /// A kind of message.
    Event {
        /// A buffer was allocated.
        Alloc => "alloc",
        /// A buffer was freed.
        Free => "free",
        /// A device's totals were asked for.
        Query => "query",
        /// The live buffers were asked for, in the log.
        DumpRemaining => "dump_remaining",
        /// A device's capacities were asked for.
        DeviceInfoQuery => "device_info_query",
        /// A circular buffer was allocated.
        CbAlloc => "cb_alloc",
        /// A circular buffer was freed.
        CbFree => "cb_free",
        /// A kernel was loaded.
        KernelLoad => "kernel_load",
        /// A kernel was unloaded.
        KernelUnload => "kernel_unload",
        /// The loaded kernels were asked for, in the log.
        DumpKernels => "dump_kernels",
        /// A client asked what else than frames there is, or began to use it.
        Hello => "hello",
        /// A client told how many reports it had to drop.
        Lost => "lost",
        /// A process was seen to end.
        ProcessEnd => "process_end",
        /// A shared-memory region was read after a change.
        RegionUpdate => "region_update",
        /// A process said which trace it belongs to.
        TraceContext => "trace_context",
        /// An allocation found no room.
        AllocationFailed => "allocation_failed",
        /// A client told what a device has.
        Capacity => "capacity",
        /// A client told what keeps it from telling everything.
        Note => "note",
    }
}

labels! {
    /// Why a message, or a part of it, was not believed.
    Rejection {
        /// The type is none of the protocol's; framing is lost.
        UnknownType => "unknown_type",
        /// A pad is not zero; framing is lost.
        Padding => "padding",
        /// A request is not zero to its end; framing is lost.
        Tail => "tail",
        /// The connection ended inside a frame.
        Truncated => "truncated",
        /// A message that only the server sends.
        UnexpectedType => "unexpected_type",
        /// The device's index is not 0 to 1023.
        DeviceOutOfRange => "device_out_of_range",
        /// The byte names no memory type or kernel kind.
        BufferType => "buffer_type",
        /// The size is 0.
        ZeroSize => "zero_size",
        /// The size, or the sum it leads to, is more than any machine has.
        SizeTooLarge => "size_too_large",
        /// A free of something that is not known: normal for what was allocated before tracking began.
        UnknownFree => "unknown_free",
        /// A free that names the wrong device and an id in use on several.
        AmbiguousFree => "ambiguous_free",
        /// A message about a process that has ended.
        ProcessEnded => "process_ended",
        /// The process has as many buffers as it may.
        TooManyBuffers => "too_many_buffers",
        /// The processes of one user have as many buffers as they may have together.
        UserBuffersMax => "user_buffers_max",
        /// All processes together have as many buffers as they may.
        BuffersMax => "buffers_max",
        /// A process id that the kernel does not bear out: the message was counted for the sender instead.
        ClaimedPid => "claimed_pid",
        /// A client whose pid namespace the daemon cannot see.
        HiddenPeer => "hidden_peer",
        /// A connection above the configured number of clients.
        ClientsMax => "clients_max",
        /// A connection above the number of clients that one user may have.
        UserClientsMax => "user_clients_max",
        /// A process without a connection of its own, above the number that one user may have: counted for the sender instead.
        UserProcessesMax => "user_processes_max",
        /// A shared-memory region that is not of a known version or size.
        Region => "region",
        /// A trace context with an id of zeros, or another one than spans are in already.
        TraceContext => "trace_context",
        /// A ring whose writer claims more than it holds; the connection is closed.
        Ring => "ring",
        /// A capacity that cannot be the device's.
        Capacity => "capacity",
    }
}

labels! {
    /// Why a span was not made.
    Omission {
        /// The buffer was smaller than the policy wants to see.
        Small => "small",
        /// The buffer lived shorter than that.
        Short => "short",
        /// The buffer belongs to a burst, which has a span.
        Burst => "burst",
        /// The process left many buffers behind; these were not among the largest.
        Orphans => "orphans",
        /// More than the configured spans per second.
        Rate => "rate",
        /// The daemon's own queue was full.
        Queue => "queue",
        /// The daemon's memory was short.
        Memory => "memory",
    }
}

labels! {
    /// How a message is known to have been lost.
    Loss {
        /// A buffer's id came again with another size or type: the free between them never arrived.
        Free => "free",
        /// The daemon had too few files or too little memory to serve a connection.
        Connection => "connection",
        /// A ring had no room, and its client did not wait longer.
        Ring => "ring",
        /// A client had no room for reports that it could not send.
        Client => "client",
    }
}

labels! {
    /// Why a client that asked for rings got none, and goes on with frames.
    RingRefusal {
        /// The configuration grants none.
        Off => "off",
        /// With them, the rings of its user's processes would take more memory than is configured.
        UserMemory => "user_memory",
        /// The daemon had too little memory or too few files.
        Unavailable => "unavailable",
        /// Its process has ended, or is one of a simulation: nothing would tell when its rings can go.
        Unwatched => "unwatched",
    }
}

labels! {
    /// Whose reports in a second are bounded.
    RateLimit {
        /// One connection's.
        Connection => "connection",
        /// Those of all connections of a user.
        User => "user",
    }
}

impl RateLimit {
    /// The setting that raises it.
    pub const fn setting(self) -> &'static str {
        match self {
            RateLimit::Connection => "connection_reports_per_second_max",
            RateLimit::User => "user_reports_per_second_max",
        }
    }
}

labels! {
    /// The frame size that a connection speaks.
    ConnectionLayout {
        /// Not known yet.
        Undetected => "undetected",
        /// The seed's.
        Bytes72 => "72",
        /// The Python client's.
        Bytes112 => "112",
        /// Instrumented tt-metal's.
        Bytes144 => "144",
    }
}

/// The counters themselves.
#[derive(Debug)]
pub struct EventCounters {
    events: [AtomicU64; Event::ALL.len()],
    rejected: [AtomicU64; Rejection::ALL.len()],
    lost: [AtomicU64; Loss::ALL.len()],
    connections: [AtomicU64; ConnectionLayout::ALL.len()],
    omitted: [AtomicU64; Omission::ALL.len()],
    ring_connections: AtomicU64,
    ring_memory_bytes: AtomicU64,
    ring_refusals: [AtomicU64; RingRefusal::ALL.len()],
    throttled_ns: [AtomicU64; RateLimit::ALL.len()],
    details: Details,
}

/// Messages counted by one session, to be added to the counters together: one atomic operation for each kind instead of for each message.
#[derive(Debug, Default)]
pub struct EventTally {
    counts: [u64; Event::ALL.len()],
    /// A bit for each kind that has any.
    noted: u32,
}

const _: () = assert!(Event::ALL.len() <= u32::BITS as usize);

impl EventTally {
    /// Counts a message.
    pub fn note(&mut self, event: Event) {
        self.counts[event as usize] += 1;
        self.noted |= 1 << event as usize;
    }
}

impl Default for EventCounters {
    fn default() -> Self {
        Self {
            events: [const { AtomicU64::new(0) }; _],
            rejected: [const { AtomicU64::new(0) }; _],
            lost: [const { AtomicU64::new(0) }; _],
            connections: [const { AtomicU64::new(0) }; _],
            omitted: [const { AtomicU64::new(0) }; _],
            ring_connections: AtomicU64::new(0),
            ring_memory_bytes: AtomicU64::new(0),
            ring_refusals: [const { AtomicU64::new(0) }; _],
            throttled_ns: [const { AtomicU64::new(0) }; _],
            details: Details::default(),
        }
    }
}

impl EventCounters {
    /// Adds messages that were counted elsewhere, and forgets them there.
    pub fn absorb(&self, tally: &mut EventTally) {
        while tally.noted != 0 {
            let event = tally.noted.trailing_zeros() as usize;
            tally.noted &= tally.noted - 1;
            self.events[event].fetch_add(std::mem::take(&mut tally.counts[event]), Relaxed);
        }
    }

    /// Counts messages.
    pub fn count(&self, event: Event, messages: u64) {
        self.events[event as usize].fetch_add(messages, Relaxed);
    }

    /// Counts a rejection.
    pub fn reject(&self, rejection: Rejection) {
        self.rejected[rejection as usize].fetch_add(1, Relaxed);
    }

    /// Counts a loss.
    pub fn lose(&self, loss: Loss) {
        self.lose_many(loss, 1);
    }

    /// Counts as many losses as a peer claims, up to more than it can have meant.
    pub fn lose_many(&self, loss: Loss, claimed: u64) {
        self.lost[loss as usize].fetch_add(claimed.min(CLAIMED_LOSS_MAX), Relaxed);
    }

    /// Counts spans that are not made.
    pub fn omit(&self, omission: Omission, spans: u64) {
        self.omitted[omission as usize].fetch_add(spans, Relaxed);
    }

    /// A connection was opened.
    pub fn connect(&self, layout: ConnectionLayout) {
        self.connections[layout as usize].fetch_add(1, Relaxed);
    }

    /// A connection was closed, or is now of another layout.
    pub fn disconnect(&self, layout: ConnectionLayout) {
        self.connections[layout as usize].fetch_sub(1, Relaxed);
    }

    /// A connection's reports come through rings from now on.
    pub fn connect_ring(&self) {
        self.ring_connections.fetch_add(1, Relaxed);
    }

    /// Such a connection was closed.
    pub fn disconnect_ring(&self) {
        self.ring_connections.fetch_sub(1, Relaxed);
    }

    /// Rings take so many bytes more.
    pub fn grant_rings(&self, bytes: u64) {
        self.ring_memory_bytes.fetch_add(bytes, Relaxed);
    }

    /// Rings that took so many bytes are gone.
    pub fn reclaim_rings(&self, bytes: u64) {
        self.ring_memory_bytes.fetch_sub(bytes, Relaxed);
    }

    /// A client that asked for rings got none.
    pub fn refuse_rings(&self, refusal: RingRefusal) {
        self.ring_refusals[refusal as usize].fetch_add(1, Relaxed);
    }

    /// A connection is not read for so long.
    pub fn throttle(&self, limit: RateLimit, pause: Duration) {
        let pause_ns = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        self.throttled_ns[limit as usize].fetch_add(pause_ns, Relaxed);
    }

    /// What is kept beside totals.
    pub fn details(&self) -> &Details {
        &self.details
    }

    /// Sets counters to what a stored snapshot says. One that this version does not have is nobody's.
    pub(super) fn restore(&self, stored: &[Vec<(String, u64)>; 4]) {
        let [events, rejected, lost, omitted] = stored;
        restore(Event::ALL, &self.events, Event::name, events);
        restore(Rejection::ALL, &self.rejected, Rejection::name, rejected);
        restore(Loss::ALL, &self.lost, Loss::name, lost);
        restore(Omission::ALL, &self.omitted, Omission::name, omitted);
    }

    pub(super) fn snapshot(&self) -> EventSnapshot {
        EventSnapshot {
            events: rows(Event::ALL, &self.events, Event::name),
            rejected: rows(Rejection::ALL, &self.rejected, Rejection::name),
            lost: rows(Loss::ALL, &self.lost, Loss::name),
            connections: rows(ConnectionLayout::ALL, &self.connections, ConnectionLayout::name),
            omitted: rows(Omission::ALL, &self.omitted, Omission::name),
            ring_connections: [(ConnectionLayout::Bytes144.name(), self.ring_connections.load(Relaxed))],
            ring_memory_bytes: [("", self.ring_memory_bytes.load(Relaxed))],
            ring_refusals: rows(RingRefusal::ALL, &self.ring_refusals, RingRefusal::name),
            throttled_ns: rows(RateLimit::ALL, &self.throttled_ns, RateLimit::name),
            degraded: self.details.rows(),
        }
    }
}

fn rows<T: Copy>(all: &[T], values: &[AtomicU64], name: fn(T) -> &'static str) -> Vec<(&'static str, u64)> {
    all.iter().zip(values).map(|(label, value)| (name(*label), value.load(Relaxed))).collect()
}

fn restore<T: Copy>(
    all: &[T],
    counters: &[AtomicU64],
    name: fn(T) -> &'static str,
    stored: &[(String, u64)],
) {
    for (label, counter) in all.iter().zip(counters) {
        if let Some((_, count)) = stored.iter().find(|(stored, _)| stored == name(*label)) {
            counter.store(*count, Relaxed);
        }
    }
}

/// [`EventCounters`] at one instant: label value and count.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct EventSnapshot {
    /// Messages by kind.
    pub events: Vec<(&'static str, u64)>,
    /// Rejections by reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// Losses by reason.
    pub lost: Vec<(&'static str, u64)>,
    /// Open connections whose reports come over the socket, by layout.
    pub connections: Vec<(&'static str, u64)>,
    /// Spans that were not made, by reason; empty where nobody wants spans.
    pub omitted: Vec<(&'static str, u64)>,
    /// Open connections whose reports come through rings, by layout: only the largest frame can ask for them.
    pub ring_connections: [(&'static str, u64); 1],
    /// Memory that rings take, in all.
    pub ring_memory_bytes: [(&'static str, u64); 1],
    /// Clients that asked for rings and got none, by reason.
    pub ring_refusals: Vec<(&'static str, u64)>,
    /// Time for which connections were not read, by the limit, in nanoseconds.
    pub throttled_ns: Vec<(&'static str, u64)>,
    /// 1 for each detail that is given up.
    pub degraded: [(&'static str, u64); Detail::ALL.len()],
}
