//! Notes: information that needs no action.
#![expect(missing_docs, reason = "the fields are named by what they hold")]

use serde::Serialize;

use crate::model::blocker::Blocker;
use crate::model::post_swap_diff::SwapChange;
use crate::model::state::State;

/// A note, by topic.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Note {
    /// About a job and its settings.
    Job(JobNote),
    /// About a partition job or a column type change.
    Partition(PartitionNote),
    /// About a backfill.
    Filling(BackfillNote),
    /// About the partitions of a table that `maintain` manages.
    Maintain(MaintainNote),
}

/// Notes about a job and its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum JobNote {
    /// The job was paused.
    JobPaused { job: String },
    /// The job is not paused.
    JobNotPaused { job: String },
    /// Settings of the job were changed.
    SettingsStored { job: String, settings: u64 },
    /// A setting has a new value; none if it is no longer set.
    SettingChanged { key: String, value: Option<String> },
    /// The plan's settings differ from those with which the job began.
    PlanSettingsChanged,
    /// The deadline of the run has passed.
    DeadlineReached,
    /// The job is already in that state.
    AlreadyInState { job: String, state: State },
    /// The finalized job's table is partitioned.
    AlreadyPartitioned { job: String, table: String },
    /// The finalized job's table has no rows left to fill.
    AlreadyFilled { job: String, table: String },
    /// The finalized job's column has the type.
    AlreadyOfType { job: String, table: String, column: String, sql_type: String },
    /// `maintain` skips a job whose table is not in use.
    TableNotInUse { job: String, state: State },
    /// `maintain` skips a job whose table was dropped.
    TableGone { job: String, table: String },
}

/// Notes about a partition job or a column type change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PartitionNote {
    /// A partition is created for new rows that fit no existing partition.
    PartitionAdded { partition: String },
    /// The mirror, which an earlier command left on, was switched off.
    MirrorSwitchedOff,
    /// A partition was attached manually. TRUNCATE of it is logged from now on.
    AttachedPartitionWatched { partition: String },
    /// Changes of definitions were carried over to the inactive side.
    CarriedOver { target: String, changes: Vec<String> },
    /// A CHECK constraint rejected a row of the table in use, and was dropped from the inactive table.
    CheckLeftOut { constraint: String, table: String, source: String },
    /// An earlier version began the job. The table is assumed to be created by the job.
    EarlierVersion { table: String },
    /// An intended change by the swap.
    ChangedBySwap { change: SwapChange },
    /// Nothing else differs from the original table.
    NothingElseChanged,
    /// The change log was compacted: repeated changes were removed.
    ChangeLogCompacted { removed: u64 },
    /// The search for rows that violate a foreign key failed.
    ForeignKeyNotTested { key: String, error: String },
    /// The plan lists no standbys, so the swap does not wait for transactions on them.
    StandbysNotWaitedFor { standbys: Vec<String>, effect: StandbyEffect },
}

/// What happens to transactions with an old snapshot on a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyEffect {
    /// They can fail with SQLSTATE 40001.
    CanFail,
    /// They can read rows without the value in the other type.
    CanMissValues,
}

/// Notes about a backfill.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum BackfillNote {
    /// The columns to add exist already.
    ColumnsExist { table: String },
    /// An index that an interrupted run left incomplete is built again.
    IndexRebuilt { index: String },
    /// A concurrent index build waits for older transactions.
    IndexWaits { index: String, blockers: Vec<Blocker> },
    /// A complete constraint or index is kept.
    BuiltAndKept { table: String, name: String },
    /// An added column is kept. The sentence contains the statement that drops it.
    ColumnKept { table: String, column: String },
    /// A partition was dropped: its rows need no filling.
    PartitionGone { partition: String },
}

/// Notes about the partitions that `maintain` manages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum MaintainNote {
    /// A partition was created.
    PartitionCreated { partition: String, range: String },
    /// A constraint of the newest partition applies only to that partition, and is not copied.
    ConstraintNotCopied { constraint: String, partition: String, column: String },
    /// A partition is expired.
    PartitionExpired { partition: String, range: String, keep: String, rollback_possible: bool },
    /// A partition was detached.
    PartitionDetached { partition: String, range: String },
    /// A partition was dropped.
    PartitionDropped { partition: String, range: String },
    /// The trigger of a key table was created on a partition that was created or attached by hand.
    TriggerCreated { trigger: String, partition: String },
    /// The partitioned table was analyzed.
    TableAnalyzed { table: String },
}

from_topics!(Note: Job(JobNote), Partition(PartitionNote), Filling(BackfillNote), Maintain(MaintainNote));
