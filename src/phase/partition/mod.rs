//! A partition job, from its first lock to the last. Start reading here.
//!
//! ```text
//! planned -prepare-> prepared -capture-> capturing -copy, scrub-> copied -index-> indexed -drain-> synced
//!         -verify-> verified -swap-> swapped -finalize-> finalized
//!                      ^                |
//!                      |                +-rollback-> rolled_back -swap-> swapped
//!                      +- drain, verify: any number of times
//! indexed -resync-> capturing, if the change log has outgrown the table
//! any state before the swap, and rolled_back: -abort-> aborted
//! ```

mod additions;
mod after_exchange;
mod before_swap;
mod capture;
mod checks;
mod compaction;
mod copy;
mod cutover;
mod deficit;
mod drain;
mod drift;
mod finalize;
mod guard;
mod index;
mod key_tables;
mod locks;
mod mirror;
mod not_null;
mod objects;
pub mod partitions;
mod post_swap_diff;
mod prepare;
mod resync;
mod scrub;
mod swap;
mod verify;
mod verify_chunks;

use std::cell::RefCell;
use std::ops::Deref;

use tracing::Instrument;

use crate::error::{Error, Result};
use crate::event::{JobNote, PartitionNote};
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::design::Design;
use crate::model::filling::Filling;
use crate::model::number;
use crate::model::objects::Objects;
use crate::model::pace::Work;
use crate::model::shell::word;
use crate::model::state::State;
use crate::model::verify_report::VerifyReport;
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::preflight::{self, Preflight};
use crate::pg::store::{self, Job};
use crate::phase::BackfillJob;
use crate::phase::job::driver::Driver;
use crate::phase::job::exchange::Swapped;
use crate::phase::job::kind::{JobKind, Verdict, of_kind};
use crate::plan::{Partitioning, Plan};
use crate::sql::script;
use crate::sql::section::Section;
use crate::sql::space;

use verify::Verified;

/// One driver of one partition job.
#[derive(Debug)]
pub struct PartitionJob {
    /// Fills rows with NULL in the partition column; it has the driver.
    filler: BackfillJob,
    /// The part of the plan that is specific to partition jobs.
    pub partitioning: Partitioning,
    /// The parameters of the statements. Partitions may be added during the job.
    pub blueprint: RefCell<Blueprint>,
    /// The objects that the job created; empty until they are read.
    pub objects: RefCell<Objects>,
}

impl Deref for PartitionJob {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.filler
    }
}

impl JobKind for PartitionJob {
    const KEPT: &'static str = "table";

    async fn preflight(session: &Session, plan: &Plan) -> Result<Preflight> {
        preflight::partition(session, plan, plan.partitioning()?).await
    }

    async fn script(session: &Session, plan: &Plan, design: &Design) -> Result<Vec<Section>> {
        let (b, partitioning) = (of_kind(design.blueprint())?, plan.partitioning()?);
        let physical = copy::reads_by_block(session, partitioning.order, b).await?;
        Ok(script::script(b, physical, partitioning.verify))
    }

    async fn done_already(session: &Session, job: &Job) -> Result<Option<JobNote>> {
        let Some(oid) = catalog::find(session, job.design.table()).await? else { return Ok(None) };
        let partitioned = catalog::table(session, oid).await?.relkind == "p";
        let (name, table) = (job.name.clone(), job.source.clone());
        Ok(partitioned.then_some(JobNote::AlreadyPartitioned { job: name, table }))
    }

    async fn held(session: &Session, job: &Job) -> Result<String> {
        let (b, name) = (job.blueprint()?, word(&job.name));
        let (direction, frees) = match job.state {
            State::Swapped => (
                Direction::Reverse,
                format!("`pgstrata finalize --now {name}` frees the space that is kept for a rollback"),
            ),
            _ => (Direction::Forward, format!("`pgstrata abort {name}` frees the space that the job uses")),
        };
        let table = &b.sides(direction).target;
        let copy = store::size(session, space::TREE, table).await?;
        let log = store::size(session, space::RELATION, &b.log()).await?;
        Ok(format!(
            "{frees}: {} in {} and {} in the change log",
            number::bytes(copy),
            table.plain(),
            number::bytes(log)
        ))
    }

    fn from_driver(driver: Driver) -> Result<Self> {
        let partitioning = driver.plan.partitioning()?.clone();
        let blueprint = RefCell::new(driver.job.blueprint()?.clone());
        let filler = BackfillJob::of(driver, Filling::of_nulls(&blueprint.borrow()));
        Ok(Self { filler, partitioning, blueprint, objects: RefCell::default() })
    }

    fn into_driver(self) -> Driver {
        self.filler.release()
    }

    async fn tidy_up(&self) -> Result<()> {
        if mirror::off(self).await? {
            self.events.note(PartitionNote::MirrorSwitchedOff);
        }
        Ok(())
    }

    async fn next(&self) -> Result<Option<State>> {
        next(self).await
    }

    async fn complete(&self) -> Result<()> {
        match self.state() {
            State::Swapped => sync(self).await,
            State::Finalized | State::Aborted => Ok(()),
            _ => verify_both(self).await.map(drop),
        }
    }

    async fn verify(&self) -> Result<Verdict> {
        self.is_copied()?;
        compare(self).await.map(Verdict::Sides)
    }

    async fn swap(&self) -> Result<Swapped> {
        self.is_copied()?;
        self.verify_and_exchange().await
    }

    async fn rollback(&self) -> Result<Swapped> {
        self.verify_and_exchange().await
    }

    async fn finish_exchange(&self) -> Result<()> {
        after_exchange::complete(self).await.map(drop)
    }

    async fn sync(&self) -> Result<()> {
        self.is_copied()?;
        sync(self).await
    }

    async fn finalize(&self) -> Result<State> {
        finalize::finalize(self).await
    }

    async fn abort(&self) -> Result<State> {
        finalize::abort(self).await
    }
}

impl PartitionJob {
    /// Fails if the copy is not complete.
    fn is_copied(&self) -> Result<()> {
        match self.state() {
            State::Synced | State::Verified | State::Swapped | State::RolledBack => Ok(()),
            state => Err(Error::usage(format!("job {} is {state}: the copy is not complete", self.job.name))
                .hint("`pgstrata run PLAN` continues it")),
        }
    }

    async fn verify_and_exchange(&self) -> Result<Swapped> {
        // Incomplete steps of the previous exchange would look like changes to the table.
        after_exchange::complete_before_exchange(self).await?;
        not_null::establish(self).await?;
        let (proof, _) = verify_both(self).await?;
        let swapped = exchange(self, proof).await?;
        after_exchange::complete(self).await?;
        post_swap_diff::compare_by_name(self).await?;
        Ok(swapped)
    }

    /// The current direction in which changes are applied.
    pub fn direction(&self) -> Direction {
        if self.state() == State::Swapped { Direction::Reverse } else { Direction::Forward }
    }

    /// A copy of the blueprint, to render statements.
    pub fn blueprint(&self) -> Blueprint {
        self.blueprint.borrow().clone()
    }
}

/// Runs the next phase before verification and returns the new state; none if no such phase is left.
///
/// # Errors
/// The phase failed.
async fn next(context: &PartitionJob) -> Result<Option<State>> {
    let state = match context.state() {
        State::Planned => prepare::prepare(context).await?,
        State::Prepared => {
            not_null::establish(context).await?;
            capture::capture(context).await?
        }
        State::Capturing => {
            let copied = async {
                copy::copy(context).await?;
                scrub::scrub(context).await
            };
            compaction::during(context, copied).await?
        }
        State::Copied => {
            let indexed = index::index(context).instrument(tracing::debug_span!("phase", name = "index"));
            compaction::during(context, indexed).await?
        }
        State::Indexed => drain::drain(context).await?,
        State::Filled
        | State::Synced
        | State::Verified
        | State::Swapped
        | State::RolledBack
        | State::Finalized
        | State::Aborted => return Ok(None),
    };
    context.reached(state);
    Ok(Some(state))
}

/// Exchanges the two tables: swaps, or rolls back if the job is swapped.
///
/// # Errors
/// The lock could not be acquired, or something prevents the exchange.
async fn exchange(context: &PartitionJob, proof: Verified) -> Result<Swapped> {
    swap::swap(context, proof).instrument(tracing::debug_span!("phase", name = "swap")).await
}

/// Applies pending changes to the inactive side, in the current direction.
///
/// # Errors
/// The server returned an error.
async fn sync(context: &PartitionJob) -> Result<()> {
    let state = drain::drain(context).await?;
    context.reached(state);
    after_exchange::complete(context).await?;
    swap::carry_over(context).await
}

/// Applies pending changes and compares both sides, as [`verify::verify`]. Replica lag does not throttle it, because it
/// only reads. Before a swap, it also searches for what would make the steps after the swap fail; it skips that search
/// before a rollback.
///
/// # Errors
/// The server returned an error.
async fn verify_both(context: &PartitionJob) -> Result<(Verified, VerifyReport)> {
    not_null::check(context).await?;
    if context.direction() == Direction::Forward {
        before_swap::of_partition(context).await?;
    }
    context.gate.set_work(Work::Reads);
    let verified = verify::verify(context).await;
    context.gate.set_work(Work::Writes);
    let (state, proof, report) = verified?;
    context.reached(state);
    Ok((proof, report))
}

/// Compares both sides, as [`verify::compare`]. Replica lag does not throttle it, because it only reads.
///
/// # Errors
/// The server returned an error.
async fn compare(context: &PartitionJob) -> Result<VerifyReport> {
    guard::end_guard(context, guard::LATER_GUARD_WAITS).await?;
    not_null::check(context).await?;
    context.gate.set_work(Work::Reads);
    let compared = verify::compare(context).await;
    context.gate.set_work(Work::Writes);
    compared
}
