//! Locks that block applications: each attempt is short, no attempt is made while it would certainly fail, and blockers
//! are reported.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::{Events, RunWarning};
use crate::model::backoff::Backoff;
use crate::model::blocker::Blocker;
use crate::model::ident::QualifiedName;
use crate::model::number;
use crate::model::retry_limit::RetryLimit;
use crate::pg::catalog;
use crate::pg::transaction::{READ_COMMITTED, transaction};
use crate::phase::job::blockers;
use crate::phase::job::blockers::Asked;
use crate::phase::job::driver::Driver;
use crate::phase::job::retries::{Retried, Retries};
use crate::plan::LockBudget;
use crate::sql::locks as locks_sql;
use crate::stop::Stop;

/// How long a command waits for a synchronous standby before it reports the wait and stops waiting.
const STANDBY_WAITS: Duration = Duration::from_secs(10);

/// The tables to lock, how long one attempt may block applications, and the number of attempts.
#[derive(Debug)]
pub struct LockRetry<'a> {
    /// The session that acquires the locks.
    pub client: &'a Client,
    /// Receives reports about blockers.
    pub events: &'a Events,
    /// Ends a pause early.
    pub stop: &'a Stop,
    /// The tables to lock; errors name the first one.
    pub tables: Vec<QualifiedName>,
    /// The limits, and whether blockers may be canceled.
    pub budget: LockBudget,
}

impl<'a> LockRetry<'a> {
    /// Creates a lock retry for `tables` with the limits of the plan.
    pub fn on(driver: &'a Driver, tables: Vec<QualifiedName>) -> Self {
        let budget = driver.plan.lock_budget();
        Self { client: &driver.control, events: &driver.events, stop: &driver.stop, tables, budget }
    }

    /// Fails with a retryable error while a transaction that is older than the lock timeout holds a lock on one of the
    /// tables.
    ///
    /// # Errors
    /// The blockers; or the server returned an error.
    pub async fn look(&self) -> Result<()> {
        let older_ms = self.budget.lock_timeout.as_secs_f64() * 1000.0;
        let blockers = blockers::in_the_way(self.client, &self.tables, older_ms).await?;
        if blockers.is_empty() { Ok(()) } else { Err(blocked(&blockers)) }
    }

    /// Cancels blockers, if the plan allows it.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn cancel(&self, asked: &mut Asked) -> Result<()> {
        if let Some(after) = self.budget.cancel_blockers_after {
            let blockers = blockers::in_the_way(self.client, &self.tables, 0.0).await?;
            asked.end(self.client, self.events, &blockers, after).await;
        }
        Ok(())
    }

    /// Begins the lock requests of a transaction ([`locks_sql::begin`]): runs `first`, then sets a short `lock_timeout`
    /// for all locks that follow, and a time limit in case this process freezes.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn begin(&self, client: &Client, first: &str) -> Result<()> {
        Ok(client.batch_execute(&locks_sql::begin(first, self.budget.lock_timeout.as_millis())).await?)
    }

    /// Repeats `attempt`, with growing pauses, while the lock cannot be acquired; returns the result and the number of
    /// attempts. It calls `check_stop` before each attempt.
    ///
    /// # Errors
    /// A lock error after the last attempt, with the blockers; any other error immediately.
    pub async fn run<T>(
        &self,
        what: &str,
        check_stop: impl Fn() -> Result<()>,
        attempt: impl AsyncFn() -> Result<T>,
    ) -> Result<(T, u32)> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let LockBudget { attempts, give_up_after, .. } = self.budget;
        let begun = Instant::now();
        let mut asked = Asked::default();
        let limit = RetryLimit::either(attempts, give_up_after);
        let mut retries = Retries::of(self.events, Retried::Step(what), limit);
        let mut last = String::new();
        let mut number = 0;
        while number < attempts && (number == 0 || begun.elapsed() < give_up_after) {
            check_stop()?;
            number += 1;
            let error = match attempt().await {
                Ok(value) => return Ok((value, number)),
                Err(e) if e.retry_class() == Retry::Again => e,
                Err(e) => return Err(e.context(format!("failed to {what}"))),
            };
            // The error for a lock timeout does not name the blockers.
            let blockers = blockers::in_the_way(self.client, &self.tables, 0.0).await?;
            if let Some(after) = self.budget.cancel_blockers_after {
                asked.end(self.client, self.events, &blockers, after).await;
            }
            let waited = error.is_any(&[
                &SqlState::LOCK_NOT_AVAILABLE,
                &SqlState::QUERY_CANCELED,
                &SqlState::T_R_DEADLOCK_DETECTED,
            ]);
            let error = if blockers.is_empty() || !waited { error } else { blocked(&blockers) };
            retries.failed(&error);
            last = error.brief();
            if number < attempts {
                tokio::select! {
                    () = tokio::time::sleep(backoff.next(rand::random())) => {}
                    () = self.stop.requested() => {}
                }
            }
        }
        let table = self.tables.first().map(QualifiedName::plain).unwrap_or_default();
        let spent_s = begun.elapsed().as_secs().max(1);
        Err(Error::new(
            Kind::Lock,
            format!(
                "could not acquire the lock on {table} in {} ({spent_s} s)",
                number::counted(number.into(), "attempt")
            ),
        )
        .cause(last)
        .hint(
            "nothing was changed; end the blocking session, or run the same command again when the \
            server is less busy",
        ))
    }
}

fn blocked(blockers: &[Blocker]) -> Error {
    let listed: Vec<String> = blockers.iter().take(3).map(ToString::to_string).collect();
    Error::new(Kind::Lock, format!("blocked by {}", listed.join("; "))).retry(Retry::Again)
}

/// Waits until a synchronous standby has received the commits that did not wait for it because they held locks. If that
/// takes too long, reports it, and the rest of the command does not wait for the standby either.
///
/// # Errors
/// The server returned an error.
pub async fn reach_standby(driver: &Driver) -> Result<()> {
    let client = &driver.control;
    if !client.query_one(locks_sql::WAITS_FOR_STANDBY, &[]).await?.get::<_, bool>(0) {
        return Ok(());
    }
    let cancel = client.cancel_token();
    let mut reached = pin!(client.batch_execute(locks_sql::REACH_STANDBY));
    if let Ok(reached) = tokio::time::timeout(STANDBY_WAITS, &mut reached).await {
        return Ok(reached?);
    }
    driver.events.warn(RunWarning::StandbyNotConfirmed { waited_s: STANDBY_WAITS.as_secs() });
    cancel.cancel().await?;
    // Canceling the wait for a standby is not an error: the transaction is committed.
    reached.await?;
    driver.standby_left.set(true);
    Ok(client.batch_execute(locks_sql::LEAVE_STANDBY).await?)
}

/// Does `work` in a transaction whose locks on `tables` block applications, with short attempts.
///
/// # Errors
/// A lock error after the last attempt, with the blockers; or the error of `work`.
pub async fn briefly<T>(
    driver: &Driver,
    tables: Vec<QualifiedName>,
    what: &str,
    work: impl AsyncFn() -> Result<T>,
) -> Result<(T, u32)> {
    let there = match tables.first() {
        Some(table) => catalog::find(&driver.control, table).await?.is_some(),
        None => false,
    };
    let first = tables.first().map(|t| format!("lock table {t} in share update exclusive mode"));
    let lock_retry = LockRetry::on(driver, tables);
    let attempt = async || {
        if there {
            lock_retry.look().await?;
        }
        transaction(&driver.control, READ_COMMITTED, async |client| {
            driver.hold_epoch(client).await?;
            if let Some(first) = first.as_ref().filter(|_| there) {
                lock_retry.begin(client, first).await?;
            }
            work().await
        })
        .await
    };
    let done = lock_retry.run(what, || driver.check_stop(), attempt).await?;
    reach_standby(driver).await?;
    Ok(done)
}
