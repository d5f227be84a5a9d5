//! What is forgotten: by age, and by size where there is too much within it.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::schema::SERIES_BITS;
use super::store::{Store, StoreError, integer};
use super::tier::Tier;

/// How long and how much is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Retention {
    /// By tier; a tier of 0 is not written at all.
    pub(super) keep_ms: [u64; Tier::ALL.len()],
    pub(super) size_bytes_max: u64,
}

/// Time spans that are forgotten at once: with many processes a few megabytes of writing, and far more than come in a minute.
const SPANS_AT_ONCE: i64 = 1000;
/// Events that are forgotten at once.
const EVENTS_AT_ONCE: i64 = 10_000;
/// Events that are kept, about 30 megabytes; a program that starts and fails in a loop must not fill the disk.
const EVENTS_MAX: i64 = 200_000;
/// Where there is too much, so large a part of each tier goes, its oldest one.
const CUT_PARTS: i64 = 8;

impl Retention {
    pub(super) fn keeps(&self, tier: Tier) -> bool {
        self.keep_ms[tier as usize] > 0
    }

    fn longest_ms(&self) -> u64 {
        self.keep_ms.into_iter().max().unwrap_or(0)
    }
}

impl Store {
    /// Forgets what is due, a bounded part of it: to be called again and again.
    pub(super) fn prune(&mut self, retention: &Retention, now_ms: u64) -> Result<(), StoreError> {
        self.write_series_times()?;
        let transaction = self.connection.transaction()?;
        for tier in Tier::ALL {
            let until_ms = now_ms.saturating_sub(retention.keep_ms[tier as usize]);
            forget_spans_before(&transaction, tier, until_ms)?;
        }
        let until_ms = integer(now_ms.saturating_sub(retention.longest_ms()));
        transaction
            .prepare_cached(
                "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE unix_ms < ? ORDER BY unix_ms LIMIT ?)",
            )?
            .execute(params![until_ms, EVENTS_AT_ONCE])?;
        transaction
            .execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", [EVENTS_MAX])?;
        transaction
            .prepare_cached("DELETE FROM series WHERE pid IS NOT NULL AND last_unix_ms < ?")?
            .execute([until_ms])?;
        if used_bytes(&transaction)? > integer(retention.size_bytes_max) {
            cut(&transaction)?;
        }
        Ok(transaction.commit()?)
    }

    /// Says in the series' rows up to when there is something of them, and lets go of those of which nothing has come since the last time.
    pub(super) fn write_series_times(&mut self) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        {
            let mut update = transaction.prepare_cached(
                "UPDATE series SET first_unix_ms = min(first_unix_ms, ?1), last_unix_ms = max(last_unix_ms, ?1) WHERE id = ?2",
            )?;
            for series in self.series.values() {
                if let Some(unix_ms) = series.unwritten_ms {
                    update.execute(params![integer(unix_ms), series.id])?;
                }
            }
        }
        transaction.commit()?;
        self.series.retain(|_, series| series.unwritten_ms.take().is_some());
        Ok(())
    }
}

fn forget_spans_before(
    transaction: &Transaction<'_>,
    tier: Tier,
    until_ms: u64,
) -> Result<(), rusqlite::Error> {
    let sql = format!(
        "SELECT seq FROM spans_{} WHERE unix_ms < ? ORDER BY unix_ms, seq LIMIT {SPANS_AT_ONCE}",
        tier.name()
    );
    let mut due: Vec<i64> = {
        let mut select = transaction.prepare_cached(&sql)?;
        select.query_map([integer(until_ms)], |row| row.get(0))?.collect::<Result<_, _>>()?
    };
    due.sort_unstable();
    for run in due.chunk_by(|left, right| left + 1 == *right) {
        forget_spans(transaction, tier, run[0], run[run.len() - 1])?;
    }
    Ok(())
}

/// Forgets the spans with these numbers, both included.
fn forget_spans(
    transaction: &Transaction<'_>,
    tier: Tier,
    first: i64,
    last: i64,
) -> Result<(), rusqlite::Error> {
    let tier = tier.name();
    transaction
        .prepare_cached(&format!("DELETE FROM samples_{tier} WHERE id >= ? AND id < ?"))?
        .execute([first << SERIES_BITS, (last + 1) << SERIES_BITS])?;
    transaction
        .prepare_cached(&format!("DELETE FROM spans_{tier} WHERE seq BETWEEN ? AND ?"))?
        .execute([first, last])?;
    Ok(())
}

/// Forgets the oldest part of every tier and of the events.
fn cut(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    for tier in Tier::ALL {
        if let Some((first, last)) = bounds(transaction, &format!("spans_{}", tier.name()), "seq")? {
            let part = ((last - first) / CUT_PARTS + 1).min(SPANS_AT_ONCE);
            forget_spans(transaction, tier, first, first + part - 1)?;
        }
    }
    if let Some((first, last)) = bounds(transaction, "events", "id")? {
        let part = ((last - first) / CUT_PARTS).min(EVENTS_AT_ONCE);
        transaction.execute("DELETE FROM events WHERE id < ?", [first + part])?;
    }
    Ok(())
}

fn bounds(connection: &Connection, table: &str, column: &str) -> Result<Option<(i64, i64)>, rusqlite::Error> {
    let sql = format!("SELECT min({column}), max({column}) FROM {table}");
    let row = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(row.and_then(|(first, last): (Option<i64>, Option<i64>)| first.zip(last)))
}

/// What is in use of the file; what is free in it is used again before it grows.
fn used_bytes(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}
