//! The account of one signal: what was offered, and what became of it.

/// Declares a closed list of label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The label's value.
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }
        }
    };
}

labels! {
    /// Why an item never came to the collector.
    DropReason {
        /// The outbox had no room.
        QueueFull = "queue_full",
        /// The collector refused it for good.
        Rejected = "rejected",
        /// It could not be delivered for as long as it may be tried.
        Timeout = "timeout",
        /// The daemon ended first.
        Shutdown = "shutdown",
    }
}

labels! {
    /// Why a request failed; most are tried again.
    FailureReason {
        /// No connection, or it broke.
        Connection = "connection",
        /// No answer in time.
        Timeout = "timeout",
        /// The collector asked for patience.
        Throttled = "throttled",
        /// The collector, or something before it, could not serve it now.
        Unavailable = "unavailable",
        /// The collector refused it for good.
        Rejected = "rejected",
    }
}

/// What is held: what waits and what is on its way.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Held {
    /// Items.
    pub items: u64,
    /// About how much memory they take.
    pub bytes: u64,
}

/// One signal's account. `offered` is always `exported` plus what was dropped plus what is held.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Account {
    /// Items that somebody wanted to export.
    pub offered: u64,
    /// Items that the collector has accepted.
    pub exported: u64,
    /// Items that are neither exported nor dropped yet.
    pub held: Held,
    dropped: [u64; DropReason::ALL.len()],
    failures: [u64; FailureReason::ALL.len()],
}

impl Account {
    /// Items dropped for that reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Items dropped, for whatever reason.
    pub fn dropped_sum(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Requests that failed for that reason.
    pub fn failures_for(&self, reason: FailureReason) -> u64 {
        self.failures[reason as usize]
    }

    pub(super) fn drop(&mut self, reason: DropReason, items: u64) {
        self.dropped[reason as usize] += items;
    }

    pub(super) fn fail(&mut self, reason: FailureReason) {
        self.failures[reason as usize] += 1;
    }

    pub(super) fn release(&mut self, items: u64, bytes: u64) {
        self.held.items -= items;
        self.held.bytes -= bytes;
    }
}
