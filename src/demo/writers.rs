//! The demo's applications: connections that read, insert, update, delete and move rows until they are stopped.
//!
//! Each statement runs on the table and on its witness, in one READ COMMITTED transaction, and must find exactly one
//! row on each. The writers use disjoint sets of rows, so that they do not wait for each other; every other wait is
//! caused by the machine or by pgstrata.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use tokio_util::sync::CancellationToken;

use super::table::{TABLE, WITNESS};
use crate::error::{Error, Result};

/// The number of writing connections.
pub(super) const WRITERS: u32 = 4;
/// The number of rows with which a writer starts.
const FIRST_ROWS: i64 = 5_000;
/// The maximum pause of a writer between two transactions, chosen so that two processors are enough.
const MAX_PAUSE: Duration = Duration::from_millis(20);
/// The number of days before now within which rows are inserted and moved. The first row of the table is slightly
/// older.
const DAYS: i64 = 730;
const STAGES: [&str; 5] = ["none", "trace", "low", "moderate", "high"];

/// The results of the writers.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// The number of transactions, including failed ones.
    pub(super) transactions: u64,
    /// The number of failed transactions.
    pub(super) failures: u64,
    /// The message of the first failure.
    pub(super) first_failure: Option<String>,
    /// The durations of transactions, in microseconds.
    took_us: Histogram<u64>,
    lap: Lap,
}

/// The results of the writers since the last lap.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lap {
    /// The number of transactions that ended in this lap.
    pub(super) transactions: u64,
    /// The number of those that failed.
    pub(super) failures: u64,
    /// The duration of the longest of them.
    pub(super) longest: Duration,
}

impl Tally {
    /// The quantile `share` of the durations, in milliseconds.
    pub(super) fn ms(&self, share: f64) -> f64 {
        self.took_us.value_at_quantile(share) as f64 / 1000.0
    }

    fn add(&mut self, took: Duration, failure: Option<String>) {
        let took_us = took.as_micros().try_into().unwrap_or(u64::MAX);
        self.transactions += 1;
        self.took_us.saturating_record(took_us);
        self.lap.transactions += 1;
        self.lap.longest = self.lap.longest.max(took);
        if let Some(failure) = failure {
            self.failures += 1;
            self.lap.failures += 1;
            self.first_failure.get_or_insert(failure);
        }
    }
}

/// Active writers. Dropping them stops them immediately.
#[derive(Debug)]
pub(super) struct Writers {
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts the writers on the tables in the database at `dsn`.
    pub(super) async fn start(dsn: &str) -> Result<Self> {
        let took_us = Histogram::new_with_bounds(1, 3_600_000_000, 3)
            .map_err(|e| Error::failed("failed to record the writers' latencies").caused_by(e))?;
        let tally = Tally { transactions: 0, failures: 0, first_failure: None, took_us, lap: Lap::default() };
        let (tally, stop) = (Arc::new(Mutex::new(tally)), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer::connect(dsn, number).await?;
            tasks.spawn(writer.work(tally.clone(), stop.clone()));
        }
        Ok(Self { tally, stop, tasks })
    }

    /// Returns the results since the last lap, and begins the next lap.
    pub(super) fn lap(&self) -> Lap {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner).lap)
    }

    /// Waits until each writer has finished its transaction, and returns the results.
    pub(super) async fn stop(&mut self) -> Result<Tally> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|e| Error::failed("a writer failed").caused_by(e))?;
        }
        Ok(self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The same statement for the table and for its witness.
struct Twice([Statement; 2]);

impl Twice {
    async fn prepare(client: &Client, sql: &str) -> Result<Self> {
        let of = async |table| client.prepare(&sql.replace("{table}", table)).await;
        Ok(Self([of(TABLE).await?, of(WITNESS).await?]))
    }

    /// Runs both statements. Each must find exactly one row.
    async fn one_row(&self, client: &Client, params: &[&(dyn ToSql + Sync)]) -> Result<()> {
        for (statement, table) in self.0.iter().zip([TABLE, WITNESS]) {
            let rows = client.execute(statement, params).await?;
            if rows != 1 {
                return Err(Error::failed(format!("a statement found {rows} rows in {table} instead of 1")));
            }
        }
        Ok(())
    }
}

/// The place of a row.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    created_at: DateTime<Utc>,
}

struct Writer {
    client: Client,
    rng: StdRng,
    rows: Vec<Row>,
    read: Twice,
    insert: Twice,
    update: Twice,
    relocate: Twice,
    delete: Twice,
}

impl Writer {
    async fn connect(dsn: &str, number: u32) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(&format!("set application_name = 'writer {number}'")).await?;
        let rows = client
            .query(
                "select observation_id::text, created_at from petri_observations_witness
                 where get_byte(uuid_send(observation_id), 15) % $1 = $2 order by observation_id limit $3",
                &[&WRITERS.cast_signed(), &number.cast_signed(), &FIRST_ROWS],
            )
            .await?;
        let rows = rows.iter().map(|row| Row { id: row.get(0), created_at: row.get(1) }).collect();
        let of_row = "where observation_id = $1::text::uuid and created_at = $2";
        let prepare = async |sql: String| Twice::prepare(&client, &sql).await;
        Ok(Self {
            rng: StdRng::seed_from_u64(number.into()),
            rows,
            read: prepare(format!("select growth_stage, growth_mm, readings, notes from {{table}} {of_row}")).await?,
            insert: prepare(
                "insert into {table} (observation_id, created_at, updated_at, submission_id, site_id, growth_stage,
                     growth_mm, readings, notes)
                 values ($1::text::uuid, $2, $2, $1::text::uuid, md5('site ' || $3::int % 60)::uuid, $4, $3 / 100.0,
                     jsonb_build_object('temperature_c', 18 + $3 / 1000), 'by hand')"
                    .to_owned(),
            )
            .await?,
            update: prepare(format!(
                "update {{table}} set growth_stage = $3, growth_mm = $4::int / 100.0, updated_at = $5 {of_row}"
            ))
            .await?,
            relocate: prepare(format!("update {{table}} set created_at = $3, updated_at = $4 {of_row}")).await?,
            delete: prepare(format!("delete from {{table}} {of_row}")).await?,
            client,
        })
    }

    async fn work(mut self, tally: Arc<Mutex<Tally>>, stop: CancellationToken) {
        while !stop.is_cancelled() && !self.client.is_closed() {
            let began = Instant::now();
            let ended = self.transaction().await;
            let took = began.elapsed();
            if ended.is_err() {
                // This fails only if the connection is lost, and then the loop ends.
                let _ = self.client.batch_execute("rollback").await;
            }
            let failure = ended.err().map(|error| error.to_string());
            tally.lock().unwrap_or_else(PoisonError::into_inner).add(took, failure);
            tokio::time::sleep(self.rng.random_range(Duration::ZERO..MAX_PAUSE)).await;
        }
    }

    /// One transaction on one row: read and update it, move it to another month, delete it, or insert a new one.
    async fn transaction(&mut self) -> Result<()> {
        let at = self.rng.random_range(0..self.rows.len().max(1));
        let (kind, mm) = (self.rng.random_range(0..100), self.rng.random_range(0..9000_i32));
        let stage = STAGES.choose(&mut self.rng).copied().unwrap_or_default();
        let (moment, now) = (self.moment(), Utc::now());
        let client = &self.client;
        client.batch_execute("begin").await?;
        let Some(row) = self.rows.get(at).filter(|_| kind < 65).cloned() else {
            let row = Row { id: format!("{:032x}", self.rng.random::<u128>()), created_at: moment };
            self.insert.one_row(client, &[&row.id, &moment, &mm, &stage]).await?;
            client.batch_execute("commit").await?;
            self.rows.push(row);
            return Ok(());
        };
        self.read.one_row(client, &[&row.id, &row.created_at]).await?;
        let kept = match kind {
            0..40 => {
                self.update.one_row(client, &[&row.id, &row.created_at, &stage, &mm, &now]).await?;
                Some(row)
            }
            40..50 => {
                self.relocate.one_row(client, &[&row.id, &row.created_at, &moment, &now]).await?;
                Some(Row { created_at: moment, ..row })
            }
            _ => {
                self.delete.one_row(client, &[&row.id, &row.created_at]).await?;
                None
            }
        };
        client.batch_execute("commit").await?;
        match kept {
            Some(row) => self.rows[at] = row,
            None => drop(self.rows.swap_remove(at)),
        }
        Ok(())
    }

    /// A random time in the table's two years, in microseconds, as the server stores it.
    fn moment(&mut self) -> DateTime<Utc> {
        let ago = TimeDelta::microseconds(self.rng.random_range(0..DAYS * 86_400_000_000));
        DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default() - ago
    }
}
