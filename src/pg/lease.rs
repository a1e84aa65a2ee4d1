//! The lease: one process drives a job.
//!
//! A session advisory lock on a connection of its own says who; an epoch, counted up by each new driver, keeps a former
//! one's late transactions out: every chunk holds the lease's row in share mode, so that the next epoch begins only when
//! none of them is open, and finds its epoch gone when it comes later.
//!
//! Any role may take any advisory lock, and may name its sessions as it likes. So each driver takes a lock with a random key
//! of its own, and the lease's row, which others cannot write, has the key and the role that the driver logged in as. A
//! lock that a session of another role holds says nothing, nor does a session of another role that is named like ours.
//!
//! A process that was frozen, or cut off, while another one took over wakes up with all its sessions ended, and gets no
//! new one: each is opened in the name of an epoch, and refused where that is over.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result, Retry};
use crate::failpoint;
use crate::sql::store as sql;

use super::connect::{Session, Target};
use super::transaction::{READ_COMMITTED, transaction};

/// How long a former driver's sessions may take to end.
const FORMER_ENDS: Duration = Duration::from_secs(30);
/// How long the lease of a process that has just ended may take to come free.
const HANDOVER: Duration = Duration::from_secs(2);
/// How often the lease's connection is asked whether it is alive.
const BEAT: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// The right to drive a job, for as long as it lives.
#[derive(Debug)]
pub struct Lease {
    epoch: i64,
    lost: CancellationToken,
    done: CancellationToken,
    beat: JoinHandle<()>,
}

/// How sessions of a job's driver are named, so that a later driver finds them.
pub fn session_name(job: i64, epoch: i64, role: &str) -> String {
    format!("{}{epoch}/{role}", prefix(job))
}

/// What all session names of a job begin with.
pub fn prefix(job: i64) -> String {
    format!("pgstrata/{job}/")
}

impl Lease {
    /// Takes the lease of a job for `holder` and begins an epoch: what a former driver left behind is ended, and gone when
    /// this returns. `again`: this holder had the lease and lost it, so nobody else may have had it since.
    ///
    /// # Errors
    /// Busy where another process has it, with who that is, or had it meanwhile. Unknown where it is still held by a
    /// session of this holder's that the server has not missed yet.
    pub async fn take(target: &Target, job: i64, holder: &str, again: bool) -> Result<Self> {
        let session = target.connect("pgstrata").await?;
        session.execute(sql::RESTORE_LEASE, &[&job]).await?;
        // The backend of a process that has just ended may need a moment to notice.
        let deadline = tokio::time::Instant::now() + HANDOVER;
        while let Some(driver) = Driving::of(&session, job).await? {
            if tokio::time::Instant::now() > deadline {
                return Err(driver.busy(holder));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        session
            .batch_execute(
                // A driver on a machine that died must not hold the lease for hours; ignored on a unix socket.
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
        // Once more: a session that was opened just before the epoch began, by a former driver that still runs.
        end_former(&session, job, former).await?;
        failpoint!("lease.taken");
        let (lost, done) = (CancellationToken::new(), CancellationToken::new());
        let beat = tokio::spawn(keep(session, lost.clone(), done.clone()));
        Ok(Self { epoch, lost, done, beat })
    }

    /// Which driver of the job this is, counted from 1.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Cancelled when the lease's connection is gone: somebody else may have the lease by now.
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Lets the lease go, so that the next command finds it free.
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

/// Asks the lease's connection for a sign of life until there is none, or the lease is let go.
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

/// Begins an epoch under a new lock, unless somebody else began one meanwhile.
async fn begin_epoch(session: &Session, job: i64, holder: &str, again: bool) -> Result<i64> {
    transaction(session, READ_COMMITTED, async |client| {
        client.query_opt(sql::LOCK_LEASE, &[&job]).await?.ok_or_else(taken_over)?;
        if let Some(driver) = Driving::of(client, job).await? {
            return Err(driver.busy(holder));
        }
        let key: i64 = rand::random();
        if !client.query_one(sql::TAKE_LOCK, &[&key]).await?.get::<_, bool>(0) {
            return Err(Error::failed("another session holds a random advisory lock").retry(Retry::Again));
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

/// Ends the sessions of job `job` that this role's drivers, or the last driver, have open; those that it may end.
///
/// # Errors
/// What the server said.
pub async fn end_sessions(session: &Session, job: i64) -> Result<()> {
    let former = last_driver(session, job).await?;
    transaction(session, sql::AS_SESSION_USER, async |client| {
        client.execute(&sql::end_former(), &[&prefix(job), &former]).await?;
        Ok(())
    })
    .await
}

/// Ends sessions of a former driver and waits until they are gone: only then is the ledger the whole truth.
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
                "if they belong to another role, end them as that role: select pg_terminate_backend(pid) …",
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Opens one more session in the name of an epoch, called after its `role`.
///
/// # Errors
/// Busy where that epoch is over.
pub async fn session(target: &Target, job: i64, epoch: i64, role: &str) -> Result<Session> {
    let session = target.connect(&session_name(job, epoch, role)).await?;
    let now = session.query_opt(sql::EPOCH, &[&job]).await?;
    if now.is_none_or(|row| row.get::<_, i64>(0) != epoch) {
        return Err(taken_over());
    }
    Ok(session)
}

/// What a driver hears that is no longer the job's.
pub fn taken_over() -> Error {
    Error::new(Kind::Busy, "another process has taken over this job")
        .hint("this process has stopped; `pgstrata status` shows the progress of the job")
}

/// Whether a process drives the job now.
///
/// # Errors
/// What the server said.
pub async fn is_driven(client: &Client, job: i64) -> Result<bool> {
    Ok(Driving::of(client, job).await?.is_some())
}

/// The driver that has the lease now.
struct Driving {
    holder: String,
    pid: i32,
    from: String,
    /// None where our role may not see it.
    since: Option<String>,
}

impl Driving {
    /// None where nobody drives the job.
    async fn of(client: &Client, job: i64) -> Result<Option<Self>> {
        let row = client.query_opt(sql::DRIVEN, &[&job]).await?;
        Ok(row.and_then(|row| {
            let pid: Option<i32> = row.get(1);
            pid.map(|pid| Self { holder: row.get(0), pid, from: row.get(2), since: row.get(3) })
        }))
    }

    /// Why `holder` cannot have the lease.
    fn busy(&self, holder: &str) -> Error {
        if self.holder == holder {
            return Error::failed("the lease is still held by a lost session of this process")
                .retry(Retry::Unknown);
        }
        let pid = self.pid;
        let who = match &self.since {
            Some(since) => format!("backend {pid} for a client at {}, since {since}", self.from),
            None => format!("backend {pid}, whose details this role cannot see"),
        };
        Error::new(Kind::Busy, "another process is already running this job")
            .cause(format!("its lease is held by {who}"))
            .hint(format!(
                "wait for it, or stop it there; if that machine is down: select pg_terminate_backend({pid})"
            ))
    }
}
