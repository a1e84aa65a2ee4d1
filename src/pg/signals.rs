//! Reads the signals: of the server itself on a session of its own, of listed standbys and by the user's query each on one
//! more, so that none of them waits for a slow one. What cannot be read is said with the reason, and never taken for good.

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

/// How often a standby, or the user's query, is asked.
const LOOK: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(6);
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// An answer, or why there is none.
pub type Answer<T> = std::result::Result<T, String>;

/// What the server said of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// Our role.
    pub role: String,
    /// Whether it may see what other roles' sessions do.
    pub sees_all: bool,
    /// Where the server's WAL ends, as a byte's number.
    pub place: u64,
    /// Its walsenders that replay.
    pub replicas: Vec<Replica>,
    /// The slot that keeps the most.
    pub slot: Option<Slot>,
    /// The WAL file that the archiver failed on; none where it did not.
    pub archiver: Option<String>,
    /// Sessions that wait for a lock of ours.
    pub blocked: u32,
    /// One of them.
    pub blocked_pid: Option<i32>,
    /// A vacuum that prevents wraparound of the source.
    pub vacuum: Option<Vacuum>,
    /// Sessions of others at work.
    pub active: u32,
    /// The table, or partition, with the largest share of dead rows.
    pub dead: Option<Dead>,
    /// Settings that differ from the plan.
    pub settings: BTreeMap<String, String>,
}

/// A walsender.
#[derive(Debug, Clone, Deserialize)]
pub struct Replica {
    /// What messages call it.
    pub name: String,
    /// It is another role's, and we may not see how far it is.
    pub hidden: bool,
    /// What it has replayed, as a byte's number.
    pub place: Option<u64>,
    /// How far it is behind.
    pub lag_s: Option<f64>,
}

/// A replication slot.
#[derive(Debug, Clone, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// WAL that it keeps, in bytes.
    pub bytes: u64,
}

/// A vacuum.
#[derive(Debug, Clone, Deserialize)]
pub struct Vacuum {
    /// The table.
    pub name: String,
    /// How many transactions old it is.
    pub age: i64,
}

/// A table with dead rows.
#[derive(Debug, Clone, Deserialize)]
pub struct Dead {
    /// The table.
    pub name: String,
    /// Dead rows, by the statistics.
    pub dead: u64,
    /// How many of all rows they are, 0 to 1.
    pub share: f64,
    /// Autovacuum comes to it.
    pub autovacuum: bool,
    /// What keeps a vacuum from taking the rows away, where that has been there for a minute; in words.
    pub kept: Option<Kept>,
}

/// The oldest snapshot.
#[derive(Debug, Clone, Deserialize)]
pub struct Kept {
    /// Whose: `pid 17`, `prepared transaction p`.
    pub by: String,
    /// How old it is.
    pub age_s: f64,
}

/// Asks the server on `session`, which has [`sql::SIGNALS`] prepared as `signals`; `prefix` begins the names of the job's
/// sessions, `table` is the one in use, and tables with fewer than `least_dead` dead rows have none.
///
/// # Errors
/// What the server said, or that it did not.
pub async fn look(
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
        .map_err(|e| Error::failed("the server's answer could not be parsed").cause(e.to_string()))
}

/// The last answer, and when it came.
type Last<T> = Arc<Mutex<Option<(Instant, Answer<T>)>>>;

/// Something that is asked over and over by a task of its own; what it last said, and when.
#[derive(Debug)]
pub struct Asked<T> {
    /// What messages call it.
    pub name: String,
    last: Last<T>,
    task: JoinHandle<()>,
}

impl<T: Clone + Send + 'static> Asked<T> {
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

    /// What it last said, where that is not too long ago; none before the first answer.
    pub fn last(&self) -> Option<Answer<T>> {
        let last = self.last.lock().ok()?.clone();
        last.map(
            |(at, said)| {
                if at.elapsed() > 2 * ANSWER { Err("it does not answer".to_owned()) } else { said }
            },
        )
    }
}

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How something is asked: what its session begins with, and the question.
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

/// Asks a listed standby from now on.
///
/// # Errors
/// `dsn` cannot be read.
pub fn standby(target: &Target, dsn: &str, application_name: &str) -> Result<Asked<Standby>> {
    let target = target.standby(dsn)?;
    let name = target.describe();
    Ok(Asked::begin(name.clone(), target, application_name.to_owned(), AskStandby(name)))
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
            // No row, or NULL: there is nothing to hold for.
            None | Some("f") => Ok(0.0),
            Some("t") => Ok(f64::INFINITY),
            Some(text) => {
                let number = text.parse().ok().filter(|n: &f64| !n.is_nan());
                number.ok_or_else(|| Error::failed("it returned neither a boolean nor a number"))
            }
        }
    }
}

/// Asks the user's query from now on: a number, where `true` is more than any limit.
pub fn query(target: &Target, query: &str, application_name: &str) -> Asked<f64> {
    Asked::begin("query".to_owned(), target.clone(), application_name.to_owned(), AskQuery(query.to_owned()))
}
