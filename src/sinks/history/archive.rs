//! The reading side: answers from a connection of its own, which never makes the writer wait.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ToSql;
use rusqlite::{Connection, ErrorCode, InterruptHandle, OpenFlags, Row, params};

use super::grid::{Cell, Grid, StoredSpan};
use super::measure::Measure;
use super::request::{EventRequest, RangeRequest};
use super::schema::{self, SERIES_BITS};
use super::store::{COMPANIONS, FILE_NAME, integer};
use super::tier::Tier;
use crate::registry::MemoryType;
use crate::views::json::history::{Event, Events, Range, RangeSeries};

/// A series' row says up to when there is something of it, but not to the minute.
const SERIES_TIME_SLACK_MS: u64 = 120_000;
/// Series whose numbers are no further apart are read in one go: what lies between costs less than looking again.
const RUN_GAP_MAX: i64 = 16;
/// A checkpoint holds readers up for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the past cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is no database: the environment's fault, or nothing has been written yet.
    #[error("{0}: there is no history")]
    Missing(PathBuf),
    /// A newer program has written it.
    #[error("it is of version {0}, which a newer ttmem has written; this one knows {version}", version = schema::VERSION)]
    Newer(i64),
    /// It took too long, and was interrupted.
    #[error("it takes too long; ask for a shorter time, a larger step or fewer series")]
    Interrupted,
    /// The database, or the disk under it.
    #[error("the history cannot be read: {0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for ArchiveError {
    fn from(error: rusqlite::Error) -> ArchiveError {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => ArchiveError::Interrupted,
            _ => ArchiveError::Sqlite(error),
        }
    }
}

/// Where the past lies.
#[derive(Clone, Debug)]
pub struct Archive {
    path: PathBuf,
}

/// The past, open for one request.
pub struct OpenArchive {
    connection: Connection,
}

/// A series as its row has it.
struct Described {
    id: i64,
    head: RangeSeries,
}

impl Archive {
    /// The history in a directory for state.
    pub fn new(directory: &Path) -> Archive {
        Archive { path: directory.join(FILE_NAME) }
    }

    /// Opens it to read.
    pub fn open(&self) -> Result<OpenArchive, ArchiveError> {
        if !self.path.exists() {
            return Err(ArchiveError::Missing(self.path.clone()));
        }
        let connection = self.connect()?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > schema::VERSION {
            return Err(ArchiveError::Newer(version));
        }
        Ok(OpenArchive { connection })
    }

    fn connect(&self) -> Result<Connection, ArchiveError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        let read = connection.query_row("PRAGMA schema_version", [], |_| Ok(()));
        let is_in_use = COMPANIONS.iter().any(|suffix| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            Path::new(&name).exists()
        });
        match read {
            // Somebody who may not write to the directory reads a file that nobody has open.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && !is_in_use => {
                let path = self.path.to_string_lossy();
                let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
                let flags = flags | OpenFlags::SQLITE_OPEN_URI;
                Ok(Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)?)
            }
            read => Ok(read.map(|()| connection)?),
        }
    }
}

impl OpenArchive {
    /// What ends a request that takes too long.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// A page of series over a time.
    pub fn range(&self, request: &RangeRequest) -> Result<Range, ArchiveError> {
        let tier = self.tier(request)?;
        let step_ms = request.step_ms.next_multiple_of(tier.interval_ms());
        let grid = Grid::over(request.start_ms, request.end_ms, step_ms);
        let series_max = request.series_max(grid.steps);
        let mut described = self.series(request, series_max + 1)?;
        let has_more = described.len() > series_max;
        described.truncate(series_max);
        let next_cursor = described.last().filter(|_| has_more).map(|series| series.id.to_string());
        let mut cells = HashMap::new();
        for run in described.chunk_by(|left, right| right.id - left.id <= RUN_GAP_MAX) {
            cells.extend(run.iter().map(|series| (series.id, vec![None; grid.steps])));
            self.read_run(tier, request.measure, &grid, run, &mut cells)?;
        }
        let results = described.into_iter().map(|Described { id, head }| {
            let steps: Vec<Option<Cell>> = cells.remove(&id).unwrap_or_default();
            let points = steps.into_iter().map(|cell| cell.map(|cell| cell.point())).collect();
            RangeSeries { points, ..head }
        });
        Ok(Range {
            series: request.measure.name().to_owned(),
            unit: request.measure.unit().to_owned(),
            start_seconds: seconds(grid.start_ms),
            end_seconds: seconds(grid.end_ms()),
            step_seconds: seconds(step_ms),
            results: results.collect(),
            next_cursor,
        })
    }

    /// The coarsest tier that is fine enough; a coarser one where that does not reach back as far.
    fn tier(&self, request: &RangeRequest) -> Result<Tier, ArchiveError> {
        let mut oldest = Vec::new();
        for tier in Tier::ALL {
            let sql = format!("SELECT min(unix_ms) FROM spans_{}", tier.name());
            let first: Option<i64> = self.connection.query_row(&sql, [], |row| row.get(0))?;
            oldest.push(first.and_then(|first| u64::try_from(first).ok()).unwrap_or(u64::MAX));
        }
        let fits = |tier: &&Tier| tier.interval_ms() <= request.step_ms;
        let preferred = Tier::ALL.iter().rev().find(fits).map_or(0, |tier| *tier as usize);
        // A coarse span begins before the first sample in it, so that it seems to reach back further.
        let slack_ms = 2 * Tier::Minute.interval_ms();
        let reaches = |index: usize, from_ms: u64| oldest[index] <= from_ms.saturating_add(slack_ms);
        let from_ms = request.start_ms.max(oldest.iter().copied().min().unwrap_or(0));
        let reaching = (preferred..Tier::ALL.len()).find(|index| reaches(*index, from_ms));
        Ok(Tier::ALL[reaching.unwrap_or(preferred)])
    }

    fn series(&self, request: &RangeRequest, limit: usize) -> Result<Vec<Described>, ArchiveError> {
        let who = if request.by_process { "pid IS NOT NULL" } else { "pid IS NULL" };
        let sql = format!(
            "SELECT id, device, memory_type, pid, process, start_unix_ms FROM series
             WHERE {who} AND id > ?1 AND first_unix_ms < ?2 AND last_unix_ms >= ?3
               AND (?4 IS NULL OR device = ?4) AND (?5 IS NULL OR memory_type = ?5) AND (?6 IS NULL OR pid = ?6)
             ORDER BY id LIMIT ?7"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(
            params![
                request.cursor,
                integer(request.end_ms),
                integer(request.start_ms.saturating_sub(SERIES_TIME_SLACK_MS)),
                request.device,
                request.memory_type.map(MemoryType::name),
                request.pid,
                limit as i64
            ],
            describe,
        )?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Reads what a tier has of neighbouring series, and after its end what finer ones have already.
    fn read_run(
        &self,
        tier: Tier,
        measure: Measure,
        grid: &Grid,
        run: &[Described],
        cells: &mut HashMap<i64, Vec<Option<Cell>>>,
    ) -> Result<(), ArchiveError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let mut from_ms = grid.start_ms;
        for tier in Tier::ALL.into_iter().rev().skip_while(|other| *other != tier) {
            let mut statement = self.connection.prepare_cached(&sql_of_run(tier, measure))?;
            let mut rows =
                statement.query(params![integer(from_ms), integer(grid.end_ms()), first.id, last.id])?;
            while let Some(row) = rows.next()? {
                let span = StoredSpan { tier, unix_ms: unsigned(row, 0)?, covered_ms: unsigned(row, 1)? };
                if !tier.is_finest() {
                    from_ms = from_ms.max(span.unix_ms + tier.interval_ms());
                }
                let Some(steps) = cells.get_mut(&row.get(2)?) else { continue };
                let Some(value) = optional(row, 3)? else { continue };
                let stored = (value, optional(row, 4)?, optional(row, 5)?);
                let cell = Cell::of(measure.nature(), stored, span.covered_ms);
                for step in &mut steps[grid.steps_of(span)] {
                    match step {
                        Some(known) => known.merge(&cell),
                        None => *step = Some(cell),
                    }
                }
            }
        }
        Ok(())
    }

    /// A page of events.
    pub fn events(&self, request: &EventRequest) -> Result<Events, ArchiveError> {
        let (mut wheres, mut values): (Vec<&str>, Vec<Box<dyn ToSql>>) = (vec!["true"], Vec::new());
        let mut only = |condition: &'static str, value: Option<Box<dyn ToSql>>| {
            if let Some(value) = value {
                wheres.push(condition);
                values.push(value);
            }
        };
        let boxed = |value: i64| -> Box<dyn ToSql> { Box::new(value) };
        only("kind = ?", request.kind.map(|kind| Box::new(kind.name()) as Box<dyn ToSql>));
        only("device = ?", request.device.map(|device| boxed(device.into())));
        only("pid = ?", request.pid.map(|pid| boxed(pid.into())));
        only("unix_ms >= ?", request.start_ms.map(|ms| boxed(integer(ms))));
        only("unix_ms < ?", request.end_ms.map(|ms| boxed(integer(ms))));
        let (beyond, order) = if request.newest_first { ("id < ?", "DESC") } else { ("id > ?", "ASC") };
        only(beyond, request.after.map(boxed));
        values.push(boxed(request.limit as i64 + 1));
        let sql = format!(
            "SELECT id, unix_ms, kind, device, memory_type, pid, process, figures FROM events
             WHERE {} ORDER BY id {order} LIMIT ?",
            wheres.join(" AND ")
        );
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), event)?;
        let mut events: Vec<Event> = rows.collect::<Result<_, _>>()?;
        let has_more = events.len() > request.limit;
        events.truncate(request.limit);
        let next_cursor = events.last().filter(|_| has_more).map(|event| event.id.to_string());
        Ok(Events { events, next_cursor })
    }
}

/// Reads a run of series in a time: the spans by their index of time, and of each span the rows of those series alone.
pub(super) fn sql_of_run(tier: Tier, measure: Measure) -> String {
    format!(
        "SELECT span.unix_ms, span.covered_ms, sample.id & {mask}, {columns}
         FROM spans_{tier} AS span CROSS JOIN samples_{tier} AS sample
         ON sample.id BETWEEN (span.seq << {SERIES_BITS}) + ?3 AND (span.seq << {SERIES_BITS}) + ?4
         WHERE span.unix_ms >= ?1 AND span.unix_ms < ?2",
        mask = (1i64 << SERIES_BITS) - 1,
        columns = measure.columns(),
        tier = tier.name(),
    )
}

fn describe(row: &Row<'_>) -> Result<Described, rusqlite::Error> {
    let head = RangeSeries {
        device: row.get(1)?,
        memory_type: row.get(2)?,
        pid: row.get(3)?,
        process: row.get(4)?,
        start_time_seconds: row.get::<_, Option<i64>>(5)?.map(|ms| ms as f64 / 1000.0),
        points: Vec::new(),
    };
    Ok(Described { id: row.get(0)?, head })
}

fn event(row: &Row<'_>) -> Result<Event, rusqlite::Error> {
    let figures: String = row.get(7)?;
    Ok(Event {
        id: row.get(0)?,
        timestamp_seconds: seconds(unsigned(row, 1)?),
        kind: row.get(2)?,
        device: row.get(3)?,
        memory_type: row.get(4)?,
        pid: row.get(5)?,
        process: row.get(6)?,
        // What somebody else has written into it is not shown.
        figures: serde_json::from_str(&figures).unwrap_or_default(),
    })
}

/// A negative number is nobody's of ours: it reads as 0.
fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn optional(row: &Row<'_>, column: usize) -> Result<Option<u64>, rusqlite::Error> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|value| u64::try_from(value).unwrap_or(0)))
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
