//! Who holds a lock that we would have to wait for; and, only where the plan says so, how they are asked to let go.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::event::{Events, LockWarning};
use crate::model::blocker::Blocker;
use crate::model::ident::QualifiedName;
use crate::pg::catalog;
use crate::sql::{finish, swap as sql};

/// What another role's session does not show to us.
const UNKNOWN: &str = "(unknown: it takes pg_read_all_stats to see)";

/// Transactions older than `older_ms` that hold a lock on one of `tables`.
///
/// # Errors
/// What the server said.
pub async fn in_the_way(client: &Client, tables: &[QualifiedName], older_ms: f64) -> Result<Vec<Blocker>> {
    let mut oids = Vec::new();
    for name in tables {
        oids.extend(catalog::find(client, name).await?);
    }
    let rows = client.query(sql::IN_THE_WAY, &[&oids, &older_ms]).await?;
    Ok(rows.iter().map(blocker).collect())
}

/// Those that the session with process number `pid` waits for; none while it does not wait.
///
/// # Errors
/// What the server said.
pub async fn waited_for(client: &Client, pid: i32) -> Result<Vec<Blocker>> {
    Ok(client.query(finish::WAITED_FOR, &[&pid]).await?.iter().map(blocker).collect())
}

/// A row of [`sql::IN_THE_WAY`], or one that begins with the same columns.
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

/// Who was asked to let go already, by process and the time its transaction began: the second time it is ended.
#[derive(Debug, Default)]
pub struct Asked(HashSet<(i32, String)>);

impl Asked {
    /// Cancels what runs in each session that has been in the way for longer than `after`; where that did not help, ends the
    /// session. Never a superuser's, a replication's or the server's own. That it could not be done is said, and no error.
    pub async fn end(&mut self, client: &Client, events: &Events, blockers: &[Blocker], after: Duration) {
        let old = |b: &&Blocker| b.ordinary && b.age_ms >= after.as_secs_f64() * 1000.0;
        for blocker in blockers.iter().filter(old) {
            let asked = !self.0.insert((blocker.pid, blocker.transaction_start.clone()));
            let named = blocker.clone();
            let (statement, warning) = if asked {
                (sql::TERMINATE, LockWarning::SessionTerminated { blocker: named })
            } else {
                (sql::CANCEL, LockWarning::StatementCanceled { blocker: named })
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
