//! Turns of those who write into the journal: what is written down in one, and what follows from it, no process's end comes between.
//!
//! The idea: the journal gives everything its place when it comes in, and a later daemon applies it in that order. What has come in on one
//! thread is applied a little later than that; if a process could be ended on another thread meanwhile, its last reports would be
//! refused here and taken there.

use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

/// One place for each writer, so that none waits for another.
pub(super) struct Turns(Box<[Place]>);

/// In a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Place(ReentrantMutex<()>);

/// Lasts until it is dropped.
pub(super) type Turn<'a> = ReentrantMutexGuard<'a, ()>;

impl Turns {
    pub(super) fn new(writers: usize) -> Turns {
        Turns((0..writers.max(1)).map(|_| Place::default()).collect())
    }

    /// The turn of a writer; the last one has the place of all whose number is larger. One within another is a part of it.
    pub(super) fn begin(&self, writer: usize) -> Turn<'_> {
        self.0[writer.min(self.0.len() - 1)].0.lock()
    }

    /// Does something while nobody has a turn. It must not take long: everybody waits.
    pub(super) fn between<T>(&self, act: impl FnOnce() -> T) -> T {
        let _held: Vec<_> = self.0.iter().map(|place| place.0.lock()).collect();
        act()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use std::thread;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Copy)]
    enum Done {
        Turn(u64),
        Between(u64),
    }

    #[test]
    fn what_is_done_between_turns_is_done_in_its_place() {
        const WRITERS: usize = 3;
        let (turns, order, done) = (Turns::new(WRITERS), AtomicU64::new(0), Mutex::new(Vec::new()));
        let draw = || {
            let place = order.fetch_add(1, SeqCst);
            // Whoever could come between does.
            thread::yield_now();
            place
        };
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (turns, draw, done) = (&turns, &draw, &done);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let _turn = turns.begin(writer);
                        let place = draw();
                        done.lock().push(Done::Turn(place));
                    }
                });
            }
            for _ in 0..2_000 {
                turns.between(|| {
                    let place = draw();
                    done.lock().push(Done::Between(place));
                });
            }
        });
        let done = done.into_inner();
        let mut latest = 0;
        let mut boundary = 0;
        for event in &done {
            match *event {
                Done::Turn(place) => {
                    assert!(place >= boundary, "{place} was drawn before {boundary}, and done after it");
                    latest = latest.max(place);
                }
                Done::Between(place) => {
                    assert!(place >= latest, "{latest} was drawn after {place}, and done before it");
                    boundary = place;
                }
            }
        }
        assert_eq!(done.len(), (WRITERS + 1) * 2_000);
    }

    #[test]
    fn a_turn_within_a_turn_is_a_part_of_it() {
        let turns = Turns::new(1);
        let outer = turns.begin(0);
        drop(turns.begin(usize::MAX));
        let is_free = || thread::scope(|scope| scope.spawn(|| turns.0[0].0.try_lock().is_some()).join().ok());
        assert_eq!(is_free(), Some(false));
        drop(outer);
        assert_eq!(is_free(), Some(true));
    }
}
