//! The lease: only one process drives a job.
//!
//! A session advisory lock on a separate connection identifies the driver. An epoch, which each new driver
//! increments, excludes late transactions of a previous driver: every chunk locks the row in `leases` in share mode.
//! The next epoch therefore begins only when no chunk is open, and a later chunk of the previous driver finds that
//! its epoch is over.
//!
//! Any role can acquire any advisory lock and choose any session name. Each driver therefore acquires a lock with a
//! random key. The row in `leases`, which other roles cannot write, contains the key and the login role of the
//! driver. A lock that a session of another role holds does not count, and neither does a session of another role
//! with the name of one of ours.
//!
//! If a process was frozen or disconnected while another one took over the job, its sessions are terminated, and it
//! cannot open new ones: each session is opened for an epoch, and is rejected once that epoch is over.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result, Retry};
use crate::failpoint;
use crate::sql::store as sql;

use super::connect::{Session, Target};
use super::transaction::{READ_COMMITTED, transaction};

/// How long the termination of a previous driver's sessions may take.
const FORMER_ENDS: Duration = Duration::from_secs(30);
/// How long to wait until the lease of a process that has just ended is free.
const HANDOVER: Duration = Duration::from_secs(2);
/// How often the connection of the lease is checked.
const BEAT: Duration = Duration::from_secs(1);
/// The time limit for its answer.
const ANSWER: Duration = Duration::from_secs(15);

/// The right to drive a job, as long as the value exists.
#[derive(Debug)]
pub struct Lease {
    epoch: i64,
    lost: CancellationToken,
    done: CancellationToken,
    beat: JoinHandle<()>,
}

/// The name of a session of a job's driver, by which a later driver finds it.
pub fn session_name(job: i64, epoch: i64, role: &str) -> String {
    format!("{}{epoch}/{role}", prefix(job))
}

/// The prefix of all session names of a job.
pub fn prefix(job: i64) -> String {
    format!("pgstrata/{job}/")
}

impl Lease {
    /// Acquires the lease of a job for `holder` and begins an epoch. The sessions of a previous driver have ended
    /// when this returns. `again`: this holder had the lease and lost it, so no other process may have had it since.
    ///
    /// # Errors
    /// Busy, with a description of the holder, if another process has the lease or had it in the meantime. Unknown if
    /// a session of this holder still holds it, whose loss the server has not noticed yet.
    pub async fn take(target: &Target, job: i64, holder: &str, again: bool) -> Result<Self> {
        let session = target.connect("pgstrata").await?;
        session.execute(sql::RESTORE_LEASE, &[&job]).await?;
        // The backend of a process that has just ended may not have noticed it yet.
        let deadline = tokio::time::Instant::now() + HANDOVER;
        while let Some(driver) = Driving::of(&session, job).await? {
            if tokio::time::Instant::now() > deadline {
                return Err(driver.busy(holder));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        session
            .batch_execute(
                // If a driver's machine fails, the lease must not stay held for hours; has no effect on a Unix
                // socket.
                "set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3; \
                 set lock_timeout = '30s'",
            )
            .await?;
        session
            .execute("select pg_catalog.set_config('application_name', $1, false)", &[&prefix(job)])
            .await?;
        let former = last_driver(&session, job).await?;
        end_former(&session, job, former).await?;
        failpoint!("lease.former_ended");
        let epoch = begin_epoch(&session, job, holder, again).await?;
        // Again, for a session that a previous driver which still runs opened just before the epoch began.
        end_former(&session, job, former).await?;
        failpoint!("lease.taken");
        let (lost, done) = (CancellationToken::new(), CancellationToken::new());
        let beat = tokio::spawn(keep(session, lost.clone(), done.clone()));
        Ok(Self { epoch, lost, done, beat })
    }

    /// The number of this driver of the job, counted from 1.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Canceled when the connection of the lease is lost: another process may have the lease by now.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Releases the lease, so that the next command can acquire it.
    pub async fn release(mut self) {
        self.done.cancel();
        let _ = (&mut self.beat).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

/// Checks the connection of the lease until it fails or the lease is released.
async fn keep(session: Session, lost: CancellationToken, done: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(BEAT) => {}
            () = done.cancelled() => {
                let _ = tokio::time::timeout(ANSWER, session.batch_execute(sql::RELEASE_LEASE)).await;
                return;
            }
        }
        match tokio::time::timeout(ANSWER, session.batch_execute("select 1")).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    lost.cancel();
}

/// Begins an epoch under a new lock, unless another process began one in the meantime.
async fn begin_epoch(session: &Session, job: i64, holder: &str, again: bool) -> Result<i64> {
    transaction(session, READ_COMMITTED, async |client| {
        client.query_opt(sql::LOCK_LEASE, &[&job]).await?.ok_or_else(taken_over)?;
        if let Some(driver) = Driving::of(client, job).await? {
            return Err(driver.busy(holder));
        }
        let key: i64 = rand::random();
        if !client.query_one(sql::TAKE_LOCK, &[&key]).await?.get::<_, bool>(0) {
            return Err(Error::failed("another session holds the advisory lock that was chosen at random")
                .retry(Retry::Again));
        }
        let epoch = client.query_opt(sql::NEXT_EPOCH, &[&job, &holder, &again, &key]).await?;
        Ok(epoch.ok_or_else(taken_over)?.get(0))
    })
    .await
}

async fn last_driver(session: &Session, job: i64) -> Result<Option<u32>> {
    let row = session.query_opt(sql::LAST_DRIVER, &[&job]).await?;
    Ok(row.and_then(|row| row.get(0)))
}

/// Terminates the open sessions of job `job` that belong to drivers of this role or to the last driver, as far as
/// permitted.
///
/// # Errors
/// The server returned an error.
pub async fn end_sessions(session: &Session, job: i64) -> Result<()> {
    let former = last_driver(session, job).await?;
    transaction(session, sql::AS_SESSION_USER, async |client| {
        client.execute(&sql::end_former(), &[&prefix(job), &former]).await?;
        Ok(())
    })
    .await
}

/// Terminates the sessions of a previous driver and waits until they have ended: only then is the ledger complete.
async fn end_former(session: &Session, job: i64, former: Option<u32>) -> Result<()> {
    let prefix = prefix(job);
    let deadline = tokio::time::Instant::now() + FORMER_ENDS;
    loop {
        let left: i64 = transaction(session, sql::AS_SESSION_USER, async |client| {
            client.execute(&sql::end_former(), &[&prefix, &former]).await?;
            Ok(client.query_one(&sql::former_left(), &[&prefix, &former]).await?.get(0))
        })
        .await?;
        if left == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "{left} sessions of an earlier process for this job did not end within {} s \
                     (application_name {prefix}…)",
                    FORMER_ENDS.as_secs()
                ),
            )
            .retry(Retry::Never)
            .hint(
                "if they belong to another role, end them as that role, by pid in pg_stat_activity: select pg_terminate_backend(pid)",
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Opens another session for an epoch, named after its `role`.
///
/// # Errors
/// Busy if that epoch is over.
pub async fn session(target: &Target, job: i64, epoch: i64, role: &str) -> Result<Session> {
    let session = target.connect(&session_name(job, epoch, role)).await?;
    let now = session.query_opt(sql::EPOCH, &[&job]).await?;
    if now.is_none_or(|row| row.get::<_, i64>(0) != epoch) {
        return Err(taken_over());
    }
    Ok(session)
}

/// The error of a driver that has lost the job.
pub fn taken_over() -> Error {
    Error::new(Kind::Busy, "another process has taken over this job")
        .hint("this process has stopped; `pgstrata status` shows the progress of the job")
}

/// Whether a process currently drives the job.
///
/// # Errors
/// The server returned an error.
pub async fn is_driven(client: &Client, job: i64) -> Result<bool> {
    Ok(Driving::of(client, job).await?.is_some())
}

/// The driver that currently has the lease.
struct Driving {
    holder: String,
    pid: i32,
    from: String,
    /// None if our role may not see it.
    since: Option<String>,
}

impl Driving {
    /// None if no process drives the job.
    async fn of(client: &Client, job: i64) -> Result<Option<Self>> {
        let row = client.query_opt(sql::DRIVEN, &[&job]).await?;
        Ok(row.and_then(|row| {
            let pid: Option<i32> = row.get(1);
            pid.map(|pid| Self { holder: row.get(0), pid, from: row.get(2), since: row.get(3) })
        }))
    }

    /// Why `holder` cannot acquire the lease.
    fn busy(&self, holder: &str) -> Error {
        if self.holder == holder {
            return Error::failed("the lease is still held by a lost session of this process")
                .retry(Retry::Unknown);
        }
        let pid = self.pid;
        let who = match &self.since {
            Some(since) => format!("server process {pid}, connected from {} since {since}", self.from),
            None => format!("server process {pid}, whose details this role cannot see"),
        };
        Error::new(Kind::Busy, "another process is already running this job")
            .cause(format!("{who}, runs the job"))
            .hint(format!(
                "wait until it ends, or stop pgstrata on that machine; if the machine is down: select pg_terminate_backend({pid})"
            ))
    }
}
