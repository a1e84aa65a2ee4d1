//! Detects a transaction-pooling proxy.
//!
//! Such a proxy assigns a server connection for one transaction. What belongs to a session, in particular an advisory
//! lock, is then lost, or stays on a connection that another client gets. Two connections show it: the server process
//! of one must never be that of the other, and must stay the same from one statement to the next.
//!
//! Only the simple protocol is used, and no settings are changed: named statements fail behind some proxies, and a
//! setting would stay on the server connection.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Error, Kind, Result};

/// With many idle server connections, a single check can miss the proxy by chance.
const ROUNDS: usize = 3;

/// The time limit for the check: a proxy whose server connections are all in use makes it wait.
const LIMIT: Duration = Duration::from_secs(30);

/// Fails if two new connections to `server` lead to a transaction-pooling proxy.
pub(super) async fn refuse(a: &Client, b: &Client, server: &str) -> Result<()> {
    let found = timeout(LIMIT, is_pooled(a, b)).await.map_err(|_| {
        Error::failed(format!(
            "{server} accepted the connection but did not answer within {} s",
            LIMIT.as_secs()
        ))
        .hint("if a connection pooler is in between, connect to the server directly")
    })??;
    if found {
        return Err(Error::new(
            Kind::Preflight,
            format!(
                "{server} is a connection pooler in transaction \
            mode"
            ),
        )
        .cause(
            "two statements of one connection run in different server processes, so the job cannot \
                 rely on session locks and settings, which ensure that only one process runs it",
        )
        .hint("connect to the server directly, or to a pooler in session mode"));
    }
    Ok(())
}

async fn is_pooled(a: &Client, b: &Client) -> Result<bool> {
    let first = backend(a).await?;
    for _ in 0..ROUNDS {
        match b.simple_query("begin").await {
            // In statement mode, PgBouncer allows no transactions at all.
            Err(e) if e.code() == Some(&SqlState::PROTOCOL_VIOLATION) => return Ok(true),
            other => other?,
        };
        // B is asked before A is asked again: if A's server connection were assigned to B, A would have to wait for
        // the end of B.
        if backend(b).await? == first || backend(a).await? != first {
            return Ok(true);
        }
        b.simple_query("rollback").await?;
    }
    Ok(false)
}

/// The number of the server process behind the connection.
async fn backend(session: &Client) -> Result<String> {
    let messages = session.simple_query("select pg_catalog.pg_backend_pid()").await?;
    messages
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .ok_or_else(|| Error::failed("the server did not report the process id of the session"))
}
