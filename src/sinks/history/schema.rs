//! The tables, and how a file of an earlier version becomes one of this.
//!
//! The idea is one sequence number for each time span of a tier, which only grows: rows are added at the end of every table whatever the
//! clock says. A sample's key is that number followed by its series, so that the table itself is the index by time, and a device's
//! memory types lie side by side.

use rusqlite::Connection;

use super::store::StoreError;
use super::tier::Tier;
use crate::registry::{DEVICES_MAX, MemoryType};

/// Bits of a sample's key that say which series it is of: 268 million, each for a process, device and memory type. As many bits are left
/// for a thousand years of seconds.
pub(super) const SERIES_BITS: u32 = 28;

/// Numbers that belong to devices: eight for each, one for each memory type and one that is free.
pub(super) const DEVICE_SERIES: i64 = (DEVICES_MAX as i64) << DEVICE_BITS;
const DEVICE_BITS: u32 = 3;
const _: () = assert!(MemoryType::COUNT <= 1 << DEVICE_BITS);

/// The series of a device's memory as a whole.
pub(super) fn device_series(device: u16, memory_type: MemoryType) -> i64 {
    i64::from(device) << DEVICE_BITS | memory_type.index() as i64
}

/// One step each; a file's `user_version` says how many it has behind it.
const MIGRATIONS: &[fn() -> String] = &[first, kinds_are_found];

/// The version that this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// The version of a file, unless it is newer than this program.
pub(super) fn check_version(connection: &Connection) -> Result<i64, StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION { Err(StoreError::Newer(found)) } else { Ok(found) }
}

/// Brings a file to this version, all of it or nothing.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let found = check_version(&transaction)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        transaction.execute_batch(&migration())?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    Ok(transaction.commit()?)
}

fn first() -> String {
    let mut sql = String::from(
        "CREATE TABLE series (
             id INTEGER PRIMARY KEY,
             device INTEGER NOT NULL,
             memory_type TEXT NOT NULL,
             pid INTEGER,
             start_ticks INTEGER,
             boot TEXT,
             process TEXT,
             start_unix_ms INTEGER,
             first_unix_ms INTEGER NOT NULL,
             last_unix_ms INTEGER NOT NULL
         );
         CREATE INDEX series_of_process ON series (pid, start_ticks) WHERE pid IS NOT NULL;
         CREATE TABLE events (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             unix_ms INTEGER NOT NULL,
             kind TEXT NOT NULL,
             device INTEGER,
             memory_type TEXT,
             pid INTEGER,
             process TEXT,
             figures TEXT NOT NULL
         );
         CREATE INDEX events_by_time ON events (unix_ms);",
    );
    for tier in Tier::ALL.map(Tier::name) {
        sql.push_str(&format!(
            "CREATE TABLE spans_{tier} (seq INTEGER PRIMARY KEY, unix_ms INTEGER NOT NULL, covered_ms INTEGER NOT NULL);
             CREATE INDEX spans_{tier}_by_time ON spans_{tier} (unix_ms, covered_ms);
             CREATE TABLE samples_{tier} (
                 id INTEGER PRIMARY KEY,
                 usage_bytes INTEGER NOT NULL, usage_bytes_min INTEGER, usage_bytes_max INTEGER,
                 peak_bytes INTEGER NOT NULL,
                 buffers INTEGER, buffers_min INTEGER, buffers_max INTEGER,
                 allocated_bytes INTEGER, allocated_bytes_min INTEGER, allocated_bytes_max INTEGER,
                 freed_bytes INTEGER, freed_bytes_min INTEGER, freed_bytes_max INTEGER,
                 allocations INTEGER, allocations_min INTEGER, allocations_max INTEGER,
                 frees INTEGER, frees_min INTEGER, frees_max INTEGER
             );"
        ));
    }
    sql
}

/// The first version looked through all events for those of one kind or process.
fn kinds_are_found() -> String {
    "CREATE INDEX events_by_kind ON events (kind, id);
     CREATE INDEX events_by_process ON events (pid, id) WHERE pid IS NOT NULL;"
        .to_owned()
}
