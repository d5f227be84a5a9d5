//! A worker's connection to the daemon: frames in the manner of one of the field's clients, and a new connection when it breaks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ttmem_wire::{Header, Kind, Layout, Reply, encode_request};

use super::holdings::{Event, Holdings, Memory, Piece};
use super::workload::DEVICE_DRAM_BYTES;

/// The first pause before another attempt to connect; each failure doubles it.
const RETRY_SHORTEST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// A daemon that neither reads nor answers for so long is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whose habits the frames follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// The client inside tt-metal: every field is filled.
    Metal,
    /// The Python client: a free names device 0, whatever device the buffer is on.
    Python,
    /// The first client: a free carries the buffer's id and nothing else.
    Seed,
}

/// Reports to the daemon for as long as there is one.
pub(super) struct Reporter {
    socket: PathBuf,
    dialect: Dialect,
    pid: i32,
    stream: Option<UnixStream>,
    /// What a daemon has been told is held, and may believe still.
    told: BTreeMap<u64, Piece>,
    retry_at: Instant,
    retry_pause: Duration,
}

impl Reporter {
    pub(super) fn new(socket: PathBuf, dialect: Dialect) -> Self {
        Self {
            socket,
            dialect,
            pid: rustix::process::getpid().as_raw_pid(),
            stream: None,
            told: BTreeMap::new(),
            retry_at: Instant::now(),
            retry_pause: RETRY_SHORTEST,
        }
    }

    /// Reports what happened since the last time, or, on a new connection, everything that is held.
    pub(super) fn report(&mut self, holdings: &mut Holdings) {
        let events = holdings.take_events();
        let result = match self.stream.take() {
            Some(stream) => self.send(&stream, events).map(|()| Some(stream)),
            None if Instant::now() < self.retry_at => Ok(None),
            None => self.connect(holdings).map(Some),
        };
        match result {
            Ok(stream) => self.stream = stream,
            Err(_) => {
                self.retry_at = Instant::now() + self.retry_pause;
                self.retry_pause = (self.retry_pause * 2).min(RETRY_LONGEST);
            }
        }
    }

    /// Connects and reports everything that is held.
    ///
    /// After a break the daemon may have forgotten this process or not. To release first what it was told before is right either way:
    /// one that has forgotten ignores it. All of it comes first, because circular buffers and kernels are only sums to the daemon.
    fn connect(&mut self, holdings: &Holdings) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let released: Vec<Event> = self.told.values().copied().map(Event::Released).collect();
        self.send(&stream, released)?;
        self.send(&stream, holdings.live().copied().map(Event::Taken))?;
        self.retry_pause = RETRY_SHORTEST;
        Ok(stream)
    }

    fn send(&mut self, mut stream: &UnixStream, events: impl IntoIterator<Item = Event>) -> io::Result<()> {
        for event in events {
            let Some(mut header) = self.header(event) else { continue };
            if let Event::Refused(piece) = event {
                // What is free lies in one block, as far as a demonstration knows.
                let free_bytes = self.free_dram_bytes(stream, piece.device)?;
                (header.buffer_id, header.timestamp_ns) = (free_bytes, free_bytes);
            }
            // When the connection breaks in between, nobody knows whether the last event arrived: the piece counts as told.
            if let Event::Taken(piece) = event {
                self.told.insert(piece.id, piece);
            }
            stream.write_all(&encode_request(&header, self.dialect.layout()))?;
            if let Event::Released(piece) = event {
                self.told.remove(&piece.id);
            }
        }
        Ok(())
    }

    /// What all processes together leave of a device's DRAM.
    fn free_dram_bytes(&self, mut stream: &UnixStream, device: u16) -> io::Result<u64> {
        let layout = self.dialect.layout();
        let query = Header { device_id: i32::from(device), ..Header::request(Kind::Query) };
        stream.write_all(&encode_request(&query, layout))?;
        let mut answer = vec![0; layout.frame_bytes()];
        stream.read_exact(&mut answer)?;
        let reply = Reply::decode(&answer, layout)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        Ok(DEVICE_DRAM_BYTES.saturating_sub(reply.totals.dram_bytes + reply.totals.trace_bytes))
    }

    /// The frame's header; `None` for what this client has no words for.
    fn header(&self, event: Event) -> Option<Header> {
        let (Event::Taken(piece) | Event::Released(piece) | Event::Refused(piece)) = event;
        let kind = self.dialect.kind(event)?;
        let Piece { id, device, memory, size_bytes } = piece;
        let full = Header {
            device_id: i32::from(device),
            size_bytes,
            buffer_type: match memory {
                Memory::Buffer(buffer_type) => self.dialect.layout().buffer_types().encode(buffer_type)?,
                Memory::CircularBuffer => 0,
                Memory::Kernel(kind) => kind.encode(),
            },
            process_id: self.pid,
            buffer_id: id,
            timestamp_ns: since_epoch_ns(),
            ..Header::request(kind)
        };
        let named = Header { buffer_id: id, ..Header::request(kind) };
        Some(match (kind, self.dialect) {
            (Kind::Free, Dialect::Metal) => {
                Header { device_id: full.device_id, process_id: self.pid, ..named }
            }
            (Kind::Free, Dialect::Python) => Header { process_id: self.pid, ..named },
            (Kind::Free, Dialect::Seed) => named,
            _ => full,
        })
    }
}

impl Dialect {
    fn layout(self) -> Layout {
        match self {
            Self::Metal => Layout::Bytes144,
            Self::Python => Layout::Bytes112,
            Self::Seed => Layout::Bytes72,
        }
    }

    /// The message for an event; only tt-metal's own client speaks of circular buffers and kernels.
    fn kind(self, event: Event) -> Option<Kind> {
        let (Event::Taken(piece) | Event::Released(piece) | Event::Refused(piece)) = event;
        let taken = matches!(event, Event::Taken(_));
        match piece.memory {
            _ if matches!(event, Event::Refused(_)) => Some(Kind::AllocationFailed),
            Memory::Buffer(_) => Some(if taken { Kind::Alloc } else { Kind::Free }),
            _ if self != Self::Metal => None,
            Memory::CircularBuffer => Some(if taken { Kind::CbAlloc } else { Kind::CbFree }),
            Memory::Kernel(_) => Some(if taken { Kind::KernelLoad } else { Kind::KernelUnload }),
        }
    }
}

fn since_epoch_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use ttmem_wire::{BufferType, KernelKind};

    use super::*;

    fn piece(memory: Memory) -> Piece {
        Piece { id: 0x40, device: 1, memory, size_bytes: 4096 }
    }

    fn header(dialect: Dialect, event: Event) -> Option<Header> {
        Reporter { pid: 42, ..Reporter::new(PathBuf::new(), dialect) }.header(event)
    }

    #[test]
    fn a_new_connection_takes_back_what_the_last_one_said() {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        let mut reporter = Reporter::new(PathBuf::new(), Dialect::Metal);
        let (kept, gone) =
            (piece(Memory::CircularBuffer), Piece { id: 0x80, ..piece(Memory::CircularBuffer) });
        reporter.send(&near, [Event::Taken(kept), Event::Taken(gone), Event::Released(gone)]).expect("sent");
        drop(far);
        assert!(reporter.send(&near, [Event::Taken(gone)]).is_err());
        assert_eq!(reporter.told.keys().collect::<Vec<_>>(), [&kept.id, &gone.id]);
    }

    #[test]
    fn each_client_frees_in_its_own_way() {
        let freed = Event::Released(piece(Memory::Buffer(BufferType::L1Small)));
        let named = Header { buffer_id: 0x40, ..Header::request(Kind::Free) };
        for (dialect, expected) in [
            (Dialect::Metal, Header { device_id: 1, process_id: 42, ..named }),
            (Dialect::Python, Header { process_id: 42, ..named }),
            (Dialect::Seed, named),
        ] {
            assert_eq!(header(dialect, freed), Some(expected));
        }
    }

    #[test]
    fn each_client_numbers_memory_in_its_own_way() {
        let taken = Event::Taken(piece(Memory::Buffer(BufferType::L1Small)));
        for (dialect, expected) in [(Dialect::Metal, 3), (Dialect::Python, 2), (Dialect::Seed, 2)] {
            assert_eq!(header(dialect, taken).map(|header| header.buffer_type), Some(expected));
        }
    }

    #[test]
    fn kernels_and_circular_buffers_carry_their_size_both_ways() {
        for (memory, taken, released) in [
            (Memory::CircularBuffer, Kind::CbAlloc, Kind::CbFree),
            (Memory::Kernel(KernelKind::Fabric), Kind::KernelLoad, Kind::KernelUnload),
        ] {
            let piece = piece(memory);
            for (event, kind) in [(Event::Taken(piece), taken), (Event::Released(piece), released)] {
                let header = header(Dialect::Metal, event).expect("tt-metal has words for everything");
                assert_eq!((header.kind, header.size_bytes), (kind, 4096));
            }
            assert_eq!(header(Dialect::Python, Event::Taken(piece)), None);
        }
    }
}
