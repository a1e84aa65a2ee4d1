//! The swap and the swap back: drain until little is left, look who is in the way, then one message that locks, checks and
//! exchanges the names ([`super::exchange`]). Its row in `pgstrata.jobs` commits with it, so that after a lost connection the
//! database says whether it happened.

use std::time::{Duration, Instant};

use crate::error::{Error, Result, Retry};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::QualifiedName;
use crate::model::state::State;
use crate::pg::transaction::READ_COMMITTED;
use crate::pg::{catalog, store};
use crate::plan::OldSnapshots;
use crate::sql::exchange::{Exchange, Refused};
use crate::sql::swap::Guard;
use crate::sql::{locks as locks_sql, swap as sql};

use super::context::PartitionJob;
use super::cutover::Way;
use super::exchange::{Definition, Exchanger, refused};
use super::meter::Meter;
use super::verify::Verified;
use super::{additions, capture, drift, locks, mirror, objects};

/// How long the end of a swap waits for older snapshots before it leaves the guard to a later command.
const GUARD_WAITS: Duration = Duration::from_secs(5);
/// How long a later command waits for them: sessions that a driver before this one left behind are just ending.
pub(super) const LATER_GUARD_WAITS: Duration = Duration::from_secs(1);

/// What a swap took.
#[derive(Debug, Clone, Copy)]
pub struct Swapped {
    /// Milliseconds from the first exclusive lock to the commit's return.
    pub held_ms: f64,
    /// Tries it took.
    pub tries: u32,
}

impl Swapped {
    /// In words, for the end of the phase.
    pub(super) fn told(&self) -> String {
        let at =
            if self.tries == 1 { "the first attempt".to_owned() } else { format!("attempt {}", self.tries) };
        format!("the lock was held for {:.0} ms, at {at}", self.held_ms)
    }
}

/// Exchanges the names: forward from a verified job, or back from a swapped one.
///
/// # Errors
/// Lock where it was not to be had within the plan's attempts: the source is untouched, capture goes on.
pub async fn swap(context: &PartitionJob, _proof: Verified) -> Result<Swapped> {
    let away = context.direction();
    let b = context.blueprint();
    let phase = match away {
        Direction::Forward => "swap",
        Direction::Reverse => "rollback",
    };
    let about = format!("exchanging {} and {}", b.sides(away).source.plain(), b.sides(away).target.plain());
    let mut meter = Meter::begin(context, phase, about);
    meter.count("changes", 0, 0);
    let exchanger = Exchanger::new(context, b.exchange_function(), b.definition_function());
    let way = tokio::sync::Mutex::new(Way::begin(context, &meter, away).await?);
    let exchanged = locks::patiently(context, &b, phase, async || {
        let mut way = way.lock().await;
        loop {
            let ready = ready(context, &exchanger, away).await?;
            let partitions = context.blueprint().partitions.len();
            way.clear().await?;
            if context.blueprint().partitions.len() != partitions {
                continue; // Pending rows needed others: they are not in what was made ready.
            }
            locks::look_patiently(context, &b, away).await?;
            match exchange(context, &exchanger, away, &ready).await {
                // A change came in before the lock: it is drained, and no snapshot may be older than that.
                Err(e) if refused(&e) == Some(Refused::LogNotEmpty) => {}
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

/// Switches the mirror off; where that fails, the next command does it, and the mirror ends by itself before long.
async fn end_mirror(context: &PartitionJob) {
    if let Err(e) = mirror::off(context).await {
        context.events.warn(format!("the mirror could not be switched off: {}", e.message()));
    }
}

/// An exchange that is ready to be sent.
struct Ready {
    definition: Definition,
    exchange: Exchange,
}

/// Looks whether everything is as it must be, and creates the function. Nothing is locked.
async fn ready(context: &PartitionJob, exchanger: &Exchanger<'_>, away: Direction) -> Result<Ready> {
    let client = &context.control;
    capture::in_force(context).await?;
    objects::names_move(context, away).await?;
    // After a rollback, what stands on it may have come while it was in use.
    if context.state() == State::Verified {
        additions::none_on_target(context).await?;
    }
    let sides = context.blueprint().sides(away);
    let source = catalog::must_find(client, &sides.source).await?;
    let target = catalog::must_find(client, &sides.target).await?;
    let partitioned = if away == Direction::Forward { target } else { source };
    let mut definition = exchanger.look(source, partitioned).await?;
    while drift::carry(context, away, &definition, target).await? {
        definition = exchanger.look(source, partitioned).await?;
    }
    let b = context.blueprint();
    let moved = definition.leaves.iter().filter(|leaf| away == Direction::Forward || leaf.keys > 0);
    let leaves: Vec<QualifiedName> = moved.map(|leaf| leaf.name.clone()).collect();
    let guard = match context.plan.old_snapshots() {
        OldSnapshots::Accept => Guard::EveryWrite,
        OldSnapshots::Wait | OldSnapshots::Cancel => Guard::Serializable,
    };
    let exchange = sql::exchange(&b, away, &leaves, guard);
    exchanger.ready(&exchange, sql::guard_function(&b)).await?;
    Ok(Ready { definition, exchange })
}

/// Exchanges the names, where everything is drained.
///
/// # Errors
/// Again where a lock was not granted in time or, which [`exchange::refused`] tells, a change is pending.
async fn exchange(
    context: &PartitionJob,
    exchanger: &Exchanger<'_>,
    away: Direction,
    ready: &Ready,
) -> Result<(State, f64)> {
    let first = sql::first_lock(&context.blueprint(), away);
    exchanger.send(&ready.exchange, &ready.definition, first).await
}

async fn finish(context: &PartitionJob, meter: &Meter<'_>, swapped: Swapped) -> Result<Swapped> {
    let Swapped { held_ms, tries } = swapped;
    store::event(&context.control, context.job.id, "lock held", &format!("{held_ms:.1} ms, attempt {tries}"))
        .await?;
    failpoint!("swap.told");
    meter.end(swapped.told());
    end_guard(context, GUARD_WAITS).await?;
    Ok(swapped)
}

/// Drops the guard as soon as nobody holds a snapshot older than the swap. Where somebody does for longer than `wait`, it stays.
///
/// # Errors
/// What the server said.
pub async fn end_guard(context: &PartitionJob, wait: Duration) -> Result<()> {
    let deadline = Instant::now() + wait;
    while !drop_guard(context).await? && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Drops the guard, if nobody holds a snapshot older than the swap; whether it is gone.
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
        // A session that cannot even roll back is broken, and the next statement will show that.
        let _ = client.batch_execute("rollback").await;
    }
    failpoint!("guard.dropped");
    match dropped {
        Ok(()) => Ok(true),
        Err(e) if e.retry_class() == Retry::Again => Ok(false),
        Err(e) => Err(e),
    }
}
