//! Capture: after its commit, every committed change to the source is in the change log.

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
use crate::sql::key_table::triggers;
use crate::sql::{capture as sql, locks as locks_sql};

/// Creates the change log, its function and the capture triggers in one transaction. `CREATE TRIGGER` waits for every
/// open writer, and other writers wait for it. Each attempt therefore ends after the lock timeout and is repeated.
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
    let (state, _) = locks::patiently(
        context,
        &b,
        &format!("create the capture triggers of {}", b.table.name.plain()),
        async || {
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
        },
    )
    .await?;
    failpoint!("capture.done");
    meter.end(PhaseOutcome::TriggersReady);
    Ok(state)
}

/// Fails if not all changes are captured any longer, because changes would be lost, or if a name that the job uses
/// belongs to another object.
///
/// # Errors
/// A capture trigger was disabled or dropped, or a table was replaced.
pub async fn in_force(context: &PartitionJob) -> Result<()> {
    objects::in_place(context).await?;
    let b = context.blueprint();
    let client = &context.control;
    let source = catalog::must_find(client, &b.table.name).await?;
    if client.query_one(sql::CAPTURE_IN_FORCE, &[&source]).await?.get(0) {
        return Ok(());
    }
    Err(Error::failed(format!("the capture triggers on {} are no longer enabled", b.table.name.plain()))
        .cause(
            "pgstrata_capture or pgstrata_truncate was dropped or disabled, or is not enabled as ALWAYS; \
             changes since then were not logged",
        )
        .hint(context.way_out()))
}

/// Creates the truncate trigger on leaves that users attached. An earlier TRUNCATE of such a leaf is not in the change
/// log; verification finds the extra rows.
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
        statements.extend(b.key_tables.iter().flat_map(|k| triggers::on_attached(k, &leaf)));
        context
            .retrying(&format!("create the trigger for TRUNCATE on {}", leaf.plain()), async || {
                transaction(&context.control, READ_COMMITTED, async |client| all(client, &statements).await)
                    .await
            })
            .await?;
        context.events.note(PartitionNote::AttachedPartitionWatched { partition: leaf.plain() });
    }
    Ok(())
}
