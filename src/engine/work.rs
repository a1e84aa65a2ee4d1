//! What a command does with a job that it drives, and what it says where there is nothing to do.

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::model::design::Design;
use crate::model::shell::word;
use crate::model::state::State;
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::store::Job;
use crate::phase::fill::{self, Filler};
use crate::phase::retype::{self, Retyper};
use crate::phase::{self, Context, Driver};
use crate::plan::{Plan, Task, changed};

use super::Outcome;

/// Whether a finalized job's plan is the one given, and there is nothing to do for it: the table is still the partitioned one
/// that it made, or no row is meant to be filled.
pub(super) async fn still_done(session: &Session, plan: &Plan, job: &Job) -> Result<bool> {
    if !changed(&job.identity, &plan.identity()).is_empty() {
        return Ok(false);
    }
    let Some(oid) = catalog::find(session, plan.table()).await? else { return Ok(false) };
    match &job.design {
        Design::Partition(_) => Ok(catalog::table(session, oid).await?.relkind == "p"),
        Design::Backfill(filling) => Ok(!fill::any_meant(session, filling).await?),
        Design::Retype(r) => {
            let table = catalog::table(session, oid).await?;
            Ok(table.column(&r.column.name).is_some_and(|c| c.sql_type == r.new_type))
        }
    }
}

pub(super) fn done_already(plan: &Plan, job: &Job) -> String {
    match plan.task() {
        Task::Partition(_) => format!("job {} is done: {} is partitioned", job.name, job.source),
        Task::Retype(retype) => {
            let column = crate::model::ident::plain(&retype.column);
            format!("job {} is done: {column} of {} is {}", job.name, job.source, retype.to)
        }
        Task::Backfill(_) => format!("job {} is done: no row of {} is left to fill", job.name, job.source),
    }
}

/// Phase after phase, to the last.
pub(super) async fn up_to_filled(filler: &Filler) -> Result<Outcome> {
    while fill::next(filler).await?.is_some() {
        filler.go_on()?;
    }
    Ok(Outcome::at(filler.state()))
}

/// Phase after phase, to where every row has both values; and the swap if asked for.
pub(super) async fn up_to_level(retyper: &Retyper, swap: bool) -> Result<Outcome> {
    while retype::next(retyper).await?.is_some() {
        retyper.go_on()?;
    }
    match retyper.state() {
        State::Verified | State::RolledBack if swap => retype::swap(retyper).await.map(Outcome::of),
        state => {
            retype::settle(retyper).await?;
            Ok(Outcome::at(state))
        }
    }
}

/// Whether the rollback window may be closed.
pub(super) fn may_finalize(driver: &Driver, now: bool, kept: &str) -> Result<()> {
    let (name, state) = (&driver.job.name, driver.state());
    if state != State::Swapped {
        return Err(Error::usage(format!("job {name} is {state}: only a swapped job can be finalized"))
            .hint(format!("`pgstrata status {}` says what comes next", word(name))));
    }
    match driver.job.keep_old_until.filter(|until| !now && *until > clock::now()) {
        None => Ok(()),
        Some(until) => {
            let until = until.format("%Y-%m-%d %H:%M UTC");
            Err(Error::new(Kind::Stopped, format!("the old {kept} is kept until {until}, as the plan says"))
                .hint(format!("to drop it now: `pgstrata finalize --now {}`", word(name))))
        }
    }
}

/// Phase after phase, then the comparison; and the swap if asked for.
pub(super) async fn up_to_verified(context: &Context, swap: bool) -> Result<Outcome> {
    while phase::next(context).await?.is_some() {
        context.go_on()?;
    }
    match context.state() {
        State::Swapped => {
            phase::sync(context).await?;
            Ok(Outcome::at(State::Swapped))
        }
        State::Finalized | State::Aborted => Ok(Outcome::at(context.state())),
        _ if swap => verified_and_swapped(context).await,
        _ => {
            let (state, _, report) = phase::verify(context).await?;
            context.reached(state);
            Ok(Outcome { state, report: Some(report), swapped: None })
        }
    }
}

pub(super) async fn verified_and_swapped(context: &Context) -> Result<Outcome> {
    // What the swap before this one left open would look like a change of the table.
    phase::settle_before_exchange(context).await?;
    let (state, proof, report) = phase::verify(context).await?;
    context.reached(state);
    let (state, swapped) = phase::swap(context, proof).await?;
    phase::settle(context).await?;
    phase::compare_by_name(context).await?;
    Ok(Outcome { state, report: Some(report), swapped: Some(swapped) })
}

pub(super) fn at_least_synced(context: &Context) -> Result<()> {
    match context.state() {
        State::Synced | State::Verified | State::Swapped | State::RolledBack => Ok(()),
        state => {
            Err(Error::usage(format!("job {} is {state}: the copy is not complete yet", context.job.name))
                .hint("`pgstrata run PLAN` goes on with it"))
        }
    }
}
