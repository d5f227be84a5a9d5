//! Going on where the daemon before this one ended: with what it knew, and with the connections that were kept meanwhile.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{FileType, fstat};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

use super::apply::Applier;
use super::attribution::Attribution;
use super::conversation::Conversation;
use super::diary::Diary;
use super::peer::Peer;
use super::recovery::{SessionImage, State};
use super::ring::Rings;
use super::session::Session;
use super::stream::Stream;
use super::{Context, KeptConnection, now};

/// Goes on where the daemon before this one ended: its registry, its processes, and those of its connections that were kept.
pub(super) fn resume(
    context: &Arc<Context>,
    state: State,
    kept: Vec<KeptConnection>,
    threads: &[Handle],
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let State { registry, clients, sessions, .. } = state;
    context.registry.restore(registry, |stored, cgroup| context.processes.container(stored, cgroup))?;
    context.processes.restore(&clients)?;
    let mut connections: HashMap<String, Vec<OwnedFd>> = HashMap::new();
    for (name, descriptor) in kept {
        connections.entry(name).or_default().push(descriptor);
    }
    for (session, (number, thread)) in sessions.into_iter().zip(threads.iter().enumerate().cycle()) {
        let diary = Arc::new(context.diaries.reopen(number, session.number, true));
        // Where nobody has kept the connection it broke when the daemon ended.
        let going_on = Kept::of(connections.remove(&diary.name()).unwrap_or_default())
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
            .and_then(|kept| go_on(context, session, kept, Arc::clone(&diary), thread, stopping));
        if going_on.is_err() {
            diary.close(now(), false);
        }
    }
    for name in connections.into_keys() {
        // Nobody knows in the middle of which frame it is.
        warn!(name, "a connection was kept of which the journal knows nothing; it is closed");
        context.diaries.forget(&name);
    }
    context.processes.watch_restored();
    Ok(())
}

/// What was kept of one connection.
struct Kept {
    connection: OwnedFd,
    rings: Option<OwnedFd>,
    wake: Option<OwnedFd>,
}

impl Kept {
    /// All have one name, so each is known by what it is.
    fn of(descriptors: Vec<OwnedFd>) -> Option<Kept> {
        let (mut connection, mut rings, mut wake) = (None, None, None);
        for descriptor in descriptors {
            let kind = FileType::from_raw_mode(fstat(&descriptor).ok()?.st_mode);
            let place = match kind {
                FileType::Socket => &mut connection,
                FileType::RegularFile => &mut rings,
                _ => &mut wake,
            };
            *place = Some(descriptor);
        }
        Some(Kept { connection: connection?, rings, wake })
    }
}

/// Serves a connection again. An error is one of this connection's alone, which then is closed.
fn go_on(
    context: &Arc<Context>,
    session: SessionImage,
    kept: Kept,
    diary: Arc<Diary>,
    thread: &Handle,
    stopping: &watch::Receiver<bool>,
) -> io::Result<()> {
    let SessionImage { peer_pid, peer_uid, facts, claims, conversation, rings, .. } = session;
    let Kept { connection, rings: memory, wake } = kept;
    let stream = UnixStream::from(connection);
    stream.set_nonblocking(true)?;
    let pidfd = Peer::of(&stream).ok().filter(|peer| peer.pid == peer_pid).and_then(|peer| peer.pidfd);
    let peer = Peer { pid: peer_pid, uid: peer_uid, pidfd };
    let claims =
        claims.into_iter().filter_map(|(pid, identity)| Some((pid, context.processes.attach(identity)?)));
    let attribution =
        Attribution::restore(Arc::clone(context), peer, facts, claims.collect(), Arc::clone(&diary));
    let mut applier = Applier::new(Arc::clone(context), attribution);
    let rings = match (rings, memory, wake) {
        (None, None, None) => None,
        (Some(image), Some(memory), Some(wake)) => {
            let process = applier.peer_process(now())?;
            let _runtime = thread.enter();
            Some(Rings::restore(&context.ring_memory, process, peer_uid, &image, [memory, wake])?)
        }
        _ => return Err(io::Error::other("not all of the rings was kept")),
    };
    let conversation = Conversation::restore(Arc::clone(context), applier, conversation, now())?;
    if rings.is_some() && conversation.is_asked() {
        return Err(io::Error::other("nobody knows whether the client has its rings"));
    }
    context.clients.fetch_add(1, Relaxed);
    let (context, stopping) = (Arc::clone(context), stopping.clone());
    let place = context.places.keep(peer_uid);
    thread.spawn(async move {
        match Stream::new(stream) {
            Ok(stream) => {
                let session = Session::new(Arc::clone(&context), stream, conversation, diary);
                session.with_rings(rings).run(stopping).await;
            }
            Err(error) => context.refuse(&error.into()),
        }
        drop(place);
        context.clients.fetch_sub(1, Relaxed);
    });
    Ok(())
}
