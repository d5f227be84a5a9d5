//! The ids of traces and spans: derived from who and what they are about, so that they are known before anything is exported.
//!
//! The idea is that an id is the beginning of the SHA-256 of a line of text, which `sha256sum` computes as well; docs/tracing.md lists
//! the lines.

use ring::digest::{Context, SHA256};

use crate::registry::{Process, Release, TraceContext};

/// A trace's id.
pub type TraceId = [u8; 16];
/// A span's id.
pub type SpanId = [u8; 8];

/// What tells one boot of one host from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// The host's id: what /etc/machine-id says.
    pub id: String,
    /// The id of its boot: what /proc/sys/kernel/random/boot_id says.
    pub boot_id: String,
}

/// The ids of one process's spans.
#[derive(Clone)]
pub struct ProcessIds {
    /// The trace that its spans are in.
    pub trace_id: TraceId,
    /// The span that stands for the process.
    pub root_id: SpanId,
    /// The span of somebody else that caused the process, and the flags that it gave.
    pub parent: Option<(SpanId, u8)>,
    /// The beginning of every line about the process, digested.
    about: Context,
}

impl ProcessIds {
    /// The ids of a process, in the trace that it says it is in or else in one of its own.
    pub fn new(host: &Host, process: &Process, context: Option<TraceContext>) -> ProcessIds {
        let identity = process.identity();
        let about = format!("ttmem/{}/{}/{}/{}", host.id, host.boot_id, identity.pid, identity.start_ticks);
        let mut digest = Context::new(&SHA256);
        digest.update(about.as_bytes());
        let ids = ProcessIds {
            trace_id: context.map_or_else(|| first(digest.clone(), "/trace"), |context| context.trace_id),
            root_id: [0; 8],
            parent: context.map(|context| (context.parent_id, context.flags)),
            about: digest,
        };
        ProcessIds { root_id: ids.span(&format!("/process/{}", process.first_seen_ns())), ..ids }
    }

    /// The span of a buffer.
    pub fn buffer(&self, release: &Release) -> SpanId {
        let Release { device, id, allocated_ns, .. } = release;
        self.span(&format!("/buffer/{device}/{id}/{allocated_ns}"))
    }

    /// A span that is the only one of its kind that begins at that moment.
    pub fn moment(&self, kind: &str, at_ns: u64) -> SpanId {
        self.span(&format!("/{kind}/{at_ns}"))
    }

    fn span(&self, rest: &str) -> SpanId {
        first(self.about.clone(), rest)
    }
}

/// The first bytes of a line's digest. OpenTelemetry's ids are not all zero, which a digest is not either.
fn first<const BYTES: usize>(mut about: Context, rest: &str) -> [u8; BYTES] {
    about.update(rest.as_bytes());
    let digest = about.finish();
    std::array::from_fn(|index| digest.as_ref()[index])
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::{End, Identity, MemoryType, ProcessInfo, Registry, Source};

    fn process(pid: u32) -> Arc<Process> {
        let (uid, cgroup, start_time_seconds, source) = (0, None, None, Source::Socket);
        let (name, user) = ("model".into(), "root".into());
        let info = ProcessInfo {
            name,
            uid,
            user,
            cgroup,
            container: None,
            ns_pid: None,
            slurm: None,
            start_time_seconds,
            source,
        };
        Registry::new(0).process(Identity { pid, start_ticks: 123 }, 5_000_000_000, info)
    }

    fn ids(pid: u32, context: Option<TraceContext>) -> ProcessIds {
        let host = Host { name: "h".into(), id: "0123abcd".into(), boot_id: "11-22".into() };
        ProcessIds::new(&host, &process(pid), context)
    }

    fn buffer() -> Release {
        let (device, memory_type, end) = (3, MemoryType::Dram, End::Freed);
        Release {
            id: 4096,
            size_bytes: 1,
            allocated_ns: 6_000_000_000,
            released_ns: 7_000_000_000,
            device,
            memory_type,
            end,
        }
    }

    /// As docs/tracing.md computes them: `printf %s 'ttmem/0123abcd/11-22/42/123/trace' | sha256sum`, and so on.
    #[test]
    fn ids_are_what_sha256sum_says() {
        let ids = ids(42, None);
        assert_eq!(hex(&ids.trace_id), "70d0fd626e115398c67f286f2bd83d6f");
        assert_eq!(hex(&ids.root_id), "eda5587911801fe8");
        assert_eq!(hex(&ids.buffer(&buffer())), "0d68b539c4d93ab6");
        assert_eq!(hex(&ids.moment("interval", 5_000_000_000)), "1081bee9f4bf8859");
    }

    #[test]
    fn a_process_in_somebody_elses_trace_keeps_its_own_spans() {
        let context = TraceContext { trace_id: [7; 16], parent_id: [8; 8], flags: 1 };
        let (own, joined) = (ids(42, None), ids(42, Some(context)));
        assert_eq!((joined.trace_id, joined.parent), ([7; 16], Some(([8; 8], 1))));
        assert_eq!((own.root_id, own.parent), (joined.root_id, None));
        assert_ne!(ids(43, Some(context)).root_id, joined.root_id, "two processes of one trace");
    }
}
