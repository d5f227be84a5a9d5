//! How many connections each user has: nobody alone takes the places of all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The connections of every user that has one.
pub(super) struct Places {
    user_clients_max: u32,
    by_user: Mutex<HashMap<u32, u32>>,
}

/// A connection that counts for its user until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    pub(super) fn new(user_clients_max: u32) -> Arc<Places> {
        Arc::new(Places { user_clients_max, by_user: Mutex::default() })
    }

    /// A place for one more of a user's connections, if it may have one.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut by_user = self.by_user.lock();
        let taken = by_user.entry(uid).or_default();
        if *taken >= self.user_clients_max {
            return None;
        }
        *taken += 1;
        Some(Place { places: Arc::clone(self), uid })
    }

    /// A place for a connection that is there already: it counts, whatever the limit is now.
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
