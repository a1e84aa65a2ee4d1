//! The demo's applications: connections that read, insert, update, delete and move rows until they are stopped.
//!
//! Each statement goes to the table and to its witness, in one transaction in READ COMMITTED, and has to find exactly
//! the row that the writer left there. Every writer keeps to rows of its own, so none waits for another: a wait is the
//! machine's, or pgstrata's.

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

/// How many connections write.
pub(super) const WRITERS: u32 = 4;
/// Rows that a writer knows at first.
const KNOWN: i64 = 5_000;
/// A writer thinks up to so long between two transactions, so that two processors suffice.
const THINKS: Duration = Duration::from_millis(20);
/// Rows are moved within so many days before now; the table's first row is a little older.
const DAYS: i64 = 730;
const STAGES: [&str; 5] = ["none", "trace", "low", "moderate", "high"];

/// What the writers met with.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// Transactions, however they ended.
    pub(super) transactions: u64,
    /// Transactions that failed.
    pub(super) failures: u64,
    /// What the first failure said.
    pub(super) first_failure: Option<String>,
    /// Microseconds that each transaction took.
    took_us: Histogram<u64>,
    lap: Lap,
}

/// A stretch of the writers' work.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lap {
    /// Transactions that ended in it.
    pub(super) transactions: u64,
    /// Those of them that failed.
    pub(super) failures: u64,
    /// What the longest of them took.
    pub(super) longest: Duration,
}

impl Tally {
    /// Milliseconds that this share of the transactions took at most.
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

/// Writers at work; dropping them ends them at once.
#[derive(Debug)]
pub(super) struct Writers {
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Sets the writers to work on the tables in the database at `dsn`.
    pub(super) async fn start(dsn: &str) -> Result<Self> {
        let took_us = Histogram::new_with_bounds(1, 3_600_000_000, 3)
            .map_err(|e| Error::failed("failed to record the writers' latencies").cause(e.to_string()))?;
        let tally = Tally { transactions: 0, failures: 0, first_failure: None, took_us, lap: Lap::default() };
        let (tally, stop) = (Arc::new(Mutex::new(tally)), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            let writer = Writer::connect(dsn, number).await?;
            tasks.spawn(writer.work(tally.clone(), stop.clone()));
        }
        Ok(Self { tally, stop, tasks })
    }

    /// What ended since the last lap; the next one begins.
    pub(super) fn lap(&self) -> Lap {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner).lap)
    }

    /// Lets each finish its transaction, and says how it went.
    pub(super) async fn stop(&mut self) -> Result<Tally> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|e| Error::failed("a writer failed").cause(e.to_string()))?;
        }
        Ok(self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A statement for the table, and the same for its witness.
struct Twice([Statement; 2]);

impl Twice {
    async fn prepare(client: &Client, sql: &str) -> Result<Self> {
        let of = async |table| client.prepare(&sql.replace("{table}", table)).await;
        Ok(Self([of(TABLE).await?, of(WITNESS).await?]))
    }

    /// Runs both; each has to find exactly one row.
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

/// A row as a writer knows it.
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
                &[&WRITERS.cast_signed(), &number.cast_signed(), &KNOWN],
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
                // It fails only where the connection is lost, and then the loop ends.
                let _ = self.client.batch_execute("rollback").await;
            }
            let failure = ended.err().map(|error| error.to_string());
            tally.lock().unwrap_or_else(PoisonError::into_inner).add(took, failure);
            tokio::time::sleep(self.rng.random_range(Duration::ZERO..THINKS)).await;
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

    /// A moment of the table's two years, to the microsecond, as the server keeps it.
    fn moment(&mut self) -> DateTime<Utc> {
        let ago = TimeDelta::microseconds(self.rng.random_range(0..DAYS * 86_400_000_000));
        DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap_or_default() - ago
    }
}
