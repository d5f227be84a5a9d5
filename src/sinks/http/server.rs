//! Takes connections, encrypts those that are to be encrypted, and has their requests answered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::server::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::answers::Answer;
use super::authentication::Peer;
use super::connections::{Connections, STILL_MAX, Seat, Watched};
use super::listener::{Accepted, Listener};
use super::tls::HTTP2;
use super::{Body, Sources, routes};

/// A request's line and headers may not be longer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Requests at once on one connection of HTTP/2: a scraper makes one, a browser a few, and each may hold a whole answer.
const STREAMS_MAX: u32 = 8;
/// Bytes that a client of HTTP/2 may send without being asked to go on: the least that the protocol has. No request needs a body.
const REQUEST_WINDOW_BYTES: u32 = 65_535;
/// How long a body may take that nobody asked for.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Who has not agreed on keys by then wants nothing, or is too far away to be a scraper.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers under way may take when the daemon stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before taking connections again when there is no room for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What somebody gets who speaks HTTP where HTTPS is spoken.
const NOT_ENCRYPTED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS; write https:// in the URL.\n";

/// Serves requests until told to stop, and then finishes those under way.
pub async fn serve(listeners: Vec<Listener>, sources: Arc<Sources>, stop: watch::Receiver<bool>) {
    let graceful = Arc::new(GracefulShutdown::new());
    let connections = Arc::new(Connections::default());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let (graceful, stop) = (Arc::clone(&graceful), stop.clone());
        let (connections, sources) = (Arc::clone(&connections), Arc::clone(&sources));
        accepting.spawn(accept(listener, connections, graceful, sources, stop));
    }
    accepting.join_all().await;
    // Those who took connections have ended, and a connection has only its watcher.
    if let Some(graceful) = Arc::into_inner(graceful)
        && timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err()
    {
        warn!("stopping although some answers have not been read");
    }
}

/// Answers the requests of one connection that is there already, as over a Unix socket.
pub async fn converse(
    sources: Arc<Sources>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let watcher = graceful.watcher();
    Connection { peer: Peer::Local, sources, watcher, stop }.answer(stream).await;
}

async fn accept(
    listener: Listener,
    connections: Arc<Connections>,
    graceful: Arc<GracefulShutdown>,
    sources: Arc<Sources>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let peer = match &accepted {
                    Accepted::Tcp(_, address) => Peer::of(address.ip()),
                    Accepted::Unix(_) => Peer::Local,
                };
                let seat = connections.admit(peer);
                let connection = Connection {
                    peer,
                    sources: Arc::clone(&sources),
                    watcher: graceful.watcher(),
                    stop: stop.clone(),
                };
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection.run(accepted, &seat) => {}
                        reason = seat.lost() => debug!(?peer, reason, "connection closed"),
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot take an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What one connection needs.
struct Connection {
    peer: Peer,
    sources: Arc<Sources>,
    watcher: Watcher,
    stop: watch::Receiver<bool>,
}

impl Connection {
    async fn run(mut self, accepted: Accepted, seat: &Seat) {
        let stream = match accepted {
            Accepted::Tcp(stream, _) => stream,
            // What goes over it never leaves the host, and its permissions say who may connect.
            Accepted::Unix(stream) => return self.answer(seat.watch(stream)).await,
        };
        let Some(tls) = self.sources.access().tls.clone() else {
            return self.answer(seat.watch(stream)).await;
        };
        let agreed = tokio::select! {
            _ = self.stop.wait_for(|stop| *stop) => return,
            agreed = timeout(HANDSHAKE_TIMEOUT, agree(stream, seat, tls)) => agreed,
        };
        match agreed {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP2) => {
                self.answer_streams(stream, seat).await;
            }
            Ok(Ok(stream)) => self.answer(stream).await,
            Ok(Err(error)) => debug!(peer = ?self.peer, %error, "no TLS connection came about"),
            Err(_) => debug!(peer = ?self.peer, "the TLS handshake took too long"),
        }
    }

    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Connection { peer, sources, watcher, .. } = self;
        let service = service_fn(move |request: Request<Incoming>| {
            let sources = Arc::clone(&sources);
            async move { Ok::<_, Infallible>(respond(&sources, &request, peer).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // It also counts the time between two requests, in which a scraper may keep its connection.
            .header_read_timeout(STILL_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            debug!(?peer, %error, "connection ended");
        }
    }

    /// The same over HTTP/2.
    async fn answer_streams(self, stream: TlsStream<Watched<TcpStream>>, seat: &Seat) {
        let Connection { peer, sources, watcher, .. } = self;
        debug!(?peer, "HTTP/2 was agreed on");
        let hand_out = seat.hand_out();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (sources, hand_out) = (Arc::clone(&sources), hand_out.clone());
            async move {
                let _ = timeout(BODY_TIMEOUT, discard(request.body_mut())).await;
                let response = respond(&sources, &request, peer).await;
                Ok::<_, Infallible>(in_pieces(response, request.method(), hand_out).await)
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .initial_stream_window_size(REQUEST_WINDOW_BYTES)
            .initial_connection_window_size(REQUEST_WINDOW_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection).await {
            debug!(?peer, %error, "connection ended");
        }
    }
}

/// Takes the body of a request, within bounds: some clients do not listen before they have sent it, and leave the answer when their stream
/// ends first.
async fn discard(body: &mut Incoming) {
    let mut rest = REQUEST_WINDOW_BYTES as usize;
    while let Some(Ok(frame)) = body.frame().await
        && rest > 0
    {
        rest = rest.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}

/// An answer for one of several streams. Of one to HEAD only the length is told, which HTTP/1.1 sees to by itself.
async fn in_pieces(
    response: Response<Body>,
    method: &Method,
    hand_out: impl Fn(Bytes) -> Answer,
) -> Response<Answer> {
    let (mut head, body) = response.into_parts();
    let mut content = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            warn!(%error, "an answer could not be made");
            head.status = StatusCode::INTERNAL_SERVER_ERROR;
            Bytes::new()
        }
    };
    if method == Method::HEAD {
        head.headers.insert(CONTENT_LENGTH, content.len().into());
        content.clear();
    }
    Response::from_parts(head, hand_out(content))
}

/// The TLS handshake. Whoever speaks plain HTTP is told so, as it is the likeliest mistake.
async fn agree(
    stream: TcpStream,
    seat: &Seat,
    tls: Arc<ServerConfig>,
) -> std::io::Result<TlsStream<Watched<TcpStream>>> {
    let mut first = [0];
    let is_http = stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase();
    let mut stream = seat.watch(stream);
    if is_http {
        // What is not read would make the kernel drop the answer.
        let _ = stream.read(&mut [0; 4096]).await?;
        stream.write_all(NOT_ENCRYPTED).await?;
        stream.shutdown().await?;
        return Err(std::io::Error::other("plain HTTP came where HTTPS is spoken"));
    }
    TlsAcceptor::from(tls).accept(stream).await
}

async fn respond(sources: &Arc<Sources>, request: &Request<Incoming>, peer: Peer) -> Response<Body> {
    let access = sources.access();
    let mut response = match sources.web.admit(&access, request, peer).await {
        Ok(()) => routes::answer(sources, request).await,
        Err(problem) => problem.into_response(),
    };
    access.add_headers(&mut response);
    response
}
