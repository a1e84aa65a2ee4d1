//! Swaps the two tables, or rolls the swap back: drains until few changes are left, checks for blockers, then sends one
//! message that locks, checks and exchanges the names ([`crate::phase::job::exchange`]). The same transaction updates
//! the job's row in `pgstrata.jobs`, so that after a lost connection the database shows whether the exchange took
//! place.

use crate::error::Result;
use crate::event::{LockWarning, TableWork};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::QualifiedName;
use crate::model::state::State;
use crate::pg::{catalog, store};
use crate::phase::job::exchange::{Definition, Exchanger, Swapped, failed_check};
use crate::phase::job::kind::reported_only;
use crate::phase::job::meter::Meter;
use crate::phase::partition::cutover::ExchangeProgress;
use crate::phase::partition::guard::{GUARD_WAITS, end_guard};
use crate::phase::partition::verify::Verified;
use crate::phase::partition::{PartitionJob, additions, capture, drift, locks, mirror, not_null, objects};
use crate::plan::OldSnapshots;
use crate::sql::exchange::{Exchange, FailedCheck};
use crate::sql::swap as sql;
use crate::sql::swap::Guard;

/// Exchanges the names: swaps a verified job, or rolls back a swapped one.
///
/// # Errors
/// A lock error if the lock could not be acquired within the plan's attempts. In that case, the source is unchanged and
/// changes are still captured.
pub async fn swap(context: &PartitionJob, _proof: Verified) -> Result<Swapped> {
    let ending = context.direction();
    let b = context.blueprint();
    let sides = b.sides(ending);
    let (source, target) = (sides.source.plain(), sides.target.plain());
    let rollback = ending == Direction::Reverse;
    let mut meter = Meter::begin(context, TableWork::ExchangeTables { source, target, rollback });
    meter.count("changes", 0, 0);
    let exchanger = Exchanger::new(context, b.exchange_function(), b.definition_function());
    let way = tokio::sync::Mutex::new(ExchangeProgress::begin(context, &meter, ending).await?);
    let what = if rollback { "roll back" } else { "swap" };
    let exchanged = locks::patiently(context, &b, what, async || {
        let mut way = way.lock().await;
        loop {
            let ready = ready(context, &exchanger, ending).await?;
            let prepared = context.blueprint();
            way.clear().await?;
            if context.blueprint() != prepared {
                continue; // A drain created partitions or left out a CHECK, which the prepared exchange does not include.
            }
            locks::look_patiently(context, &b, ending).await?;
            match exchange(context, &exchanger, ending, &ready).await {
                // A change was logged before the lock was acquired. Drain it, and wait for older snapshots again.
                Err(e) if failed_check(&e) == Some(FailedCheck::LogNotEmpty) => {}
                other => return other,
            }
        }
    })
    .await;
    if exchanged.is_err() {
        end_mirror(context).await;
    }
    let ((_, held_ms), tries) = exchanged?;
    exchanger.drop().await?;
    finish(context, &meter, Swapped { held_ms, tries }).await
}

/// Switches the mirror off. If that fails, the next command switches it off; it also expires by itself.
async fn end_mirror(context: &PartitionJob) {
    if let Err(e) = mirror::off(context).await {
        context.events.warn(LockWarning::MirrorStillOn { error: e.message().to_owned() });
    }
}

/// An exchange that is ready to send.
struct Ready {
    definition: Definition,
    exchange: Exchange,
}

/// Checks the conditions of an exchange, and creates its function. Holds no lock.
async fn ready(context: &PartitionJob, exchanger: &Exchanger<'_>, ending: Direction) -> Result<Ready> {
    let client = &context.control;
    capture::in_force(context).await?;
    objects::names_move(context, ending).await?;
    if ending == Direction::Forward {
        additions::none_on_target(context).await?;
    }
    let (definition, target) = carried_over(context, exchanger, ending).await?;
    if ending == Direction::Forward {
        not_null::is_in_force(context, &definition.table).await?;
    }
    let b = context.blueprint();
    drift::nothing_is_missing(&b, ending, &catalog::table(client, target).await?)?;
    drift::nothing_changed_its_meaning(client, &b, ending, [definition.table.oid, target]).await?;
    let moved = definition.leaves.iter().filter(|leaf| ending == Direction::Forward || leaf.keys > 0);
    let leaves: Vec<QualifiedName> = moved.map(|leaf| leaf.name.clone()).collect();
    let guard = match context.plan.old_snapshots() {
        OldSnapshots::Accept => Guard::EveryWrite,
        OldSnapshots::Wait | OldSnapshots::Cancel => Guard::Serializable,
    };
    let removed = not_null::removal(context, ending).await?;
    let exchange = sql::exchange(&b, ending, &leaves, guard, removed);
    exchanger.ready(&exchange, sql::guard_function(&b)).await?;
    Ok(Ready { definition, exchange })
}

/// Carries over changes to the table in use without an exchange, so that a privilege that was revoked on it is also
/// revoked on the inactive table. Changes that cannot be carried over are reported; the next exchange fails because of
/// them.
///
/// # Errors
/// A lock could not be acquired; or the connection was lost.
pub async fn carry_over(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let exchanger = Exchanger::new(context, b.exchange_function(), b.definition_function());
    let carried = carried_over(context, &exchanger, context.direction()).await.map(drop);
    exchanger.drop().await?;
    reported_only(context, carried)
}

/// Carries over changes to the table in use; returns its definition, and the oid of the inactive table.
async fn carried_over(
    context: &PartitionJob,
    exchanger: &Exchanger<'_>,
    ending: Direction,
) -> Result<(Definition, u32)> {
    let sides = context.blueprint().sides(ending);
    let source = catalog::must_find(&context.control, &sides.source).await?;
    let target = catalog::must_find(&context.control, &sides.target).await?;
    let partitioned = if ending == Direction::Forward { target } else { source };
    let mut definition = exchanger.look(source, partitioned).await?;
    while drift::carry(context, ending, &definition, target).await? {
        definition = exchanger.look(source, partitioned).await?;
    }
    Ok((definition, target))
}

/// Sends the exchange.
///
/// # Errors
/// A retryable error if a lock was not granted in time or, according to [`failed_check`], a change is pending.
async fn exchange(
    context: &PartitionJob,
    exchanger: &Exchanger<'_>,
    ending: Direction,
    ready: &Ready,
) -> Result<(State, f64)> {
    let first = sql::first_lock(&context.blueprint(), ending);
    exchanger.send(&ready.exchange, &ready.definition, first).await
}

async fn finish(context: &PartitionJob, meter: &Meter<'_>, swapped: Swapped) -> Result<Swapped> {
    store::event(&context.control, context.job.id, &swapped.history()).await?;
    failpoint!("swap.recorded");
    meter.end(swapped.outcome());
    end_guard(context, GUARD_WAITS).await?;
    Ok(swapped)
}
