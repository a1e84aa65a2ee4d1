//! Transactions that hold a lock for which the job would have to wait; and how they are cancelled, if the plan allows
//! it.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::event::Events;
use crate::model::ident::QualifiedName;
use crate::pg::catalog;
use crate::sql::{finish, swap as sql};

/// What a session of another role does not show us.
const UNKNOWN: &str = "(unknown: requires pg_read_all_stats)";

/// A transaction that holds a lock for which the job would have to wait.
#[derive(Debug, Clone)]
pub struct Blocker {
    pid: i32,
    user: String,
    application: String,
    state: String,
    since: String,
    query_start: String,
    age_ms: f64,
    /// Whether it is a client session, and not a superuser's.
    ordinary: bool,
}

impl Blocker {
    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.state == "replication slot" {
            return write!(f, "replication slot {}", self.application);
        }
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

/// Those that the session with process number `pid` waits for; none while it does not wait.
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
        since: r.get::<_, Option<String>>(4).unwrap_or_else(|| UNKNOWN.to_owned()),
        query_start: r.get(5),
        age_ms: r.get::<_, Option<f64>>(6).unwrap_or_default(),
        ordinary: r.get(7),
    }
}

/// Sessions that were already cancelled, by process number and start of the transaction: the second time, they are
/// terminated.
#[derive(Debug, Default)]
pub struct Asked(HashSet<(i32, String)>);

impl Asked {
    /// Cancels the statement of each session that has been blocking the job for longer than `after`; if that did not
    /// help, terminates the session. Never a superuser session, replication, or a process of the server. A failure to
    /// do so is reported and is not an error.
    pub async fn end(&mut self, client: &Client, events: &Events, blockers: &[Blocker], after: Duration) {
        let old = |b: &&Blocker| b.ordinary && b.age_ms >= after.as_secs_f64() * 1000.0;
        for blocker in blockers.iter().filter(old) {
            let asked = !self.0.insert((blocker.pid, blocker.since.clone()));
            let (statement, what) = if asked {
                (sql::TERMINATE, "ending the session")
            } else {
                (sql::CANCEL, "cancelling the statement")
            };
            events.warn(format!("{what} in the way, as the plan says: {blocker}"));
            if let Err(error) = client.execute(statement, &[&blocker.pid, &blocker.since]).await {
                let said = error.as_db_error().map_or("the connection failed", |e| e.message()).to_owned();
                events.warn(format!(
                    "that was refused: {said}; it takes `grant pg_signal_backend to` our role"
                ));
            }
        }
    }
}
