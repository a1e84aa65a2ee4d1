//! The swap of the two columns, and the swap back: look who is in the way, then one message that locks, checks and exchanges
//! the names ([`crate::phase::job::exchange`]). Its row in `pgstrata.jobs` commits with it, so that after a lost connection the database says whether
//! it happened.

use std::time::Instant;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::{ColumnWork, LockWarning, StandbyEffect};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::plain;
use crate::model::number;
use crate::model::shell::word;
use crate::model::state::State;
use crate::model::verify_report::{Difference, VerifyReport};
use crate::pg::store;
use crate::phase::backfill;
use crate::phase::job::blockers::Asked;
use crate::phase::job::exchange::{Exchanger, Swapped};
use crate::phase::job::foreign_keys;
use crate::phase::job::foreign_keys::way_back;
use crate::phase::job::kind::differs;
use crate::phase::job::locks::{LockRetry, reach_standby};
use crate::phase::job::meter::Meter;
use crate::phase::job::old_snapshots::{ENOUGH_ROUNDS, LOCKS, Older};
use crate::plan::OldSnapshots;
use crate::sql::retype as sql;
use crate::sql::retype::exchange;

use super::level::{level, release, settle};
use super::{RetypeJob, compare, drift, objects, table};

/// So many keys are named in an error.
const NAMED: usize = 10;

/// Makes the new column the one in use: looks at every row once more, then exchanges the names.
///
/// # Errors
/// The job is not that far; or the lock could not be acquired within the plan's attempts: nothing was changed then.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "swap"))]
pub async fn swap(retyper: &RetypeJob) -> Result<Swapped> {
    match retyper.state() {
        State::Verified | State::RolledBack => {
            objects::in_place(retyper).await?;
            settle(retyper).await?;
            foreign_keys::hold(retyper, &retyper.retyping.keys).await?;
        }
        state => {
            return Err(Error::usage(format!(
                "job {} is {state}: not every row is filled yet",
                retyper.job.name
            ))
            .hint("`pgstrata run PLAN` goes on with it"));
        }
    }
    let client = &retyper.control;
    let set = backfill::look(&retyper.filler).await?;
    client.execute(sql::LEVEL_SINCE, &[&retyper.job.id, &(set > 0)]).await?;
    level(retyper, Direction::Forward).await?;
    let jobs = store::jobs(client, Some(&retyper.job.name)).await?;
    let since = jobs.into_iter().find(|job| job.id == retyper.job.id).and_then(|job| job.swap_xid);
    let since =
        since.ok_or_else(|| Error::failed("the job's record does not say since when rows are in sync"))?;
    exchanged(retyper, Direction::Forward, &since).await
}

/// Makes the old column the one in use again; nothing that was written meanwhile is lost.
///
/// # Errors
/// The job is not swapped; rows hold values that the old type does not; or the lock could not be acquired.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "rollback"))]
pub async fn rollback(retyper: &RetypeJob) -> Result<Swapped> {
    objects::in_place(retyper).await?;
    way_back(retyper, settle(retyper).await)?;
    let report = compare(retyper).await?;
    if report.missing > 0 {
        return Err(lost(retyper, &report));
    }
    if !report.verified {
        return Err(differs(&report));
    }
    let back = async {
        level(retyper, Direction::Reverse).await?;
        let now: String = retyper.control.query_one(sql::NOW, &[]).await?.get(0);
        exchanged(retyper, Direction::Reverse, &now).await
    };
    match back.await {
        Err(e) if e.retry_class() == Retry::Never => {
            // The old type's limits are the application's only if there is a way back.
            if let Err(more) = release(retyper, Direction::Reverse).await {
                let error = more.message().to_owned();
                retyper.events.warn(LockWarning::RollbackConstraintsLeft { error });
            }
            Err(e)
        }
        other => other,
    }
}

/// Rows that would have no value after the way back.
fn lost(retyper: &RetypeJob, report: &VerifyReport) -> Error {
    let r = &retyper.retyping;
    let rows = number::counted(report.missing, "row");
    let column = plain(r.column.name.as_str());
    let missing = report.examples.iter().filter(|one| one.kind == Difference::Missing);
    let keys: Vec<&str> = missing.take(NAMED).map(|one| one.key.as_str()).collect();
    Error::new(
        Kind::Differs,
        format!("{rows} of {} cannot go back: {column} has no {} for them", r.table.name.plain(), r.column.sql_type),
    )
    .cause(format!("by key: {}", keys.join("; ")))
    .hint(format!(
        "nothing was changed; change or delete these rows and roll back then, or keep the new type: `pgstrata finalize {}`",
        word(&retyper.job.name)
    ))
}

async fn exchanged(retyper: &RetypeJob, away: Direction, since: &str) -> Result<Swapped> {
    let r = &retyper.retyping;
    let (what, rollback) = match away {
        Direction::Forward => ("swap", false),
        Direction::Reverse => ("roll back", true),
    };
    let (source, target) = (plain(r.column.name.as_str()), plain(r.beside(away).as_str()));
    let work = ColumnWork::ExchangeColumns { table: r.table.name.plain(), source, target, rollback };
    let meter = Meter::begin(retyper, work);
    let ladder = LockRetry::on(retyper, r.locked());
    let exchanger = Exchanger::new(retyper, r.exchange_function(), r.definition_function());
    let exchange = exchange::exchange(r, away);
    let mut older = Older::new(retyper)?;
    older.since(since.to_owned()).await?;
    if retyper.plan.old_snapshots() != OldSnapshots::Accept {
        older.report_unknown_standbys(StandbyEffect::CanMissValues).await?;
    }
    let older = tokio::sync::Mutex::new(older);
    let begun = Instant::now();
    let attempt = async || {
        let oid = table(retyper).await?;
        let mut definition = exchanger.look(oid, oid).await?;
        while drift::carry(retyper, away, &definition.table).await? {
            definition = exchanger.look(oid, oid).await?;
        }
        backfill::in_force(&retyper.filler).await?;
        objects::in_place(retyper).await?;
        objects::counterparts(retyper, away).await?;
        proven(retyper, &retyper.control, away).await?;
        exchanger.ready(&exchange, Vec::new()).await?;
        none_older(retyper, &ladder, &mut *older.lock().await, begun).await?;
        ladder.look().await?;
        exchanger.send(&exchange, &definition, exchange::first_lock(r)).await
    };
    let ((_, held_ms), tries) =
        ladder.run(what, || retyper.go_on(), attempt).await.map_err(|e| explained(retyper, away, e))?;
    reach_standby(retyper).await?;
    exchanger.drop().await?;
    let swapped = Swapped { held_ms, tries };
    store::event(&retyper.control, retyper.job.id, &swapped.history()).await?;
    failpoint!("swap.told");
    meter.end(swapped.outcome());
    settle(retyper).await?;
    Ok(swapped)
}

/// Waits, where the plan says so, until nobody holds a snapshot in which a row lacks its second value.
async fn none_older(
    retyper: &RetypeJob,
    ladder: &LockRetry<'_>,
    older: &mut Older<'_>,
    begun: Instant,
) -> Result<()> {
    if retyper.plan.old_snapshots() == OldSnapshots::Accept {
        return Ok(());
    }
    let (mut looked, mut asked) = (Instant::now(), Asked::default());
    while older.rounds() < ENOUGH_ROUNDS {
        if older.look().await? {
            retyper.go_on()?;
            if begun.elapsed() >= retyper.plan.lock_budget().give_up_after {
                return Err(older.gave_up());
            }
            if looked.elapsed() > LOCKS {
                looked = Instant::now();
                ladder.cancel(&mut asked).await?;
            }
            older.nap().await;
        } else {
            older.again();
        }
    }
    Ok(())
}

/// The server would look at every row under the lock, where nothing proves that none lacks its value.
async fn proven(retyper: &RetypeJob, client: &Client, away: Direction) -> Result<()> {
    let Some((proof, _)) = sql::add_proof(&retyper.retyping, away) else { return Ok(()) };
    let rows = client.query(sql::CHECKS, &[&table(retyper).await?]).await?;
    if rows.iter().any(|row| row.get::<_, &str>(0) == proof.as_str() && row.get(1)) {
        return Ok(());
    }
    Err(Error::failed(format!("constraint {} is gone or not valid", proof.as_str()))
        .hint("somebody dropped it; run the same command again, which makes it anew"))
}

fn explained(retyper: &RetypeJob, away: Direction, error: Error) -> Error {
    let passed = error.is_any(&[&SqlState::INVALID_PARAMETER_VALUE, &SqlState::NUMERIC_VALUE_OUT_OF_RANGE]);
    match &retyper.retyping.counter {
        Some(counter) if away == Direction::Reverse && passed => error.hint(format!(
            "sequence {} has passed the end of the old type; set it back if its numbers are free, or finalize",
            counter.name.plain()
        )),
        _ => error,
    }
}
