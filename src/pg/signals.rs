//! Reads the signals: those of the server on a separate session, those of each listed standby and of the user's query
//! on one more session each, so that none waits for a slow one. A value that cannot be read is reported with the
//! reason, and is never taken as acceptable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Statement;

use crate::error::{Error, Result};
use crate::model::pace::Standby;
use crate::sql::pace as sql;

use super::connect::{Session, Target};

/// How often a standby, or the user's query, is queried.
const LOOK: Duration = Duration::from_millis(500);
/// The time limit for an answer.
const ANSWER: Duration = Duration::from_secs(6);
/// How long to wait after a failure before the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// An answer, or the reason why there is none.
pub type Answer<T> = std::result::Result<T, String>;

/// The state of the server.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// The current role.
    pub role: String,
    /// Whether the role may see the activity of other roles' sessions.
    pub sees_all: bool,
    /// The end of the server's WAL, as a byte position.
    pub place: u64,
    /// Walsenders whose receivers replay.
    pub walsenders: Vec<Walsender>,
    /// The slot that retains the most WAL.
    pub slot: Option<Slot>,
    /// The WAL file that could not be archived, if archiving failed.
    pub archiver: Option<String>,
    /// The number of sessions that wait for a lock of the job.
    pub blocked: u32,
    /// One of these sessions.
    pub blocked_pid: Option<i32>,
    /// An autovacuum of the source to prevent wraparound.
    pub vacuum: Option<Vacuum>,
    /// The number of active sessions of others.
    pub active: u32,
    /// The table or partition with the largest share of dead rows.
    pub dead: Option<Dead>,
    /// Settings that override the plan.
    pub settings: BTreeMap<String, String>,
}

/// A walsender.
#[derive(Debug, Clone, Deserialize)]
pub struct Walsender {
    /// Its name in messages.
    pub name: String,
    /// It belongs to another role, and its progress is not visible.
    pub hidden: bool,
    /// The WAL position that it has replayed, in bytes.
    pub place: Option<u64>,
    /// Its lag.
    pub lag_s: Option<f64>,
}

/// A replication slot.
#[derive(Debug, Clone, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// The WAL that it retains, in bytes.
    pub bytes: u64,
}

/// A vacuum.
#[derive(Debug, Clone, Deserialize)]
pub struct Vacuum {
    /// The table.
    pub name: String,
    /// The age of the table, in transactions.
    pub age: i64,
}

/// A table with dead rows.
#[derive(Debug, Clone, Deserialize)]
pub struct Dead {
    /// The table.
    pub name: String,
    /// The number of dead rows, according to the statistics.
    pub dead: u64,
    /// The share of dead rows among all rows, 0 to 1.
    pub share: f64,
    /// Whether autovacuum is enabled for it.
    pub autovacuum: bool,
    /// What prevents vacuum from removing the rows, if it has done so for a minute.
    pub kept: Option<OldestSnapshot>,
}

/// The oldest snapshot.
#[derive(Debug, Clone, Deserialize)]
pub struct OldestSnapshot {
    /// Its holder: `pid 17`, `prepared transaction p`.
    pub by: String,
    /// Its age.
    pub age_s: f64,
}

/// Queries the server on `session`, which has prepared [`sql::SIGNALS`] as `signals`; `prefix` is the prefix of the
/// names of the job's sessions, `table` is the table in use, and tables with fewer than `least_dead` dead rows are
/// ignored.
///
/// # Errors
/// The server returned an error, or did not answer.
pub async fn read(
    session: &Session,
    signals: &Statement,
    prefix: &str,
    job: i64,
    table: &str,
    least_dead: i64,
) -> Result<Seen> {
    let row = timeout(ANSWER, session.query_one(signals, &[&prefix, &job, &table, &least_dead])).await;
    let row = row.map_err(|_| Error::failed(format!("no answer within {} s", ANSWER.as_secs())))??;
    serde_json::from_value(row.get(0))
        .map_err(|e| Error::failed("the server's answer could not be parsed").caused_by(e))
}

/// The last answer, and its time.
type Last<T> = Arc<Mutex<Option<(Instant, Answer<T>)>>>;

/// A value that a separate task queries repeatedly: its last answer, and the time.
#[derive(Debug)]
pub struct Polled<T> {
    /// Its name in messages.
    pub name: String,
    last: Last<T>,
    task: JoinHandle<()>,
}

impl<T: Clone + Send + 'static> Polled<T> {
    fn begin<F>(name: String, target: Target, application_name: String, ask: F) -> Self
    where
        F: AsyncAsk<T>,
    {
        let last = Last::default();
        let said = last.clone();
        let task = tokio::spawn(async move {
            let mut session = None;
            loop {
                let answer = timeout(ANSWER, one(&target, &application_name, &mut session, &ask)).await;
                let answer = answer.unwrap_or_else(|_| {
                    Err(Error::failed(format!("no answer within {} s", ANSWER.as_secs())))
                });
                let failed = answer.is_err();
                if failed {
                    session = None;
                }
                if let Ok(mut last) = said.lock() {
                    *last = Some((Instant::now(), answer.map_err(|e| e.brief())));
                }
                tokio::time::sleep(if failed { AGAIN } else { LOOK }).await;
            }
        });
        Self { name, last, task }
    }

    /// The last answer, unless it is too old; none before the first answer.
    pub fn last(&self) -> Option<Answer<T>> {
        let last = self.last.lock().ok()?.clone();
        last.map(
            |(at, said)| {
                if at.elapsed() > 2 * ANSWER { Err("it does not answer".to_owned()) } else { said }
            },
        )
    }
}

impl<T> Drop for Polled<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a value is queried: the first statements of its session, and the query.
trait AsyncAsk<T>: Send + Sync + 'static {
    fn begin(&self, session: &Session) -> impl Future<Output = Result<()>> + Send;
    fn ask(&self, session: &Session) -> impl Future<Output = Result<T>> + Send;
}

async fn one<T>(
    target: &Target,
    application_name: &str,
    session: &mut Option<Session>,
    ask: &impl AsyncAsk<T>,
) -> Result<T> {
    if session.is_none() {
        let fresh = target.connect(application_name).await?;
        ask.begin(&fresh).await?;
        *session = Some(fresh);
    }
    match session {
        Some(session) => ask.ask(session).await,
        None => Err(Error::failed("no session is open")),
    }
}

/// A listed standby.
struct AskStandby(String);

impl AsyncAsk<Standby> for AskStandby {
    async fn begin(&self, _: &Session) -> Result<()> {
        Ok(())
    }

    async fn ask(&self, session: &Session) -> Result<Standby> {
        let row = session.query_one(sql::STANDBY, &[]).await?;
        let place: Option<i64> = row.get(1);
        match place.and_then(|place| u64::try_from(place).ok()).filter(|_| row.get(0)) {
            Some(place) => Ok(Standby { name: self.0.clone(), place, lag_s: row.get(2) }),
            None => Err(Error::failed("it is not a standby")),
        }
    }
}

/// Starts to query a listed standby.
///
/// # Errors
/// `dsn` cannot be read.
pub fn standby(target: &Target, dsn: &str, application_name: &str) -> Result<Polled<Standby>> {
    let target = target.standby(dsn)?;
    let name = target.describe();
    Ok(Polled::begin(name.clone(), target, application_name.to_owned(), AskStandby(name)))
}

/// The user's query.
struct AskQuery(String);

impl AsyncAsk<f64> for AskQuery {
    async fn begin(&self, session: &Session) -> Result<()> {
        Ok(session.batch_execute(sql::QUERY_SETTINGS).await?)
    }

    async fn ask(&self, session: &Session) -> Result<f64> {
        let messages = session.simple_query(&self.0).await?;
        let value = messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        });
        match value.flatten().as_deref() {
            // No row, or NULL: no reason to throttle.
            None | Some("f") => Ok(0.0),
            Some("t") => Ok(f64::INFINITY),
            Some(text) => {
                let number = text.parse().ok().filter(|n: &f64| !n.is_nan());
                number.ok_or_else(|| Error::failed("it returned neither a boolean nor a number"))
            }
        }
    }
}

/// Starts to run the user's query: the result is a number; `true` exceeds any limit.
pub fn query(target: &Target, query: &str, application_name: &str) -> Polled<f64> {
    Polled::begin("query".to_owned(), target.clone(), application_name.to_owned(), AskQuery(query.to_owned()))
}
