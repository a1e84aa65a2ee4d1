//! The locks of a swap of the tables, acquired with [`crate::phase::job::locks`].

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Kind, Result, Retry};
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::QualifiedName;
use crate::phase::job::blockers::Asked;
use crate::phase::job::locks::{LockRetry, reach_standby};
use crate::sql::swap as sql;

use super::PartitionJob;

/// How long an attempt waits until there are no blockers,
const LOOKS_FOR: Duration = Duration::from_secs(2);
/// and how often it checks for them.
const LOOKS_EVERY: Duration = Duration::from_millis(15);

/// The tables that the swap in that direction locks: both sides, the views that read them, and the tables of foreign
/// keys.
fn locked(b: &Blueprint, ending: Direction) -> Vec<QualifiedName> {
    let sides = b.sides(ending);
    let views = b.table.views.iter().map(|v| v.name.clone());
    let referenced = b.table.foreign_keys.iter().map(|f| f.references.clone());
    let others = b.other_altered_tables().into_iter().cloned();
    [sides.source, sides.target].into_iter().chain(views).chain(referenced).chain(others).collect()
}

fn lock_retry<'a>(context: &'a PartitionJob, b: &Blueprint, ending: Direction) -> LockRetry<'a> {
    LockRetry::on(context, locked(b, ending))
}

/// [`LockRetry::look`] for the swap in that direction.
///
/// # Errors
/// The blockers; or the server returned an error.
pub async fn look(context: &PartitionJob, b: &Blueprint, ending: Direction) -> Result<()> {
    lock_retry(context, b, ending).look().await
}

/// As [`look`], but retries for a short time: transactions of applications are often short.
///
/// # Errors
/// As [`look`].
pub async fn look_patiently(context: &PartitionJob, b: &Blueprint, ending: Direction) -> Result<()> {
    let lock_retry = lock_retry(context, b, ending);
    let begun = Instant::now();
    loop {
        match lock_retry.look().await {
            Err(e) if e.retry_class() == Retry::Again && begun.elapsed() < LOOKS_FOR => {
                context.check_stop()?;
                tokio::time::sleep(LOOKS_EVERY).await;
            }
            other => return other,
        }
    }
}

/// [`LockRetry::cancel`] for the swap in that direction.
///
/// # Errors
/// The server returned an error.
pub async fn cancel(
    context: &PartitionJob,
    b: &Blueprint,
    ending: Direction,
    asked: &mut Asked,
) -> Result<()> {
    lock_retry(context, b, ending).cancel(asked).await
}

/// [`LockRetry::begin`] for the swap in that direction.
///
/// # Errors
/// The server returned an error.
pub async fn begin(context: &PartitionJob, client: &Client, b: &Blueprint, ending: Direction) -> Result<()> {
    lock_retry(context, b, ending).begin(client, &sql::first_lock(b, ending)).await
}

/// [`LockRetry::run`] for the locks of the swap in the current direction.
///
/// # Errors
/// A lock error after the last attempt, with the blockers; any other error immediately.
pub async fn patiently<T>(
    context: &PartitionJob,
    b: &Blueprint,
    what: &str,
    attempt: impl AsyncFn() -> Result<T>,
) -> Result<(T, u32)> {
    let lock_retry = lock_retry(context, b, context.direction());
    let done = lock_retry.run(what, || context.check_stop(), attempt).await.map_err(|e| match e.kind() {
        Kind::Lock => e.hint(
            "nothing was changed, and changes are still logged; end the blocking session, or run the same \
             command again when the server is less busy",
        ),
        _ => e,
    })?;
    reach_standby(context).await?;
    Ok(done)
}
