//! What is held, told to a server that does not know it: in pieces, because it may be much more than a socket takes at once.
//!
//! The idea is that the process goes on meanwhile. What it reports of a buffer that has not been told yet is not told by itself: the
//! buffer is, as it then is. So only the names of those that are still to be told are remembered, a ninth of what their frames take.

use ttmem_wire::{Header, Kind};

use super::{Buffer, Holdings};

impl Holdings {
    /// Begins to tell everything, and gives what is told at once: all but the buffers.
    pub(crate) fn begin_replay(&mut self) -> impl Iterator<Item = Header> {
        self.buffers.values_mut().for_each(|buffer| buffer.is_told = false);
        self.untold = self.buffers.keys().copied().collect();
        let by_size = self.by_size.iter().flat_map(|(&(device_id, kind, buffer_type), &(bytes, blocks))| {
            let kind = if kind == Kind::CbAlloc as u8 { Kind::CbAlloc } else { Kind::KernelLoad };
            // Which sizes they had is forgotten; how many they are and how much together is not.
            (0..blocks).map(move |block| {
                let size_bytes = bytes / blocks + if block == 0 { bytes % blocks } else { 0 };
                Header { device_id, buffer_type, size_bytes, ..Header::request(kind) }
            })
        });
        self.said.iter().copied().chain(by_size)
    }

    /// The reports of the next buffer that is still to be told: one for each reference, perhaps none.
    pub(crate) fn replay_next(&mut self) -> Option<impl Iterator<Item = Header> + use<>> {
        let key @ (device_id, buffer_id) = self.untold.pop()?;
        // It may have been freed meanwhile, and another may have its name, which has been told.
        let buffer = self.buffers.get_mut(&key).filter(|buffer| !buffer.is_told);
        let (header, references) = match buffer {
            Some(buffer) => {
                buffer.is_told = true;
                let Buffer { size_bytes, buffer_type, references, .. } = *buffer;
                let alloc = Header::request(Kind::Alloc);
                (Header { device_id, buffer_id, size_bytes, buffer_type, ..alloc }, references)
            }
            None => (Header::request(Kind::Alloc), 0),
        };
        Some(std::iter::repeat_n(header, references as usize))
    }

    /// Whether buffers are still to be told.
    pub(crate) fn is_replaying(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Nobody is there any more to be told.
    pub(crate) fn end_replay(&mut self) {
        self.untold = Vec::new();
    }

    /// Whether a report, which has not been applied yet, is not to be told: it will show in the buffer that it is about.
    pub(crate) fn withholds(&self, header: &Header) -> bool {
        let is_untold = |device_id| {
            let known = self.buffers.get(&(device_id, header.buffer_id));
            known.is_some_and(|buffer| !buffer.is_told)
        };
        self.is_replaying()
            && match header.kind {
                Kind::Alloc => is_untold(header.device_id),
                // The server does not know yet which others have the id, so it would not find out that none is meant.
                Kind::Free => self.device_of(header).is_none_or(is_untold),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{buffer, everything};
    use super::*;

    /// Buffers at the beginning, and names that are in use by then and later.
    const BUFFERS: u64 = 300;
    const NAMES: u64 = 400;

    /// What a server holds, which hears what is told while the process goes on, `reports` reports for each piece.
    fn check(reports: u64) {
        let (mut holdings, mut server) = (Holdings::default(), Holdings::default());
        for id in 0..BUFFERS {
            let device_id = 1 + id as i32 % 2;
            holdings
                .apply(&Header { device_id, ..buffer(Kind::Alloc, id, 100 + id % 3, (id % 3 / 2) as u8) });
        }
        holdings.apply(&buffer(Kind::CbAlloc, 0, 77, 0));
        holdings.begin_replay().for_each(|header| server.apply(&header));
        let mut random = 1_u64;
        let mut pieces = 0;
        while let Some(told) = holdings.replay_next() {
            told.for_each(|header| server.apply(&header));
            pieces += 1;
            for _ in 0..reports {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (id, size_bytes) = ((random >> 33) % NAMES, 100 + (random >> 50) % 4);
                let kind = if random >> 63 == 0 { Kind::Alloc } else { Kind::Free };
                // Some frees name a device that has no buffers; then it may be that two others have that one.
                let device_id = (random >> 61 & 3) as i32 % if kind == Kind::Free { 3 } else { 2 };
                let device_id = if kind == Kind::Free { device_id } else { 1 + device_id };
                let report = Header { device_id, ..buffer(kind, id, size_bytes, 0) };
                if !holdings.withholds(&report) {
                    server.apply(&report);
                }
                holdings.apply(&report);
            }
        }
        assert_eq!(pieces, BUFFERS, "each is told once");
        assert!(!holdings.is_replaying());
        assert_eq!(everything(&server), everything(&holdings));
    }

    #[test]
    fn a_server_knows_it_all_whatever_happens_while_it_is_told() {
        [0, 1, 7].into_iter().for_each(check);
    }

    #[test]
    fn what_is_told_by_itself_is_not_told_again() {
        let mut holdings = Holdings::default();
        holdings.apply(&buffer(Kind::Alloc, 7, 100, 0));
        assert_eq!(holdings.begin_replay().count(), 0);
        assert!(holdings.withholds(&buffer(Kind::Free, 7, 0, 0)));
        holdings.apply(&buffer(Kind::Free, 7, 0, 0));
        assert!(!holdings.withholds(&buffer(Kind::Alloc, 7, 50, 0)), "another of that name");
        holdings.apply(&buffer(Kind::Alloc, 7, 50, 0));
        assert_eq!(holdings.replay_next().map(Iterator::count), Some(0));
        assert!(holdings.replay_next().is_none());
    }
}
