//! What an answer is made of: bytes that are there, pieces that are made as the client takes them, or events as they come.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Bytes, Frame, SizeHint};

use super::live::Stream;

/// An answer's body.
pub(super) enum Body {
    Whole(Full<Bytes>),
    /// Their lengths together are not known when the head is sent.
    Pieces(Box<dyn Iterator<Item = io::Result<Vec<u8>>> + Send>),
    /// They have no end.
    Live(Stream),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Whole(whole) => whole.fmt(f),
            Body::Pieces(_) => f.write_str("Pieces"),
            Body::Live(_) => f.write_str("Live"),
        }
    }
}

impl Body {
    pub(super) fn whole(bytes: Vec<u8>) -> Body {
        Body::Whole(Full::new(Bytes::from(bytes)))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Body::Whole(whole) => Pin::new(whole).poll_frame(task).map_err(|never| match never {}),
            Body::Pieces(pieces) => {
                Poll::Ready(pieces.next().map(|piece| piece.map(|bytes| Frame::data(Bytes::from(bytes)))))
            }
            Body::Live(stream) => {
                stream.poll_event(task).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(whole) => whole.is_end_stream(),
            Body::Pieces(_) | Body::Live(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(whole) => whole.size_hint(),
            Body::Pieces(_) | Body::Live(_) => SizeHint::default(),
        }
    }
}
