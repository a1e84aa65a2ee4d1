//! Switches the mirror on and off, and drains while it is on.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result, Retry};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::cutover::MIRROR_AT_MOST;
use crate::model::ident::{QualifiedName, plain};
use crate::pg::catalog;
use crate::pg::transaction::{READ_COMMITTED, REPEATABLE_READ, all, execute_prepared, transaction};
use crate::phase::partition::{PartitionJob, checks, partitions};
use crate::sql::{copy as copy_sql, drain as drain_sql, mirror as sql};

/// How often a batch that timed out or conflicted with a writer is repeated. After that, the remaining changes are left
/// to the next drain.
const TRIES: u32 = 20;
/// The pause before such a batch is repeated, in which writers can proceed.
const PAUSE: Duration = Duration::from_millis(10);

/// Switches the mirror on. No lock is needed: whichever version of the function a session runs, each change is either
/// mirrored or logged.
///
/// # Errors
/// The table cannot be mirrored; or the server returned an error. In both cases, nothing is changed.
pub async fn on(context: &PartitionJob, ending: Direction) -> Result<()> {
    let (b, client) = (context.blueprint(), &context.control);
    belongs_to_trusted(context, client).await?;
    let deferrable = deferrable(context, ending).await?;
    let source = catalog::must_find(client, &b.sides(ending).source).await?;
    let rows = client.query(sql::HEAPS, &[&source]).await?;
    let heaps: Vec<(u32, u32)> =
        rows.iter().filter_map(|row| Some((row.get(0), row.get::<_, Option<u32>>(1)?))).collect();
    let until: String = client.query_one(sql::UNTIL, &[&MIRROR_AT_MOST.as_secs_f64()]).await?.get(0);
    let mirrored = sql::Mirrored { heaps: &heaps, deferrable: &deferrable, until: &until };
    transaction(client, READ_COMMITTED, async |client| {
        context.hold_epoch(client).await?;
        belongs_to_trusted(context, client).await?;
        all(client, &sql::on(&b, ending, &mirrored)).await
    })
    .await?;
    failpoint!("mirror.on");
    Ok(())
}

/// Fails if a role that is not trusted could alter the mirror's function, or if the function would run code of such a
/// role with the privileges of the job's role: it runs in sessions of applications, in which the job cannot check for
/// such code.
async fn belongs_to_trusted(context: &PartitionJob, client: &Client) -> Result<()> {
    let table = &context.blueprint().table;
    if !context.owner_is_untrusted(client).await? {
        return Ok(());
    }
    if table.force_row_security {
        return Err(Error::failed(
            "the table has FORCE ROW LEVEL SECURITY, and `trust` at the top of the plan does not list the \
             table's owner",
        ));
    }
    let (owner, trust) = (table.owner.as_str(), context.plan.trust());
    match client.query_opt(sql::REACHES_SCHEMA, &[&owner, &trust]).await? {
        None => Ok(()),
        Some(row) => Err(Error::failed(format!(
            "role {} has USAGE on schema pgstrata and could alter the mirror's function, and `trust` at \
             the top of the plan does not list that role",
            plain(row.get::<_, &str>(0))
        ))),
    }
}

/// The deferrable keys of the target. Fails if another deferrable constraint has the name of one of them: SET
/// CONSTRAINTS applies to every constraint with the name, so it would also make the other constraint immediate.
async fn deferrable(context: &PartitionJob, ending: Direction) -> Result<Vec<QualifiedName>> {
    let client = &context.control;
    let target = catalog::must_find(client, &context.blueprint().sides(ending).target).await?;
    let rows = client.query(sql::DEFERRABLE_KEYS, &[&target]).await?;
    let key = |row: &Row| {
        let name = QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        if row.get(2) {
            return Err(Error::failed(format!(
                "another deferrable constraint has the name {}",
                name.plain()
            )));
        }
        Ok(name)
    };
    rows.iter().map(key).collect()
}

/// Switches the mirror off if it is on; returns whether it was on.
///
/// # Errors
/// The server returned an error.
pub async fn off(context: &PartitionJob) -> Result<bool> {
    let (b, client) = (context.blueprint(), &context.control);
    if !client.query_one(sql::IS_ON, &[&sql::name(&b)]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    transaction(client, READ_COMMITTED, async |client| {
        context.hold_epoch(client).await?;
        all(client, &sql::off(&b)).await
    })
    .await?;
    failpoint!("mirror.off");
    Ok(true)
}

/// Drains the current log while the mirror is on, in batches that yield to writers. Returns the number of applied
/// changes, and whether there is a change that only a drain without the mirror can apply: a TRUNCATE, or a unique value
/// that moved.
///
/// # Errors
/// The server returned an error.
pub async fn drain(context: &PartitionJob, ending: Direction) -> Result<(u64, bool)> {
    let (b, client) = (context.blueprint(), &context.control);
    let mut taken = 0;
    for row in client.query(&sql::blocks(&b), &[]).await? {
        context.check_stop()?;
        let block: i64 = row.get(0);
        if !client.query(&drain_sql::truncated(&b), &[]).await?.is_empty() {
            return Ok((taken, true));
        }
        match gently(context, &b, ending, block).await {
            Ok(rows) => taken += rows,
            Err(e) if e.retry_class() == Retry::Again => break,
            Err(e) if e.lacks_partition() => partitions::extend(context).await?,
            Err(e) if checks::leave_out(context, &e).await? => {}
            Err(e) if is_conflict(&e) => return Ok((taken, true)),
            Err(e) => return Err(e.context("failed to drain the change log while the mirror is on")),
        }
    }
    Ok((taken, false))
}

/// Whether a unique key, an exclusion constraint or a foreign key raised the error.
fn is_conflict(error: &Error) -> bool {
    error.is_any(&[
        &SqlState::UNIQUE_VIOLATION,
        &SqlState::EXCLUSION_VIOLATION,
        &SqlState::FOREIGN_KEY_VIOLATION,
    ])
}

async fn gently(context: &PartitionJob, b: &Blueprint, ending: Direction, block: i64) -> Result<u64> {
    let mut tries = 0;
    loop {
        match batch(context, b, ending, block).await {
            // A writer may have mirrored the same row in the meantime.
            Err(e) if tries < TRIES && (e.retry_class() == Retry::Again || is_conflict(&e)) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn batch(context: &PartitionJob, b: &Blueprint, ending: Direction, block: i64) -> Result<u64> {
    let values = [format!("({block},0)"), format!("({},0)", block + 1)];
    transaction(&context.control, REPEATABLE_READ, async |client| {
        client.batch_execute(sql::DRAIN_SETTINGS).await?;
        let sides = b.sides(ending);
        client.batch_execute(&copy_sql::lock_against_truncate(&sides)).await?;
        context.check_untrusted_code_between(client, &sides.source, &sides.target).await?;
        context.hold_epoch(client).await?;
        client.batch_execute(drain_sql::SETTINGS).await?;
        let mut taken = 0;
        for statement in sql::drain(b, ending) {
            taken = execute_prepared(client, &context.prepared(&statement).await?, &values).await?;
        }
        Ok(taken)
    })
    .await
}
