//! A backfill, from its first lock to the last constraint. Start reading here.
//!
//! ```text
//! planned -open-> prepared -keep-> capturing -first pass-> filled -second pass-> verified -finish-> finalized
//! any state before the last: -abort-> aborted
//! ```
//!
//! Every row is processed twice: first in chunks along the key, which wait for no other session for long, and then
//! again, to fill rows that were locked during the first pass or written after it. Each phase can be run again after a
//! crash at any point.

mod answer;
mod finish;
mod first_pass;
mod open;
mod second_pass;

pub(super) use first_pass::pass;
pub(super) use second_pass::{check_every_row, second_pass};

use std::ops::Deref;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::event::{BackfillNote, EndWork, JobNote, PhaseOutcome};
use crate::failpoint;
use crate::model::design::Design;
use crate::model::filling::Filling;
use crate::model::history::History;
use crate::model::ident::QualifiedName;
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::model::untrusted_code::Access;
use crate::model::verify_report::RowsChecked;
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::preflight::{self, Preflight};
use crate::pg::store::Job;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::untrusted_code;
use crate::pg::{latency, objects as pg, store};
use crate::phase::job::driver::Driver;
use crate::phase::job::kind::{JobKind, Verdict, depended_on, of_kind};
use crate::phase::job::locks::briefly;
use crate::phase::job::meter::Meter;
use crate::plan::Plan;
use crate::sql::script;
use crate::sql::section::Section;
use crate::sql::{fill as sql, objects, store as store_sql};

/// The time limit of one statement that searches for a row to fill, in milliseconds.
const LOOK_MS: u32 = 5_000;

/// One driver of one backfill.
#[derive(Debug)]
pub struct BackfillJob {
    driver: Driver,
    /// The parameters of the statements.
    pub filling: Filling,
}

impl BackfillJob {
    /// Creates a backfill for a job of another kind that fills its rows in the same way.
    pub(super) fn of(driver: Driver, filling: Filling) -> Self {
        Self { driver, filling }
    }

    /// Returns the driver.
    pub(super) fn release(self) -> Driver {
        self.driver
    }
}

impl Deref for BackfillJob {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
    }
}

impl JobKind for BackfillJob {
    async fn preflight(session: &Session, plan: &Plan) -> Result<Preflight> {
        preflight::backfill(session, plan, plan.backfill()?).await
    }

    async fn script(_session: &Session, _plan: &Plan, design: &Design) -> Result<Vec<Section>> {
        Ok(script::backfill(of_kind(design.filling())?))
    }

    async fn done_already(session: &Session, job: &Job) -> Result<Option<JobNote>> {
        // A job that only adds constraints and indexes finds by itself which of them exist.
        let left = job.filling()?.only_finishes()
            || catalog::find(session, job.design.table()).await?.is_none()
            || any_to_fill(session, job.filling()?).await?;
        let (name, table) = (job.name.clone(), job.source.clone());
        Ok((!left).then_some(JobNote::AlreadyFilled { job: name, table }))
    }

    async fn held(_session: &Session, job: &Job) -> Result<String> {
        Ok(format!(
            "`pgstrata abort {}` ends the job but frees no disk space: a backfill updates the rows of {} \
             in place, and VACUUM makes the space of the old row versions reusable",
            word(&job.name),
            job.filling()?.table.name.plain()
        ))
    }

    fn from_driver(driver: Driver) -> Result<Self> {
        let filling = driver.job.filling()?.clone();
        Ok(Self { driver, filling })
    }

    fn into_driver(self) -> Driver {
        self.release()
    }

    async fn next(&self) -> Result<Option<State>> {
        next(self).await
    }

    async fn verify(&self) -> Result<Verdict> {
        look_again(self).await.map(Verdict::Rows)
    }

    async fn abort(&self) -> Result<State> {
        abort(self).await
    }
}

/// Fills the rows in both passes, for a job of another kind, whose state does not change.
///
/// # Errors
/// Stopped; rows cannot be filled; or the server returned an error.
pub(super) async fn fill(filler: &BackfillJob) -> Result<()> {
    let meter = first_pass::filled(filler).await?;
    first_pass::ended(filler, meter).await?;
    second_pass::check_every_row(filler).await.map(drop)
}

/// Runs the next phase and returns the new state; none if the job has ended.
///
/// # Errors
/// The phase failed.
async fn next(filler: &BackfillJob) -> Result<Option<State>> {
    let state = match filler.state() {
        State::Planned => open::open(filler).await?,
        State::Prepared => open::keep(filler).await?,
        State::Capturing if filler.filling.only_finishes() => {
            filler.advance(&filler.control, Step::Fill).await?
        }
        State::Capturing => first_pass::pass(filler).await?,
        State::Filled => second_pass::second_pass(filler).await?,
        State::Verified => finish::finish(filler).await?,
        _ => return Ok(None),
    };
    filler.reached(state);
    Ok(Some(state))
}

/// Whether there is a row to fill. Also true if the search takes too long, or if the plan's SQL can no longer run.
///
/// # Errors
/// The server returned an error.
async fn any_to_fill(client: &Client, filling: &Filling) -> Result<bool> {
    let asked = transaction(client, READ_COMMITTED, async |client| {
        client
            .batch_execute(&format!("{}; set local statement_timeout = '{LOOK_MS}ms'", sql::names(filling)))
            .await?;
        let table = std::slice::from_ref(&filling.table.name);
        untrusted_code::check(client, table, &filling.sql.trust, Access::Reads).await?;
        Ok(client.query_one(&sql::any_to_fill(filling), &[]).await?.get(0))
    })
    .await;
    match asked {
        // A run, which processes the table in chunks, will find out.
        Err(e) if e.is(&SqlState::QUERY_CANCELED) => Ok(true),
        // Class 42, "syntax error or access rule violation", includes undefined columns, tables, functions and types.
        // A new job adds a dropped column again, or its check reports what is missing.
        Err(e) if e.sqlstate().is_some_and(|code| code.starts_with("42")) => Ok(true),
        other => other,
    }
}

/// Checks every row again, and fills those that are found.
///
/// # Errors
/// The job is not ready; there are rows that cannot be filled; or the server returned an error.
async fn look_again(filler: &BackfillJob) -> Result<RowsChecked> {
    let (name, state) = (filler.job.name.clone(), filler.state());
    if !matches!(state, State::Filled | State::Verified) {
        return Err(Error::usage(format!("job {name} is {state}: the first pass is not complete"))
            .hint("`pgstrata run PLAN` continues it, and checks every row again at the end"));
    }
    in_force(filler).await?;
    let rows_set = second_pass::check_every_row(filler).await?;
    in_force(filler).await?;
    Ok(RowsChecked { job: name, rows_set, verified: true })
}

/// Ends the job without completing it: removes the trigger and everything that was begun but not completed. Added
/// columns and filled values remain.
///
/// # Errors
/// The server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "abort"))]
async fn abort(filler: &BackfillJob) -> Result<State> {
    let f = &filler.filling;
    let table = f.table.name.plain();
    let meter = Meter::begin(filler, EndWork::RemoveBackfill { table: table.clone() });
    let mut statements = finish::leftovers(filler).await?;
    let (tables, stop) = stop_filling(filler).await?;
    statements.extend(stop);
    let state = end(filler, Step::Abort, tables, &statements).await?;
    failpoint!("abort.done");
    for column in &f.add {
        let (table, column) = (table.clone(), crate::model::ident::plain(column.name.as_str()));
        filler.events.note(BackfillNote::ColumnKept { table, column });
    }
    meter.end(PhaseOutcome::TriggerRemoved);
    Ok(state)
}

/// Returns the statements that drop the trigger, whatever name its table has now, and the tables that they lock.
pub(super) async fn stop_filling(filler: &BackfillJob) -> Result<(Vec<QualifiedName>, Vec<String>)> {
    let f = &filler.filling;
    let triggers = pg::triggers(&filler.control, &[f.fill_function()], f.table.oid).await?;
    let drop = triggers.iter().map(|(table, trigger)| objects::drop_trigger(table, trigger));
    let statements = drop.chain([sql::drop_function(f)]).collect();
    Ok((triggers.into_iter().map(|(table, _)| table).collect(), statements))
}

/// Runs the last transaction of a job: executes `statements`, and records the end of the job.
pub(super) async fn end(
    filler: &BackfillJob,
    step: Step,
    tables: Vec<QualifiedName>,
    statements: &[String],
) -> Result<State> {
    let client = &filler.control;
    let chunks = History::Chunks(latency::of_chunks(client, filler.job.id).await?);
    let rows_filled = History::RowsSet { rows: store::rows_filled(client, filler.job.id).await? };
    let (state, _) = briefly(filler, tables, &format!("end job {}", filler.job.name), async || {
        all(client, statements).await?;
        client.execute(store_sql::KEEP_ROWS_COPIED, &[&filler.job.id]).await?;
        client.execute(store_sql::FORGET_CHUNKS, &[&filler.job.id]).await?;
        store::event(client, filler.job.id, &chunks).await?;
        store::event(client, filler.job.id, &rows_filled).await?;
        let state = filler.advance(client, step).await?;
        match step {
            Step::Abort => failpoint!("abort.before_commit"),
            Step::Finalize => failpoint!("finalize.before_commit"),
            _ => failpoint!("finish.before_commit"),
        }
        Ok(state)
    })
    .await
    .map_err(|e| depended_on(filler, e, step))?;
    filler.reached(state);
    Ok(state)
}

/// The tables that store the rows: the leaf partitions of a partitioned table, or the table itself.
async fn leaves(filler: &BackfillJob) -> Result<Vec<QualifiedName>> {
    let table = &filler.filling.table.name;
    let oid = catalog::must_find(&filler.control, table).await?;
    if !filler.filling.is_partitioned() {
        return Ok(vec![table.clone()]);
    }
    let rows = filler.control.query(sql::LEAVES, &[&oid]).await?;
    Ok(rows.iter().map(|row| QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

/// Returns the result for a partition, or the default value if the partition was dropped in the meantime.
async fn unless_gone<T: Default>(filler: &BackfillJob, leaf: &QualifiedName, done: Result<T>) -> Result<T> {
    match done {
        Err(e) if e.is(&SqlState::UNDEFINED_TABLE) && !leaves(filler).await?.contains(leaf) => {
            filler.events.note(BackfillNote::PartitionGone { partition: leaf.plain() });
            Ok(T::default())
        }
        other => other,
    }
}

/// Fails if the table was replaced, or if the trigger that fills written rows was dropped or disabled.
pub(super) async fn in_force(filler: &BackfillJob) -> Result<()> {
    let f = &filler.filling;
    let table = (f.table.name.clone(), f.table.oid);
    if pg::misplaced(&filler.control, &[table]).await?.is_some() {
        let now = pg::name(&filler.control, f.table.oid).await?;
        let now = now.map_or("was dropped".to_owned(), |now| format!("is now named {}", now.plain()));
        return Err(Error::failed(format!(
            "{} is not the table of job {}",
            f.table.name.plain(),
            filler.job.name
        ))
        .cause(format!("the job's table has oid {} and {now}", f.table.oid))
        .hint(format!("rename it back, and run the same command again; or {}", filler.way_out())));
    }
    if !f.keep_filled {
        return Ok(());
    }
    let oid = catalog::must_find(&filler.control, &f.table.name).await?;
    let trigger = f.fill_trigger();
    if filler.control.query_one(sql::KEEPS_FILLED, &[&oid, &trigger.as_str()]).await?.get(0) {
        return Ok(());
    }
    Err(Error::failed(format!(
        "trigger {} of {} is no longer enabled",
        trigger.as_str(),
        f.table.name.plain()
    ))
    .cause(
        "it was dropped or disabled, or is not enabled as ALWAYS; rows written since then may not \
            be filled",
    )
    .hint(filler.way_out()))
}
