//! Warnings: problems that may need action.
#![expect(missing_docs, reason = "the fields are named by what they hold")]

use serde::Serialize;

use crate::model::blocker::{Blocker, SnapshotHolders};
use crate::model::maintained::Stray;
use crate::model::pace::ClosedWindows;
use crate::model::retry_limit::RetryLimit;

/// A warning, by topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Warning {
    /// About the run as a whole.
    Run(RunWarning),
    /// About throttling.
    Throttle(ThrottleWarning),
    /// About locks, blockers and old snapshots.
    Lock(LockWarning),
    /// About the change log and the copy.
    ChangeLog(ChangeLogWarning),
    /// About objects that the job does not drop.
    Kept(KeptWarning),
}

/// Warnings about the run as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RunWarning {
    /// Ctrl-C: the run stops after the current chunks.
    StopRequested,
    /// A second Ctrl-C: the running statements are canceled.
    CancelRequested,
    /// The run stops because the time is outside the plan's windows.
    WindowClosed { windows: ClosedWindows },
    /// A step failed and is retried.
    Retrying { step: String, attempt: u32, elapsed_ms: u64, limit: RetryLimit, error: String },
    /// The job was interrupted, and is resuming from its recorded state.
    JobInterrupted { job: String, attempt: u32, elapsed_ms: u64, limit: RetryLimit, error: String },
    /// The server accepts no more sessions: the run continues with fewer workers.
    FewerWorkers { workers: u64, error: String },
    /// No synchronous standby has confirmed the committed changes.
    StandbyNotConfirmed { waited_s: u64 },
    /// `maintain` failed on one of several tables.
    TableNotMaintained { table: String, error: String },
    /// A step after a swap or a rollback failed. A later command tries it again.
    StepUndone { job: String, undone: Undone, error: String, hint: Option<String> },
    /// A step before a rollback is skipped because a lock could not be acquired.
    StepSkipped { error: String },
    /// A foreign key is NOT VALID when the job ends. The statements validate it.
    ForeignKeyNotValid { key: String, table: String, statements: Vec<String>, on_partitions: bool },
    /// Changes of definitions could not be carried over to the inactive side.
    NotCarriedOver { error: String },
    /// After the swap, the table has an unexpected difference from the original table.
    UnexpectedDifference { difference: String },
    /// A partition cannot be created, because the default partition contains rows of its range.
    PartitionBlocked { partition: String, range: String },
    /// The default partition contains rows. Lists the ranges to which they belong.
    RowsInDefaultPartition { partition: String, rows: u64, ranges: Vec<Stray> },
}

/// The effect of a failed step after a swap or a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Undone {
    /// A foreign key is on each partition, but not on the partitioned table.
    ForeignKeyOnPartitions { key: String },
    /// A foreign key is NOT VALID.
    ForeignKeyNotValid { key: String, table: String },
    /// A materialized view reads the inactive table.
    MaterializedViewNotRebuilt { view: String },
    /// The former version of a function, for the row type of the inactive table, could not be dropped.
    FormerFunction { function: String },
    /// Constraints of an interrupted rollback still exist.
    RollbackConstraints,
    /// An index that a rollback needs is missing.
    RollbackIndex,
}

/// Warnings about throttling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ThrottleWarning {
    /// A standby of the plan cannot be queried.
    StandbyUnusable { error: String },
    /// The job has settings that this version does not support.
    UnknownSettings { error: String },
    /// A standby has been disconnected for so long that it is ignored.
    StandbyForgotten { standby: String, gone_ms: u64 },
}

/// Warnings about locks, blockers and old snapshots.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum LockWarning {
    /// A blocker's statement is canceled.
    StatementCanceled { blocker: Blocker },
    /// A blocker's session is terminated.
    SessionTerminated { blocker: Blocker },
    /// A blocker could not be canceled or terminated.
    CancelRefused { error: String },
    /// The swap waits for transactions with an older snapshot.
    WaitingForSnapshots { holders: SnapshotHolders },
    /// The mirror was switched off. Without holders: because the change log did not stay empty.
    MirrorEnded { holders: SnapshotHolders },
    /// The mirror cannot be switched on.
    MirrorUnavailable { error: String },
    /// The mirror could not be switched off.
    MirrorStillOn { error: String },
    /// Constraints of a failed rollback could not be removed.
    RollbackConstraintsLeft { error: String },
}

/// Warnings about the change log and the copy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ChangeLogWarning {
    /// The drain ends with pending changes.
    DrainStalled,
    /// Changes are written faster than they are drained.
    DrainTooSlow {
        written_per_second: f64,
        drained_per_second: f64,
        changes: u64,
        bytes: u64,
        growth_per_minute: u64,
    },
    /// The change log has outgrown the table: the table is copied again.
    CopyStartsOver { changes: u64, drained_per_second: f64, drain_s: u64, copy_s: u64 },
    /// The change log is large.
    ChangeLogGrown { percent_of_source: u64 },
    /// The size of the change log cannot be monitored for now.
    ChangeLogNotWatched { error: String },
    /// The source table was rewritten: the copy in block order starts over.
    HeapRewritten,
    /// A partition was truncated, and then detached or dropped: the inactive table keeps its rows.
    TruncatedPartitionGone { job: String, source: String, target: String },
}

/// Warnings about objects that the job does not drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum KeptWarning {
    /// A table has the name of a table of the job, but the job did not create it.
    TableNotOwn { table: String },
    /// The job's table was renamed: it is not dropped.
    TableRenamed { table: String, now: String },
    /// A partition was detached from the job's table: it is not dropped.
    DetachedPartitionKept { partition: String },
    /// A column has the name of a column of the job, but the job did not create it.
    ColumnNotOwn { column: String },
    /// The job's column was renamed: it is not dropped.
    ColumnRenamed { column: String, now: String },
}

from_topics!(Warning: Run(RunWarning), Throttle(ThrottleWarning), Lock(LockWarning), ChangeLog(ChangeLogWarning), Kept(KeptWarning));
