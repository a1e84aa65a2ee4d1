//! Fills a sample of the rows, and takes it back.
//!
//! What is set is computed by reading first: that locks no row. Only rows that come out well are then updated, and only where
//! the columns are there already: to add one takes a lock that everybody waits behind, though it be taken back. The update
//! takes what nobody holds, in pieces of a thousand rows, each rolled back at once: an application that wants one of these
//! rows waits for its piece, for two statements of [`UPDATE_MS`] at the very most. Nothing of it is seen by others or sent to subscribers; dead
//! rows are left for vacuum, as by any transaction that is rolled back, and triggers do what they do outside of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::filling::Filling;
use crate::model::ident::plain;
use crate::model::key::Key;
use crate::model::sample::{MOST_KEYS, Nulls, RowError, Sample};
use crate::sql::{fill as fill_sql, plan_sql, sample as sql};

use super::transaction::READ_COMMITTED;

/// Rows that are computed, or updated, by one statement.
const PIECE: usize = 1_000;
/// How long a statement may take while the rows of a piece are locked.
const UPDATE_MS: u32 = 1_000;
/// How long a statement may read.
const READ_MS: u32 = 10_000;
/// How long it goes on looking for the rows of a piece that fails.
const LIMIT: Duration = Duration::from_secs(60);
/// More rows than asked for, that come of as many pages as hold them by the statistics.
const RESERVE: f64 = 1.5;

/// What becomes of about `rows` rows, of `to_fill` that match and `all` there are, by the statistics.
///
/// # Errors
/// It took too long; or what the server said, but for what it said against a row.
pub async fn sample(
    client: &Client,
    f: &Filling,
    rows: u32,
    to_fill: Option<f64>,
    all: f64,
) -> Result<Sample> {
    let mut trier =
        Trier { client, f, until: Instant::now() + LIMIT, found: Sample::default(), time: Time::default() };
    let keys = keys(client, f, rows, to_fill.unwrap_or(all)).await?;
    let mut nulls = vec![0; f.set.len()];
    let good = trier.evaluate(&keys, &mut nulls).await?;
    trier.found.updated = f.missing().next().is_none();
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

/// Rows, and how long they took.
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

/// Keys of rows from all over the table; where too few of those match, of the first that do.
async fn keys(client: &Client, f: &Filling, rows: u32, to_fill: f64) -> Result<Vec<Key>> {
    let percent = (RESERVE * f64::from(rows) / to_fill.max(1.0) * 100.0).min(100.0);
    let read = async |percent: f64, asks: bool| {
        rolled_back(client, f, READ_MS, async |client| {
            Ok(client.query(&sql::keys(f, percent, rows, asks), &[]).await?)
        })
        .await
    };
    let mut found = read(percent, true).await;
    if percent < 100.0 && found.as_ref().is_ok_and(|found| found.len() < rows as usize) {
        found = read(100.0, true).await;
    }
    let found = match found {
        // The plan's where fails on a row, or finds none for long: any rows do.
        Err(e) if e.sqlstate().is_some() => read(percent, false).await.map_err(too_long)?,
        other => other?,
    };
    let distinct: BTreeSet<Key> = found.iter().map(key_of).collect();
    Ok(distinct.into_iter().collect())
}

fn key_of(row: &Row) -> Key {
    (0..row.len()).map(|i| row.get(i)).collect()
}

/// What is tried on piece after piece.
struct Trier<'a> {
    client: &'a Client,
    f: &'a Filling,
    until: Instant,
    found: Sample,
    time: Time,
}

impl Trier<'_> {
    /// Computes what is set; the keys of rows that it can be computed for.
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
            let rows = rolled_back(self.client, self.f, READ_MS, async |client| {
                ask(client, &statement, &piece).await
            })
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

    /// Takes in what was computed; the keys of the rows that match.
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

    /// Sets the rows, and looks whether they still match.
    async fn fill(&mut self, keys: &[Key]) -> Result<()> {
        let f = self.f;
        let mut left: Vec<Vec<Key>> = keys.chunks(PIECE).rev().map(<[Key]>::to_vec).collect();
        while let Some(piece) = left.pop() {
            if self.is_over() {
                self.found.untried += piece.len() as u64;
                continue;
            }
            let began = Instant::now();
            let (updates, mut done) = (self.found.updated, None);
            let limit_ms = if updates { UPDATE_MS } else { READ_MS };
            let still = rolled_back(self.client, f, limit_ms, async |client| {
                if !updates {
                    return ask(client, &sql::would_be_meant(f), &piece).await;
                }
                let rows = ask(client, &sql::updated(f), &piece).await?;
                client.batch_execute(&plan_sql::look_up_again(&f.sql)).await?;
                let count = |row: &Row, i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
                done = rows.first().map(|row| (count(row, 0), count(row, 1), began.elapsed()));
                ask(client, &sql::still_meant(f), &piece).await
            })
            .await;
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

    fn is_over(&self) -> bool {
        self.found.errors.len() >= MOST_KEYS || Instant::now() > self.until
    }

    /// What is left after an error: the halves of a piece, or the row that fails.
    fn halve(&mut self, error: Error, mut piece: Vec<Key>, left: &mut Vec<Vec<Key>>) -> Result<()> {
        match error.sqlstate().map(str::to_owned) {
            None => return Err(error),
            Some(code) if code == "57014" => return Err(too_long(error)),
            // Somebody holds what the update needs besides its rows.
            Some(code) if ["40001", "40P01", "55P03"].contains(&code.as_str()) => {
                self.found.busy += piece.len() as u64;
            }
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

fn too_long(error: Error) -> Error {
    if !error.is(&SqlState::QUERY_CANCELED) {
        return error;
    }
    Error::failed("the plan's SQL takes too long on a part of the sample")
        .cause(format!("limits: {READ_MS} ms to read, {UPDATE_MS} ms to hold rows, for up to {PIECE} rows"))
        .hint(
            "try a smaller --sample; use EXPLAIN to see what `from` and `where` read, and whether an \
            index would help",
        )
}

/// Runs a statement on rows that are told by their keys.
async fn ask(client: &Client, statement: &str, keys: &[Key]) -> Result<Vec<Row>> {
    let columns = keys.first().map_or(0, Vec::len);
    let lists: Vec<Vec<&str>> = (0..columns)
        .map(|i| keys.iter().filter_map(|key| key.get(i)).map(String::as_str).collect())
        .collect();
    let parameters: Vec<&(dyn ToSql + Sync)> = lists.iter().map(|list| list as &(dyn ToSql + Sync)).collect();
    Ok(client.query(statement, &parameters).await?)
}

/// Runs `work` in a transaction that is never committed, waits for no lock, and takes no longer than `limit_ms` a statement.
async fn rolled_back<T>(
    client: &Client,
    f: &Filling,
    limit_ms: u32,
    work: impl AsyncFnOnce(&Client) -> Result<T>,
) -> Result<T> {
    client
        .batch_execute(&format!(
            "{READ_COMMITTED}; set local statement_timeout = '{limit_ms}ms'; set local lock_timeout = '100ms'; {}; {}",
            fill_sql::names(f),
            fill_sql::OWN_WRITES
        ))
        .await?;
    let result = work(client).await;
    let ended = client.batch_execute("rollback").await;
    let value = result?;
    ended?;
    Ok(value)
}
