//! The database, as the one thread sees it that writes to it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};
use rustix::fs::{FlockOperation, flock};

use super::events::{Event, Kind, Predecessor, Unwritten};
use super::points::{Flow, Level, Point, per_second};
use super::rollup::{Key, Span};
use super::schema::{self, DEVICE_SERIES, SERIES_BITS};
use super::tier::Tier;
use crate::registry::{MemoryType, Process};

/// The database's file in the directory for state.
pub(super) const FILE_NAME: &str = "history.db";
/// Held by whoever writes: two writers would number their spans alike.
const LOCK_NAME: &str = "history.lock";
/// What SQLite keeps beside the file until it is closed in order.
pub(super) const COMPANIONS: [&str; 2] = ["-wal", "-shm"];
/// Files that were set aside and are kept; each may be as large as the history may be.
const SET_ASIDE_MAX: usize = 3;
const SET_ASIDE_INFIX: &str = ".set-aside-";
/// A reader never locks the writer out; only somebody with a tool of his own can, and not for long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the history cannot be written: the environment's fault, never the daemon's end.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The database, or the disk under it.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The directory.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Somebody went back to an older program.
    #[error("it is of version {0}, which a newer ttmem has written; this one knows {version}", version = schema::VERSION)]
    Newer(i64),
    /// A check found it damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another daemon has the same directory.
    #[error("another daemon writes to it; give each its own --state-dir")]
    InUse,
}

/// What kind of trouble it is: the `reason` label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// No room on the disk.
    Full,
    /// The file cannot be used, and never will be.
    Unusable,
    /// Everything else; it may pass.
    Other,
}

impl Trouble {
    pub(super) const ALL: [Trouble; 3] = [Trouble::Full, Trouble::Unusable, Trouble::Other];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Trouble::Full => "full",
            Trouble::Unusable => "unusable",
            Trouble::Other => "other",
        }
    }
}

impl StoreError {
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            StoreError::Newer(_) | StoreError::Damaged(_) => Trouble::Unusable,
            StoreError::InUse => Trouble::Other,
            StoreError::Io(error) if error.kind() == io::ErrorKind::StorageFull => Trouble::Full,
            StoreError::Io(_) => Trouble::Other,
            StoreError::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Trouble::Full,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Unusable,
                _ => Trouble::Other,
            },
        }
    }
}

/// How much has been written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Written {
    pub(super) samples: [u64; Tier::ALL.len()],
    pub(super) events: u64,
}

/// The open database.
pub(super) struct Store {
    pub(super) connection: Connection,
    path: PathBuf,
    /// Which boot of the host this is: start times repeat after another.
    boot: String,
    pub(super) series: HashMap<Key, Series>,
    next_series: i64,
    next_seq: [i64; Tier::ALL.len()],
    _lock: File,
}

/// A series that has been written to.
pub(super) struct Series {
    pub(super) id: i64,
    /// The last time, while it is not yet in its row.
    pub(super) unwritten_ms: Option<u64>,
}

impl Store {
    /// Opens the database in a directory, and makes both if they are not there.
    pub(super) fn open(directory: &Path, boot: &str) -> Result<Store, StoreError> {
        make_private(directory)?;
        let lock = open_private(&directory.join(LOCK_NAME))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| StoreError::InUse)?;
        let path = directory.join(FILE_NAME);
        // Before SQLite makes it for everybody to read; what it puts beside it gets the same mode.
        open_private(&path)?;
        let mut connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Before anything is changed: a newer program's file stays as it is.
        schema::check_version(&connection)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA journal_size_limit = 16777216;
             PRAGMA cache_size = -4096;
             PRAGMA temp_store = MEMORY;",
        )?;
        schema::migrate(&mut connection)?;
        let next = |table: &str, column: &str| {
            let sql = format!("SELECT coalesce(max({column}), 0) + 1 FROM {table}");
            connection.query_row(&sql, [], |row| row.get::<_, i64>(0))
        };
        let mut next_seq = [0; Tier::ALL.len()];
        for (tier, seq) in Tier::ALL.iter().zip(&mut next_seq) {
            *seq = next(&format!("spans_{}", tier.name()), "seq")?;
        }
        let next_series = next("series", "id")?.max(DEVICE_SERIES);
        let (path, boot) = (path.clone(), boot.to_owned());
        let store =
            Store { connection, path, boot, series: HashMap::new(), next_series, next_seq, _lock: lock };
        if store.predecessor()?.is_some_and(|before| !before.has_stopped) {
            store.check()?;
        }
        Ok(store)
    }

    /// Looks through the whole file, as nobody knows what happened to the one who wrote it last.
    fn check(&self) -> Result<(), StoreError> {
        let found: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found == "ok" { Ok(()) } else { Err(StoreError::Damaged(found)) }
    }

    /// How the one ended who wrote before; `None` if the file is new.
    pub(super) fn predecessor(&self) -> Result<Option<Predecessor>, StoreError> {
        let sql = "SELECT kind, unix_ms FROM events ORDER BY id DESC LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
        let Some((kind, mut last_ms)) = self.connection.query_row(sql, [], row).optional()? else {
            return Ok(None);
        };
        for tier in Tier::ALL.map(Tier::name) {
            let sql = format!("SELECT unix_ms FROM spans_{tier} ORDER BY seq DESC LIMIT 1");
            let span_ms = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).optional()?;
            last_ms = last_ms.max(span_ms.unwrap_or(0));
        }
        let has_stopped = kind == Kind::DaemonStopped.name();
        Ok(Some(Predecessor { has_stopped, last_unix_ms: u64::try_from(last_ms).unwrap_or(0) }))
    }

    /// Writes all of it or nothing.
    pub(super) fn append(&mut self, unwritten: &Unwritten) -> Result<Written, StoreError> {
        let appended = self.try_append(unwritten);
        if appended.is_err() {
            // Rows of series may have been taken back: they are looked up again.
            self.series.clear();
        }
        appended
    }

    fn try_append(&mut self, unwritten: &Unwritten) -> Result<Written, StoreError> {
        let Store { connection, boot, series, next_series, next_seq, .. } = self;
        let transaction = connection.transaction()?;
        let mut seq = *next_seq;
        let mut written = Written::default();
        for span in &unwritten.spans {
            let mut names = Names { boot, series: &mut *series, next_series: &mut *next_series };
            append_span(&transaction, span, seq[span.tier as usize], &mut names)?;
            seq[span.tier as usize] += 1;
            written.samples[span.tier as usize] += span.points.len() as u64;
        }
        for event in &unwritten.events {
            append_event(&transaction, event)?;
            written.events += 1;
        }
        transaction.commit()?;
        *next_seq = seq;
        Ok(written)
    }

    /// The room that it takes on the disk.
    pub(super) fn size_bytes(&self) -> u64 {
        let size = |suffix: &str| fs::metadata(beside(&self.path, suffix)).map_or(0, |file| file.len());
        size("") + COMPANIONS.iter().map(|suffix| size(suffix)).sum::<u64>()
    }

    /// Puts everything into the one file.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

/// Which number each series has.
struct Names<'a> {
    boot: &'a str,
    series: &'a mut HashMap<Key, Series>,
    next_series: &'a mut i64,
}

impl Names<'_> {
    fn number(
        &mut self,
        transaction: &Transaction<'_>,
        key: Key,
        process: Option<&Process>,
        unix_ms: u64,
    ) -> Result<i64, rusqlite::Error> {
        if let Some(series) = self.series.get_mut(&key) {
            series.unwritten_ms = Some(unix_ms);
            return Ok(series.id);
        }
        let id = match process {
            None => {
                let id = schema::device_series(key.device, key.memory_type);
                transaction
                    .prepare_cached(
                        "INSERT OR IGNORE INTO series (id, device, memory_type, first_unix_ms, last_unix_ms)
                         VALUES (?, ?, ?, ?, ?)",
                    )?
                    .execute(params![
                        id,
                        key.device,
                        key.memory_type.name(),
                        integer(unix_ms),
                        integer(unix_ms)
                    ])?;
                id
            }
            Some(process) => self.number_of_process(transaction, key, process, unix_ms)?,
        };
        self.series.insert(key, Series { id, unwritten_ms: Some(unix_ms) });
        Ok(id)
    }

    /// A process that an earlier daemon has seen keeps its series.
    fn number_of_process(
        &mut self,
        transaction: &Transaction<'_>,
        key: Key,
        process: &Process,
        unix_ms: u64,
    ) -> Result<i64, rusqlite::Error> {
        let start_ticks = i64::try_from(process.identity().start_ticks).ok();
        let known = transaction
            .prepare_cached(
                "SELECT id FROM series
                 WHERE pid = ? AND start_ticks = ? AND boot = ? AND device = ? AND memory_type = ?",
            )?
            .query_row(
                params![process.pid(), start_ticks, self.boot, key.device, key.memory_type.name()],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(id) = known {
            return Ok(id);
        }
        let id = *self.next_series;
        let start_ms = process.info().start_time_seconds.map(|seconds| (seconds * 1000.0) as i64);
        transaction.prepare_cached("INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?.execute(
            params![
                id,
                key.device,
                key.memory_type.name(),
                process.pid(),
                start_ticks,
                self.boot,
                process.info().name,
                start_ms,
                integer(unix_ms),
                integer(unix_ms)
            ],
        )?;
        *self.next_series += 1;
        Ok(id)
    }
}

fn append_span(
    transaction: &Transaction<'_>,
    span: &Span,
    seq: i64,
    names: &mut Names<'_>,
) -> Result<(), rusqlite::Error> {
    let tier = span.tier.name();
    transaction.prepare_cached(&format!("INSERT INTO spans_{tier} VALUES (?, ?, ?)"))?.execute(params![
        seq,
        integer(span.unix_ms),
        integer(span.covered_ms)
    ])?;
    let mut rows = Vec::with_capacity(span.points.len());
    for (key, (process, point)) in &span.points {
        rows.push((names.number(transaction, *key, process.as_deref(), span.unix_ms)?, point));
    }
    // At the end of the table, in its order.
    rows.sort_unstable_by_key(|(series, _)| *series);
    let places = "?, ".repeat(19);
    let mut insert = transaction.prepare_cached(&format!("INSERT INTO samples_{tier} VALUES ({places}?)"))?;
    // A series that two processes share comes once; it cannot be told whose the other row was.
    rows.dedup_by_key(|(series, _)| *series);
    for (series, point) in rows {
        let row = columns(point, span.covered_ms);
        insert.raw_bind_parameter(1, seq << SERIES_BITS | series)?;
        for (index, value) in row.into_iter().enumerate() {
            insert.raw_bind_parameter(index + 2, value)?;
        }
        insert.raw_execute()?;
    }
    Ok(())
}

/// A point's columns. Extremes that say nothing new are left out: most memory stands still for most of the time.
fn columns(point: &Point, covered_ms: u64) -> [Option<i64>; 19] {
    let mut columns = [None; 19];
    columns[..3].copy_from_slice(&level_columns(&point.usage));
    columns[3] = Some(integer(point.peak_bytes));
    if let Some(reported) = &point.reported {
        columns[4..7].copy_from_slice(&level_columns(&reported.buffers));
        for (flow, columns) in reported.flows.iter().zip(columns[7..].chunks_exact_mut(3)) {
            columns.copy_from_slice(&flow_columns(flow, covered_ms));
        }
    }
    columns
}

fn level_columns(level: &Level) -> [Option<i64>; 3] {
    let mean = level.mean_rounded();
    let unless_mean = |extreme: u64| (extreme != mean).then(|| integer(extreme));
    [Some(integer(mean)), unless_mean(level.min), unless_mean(level.max)]
}

fn flow_columns(flow: &Flow, covered_ms: u64) -> [Option<i64>; 3] {
    let mean = per_second(flow.total, covered_ms);
    let unless_mean = |extreme: u64| (extreme != mean).then(|| integer(extreme));
    [Some(integer(flow.total)), unless_mean(flow.rate_min), unless_mean(flow.rate_max)]
}

fn append_event(transaction: &Transaction<'_>, event: &Event) -> Result<(), rusqlite::Error> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO events (unix_ms, kind, device, memory_type, pid, process, figures) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    let process = event.process.as_ref();
    // A map of names and plain values always serializes.
    let figures = serde_json::to_string(&event.figures).unwrap_or_default();
    insert.execute(params![
        integer(event.unix_ms),
        event.kind.name(),
        event.device,
        event.memory_type.map(MemoryType::name),
        process.map(|process| process.pid()),
        process.map(|process| process.info().name.as_str()),
        figures
    ])?;
    Ok(())
}

/// SQLite's integers are signed; no byte count of this field reaches half of them.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Renames a database that cannot be used, with what belongs to it, and gives its new name. Only the newest few of such files are kept.
pub(super) fn set_aside(directory: &Path, unix_seconds: u64) -> io::Result<PathBuf> {
    let path = directory.join(FILE_NAME);
    let aside = directory.join(format!("{FILE_NAME}{SET_ASIDE_INFIX}{unix_seconds}"));
    for suffix in COMPANIONS {
        match fs::rename(beside(&path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(&path, &aside)?;
    let mut earlier = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_main = !COMPANIONS.iter().any(|suffix| name.ends_with(suffix));
        if name.starts_with(&format!("{FILE_NAME}{SET_ASIDE_INFIX}")) && is_main {
            earlier.push(directory.join(name));
        }
    }
    earlier.sort_unstable();
    for old in earlier.iter().rev().skip(SET_ASIDE_MAX) {
        fs::remove_file(old)?;
        for suffix in COMPANIONS {
            // It need not be there.
            let _ = fs::remove_file(beside(old, suffix));
        }
    }
    Ok(aside)
}

/// A directory for the daemon's user alone; one that is there is left as it is.
fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// A file for the daemon's user alone, as the directory may be anybody's to look into; what is in it stays.
fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
