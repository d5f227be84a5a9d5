//! Where HTTP connections come from.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

/// Why an address cannot be served. The operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("listen: {address}: {cause}; {remedy}")]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
    remedy: &'static str,
}

/// A place where clients connect.
pub struct Listener(TcpListener);

impl Listener {
    /// Listens on an address.
    pub async fn bind(address: SocketAddr) -> Result<Listener, ListenError> {
        TcpListener::bind(address).await.map(Listener).map_err(|cause| {
            let remedy = match cause.kind() {
                io::ErrorKind::AddrInUse => {
                    "stop what listens there, or choose another address with --listen"
                }
                io::ErrorKind::PermissionDenied => "choose a port above 1023, or grant CAP_NET_BIND_SERVICE",
                io::ErrorKind::AddrNotAvailable => "choose an address of this host with --listen",
                _ => "choose another address with --listen",
            };
            ListenError { address, cause, remedy }
        })
    }

    /// Where it is, as clients name it.
    pub fn name(&self) -> String {
        self.0.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = self.0.accept().await?;
        // Answers are written whole; waiting to fill a packet would only delay them.
        stream.set_nodelay(true)?;
        Ok((stream, address))
    }
}
