//! Who is in the way of a lock. Looked at before every try: a try that is bound to fail makes applications wait for nothing.

use std::fmt;

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::blueprint::{Blueprint, Direction};
use crate::pg::catalog;
use crate::sql::swap as sql;

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
