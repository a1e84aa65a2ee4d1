//! The plan: what a person wrote and reviewed, checked and with every default filled in.
//!
//! `file` mirrors the TOML, `resolve` turns it into a [`Plan`]; nothing else builds one. `identity` tells which of
//! its settings a started job is bound to. `check` holds it against a live table's facts. `suggest` and `draft` write
//! the first plan of a table.

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

pub use backfill::{Backfill, Finish, KeepFilled};
pub use draft::{Facts, draft};
pub use identity::{Change, changed};
pub use live::assignment;
pub use partitioning::Partitioning;
pub use retention::{How, Retention};
pub use retype::Retype;
pub use suggest::{histogram_by_month, suggest, suggest_integers};
pub use task::{Purpose, Task};
pub use throttle::{DeadLimit, DeadShare, ReplicaLag, Throttle};

use crate::error::Error;
use crate::model::ident::QualifiedName;
use crate::model::shell::word;

/// In what order rows are read for the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By how the key follows the heap.
    Auto,
    /// Along the key's index.
    Keyset,
    /// By blocks of the heap.
    Physical,
}

/// How many workers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// As many as pay, up to the machine's cores.
    Auto,
    /// So many.
    Fixed(usize),
}

impl Workers {
    /// The number, where it is fixed.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Fixed(n) => Some(n),
        }
    }
}

/// What verification compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
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
    /// At once when verified.
    Verified,
}

/// What becomes of transactions whose snapshot is older than a swap: they would read wrong after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldSnapshots {
    /// The swap waits until they have ended.
    Wait,
    /// It cancels them.
    Cancel,
    /// It goes on; their writes are refused.
    Accept,
}

/// What becomes of foreign keys of other tables that cannot point to the partitioned table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncomingKeys {
    /// There is no job with one.
    Refuse,
    /// The swap drops them, a rollback brings them back.
    Drop,
}

/// How locks that applications wait behind are tried for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockBudget {
    /// The longest that they may wait behind one try.
    pub lock_timeout: Duration,
    /// How many tries.
    pub attempts: u32,
    /// No new try after this time.
    pub give_up_after: Duration,
    /// Sessions that have been in the way for longer are cancelled, then ended; none: never.
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
    /// Reads a plan; `file` is what messages call it.
    ///
    /// # Errors
    /// A usage error with every problem of the text, each with its line and column. Text that is no TOML gives the
    /// first problem only.
    pub fn parse(text: &str, file: &str) -> Result<Self, Error> {
        let (mirror, mut problems) = file::read(text);
        if let Some(mirror) = mirror {
            match resolve::resolve(&mirror) {
                Ok(plan) if problems.is_empty() => return Ok(plan),
                Ok(_) => {}
                // A key is missing because it is misspelt, as a rule: the unknown key is the one to tell.
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

    /// The table that the job is about.
    pub fn table(&self) -> &QualifiedName {
        &self.table
    }

    /// Roles whose code the job may run with its own rights, besides those that could act as its role anyway.
    pub fn trust(&self) -> &[String] {
        &self.trust
    }

    /// What the job is for.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// How the table is partitioned.
    ///
    /// # Errors
    /// The plan is for something else.
    pub fn partitioning(&self) -> Result<&Partitioning, Error> {
        if let Task::Partition(partitioning) = &self.task {
            Ok(partitioning)
        } else {
            Err(self.of_another_kind())
        }
    }

    /// What is filled, and how.
    ///
    /// # Errors
    /// The plan is for something else.
    pub fn backfill(&self) -> Result<&Backfill, Error> {
        if let Task::Backfill(backfill) = &self.task { Ok(backfill) } else { Err(self.of_another_kind()) }
    }

    /// Which column gets which type, and how.
    ///
    /// # Errors
    /// The plan is for something else.
    pub fn retype(&self) -> Result<&Retype, Error> {
        if let Task::Retype(retype) = &self.task { Ok(retype) } else { Err(self.of_another_kind()) }
    }

    fn of_another_kind(&self) -> Error {
        Error::usage(format!("job {} is a {} job: it has nothing of the sort", self.name, self.task.kind()))
            .hint(format!("`pgstrata status {}` says what comes next", word(&self.name)))
    }

    /// How many workers there are.
    pub fn workers(&self) -> Workers {
        self.workers
    }

    /// How long one chunk should take.
    pub fn target_batch(&self) -> Duration {
        self.target_batch
    }

    /// What holds the job, and how fast it may go.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// How much of a table may be dead rows, where there is a limit.
    pub fn dead_limit(&self) -> Option<DeadLimit> {
        self.throttle.max_dead_share.limit(self.task.purpose().updates_rows())
    }

    /// When the swap happens.
    pub fn when(&self) -> When {
        self.when
    }

    /// How long one try of the swap may wait for its lock, and the application behind it.
    pub fn lock_timeout(&self) -> Duration {
        self.budget.lock_timeout
    }

    /// How locks that applications wait behind are tried for.
    pub fn lock_budget(&self) -> LockBudget {
        self.budget
    }

    /// What becomes of transactions whose snapshot is older than a swap.
    pub fn old_snapshots(&self) -> OldSnapshots {
        self.old_snapshots
    }

    /// How long the old table is kept after the swap.
    pub fn keep_old(&self) -> Duration {
        self.keep_old
    }
}
