//! Capture: from its commit on, every committed change of the source has its place in the log.

use crate::error::{Error, Result};
use crate::event::{PartitionNote, PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::QualifiedName;
use crate::model::objects::Role;
use crate::model::state::{State, Step};
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, objects as pg};
use crate::phase::job::meter::Meter;
use crate::phase::partition::{PartitionJob, locks, objects};
use crate::sql::{capture as sql, locks as locks_sql};

/// Creates log, function and triggers in one transaction. `CREATE TRIGGER` waits for every open writer, so a try is
/// given up after the lock budget and made again: writers behind us wait no longer than that.
///
/// # Errors
/// The lock could not be acquired.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "capture"))]
pub async fn capture(context: &PartitionJob) -> Result<State> {
    let b = context.blueprint();
    let meter = Meter::begin(context, TableWork::LogChanges { table: b.table.name.plain() });
    let client = &context.control;
    let mut statements = sql::create_log(&b);
    statements.extend(sql::create_function(&b));
    let (state, _) = locks::patiently(context, &b, "put the capture triggers in force", async || {
        locks::look(context, &b, Direction::Forward).await?;
        transaction(client, READ_COMMITTED, async |client| {
            locks::begin(context, client, &b, Direction::Forward).await?;
            all(client, &statements).await?;
            pg::record(client, context.job.id, Role::Log, &b.log()).await?;
            pg::record(client, context.job.id, Role::Truncations, &b.truncations()).await?;
            all(client, &sql::create_triggers(&b, &b.table.name)).await?;
            let state = context.advance(client, Step::Capture).await?;
            failpoint!("capture.before_commit");
            Ok(state)
        })
        .await
    })
    .await?;
    failpoint!("capture.done");
    meter.end(PhaseOutcome::TriggersReady);
    Ok(state)
}

/// Fails where the capture is no longer whole (without it, changes are lost), or a name that the job works with belongs to
/// something else.
///
/// # Errors
/// Somebody disabled or dropped a trigger of ours, or exchanged a table.
pub async fn in_force(context: &PartitionJob) -> Result<()> {
    objects::in_place(context).await?;
    let b = context.blueprint();
    let client = &context.control;
    let source = catalog::must_find(client, &b.table.name).await?;
    if client.query_one(sql::CAPTURE_IN_FORCE, &[&source]).await?.get(0) {
        return Ok(());
    }
    Err(Error::failed(format!("the capture triggers on {} are not in force any more", b.table.name.plain()))
        .cause(
            "somebody dropped or disabled pgstrata_capture or pgstrata_truncate, or enabled them other than ALWAYS; \
             changes since then are not known",
        )
        .hint(context.way_out()))
}

/// Gives the truncate trigger to leaves that were attached by hand. What was truncated before that is in no log; verification
/// finds it.
///
/// # Errors
/// The lock could not be acquired.
pub async fn watch_leaves(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let source = catalog::must_find(&context.control, &b.table.name).await?;
    for row in context.control.query(sql::UNWATCHED_LEAVES, &[&source]).await? {
        let leaf = QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        let mut statements = vec![locks_sql::bound(context.plan.lock_timeout().as_millis())];
        statements.extend(sql::create_truncate_trigger(&b, &leaf));
        context
            .retrying("watch a partition that was attached by hand", async || {
                transaction(&context.control, READ_COMMITTED, async |client| all(client, &statements).await)
                    .await
            })
            .await?;
        context.events.note(PartitionNote::AttachedPartitionWatched { partition: leaf.plain() });
    }
    Ok(())
}
