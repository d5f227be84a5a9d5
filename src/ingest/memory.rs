//! What the daemon remembers beyond its own end: the journal's content at the start, and the checkpoints that keep it short.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tracing::{error, info, warn};

use super::recovery::{RecoveryError, State, recover};
use crate::clock;
use crate::config::Config;
use crate::journal::{Found, Journal, OpenError};

/// What a daemon knew before it ended, and where this one writes down what it learns.
#[derive(Default)]
pub struct Memory {
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) state: State,
    is_restored: bool,
}

impl Memory {
    /// Opens the state directory, where one is configured. Only that another daemon has it is an error: without it this one serves too.
    pub fn open(config: &Config) -> Result<Memory, OpenError> {
        let Some(directory) = &config.state_dir else { return Ok(Memory::default()) };
        let began = Instant::now();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let writers = config.ingest_threads + 1;
        let (journal, found) =
            match Journal::open(directory, config.state_journal_bytes_max, writers, &boot_id) {
                Ok(opened) => opened,
                Err(error @ OpenError::InUse { .. }) => return Err(error),
                Err(error) => {
                    error!(%error, "nothing is remembered beyond this daemon's end");
                    return Ok(Memory::default());
                }
            };
        for (path, error) in &found.set_aside {
            warn!(path = %path.display(), error, "a file of the state directory cannot be believed; it was set aside");
        }
        if found.entries.torn > 0 {
            warn!(
                files = found.entries.torn,
                "the journal is damaged; what stands behind the damage is lost"
            );
        }
        let entries = found.entries.len();
        let is_restored = found.checkpoint.is_some() || entries > 0;
        let state = match recover(&found, config) {
            Ok(state) => state,
            Err(error) => {
                journal.set_checkpoint_aside();
                error!(%error, "what was stored is of no use; the daemon begins with nothing");
                return Ok(Memory { journal: Some(journal), ..Memory::default() });
            }
        };
        if is_restored {
            let seconds = began.elapsed().as_secs_f64();
            journal.note_recovery(seconds);
            info!(
                entries,
                sessions = state.sessions.len(),
                seconds,
                "went on where the daemon before this one ended"
            );
        }
        Ok(Memory { journal: Some(journal), state, is_restored })
    }

    /// Since when what is remembered has been counted, in monotonic nanoseconds.
    pub fn started_ns(&self) -> Option<u64> {
        self.is_restored.then(|| self.state.registry.started_ns())
    }

    /// The journal, for its figures.
    pub fn journal(&self) -> Option<Arc<Journal>> {
        self.journal.clone()
    }
}

/// The thread that makes checkpoints.
pub(super) struct Compaction {
    journal: Arc<Journal>,
    thread: JoinHandle<()>,
}

impl Compaction {
    /// Makes one at once, of what the daemon before this one has left, and then whenever the journal is half full.
    pub(super) fn start(journal: Arc<Journal>, config: Config) -> io::Result<Compaction> {
        let thread = std::thread::Builder::new().name("ttmem-compact".into()).spawn({
            let journal = Arc::clone(&journal);
            move || {
                // No more modest than others: who reports waits for it when the journal is full.
                let mut is_wanted_now = true;
                while journal.wait_for_compaction(is_wanted_now) {
                    is_wanted_now = false;
                    if let Err(error) = compact(&journal, &config) {
                        error!(%error, "no checkpoint could be made; the journal grows until it is full");
                        journal.note_failure();
                    }
                }
            }
        })?;
        Ok(Compaction { journal, thread })
    }

    pub(super) fn stop(self) {
        self.journal.close();
        // It can only have ended by a panic, which has been reported.
        let _ = self.thread.join();
    }
}

fn compact(journal: &Journal, config: &Config) -> Result<(), RecoveryError> {
    let began = Instant::now();
    let (found, through): (Found, u64) = journal.rotate()?;
    let content = recover(&found, config)?.encode()?;
    drop(found);
    let unix_seconds = clock::unix_ns() as f64 / 1e9;
    journal.checkpoint(&content, through, began.elapsed().as_secs_f64(), unix_seconds)?;
    Ok(())
}
