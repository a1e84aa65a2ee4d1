//! Who is in the way of a lock. Looked at before every try: a try that is bound to fail makes applications wait for nothing.

use std::fmt;

use tokio_postgres::Client;

use crate::error::{Error, Kind, Result, Retry};
use crate::model::blueprint::{Blueprint, Direction};
use crate::pg::catalog;
use crate::pg::retry::LOCK_NOT_AVAILABLE;
use crate::sql::swap as sql;

use super::context::Context;

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

/// Transactions older than `older_ms` that hold a lock on one of the tables that the direction's swap locks.
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
    for name in [&sides.source, &sides.target].into_iter().chain(b.table.views.iter().map(|v| &v.name)) {
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

/// The first of them in words; none where there are none.
pub fn said(blockers: &[Blocker]) -> Option<String> {
    (!blockers.is_empty())
        .then(|| blockers.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Does `step`, which locks the direction's source against everybody, unless a transaction older than the lock budget is
/// in the way.
///
/// # Errors
/// The lock was not to be had, and who was in the way: to be tried again later. Or what `step` said.
pub async fn unless_in_the_way<T>(
    context: &Context,
    b: &Blueprint,
    direction: Direction,
    step: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    let budget_ms = context.plan.lock_timeout().as_secs_f64() * 1000.0;
    let mut blockers = in_the_way(&context.control, b, direction, budget_ms).await?;
    if blockers.is_empty() {
        match step().await {
            Err(e) if e.sqlstate() == Some(LOCK_NOT_AVAILABLE) => {}
            other => return other,
        }
        blockers = in_the_way(&context.control, b, direction, 0.0).await?;
    }
    let who = said(&blockers).unwrap_or_else(|| "transactions that have ended by now".to_owned());
    Err(Error::new(Kind::Lock, format!("the lock on {} was not to be had", b.table.name.plain()))
        .cause(format!("in the way: {who}"))
        .hint("nothing was changed; end the session in the way, or run the same command at a quieter time")
        .retry(Retry::Again))
}
