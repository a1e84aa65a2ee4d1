//! The settings of a job, by kind, and what every kind of job defines.

use crate::model::kind::{TaskKind, each_kind};

use super::{Backfill, Partitioning, Retype};

/// The kind of a job, with the settings of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Partition the table.
    Partition(Partitioning),
    /// Fill columns of the table.
    Backfill(Backfill),
    /// Change the type of a column.
    Retype(Retype),
}

/// What every kind of job defines.
pub trait Purpose {
    /// The kind.
    fn kind(&self) -> TaskKind;

    /// The job updates the rows of the table instead of copying them.
    fn updates_rows(&self) -> bool;

    /// The job ends with a swap.
    fn is_swapped(&self) -> bool {
        true
    }

    /// What keeps both sides in sync between verification and swap; `job` is quoted for a shell.
    fn keeps_in_sync(&self, job: &str) -> String;
}

impl Task {
    /// The properties that every kind has.
    pub fn purpose(&self) -> &dyn Purpose {
        each_kind!(self, Self, one => one)
    }

    /// The name of the kind in a plan and in the store.
    pub fn kind(&self) -> &'static str {
        self.purpose().kind().name()
    }
}

impl Purpose for Partitioning {
    fn kind(&self) -> TaskKind {
        TaskKind::Partition
    }

    fn updates_rows(&self) -> bool {
        false
    }

    fn keeps_in_sync(&self, job: &str) -> String {
        format!("run `pgstrata sync {job}` regularly to keep both tables in sync")
    }
}

impl Purpose for Backfill {
    fn kind(&self) -> TaskKind {
        TaskKind::Backfill
    }

    fn updates_rows(&self) -> bool {
        true
    }

    fn is_swapped(&self) -> bool {
        false
    }

    fn keeps_in_sync(&self, _job: &str) -> String {
        "a trigger fills rows that are written".to_owned()
    }
}

impl Purpose for Retype {
    fn kind(&self) -> TaskKind {
        TaskKind::Retype
    }

    fn updates_rows(&self) -> bool {
        true
    }

    fn keeps_in_sync(&self, _job: &str) -> String {
        "a trigger keeps both columns in sync".to_owned()
    }
}
