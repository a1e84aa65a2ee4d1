//! Fills a sample of the rows, and rolls it back.
//!
//! The new values are first computed by reading, which locks no row. Only rows without errors are then updated, and
//! only if the columns exist already: adding one would need a lock that blocks other sessions, even if it is rolled
//! back. The update includes only rows that no other session has locked, a thousand at a time, and each piece is
//! rolled back at once: an application that needs one of these rows waits at most for two statements of
//! [`SampleLimits::update_ms`]. Other sessions and subscribers see none of it. As with any transaction that is rolled back,
//! dead rows remain for vacuum, and effects of triggers outside the transaction remain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::filling::Filling;
use crate::model::ident::{Ident, plain};
use crate::model::key::Key;
use crate::model::sample::{MOST_KEYS, Nulls, RowError, Sample};
use crate::model::untrusted_code::Access;
use crate::sql::{fill as fill_sql, plan_sql, row_trial, sample as sql};

use super::transaction::READ_COMMITTED;
use super::untrusted_code;

/// The number of rows that one statement computes or updates.
const PIECE: usize = 1_000;
/// The sample is larger than requested by this factor, so that the pages which contain enough rows according to the
/// statistics suffice.
const RESERVE: f64 = 1.5;

/// What a sample may cost.
#[derive(Debug, Clone, Copy)]
struct SampleLimits {
    /// The time limit for a statement while the rows of a piece are locked, in milliseconds.
    update_ms: u32,
    /// The time limit for a statement that reads, in milliseconds.
    read_ms: u32,
    /// How long the rows that fail in a piece are searched for.
    search: Duration,
    /// The number of failing rows after which the search ends.
    errors: usize,
}

/// For `check --sample`.
const ASKED_FOR: SampleLimits =
    SampleLimits { update_ms: 1_000, read_ms: 10_000, search: Duration::from_secs(60), errors: MOST_KEYS };

/// For every check. Rows are locked after everything is read, for the time that it takes to update some hundred rows.
const BRIEF: SampleLimits =
    SampleLimits { update_ms: 250, read_ms: 2_000, search: Duration::from_secs(5), errors: 3 };

/// The number of rows for every check.
const BRIEF_ROWS: u32 = 128;

/// The result for about `rows` rows, of `to_fill` that match and `all` that exist, according to the statistics.
///
/// # Errors
/// It took too long, or the server returned an error that is not about a row.
pub async fn sample(
    client: &Client,
    f: &Filling,
    rows: u32,
    to_fill: Option<f64>,
    all: f64,
) -> Result<Sample> {
    let mut trier = Trier::new(client, f, ASKED_FOR);
    let keys = trier.keys(rows, to_fill.unwrap_or(all)).await?;
    let mut nulls = vec![0; f.set.len()];
    let good = trier.evaluate(&keys, &mut nulls).await?;
    if trier.found.updated {
        trier.time = Time::default();
    }
    trier.fill(&good).await?;
    let Trier { mut found, time, .. } = trier;
    found.rows_to_fill = to_fill.map(|rows| rows.round() as u64);
    found.nulls = f
        .set
        .iter()
        .zip(nulls)
        .filter(|(_, rows)| *rows > 0)
        .map(|((name, _), rows)| Nulls { column: plain(name.as_str()), rows })
        .collect();
    found.ms_per_1000_rows = time.ms_per_1000_rows();
    found.all_rows_s = found.ms_per_1000_rows.zip(to_fill).map(|(ms, rows)| ms * rows / 1e6);
    Ok(found)
}

/// The result for a few rows of a table of `blocks` blocks; every check of a job that updates rows tries them. If a column
/// to be set does not exist yet, the update sets the columns `same` to their present values, which fires the application's
/// triggers.
///
/// # Errors
/// It took too long, the table has code of roles that are not trusted, or the server returned an error that is not about a
/// row.
pub async fn brief(client: &Client, f: &Filling, blocks: i64, same: &[&Ident]) -> Result<Sample> {
    let mut trier = Trier { same, ..Trier::new(client, f, BRIEF) };
    let keys = trier.few_keys(&row_trial::sampled(blocks)).await?;
    let good = trier.evaluate(&keys, &mut vec![0; f.set.len()]).await?;
    trier.fill(&good).await?;
    Ok(trier.found)
}

/// Rows, and the time for them.
#[derive(Debug, Default)]
struct Time {
    rows: u64,
    ms: f64,
}

impl Time {
    fn add(&mut self, rows: u64, took: Duration) {
        self.rows += rows;
        self.ms += took.as_secs_f64() * 1000.0;
    }

    fn ms_per_1000_rows(&self) -> Option<f64> {
        (self.rows > 0).then(|| (self.ms * 1000.0 / self.rows as f64 * 10.0).round() / 10.0)
    }
}

fn key_of(row: &Row) -> Key {
    (0..row.len()).map(|i| row.get(i)).collect()
}

/// What is tried, piece by piece.
struct Trier<'a> {
    client: &'a Client,
    f: &'a Filling,
    limits: SampleLimits,
    same: &'a [&'a Ident],
    until: Instant,
    found: Sample,
    time: Time,
}

impl<'a> Trier<'a> {
    fn new(client: &'a Client, f: &'a Filling, limits: SampleLimits) -> Self {
        let updated = f.missing().next().is_none();
        Self {
            client,
            f,
            limits,
            same: &[],
            until: Instant::now() + limits.search,
            found: Sample { updated, ..Sample::default() },
            time: Time::default(),
        }
    }

    /// Keys of rows from the whole table; if too few of those match, of the first rows that do.
    async fn keys(&self, rows: u32, to_fill: f64) -> Result<Vec<Key>> {
        let percent = (RESERVE * f64::from(rows) / to_fill.max(1.0) * 100.0).min(100.0);
        let mut found = self.read_keys(sql::From::Pages(percent), rows, true).await;
        if percent < 100.0 && found.as_ref().is_ok_and(|found| found.len() < rows as usize) {
            found = self.read_keys(sql::From::Pages(100.0), rows, true).await;
        }
        match found {
            // The plan's where fails on a row, or finds no row for a long time: use any rows.
            Err(e) if e.sqlstate().is_some() => {
                self.read_keys(sql::From::Pages(percent), rows, false).await.map_err(|e| self.too_long(e))
            }
            other => other,
        }
    }

    /// Keys of rows that satisfy the condition; if none of those matches, of the first rows that do, unless that takes long.
    async fn few_keys(&self, condition: &str) -> Result<Vec<Key>> {
        let of = sql::From::Where(condition);
        match self.read_keys(of, BRIEF_ROWS, true).await {
            Ok(found) if found.is_empty() && self.f.filter.is_some() => {
                match self.read_keys(sql::From::Pages(100.0), BRIEF_ROWS, true).await {
                    Err(e) if e.sqlstate().is_some() => Ok(Vec::new()),
                    other => other,
                }
            }
            Err(e) if e.sqlstate().is_some() => self.read_keys(of, BRIEF_ROWS, false).await,
            other => other,
        }
    }

    async fn read_keys(&self, from: sql::From<'_>, rows: u32, matching: bool) -> Result<Vec<Key>> {
        let found = self
            .rolled_back(self.limits.read_ms, async |client| {
                Ok(client.query(&sql::keys(self.f, from, rows, matching), &[]).await?)
            })
            .await?;
        let distinct: BTreeSet<Key> = found.iter().map(key_of).collect();
        Ok(distinct.into_iter().collect())
    }

    /// Computes the new values; returns the keys of rows for which that succeeds.
    async fn evaluate(&mut self, keys: &[Key], nulls: &mut [u64]) -> Result<Vec<Key>> {
        let mut good = Vec::new();
        let mut left: Vec<Vec<Key>> = keys.chunks(PIECE).rev().map(<[Key]>::to_vec).collect();
        while let Some(piece) = left.pop() {
            if self.is_over() {
                self.found.untried += piece.len() as u64;
                continue;
            }
            let began = Instant::now();
            let statement = sql::evaluated(self.f);
            let rows = self
                .rolled_back(self.limits.read_ms, async |client| ask(client, &statement, &piece).await)
                .await;
            match rows {
                Ok(rows) => {
                    let matching = self.counted(&rows, nulls);
                    self.time.add(matching.len() as u64, began.elapsed());
                    good.extend(matching);
                }
                Err(e) => {
                    let errors = self.found.errors.len();
                    self.halve(e, piece, &mut left)?;
                    self.found.rows += (self.found.errors.len() - errors) as u64;
                }
            }
        }
        Ok(good)
    }

    /// Records the computed values; returns the keys of the rows that match.
    fn counted(&mut self, rows: &[Row], nulls: &mut [u64]) -> Vec<Key> {
        let mut times: BTreeMap<Key, u64> = BTreeMap::new();
        for row in rows {
            *times.entry(row.get(0)).or_default() += 1;
            for (sum, is_null) in nulls.iter_mut().zip(row.get::<_, Vec<bool>>(1)) {
                *sum += u64::from(is_null);
            }
        }
        self.found.rows += times.len() as u64;
        for (key, _) in times.iter().filter(|(_, times)| **times > 1) {
            self.found.yielded_twice.add(key.join(", "));
        }
        times.into_keys().collect()
    }

    /// Updates the rows, and checks whether they still match.
    async fn fill(&mut self, keys: &[Key]) -> Result<()> {
        let mut left: Vec<Vec<Key>> = keys.chunks(PIECE).rev().map(<[Key]>::to_vec).collect();
        while let Some(piece) = left.pop() {
            if self.is_over() {
                self.found.untried += piece.len() as u64;
                continue;
            }
            let began = Instant::now();
            let mut done = None;
            let still = self.filled(&piece, began, &mut done).await;
            match still {
                Ok(still) => {
                    if let Some((locked, set, took)) = done {
                        self.time.add(set, took);
                        self.found.suppressed += locked.saturating_sub(set);
                        self.found.busy += (piece.len() as u64).saturating_sub(locked);
                    }
                    still.iter().for_each(|row| self.found.still_matching.add(row.get(0)));
                }
                Err(e) => self.halve(e, piece, &mut left)?,
            }
        }
        Ok(())
    }

    /// Updates the rows of a piece; returns those that still match. `done`: the number of rows that were locked and that were
    /// updated, and the time for it.
    async fn filled(
        &self,
        piece: &[Key],
        began: Instant,
        done: &mut Option<(u64, u64, Duration)>,
    ) -> Result<Vec<Row>> {
        let (f, limits) = (self.f, self.limits);
        let count = |row: &Row, i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
        if self.found.updated {
            return self
                .rolled_back(limits.update_ms, async |client| {
                    self.check_untrusted_code(client).await?;
                    let rows = ask(client, &sql::updated(f), piece).await?;
                    client.batch_execute(sql::FIRE_DEFERRED).await?;
                    client.batch_execute(&plan_sql::look_up_again(&f.sql)).await?;
                    *done = rows.first().map(|row| (count(row, 0), count(row, 1), began.elapsed()));
                    ask(client, &sql::still_matching(f), piece).await
                })
                .await;
        }
        if !self.same.is_empty() {
            let touched = self
                .rolled_back(limits.update_ms, async |client| {
                    self.check_untrusted_code(client).await?;
                    let rows = ask(client, &sql::touched(f, self.same), piece).await?;
                    client.batch_execute(sql::FIRE_DEFERRED).await?;
                    Ok(rows)
                })
                .await?;
            *done = touched.first().map(|row| (count(row, 0), count(row, 1), began.elapsed()));
        }
        self.rolled_back(limits.read_ms, async |client| ask(client, &sql::would_be_meant(f), piece).await)
            .await
    }

    /// Prevents triggers of roles that are not trusted from running with the privileges of the job's role.
    async fn check_untrusted_code(&self, client: &Client) -> Result<()> {
        let table = std::slice::from_ref(&self.f.table.name);
        let cascades = self.f.changes_unique();
        untrusted_code::check(client, table, &self.f.sql.trust, Access::Updates { cascades }).await
    }

    /// Runs `work` in a transaction that is never committed, waits for no lock, and takes no longer than `limit_ms` a statement.
    async fn rolled_back<T>(&self, limit_ms: u32, work: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
        let client = self.client;
        client
            .batch_execute(&format!(
                "{READ_COMMITTED}; set local statement_timeout = '{limit_ms}ms'; set local lock_timeout = '100ms'; {}; {}",
                fill_sql::names(self.f),
                fill_sql::OWN_WRITES
            ))
            .await?;
        let result = work(client).await;
        let ended = client.batch_execute("rollback").await;
        let value = result?;
        ended?;
        Ok(value)
    }

    fn too_long(&self, error: Error) -> Error {
        if !error.is(&SqlState::QUERY_CANCELED) {
            return error;
        }
        let SampleLimits { read_ms, update_ms, .. } = self.limits;
        Error::failed("the plan's SQL takes too long on a part of the sample")
            .cause(format!("limits: {read_ms} ms to read, {update_ms} ms to hold rows, for up to {PIECE} rows"))
            .hint(
                "try a smaller --sample; use EXPLAIN to see what `from` and `where` read, and whether an index would help",
            )
            .code(SqlState::QUERY_CANCELED.code())
    }

    fn is_over(&self) -> bool {
        self.found.errors.len() >= self.limits.errors || Instant::now() > self.until
    }

    /// What remains after an error: the halves of a piece, or the row that fails.
    fn halve(&mut self, error: Error, mut piece: Vec<Key>, left: &mut Vec<Vec<Key>>) -> Result<()> {
        match error.sqlstate().map(str::to_owned) {
            None => return Err(error),
            Some(code) if code == SqlState::QUERY_CANCELED.code() => return Err(self.too_long(error)),
            // Another session holds a lock that the update needs in addition to its rows.
            Some(code) if ["40001", "40P01", "55P03"].contains(&code.as_str()) => {
                self.found.busy += piece.len() as u64;
            }
            Some(_) if !error.is_about_a_row() => return Err(error),
            Some(sqlstate) if piece.len() == 1 => {
                let key = piece.concat().join(", ");
                self.found.errors.push(RowError { key, message: error.message().to_owned(), sqlstate });
            }
            Some(_) => {
                let second = piece.split_off(piece.len() / 2);
                left.extend([second, piece]);
            }
        }
        Ok(())
    }
}

/// Runs a statement on rows that are identified by their keys.
async fn ask(client: &Client, statement: &str, keys: &[Key]) -> Result<Vec<Row>> {
    let columns = keys.first().map_or(0, Vec::len);
    let lists: Vec<Vec<&str>> = (0..columns)
        .map(|i| keys.iter().filter_map(|key| key.get(i)).map(String::as_str).collect())
        .collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = lists.iter().map(|list| list as &(dyn ToSql + Sync)).collect();
    Ok(client.query(statement, &parameters).await?)
}
