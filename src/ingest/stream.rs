//! A client's socket that wakes its session for what the client sends, and for nothing else.
//!
//! The idea: an event loop that also watches for room to write is woken whenever a client reads its answer, once for every query. So
//! only reading is watched, and writing for as long as an answer does not fit.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyMutGuard};
use ttmem_wire::DESCRIPTORS_MAX;

use super::diary::Diary;
use super::session::now;
use crate::journal::Journalled;
use crate::registry::Time;

/// A connected, non-blocking socket.
pub(super) struct Stream(AsyncFd<UnixStream>);

impl Stream {
    /// Gives a non-blocking socket to the event loop of this thread.
    pub(super) fn new(stream: UnixStream) -> io::Result<Stream> {
        watch(stream, Interest::READABLE).map(Stream)
    }

    /// What is to be read, or has the task woken when there is something.
    pub(super) fn poll_readable(&mut self, task: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        self.0.poll_read_ready_mut(task).map_ok(Readable)
    }

    /// Reads what there is, whether the event loop has noticed it already or not.
    pub(super) fn try_read(&self, space: &mut [u8], diary: &Diary) -> io::Result<Received> {
        take(self.0.get_ref(), space, diary).map(|taken| taken.received)
    }

    /// What the connection is kept by beyond this daemon's end.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Writes as much as fits, waiting for room where there is none.
    pub(super) async fn write(&self, bytes: &[u8], diary: &Diary) -> io::Result<usize> {
        loop {
            match self.try_write(bytes, diary) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room().await?,
                outcome => return outcome,
            }
        }
    }

    /// Writes a whole message with descriptors, which come with its first byte.
    pub(super) async fn write_with(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut written = loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(descriptors));
            }
            match sendmsg(self.0.get_ref(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
                Ok(written) => break written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room().await?,
                Err(error) => return Err(error.into()),
            }
        };
        while written < bytes.len() {
            written += self.write(&bytes[written..], &Diary::default()).await?;
        }
        Ok(())
    }

    async fn wait_for_room(&self) -> io::Result<()> {
        let for_writing = OwnedFd::from(self.0.get_ref().try_clone()?);
        let _ = watch(for_writing, Interest::WRITABLE)?.writable().await?;
        Ok(())
    }

    /// Writes as much as fits.
    pub(super) fn try_write(&self, bytes: &[u8], diary: &Diary) -> io::Result<usize> {
        match diary.send(self.descriptor(), bytes) {
            Some(outcome) => outcome,
            None => self.0.get_ref().write(bytes),
        }
    }
}

/// A socket of which the event loop has heard that it can be read.
pub(super) struct Readable<'a>(AsyncFdReadyMutGuard<'a, UnixStream>);

impl Readable<'_> {
    /// Reads what there is; `None` if that has been read already.
    pub(super) fn read(mut self, space: &mut [u8], diary: &Diary) -> Option<io::Result<Received>> {
        let taken = match self.0.try_io(|stream| take(stream.get_ref(), space, diary)).ok()? {
            Ok(taken) => taken,
            Err(error) => return Some(Err(error)),
        };
        if (1..space.len()).contains(&taken.received.bytes) && !taken.is_cut {
            // The queue was emptied; asking once more only to hear so would cost a system call.
            self.0.clear_ready();
        }
        Some(Ok(taken.received))
    }
}

/// What a read came to.
pub(super) struct Received {
    /// How many bytes; 0 at the end.
    pub(super) bytes: usize,
    /// Their place in the journal, where there is one.
    pub(super) order: Option<u64>,
    /// When they were read.
    pub(super) time: Time,
}

struct Taken {
    received: Received,
    /// The kernel ends a read behind descriptors that the peer attached, though there may be more. They are nobody's and are closed.
    is_cut: bool,
}

/// Reads through the journal where there is one.
fn take(stream: &UnixStream, space: &mut [u8], diary: &Diary) -> io::Result<Taken> {
    match diary.receive(stream.as_fd(), space) {
        Some(received) => received.map(|(Journalled { bytes, is_cut, order }, time)| {
            let received = Received { bytes, order: Some(order), time };
            Taken { received, is_cut }
        }),
        None => receive(stream, space),
    }
}

fn receive(stream: &UnixStream, space: &mut [u8]) -> io::Result<Taken> {
    let (mut space, mut descriptors) = ([IoSliceMut::new(space)], RecvAncillaryBuffer::default());
    let received = recvmsg(stream, &mut space, &mut descriptors, RecvFlags::empty())?;
    let is_cut = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Taken { received: Received { bytes: received.bytes, order: None, time: now() }, is_cut })
}

/// Registers something that owns its descriptor with the event loop of this thread.
pub(super) fn watch<T: AsRawFd + OwnsDescriptor>(
    descriptor: T,
    interest: Interest,
) -> io::Result<AsyncFd<T>> {
    #[allow(
        unsafe_code,
        reason = "the only way to watch a descriptor for one direction, or one that is no socket"
    )]
    // SAFETY: what is registered owns its descriptor and keeps the same one open until it is dropped; the AsyncFd owns it, and
    // deregisters it first.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    watched.map_err(io::Error::from)
}

/// Owns one descriptor for as long as it lives.
pub(super) trait OwnsDescriptor {}

impl OwnsDescriptor for UnixStream {}
impl OwnsDescriptor for OwnedFd {}
impl OwnsDescriptor for Arc<OwnedFd> {}
