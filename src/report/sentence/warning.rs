//! Sentences for warnings.

use std::time::Duration;

use crate::event::{
    ChangeLogWarning, KeptWarning, LockWarning, RunWarning, ThrottleWarning, Undone, Warning,
};
use crate::model::maintained::Stray;
use crate::model::number::{self, count, counted};
use crate::model::shell::word;

/// The maximum number of ranges of a default partition to list.
const MAX_RANGES: usize = 12;

/// The sentence for a warning.
pub(super) fn of(warning: &Warning) -> String {
    match warning {
        Warning::Run(warning) => run(warning),
        Warning::Throttle(warning) => throttle(warning),
        Warning::Lock(warning) => lock(warning),
        Warning::ChangeLog(warning) => change_log(warning),
        Warning::Kept(warning) => kept(warning),
    }
}

fn run(warning: &RunWarning) -> String {
    match warning {
        RunWarning::StopRequested => {
            "stopping after the current chunks; interrupt again to cancel them".to_owned()
        }
        RunWarning::CancelRequested => "ending the sessions of the job".to_owned(),
        RunWarning::WindowClosed { windows } => format!("stopping after the current chunks: {windows}"),
        RunWarning::Retrying { step, attempt, elapsed_ms, limit, error } => {
            let time = milliseconds(*elapsed_ms);
            format!("{step}: attempt {attempt} failed after {time}, retrying for up to {limit}: {error}")
        }
        RunWarning::JobInterrupted { job, attempt, elapsed_ms, limit, error } => {
            let time = milliseconds(*elapsed_ms);
            format!(
                "job {job} was interrupted and is resuming from its recorded state: attempt {attempt} failed after {time}, \
                 retrying for up to {limit}: {error}"
            )
        }
        RunWarning::FewerWorkers { workers, error } => {
            format!("continuing with {}: {error}", counted(*workers, "worker"))
        }
        RunWarning::StandbyNotConfirmed { waited_s } => format!(
            "the changes are committed, but no synchronous standby has confirmed them for {waited_s} s: a failover now would \
             lose them. Commits of applications wait for the standby as well"
        ),
        RunWarning::TableNotMaintained { table, error } => {
            format!("{table} could not be maintained: {error}")
        }
        RunWarning::StepUndone { job, undone, error, hint } => {
            let hint = hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
            let (undone, job) = (self::undone(undone), word(job));
            format!(
                "{undone}; error: {error}{hint}; correct the cause, then run `pgstrata sync {job}` to repeat the step"
            )
        }
        RunWarning::StepSkipped { error } => {
            format!(
                "could not complete the work that the last swap left (foreign keys, materialized views): {error}; the rollback continues"
            )
        }
        RunWarning::ForeignKeyNotValid { key, table, statements, on_partitions } => {
            let statements = statements.join(", then: ");
            let on = if *on_partitions { " on each partition" } else { "" };
            format!(
                "foreign key {key} of {table} is NOT VALID; correct the rows that violate it, then run{on}: {statements}"
            )
        }
        RunWarning::NotCarriedOver { error } => error.clone(),
        RunWarning::UnexpectedDifference { difference } => {
            format!("unexpected difference from the original table: {difference}")
        }
        RunWarning::PartitionBlocked { partition, range } => format!(
            "partition {partition} for {range} cannot be created while the default partition contains rows of that range; \
             they stay there until they are moved"
        ),
        RunWarning::RowsInDefaultPartition { partition, rows, ranges } => {
            format!("{} in default partition {partition}: {}", counted(*rows, "row"), strays(ranges))
        }
    }
}

fn undone(undone: &Undone) -> String {
    match undone {
        Undone::ForeignKeyOnPartitions { key } => {
            format!("foreign key {key} is on each partition, but not on the partitioned table")
        }
        Undone::ForeignKeyNotValid { key, table } => {
            format!("foreign key {key} of {table} could not be validated and remains NOT VALID; new writes are checked")
        }
        Undone::MaterializedViewNotRebuilt { view } => {
            format!("materialized view {view} still reads the inactive table")
        }
        Undone::FormerFunction { function } => {
            format!("the former version of function {function}, for the row type of the inactive table, could not be dropped")
        }
        Undone::RollbackConstraints => "constraints of an interrupted rollback could not be dropped, so writes that the old type cannot represent are rejected".to_owned(),
        Undone::RollbackIndex => {
            "an index that a rollback needs could not be built; a rollback builds it first, and takes longer".to_owned()
        }
    }
}

fn strays(ranges: &[Stray]) -> String {
    let all: Vec<String> = ranges.iter().take(MAX_RANGES).map(stray).collect();
    let more = match ranges.len().saturating_sub(MAX_RANGES) {
        0 => String::new(),
        1 => "; and 1 more range".to_owned(),
        n => format!("; and {} more ranges", count(n as u64)),
    };
    format!("{}{more}", all.join("; "))
}

fn stray(stray: &Stray) -> String {
    let rows = count(stray.rows);
    match (&stray.from, &stray.to) {
        (Some(from), Some(to)) => format!("{rows} in [{from}, {to})"),
        _ => format!("{rows} in no range (NULL, infinity, or out of range)"),
    }
}

fn throttle(warning: &ThrottleWarning) -> String {
    match warning {
        ThrottleWarning::StandbyUnusable { error } => format!("cannot query a standby of the plan: {error}"),
        ThrottleWarning::UnknownSettings { error } => {
            format!("the job has settings that this version does not support: {error}")
        }
        ThrottleWarning::StandbyForgotten { standby, gone_ms } => {
            format!(
                "standby {standby} has been disconnected for {}: ignoring it from now on",
                milliseconds(*gone_ms)
            )
        }
    }
}

fn lock(warning: &LockWarning) -> String {
    match warning {
        LockWarning::StatementCanceled { blocker } => {
            format!("canceling the statement of the blocker, as the plan requests: {blocker}")
        }
        LockWarning::SessionTerminated { blocker } => {
            format!("terminating the session of the blocker, as the plan requests: {blocker}")
        }
        LockWarning::CancelRefused { error } => {
            format!("could not cancel the session that blocks the job: {error}; grant pg_signal_backend to the job's role")
        }
        LockWarning::WaitingForSnapshots { holders } => {
            format!("waiting for transactions with an older snapshot: {holders}")
        }
        LockWarning::MirrorEnded { holders } if holders.is_empty() => {
            "switched the mirror off: the change log did not stay empty; the swap tries again until give_up_after".to_owned()
        }
        LockWarning::MirrorEnded { holders } => {
            format!(
                "switched the mirror off because of transactions with an older snapshot: {holders}; the swap tries again until give_up_after"
            )
        }
        LockWarning::MirrorUnavailable { error } => {
            format!(
                "the mirror cannot be switched on, so the change log may never be empty under load: {error}"
            )
        }
        LockWarning::MirrorStillOn { error } => format!("the mirror could not be switched off: {error}; it ends by itself within a minute"),
        LockWarning::RollbackConstraintsLeft { error } => {
            format!("constraints of the rollback remain, and the next command removes them: {error}")
        }
    }
}

fn change_log(warning: &ChangeLogWarning) -> String {
    match warning {
        ChangeLogWarning::DrainStalled => {
            "the drain ends with changes still pending, because applications write changes as fast as the drain applies them. \
             Nothing is lost: the next drain applies them"
                .to_owned()
        }
        ChangeLogWarning::DrainTooSlow {
            written_per_second,
            drained_per_second,
            changes,
            bytes,
            growth_per_minute,
        } => format!(
            "changes are written faster than they are drained: {} per second written, {} per second drained; the change log \
             holds {} ({}) and grows by {} per minute until it is compacted to one entry per row. At these rates, it never \
             becomes empty: reduce the writes, or stop the job and run it again at a quieter time",
            number::rate(*written_per_second),
            number::rate(*drained_per_second),
            counted(*changes, "change"),
            number::bytes(*bytes),
            count(*growth_per_minute),
        ),
        ChangeLogWarning::CopyStartsOver { changes, drained_per_second, drain_s, copy_s } => format!(
            "the change log has outgrown the table: it holds {}, and at {} per second it would take {} to apply them; the job \
             copies the table again, which took {}",
            counted(*changes, "change"),
            number::rate(*drained_per_second),
            number::duration(Duration::from_secs(*drain_s)),
            number::duration(Duration::from_secs(*copy_s)),
        ),
        ChangeLogWarning::ChangeLogGrown { percent_of_source } => {
            format!("the change log has grown to {percent_of_source} % of the size of the source table")
        }
        ChangeLogWarning::ChangeLogNotWatched { error } => {
            format!("the size of the change log cannot be monitored for now: {error}")
        }
        ChangeLogWarning::HeapRewritten => {
            "the source table was rewritten (VACUUM FULL, CLUSTER or TRUNCATE): the copy in block order starts over".to_owned()
        }
        ChangeLogWarning::TruncatedPartitionGone { job, source, target } => format!(
            "a partition of {source} was truncated and then detached or dropped: {target} keeps its rows; `pgstrata verify {}` \
             reports them as extra rows, and a rollback fails until you delete them: alter table {target} disable trigger \
             pgstrata_guard, delete them, alter table {target} enable always trigger pgstrata_guard",
            word(job)
        ),
    }
}

fn kept(warning: &KeptWarning) -> String {
    match warning {
        KeptWarning::TableNotOwn { table } => format!("{table} was not created by the job: it is kept"),
        KeptWarning::TableRenamed { table, now } => format!("{table} was renamed to {now}: it is kept"),
        KeptWarning::DetachedPartitionKept { partition } => {
            format!("{partition} was detached from the job's table: it is kept")
        }
        KeptWarning::ColumnNotOwn { column } => {
            format!("column {column} was not created by the job: it is kept")
        }
        KeptWarning::ColumnRenamed { column, now } => {
            format!("column {column} was renamed to {now}: it is kept")
        }
    }
}

fn milliseconds(ms: u64) -> String {
    number::duration(Duration::from_millis(ms))
}
