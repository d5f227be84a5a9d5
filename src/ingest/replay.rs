//! Frames applied without a socket, as a session of this very process would: what the instruction gate counts.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use ttmem_wire::Layout;

use super::apply::{Applier, Fault};
use super::diary::Diaries;
use super::peer::{Peer, PeerError};
use super::recovery::Quiet;
use super::{Attribution, Context, Devices};
use crate::config::Config;
use crate::registry::{Registry, Time};

/// The part of a session that has no socket.
pub struct Replay {
    applier: Applier,
    layout: Layout,
    offset: u64,
    out: Vec<u8>,
    /// Where the watch of this process lives; nothing runs on it.
    _runtime: Runtime,
}

impl Replay {
    /// A session in that layout, of a daemon with nothing configured.
    pub fn new(registry: Arc<Registry>, layout: Layout) -> io::Result<Replay> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let config = Config { container_log_dir: None, kubelet_pods_socket: None, ..Config::default() };
        let devices = Devices::new(Arc::clone(&registry));
        let (handle, diaries) = (runtime.handle().clone(), Diaries::default());
        let context = Context::new(&config, registry, devices, handle, diaries, Quiet::No)?;
        let (own_end, _other_end) = UnixStream::pair()?;
        let peer = Peer::of(&own_end).map_err(|error| match error {
            PeerError::Io(error) => error,
            PeerError::Hidden => io::Error::other(error),
        })?;
        let applier = Applier::new(Arc::clone(&context), Attribution::new(context, peer, Arc::default()));
        Ok(Replay { applier, layout, offset: 0, out: Vec::new(), _runtime: runtime })
    }

    /// Applies the frames of one read, all within one turn of a session, and gives the replies.
    pub fn apply(&mut self, frames: &[u8], time: Time) -> io::Result<&[u8]> {
        self.out.clear();
        let used = self.applier.apply(frames, self.layout, self.offset, time, &mut self.out);
        match used {
            Ok(used) if used == frames.len() => {}
            Ok(_) => return Err(io::Error::other("the frames are too many for one turn")),
            Err(Fault::BadFrame(bad)) => return Err(io::Error::other(bad.error)),
            Err(Fault::BadRing(error)) => return Err(io::Error::other(error)),
            Err(Fault::Io(error)) => return Err(error),
        }
        self.offset += frames.len() as u64;
        Ok(&self.out)
    }
}
