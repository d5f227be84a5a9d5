//! A client's socket that wakes its session for what the client sends, and for nothing else.
//!
//! The idea: an event loop that also watches for room to write is woken whenever a client reads its answer, once for every query. So
//! only reading is watched, and writing for as long as an answer does not fit.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// A connected, non-blocking socket.
pub(super) struct Stream(AsyncFd<UnixStream>);

impl Stream {
    /// Gives a non-blocking socket to the event loop of this thread.
    pub(super) fn new(stream: UnixStream) -> io::Result<Stream> {
        watch(stream, Interest::READABLE).map(Stream)
    }

    pub(super) fn poll_read(
        &mut self,
        task: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(task))?;
            let unfilled = space.initialize_unfilled();
            let room = unfilled.len();
            let Ok(outcome) = ready.try_io(|stream| stream.get_ref().read(unfilled)) else { continue };
            let read = outcome?;
            if (1..room).contains(&read) {
                // The queue was emptied; asking once more only to hear so would cost a system call.
                ready.clear_ready();
            }
            space.advance(read);
            return Poll::Ready(Ok(()));
        }
    }

    /// Writes all, waiting for room where there is none.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let for_writing = OwnedFd::from(self.0.get_ref().try_clone()?);
                    let _ = watch(for_writing, Interest::WRITABLE)?.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes as much as fits.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_ref().write(bytes)
    }
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
