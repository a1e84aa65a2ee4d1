//! What the phases of a partition job work with, besides its driver: the blueprint, and which way changes flow.

use std::cell::RefCell;
use std::ops::Deref;

use crate::error::{Error, Result};
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::design::Design;
use crate::model::number;
use crate::model::objects::Objects;
use crate::model::shell::word;
use crate::model::state::State;
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::preflight::{self, Preflight};
use crate::pg::store::{self, Job};
use crate::plan::{Partitioning, Plan};
use crate::sql::script::{self, Section};
use crate::sql::space;

use super::driver::Driver;
use super::kind::{JobKind, Verdict, of_kind};
use super::{Swapped, copy, finalize, mirror, settle};

/// One driver of one partition job.
#[derive(Debug)]
pub struct PartitionJob {
    driver: Driver,
    /// The plan's part that only partition jobs have.
    pub partitioning: Partitioning,
    /// Everything statements are rendered from; it may get more partitions.
    pub blueprint: RefCell<Blueprint>,
    /// What the job made, once it was read; empty before.
    pub objects: RefCell<Objects>,
}

impl Deref for PartitionJob {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
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

    async fn done_already(session: &Session, job: &Job) -> Result<Option<String>> {
        let Some(oid) = catalog::find(session, job.design.table()).await? else { return Ok(None) };
        let partitioned = catalog::table(session, oid).await?.relkind == "p";
        Ok(partitioned.then(|| format!("{} is partitioned", job.source)))
    }

    async fn held(session: &Session, job: &Job) -> Result<String> {
        let (b, name) = (job.blueprint()?, word(&job.name));
        let (direction, frees) = match job.state {
            State::Swapped => (
                Direction::Reverse,
                format!("`pgstrata finalize --now {name}` frees what is kept for the way back"),
            ),
            _ => (Direction::Forward, format!("`pgstrata abort {name}` frees what the job holds")),
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

    fn take_up(driver: Driver) -> Result<Self> {
        let partitioning = driver.plan.partitioning()?.clone();
        let blueprint = RefCell::new(driver.job.blueprint()?.clone());
        Ok(Self { driver, partitioning, blueprint, objects: RefCell::default() })
    }

    fn into_driver(self) -> Driver {
        self.driver
    }

    async fn tidy_up(&self) -> Result<()> {
        if mirror::off(self).await? {
            self.events.note("the mirror was still on from an earlier command; it is off now");
        }
        Ok(())
    }

    async fn next(&self) -> Result<Option<State>> {
        super::next(self).await
    }

    async fn complete(&self) -> Result<()> {
        match self.state() {
            State::Swapped => super::sync(self).await,
            State::Finalized | State::Aborted => Ok(()),
            _ => super::verify(self).await.map(drop),
        }
    }

    async fn verify(&self) -> Result<Verdict> {
        self.is_copied()?;
        super::compare(self).await.map(Verdict::Sides)
    }

    async fn swap(&self) -> Result<Swapped> {
        self.is_copied()?;
        self.verify_and_exchange().await
    }

    async fn rollback(&self) -> Result<Swapped> {
        self.verify_and_exchange().await
    }

    async fn finish_exchange(&self) -> Result<()> {
        settle::settle(self).await.map(drop)
    }

    async fn sync(&self) -> Result<()> {
        self.is_copied()?;
        super::sync(self).await
    }

    async fn finalize(&self) -> Result<State> {
        finalize::finalize(self).await
    }

    async fn abort(&self) -> Result<State> {
        finalize::abort(self).await
    }
}

impl PartitionJob {
    /// Fails where the copy is not complete.
    fn is_copied(&self) -> Result<()> {
        match self.state() {
            State::Synced | State::Verified | State::Swapped | State::RolledBack => Ok(()),
            state => {
                Err(Error::usage(format!("job {} is {state}: the copy is not complete yet", self.job.name))
                    .hint("`pgstrata run PLAN` goes on with it"))
            }
        }
    }

    async fn verify_and_exchange(&self) -> Result<Swapped> {
        // What the swap before this one left open would look like a change of the table.
        settle::settle_before_exchange(self).await?;
        let (proof, _) = super::verify(self).await?;
        let swapped = super::swap(self, proof).await?;
        settle::settle(self).await?;
        settle::compare_by_name(self).await?;
        Ok(swapped)
    }

    /// Which way changes flow now.
    pub fn direction(&self) -> Direction {
        if self.state() == State::Swapped { Direction::Reverse } else { Direction::Forward }
    }

    /// A copy of the blueprint, for rendering.
    pub fn blueprint(&self) -> Blueprint {
        self.blueprint.borrow().clone()
    }
}
