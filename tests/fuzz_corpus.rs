//! What the fuzzers have found worth keeping, run through their checks with the compiler that everything else is built with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::fs;
use std::path::Path;

#[allow(unreachable_pub, reason = "it is a crate of its own elsewhere")]
#[path = "../fuzz/src/checks/mod.rs"]
mod checks;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut replayed = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| check(&bytes)).is_err() {
            panic!("{} breaks {target}", path.display());
        }
        replayed += 1;
    }
    assert!(replayed > 0, "{} has no seeds", folder.display());
}

#[test]
fn the_corpus_of_region() {
    replay("region", checks::region);
}

#[test]
fn the_corpus_of_process_files() {
    replay("process_files", checks::process_files);
}

#[test]
fn the_corpus_of_web_config() {
    replay("web_config", checks::web_config);
}

#[test]
fn the_corpus_of_config_file() {
    replay("config_file", checks::config_file);
}

#[test]
fn the_corpus_of_http() {
    replay("http", checks::http);
}

#[test]
fn the_corpus_of_views() {
    replay("views", checks::views);
}

#[test]
fn the_corpus_of_ledger() {
    replay("ledger", checks::ledger);
}

#[test]
fn the_corpus_of_journal() {
    replay("journal", checks::journal);
}
