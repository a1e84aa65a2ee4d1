//! The plan: the settings of a plan file, validated, with every default filled in.
//!
//! `file` mirrors the TOML, and `resolve` turns it into a [`Plan`]; nothing else builds one. `identity` defines which
//! settings cannot change after the job has started. `check` compares the plan with the facts of a live table.
//! `survey`, `advise`, `answers`, `suggest` and `draft` write the first plan for a table.

pub mod advise;
mod answers;
pub mod backfill;
pub mod check;
mod draft;
mod file;
mod identity;
mod live;
pub mod partitioning;
mod problem;
mod read;
mod resolve;
mod retention;
pub mod retype;
pub mod settings;
mod suggest;
pub mod survey;
mod task;
#[cfg(test)]
mod tests;
mod throttle;

use std::time::Duration;

pub use answers::Answers;
pub use backfill::{Backfill, Finish, KeepFilled};
pub use draft::{DraftFacts, draft};
pub use identity::{ChangedSetting, changed};
pub use live::assignment;
pub use partitioning::Partitioning;
pub use retention::{Retention, RetentionAction};
pub use retype::Retype;
pub use suggest::{EpochUnit, histogram_by_month, suggest, suggest_epoch, suggest_integers};
pub use task::{Purpose, Task};
pub use throttle::{DeadLimit, DeadShare, ReplicaLag, Throttle};

use crate::error::Error;
use crate::model::ident::QualifiedName;
use crate::model::shell::word;

/// The order in which the copy reads rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Chosen by the correlation between the key and the heap.
    Auto,
    /// In the order of the key's index.
    Keyset,
    /// In the order of the heap's blocks.
    Physical,
}

/// The number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// Adjusted to the throughput, up to the number of cores of this machine.
    Auto,
    /// A fixed number.
    Fixed(usize),
}

impl Workers {
    /// The number, if it is fixed.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Fixed(n) => Some(n),
        }
    }
}

/// What verification compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowComparison {
    /// Counts and a hash of every row.
    Hash,
    /// Counts only.
    Count,
}

/// When the swap happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// On `pgstrata swap`.
    Manual,
    /// Right after verification.
    Verified,
}

/// How a swap treats transactions whose snapshot is older than the swap: they would read wrong data after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldSnapshots {
    /// The swap waits until they have ended.
    Wait,
    /// The swap cancels them.
    Cancel,
    /// The swap does not wait; writes of these transactions fail.
    Accept,
}

/// The unique indexes without the partition column that a key table keeps unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepUnique {
    /// All but a key to which the partition column is added and that no foreign key references: usually, its values come
    /// from a sequence or are random uuids.
    Needed,
    /// All.
    All,
    /// None.
    None,
    /// Those with these names, as in the catalog, sorted.
    Listed(Vec<String>),
}

/// How the job treats foreign keys of other tables that cannot reference the partitioned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingKeys {
    /// They reference a key table. The check reports those that cannot.
    Keep,
    /// The check reports an error.
    Refuse,
    /// The swap drops them, and a rollback restores them.
    Drop,
}

/// Limits for acquiring locks that can block applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockBudget {
    /// The longest time that one attempt can block applications.
    pub lock_timeout: Duration,
    /// The maximum number of attempts.
    pub attempts: u32,
    /// No new attempt starts after this time.
    pub give_up_after: Duration,
    /// Blockers are canceled, then terminated, after they have blocked for this long; none: never.
    pub cancel_blockers_after: Option<Duration>,
}

/// A checked plan with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    name: String,
    table: QualifiedName,
    trust: Vec<String>,
    task: Task,
    workers: Workers,
    target_batch: Duration,
    throttle: Throttle,
    when: When,
    budget: LockBudget,
    old_snapshots: OldSnapshots,
    keep_old: Duration,
}

impl Plan {
    /// Reads a plan; messages use `file` as the name of the file.
    ///
    /// # Errors
    /// A usage error with every problem in the text, each with its line and column. If the text is not TOML, only the
    /// first problem is reported.
    pub fn parse(text: &str, file: &str) -> Result<Self, Error> {
        let (mirror, mut problems) = file::read(text);
        if let Some(mirror) = mirror {
            match resolve::resolve(&mirror) {
                Ok(plan) if problems.is_empty() => return Ok(plan),
                Ok(_) => {}
                // A missing key is usually a misspelled one: report only the unknown key.
                Err(more) if problems.is_empty() => problems = more,
                Err(more) => problems.extend(more.into_iter().filter(|problem| problem.span.is_some())),
            }
        }
        Err(problem::report(file, text, problems))
    }

    /// The job's name: 1 to 63 bytes without control characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table that the job changes.
    pub fn table(&self) -> &QualifiedName {
        &self.table
    }

    /// Roles whose code may run with the job's privileges, in addition to roles that can already act as its role.
    pub fn trust(&self) -> &[String] {
        &self.trust
    }

    /// The kind of the job, with the settings of that kind.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// How the table is partitioned.
    ///
    /// # Errors
    /// The plan is of another kind.
    pub fn partitioning(&self) -> Result<&Partitioning, Error> {
        if let Task::Partition(partitioning) = &self.task {
            Ok(partitioning)
        } else {
            Err(self.of_another_kind("partition"))
        }
    }

    /// The settings of a backfill.
    ///
    /// # Errors
    /// The plan is of another kind.
    pub fn backfill(&self) -> Result<&Backfill, Error> {
        if let Task::Backfill(backfill) = &self.task {
            Ok(backfill)
        } else {
            Err(self.of_another_kind("backfill"))
        }
    }

    /// The settings of a column type change.
    ///
    /// # Errors
    /// The plan is of another kind.
    pub fn retype(&self) -> Result<&Retype, Error> {
        if let Task::Retype(retype) = &self.task { Ok(retype) } else { Err(self.of_another_kind("retype")) }
    }

    fn of_another_kind(&self, required: &str) -> Error {
        Error::usage(format!("job {} is a {} job, not a {required} job", self.name, self.task.kind()))
            .hint(format!("`pgstrata status {}` shows its state", word(&self.name)))
    }

    /// The number of workers.
    pub fn workers(&self) -> Workers {
        self.workers
    }

    /// The target duration of a chunk.
    pub fn target_batch(&self) -> Duration {
        self.target_batch
    }

    /// The limits that throttle the job.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// The limit on dead rows, if there is one.
    pub fn dead_limit(&self) -> Option<DeadLimit> {
        self.throttle.max_dead_share.limit(self.task.purpose().updates_rows())
    }

    /// When the swap happens.
    pub fn when(&self) -> When {
        self.when
    }

    /// How long one attempt of the swap may wait for its lock and thereby block applications.
    pub fn lock_timeout(&self) -> Duration {
        self.budget.lock_timeout
    }

    /// Limits for acquiring locks that can block applications.
    pub fn lock_budget(&self) -> LockBudget {
        self.budget
    }

    /// How a swap treats transactions whose snapshot is older than the swap.
    pub fn old_snapshots(&self) -> OldSnapshots {
        self.old_snapshots
    }

    /// How long the old table is kept after the swap.
    pub fn keep_old(&self) -> Duration {
        self.keep_old
    }
}
