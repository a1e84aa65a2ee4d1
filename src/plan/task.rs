//! What a job is for: the only place that knows every kind of plan.

use super::{Backfill, Partitioning, Retype};

/// The kinds, before their settings are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskKind {
    Partition,
    Backfill,
    Retype,
}

impl TaskKind {
    pub(super) const ALL: [Self; 3] = [Self::Partition, Self::Backfill, Self::Retype];

    /// As a plan writes it.
    pub(super) fn name(self) -> &'static str {
        self.pick(["partition", "backfill", "retype"])
    }

    /// What belongs to this kind, of one for each in the order of [`TaskKind::ALL`].
    pub(super) fn pick<T>(self, [partition, backfill, retype]: [T; 3]) -> T {
        match self {
            Self::Partition => partition,
            Self::Backfill => backfill,
            Self::Retype => retype,
        }
    }
}

/// What a job is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Turn the table into a partitioned one.
    Partition(Partitioning),
    /// Fill columns of its rows.
    Backfill(Backfill),
    /// Give a column another type.
    Retype(Retype),
}

/// What is known of a plan whatever its job is for.
pub trait Purpose {
    /// The kind, as a plan and the store write it.
    fn kind(&self) -> &'static str;

    /// The job updates the table's rows, and does not copy them.
    fn updates_rows(&self) -> bool;

    /// The job ends with a swap.
    fn is_swapped(&self) -> bool {
        true
    }

    /// What keeps both sides in sync from the comparison to the swap; `job` as a shell reads it.
    fn keeps_level(&self, job: &str) -> String;
}

impl Task {
    /// What is known of it whatever it is.
    pub fn purpose(&self) -> &dyn Purpose {
        match self {
            Self::Partition(partitioning) => partitioning,
            Self::Backfill(backfill) => backfill,
            Self::Retype(retype) => retype,
        }
    }

    /// As a plan and the store write it.
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

    fn keeps_level(&self, job: &str) -> String {
        format!("`pgstrata sync {job}` keeps both tables in sync")
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

    fn keeps_level(&self, _job: &str) -> String {
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

    fn keeps_level(&self, _job: &str) -> String {
        "a trigger keeps both columns in sync".to_owned()
    }
}
