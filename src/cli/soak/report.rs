//! One report of a simulated process: as text on its way to the worker, and from there as a frame or a call of the library.

use anyhow::{Context, bail};
use ttmem_client::Client;
use ttmem_wire::{BufferType, FREED_BY_CLOSE, Header, KernelKind, Kind, Layout};

/// The memory that buffers lie in, by the number that a report has for it, and what the API calls it.
pub(super) const MEMORY: [(BufferType, &str); 4] = [
    (BufferType::Dram, "dram"),
    (BufferType::L1, "l1"),
    (BufferType::L1Small, "l1_small"),
    (BufferType::Trace, "trace"),
];
/// What is accounted by size alone.
pub(super) const CIRCULAR_BUFFER: &str = "cb";
/// The same for kernels.
pub(super) const KERNEL: &str = "kernel";

const KINDS: [Kind; 6] =
    [Kind::Alloc, Kind::Free, Kind::CbAlloc, Kind::CbFree, Kind::KernelLoad, Kind::KernelUnload];

/// What a process says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Report {
    pub(super) kind: Kind,
    pub(super) device: i32,
    /// An index of [`MEMORY`]; any other value goes out as it is.
    pub(super) memory: u8,
    pub(super) buffer_id: u64,
    pub(super) size_bytes: u64,
}

impl Report {
    /// One that says nothing beside its kind and device.
    pub(super) fn about(kind: Kind, device: i32) -> Report {
        Report { kind, device, memory: 0, buffer_id: 0, size_bytes: 0 }
    }

    pub(super) fn text(&self) -> String {
        let Report { kind, device, memory, buffer_id, size_bytes } = *self;
        format!("{}:{device}:{memory}:{buffer_id}:{size_bytes}", kind as u8)
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Report> {
        let mut parts = text.split(':');
        let mut next = || parts.next().with_context(|| format!("a report is cut short: {text}"));
        let kind: u8 = next()?.parse()?;
        let kind = KINDS.into_iter().find(|known| *known as u8 == kind);
        Ok(Report {
            kind: kind.with_context(|| format!("no report: {text}"))?,
            device: next()?.parse()?,
            memory: next()?.parse()?,
            buffer_id: next()?.parse()?,
            size_bytes: next()?.parse()?,
        })
    }

    /// The frame's header, by a process that names itself.
    pub(super) fn header(&self, layout: Layout, process_id: i32) -> Header {
        let memory = MEMORY.get(usize::from(self.memory)).filter(|_| self.kind == Kind::Alloc);
        let numbered = memory.and_then(|(buffer_type, _)| layout.buffer_types().encode(*buffer_type));
        Header {
            device_id: self.device,
            size_bytes: self.size_bytes,
            buffer_type: numbered.unwrap_or(self.memory),
            process_id,
            buffer_id: self.buffer_id,
            ..Header::request(self.kind)
        }
    }

    /// Says it through the library.
    pub(super) fn call(&self, client: &Client) -> anyhow::Result<()> {
        let device = u16::try_from(self.device)?;
        let (id, size_bytes) = (self.buffer_id, self.size_bytes);
        match self.kind {
            Kind::Alloc => {
                let memory =
                    MEMORY.get(usize::from(self.memory)).context("the library knows no such memory")?;
                client.allocated(device, memory.0, id, size_bytes);
            }
            Kind::Free if self.memory == FREED_BY_CLOSE => client.freed_by_close(device, id),
            Kind::Free => client.freed(device, id),
            Kind::CbAlloc => client.circular_buffer_allocated(device, size_bytes),
            Kind::CbFree => client.circular_buffer_freed(device, size_bytes),
            Kind::KernelLoad => client.kernel_loaded(device, KernelKind::Application, size_bytes),
            Kind::KernelUnload => client.kernel_unloaded(device, KernelKind::Application, size_bytes),
            _ => bail!("the library does not say {:?}", self.kind),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_out_of_its_text() {
        let report = Report {
            kind: Kind::Free,
            device: -3,
            memory: FREED_BY_CLOSE,
            buffer_id: u64::MAX,
            size_bytes: 7,
        };
        assert_eq!(Report::parse(&report.text()).expect("its own text"), report);
        for wrong in ["", "1:2", "3:0:0:0:0", "1:0:256:0:0"] {
            assert!(Report::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_is_numbered_as_the_layout_does() {
        let trace = Report { memory: 3, ..Report::about(Kind::Alloc, 0) };
        assert_eq!(trace.header(Layout::Bytes72, 0).buffer_type, 3);
        assert_eq!(trace.header(Layout::Bytes144, 0).buffer_type, 4);
        let free = Report { memory: FREED_BY_CLOSE, ..Report::about(Kind::Free, 0) };
        assert_eq!(free.header(Layout::Bytes144, 0).buffer_type, FREED_BY_CLOSE);
    }
}
