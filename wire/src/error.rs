//! Why bytes are not a frame. Every one of these is the peer's fault.

use core::error::Error;
use core::fmt;

use crate::{HEADER_BYTES, Kind};

/// Why the bytes of a connection are not a run of frames. After any of these nobody can say where the next frame begins, so the
/// server closes the connection; no other connection notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FrameError {
    /// The peer's fault: a frame begins with a byte that is no message type. Either it does not speak this protocol, or its frames
    /// are of another size than its first one. It sees its connection closed.
    UnknownType {
        /// The byte that should be a message type.
        byte: u8,
        /// Its place: 0 in a frame, 0 or the start of the second frame in a connection.
        offset: usize,
    },
    /// The peer's fault: a byte between two fields is not zero, so it fills in frames that it has not cleared, or it speaks
    /// another protocol. It sees its connection closed.
    Padding {
        /// The first such byte: 1 to 3 or 17 to 19.
        offset: usize,
    },
    /// The peer's fault: a request is not zero after its header, where only replies carry anything, or its frames are of none of
    /// the three sizes. It sees its connection closed.
    Tail {
        /// The first such byte, 40 or later.
        offset: usize,
    },
}

impl FrameError {
    /// The place of the offending byte, from the start of the bytes that were given.
    pub const fn offset(self) -> usize {
        match self {
            FrameError::UnknownType { offset, .. }
            | FrameError::Padding { offset }
            | FrameError::Tail { offset } => offset,
        }
    }

    /// The reason in one word, in the form of a metric label.
    pub const fn reason(self) -> &'static str {
        match self {
            FrameError::UnknownType { .. } => "unknown_type",
            FrameError::Padding { .. } => "padding",
            FrameError::Tail { .. } => "tail",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::UnknownType { byte, offset } => write!(
                formatter,
                "byte {offset} is {byte}, which is no message type: begin every frame with a type that PROTOCOL.md lists, 1 to {}, \
                 and keep all frames of a connection the same size",
                Kind::ALL[Kind::ALL.len() - 1] as u8
            ),
            FrameError::Padding { offset } => write!(
                formatter,
                "byte {offset} is padding and not zero: clear the frame before filling it in"
            ),
            FrameError::Tail { offset } => write!(
                formatter,
                "byte {offset} is not zero: send frames of 72, 112 or 144 bytes, and leave a request zero from byte \
                 {HEADER_BYTES} to its end"
            ),
        }
    }
}

impl Error for FrameError {}

/// Why the bytes that a client received are not a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ReplyError {
    /// The server's fault, or whatever listens there is not one: the header is not a frame's. The client should disconnect.
    Frame(FrameError),
    /// The server's fault: the frame is well formed and is no reply. The client should disconnect.
    NotAReply(Kind),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::Frame(error) => write!(
                formatter,
                "the server's reply is malformed (byte {}, {}): check that an allocation server listens on this socket and \
                 that it uses this client's frame size",
                error.offset(),
                error.reason()
            ),
            ReplyError::NotAReply(kind) => write!(
                formatter,
                "the server sent a message of type {} instead of a reply: check that an allocation server listens on this \
                 socket",
                kind.name()
            ),
        }
    }
}

impl Error for ReplyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ReplyError::Frame(error) => Some(error),
            ReplyError::NotAReply(_) => None,
        }
    }
}

impl From<FrameError> for ReplyError {
    fn from(error: FrameError) -> ReplyError {
        ReplyError::Frame(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_error_says_where_why_and_what_to_do() {
        for (error, offset, reason, remedy) in [
            (
                FrameError::UnknownType { byte: 99, offset: 72 },
                72,
                "unknown_type",
                "begin every frame with a type that PROTOCOL.md lists, 1 to ",
            ),
            (FrameError::Padding { offset: 17 }, 17, "padding", "clear the frame"),
            (FrameError::Tail { offset: 40 }, 40, "tail", "leave a request zero from byte 40"),
        ] {
            assert_eq!(error.offset(), offset);
            assert_eq!(error.reason(), reason);
            let text = error.to_string();
            assert!(text.contains(remedy) && text.contains(&std::format!("byte {offset} ")), "{text}");
        }
    }

    #[test]
    fn a_bad_reply_names_its_cause() {
        let malformed = ReplyError::from(FrameError::Padding { offset: 3 });
        assert!(malformed.to_string().contains("byte 3, padding"));
        assert!(malformed.source().is_some());
        let unexpected = ReplyError::NotAReply(Kind::Alloc);
        assert!(unexpected.to_string().contains("type alloc"));
        assert!(unexpected.source().is_none());
    }
}
