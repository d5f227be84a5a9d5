//! The stats pages of a server on this host: asked for over its socket once, and read from memory from then on.
//!
//! The idea is that the connection stays open and says nothing more: that it ends is how a monitor learns that its pages are of a server
//! that is gone.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ttmem_wire::stats::{DevicePage, PageError, ProcessPage};
use ttmem_wire::{DescriptorKind, FRAME_BYTES_MAX, Features, Hello, HelloReply, Layout, ReplyError};

use crate::connection::{Waiting, is_open, receive_with};
use crate::mapping::Mapping;

/// How long a server may take to answer. One that is older does not, and whoever asked has another way.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a server's pages cannot be read. There is always another way to ask: over HTTP, or with a QUERY.
#[derive(Debug)]
pub enum MonitorError {
    /// Nobody listens, or this user may not connect.
    Unreachable(io::Error),
    /// The server is older, or is no ttmem at all.
    NotAnswered(io::Error),
    /// What was answered is no answer.
    Answer(ReplyError),
    /// The server has no pages: its system makes no sealed memory.
    NoPage,
    /// What was handed over cannot be mapped.
    Mapping(io::Error),
    /// What was mapped is no page.
    Page(PageError),
}

impl fmt::Display for MonitorError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorError::Unreachable(error) => write!(formatter, "no daemon answers: {error}"),
            MonitorError::NotAnswered(_) => {
                write!(formatter, "the daemon does not answer; is it of this version?")
            }
            MonitorError::Answer(error) => write!(formatter, "the daemon answers something else: {error}"),
            MonitorError::NoPage => write!(formatter, "the daemon hands out no stats page"),
            MonitorError::Mapping(error) => write!(formatter, "the stats page cannot be mapped: {error}"),
            MonitorError::Page(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for MonitorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MonitorError::Unreachable(error)
            | MonitorError::NotAnswered(error)
            | MonitorError::Mapping(error) => Some(error),
            MonitorError::Answer(error) => Some(error),
            MonitorError::NoPage | MonitorError::Page(_) => None,
        }
    }
}

impl From<PageError> for MonitorError {
    fn from(error: PageError) -> MonitorError {
        MonitorError::Page(error)
    }
}

/// A server's pages: what every device and every process holds, without asking anybody.
///
/// ```no_run
/// use ttmem_client::{DEFAULT_SOCKET_PATH, Monitor};
///
/// let monitor = Monitor::connect(DEFAULT_SOCKET_PATH)?;
/// let totals = monitor.devices()?.totals(0)?;
/// println!("device 0 holds {} bytes of DRAM", totals.map_or(0, |totals| totals.dram_bytes));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Monitor {
    connection: UnixStream,
    devices: Mapping,
    /// Not given to those who cannot see the host's processes.
    processes: Option<Mapping>,
}

impl Monitor {
    /// Asks the server at a socket for its pages, and maps them.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Monitor, MonitorError> {
        let mut connection = UnixStream::connect(socket).map_err(MonitorError::Unreachable)?;
        let (reply, descriptors) = ask(&mut connection).map_err(MonitorError::NotAnswered)?;
        let reply = HelloReply::decode(&reply).map_err(MonitorError::Answer)?;
        let mapped = |wanted: DescriptorKind| {
            let mut handed_over = reply.descriptors().iter().zip(&descriptors);
            let found = handed_over.find(|(listed, _)| listed.kind == Some(wanted));
            found.map(|(_, descriptor)| Mapping::for_reading(descriptor.as_fd())).transpose()
        };
        let devices = mapped(DescriptorKind::DevicePage).map_err(MonitorError::Mapping)?;
        let devices = devices.ok_or(MonitorError::NoPage)?;
        let processes = mapped(DescriptorKind::ProcessPage).map_err(MonitorError::Mapping)?;
        let monitor = Monitor { connection, devices, processes };
        monitor.devices()?;
        monitor.processes()?;
        Ok(monitor)
    }

    /// Whether the server still runs. If not, its pages stay as they were; connect again to find the next one.
    pub fn is_connected(&self) -> bool {
        is_open(&self.connection)
    }

    /// What devices hold.
    pub fn devices(&self) -> Result<DevicePage<'_>, PageError> {
        DevicePage::open(self.devices.words())
    }

    /// What processes hold, if this process may know: one in a pid namespace of its own does not learn who else is on the host.
    pub fn processes(&self) -> Result<Option<ProcessPage<'_>>, PageError> {
        self.processes.as_ref().map(|page| ProcessPage::open(page.words())).transpose()
    }
}

/// The answer to a HELLO, and the descriptors that came with it.
fn ask(connection: &mut UnixStream) -> io::Result<([u8; FRAME_BYTES_MAX], Vec<OwnedFd>)> {
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let hello = Hello::Ask { features: Features::STATS_PAGE, rings: 0, records: 0, client: 0 };
    connection.write_all(&ttmem_wire::encode_request(&hello.header(), Layout::Bytes144))?;
    let mut reply = [0; FRAME_BYTES_MAX];
    let mut descriptors = Vec::new();
    let received = receive_with(connection, &mut reply, &mut descriptors, Waiting::UntilTimeout)?;
    connection.read_exact(&mut reply[received..])?;
    Ok((reply, descriptors))
}
