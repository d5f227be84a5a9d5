//! The stats pages of a daemon on this host: asked for over its socket once, and read from memory from then on.
//!
//! The idea is that the connection stays open and says nothing more: that it ends is how a monitor learns that its pages are of a daemon
//! that is gone.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recv, recvmsg};
use ttmem_wire::stats::{DevicePage, PageError, ProcessPage};
use ttmem_wire::{
    DESCRIPTORS_MAX, DescriptorKind, FRAME_BYTES_MAX, Features, Hello, HelloReply, Layout, ReplyError,
    encode_request,
};

use crate::mapping::View;

/// How long a daemon may take to answer. One that is older does not, and whoever asked has another way.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Why a daemon's pages cannot be read. There is always another way to ask: over HTTP, or with a QUERY.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Nobody listens, or this user may not connect.
    #[error("no daemon answers: {0}")]
    Unreachable(#[source] io::Error),
    /// The daemon is older, or is no daemon at all.
    #[error("the daemon does not answer; is it of this version?")]
    NotAnswered(#[source] io::Error),
    /// What was answered is no answer.
    #[error("the daemon answers something else: {0}")]
    Answer(#[from] ReplyError),
    /// The daemon has no pages: its system makes no sealed memory.
    #[error("the daemon hands out no stats page")]
    NoPage,
    /// What was handed over cannot be mapped.
    #[error("the stats page cannot be mapped: {0}")]
    Mapping(#[source] io::Error),
    /// What was mapped is no page.
    #[error(transparent)]
    Page(#[from] PageError),
}

/// A daemon's pages.
pub struct Monitor {
    connection: UnixStream,
    devices: View,
    /// Not given to those who cannot see the host's processes.
    processes: Option<View>,
}

impl Monitor {
    /// Asks the daemon at a socket for its pages, and maps them.
    pub fn connect(socket: &Path) -> Result<Monitor, MonitorError> {
        let mut connection = UnixStream::connect(socket).map_err(MonitorError::Unreachable)?;
        let (reply, descriptors) = ask(&mut connection).map_err(MonitorError::NotAnswered)?;
        let reply = HelloReply::decode(&reply)?;
        let mapped = |wanted: DescriptorKind| {
            let mut handed_over = reply.descriptors().iter().zip(&descriptors);
            let found = handed_over.find(|(listed, _)| listed.kind == Some(wanted));
            found.map(|(_, descriptor)| View::map(descriptor.as_fd())).transpose()
        };
        let devices = mapped(DescriptorKind::DevicePage).map_err(MonitorError::Mapping)?;
        let devices = devices.ok_or(MonitorError::NoPage)?;
        let processes = mapped(DescriptorKind::ProcessPage).map_err(MonitorError::Mapping)?;
        let monitor = Monitor { connection, devices, processes };
        monitor.devices()?;
        monitor.processes()?;
        Ok(monitor)
    }

    /// Whether the daemon still runs.
    pub fn is_connected(&self) -> bool {
        let mut byte = [0];
        let received = recv(&self.connection, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(received, Err(Errno::AGAIN | Errno::INTR))
    }

    /// What devices hold.
    pub fn devices(&self) -> Result<DevicePage<'_>, PageError> {
        DevicePage::open(self.devices.words())
    }

    /// What processes hold, if this process may know.
    pub fn processes(&self) -> Result<Option<ProcessPage<'_>>, PageError> {
        self.processes.as_ref().map(|page| ProcessPage::open(page.words())).transpose()
    }
}

/// The answer to a HELLO, and the descriptors that came with it.
fn ask(connection: &mut UnixStream) -> io::Result<([u8; FRAME_BYTES_MAX], Vec<OwnedFd>)> {
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let hello = Hello::Ask { features: Features::STATS_PAGE, rings: 0, records: 0 };
    connection.write_all(&encode_request(&hello.header(), Layout::Bytes144))?;
    let mut reply = [0; FRAME_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&*connection, &mut [IoSliceMut::new(&mut reply)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    connection.read_exact(&mut reply[received.bytes..])?;
    Ok((reply, descriptors))
}
