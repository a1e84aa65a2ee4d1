//! The guard that an exchange leaves on the table: it rejects writes of older transactions.

use std::time::{Duration, Instant};

use crate::error::{Error, Result, Retry};
use crate::failpoint;
use crate::pg::catalog;
use crate::pg::transaction::READ_COMMITTED;
use crate::sql::{locks as locks_sql, swap as sql};

use super::PartitionJob;

/// How long the end of a swap waits for older snapshots. After that, a later command drops the guard.
pub(super) const GUARD_WAITS: Duration = Duration::from_secs(5);
/// How long a later command waits for older snapshots: sessions of a previous driver may be about to end.
pub(super) const LATER_GUARD_WAITS: Duration = Duration::from_secs(1);

/// Drops the guard as soon as no session holds a snapshot older than the swap. If a session holds one for longer than
/// `wait`, the guard remains.
///
/// # Errors
/// The server returned an error.
pub async fn end_guard(context: &PartitionJob, wait: Duration) -> Result<()> {
    let deadline = Instant::now() + wait;
    while !drop_guard(context).await? && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Drops the guard if no session holds a snapshot older than the swap; returns whether the guard no longer exists.
async fn drop_guard(context: &PartitionJob) -> Result<bool> {
    let client = &context.control;
    let table = context.blueprint().table.name;
    let oid = catalog::must_find(client, &table).await?;
    if !client.query_one(sql::GUARDED, &[&oid]).await?.get::<_, bool>(0) {
        return Ok(true);
    }
    if client.query_one(sql::OLDER_THAN_GUARD, &[&oid]).await?.get(0) {
        return Ok(false);
    }
    let message = format!(
        "{READ_COMMITTED}; {}; {}; commit",
        locks_sql::bound(context.plan.lock_timeout().as_millis()),
        sql::drop_guard(&table)
    );
    let dropped = client.batch_execute(&message).await.map_err(Error::from);
    if dropped.is_err() {
        // If this fails, the session is broken and the next statement returns the error.
        let _ = client.batch_execute("rollback").await;
    }
    failpoint!("guard.dropped");
    match dropped {
        Ok(()) => Ok(true),
        Err(e) if e.retry_class() == Retry::Again => Ok(false),
        Err(e) => Err(e),
    }
}
