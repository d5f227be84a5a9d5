//! The sequence counter of the stats pages under the model checker: no reader believes what is of two instants.
//!
//! The models are the code that runs, over the checker's words. They fail when it is weakened in a single place: without either fence,
//! without the Release at the end of a publication, without the Acquire at the beginning of a read, without the look at the writers.

use std::sync::atomic::Ordering::{self, Relaxed};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;
use ttmem_wire::ring::Word;
use ttmem_wire::stats::sequence::{try_read, write_alone, write_among_others};

/// Threads are stopped in mid-run at most this often; more finds nothing new and takes minutes.
const PREEMPTIONS_MAX: usize = 2;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = Some(PREEMPTIONS_MAX);
    checker.check(check);
}

struct LoomWord(AtomicU64);

impl Word for LoomWord {
    fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, ordering);
    }

    fn swap(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.swap(value, ordering)
    }

    fn add(&self, value: u64, ordering: Ordering) -> u64 {
        self.0.fetch_add(value, ordering)
    }

    fn fence(ordering: Ordering) {
        fence(ordering);
    }
}

/// A row of two figures that always change together.
struct Row {
    sequence: LoomWord,
    figures: [LoomWord; 2],
}

impl Row {
    fn new() -> Arc<Row> {
        let word = || LoomWord(AtomicU64::new(0));
        Arc::new(Row { sequence: word(), figures: [word(), word()] })
    }

    /// The figure, if it could be read: both are the same at every instant.
    fn read(&self) -> Option<u64> {
        let [first, second] = &self.figures;
        let (first, second) = try_read(&self.sequence, || (first.load(Relaxed), second.load(Relaxed)))?;
        assert_eq!(first, second, "of two instants");
        Some(first)
    }
}

/// A reader, as the checker lets only threads that were started run in every order.
fn reader(row: &Arc<Row>) -> thread::JoinHandle<()> {
    let row = Arc::clone(row);
    thread::spawn(move || {
        row.read();
    })
}

#[test]
fn one_writer_is_read_at_one_instant() {
    model(|| {
        let row = Row::new();
        let reader = reader(&row);
        for value in 1..=2 {
            write_alone(&row.sequence, || row.figures.iter().for_each(|figure| figure.store(value, Relaxed)));
        }
        reader.join().expect("the reader is content");
        assert_eq!(row.read(), Some(2), "nobody writes any more");
    });
}

#[test]
fn several_writers_are_read_at_one_instant() {
    model(|| {
        let row = Row::new();
        let reader = reader(&row);
        let write = |row: &Row| {
            write_among_others(&row.sequence, || {
                for figure in &row.figures {
                    figure.add(1, Relaxed);
                }
            });
        };
        let other = Arc::clone(&row);
        let writer = thread::spawn(move || write(&other));
        write(&row);
        writer.join().expect("a writer ends");
        reader.join().expect("the reader is content");
        assert_eq!(row.read(), Some(2), "nobody writes any more");
    });
}
