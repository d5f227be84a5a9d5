//! The connection to the server: frames out, answers and descriptors in, and no waiting for either.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ttmem_wire::{DESCRIPTORS_MAX, HelloReply, Kind, Layout};

const ANSWER_BYTES: usize = Layout::Bytes144.frame_bytes();

/// A connected socket.
pub(crate) struct Connection {
    stream: UnixStream,
    answer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What came over the socket.
pub(crate) enum Incoming {
    Nothing,
    /// The answer to a QUERY: all that was reported before it has been applied.
    Totals,
    Answer(HelloReply, Vec<OwnedFd>),
}

/// Room for the descriptors of one answer, as the kernel lays it out.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 128],
}

impl Connection {
    pub(crate) fn open(path: &Path) -> io::Result<Connection> {
        let stream = connect_at_once(path)?;
        Ok(Connection { stream, answer: Vec::new(), descriptors: Vec::new() })
    }

    /// Sends what the socket takes now, and gives how much that was.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: reads `bytes`, which outlive the call. A server that is gone is an error and no signal, and a full socket does not block.
        let sent = unsafe {
            libc::send(self.stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
        };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) => nothing_if_not_now(io::Error::last_os_error()),
        }
    }

    /// Takes in what the server has said. The end of the connection is an error.
    pub(crate) fn receive(&mut self) -> io::Result<Incoming> {
        let mut bytes = [0; ANSWER_BYTES];
        let space = &mut bytes[..ANSWER_BYTES - self.answer.len()];
        let received = match receive_with(&self.stream, space, &mut self.descriptors, Waiting::Not) {
            Err(error) => nothing_if_not_now(error)?,
            Ok(received) => received,
        };
        self.answer.extend_from_slice(&space[..received]);
        if self.answer.len() < ANSWER_BYTES {
            return Ok(Incoming::Nothing);
        }
        let answer = mem::take(&mut self.answer);
        if answer[0] == Kind::Response as u8 {
            return Ok(Incoming::Totals);
        }
        let answer = HelloReply::decode(&answer).map_err(io::Error::other)?;
        Ok(Incoming::Answer(answer, mem::take(&mut self.descriptors)))
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }
}

fn nothing_if_not_now(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}

/// Connects without waiting: where a server that stands still has too many who wait for it already, that is an error.
fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let path = path.as_os_str().as_bytes();
    // SAFETY: an address of zeros is one, of no family.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    // The last byte stays zero and ends the path.
    if path.is_empty() || path.contains(&0) || path.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    address.sun_family = libc::AF_UNIX as _;
    for (place, byte) in address.sun_path.iter_mut().zip(path) {
        *place = byte.cast_signed() as _;
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let descriptor = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us, and nothing else owns it.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: reads the address, which is that long and outlives the call.
    match unsafe { libc::connect(descriptor, (&raw const address).cast(), length) } {
        0 => Ok(stream),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a receiver waits for what has not come yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Not,
    /// As long as the socket's own timeout says.
    UntilTimeout,
}

/// One recvmsg(), with the descriptors that came along. The end of the connection is an error.
pub(crate) fn receive_with(
    stream: &UnixStream,
    space: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    waiting: Waiting,
) -> io::Result<usize> {
    let mut control = Control { bytes: [0; 128] };
    let mut part = libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: space.len() };
    // SAFETY: a msghdr of zeros is a valid one, with nothing in it.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    let waits = if waiting == Waiting::Not { libc::MSG_DONTWAIT } else { 0 };
    // SAFETY: the kernel writes to `space` and `control`, within the lengths given, and both outlive the call.
    let received =
        unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC | waits) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled `control` in, up to the length that it left in `message`.
    unsafe { take_descriptors(&message, descriptors) };
    if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(received) }
}

/// Whether the other end has not closed, as far as is known here.
pub(crate) fn is_open(stream: &UnixStream) -> bool {
    let mut byte = 0_u8;
    // SAFETY: writes at most one byte to `byte`, which outlives the call, and does not wait.
    let received = unsafe {
        libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    received > 0 || received < 0 && nothing_if_not_now(io::Error::last_os_error()).is_ok()
}

/// Owns the descriptors of a received message.
///
/// # Safety
///
/// The message's control part must be what recvmsg() made of it.
unsafe fn take_descriptors(message: &libc::msghdr, descriptors: &mut Vec<OwnedFd>) {
    // SAFETY: the caller's promise; the macros stay within the control part.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: it points to a header within the control part, which is aligned for one.
        let (level, kind, length) =
            unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len as usize) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: takes no pointers.
            let start = unsafe { libc::CMSG_LEN(0) } as usize;
            for index in 0..length.saturating_sub(start) / size_of::<i32>() {
                // SAFETY: the data of this header has that many descriptors, at any alignment, and the kernel has opened them for us.
                let descriptor = unsafe { libc::CMSG_DATA(header).cast::<i32>().add(index).read_unaligned() };
                // SAFETY: as above; nothing else owns it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
            }
        }
        // SAFETY: as for the first one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

// All descriptors of an answer have room, so that the kernel closes none of them.
const _: () =
    assert!(size_of::<Control>() >= size_of::<libc::cmsghdr>() + (DESCRIPTORS_MAX + 2) * size_of::<i32>());
