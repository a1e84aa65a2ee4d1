//! Swaps the two columns, or rolls the swap back: checks for blockers, then sends one message that locks, checks and
//! exchanges the names ([`crate::phase::job::exchange`]). The same transaction updates the job's row in
//! `pgstrata.jobs`, so that after a lost connection the database shows whether the exchange took place.

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
use crate::model::verify_report::{MismatchKind, VerifyReport};
use crate::pg::{catalog, store};
use crate::phase::backfill;
use crate::phase::job::blockers::Asked;
use crate::phase::job::exchange::{Exchanger, Swapped};
use crate::phase::job::foreign_keys;
use crate::phase::job::foreign_keys::ignore_lock_error_on_rollback;
use crate::phase::job::kind::differs;
use crate::phase::job::locks::{LockRetry, reach_standby};
use crate::phase::job::meter::Meter;
use crate::phase::job::old_snapshots::{ENOUGH_ROUNDS, LOCKS, SnapshotWait};
use crate::plan::OldSnapshots;
use crate::sql::retype as sql;
use crate::sql::retype::{exchange, rebound as rebound_sql};

use super::counterparts::{build_missing, complete_exchange, release};
use super::{RetypeJob, compare, drift, objects, table};

/// The number of keys that an error names.
const NAMED: usize = 10;

/// Swaps the columns: checks every row again, then exchanges the names.
///
/// # Errors
/// The job is not ready; or the lock could not be acquired within the plan's attempts. In that case, nothing was
/// changed.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "swap"))]
pub async fn swap(retyper: &RetypeJob) -> Result<Swapped> {
    match retyper.state() {
        State::Verified | State::RolledBack => {
            objects::in_place(retyper).await?;
            complete_exchange(retyper).await?;
            foreign_keys::check_violations(retyper, &retyper.retyping.keys).await?;
        }
        state => {
            return Err(Error::usage(format!(
                "job {} is {state}: not every row is filled",
                retyper.job.name
            ))
            .hint("`pgstrata run PLAN` continues it"));
        }
    }
    let client = &retyper.control;
    let filled = backfill::check_every_row(&retyper.filler).await?;
    client.execute(sql::IN_SYNC_SINCE, &[&retyper.job.id, &(filled > 0)]).await?;
    build_missing(retyper, Direction::Forward).await?;
    let jobs = store::jobs(client, Some(&retyper.job.name)).await?;
    let since = jobs.into_iter().find(|job| job.id == retyper.job.id).and_then(|job| job.swap_xid);
    let since = since.ok_or_else(|| {
        Error::failed(
            "the job has no record of the time since when rows are in \
            sync",
        )
    })?;
    exchanged(retyper, Direction::Forward, &since).await
}

/// Rolls the swap back without losing writes.
///
/// # Errors
/// The job is not swapped; rows have values that the old type cannot represent; or the lock could not be acquired.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "rollback"))]
pub async fn rollback(retyper: &RetypeJob) -> Result<Swapped> {
    objects::in_place(retyper).await?;
    ignore_lock_error_on_rollback(retyper, complete_exchange(retyper).await)?;
    let report = compare(retyper).await?;
    if report.missing > 0 {
        return Err(not_convertible(retyper, &report));
    }
    if !report.verified {
        return Err(differs(&report));
    }
    let back = async {
        build_missing(retyper, Direction::Reverse).await?;
        let now: String = retyper.control.query_one(sql::NOW, &[]).await?.get(0);
        exchanged(retyper, Direction::Reverse, &now).await
    };
    match back.await {
        Err(e) if e.retry_class() == Retry::Never => {
            // The rollback is not possible, so the limits of the old type must not apply to the application.
            if let Err(more) = release(retyper, Direction::Reverse).await {
                let error = more.message().to_owned();
                retyper.events.warn(LockWarning::RollbackConstraintsLeft { error });
            }
            Err(e)
        }
        other => other,
    }
}

/// The error for rows that would have no value in the column after a rollback.
fn not_convertible(retyper: &RetypeJob, report: &VerifyReport) -> Error {
    let r = &retyper.retyping;
    let rows = number::counted(report.missing, "row");
    let column = plain(r.column.name.as_str());
    let missing = report.examples.iter().filter(|one| one.kind == MismatchKind::Missing);
    let keys: Vec<&str> = missing.take(NAMED).map(|one| one.key.as_str()).collect();
    Error::new(
        Kind::Differs,
        format!(
            "{rows} of {} cannot be converted back to type {} in column {column}",
            r.table.name.plain(),
            r.column.sql_type
        ),
    )
    .cause(format!("by key: {}", keys.join("; ")))
    .hint(format!(
        "nothing was changed; change or delete these rows, then roll back; or keep the new type: \
         `pgstrata finalize --now {}`",
        word(&retyper.job.name)
    ))
}

async fn exchanged(retyper: &RetypeJob, ending: Direction, since: &str) -> Result<Swapped> {
    let r = &retyper.retyping;
    let (what, rollback) = match ending {
        Direction::Forward => ("swap", false),
        Direction::Reverse => ("roll back", true),
    };
    let (source, target) = (plain(r.column.name.as_str()), plain(r.shadow(ending).as_str()));
    let work = ColumnWork::ExchangeColumns { table: r.table.name.plain(), source, target, rollback };
    let meter = Meter::begin(retyper, work);
    let rebound = catalog::rebound(&retyper.control, table(retyper).await?, &r.column.name).await?;
    let lock_retry = LockRetry::on(retyper, r.as_now(&r.table, &rebound).locked_with_rebound());
    let exchanger = Exchanger::new(retyper, r.exchange_function(), r.definition_function())
        .with_rebound(rebound_sql::objects(&r.column.name));
    let mut older = SnapshotWait::new(retyper)?;
    older.since(since.to_owned()).await?;
    if retyper.plan.old_snapshots() != OldSnapshots::Accept {
        older.report_unknown_standbys(StandbyEffect::CanMissValues).await?;
    }
    let older = tokio::sync::Mutex::new(older);
    let begun = Instant::now();
    let attempt = async || {
        let oid = table(retyper).await?;
        let mut definition = exchanger.look(oid, oid).await?;
        while drift::carry(retyper, ending, &definition.table).await? {
            definition = exchanger.look(oid, oid).await?;
        }
        backfill::in_force(&retyper.filler).await?;
        objects::in_place(retyper).await?;
        objects::counterparts(retyper, ending).await?;
        check_proof(retyper, &retyper.control, ending).await?;
        let exchange = exchange::exchange(&r.as_now(&definition.table, &definition.rebound), ending);
        exchanger.ready(&exchange, Vec::new()).await?;
        wait_for_snapshots(retyper, &lock_retry, &mut *older.lock().await, begun).await?;
        lock_retry.look().await?;
        exchanger.send(&exchange, &definition, exchange::first_lock(r)).await
    };
    let ((_, held_ms), tries) = lock_retry
        .run(what, || retyper.check_stop(), attempt)
        .await
        .map_err(|e| explained(retyper, ending, e))?;
    reach_standby(retyper).await?;
    exchanger.drop().await?;
    let swapped = Swapped { held_ms, tries };
    store::event(&retyper.control, retyper.job.id, &swapped.history()).await?;
    failpoint!("swap.recorded");
    meter.end(swapped.outcome());
    complete_exchange(retyper).await?;
    Ok(swapped)
}

/// Waits, if the plan requires it, until no session holds a snapshot that was taken before every row was in sync.
async fn wait_for_snapshots(
    retyper: &RetypeJob,
    lock_retry: &LockRetry<'_>,
    older: &mut SnapshotWait<'_>,
    begun: Instant,
) -> Result<()> {
    if retyper.plan.old_snapshots() == OldSnapshots::Accept {
        return Ok(());
    }
    let (mut looked, mut asked) = (Instant::now(), Asked::default());
    while older.rounds() < ENOUGH_ROUNDS {
        if older.look().await? {
            retyper.check_stop()?;
            if begun.elapsed() >= retyper.plan.lock_budget().give_up_after {
                return Err(older.gave_up());
            }
            if looked.elapsed() > LOCKS {
                looked = Instant::now();
                lock_retry.cancel(&mut asked).await?;
            }
            older.nap().await;
        } else {
            older.again();
        }
    }
    Ok(())
}

/// Fails if the constraint that proves NOT NULL is missing or not valid: without it, the server would check every row
/// under the lock.
async fn check_proof(retyper: &RetypeJob, client: &Client, ending: Direction) -> Result<()> {
    let Some((proof, _)) = sql::add_proof(&retyper.retyping, ending) else { return Ok(()) };
    let rows = client.query(sql::CHECKS, &[&table(retyper).await?]).await?;
    if rows.iter().any(|row| row.get::<_, &str>(0) == proof.as_str() && row.get(1)) {
        return Ok(());
    }
    let table = retyper.retyping.table.name.plain();
    Err(Error::failed(format!("NOT NULL check {} on {table} is missing or not valid", proof.as_str()))
        .hint("run the same command again: it creates and validates it"))
}

fn explained(retyper: &RetypeJob, ending: Direction, error: Error) -> Error {
    let passed = error.is_any(&[&SqlState::INVALID_PARAMETER_VALUE, &SqlState::NUMERIC_VALUE_OUT_OF_RANGE]);
    match &retyper.retyping.counter {
        Some(counter) if ending == Direction::Reverse && passed => error.hint(format!(
            "the last value of sequence {} exceeds the maximum of the old type: set it to an unused value with setval(), or keep \
             the new type: `pgstrata finalize --now {}`",
            counter.name.plain(),
            word(&retyper.job.name)
        )),
        _ => error,
    }
}
