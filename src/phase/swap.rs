//! The swap and the swap back: drain until little is left, look who is in the way, then one short transaction that locks,
//! checks, drains the rest and exchanges the names. Its row in `pgstrata.jobs` commits with it, so that after a lost
//! connection the database says whether it happened.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Error, Result, Retry};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::QualifiedName;
use crate::model::state::{State, Step};
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, store};
use crate::sql::swap::LockOrder;
use crate::sql::{catalog as catalog_sql, drain as drain_sql, store as store_sql, swap as sql};

use super::context::Context;
use super::meter::Meter;
use super::verify::Verified;
use super::{capture, drain, locks, partitions, settle};

/// The whole transaction may hold its locks for this long; a rest that takes longer to drain lets go and tries again.
const BUDGET_MS: u32 = 2_000;
/// A log longer than this many blocks (8 MiB), although drained, is shortened before the lock: the last drain reads it all.
const LONG_LOG_BLOCKS: i64 = 1_024;
/// A statement's first plan is its last, whatever its values.
const KEEP_PLANS: &str = "set local plan_cache_mode = force_generic_plan";
/// How long the end of a swap waits for older snapshots before it leaves the guard to a later command.
const GUARD_WAITS: Duration = Duration::from_secs(5);

/// What a swap took.
#[derive(Debug, Clone, Copy)]
pub struct Swapped {
    /// Milliseconds from the first exclusive lock to the commit's return.
    pub held_ms: f64,
    /// Tries it took.
    pub tries: u32,
}

/// Exchanges the names: forward from a verified job, or back from a swapped one.
///
/// # Errors
/// Lock where it was not to be had within the plan's attempts: the source is untouched, capture goes on.
pub async fn swap(context: &Context, _proof: Verified) -> Result<(State, Swapped)> {
    let away = context.direction();
    let b = context.blueprint();
    let (phase, step) = match away {
        Direction::Forward => ("swap", Step::Swap),
        Direction::Reverse => ("rollback", Step::Rollback),
    };
    let about = format!("exchanging {} and {}", b.sides(away).source.plain(), b.sides(away).target.plain());
    let mut meter = Meter::begin(context, phase, about);
    meter.count("changes", 0, 0);
    let order = Cell::new(LockOrder::DependentsFirst);
    let ((state, held_ms), tries) = locks::patiently(context, &b, phase, async || {
        drain::level(context, &meter).await?;
        shorten_log(context, &b).await?;
        unlocked_drift(context, &b, away).await?;
        locks::look(context, &b, away).await?;
        drain::rest(context).await?;
        let order = order.replace(order.get().turn());
        match exchange(context, &b, away, step, order).await {
            // The drain before the next attempt makes its partition.
            Err(e) if partitions::lacks_partition(&e) => Err(e.retry(Retry::Again)),
            other => other,
        }
    })
    .await?;
    finish(context, &meter, state, Swapped { held_ms, tries }).await
}

/// [`drift`] before the lock. It also leaves its statement planned for the look under the lock: planned there, applications
/// would wait for that longer than for all the rest.
async fn unlocked_drift(context: &Context, b: &Blueprint, away: Direction) -> Result<()> {
    transaction(&context.control, READ_COMMITTED, async |client| {
        client.batch_execute(KEEP_PLANS).await?;
        drift(context, b, away).await
    })
    .await
}

/// Fails where the table in use is no longer what the job was planned from.
async fn drift(context: &Context, b: &Blueprint, away: Direction) -> Result<()> {
    let client = &context.control;
    let sides = b.sides(away);
    let statement = context.prepared(&catalog_sql::table()).await?;
    let source =
        catalog::table_by(client, &statement, catalog::must_find(client, &sides.source).await?).await?;
    let found = match away {
        Direction::Forward => b.table.drift(&source),
        Direction::Reverse => b.table.drift_since_swap(&source, &b.incoming_dropped),
    };
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "{} is no longer what this job was planned from: {}",
        sides.source.plain(),
        found.join("; ")
    ))
    .hint(match away {
        Direction::Forward => {
            "undo the change, or abort the job and run it again from the new definition; nothing was swapped"
        }
        Direction::Reverse => {
            "undo the change and roll back then; or keep the partitioned table, and finalize"
        }
    }))
}

async fn shorten_log(context: &Context, b: &Blueprint) -> Result<()> {
    let blocks: i64 = context.control.query_one(&drain_sql::pending(b), &[]).await?.get(0);
    if blocks > LONG_LOG_BLOCKS {
        context.control.batch_execute(&drain_sql::vacuum_log(b, true)).await?;
    }
    Ok(())
}

/// The transaction.
async fn exchange(
    context: &Context,
    b: &Blueprint,
    away: Direction,
    step: Step,
    order: LockOrder,
) -> Result<(State, f64)> {
    let client = &context.control;
    let held = Cell::new(Instant::now());
    let state = transaction(client, READ_COMMITTED, async |client| {
        locks::begin(context, client, b, away).await?;
        client.batch_execute(&format!("set local statement_timeout = {BUDGET_MS}; {KEEP_PLANS}")).await?;
        held.set(Instant::now());
        all(client, &sql::locks(b, away, order)).await?;
        failpoint!("swap.locked");
        let leaves = checks_under_lock(context, client, b, away).await?;
        all(client, &sql::further_locks(b, away, &leaves)).await?;
        drain::drain_visible(context, b, away, None).await?;
        if client.query_one(&drain_sql::pending(b), &[]).await?.get(1) {
            return Err(Error::failed("changes are pending although the table is locked").retry(Retry::Again));
        }
        failpoint!("swap.drained");
        all(client, &sql::statements(b, away, &leaves)).await?;
        let keep_s = context.plan.keep_old().as_secs_f64();
        let forward = away == Direction::Forward;
        client.execute(store_sql::RECORD_SWAP, &[&context.job.id, &forward, &keep_s]).await?;
        let state = context.advance(client, step).await?;
        failpoint!("swap.before_commit");
        Ok(state)
    })
    .await?;
    let held_ms = held.get().elapsed().as_secs_f64() * 1000.0;
    context.reached(state);
    failpoint!("swap.done");
    Ok((state, held_ms))
}

/// What may have changed since the look before the lock; the leaves whose foreign keys the swap moves. Cheap: everybody
/// waits for us now.
async fn checks_under_lock(
    context: &Context,
    client: &Client,
    b: &Blueprint,
    away: Direction,
) -> Result<Vec<QualifiedName>> {
    let lease = context.hold_epoch(client);
    let leaves = settle::leaves(client, b, away);
    let ((), (), (), leaves) =
        tokio::try_join!(lease, drift(context, b, away), capture::in_force(context), leaves)?;
    Ok(leaves)
}

async fn finish(
    context: &Context,
    meter: &Meter<'_>,
    state: State,
    swapped: Swapped,
) -> Result<(State, Swapped)> {
    let Swapped { held_ms, tries } = swapped;
    store::event(&context.control, context.job.id, "lock held", &format!("{held_ms:.1} ms, attempt {tries}"))
        .await?;
    failpoint!("swap.told");
    let at = if tries == 1 { "the first attempt".to_owned() } else { format!("attempt {tries}") };
    meter.end(format!("the lock was held for {held_ms:.0} ms, at {at}"));
    let deadline = Instant::now() + GUARD_WAITS;
    while !drop_guard(context).await? && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok((state, swapped))
}

/// Drops the guard once nobody holds a snapshot older than the swap; whether it is gone.
///
/// # Errors
/// What the server said.
pub async fn drop_guard(context: &Context) -> Result<bool> {
    let client = &context.control;
    let table = context.blueprint().table.name;
    let oid = catalog::must_find(client, &table).await?;
    if !client.query_one(sql::GUARDED, &[&oid]).await?.get::<_, bool>(0) {
        return Ok(true);
    }
    let jobs = store::jobs(client, Some(&context.job.name)).await?;
    let Some(xid) = jobs.into_iter().find(|j| j.id == context.job.id).and_then(|j| j.swap_xid) else {
        return Ok(true);
    };
    if client.query_one(sql::OLDER_SNAPSHOT, &[&xid]).await?.get(0) {
        return Ok(false);
    }
    let timeout = format!("set local lock_timeout = {}", context.plan.lock_timeout().as_millis());
    let dropped = transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&timeout).await?;
        Ok(client.batch_execute(&sql::drop_guard(&table)).await?)
    })
    .await;
    failpoint!("guard.dropped");
    match dropped {
        Ok(()) => Ok(true),
        Err(e) if e.retry_class() == Retry::Again => Ok(false),
        Err(e) => Err(e),
    }
}
