//! How many connections, or processes, each user has: nobody alone takes the places of all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Those of every user that has any.
#[derive(Debug)]
pub(super) struct Places {
    of_user_max: u32,
    by_user: Mutex<HashMap<u32, u32>>,
}

/// One that counts for its user until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    pub(super) fn new(of_user_max: u32) -> Arc<Places> {
        Arc::new(Places { of_user_max, by_user: Mutex::default() })
    }

    /// A place for one more of a user's, if it may have one.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut by_user = self.by_user.lock();
        let taken = by_user.entry(uid).or_default();
        if *taken >= self.of_user_max {
            return None;
        }
        *taken += 1;
        Some(Place { places: Arc::clone(self), uid })
    }

    /// A place for one that is there already: it counts, whatever the limit.
    pub(super) fn keep(self: &Arc<Self>, uid: u32) -> Place {
        *self.by_user.lock().entry(uid).or_default() += 1;
        Place { places: Arc::clone(self), uid }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_user = self.places.by_user.lock();
        if let Some(taken) = by_user.get_mut(&self.uid) {
            *taken -= 1;
            if *taken == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}
