//! Readers that check what they read: they run a query that has the same result in every snapshot, under every kind of
//! snapshot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::cluster::Database;
use super::wait::{LIMIT, within};

/// How a reader reads.
#[derive(Debug, Clone, Copy)]
pub enum Reading {
    /// One snapshot for the transaction, which begins up to so many milliseconds before the table is read.
    Snapshot(&'static str, u64),
    /// A new snapshot for the statement.
    Statement,
    /// A cursor that is opened up to so many milliseconds before it is fetched from.
    Cursor(u64),
    /// A function that is called 30 ms after its statement took its snapshot.
    LateFunction,
}

/// Every way to read on a primary. The last is like a `pg_dump` that reads the table late.
pub const READINGS: [Reading; 8] = [
    Reading::Snapshot("repeatable read", 50),
    Reading::Snapshot("repeatable read", 200),
    Reading::Snapshot("serializable", 50),
    Reading::Snapshot("serializable, read only, deferrable", 50),
    Reading::Statement,
    Reading::Cursor(50),
    Reading::LateFunction,
    Reading::Snapshot("repeatable read, read only", 2_500),
];

/// A query for an integer, with its expected result.
#[derive(Debug, Clone)]
pub struct Question {
    pub query: String,
    /// The same query with a function that reads the tables, so that they are locked only when the function is called.
    pub by_function: String,
    /// The expected result.
    pub right: i64,
}

/// The results of the reads of one kind.
#[derive(Debug, Default, Clone)]
pub struct Reads {
    pub reads: u64,
    pub wrong: u64,
    /// Serialization failures, and recovery conflicts on a standby.
    pub refused: u64,
    pub longest_ms: u64,
}

#[derive(Debug, Default)]
struct ReadersState {
    stop: AtomicBool,
    reads: Mutex<BTreeMap<String, Reads>>,
}

/// Running readers.
#[derive(Debug, Default)]
pub struct Readers {
    shared: Arc<ReadersState>,
    tasks: JoinSet<()>,
}

impl Readers {
    /// Starts a reader for each of these ways to read.
    pub fn start(db: &Database, question: &Question, readings: &[Reading]) -> Self {
        let mut readers = Self::default();
        for reading in readings {
            readers.add(db.dsn(), question, *reading, "");
        }
        readers
    }

    /// Adds a reader, for example on a standby.
    pub fn add(&mut self, dsn: &str, question: &Question, reading: Reading, on: &'static str) {
        self.tasks.spawn(read(self.shared.clone(), dsn.to_owned(), question.clone(), reading, on));
    }

    /// Stops the readers; fails if a read was wrong, or if a reader made no read.
    pub async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let reads = self.shared.reads.lock().unwrap().clone();
        for (reading, results) in &reads {
            println!("{reading}: {results:?}");
        }
        let wrong: u64 = reads.values().map(|results| results.wrong).sum();
        assert!(wrong == 0 && reads.values().all(|results| results.reads > 0), "{reads:#?}");
    }
}

impl ReadersState {
    /// Counts a read: its result and duration, or `None` if it was refused.
    fn count(&self, name: &str, right: i64, read: Option<(i64, Duration)>) {
        let mut all = self.reads.lock().unwrap();
        let results = all.entry(name.to_owned()).or_default();
        let Some((answer, took)) = read else {
            results.refused += 1;
            return;
        };
        results.reads += 1;
        results.wrong += u64::from(answer != right);
        results.longest_ms = results.longest_ms.max(u64::try_from(took.as_millis()).unwrap());
    }
}

/// Whether this is an error that applications must expect at the isolation level.
pub fn is_refused(e: &tokio_postgres::Error) -> bool {
    e.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}

/// Connects, with retries, because a standby may terminate a session while it begins.
async fn connected(dsn: &str) -> Client {
    let timeouts = "-c lock_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0";
    let dsn = format!("{dsn} options='-c statement_timeout={}s {timeouts}'", LIMIT.as_secs());
    within("a connection", async {
        loop {
            match tokio_postgres::connect(&dsn, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(e) => assert!(is_refused(&e), "{e:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn read(
    shared: Arc<ReadersState>,
    dsn: String,
    question: Question,
    reading: Reading,
    on: &'static str,
) {
    let mut rng = StdRng::seed_from_u64(17);
    let mut client = connected(&dsn).await;
    let name = format!("{reading:?}{on}");
    while !shared.stop.load(Ordering::Relaxed) {
        let result = once(&shared, &client, &question, reading, &mut rng).await;
        if let Err(e) = &result {
            // A standby terminates an idle session whose snapshot conflicts with the replay of WAL.
            let ended = client.is_closed() && !on.is_empty();
            assert!(is_refused(e) || ended, "{name}: {e:?}");
            if client.batch_execute("rollback").await.is_err() {
                client = connected(&dsn).await;
            }
        }
        shared.count(&name, question.right, result.ok());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The result, and the duration of the statement that read the table.
async fn once(
    shared: &ReadersState,
    client: &Client,
    question: &Question,
    reading: Reading,
    rng: &mut StdRng,
) -> Result<(i64, Duration), tokio_postgres::Error> {
    let mut pause = async |up_to_ms: u64| {
        let end = Instant::now() + Duration::from_millis(rng.random_range(up_to_ms / 2..=up_to_ms));
        while Instant::now() < end && !shared.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let began;
    let answer = match reading {
        Reading::Snapshot(isolation, up_to_ms) => {
            client
                .batch_execute(&format!("begin isolation level {isolation}; select from pg_class limit 1"))
                .await?;
            pause(up_to_ms).await;
            began = Instant::now();
            number(client, &question.query).await?
        }
        Reading::Statement => {
            client.batch_execute("begin").await?;
            began = Instant::now();
            number(client, &question.query).await?
        }
        Reading::Cursor(up_to_ms) => {
            client.batch_execute(&format!("begin; declare c cursor for {}", question.by_function)).await?;
            pause(up_to_ms).await;
            began = Instant::now();
            number(client, "fetch c").await?
        }
        Reading::LateFunction => {
            client.batch_execute("begin").await?;
            began = Instant::now() + Duration::from_millis(30);
            let late = format!(
                "select max(x) from (select case when i = 1 then (select 0 from pg_sleep(0.03)) else ({}) end as x
                 from generate_series(1, 2) i) _",
                question.by_function
            );
            number(client, &late).await?
        }
    };
    let took = began.elapsed();
    client.batch_execute("commit").await?;
    Ok((answer, took))
}

/// Uses the simple query protocol: without a separate parse step, the statement takes its snapshot when it is executed.
async fn number(client: &Client, sql: &str) -> Result<i64, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let number = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(|text| text.parse().unwrap()),
        _ => None,
    });
    // A sum of no rows is NULL.
    Ok(number.unwrap_or(0))
}
