//! The lease: one process drives a job.
//!
//! A session advisory lock on a connection of its own says who; an epoch, counted up by each new driver, keeps a former
//! one's late transactions out: every chunk holds the lease's row in share mode, so that the next epoch begins only when
//! none of them is open, and finds its epoch gone when it comes later.
//!
//! A process that was frozen, or cut off, while another one took over wakes up with all its sessions ended, and gets no
//! new one: each is opened in the name of an epoch, and refused where that is over.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result, Retry};
use crate::failpoint;
use crate::sql::store as sql;

use super::connect::{Session, Target};

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
        let number = i32::try_from(job).map_err(|_| Error::failed("the job's number is too large"))?;
        // The backend of a process that has just ended may need a moment to notice.
        let deadline = tokio::time::Instant::now() + HANDOVER;
        while !session.query_one(sql::TRY_LEASE, &[&number]).await?.get::<_, bool>(0) {
            if tokio::time::Instant::now() > deadline {
                return Err(busy(&session, job, holder).await);
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
        end_former(&session, job).await?;
        failpoint!("lease.former_ended");
        let epoch = session.query_opt(sql::NEXT_EPOCH, &[&job, &holder, &again]).await?;
        let epoch: i64 = epoch.ok_or_else(taken_over)?.get(0);
        // Once more: a session that was opened just before the epoch began, by a former driver that still runs.
        end_former(&session, job).await?;
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

/// Ends sessions of a former driver and waits until they are gone: only then is the ledger the whole truth.
async fn end_former(session: &Session, job: i64) -> Result<()> {
    let prefix = prefix(job);
    let deadline = tokio::time::Instant::now() + FORMER_ENDS;
    loop {
        session.execute(sql::END_FORMER, &[&prefix]).await?;
        let left: i64 = session.query_one(sql::FORMER_LEFT, &[&prefix]).await?.get(0);
        if left == 0 {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "{left} sessions of a former driver of this job do not end (application_name {prefix}…)"
                ),
            )
            .retry(Retry::Never)
            .hint(
                "if they belong to another role, let that role end them: select pg_terminate_backend(pid) …",
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
    Error::new(Kind::Busy, "another process has taken this job over")
        .hint("this one has stopped; `pgstrata status` says how far the job is")
}

async fn busy(session: &Session, job: i64, holder: &str) -> Error {
    let last = session.query_opt(sql::HOLDER, &[&job]).await;
    if last.is_ok_and(|row| row.is_some_and(|row| row.get::<_, &str>(0) == holder)) {
        return Error::failed("the lease is still held by a lost session of this process")
            .retry(Retry::Unknown);
    }
    let error = Error::new(Kind::Busy, "another process drives this job");
    match session.query_opt(sql::LEASE_HOLDER, &[&job]).await {
        Ok(Some(row)) => {
            let (pid, from, since): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
            error.cause(format!("its lease is held by backend {pid} for a client at {from}, since {since}")).hint(format!(
                "wait for it, or stop it there; if that machine is dead: select pg_terminate_backend({pid})"
            ))
        }
        _ => error.hint("wait for it, or stop it where it runs"),
    }
}
