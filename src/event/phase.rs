//! The work and the results of phases.
#![expect(missing_docs, reason = "the fields are named by what they hold")]

use serde::Serialize;

use crate::model::latency::Latency;

/// The work of a phase, by topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PhaseWork {
    /// Work on the tables of a partition job.
    Table(TableWork),
    /// Work on the columns of a backfill or a column type change.
    Column(ColumnWork),
    /// Work on constraints and indexes of the table in use.
    Constraint(ConstraintWork),
    /// Work that ends a job.
    End(EndWork),
    /// Work of the demo.
    Demo(DemoWork),
}

/// Work on the tables of a partition job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum TableWork {
    /// Creates the partitioned table and its partitions.
    CreatePartitionedTable { table: String, partitions: u64 },
    /// Creates the change log and the capture triggers.
    LogChanges { table: String },
    /// Copies rows. `physical`: in the order of the heap's blocks, otherwise in key order.
    CopyRows { physical: bool, workers: u64 },
    /// Deletes copied rows that changed. `again`: this was already done before.
    RemoveChangedRows { again: bool },
    /// Builds indexes on each partition.
    BuildPartitionIndexes { indexes: u64, partitions: u64 },
    /// Builds a key table, which keeps an index unique.
    BuildKeyTable { table: String, index: String },
    /// Vacuums and analyzes the partitions.
    Analyze,
    /// Applies the change log.
    ApplyChanges,
    /// Compares two tables.
    CompareTables { source: String, target: String },
    /// Exchanges the names of two tables.
    ExchangeTables { source: String, target: String, rollback: bool },
    /// Rebuilds a materialized view from the table in use.
    RebuildMaterializedView { view: String },
}

/// Work on the columns of a backfill or a column type change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ColumnWork {
    /// Adds the columns that a backfill fills.
    AddColumns { table: String, columns: u64 },
    /// Adds the column of the new type.
    AddColumn { table: String, column: String },
    /// Creates the trigger that fills new rows.
    FillByTrigger { table: String },
    /// Creates the trigger that keeps two columns in sync.
    SyncByTrigger { table: String },
    /// Fills rows, in a backfill or a column type change.
    FillRows { table: String, columns: Vec<String>, workers: u64 },
    /// Fills missed rows in a second pass over the table.
    SecondPass { table: String },
    /// Builds the indexes of the shadow column.
    BuildColumnIndexes { table: String, column: String, indexes: u64 },
    /// Adds and validates the constraints of the shadow column.
    ValidateConstraints { table: String },
    /// Compares two columns.
    CompareColumns { table: String },
    /// Exchanges the names of two columns.
    ExchangeColumns { table: String, source: String, target: String, rollback: bool },
}

/// Work on constraints and indexes of the table in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ConstraintWork {
    /// Finds rows that violate foreign keys.
    FindForeignKeyViolations,
    /// Validates foreign keys after a swap or a rollback.
    ValidateForeignKeys { table: String },
    /// Finds rows that violate the constraints to be added.
    FindViolations { table: String },
    /// Adds and validates the check constraint that keeps NULL out of the partition column and the key.
    KeepNullOut { table: String, columns: Vec<String> },
    /// Adds and validates check constraints.
    AddChecks { table: String, checks: u64 },
    /// Adds and validates foreign keys.
    AddForeignKeys { table: String, keys: u64 },
    /// Builds indexes.
    BuildIndexes { table: String, indexes: u64 },
}

/// Work that ends a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum EndWork {
    /// Completes a backfill.
    EndBackfill { table: String },
    /// Drops the old table; none if it does not exist, or is kept.
    DropOldTable { table: Option<String> },
    /// Drops the old column.
    DropOldColumn { table: String, column: String },
    /// Removes what the job created. `exists`: the table in use still exists.
    RemoveJob { table: String, exists: bool },
    /// Removes what a backfill created and did not complete.
    RemoveBackfill { table: String },
}

/// Work of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum DemoWork {
    /// Starts the demo's server.
    StartServer,
    /// Fills the demo's table and its witness.
    FillDemoTable { table: String },
    /// Compares the demo's table with its witness.
    CompareWitness,
}

impl PhaseWork {
    /// The name of the phase that does the work.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Table(work) => work.phase(),
            Self::Column(work) => work.phase(),
            Self::Constraint(work) => work.phase(),
            Self::End(work) => work.phase(),
            Self::Demo(work) => work.phase(),
        }
    }
}

fn exchange(rollback: bool) -> &'static str {
    if rollback { "rollback" } else { "swap" }
}

impl TableWork {
    fn phase(&self) -> &'static str {
        match self {
            Self::CreatePartitionedTable { .. } => "prepare",
            Self::LogChanges { .. } => "capture",
            Self::CopyRows { .. } => "copy",
            Self::RemoveChangedRows { .. } => "scrub",
            Self::BuildPartitionIndexes { .. } | Self::BuildKeyTable { .. } => "index",
            Self::Analyze => "analyze",
            Self::ApplyChanges => "drain",
            Self::CompareTables { .. } => "verify",
            Self::ExchangeTables { rollback, .. } => exchange(*rollback),
            Self::RebuildMaterializedView { .. } => "rebuild",
        }
    }
}

impl ColumnWork {
    fn phase(&self) -> &'static str {
        match self {
            Self::AddColumns { .. } | Self::AddColumn { .. } => "prepare",
            Self::FillByTrigger { .. } | Self::SyncByTrigger { .. } => "capture",
            Self::FillRows { .. } => "fill",
            Self::SecondPass { .. } | Self::CompareColumns { .. } => "verify",
            Self::BuildColumnIndexes { .. } => "index",
            Self::ValidateConstraints { .. } => "validate",
            Self::ExchangeColumns { rollback, .. } => exchange(*rollback),
        }
    }
}

impl ConstraintWork {
    fn phase(&self) -> &'static str {
        match self {
            Self::FindForeignKeyViolations => "verify",
            Self::KeepNullOut { .. } => "capture",
            Self::ValidateForeignKeys { .. } => "validate",
            Self::FindViolations { .. }
            | Self::AddChecks { .. }
            | Self::AddForeignKeys { .. }
            | Self::BuildIndexes { .. } => "finish",
        }
    }
}

impl EndWork {
    fn phase(&self) -> &'static str {
        match self {
            Self::EndBackfill { .. } => "finish",
            Self::DropOldTable { .. } | Self::DropOldColumn { .. } => "finalize",
            Self::RemoveJob { .. } | Self::RemoveBackfill { .. } => "abort",
        }
    }
}

impl DemoWork {
    fn phase(&self) -> &'static str {
        match self {
            Self::StartServer => "start",
            Self::FillDemoTable { .. } => "fill",
            Self::CompareWitness => "witness",
        }
    }
}

from_topics!(PhaseWork: Table(TableWork), Column(ColumnWork), Constraint(ConstraintWork), End(EndWork), Demo(DemoWork));

/// The result of a phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PhaseOutcome {
    /// The phase is complete, and there is nothing to count.
    Completed,
    /// The partitions exist.
    PartitionsReady { partitions: u64 },
    /// The columns exist.
    ColumnsReady { columns: u64 },
    /// The triggers that log changes or fill rows are active.
    TriggersReady,
    /// Rows were copied, by this run and earlier runs.
    RowsCopied { rows: u64, chunks: Latency },
    /// Rows were filled, by this run and earlier runs.
    RowsFilled { rows: u64, chunks: Latency },
    /// Rows were removed because they changed.
    RowsRemoved { rows: u64 },
    /// Every index is valid.
    IndexesValid,
    /// Changes were applied.
    ChangesApplied { changes: u64 },
    /// Both tables contain the same rows. `ranges` were compared row by row.
    TablesMatch { rows: u64, ranges: u64 },
    /// The tables differ.
    TablesDiffer { missing: u64, extra: u64, different: u64 },
    /// The columns are in sync in every row.
    ColumnsMatch { rows: u64 },
    /// The columns are not in sync in some rows.
    ColumnsDiffer { missing: u64, different: u64 },
    /// Every row was filled.
    RowsComplete,
    /// Some rows were not filled before. `rows_set` of them are filled now.
    RowsIncomplete { rows: u64, rows_set: u64 },
    /// No row violates a constraint.
    NoViolations,
    /// Rows violate some of the constraints.
    Violations { constraints: u64 },
    /// Every constraint is valid.
    ConstraintsValid,
    /// The names were exchanged.
    NamesExchanged { lock_held_ms: f64, attempt: u32 },
    /// Some foreign keys could not be validated.
    ForeignKeysNotValid { keys: u64 },
    /// The view reads the table in use.
    MaterializedViewRebuilt { view: String },
    /// The job is finalized, and the table is partitioned.
    TablePartitioned { table: String },
    /// The job is finalized, and the column has its new type.
    ColumnTypeChanged { table: String, column: String, sql_type: String },
    /// What a backfill created and did not complete was removed.
    TriggerRemoved,
    /// What the job created was removed.
    JobRemoved,
    /// The demo's server is running.
    ServerStarted { directory: String },
    /// The demo's table is filled.
    DemoTableFilled { rows: u64, bytes: u64 },
    /// The demo's table was compared with its witness.
    WitnessCompared { rows: u64, differing: u64 },
}

impl PhaseOutcome {
    /// Whether the phase reached its goal; otherwise an error or a warning follows.
    pub fn is_success(&self) -> bool {
        !matches!(
            self,
            Self::TablesDiffer { .. }
                | Self::ColumnsDiffer { .. }
                | Self::Violations { .. }
                | Self::ForeignKeysNotValid { .. }
        )
    }
}
