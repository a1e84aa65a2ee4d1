//! What somebody should look at.
#![expect(missing_docs, reason = "the fields are named by what they hold")]

use serde::Serialize;

use crate::model::blocker::{Blocker, SnapshotHolders};
use crate::model::maintained::Stray;
use crate::model::pace::ClosedWindows;
use crate::model::retry_limit::RetryLimit;

/// A warning, by what it is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Warning {
    /// About the run as a whole.
    Run(RunWarning),
    /// About throttling.
    Throttle(ThrottleWarning),
    /// About locks, blockers and old snapshots.
    Lock(LockWarning),
    /// About the change log and what reads it.
    ChangeLog(ChangeLogWarning),
    /// About something that the job does not drop.
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
    /// The run stops because it is outside the plan's windows.
    WindowClosed { windows: ClosedWindows },
    /// A step failed and is tried again.
    Retrying { step: String, attempt: u32, elapsed_ms: u64, limit: RetryLimit, error: String },
    /// The job was interrupted, and resumes from its recorded state.
    JobInterrupted { job: String, attempt: u32, elapsed_ms: u64, limit: RetryLimit, error: String },
    /// The server accepts no more sessions: the run continues with fewer workers.
    FewerWorkers { workers: u64, error: String },
    /// No synchronous standby has confirmed what is committed.
    StandbyNotConfirmed { waited_s: u64 },
    /// `maintain` failed on one of several tables.
    TableNotMaintained { table: String, error: String },
    /// A step after a swap or a rollback failed; a later command does it again.
    StepUndone { job: String, undone: Undone, error: String, hint: Option<String> },
    /// A step before a rollback is skipped because a lock could not be acquired.
    StepSkipped { error: String },
    /// A foreign key is NOT VALID when the job ends; the statements validate it.
    ForeignKeyNotValid { key: String, table: String, statements: Vec<String>, on_partitions: bool },
    /// Changes of the side in use could not be carried over.
    NotCarriedOver { error: String },
    /// The table differs from the original one as it should not after the swap.
    UnexpectedDifference { difference: String },
    /// A partition cannot be created: the default partition has rows of its range.
    PartitionBlocked { partition: String, range: String },
    /// The default partition has rows, by the ranges that they belong to.
    RowsInDefaultPartition { partition: String, rows: u64, ranges: Vec<Stray> },
}

/// What a step after a swap or a rollback left undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Undone {
    /// A foreign key is not on the partitioned table but on each partition.
    ForeignKeyOnPartitions { key: String },
    /// A foreign key is NOT VALID.
    ForeignKeyNotValid { key: String, table: String },
    /// A materialized view reads the table that is not in use.
    MaterializedViewNotRebuilt { view: String },
    /// Constraints of an interrupted rollback still exist.
    RollbackConstraints,
    /// An index is missing that a rollback needs.
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
    /// A standby has been gone for so long that it is ignored.
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
    /// The server refused to cancel or terminate.
    CancelRefused { error: String },
    /// Transactions with an older snapshot are waited for.
    WaitingForSnapshots { holders: SnapshotHolders },
    /// The mirror was switched off; without holders, because the change log did not stay empty.
    MirrorEnded { holders: SnapshotHolders },
    /// The mirror cannot be switched on.
    MirrorUnavailable { error: String },
    /// The mirror could not be switched off.
    MirrorStillOn { error: String },
    /// Constraints of a rollback that failed could not be removed.
    RollbackConstraintsLeft { error: String },
}

/// Warnings about the change log and what reads it.
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
    /// The change log is large.
    ChangeLogGrown { percent_of_source: u64 },
    /// The size of the change log is not known for now.
    ChangeLogNotWatched { error: String },
    /// The source's heap was rewritten: the copy starts over.
    HeapRewritten,
    /// A partition was truncated and is gone: the other table keeps its rows.
    TruncatedPartitionGone { job: String, source: String, target: String },
}

/// Warnings about something that the job does not drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum KeptWarning {
    /// A table has the name of the job's own but was not created by it.
    TableNotOwn { table: String },
    /// The job's table was renamed: it is not dropped.
    TableRenamed { table: String, now: String },
    /// A partition was detached from the job's table: it is not dropped.
    DetachedPartitionKept { partition: String },
    /// A column has the name of the job's own but was not created by it.
    ColumnNotOwn { column: String },
    /// The job's column was renamed: it is not dropped.
    ColumnRenamed { column: String, now: String },
}

impl From<RunWarning> for Warning {
    fn from(warning: RunWarning) -> Self {
        Self::Run(warning)
    }
}

impl From<ThrottleWarning> for Warning {
    fn from(warning: ThrottleWarning) -> Self {
        Self::Throttle(warning)
    }
}

impl From<LockWarning> for Warning {
    fn from(warning: LockWarning) -> Self {
        Self::Lock(warning)
    }
}

impl From<ChangeLogWarning> for Warning {
    fn from(warning: ChangeLogWarning) -> Self {
        Self::ChangeLog(warning)
    }
}

impl From<KeptWarning> for Warning {
    fn from(warning: KeptWarning) -> Self {
        Self::Kept(warning)
    }
}
