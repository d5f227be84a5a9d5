//! A client of the rings that is written after PROTOCOL.md alone, for what the library never does.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::Daemon;
use super::frames::{Connection, Frame};
use super::mapped::{Words, words_of};

pub const HELLO: u8 = 13;
pub const LOST: u8 = 16;
pub const RECORDS: u64 = 64;
const RING: usize = 256 / 8;
const TAIL: usize = RING;
const HEAD: usize = RING + 128 / 8;
const RECORD: usize = RING + 256 / 8;

/// What a HELLO says: asks, switches or renews.
pub fn hello(step: u8, features: u64, rings: u64, records: u64) -> Frame {
    Frame {
        kind: HELLO,
        device: 1,
        size: features,
        buffer_type: step,
        buffer_id: rings << 32 | records,
        ..Frame::default()
    }
}

/// A connection with one ring.
pub struct RawRing {
    pub connection: Connection,
    pub memory: OwnedFd,
    pub wake: OwnedFd,
    pub words: Words,
    order: u64,
}

impl RawRing {
    /// Asks for a ring and switches to it.
    pub fn open(daemon: &Daemon) -> RawRing {
        RawRing::on(Connection::open(daemon, 144))
    }

    /// The same over a connection that is there.
    pub fn on(mut connection: Connection) -> RawRing {
        connection.send(&[hello(0, 1, 1, RECORDS)]);
        let (reply, mut descriptors) = receive(&connection.stream);
        assert_eq!((reply[0], reply[4]), (HELLO, 1));
        assert_eq!(u64_at(&reply, 8), 1, "rings are granted");
        assert_eq!(u64_at(&reply, 24), 1 << 32 | RECORDS);
        assert_ne!(u64_at(&reply, 32), 0, "it says which run of the server it is");
        assert_eq!((u64_at(&reply, 40), u64_at(&reply, 48), u64_at(&reply, 64)), (2, 1, 2));
        let bytes = u64_at(&reply, 56) as usize;
        assert_eq!(bytes as u64, 256 + 256 + 48 * RECORDS);
        let (wake, memory) = (descriptors.pop().unwrap(), descriptors.pop().unwrap());
        let words = words_of(&memory, bytes);
        connection.send(&[hello(1, 0, 0, 0)]);
        RawRing { connection, memory, wake, words, order: 0 }
    }

    /// Publishes a record of these bytes.
    pub fn push(&mut self, frame: Frame) {
        let tail = self.words[TAIL].load(Ordering::Relaxed);
        let at = RECORD + (tail % RECORDS) as usize * 6;
        for (place, word) in self.words[at..at + 5].iter().zip(frame.bytes(40).chunks_exact(8)) {
            place.store(u64::from_le_bytes(word.try_into().unwrap()), Ordering::Relaxed);
        }
        self.words[at + 5].store(self.order, Ordering::Relaxed);
        self.order += 1;
        self.words[TAIL].store(tail + 1, Ordering::Release);
    }

    /// Whether there is room for one more.
    pub fn has_room(&self) -> bool {
        self.tail().wrapping_sub(self.head()) < RECORDS
    }

    pub fn set_tail(&self, tail: u64) {
        self.words[TAIL].store(tail, Ordering::Release);
    }

    pub fn set_record(&self, index: usize, word: usize, value: u64) {
        self.words[RECORD + 6 * index + word].store(value, Ordering::Relaxed);
    }

    pub fn head(&self) -> u64 {
        self.words[HEAD].load(Ordering::Acquire)
    }

    pub fn tail(&self) -> u64 {
        self.words[TAIL].load(Ordering::Acquire)
    }

    /// Wakes the daemon, whether it sleeps or not.
    pub fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).unwrap();
    }
}

/// One frame and the descriptors that came with it.
pub fn receive(stream: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 144];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(6))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::WAITALL).unwrap();
    assert_eq!(received.bytes, 144);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    (bytes, descriptors)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
