//! Where HTTP connections come from.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;
use crate::socket::{BindError, Socket};

/// Why an address cannot be served. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address on the network.
    #[error("listen: {address}: {cause}; {remedy}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The cause.
        cause: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// A Unix socket.
    #[error(transparent)]
    Unix(#[from] BindError),
    /// A socket that exists cannot be watched.
    #[error("listen: {0}; start the daemon again")]
    Watch(#[from] io::Error),
}

/// A place where clients connect.
pub struct Listener(Kind);

enum Kind {
    Tcp(TcpListener),
    /// The socket is kept because it removes its path when it is dropped.
    Unix(UnixListener, Socket),
}

/// Somebody who connected.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// Listens on an address, or makes a Unix socket of that mode and group.
    pub async fn bind(
        address: &ListenAddress,
        mode: u32,
        group: Option<&str>,
    ) -> Result<Listener, ListenError> {
        match address {
            ListenAddress::Tcp(address) => bind_tcp(*address).await,
            ListenAddress::Unix(path) => Listener::on_socket(Socket::bind("listen", path, mode, group)?),
        }
    }

    /// Listens on a Unix socket.
    pub fn on_socket(socket: Socket) -> Result<Listener, ListenError> {
        let listener = UnixListener::from_std(socket.listener().try_clone()?)?;
        Ok(Listener(Kind::Unix(listener, socket)))
    }

    /// Listens on a TCP socket.
    pub fn on_tcp(listener: std::net::TcpListener) -> Result<Listener, ListenError> {
        listener.set_nonblocking(true)?;
        Ok(Listener(Kind::Tcp(TcpListener::from_std(listener)?)))
    }

    /// Where it is, as the configuration writes it.
    pub fn name(&self) -> String {
        match &self.0 {
            Kind::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
            }
            Kind::Unix(_, socket) => ListenAddress::Unix(socket.path().to_owned()).to_string(),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are written whole; waiting to fill a packet would only delay them.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, address))
            }
            Kind::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

async fn bind_tcp(address: SocketAddr) -> Result<Listener, ListenError> {
    TcpListener::bind(address).await.map(|listener| Listener(Kind::Tcp(listener))).map_err(|cause| {
        let remedy = match cause.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another address with --listen",
            io::ErrorKind::PermissionDenied => "choose a port above 1023, or grant CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "choose an address of this host with --listen",
            _ => "choose another address with --listen",
        };
        ListenError::Tcp { address, cause, remedy }
    })
}
