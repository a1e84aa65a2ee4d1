//! The kinds of jobs. A new kind of plan starts with a variant here.

use super::{Backfill, Partitioning, Retype};

/// The kind of a job, before the settings of the kind are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskKind {
    Partition,
    Backfill,
    Retype,
}

impl TaskKind {
    pub(super) const ALL: [Self; 3] = [Self::Partition, Self::Backfill, Self::Retype];

    /// The name in a plan.
    pub(super) fn name(self) -> &'static str {
        self.pick(["partition", "backfill", "retype"])
    }

    /// The value for this kind, from one value per kind in the order of [`TaskKind::ALL`].
    pub(super) fn pick<T>(self, [partition, backfill, retype]: [T; 3]) -> T {
        match self {
            Self::Partition => partition,
            Self::Backfill => backfill,
            Self::Retype => retype,
        }
    }
}

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
    /// The name of the kind in a plan and in the store.
    fn kind(&self) -> &'static str;

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
        match self {
            Self::Partition(partitioning) => partitioning,
            Self::Backfill(backfill) => backfill,
            Self::Retype(retype) => retype,
        }
    }

    /// The name of the kind in a plan and in the store.
    pub fn kind(&self) -> &'static str {
        self.purpose().kind()
    }
}

impl Purpose for Partitioning {
    fn kind(&self) -> &'static str {
        "partition"
    }

    fn updates_rows(&self) -> bool {
        false
    }

    fn keeps_in_sync(&self, job: &str) -> String {
        format!("run `pgstrata sync {job}` regularly to keep both tables in sync")
    }
}

impl Purpose for Backfill {
    fn kind(&self) -> &'static str {
        "backfill"
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
    fn kind(&self) -> &'static str {
        "retype"
    }

    fn updates_rows(&self) -> bool {
        true
    }

    fn keeps_in_sync(&self, _job: &str) -> String {
        "a trigger keeps both columns in sync".to_owned()
    }
}
