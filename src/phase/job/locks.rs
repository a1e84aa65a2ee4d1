//! Locks that applications have to wait behind: each try is short, a try that is bound to fail is not made, and who was in
//! the way is said.

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

/// How long a command waits for a synchronous standby before it says so.
const STANDBY_WAITS: Duration = Duration::from_secs(10);

/// The tables that somebody is about to lock, how long applications may wait behind one try, and how many there are.
#[derive(Debug)]
pub struct LockRetry<'a> {
    /// The session that locks.
    pub client: &'a Client,
    /// Who is in the way is said here.
    pub events: &'a Events,
    /// Ends a pause early.
    pub stop: &'a Stop,
    /// What is locked; the first is what errors name.
    pub tables: Vec<QualifiedName>,
    /// How long, how often, and what may be done about it.
    pub budget: LockBudget,
}

impl<'a> LockRetry<'a> {
    /// Of the locks on some relations.
    pub fn on(driver: &'a Driver, tables: Vec<QualifiedName>) -> Self {
        let budget = driver.plan.lock_budget();
        Self { client: &driver.control, events: &driver.events, stop: &driver.stop, tables, budget }
    }

    /// Fails, to be tried again, while a transaction older than the lock budget holds a lock that we would wait for.
    ///
    /// # Errors
    /// Who is in the way; or what the server said.
    pub async fn look(&self) -> Result<()> {
        let older_ms = self.budget.lock_timeout.as_secs_f64() * 1000.0;
        let blockers = blockers::in_the_way(self.client, &self.tables, older_ms).await?;
        if blockers.is_empty() { Ok(()) } else { Err(blocked(&blockers)) }
    }

    /// Cancels who holds a lock that we would wait for, where the plan says so.
    ///
    /// # Errors
    /// What the server said.
    pub async fn cancel(&self, asked: &mut Asked) -> Result<()> {
        if let Some(after) = self.budget.cancel_blockers_after {
            let blockers = blockers::in_the_way(self.client, &self.tables, 0.0).await?;
            asked.end(self.client, self.events, &blockers, after).await;
        }
        Ok(())
    }

    /// Begins a transaction's locking ([`locks_sql::begin`]): `first`, then a short `lock_timeout` for all locks that follow,
    /// and an end to the transaction if this process freezes.
    ///
    /// # Errors
    /// What the server said.
    pub async fn begin(&self, client: &Client, first: &str) -> Result<()> {
        Ok(client.batch_execute(&locks_sql::begin(first, self.budget.lock_timeout.as_millis())).await?)
    }

    /// Makes attempts, with growing pauses, while the lock cannot be acquired; what came of it and which attempt it was.
    /// `go_on` is asked before each.
    ///
    /// # Errors
    /// Lock after the last attempt, with who was in the way; any other error at once.
    pub async fn run<T>(
        &self,
        what: &str,
        go_on: impl Fn() -> Result<()>,
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
            go_on()?;
            number += 1;
            let error = match attempt().await {
                Ok(value) => return Ok((value, number)),
                Err(e) if e.retry_class() == Retry::Again => e,
                Err(e) => return Err(e.context(format!("failed to {what}"))),
            };
            // A lock that could not be acquired says nothing of who had it.
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
                    () = self.stop.asked() => {}
                }
            }
        }
        let table = self.tables.first().map(QualifiedName::plain).unwrap_or_default();
        let spent_s = begun.elapsed().as_secs().max(1);
        Err(Error::new(
            Kind::Lock,
            format!("the lock on {table} could not be acquired in {} ({spent_s} s)", number::counted(number.into(), "attempt")),
        )
        .cause(last)
        .hint("nothing was changed; end the session in the way, or try at a quieter time, with the same command"))
    }
}

fn blocked(blockers: &[Blocker]) -> Error {
    let said: Vec<String> = blockers.iter().take(3).map(ToString::to_string).collect();
    Error::new(Kind::Lock, format!("in the way: {}", said.join("; "))).retry(Retry::Again)
}

/// Waits until a synchronous standby has what was committed without waiting for it, while locks were held. Where that takes too
/// long, says so; the rest of the command does not wait for it either.
///
/// # Errors
/// What the server said.
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
    // A wait for a standby that is cancelled is no error: the transaction is committed.
    reached.await?;
    driver.standby_left.set(true);
    Ok(client.batch_execute(locks_sql::LEAVE_STANDBY).await?)
}

/// Does `work` in a transaction whose locks on `tables` applications wait behind: each try is short.
///
/// # Errors
/// Lock after the last attempt, with who was in the way; or what `work` said.
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
    let ladder = LockRetry::on(driver, tables);
    let attempt = async || {
        if there {
            ladder.look().await?;
        }
        transaction(&driver.control, READ_COMMITTED, async |client| {
            driver.hold_epoch(client).await?;
            if let Some(first) = first.as_ref().filter(|_| there) {
                ladder.begin(client, first).await?;
            }
            work().await
        })
        .await
    };
    let done = ladder.run(what, || driver.go_on(), attempt).await?;
    reach_standby(driver).await?;
    Ok(done)
}
