//! A column type change, from its first lock to the last. Start reading here.
//!
//! ```text
//! planned -prepare-> prepared -capture-> capturing -pass-> filled -index-> indexed -verify-> verified -swap-> swapped
//!         -finalize-> finalized
//! swapped -rollback-> rolled_back -swap-> swapped
//! any state before the swap: -abort-> aborted
//! ```
//!
//! The new column is in the same rows as the old one: a trigger sets both in the same row version whenever the
//! application writes a row. The job only has to fill rows that were written before the trigger existed. The swap
//! exchanges the names of the columns.
//!
//! A snapshot that was taken before every row was in sync sees row versions without a value in the new column. After
//! the swap, such a transaction would read wrong data. The swap therefore waits until no such snapshot exists, as the
//! server does before it uses a new index.

mod compare;
mod counterparts;
mod drift;
mod objects;
mod swap;

use std::ops::Deref;

use crate::error::Result;
use crate::event::{ColumnWork, EndWork, JobNote, PhaseOutcome};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::design::Design;
use crate::model::ident::plain;
use crate::model::number;
use crate::model::retyping::Retyping;
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::preflight::{self, Preflight};
use crate::pg::store::{self, Job};
use crate::pg::transaction::all;
use crate::phase::job::driver::Driver;
use crate::phase::job::exchange::Swapped;
use crate::phase::job::foreign_keys::report_unvalidated;
use crate::phase::job::kind::{JobKind, Verdict, of_kind};
use crate::phase::job::locks::briefly;
use crate::phase::job::meter::Meter;
use crate::phase::job::{additions, foreign_keys};
use crate::phase::{BackfillJob, backfill};
use crate::plan::Plan;
use crate::sql::retype as sql;
use crate::sql::script;
use crate::sql::section::Section;
use crate::sql::space;

use compare::compare;
use counterparts::complete_exchange;
use swap::{rollback, swap};

/// One driver of one column type change.
#[derive(Debug)]
pub struct RetypeJob {
    filler: BackfillJob,
    /// The parameters of the statements.
    pub retyping: Retyping,
}

impl Deref for RetypeJob {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.filler
    }
}

impl JobKind for RetypeJob {
    const KEPT: &'static str = "column";

    async fn preflight(session: &Session, plan: &Plan) -> Result<Preflight> {
        preflight::retype(session, plan, plan.retype()?).await
    }

    async fn script(_session: &Session, _plan: &Plan, design: &Design) -> Result<Vec<Section>> {
        Ok(script::retype(of_kind(design.retyping())?))
    }

    async fn done_already(session: &Session, job: &Job) -> Result<Option<JobNote>> {
        let r = job.retyping()?;
        let Some(oid) = catalog::find(session, &r.table.name).await? else { return Ok(None) };
        let table = catalog::table(session, oid).await?;
        let done = table.column(&r.column.name).is_some_and(|column| r.is_converted(column));
        Ok(done.then(|| JobNote::AlreadyOfType {
            job: job.name.clone(),
            table: job.source.clone(),
            column: plain(r.column.name.as_str()),
            sql_type: r.new_type.clone(),
        }))
    }

    async fn held(session: &Session, job: &Job) -> Result<String> {
        let (r, name) = (job.retyping()?, word(&job.name));
        let (command, direction) = match job.state {
            State::Swapped => ("finalize --now", Direction::Reverse),
            _ => ("abort", Direction::Forward),
        };
        let mut indexes = 0;
        for one in &r.indexes {
            let name = r.table.name.sibling(r.counterpart(&one.index.name, direction));
            indexes += store::size(session, space::RELATION, &name).await?;
        }
        Ok(format!(
            "`pgstrata {command} {name}` frees {} in indexes of {}, and the space of that column as its \
             rows are updated",
            number::bytes(indexes),
            r.shadow(direction).as_str()
        ))
    }

    fn from_driver(driver: Driver) -> Result<Self> {
        let retyping = driver.job.retyping()?.clone();
        Ok(Self { filler: BackfillJob::of(driver, retyping.filling()), retyping })
    }

    fn into_driver(self) -> Driver {
        self.filler.release()
    }

    async fn next(&self) -> Result<Option<State>> {
        next(self).await
    }

    async fn complete(&self) -> Result<()> {
        complete_exchange(self).await
    }

    async fn verify(&self) -> Result<Verdict> {
        compare(self).await.map(Verdict::Sides)
    }

    async fn swap(&self) -> Result<Swapped> {
        swap(self).await
    }

    async fn rollback(&self) -> Result<Swapped> {
        rollback(self).await
    }

    async fn finish_exchange(&self) -> Result<()> {
        complete_exchange(self).await
    }

    async fn sync(&self) -> Result<()> {
        complete_exchange(self).await?;
        match self.state() {
            State::Verified | State::Swapped | State::RolledBack => drift::carry_over(self).await,
            _ => Ok(()),
        }
    }

    async fn finalize(&self) -> Result<State> {
        finalize(self).await
    }

    async fn abort(&self) -> Result<State> {
        abort(self).await
    }
}

impl RetypeJob {
    /// The direction in which the columns are kept in sync: after the swap, the old column follows the new one.
    pub fn direction(&self) -> Direction {
        if self.state() == State::Swapped { Direction::Reverse } else { Direction::Forward }
    }
}

/// Runs the next phase before the swap and returns the new state; none if no such phase is left.
///
/// # Errors
/// The phase failed.
async fn next(retyper: &RetypeJob) -> Result<Option<State>> {
    if retyper.state() != State::Planned {
        objects::in_place(retyper).await?;
    }
    let state = match retyper.state() {
        State::Planned => prepare(retyper).await?,
        State::Prepared => capture(retyper).await?,
        State::Capturing => backfill::pass(&retyper.filler).await?,
        State::Filled => counterparts::index(retyper).await?,
        State::Indexed => verify(retyper).await?,
        _ => return Ok(None),
    };
    retyper.reached(state);
    Ok(Some(state))
}

/// Adds the new column without rewriting the table.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "prepare"))]
async fn prepare(retyper: &RetypeJob) -> Result<State> {
    let (r, client) = (&retyper.retyping, &retyper.control);
    let (table, column) = (r.table.name.plain(), plain(r.shadow(Direction::Forward).as_str()));
    let step = format!("add column {column} to {table}");
    let meter = Meter::begin(retyper, ColumnWork::AddColumn { table, column });
    let tables = vec![r.table.name.clone()];
    let (state, _) = briefly(retyper, tables, &step, async || {
        let was = additions::before(client, &r.table.name).await?;
        all(client, &sql::add_column(r)).await?;
        if let Some(was) = was {
            additions::check_only_columns_added(retyper, client, &was, &[&r.shadow(Direction::Forward)])
                .await?;
        }
        objects::record_columns(retyper, client).await?;
        let state = retyper.advance(client, Step::Prepare).await?;
        failpoint!("prepare.before_commit");
        Ok(state)
    })
    .await?;
    failpoint!("prepare.done");
    meter.end(PhaseOutcome::ColumnsReady { columns: 1 });
    Ok(state)
}

/// Creates the trigger. `CREATE TRIGGER` waits for every open writer, so the first pass sees all rows that were written
/// without the trigger.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "capture"))]
async fn capture(retyper: &RetypeJob) -> Result<State> {
    let (r, client) = (&retyper.retyping, &retyper.control);
    let table = r.table.name.plain();
    let step = format!("create the trigger of the job on {table}");
    let meter = Meter::begin(retyper, ColumnWork::SyncByTrigger { table });
    let tables = vec![r.table.name.clone()];
    let (state, _) = briefly(retyper, tables, &step, async || {
        all(client, &sql::create_sync_trigger(r)).await?;
        let state = retyper.advance(client, Step::Capture).await?;
        failpoint!("capture.before_commit");
        Ok(state)
    })
    .await?;
    failpoint!("capture.done");
    meter.end(PhaseOutcome::TriggersReady);
    Ok(state)
}

/// Checks every row; after this phase, every row is in sync.
async fn verify(retyper: &RetypeJob) -> Result<State> {
    foreign_keys::check_violations(retyper, &retyper.retyping.keys).await?;
    let state = backfill::second_pass(&retyper.filler).await?;
    retyper.control.execute(sql::IN_SYNC_SINCE, &[&retyper.job.id, &false]).await?;
    Ok(state)
}

/// Drops the old column and the objects that keep it in sync; after that, a rollback is not possible.
///
/// # Errors
/// The lock could not be acquired, or something depends on the old column.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "finalize"))]
async fn finalize(retyper: &RetypeJob) -> Result<State> {
    let failed = counterparts::keys(retyper).await?;
    counterparts::rebound(retyper).await?;
    let r = &retyper.retyping;
    let (table, column) = (r.table.name.plain(), plain(r.shadow(Direction::Reverse).as_str()));
    let meter = Meter::begin(retyper, EndWork::DropOldColumn { table: table.clone(), column });
    let (tables, statements) = objects::removal(retyper).await?;
    let state = backfill::end(&retyper.filler, Step::Finalize, tables, &statements).await?;
    failpoint!("finalize.done");
    let (column, sql_type) = (plain(r.column.name.as_str()), r.new_type.clone());
    meter.end(PhaseOutcome::ColumnTypeChanged { table, column, sql_type });
    report_unvalidated(retyper, &failed, false);
    Ok(state)
}

/// Removes everything that the job created.
///
/// # Errors
/// The job is past the swap, or the server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "abort"))]
async fn abort(retyper: &RetypeJob) -> Result<State> {
    let failed = counterparts::keys(retyper).await?;
    counterparts::rebound(retyper).await?;
    let r = &retyper.retyping;
    let work = EndWork::RemoveJob { table: r.table.name.plain(), exists: true };
    let meter = Meter::begin(retyper, work);
    let (tables, statements) = objects::removal(retyper).await?;
    let state = backfill::end(&retyper.filler, Step::Abort, tables, &statements).await?;
    failpoint!("abort.done");
    meter.end(PhaseOutcome::JobRemoved);
    report_unvalidated(retyper, &failed, false);
    Ok(state)
}

/// The table's oid.
async fn table(retyper: &RetypeJob) -> Result<u32> {
    catalog::must_find(&retyper.control, &retyper.retyping.table.name).await
}
