//! What is worth knowing and needs no action.
#![expect(missing_docs, reason = "the fields are named by what they hold")]

use serde::Serialize;

use crate::model::blocker::Blocker;
use crate::model::post_swap_diff::SwapChange;
use crate::model::state::State;

/// A note, by what it is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Note {
    /// About a job and its settings.
    Job(JobNote),
    /// About a partition job or a column type change.
    Partition(PartitionNote),
    /// About a backfill.
    Filling(BackfillNote),
    /// About the partitions of a table that `maintain` keeps.
    Maintain(MaintainNote),
}

/// Notes about a job and its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum JobNote {
    /// The job was paused.
    JobPaused { job: String },
    /// The job is not paused any more.
    JobNotPaused { job: String },
    /// Settings of the job were changed.
    SettingsStored { job: String, settings: u64 },
    /// A setting has another value from now on; none where it is not set any more.
    SettingChanged { key: String, value: Option<String> },
    /// The plan's settings differ from those that the job began with.
    PlanSettingsChanged,
    /// The deadline of the run has passed.
    DeadlineReached,
    /// The job is in that state already.
    AlreadyInState { job: String, state: State },
    /// The finalized job's table is partitioned.
    AlreadyPartitioned { job: String, table: String },
    /// The finalized job's table has no row left to fill.
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
    /// A partition is created for rows that fit no other.
    PartitionAdded { partition: String },
    /// The mirror of an earlier command was on, and is off now.
    MirrorSwitchedOff,
    /// A partition was attached by hand; TRUNCATE of it is logged from now on.
    AttachedPartitionWatched { partition: String },
    /// Changes of the side in use were carried over to the other side.
    CarriedOver { target: String, changes: Vec<String> },
    /// The job was begun by an earlier version; the table is taken for its own.
    EarlierVersion { table: String },
    /// What the swap changed, as intended.
    ChangedBySwap { change: SwapChange },
    /// Nothing else differs from the original table.
    NothingElseChanged,
    /// Repeated changes were removed from the change log.
    ChangeLogCompacted { removed: u64 },
    /// Rows could not be tested against a foreign key.
    ForeignKeyNotTested { key: String, error: String },
    /// The plan lists no standby, so that transactions there are not waited for.
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
    /// An index of an interrupted run is built again.
    IndexRebuilt { index: String },
    /// A concurrent index build waits for older transactions.
    IndexWaits { index: String, blockers: Vec<Blocker> },
    /// A constraint or index that is complete is kept.
    BuiltAndKept { table: String, name: String },
    /// An added column is kept; the statement drops it.
    ColumnKept { table: String, column: String },
    /// A partition was dropped, and needs no filling.
    PartitionGone { partition: String },
}

/// Notes about the partitions that `maintain` keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum MaintainNote {
    /// A partition was created.
    PartitionCreated { partition: String, range: String },
    /// A constraint of the newest partition holds for that partition only.
    ConstraintNotCopied { constraint: String, partition: String, column: String },
    /// A partition is older than what is kept.
    PartitionExpired { partition: String, range: String, keep: String, rollback_possible: bool },
    /// A partition was detached.
    PartitionDetached { partition: String, range: String },
    /// A partition was dropped.
    PartitionDropped { partition: String, range: String },
    /// Statistics of the partitioned table were collected.
    TableAnalyzed { table: String },
}

impl From<JobNote> for Note {
    fn from(note: JobNote) -> Self {
        Self::Job(note)
    }
}

impl From<PartitionNote> for Note {
    fn from(note: PartitionNote) -> Self {
        Self::Partition(note)
    }
}

impl From<BackfillNote> for Note {
    fn from(note: BackfillNote) -> Self {
        Self::Filling(note)
    }
}

impl From<MaintainNote> for Note {
    fn from(note: MaintainNote) -> Self {
        Self::Maintain(note)
    }
}
