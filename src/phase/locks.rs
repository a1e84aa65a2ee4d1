//! Locks that applications have to wait behind: each try is short, a try that is bound to fail is not made, and who was in
//! the way is said.

use std::fmt;
use std::time::Duration;

use tokio_postgres::Client;

use crate::error::{Error, Kind, Result, Retry};
use crate::model::backoff::Backoff;
use crate::model::blueprint::{Blueprint, Direction};
use crate::pg::catalog;
use crate::sql::swap as sql;

use super::context::Context;

/// The lock that evicts autovacuum harms nobody, so it may take longer than the one that does.
const FIRST_LOCK_MS: u32 = 5_000;

/// A transaction that holds a lock which we would have to wait for.
#[derive(Debug, Clone)]
pub struct Blocker {
    pid: i32,
    user: String,
    application: String,
    state: String,
    since: String,
    query_start: String,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return write!(
                f,
                "prepared transaction {} of {}, since {}",
                self.application, self.user, self.since
            );
        }
        write!(
            f,
            "pid {}, user {}, application \"{}\", {}, transaction since {}, query since {}",
            self.pid, self.user, self.application, self.state, self.since, self.query_start
        )
    }
}

/// Transactions older than `older_ms` that hold a lock on one of the tables that the direction's swap locks: both sides,
/// what reads them, and what foreign keys point to.
///
/// # Errors
/// What the server said.
pub async fn in_the_way(
    client: &Client,
    b: &Blueprint,
    away: Direction,
    older_ms: f64,
) -> Result<Vec<Blocker>> {
    let sides = b.sides(away);
    let mut oids = Vec::new();
    let views = b.table.views.iter().map(|v| &v.name);
    let referenced = b.table.foreign_keys.iter().map(|f| &f.references);
    let others = b.altered_beside();
    for name in [&sides.source, &sides.target].into_iter().chain(views).chain(referenced).chain(others) {
        oids.extend(catalog::find(client, name).await?);
    }
    let rows = client.query(sql::IN_THE_WAY, &[&oids, &older_ms]).await?;
    Ok(rows
        .iter()
        .map(|r| Blocker {
            pid: r.get(0),
            user: r.get::<_, Option<String>>(1).unwrap_or_default(),
            application: r.get::<_, Option<String>>(2).unwrap_or_default(),
            state: r.get::<_, Option<String>>(3).unwrap_or_default(),
            since: r.get::<_, Option<String>>(4).unwrap_or_default(),
            query_start: r.get(5),
        })
        .collect())
}

/// Fails, to be tried again, while a transaction older than the lock budget holds a lock that we would wait for.
///
/// # Errors
/// Who is in the way; or what the server said.
pub async fn look(context: &Context, b: &Blueprint, away: Direction) -> Result<()> {
    let older_ms = context.plan.lock_timeout().as_secs_f64() * 1000.0;
    let blockers = in_the_way(&context.control, b, away, older_ms).await?;
    if blockers.is_empty() { Ok(()) } else { Err(blocked(&blockers)) }
}

fn blocked(blockers: &[Blocker]) -> Error {
    let said: Vec<String> = blockers.iter().take(3).map(ToString::to_string).collect();
    Error::new(Kind::Lock, format!("in the way: {}", said.join("; "))).retry(Retry::Again)
}

/// Begins a transaction's locking: the weak lock first, which makes autovacuum give way while nobody waits for us; then
/// the plan's short `lock_timeout` for all that follow.
///
/// # Errors
/// What the server said.
pub async fn begin(context: &Context, client: &Client, b: &Blueprint, away: Direction) -> Result<()> {
    client.batch_execute(&format!("set local lock_timeout = {FIRST_LOCK_MS}")).await?;
    client.batch_execute(&sql::first_lock(b, away)).await?;
    let short = context.plan.lock_timeout().as_millis();
    Ok(client.batch_execute(&format!("set local lock_timeout = {short}")).await?)
}

/// Makes up to the plan's number of attempts, with growing pauses, while the lock is not to be had; what came of it and
/// which attempt it was.
///
/// # Errors
/// Lock after the last attempt, with who was in the way; any other error at once.
pub async fn patiently<T>(
    context: &Context,
    b: &Blueprint,
    what: &str,
    attempt: impl AsyncFn() -> Result<T>,
) -> Result<(T, u32)> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let attempts = context.plan.attempts();
    let mut last = String::new();
    for number in 1..=attempts {
        context.go_on()?;
        let error = match attempt().await {
            Ok(value) => return Ok((value, number)),
            Err(e) if e.retry_class() == Retry::Again => e,
            Err(e) => return Err(e.context(format!("failed to {what}"))),
        };
        // A lock that was not to be had says nothing of who had it.
        let error = match in_the_way(&context.control, b, context.direction(), 0.0).await? {
            blockers if blockers.is_empty() || error.sqlstate().is_none() => error,
            blockers => blocked(&blockers),
        };
        let said = match error.cause_text() {
            Some(cause) => format!("{}: {cause}", error.message()),
            None => error.message().to_owned(),
        };
        if said != last {
            context.events.warn(format!("{what}: attempt {number} of {attempts}: {said}"));
            last = said;
        }
        if number < attempts {
            tokio::select! {
                () = tokio::time::sleep(backoff.next(rand::random())) => {}
                () = context.interrupted() => {}
            }
        }
    }
    Err(Error::new(Kind::Lock, format!("the lock on {} was not to be had in {attempts} attempts", b.table.name.plain()))
        .cause(last)
        .hint(
            "nothing was changed, and changes go on being logged; end the session in the way, or try at a quieter time, with the \
             same command",
        ))
}
