//! Finds out whether a proxy with transaction pooling is in between.
//!
//! Such a proxy lends a server connection for one transaction, so what a session holds, an advisory lock above all, is
//! lost or left behind on a connection that someone else gets. Two connections tell: the server process behind one
//! connection must never be the one behind another, and must stay the same from one statement to the next.
//!
//! Only the simple protocol, and no settings: named statements fail behind some proxies, and a setting would stay behind.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Error, Kind, Result};

/// On a proxy with many idle server connections one look can miss by chance.
const ROUNDS: usize = 3;

/// How long the probe may take: a proxy whose server connections are all lent makes it wait.
const LIMIT: Duration = Duration::from_secs(30);

/// Fails where two new connections to `server` lead to a transaction-pooling proxy.
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
            // In statement mode PgBouncer allows no transaction at all.
            Err(e) if e.code() == Some(&SqlState::PROTOCOL_VIOLATION) => return Ok(true),
            other => other?,
        };
        // Asked before A is asked again: were A's connection lent to B, A would have to wait for B's end.
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
