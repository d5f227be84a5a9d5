//! How many live buffers there may be, of all processes and of one user's: the bound on what peers can make the daemon remember.
//!
//! The idea is that a ledger takes room by the hundred and gives back what it no longer needs, so that an allocation compares two numbers
//! and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{PROCESS_BUFFERS_MAX, Refusal};

/// Room that is taken at once: a lock for this many allocations, and at most so many buffers too few for who comes last.
const STEP_BUFFERS: u64 = 256;
/// Unused room beyond this is given back.
const UNUSED_BUFFERS_MAX: u64 = 4 * STEP_BUFFERS;

/// The bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferLimits {
    /// Live buffers of all processes together.
    pub buffers_max: u64,
    /// Live buffers of all processes of one user.
    pub user_buffers_max: u64,
}

impl BufferLimits {
    /// As many as memory lasts for.
    pub const NONE: BufferLimits = BufferLimits { buffers_max: u64::MAX, user_buffers_max: u64::MAX };
}

/// What has been taken.
#[derive(Debug)]
pub(super) struct Rooms {
    limits: BufferLimits,
    taken: Mutex<Taken>,
}

#[derive(Default, Debug)]
struct Taken {
    buffers: u64,
    by_user: HashMap<u32, u64>,
}

impl Rooms {
    pub(super) fn new(limits: BufferLimits) -> Arc<Rooms> {
        Arc::new(Rooms { limits, taken: Mutex::default() })
    }

    /// What all have taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.lock().buffers
    }

    /// Up to a step of room for a user's process; none where a bound is reached.
    fn take(&self, uid: u32) -> Result<u64, Refusal> {
        let mut taken = self.taken.lock();
        let of_user = taken.by_user.get(&uid).copied().unwrap_or(0);
        let free = self.limits.buffers_max.saturating_sub(taken.buffers);
        let free_of_user = self.limits.user_buffers_max.saturating_sub(of_user);
        let granted = STEP_BUFFERS.min(free).min(free_of_user);
        if granted == 0 {
            return Err(if free == 0 { Refusal::BuffersMax } else { Refusal::UserBuffersMax });
        }
        taken.buffers += granted;
        taken.by_user.insert(uid, of_user + granted);
        Ok(granted)
    }

    fn take_all(&self, uid: u32, buffers: u64) {
        let mut taken = self.taken.lock();
        taken.buffers += buffers;
        *taken.by_user.entry(uid).or_default() += buffers;
    }

    fn give_back(&self, uid: u32, buffers: u64) {
        let mut taken = self.taken.lock();
        taken.buffers -= buffers;
        if let Some(of_user) = taken.by_user.get_mut(&uid) {
            *of_user -= buffers;
            if *of_user == 0 {
                taken.by_user.remove(&uid);
            }
        }
    }
}

/// The room of one process's ledger.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Arc<Rooms>,
    uid: u32,
    buffers: u64,
}

impl Room {
    pub(super) fn new(rooms: Arc<Rooms>, uid: u32) -> Room {
        Room { rooms, uid, buffers: 0 }
    }

    /// Makes sure that there is room for one buffer beside those.
    pub(super) fn grow(&mut self, live: usize) -> Result<(), Refusal> {
        if (live as u64) < self.buffers {
            return Ok(());
        }
        if live >= PROCESS_BUFFERS_MAX {
            return Err(Refusal::TooManyBuffers);
        }
        self.buffers += self.rooms.take(self.uid)?;
        Ok(())
    }

    /// There is room for that many buffers, which were here before: a bound that is lower by now holds for new ones alone.
    pub(super) fn restore(&mut self, live: usize) {
        let missing = (live as u64).saturating_sub(self.buffers);
        self.rooms.take_all(self.uid, missing);
        self.buffers += missing;
    }

    /// Gives back what that many buffers do not need.
    pub(super) fn shrink(&mut self, live: usize) {
        let unused = self.buffers - (live as u64).min(self.buffers);
        if unused > UNUSED_BUFFERS_MAX {
            self.give_back(unused - STEP_BUFFERS);
        }
    }

    /// Gives all of it back: there will be no buffer any more.
    pub(super) fn close(&mut self) {
        self.give_back(self.buffers);
    }

    fn give_back(&mut self, buffers: u64) {
        self.rooms.give_back(self.uid, buffers);
        self.buffers -= buffers;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.close();
    }
}

const _: () = assert!(UNUSED_BUFFERS_MAX > STEP_BUFFERS);

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &mut Room, live: usize) -> Result<usize, Refusal> {
        (0..live).try_fold(0, |_, live| room.grow(live).map(|()| live + 1))
    }

    #[test]
    fn a_user_gets_its_share_and_the_others_the_rest() {
        let rooms = Rooms::new(BufferLimits { buffers_max: 1000, user_buffers_max: 700 });
        let (mut greedy, mut second) = (Room::new(Arc::clone(&rooms), 1), Room::new(Arc::clone(&rooms), 1));
        assert_eq!(fill(&mut greedy, 700), Ok(700));
        assert_eq!(greedy.grow(700), Err(Refusal::UserBuffersMax));
        assert_eq!(second.grow(0), Err(Refusal::UserBuffersMax));
        let mut other = Room::new(Arc::clone(&rooms), 2);
        assert_eq!(fill(&mut other, 300), Ok(300));
        assert_eq!(other.grow(300), Err(Refusal::BuffersMax));
        drop(greedy);
        assert_eq!((other.grow(300), second.grow(0)), (Ok(()), Ok(())));
    }

    #[test]
    fn what_is_not_needed_is_given_back() {
        let rooms = Rooms::new(BufferLimits { buffers_max: 5000, user_buffers_max: 5000 });
        let mut room = Room::new(Arc::clone(&rooms), 1);
        assert_eq!(fill(&mut room, 5000), Ok(5000));
        room.shrink(4999);
        assert_eq!(rooms.taken.lock().buffers, 5000, "not for one");
        room.shrink(10);
        assert!(rooms.taken.lock().buffers <= 10 + STEP_BUFFERS);
        drop(room);
        let taken = rooms.taken.lock();
        assert_eq!((taken.buffers, taken.by_user.len()), (0, 0));
    }
}
