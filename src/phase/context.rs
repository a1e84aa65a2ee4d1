//! What the phases of a partition job work with, besides its driver: the blueprint, and which way changes flow.

use std::cell::RefCell;
use std::ops::Deref;

use crate::error::Result;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::objects::Objects;
use crate::model::state::State;
use crate::plan::Partitioning;

use super::driver::{Driver, Drives};
use super::mirror;

/// One driver of one partition job.
#[derive(Debug)]
pub struct Context {
    driver: Driver,
    /// The plan's part that only partition jobs have.
    pub partitioning: Partitioning,
    /// Everything statements are rendered from; it may get more partitions.
    pub blueprint: RefCell<Blueprint>,
    /// What the job made, once it was read; empty before.
    pub objects: RefCell<Objects>,
}

impl Deref for Context {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.driver
    }
}

impl Drives for Context {
    fn take_up(driver: Driver) -> Result<Self> {
        let partitioning = driver.plan.partitioning()?.clone();
        let blueprint = RefCell::new(driver.job.blueprint()?.clone());
        Ok(Self { driver, partitioning, blueprint, objects: RefCell::default() })
    }

    async fn tidy_up(&self) -> Result<()> {
        if mirror::off(self).await? {
            self.events.note("the mirror was still on from an earlier command; it is off now");
        }
        Ok(())
    }

    fn into_driver(self) -> Driver {
        self.driver
    }
}

impl Context {
    /// Which way changes flow now.
    pub fn direction(&self) -> Direction {
        if self.state() == State::Swapped { Direction::Reverse } else { Direction::Forward }
    }

    /// A copy of the blueprint, for rendering.
    pub fn blueprint(&self) -> Blueprint {
        self.blueprint.borrow().clone()
    }
}
