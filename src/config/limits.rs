//! The settings that bound what peers and the daemon itself may do.

use super::settings::{Kind, Setting};
use super::values::{Range, Sandbox};
use super::written::quoted;

/// Far more clients than a host has processes; each takes a file descriptor, of which a process gets about a
/// million.
const CLIENTS: Range = Range { min: 1, max: 1_000_000 };

/// None, up to more than any host has.
const RING_BYTES: Range = Range { min: 0, max: 1 << 40 };

/// As many as fit into 256 GB.
const BUFFERS: Range = Range { min: 1, max: 1 << 32 };

/// None, up to more than any host has.
const MEMORY_BYTES: Range = Range { min: 0, max: 1 << 44 };

/// Up to more than a core can apply.
const REPORTS: Range = Range { min: 0, max: 1_000_000_000 };
/// Below this one turn of a ring would be waited for longer than a client waits for a server that stands still.
const REPORTS_LEAST: u64 = 50_000;

/// For a number that follows from others unless it is said.
const AUTO: &str = "auto";

pub(super) const CLIENTS_MAX: Setting = Setting {
    key: "clients_max",
    flag: "clients-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(CLIENTS),
    default: "16384",
    reload: false,
    help: "Clients connected at once, at most",
    details: "1 to 1000000. One more is refused and counted. Each takes a file descriptor, so the limit \
              on open files (ulimit -n, LimitNOFILE= in systemd) has to lie higher.",
    apply: |config, text| CLIENTS.parse(text).map(|count| config.clients_max = count),
    show: |config| config.clients_max.to_string(),
};

pub(super) const RING_MEMORY: Setting = Setting {
    key: "ring_memory_max_bytes",
    flag: "ring-memory-max-bytes",
    section: "Client socket",
    value_name: "BYTES",
    kind: Kind::Number(RING_BYTES),
    default: "1073741824",
    reload: false,
    help: "Memory of the host that the rings of one user's processes take, at most",
    details: "0 to 1099511627776. A ring takes 48 bytes for each of its records, 192 KiB for the client library's \
              4096. A client that gets no rings reports in frames, and is counted. 0 grants none to anybody.",
    apply: |config, text| RING_BYTES.parse(text).map(|bytes| config.ring_memory_max_bytes = bytes),
    show: |config| config.ring_memory_max_bytes.to_string(),
};

pub(super) const USER_CLIENTS_MAX: Setting = Setting {
    key: "user_clients_max",
    flag: "user-clients-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(CLIENTS),
    default: AUTO,
    reload: false,
    help: "Clients of one user connected at once, at most",
    details: "1 to 1000000. auto leaves an eighth of clients_max to the others. One more is refused and counted.",
    apply: |config, text| unless_auto(text, CLIENTS).map(|count| config.user_clients_max = count),
    show: |config| or_auto(config.user_clients_max),
};

pub(super) const USER_PROCESSES_MAX: Setting = Setting {
    key: "user_processes_max",
    flag: "user-processes-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(CLIENTS),
    default: AUTO,
    reload: false,
    help: "Processes of one user that are told apart at once, where several share a connection",
    details: "1 to 1000000. auto is seven eighths of clients_max. Each takes a file descriptor. What one more reports               over another's connection counts for that one's process, and is counted; a process with a connection               of its own is always known.",
    apply: |config, text| unless_auto(text, CLIENTS).map(|count| config.user_processes_max = count),
    show: |config| or_auto(config.user_processes_max),
};

pub(super) const BUFFERS_MAX: Setting = Setting {
    key: "buffers_max",
    flag: "buffers-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(BUFFERS),
    default: "33554432",
    reload: false,
    help: "Live buffers of all processes, at most",
    details: "1 to 4294967296. Each takes about 60 bytes of memory. One more is refused and counted, and what is \
              shown lacks it; one process has 16777216 at most.",
    apply: |config, text| BUFFERS.parse(text).map(|count| config.buffers_max = count),
    show: |config| config.buffers_max.to_string(),
};

pub(super) const USER_BUFFERS_MAX: Setting = Setting {
    key: "user_buffers_max",
    flag: "user-buffers-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(BUFFERS),
    default: AUTO,
    reload: false,
    help: "Live buffers of one user's processes, at most",
    details: "1 to 4294967296. auto leaves an eighth of buffers_max to the others.",
    apply: |config, text| unless_auto(text, BUFFERS).map(|count| config.user_buffers_max = count),
    show: |config| or_auto(config.user_buffers_max),
};

pub(super) const MEMORY_HIGH: Setting = Setting {
    key: "memory_high_bytes",
    flag: "memory-high-bytes",
    section: "Client socket",
    value_name: "BYTES",
    kind: Kind::Number(MEMORY_BYTES),
    default: AUTO,
    reload: false,
    help: "Memory of its own from which on the daemon gives up details",
    details: "0 to 17592186044416; 0 for no such mark. auto is three quarters of what its control group may have, if               that is limited. Spans of buffers go first, then the search for leaks, then processes that have ended;               totals and live buffers stay (ttmem_detail_degraded). Seven eighths of buffers_max do the same.",
    apply: |config, text| unless_auto(text, MEMORY_BYTES).map(|bytes| config.memory_high_bytes = bytes),
    show: |config| or_auto(config.memory_high_bytes),
};

pub(super) const CONNECTION_REPORTS: Setting = Setting {
    key: "connection_reports_per_second_max",
    flag: "connection-reports-per-second-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(REPORTS),
    default: "1000000",
    reload: false,
    help: "Reports that one connection may bring in a second",
    details: "50000 to 1000000000, or 0 for as many as come. A second's worth may come at once. What is beyond is not               lost: the connection is read later, its client waits (ttmem_client_throttled_seconds_total), and the               others have their turn.",
    apply: |config, text| reports(text).map(|count| config.connection_reports_per_second_max = count),
    show: |config| config.connection_reports_per_second_max.to_string(),
};

pub(super) const USER_REPORTS: Setting = Setting {
    key: "user_reports_per_second_max",
    flag: "user-reports-per-second-max",
    section: "Client socket",
    value_name: "N",
    kind: Kind::Number(REPORTS),
    default: "4000000",
    reload: false,
    help: "Reports that the connections of one user may bring in a second",
    details: "50000 to 1000000000, or 0 for as many as come. As for one connection; whoever connects again finds the               same account.",
    apply: |config, text| reports(text).map(|count| config.user_reports_per_second_max = count),
    show: |config| config.user_reports_per_second_max.to_string(),
};

pub(super) const SANDBOX: Setting = Setting {
    key: "sandbox",
    flag: "sandbox",
    section: "Security",
    value_name: "WHAT",
    kind: Kind::Choice(Sandbox::NAMES),
    default: "full",
    reload: false,
    help: "What the daemon gives up before it serves anybody",
    details: "full: to run programs, to change files but beside its sockets, to look into other processes, and \
              every privilege and system call that it has no use for. calls: the same, but files and processes \
              are left to what its user may do; for a /proc that hides other users' processes. off: nothing. What \
              the kernel does not offer is told at the start. With demo it is off, as that starts programs.",
    apply: |config, text| Sandbox::parse(text).map(|what| config.sandbox = what),
    show: |config| quoted(config.sandbox.name()),
};

fn unless_auto<T: TryFrom<u64>>(text: &str, range: Range) -> Result<Option<T>, String> {
    if text == AUTO { Ok(None) } else { range.parse(text).map(Some) }
}

/// Reports in a second: none is none at all, and few would stop a client rather than slow it down.
fn reports(text: &str) -> Result<u64, String> {
    let count = REPORTS.parse(text)?;
    if (1..REPORTS_LEAST).contains(&count) {
        return Err(format!(
            "{text:?} is too few; write 0 for no limit, or a number from {REPORTS_LEAST} on"
        ));
    }
    Ok(count)
}

/// A number as it is, and the word that stands for none as a string.
fn or_auto(number: Option<impl std::fmt::Display>) -> String {
    number.map_or_else(|| quoted(AUTO), |number| number.to_string())
}
