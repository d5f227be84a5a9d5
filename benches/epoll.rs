//! The bare event loop: the plain server's answers, by one thread that waits for all its clients at once.
//!
//! The idea is to know what an event loop costs a question before anything is done with it: epoll_wait(), recv() and send(), and nothing
//! that could be left out. What the daemon takes beyond this is its own.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::ensure;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{RecvFlags, recv};

use super::seed::{AllocationServer, FRAME_BYTES, Lines};

/// Whole frames alone: a sender's frames arrive as they were sent, so a read that has room for a multiple of them cuts none.
const READ_BYTES: usize = 512 * FRAME_BYTES;
/// As many as an event loop is told of at once.
const EVENTS_MAX: usize = 1024;
/// What the listener's events are called; a client's are called after its place.
const LISTENER: u64 = u64::MAX;

/// Serves any number of clients until the process is ended.
pub(super) fn serve(socket: &Path) -> anyhow::Result<()> {
    let server = AllocationServer::new(Lines::Omitted);
    let listener = UnixListener::bind(socket)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut clients: Vec<Option<UnixStream>> = Vec::new();
    let (mut events, mut buffer) = (Vec::with_capacity(EVENTS_MAX), vec![0; READ_BYTES]);
    loop {
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            match event.data.u64() {
                LISTENER => clients.push(Some(accept(&epoll, &listener, clients.len())?)),
                place => {
                    let client = &mut clients[place as usize];
                    if client.as_mut().is_some_and(|client| converse(&server, client, &mut buffer).is_err()) {
                        *client = None;
                    }
                }
            }
        }
    }
}

fn accept(epoll: &OwnedFd, listener: &UnixListener, place: usize) -> anyhow::Result<UnixStream> {
    let (client, _) = listener.accept()?;
    epoll::add(epoll, &client, EventData::new_u64(place as u64), EventFlags::IN)?;
    Ok(client)
}

/// One read, and the answers to it. A client that goes away is an error, whatever the reason.
fn converse(server: &AllocationServer, client: &mut UnixStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let (received, _) = recv(&*client, &mut *buffer, RecvFlags::empty())?;
    let (frames, rest) = buffer[..received].as_chunks::<FRAME_BYTES>();
    ensure!(!frames.is_empty() && rest.is_empty(), "the client has gone, or has sent half a frame");
    for frame in frames {
        if let Some(answer) = server.act(frame) {
            client.write_all(&answer)?;
        }
    }
    Ok(())
}
