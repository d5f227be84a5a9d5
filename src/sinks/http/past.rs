//! /api/v1/range and /api/v1/events: what was, read from the history on a thread that may wait for the disk.

use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use rusqlite::InterruptHandle;
use tokio::sync::{Semaphore, oneshot};

use super::problem::Problem;
use super::routes::{now, to_json};
use super::{Body, Sources};
use crate::registry::MemoryType;
use crate::sinks::history::{Archive, ArchiveError, EventRequest, HighestUsage, OpenArchive, RangeRequest};

/// Requests that read the history at once: each has a connection, and holds its answer in memory.
const READERS_MAX: usize = 4;
/// A request that takes longer is ended: a browser has given up by then, and the next one waits.
const TIME_MAX: Duration = Duration::from_secs(5);

/// What requests about the past are answered from.
pub(super) struct Past {
    archive: Option<Archive>,
    readers: Arc<Semaphore>,
}

impl Past {
    pub(super) fn new(archive: Option<Archive>) -> Past {
        Past { archive, readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }
}

pub(super) async fn range(sources: &Sources, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let request = RangeRequest::parse(query, now().unix_ns / 1_000_000)?;
    read(&sources.past, move |archive| archive.range(&request)).await.map(|range| to_json(&range))
}

pub(super) async fn events(sources: &Sources, query: Option<&str>) -> Result<Response<Body>, Problem> {
    let request = EventRequest::parse(query)?;
    read(&sources.past, move |archive| archive.events(&request)).await.map(|events| to_json(&events))
}

/// What was in use during the last day, as far as a history is kept and can be read.
pub(super) async fn highest_usage(
    sources: &Sources,
    memory_type: MemoryType,
    device: Option<u16>,
    now_ms: u64,
) -> HighestUsage {
    let past = &sources.past;
    let highest = read(past, move |archive| archive.highest_usage(memory_type, device, now_ms)).await;
    highest.unwrap_or_default()
}

/// A request that is being answered; let go of, it is answered no further.
struct Reading(InterruptHandle);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

async fn read<T: Send + 'static>(
    past: &Past,
    ask: impl FnOnce(&OpenArchive) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, Problem> {
    let Some(archive) = past.archive.clone() else {
        return Err(Problem::absent(
            "no history is kept; start the daemon with --state-dir (state_dir in its file, TTMEM_STATE_DIR)"
                .to_owned(),
        ));
    };
    let busy = || Problem::unavailable("others are reading the history; come again".to_owned());
    let turn = tokio::time::timeout(TIME_MAX, Arc::clone(&past.readers).acquire_owned()).await;
    let permit = turn.ok().and_then(Result::ok).ok_or_else(busy)?;
    let (opened, opening) = oneshot::channel();
    let mut answer = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let archive = archive.open()?;
        // Whoever asked may have gone.
        let _ = opened.send(archive.interrupt_handle());
        ask(&archive)
    });
    // Whatever ends this ends the reading: patience, or the requester's leaving.
    let reading = opening.await.ok().map(Reading);
    let in_time = tokio::time::timeout(TIME_MAX, &mut answer).await;
    let answered = match in_time {
        Ok(answered) => answered,
        Err(_) => {
            drop(reading);
            answer.await
        }
    };
    match answered {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Problem::unavailable(error.to_string())),
        // Only the runtime's own end leaves a request without an answer.
        Err(_) => Err(Problem::unavailable("the daemon stops".to_owned())),
    }
}
