//! Sentences about the work and the result of a phase.

use crate::event::{ColumnWork, ConstraintWork, DemoWork, EndWork, PhaseOutcome, PhaseWork, TableWork};
use crate::model::latency::Latency;
use crate::model::number::{bytes, count, counted, percent, rate, seconds};

/// The sentence for the work of a phase.
pub(super) fn work(work: &PhaseWork) -> String {
    match work {
        PhaseWork::Table(work) => table(work),
        PhaseWork::Column(work) => column(work),
        PhaseWork::Constraint(work) => constraint(work),
        PhaseWork::End(work) => end(work),
        PhaseWork::Demo(work) => demo(work),
    }
}

fn table(work: &TableWork) -> String {
    match work {
        TableWork::CreatePartitionedTable { table, partitions } => {
            format!(
                "creating {table} with {}; applications do not use them yet",
                counted(*partitions, "partition")
            )
        }
        TableWork::LogChanges { table } => format!("creating triggers that log every change of {table}"),
        TableWork::CopyRows { physical, workers } => {
            let order = if *physical { "in the order of the table's blocks" } else { "in key order" };
            format!("copying rows {order} with {}; the table stays in use", counted(*workers, "worker"))
        }
        TableWork::RemoveChangedRows { again } => {
            let when = if *again { "after they were copied" } else { "during the copy" };
            format!(
                "removing rows from the new table that changed {when}; the drain copies their current versions"
            )
        }
        TableWork::BuildPartitionIndexes { indexes, partitions } => {
            let partitions = counted(*partitions, "partition");
            format!("building {} on each of {partitions}", plural(*indexes, "index", "indexes"))
        }
        TableWork::BuildKeyTable { table, index } => {
            format!("building key table {table}, which keeps {index} unique")
        }
        TableWork::Analyze => {
            "vacuuming and analyzing the partitions, so that queries are planned well from the start"
                .to_owned()
        }
        TableWork::ApplyChanges => "applying logged changes to the inactive table".to_owned(),
        TableWork::CompareTables { source, target } => {
            format!("comparing {source} and {target}; ranges whose checksums differ are compared row by row")
        }
        TableWork::ExchangeTables { source, target, .. } => {
            format!("exchanging the names of {source} and {target}")
        }
        TableWork::RebuildMaterializedView { view } => {
            format!("rebuilding {view} from the table in use; it stays readable")
        }
    }
}

fn column(work: &ColumnWork) -> String {
    match work {
        ColumnWork::AddColumns { table, columns } => {
            format!("adding {} to {table} without rewriting rows", counted(*columns, "column"))
        }
        ColumnWork::AddColumn { table, column } => {
            format!("adding column {column} to {table} without rewriting rows")
        }
        ColumnWork::FillByTrigger { table } => {
            format!("creating a trigger that fills the columns of rows written to {table}")
        }
        ColumnWork::SyncByTrigger { table } => {
            format!("creating a trigger that keeps both columns of {table} in sync")
        }
        ColumnWork::FillRows { table, columns, workers } => {
            let workers = counted(*workers, "worker");
            format!(
                "filling columns {} of {table} with {workers}; the table stays in use",
                columns.join(", ")
            )
        }
        ColumnWork::SecondPass { table } => {
            format!("checking every row of {table} again, and filling rows that were missed")
        }
        ColumnWork::BuildColumnIndexes { table, column, indexes } => {
            let indexes = plural(*indexes, "index", "indexes");
            format!("building {indexes} on column {column} of {table}; the table stays in use")
        }
        ColumnWork::ValidateConstraints { table } => {
            format!(
                "validating the constraints of the inactive column of {table}, so that the exchange reads no rows"
            )
        }
        ColumnWork::CompareColumns { table } => format!("comparing both columns in every row of {table}"),
        ColumnWork::ExchangeColumns { table, source, target, .. } => {
            format!("exchanging the names of columns {source} and {target} of {table}")
        }
    }
}

fn constraint(work: &ConstraintWork) -> String {
    match work {
        ConstraintWork::FindForeignKeyViolations => "looking for rows that violate foreign keys".to_owned(),
        ConstraintWork::ValidateForeignKeys { table } => {
            format!("validating foreign keys of {table}; they already check every write")
        }
        ConstraintWork::FindViolations { table } => {
            format!("looking for rows of {table} that violate the constraints to be added")
        }
        ConstraintWork::KeepNullOut { table, columns } => {
            let columns = columns.join(", ");
            format!(
                "adding a constraint that keeps NULL out of {columns} of {table}, then validating; the table stays writable"
            )
        }
        ConstraintWork::AddChecks { table, checks } => {
            let checks = counted(*checks, "check constraint");
            format!("adding {checks} to {table} as NOT VALID, then validating; the table stays writable")
        }
        ConstraintWork::AddForeignKeys { table, keys } => {
            let keys = counted(*keys, "foreign key");
            format!("adding {keys} to {table} as NOT VALID, then validating; the table stays writable")
        }
        ConstraintWork::BuildIndexes { table, indexes } => {
            format!("building {} on {table}; the table stays writable", plural(*indexes, "index", "indexes"))
        }
    }
}

fn end(work: &EndWork) -> String {
    match work {
        EndWork::EndBackfill { table } => format!("completing the backfill of {table}"),
        EndWork::DropOldTable { table: Some(table) } => {
            format!("dropping {table}; after this, a rollback is not possible")
        }
        EndWork::DropOldTable { table: None } => {
            "ending the job; after this, a rollback is not possible".to_owned()
        }
        EndWork::DropOldColumn { table, column } => {
            format!("dropping column {column} of {table}; after this, a rollback is not possible")
        }
        EndWork::RemoveJob { table, exists: true } => {
            format!("removing what the job created; {table} is not changed")
        }
        EndWork::RemoveJob { table, exists: false } => {
            format!("removing what the job created; {table} does not exist any more")
        }
        EndWork::RemoveBackfill { table } => {
            format!("ending the backfill; {table} keeps its columns and the values filled so far")
        }
    }
}

fn demo(work: &DemoWork) -> String {
    match work {
        DemoWork::StartServer => "starting a server".to_owned(),
        DemoWork::FillDemoTable { table } => format!("filling {table} and its witness"),
        DemoWork::CompareWitness => "comparing the table with its witness row by row".to_owned(),
    }
}

/// `1,234 of 12,345 rows (10 %), 340 rows/s, 32s left`.
pub(super) fn progress([done, total]: [u64; 2], unit: &str, per_second: f64, eta_s: Option<u64>) -> String {
    let mut text = match total {
        0 => format!("{} {unit}", count(done)),
        total => format!("{} of {} {unit}", count(done), count(total)),
    };
    if let Some(percent) = percent(done, total) {
        text.push_str(&format!(" ({percent})"));
    }
    if per_second > 0.0 {
        text.push_str(&format!(", {} {unit}/s", rate(per_second)));
    }
    if let Some(left_s) = eta_s {
        text.push_str(&format!(", {} left", seconds(left_s)));
    }
    text
}

/// The sentence for the result of a phase; empty if there is nothing to report.
pub(super) fn outcome(outcome: &PhaseOutcome) -> String {
    use PhaseOutcome as O;
    match outcome {
        O::Completed => String::new(),
        O::PartitionsReady { partitions } => format!("{} ready", counted(*partitions, "partition")),
        O::ColumnsReady { columns } => format!("{} ready", counted(*columns, "column")),
        O::TriggersReady => "the triggers are active".to_owned(),
        O::RowsCopied { rows, chunks } => format!("{} copied; {}", counted(*rows, "row"), latency(chunks)),
        O::RowsFilled { rows, chunks } => format!("{} filled; {}", counted(*rows, "row"), latency(chunks)),
        O::RowsRemoved { rows } => format!("{} removed from the new table", counted(*rows, "row")),
        O::IndexesValid => "all indexes are valid".to_owned(),
        O::ChangesApplied { changes } => format!("{} applied", counted(*changes, "change")),
        O::TablesMatch { rows, ranges } => {
            let ranges = counted(*ranges, "range");
            format!("both tables have the same {}; {ranges} compared row by row", counted(*rows, "row"))
        }
        O::TablesDiffer { missing, extra, different } => format!(
            "the tables differ: {}, {}, {}",
            plural(*missing, "missing row", "missing rows"),
            plural(*extra, "extra row", "extra rows"),
            plural(*different, "different row", "different rows")
        ),
        O::ColumnsMatch { rows } => format!("the columns are in sync in all {}", counted(*rows, "row")),
        O::ColumnsDiffer { missing, different } => {
            let rows = plural(missing + different, "row is", "rows are");
            let lost = if *missing == 0 { String::new() } else { lost(*missing) };
            format!("{rows} not in sync{lost}")
        }
        O::RowsComplete => "every row is filled".to_owned(),
        O::RowsIncomplete { rows, rows_set } => {
            format!(
                "{} not filled by the first pass; {} of them filled now",
                counted(*rows, "row"),
                count(*rows_set)
            )
        }
        O::NoViolations => "no violating row found".to_owned(),
        O::Violations { constraints } => {
            format!("rows violate {}", counted(*constraints, "constraint"))
        }
        O::ConstraintsValid => "all constraints are valid".to_owned(),
        O::NamesExchanged { lock_held_ms, attempt } => {
            format!("lock held for {lock_held_ms:.0} ms, attempt {attempt}")
        }
        O::ForeignKeysNotValid { keys } => {
            format!("{} not be validated", plural(*keys, "foreign key could", "foreign keys could"))
        }
        O::MaterializedViewRebuilt { view } => format!("{view} reads the table in use"),
        O::TablePartitioned { table } => format!("{table} is partitioned; the job is finalized"),
        O::ColumnTypeChanged { table, column, sql_type } => {
            format!("column {column} of {table} has type {sql_type}; the job is finalized")
        }
        O::TriggerRemoved => {
            "the job's trigger is removed; the columns and filled values are kept".to_owned()
        }
        O::JobRemoved => "everything that the job created is removed".to_owned(),
        O::ServerStarted { directory } => format!("server directory {directory}"),
        O::DemoTableFilled { rows, bytes: size } => {
            let (rows, size) = (counted(*rows, "row"), bytes(*size));
            format!("{rows} of two years, {size}, a uuid key and three more indexes")
        }
        O::WitnessCompared { rows, differing } => {
            format!(
                "{}, {} differ (compared with EXCEPT ALL in both directions)",
                counted(*rows, "row"),
                count(*differing)
            )
        }
    }
}

fn lost(rows: u64) -> String {
    format!("; {} without a value in the old type", count(rows))
}

fn plural(n: u64, singular: &str, plural: &str) -> String {
    format!("{} {}", count(n), if n == 1 { singular } else { plural })
}

/// `25 chunks of 20,000 rows, p50 480 ms, p99 900 ms, longest 1234 ms`.
fn latency(chunks: &Latency) -> String {
    format!(
        "{} of {}, p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        counted(chunks.chunks, "chunk"),
        counted(chunks.chunk_rows, "row"),
        chunks.p50_ms,
        chunks.p99_ms,
        chunks.max_ms
    )
}
