//! The plan: what a person wrote and reviewed, checked and with every default filled in.
//!
//! `file` mirrors the TOML, `resolve` turns it into a [`Plan`]; nothing else builds one. `identity` tells which of
//! its settings a started job is bound to. `check` holds it against a live table's facts. `suggest` and `draft` write
//! the first plan of a table.

pub mod check;
mod draft;
mod file;
mod identity;
mod live;
pub mod partitioning;
mod problem;
mod resolve;
mod retention;
mod suggest;
pub mod survey;
#[cfg(test)]
mod tests;
mod throttle;

use std::time::Duration;

pub use draft::{Facts, draft};
pub use identity::{Change, changed};
pub use live::assignment;
pub use retention::{How, Retention};
pub use suggest::{histogram_by_month, suggest, suggest_integers};
pub use throttle::{ReplicaLag, Throttle};

use crate::{
    error::Error,
    model::{ident::QualifiedName, partition::Every},
};

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
    by: String,
    every: Every,
    timezone: chrono_tz::Tz,
    from: Option<String>,
    to: Option<String>,
    ahead: u32,
    names: Option<String>,
    default: bool,
    drop_unique: Vec<String>,
    workers: Workers,
    order: Order,
    target_batch: Duration,
    throttle: Throttle,
    verify: Rows,
    when: When,
    budget: LockBudget,
    keep_old: Duration,
    incoming_keys: IncomingKeys,
    retention: Option<Retention>,
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

    /// The table to partition.
    pub fn table(&self) -> &QualifiedName {
        &self.table
    }

    /// The partition column, as the catalog holds its name.
    pub fn by(&self) -> &str {
        &self.by
    }

    /// How much one partition holds.
    pub fn every(&self) -> Every {
        self.every
    }

    /// Where a day or month begins, for a `timestamptz` column.
    pub fn timezone(&self) -> chrono_tz::Tz {
        self.timezone
    }

    /// Where the first partition begins, as written; none: at the oldest row.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Where the last partition ends, as written; none: at the newest row, and `ahead` beyond it.
    pub fn to(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// Partitions beyond the newest row.
    pub fn ahead(&self) -> u32 {
        self.ahead
    }

    /// The template of partition names; none: the interval's own.
    pub fn names(&self) -> Option<&str> {
        self.names.as_deref()
    }

    /// Whether there is a default partition for what fits nowhere.
    pub fn default_partition(&self) -> bool {
        self.default
    }

    /// Unique indexes and constraints whose guarantee is given up, as the catalog holds their names; sorted.
    pub fn drop_unique(&self) -> &[String] {
        &self.drop_unique
    }

    /// How many workers copy, index and verify at once.
    pub fn workers(&self) -> Workers {
        self.workers
    }

    /// In what order rows are read for the copy.
    pub fn order(&self) -> Order {
        self.order
    }

    /// How long one chunk should take.
    pub fn target_batch(&self) -> Duration {
        self.target_batch
    }

    /// What holds the job, and how fast it may go.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// What verification compares.
    pub fn verify(&self) -> Rows {
        self.verify
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

    /// How long the old table is kept after the swap.
    pub fn keep_old(&self) -> Duration {
        self.keep_old
    }

    /// What becomes of foreign keys of other tables that cannot point to the partitioned table.
    pub fn incoming_keys(&self) -> IncomingKeys {
        self.incoming_keys
    }

    /// How long partitions are kept; none: for good.
    pub fn retention(&self) -> Option<Retention> {
        self.retention
    }
}
