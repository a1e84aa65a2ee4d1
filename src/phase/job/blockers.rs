//! Finds transactions that hold a lock for which the job would have to wait, and cancels them if the plan allows it.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::event::{Events, LockWarning};
use crate::model::blocker::Blocker;
use crate::model::ident::QualifiedName;
use crate::pg::catalog;
use crate::sql::{finish, swap as sql};

/// Replaces a value that the server hides for sessions of other roles.
const UNKNOWN: &str = "(unknown: requires pg_read_all_stats)";

/// Transactions older than `older_ms` that hold a lock on one of `tables`.
///
/// # Errors
/// The server returned an error.
pub async fn in_the_way(client: &Client, tables: &[QualifiedName], older_ms: f64) -> Result<Vec<Blocker>> {
    let mut oids = Vec::new();
    for name in tables {
        oids.extend(catalog::find(client, name).await?);
    }
    let rows = client.query(sql::IN_THE_WAY, &[&oids, &older_ms]).await?;
    Ok(rows.iter().map(blocker).collect())
}

/// Transactions for which the session with process number `pid` waits; none while it does not wait.
///
/// # Errors
/// The server returned an error.
pub async fn waited_for(client: &Client, pid: i32) -> Result<Vec<Blocker>> {
    Ok(client.query(finish::WAITED_FOR, &[&pid]).await?.iter().map(blocker).collect())
}

/// Converts a row of [`sql::IN_THE_WAY`], or one that begins with the same columns.
pub fn blocker(r: &Row) -> Blocker {
    Blocker {
        pid: r.get(0),
        user: r.get::<_, Option<String>>(1).unwrap_or_default(),
        application: r.get::<_, Option<String>>(2).unwrap_or_default(),
        state: r.get::<_, Option<String>>(3).unwrap_or_default(),
        transaction_start: r.get::<_, Option<String>>(4).unwrap_or_else(|| UNKNOWN.to_owned()),
        query_start: r.get(5),
        age_ms: r.get::<_, Option<f64>>(6).unwrap_or_default(),
        ordinary: r.get(7),
    }
}

/// Sessions whose statement was already canceled, by process number and start of the transaction. The next time, the
/// session is terminated.
#[derive(Debug, Default)]
pub struct Asked(HashSet<(i32, String)>);

impl Asked {
    /// Cancels the statement of each session that has been blocking the job for longer than `after`; if that did not
    /// help, terminates the session. Superuser sessions, replication, and server processes are never canceled. A
    /// failure to cancel is reported and is not an error.
    pub async fn end(&mut self, client: &Client, events: &Events, blockers: &[Blocker], after: Duration) {
        let old = |b: &&Blocker| b.ordinary && b.age_ms >= after.as_secs_f64() * 1000.0;
        for blocker in blockers.iter().filter(old) {
            let first = self.0.insert((blocker.pid, blocker.transaction_start.clone()));
            let named = blocker.clone();
            let (statement, warning) = if first {
                (sql::CANCEL, LockWarning::StatementCanceled { blocker: named })
            } else {
                (sql::TERMINATE, LockWarning::SessionTerminated { blocker: named })
            };
            events.warn(warning);
            let sent = client.execute(statement, &[&blocker.pid, &blocker.transaction_start]).await;
            if let Err(error) = sent {
                let error = error.as_db_error().map_or("the connection failed", |e| e.message()).to_owned();
                events.warn(LockWarning::CancelRefused { error });
            }
        }
    }
}
