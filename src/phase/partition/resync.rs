//! The full resync: if the change log has outgrown the table by the time of the first drain, the job removes the copy and the
//! log, and copies again.
//!
//! One transaction replaces the target by an empty one without partitions, deletes the ledger, and returns the job to the
//! state `capturing`. From then on, the job is like one that has not begun to copy: [`before_copy`] creates the partitions and
//! deletes the visible log entries. The copy reads every change to which they refer, because its snapshots are newer. Entries
//! of transactions that are open remain, and are drained later.
//!
//! This is done only in the state `indexed`. Later, drains apply what was written since the last one, changes of the
//! definition may have been carried over to the target, and after an exchange, the inactive side must stay usable for a
//! rollback.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::Result;
use crate::event::ChangeLogWarning;
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::history::History;
use crate::model::objects::{Objects, Role};
use crate::model::resync::{Backlog, CopyCost};
use crate::model::state::{State, Step};
use crate::pg::transaction::{READ_COMMITTED, execute_text, transaction};
use crate::pg::{objects as pg, resync as pg_resync, store, untrusted_code};
use crate::phase::job::locks::briefly;
use crate::phase::partition::{PartitionJob, objects, prepare};
use crate::sql::drain as sql;
use crate::sql::drain::Batch;

/// The rate of a drain is known after it has worked for this long.
const MEASURED: Duration = Duration::from_secs(10);
/// The number of blocks of the log that one transaction deletes: 64 MiB.
const STRETCH_BLOCKS: usize = 8_192;

/// What the copy took; none if the table cannot be copied again in this state.
///
/// # Errors
/// The server returned an error.
pub async fn copy_cost(context: &PartitionJob) -> Result<Option<CopyCost>> {
    if context.state().next(Step::Resync).is_none() {
        return Ok(None);
    }
    pg_resync::copy_cost(&context.control, context.job.id).await.map(Some)
}

/// The backlog of a drain that has applied a number of `changes` in `work` and has `entries` left, if the copy costs less.
pub fn backlog(copy: Option<&CopyCost>, (changes, work): (u64, Duration), entries: u64) -> Option<Backlog> {
    let measured = (work >= MEASURED).then(|| changes as f64 / work.as_secs_f64());
    let backlog = Backlog { entries, drained_per_second: assumed_rate().or(measured)? };
    copy?.is_less_than(&backlog).then_some(backlog)
}

/// The rate that a test sets.
fn assumed_rate() -> Option<f64> {
    #[cfg(feature = "failpoints")]
    return std::env::var("PGSTRATA_DRAIN_RATE").ok()?.parse().ok();
    #[cfg(not(feature = "failpoints"))]
    None
}

/// Removes the copy. Returns the state, from which the job copies again; none if an object of others depends on the target, so
/// that the log must be drained.
///
/// # Errors
/// A lock could not be acquired; or the server returned an error.
pub async fn start_over(context: &PartitionJob, copy: &CopyCost, backlog: &Backlog) -> Result<Option<State>> {
    let (client, job, b) = (&context.control, context.job.id, context.blueprint());
    let removed = briefly(context, vec![b.target()], "remove the copy", async || {
        untrusted_code::check_recreated(client, &[b.table.oid], context.plan.trust()).await?;
        client
            .batch_execute(&objects::lock_target(context, Direction::Forward, "access exclusive").await?)
            .await?;
        client.batch_execute(&sql::drop_target(&b)).await?;
        prepare::target(context, client, &b).await?;
        pg::forget(client, job, Role::Partition).await?;
        pg_resync::forget_copy(client, job).await?;
        store::event(client, job, &History::Resync { entries: backlog.entries }).await?;
        let state = context.advance(client, Step::Resync).await?;
        failpoint!("resync.before_commit");
        Ok(state)
    });
    match removed.await {
        Ok((state, _)) => {
            context.objects.replace(Objects::default());
            context.events.warn(ChangeLogWarning::CopyStartsOver {
                changes: backlog.entries,
                drained_per_second: backlog.drained_per_second,
                drain_s: backlog.drain_time().as_secs(),
                copy_s: copy.time.as_secs(),
            });
            failpoint!("resync.done");
            Ok(Some(state))
        }
        Err(e) if e.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What must be done before the end of the copy is fixed: creates missing partitions, and deletes the visible log entries,
/// because the copy reads the changes to which they refer.
///
/// # Errors
/// The server returned an error.
pub async fn before_copy(context: &PartitionJob) -> Result<()> {
    prepare::leaves(context).await?;
    let b = context.blueprint();
    let client = &context.control;
    let blocks: i64 = client.query_one(&sql::pending(&b), &[]).await?.get(0);
    let forget = sql::forget(&b, Batch::Blocks);
    for from in (0..blocks).step_by(STRETCH_BLOCKS) {
        context.check_stop()?;
        let ends = [format!("({from},0)"), format!("({},0)", from + STRETCH_BLOCKS as i64)];
        context
            .retrying("empty the change log", async || forget_as_driver(context, &forget, &ends).await)
            .await?;
    }
    let truncations = sql::forget_truncations(&b);
    context
        .retrying("empty the change log", async || forget_as_driver(context, &truncations, &[]).await)
        .await?;
    if blocks > 0 {
        client.batch_execute(&sql::vacuum_log(&b, true)).await?;
    }
    failpoint!("resync.forgotten");
    Ok(())
}

/// Deletes from the log. A former driver must not do so: by then, the copy may have read older rows.
async fn forget_as_driver(context: &PartitionJob, statement: &str, values: &[String]) -> Result<u64> {
    transaction(&context.control, READ_COMMITTED, async |client| {
        context.hold_epoch(client).await?;
        execute_text(client, statement, values).await
    })
    .await
}
