//! Sentences for notes.

use crate::event::{BackfillNote, JobNote, MaintainNote, Note, PartitionNote, StandbyEffect};
use crate::model::number::counted;
use crate::model::post_swap_diff::SwapChange;
use crate::model::shell::word;
use crate::model::state::State;

/// The sentence for a note.
pub(super) fn of(note: &Note) -> String {
    match note {
        Note::Job(note) => job(note),
        Note::Partition(note) => partition(note),
        Note::Filling(note) => backfill(note),
        Note::Maintain(note) => maintain(note),
    }
}

fn job(note: &JobNote) -> String {
    match note {
        JobNote::JobPaused { job } => {
            format!("job {job} is paused: it begins no chunk until you run `pgstrata resume {}`", word(job))
        }
        JobNote::JobNotPaused { job } => format!("job {job} is resumed"),
        JobNote::SettingsStored { job, settings } => {
            format!("job {job}: {} changed, effective now", counted(*settings, "setting"))
        }
        JobNote::SettingChanged { key, value: Some(value) } => format!("{key} is now {value}"),
        JobNote::SettingChanged { key, value: None } => format!("{key} is now off"),
        JobNote::PlanSettingsChanged => {
            "the plan's settings have changed since the job began; the new settings apply from now on"
                .to_owned()
        }
        JobNote::DeadlineReached => "deadline reached: stopping after the current chunks".to_owned(),
        JobNote::AlreadyInState { job, state: State::RolledBack } => {
            format!("job {job} is already rolled back")
        }
        JobNote::AlreadyInState { job, state } => format!("job {job} is already {state}"),
        JobNote::AlreadyPartitioned { job, table } => format!("job {job} is done: {table} is partitioned"),
        JobNote::AlreadyFilled { job, table } => {
            format!("job {job} is done: no row of {table} is left to fill")
        }
        JobNote::AlreadyOfType { job, table, column, sql_type } => {
            format!("job {job} is done: column {column} of {table} has type {sql_type}")
        }
        JobNote::TableNotInUse { job, state } => {
            format!("job {job} is {state}: skipped, because its partitioned table is not in use")
        }
        JobNote::TableGone { job, table } => {
            format!("job {job}: skipped, because {table} does not exist any more")
        }
    }
}

fn partition(note: &PartitionNote) -> String {
    match note {
        PartitionNote::PartitionAdded { partition } => {
            format!("creating partition {partition} for new rows that fit no existing partition")
        }
        PartitionNote::MirrorSwitchedOff => {
            "switched off the mirror, which an earlier command left on".to_owned()
        }
        PartitionNote::AttachedPartitionWatched { partition } => {
            format!("{partition} was attached by hand; TRUNCATE of it is logged from now on")
        }
        PartitionNote::CarriedOver { target, changes } => {
            format!("applied to {target} as well: {}", changes.join("; "))
        }
        PartitionNote::CheckLeftOut { constraint, table, source } => format!(
            "dropped constraint {constraint} from {table}: a row of {source} no longer satisfies it; the next swap or \
             rollback adds it again as NOT VALID"
        ),
        PartitionNote::EarlierVersion { table } => {
            format!(
                "an earlier version of pgstrata began this job and did not record its objects; assuming that the job created {table}"
            )
        }
        PartitionNote::ChangedBySwap { change } => format!("changed by the swap: {}", swap_change(change)),
        PartitionNote::NothingElseChanged => "no other difference from the original table".to_owned(),
        PartitionNote::ChangeLogCompacted { removed } => {
            format!("compacted the change log: {} removed", counted(*removed, "repeated change"))
        }
        PartitionNote::ForeignKeyNotTested { key, error } => {
            format!(
                "could not look for rows that violate foreign key {key}: {error}; the swap continues, and if there are \
                 such rows, the key remains NOT VALID after it"
            )
        }
        PartitionNote::StandbysNotWaitedFor { standbys, effect } => {
            let effect = match effect {
                StandbyEffect::CanFail => "fail with SQLSTATE 40001",
                StandbyEffect::CanMissValues => "read NULL in the column",
            };
            format!(
                "the swap does not wait for transactions on standbys {} (hot_standby_feedback is off, and [throttle] \
                 replicas does not list them): a transaction there that began before the swap can {effect}",
                standbys.join(", ")
            )
        }
    }
}

/// The sentence for a change by a swap.
fn swap_change(change: &SwapChange) -> String {
    match change {
        SwapChange::Partitioned { table, column, partitions } => {
            format!("{table} is partitioned by {column} into {}", counted(*partitions, "partition"))
        }
        SwapChange::NotNull { column } => format!("column {column} is NOT NULL"),
        SwapChange::KeyWidened { key, columns } => format!("key {key} is on ({})", columns.join(", ")),
        SwapChange::KeyTable { index, table } => format!("key table {table} keeps {index} unique"),
        SwapChange::UniqueGivenUp { index } => format!("index {index} is no longer unique"),
        SwapChange::StorageParametersOnPartitions => {
            "storage parameters are set on each partition".to_owned()
        }
        SwapChange::ClusterOnPartitions => "the index for CLUSTER is set on each partition".to_owned(),
        SwapChange::CheckNotValid { constraint } => {
            format!("constraint {constraint} is NOT VALID, because rows violate it")
        }
        SwapChange::ForeignKeyOnPartitions { key } => {
            format!("foreign key {key}, which is NOT VALID, is on each partition")
        }
        SwapChange::IncomingForeignKeyDropped { key, table } => {
            format!("foreign key {key} of {table} is dropped")
        }
        SwapChange::PublishedViaRoot { publication } => {
            format!("publication {publication} publishes changes as those of the partitioned table")
        }
    }
}

fn backfill(note: &BackfillNote) -> String {
    match note {
        BackfillNote::ColumnsExist { table } => format!("{table} already has the columns"),
        BackfillNote::IndexRebuilt { index } => {
            format!("index {index} was left incomplete by an interrupted run: building it again")
        }
        BackfillNote::IndexWaits { index, blockers } => {
            let blockers: Vec<String> = blockers.iter().map(ToString::to_string).collect();
            format!(
                "the build of index {index} is waiting for older transactions to end (it blocks nobody): {}",
                blockers.join("; ")
            )
        }
        BackfillNote::BuiltAndKept { table, name } => format!("{name} of {table} is complete, and is kept"),
        BackfillNote::ColumnKept { table, column } => {
            format!("to drop the added column: alter table {table} drop column {column}")
        }
        BackfillNote::PartitionGone { partition } => {
            format!("{partition} no longer exists, so the job does not fill it")
        }
    }
}

fn maintain(note: &MaintainNote) -> String {
    match note {
        MaintainNote::PartitionCreated { partition, range } => {
            format!("created partition {partition} for {range}")
        }
        MaintainNote::ConstraintNotCopied { constraint, partition, column } => format!(
            "constraint {constraint} limits {column} to the range of partition {partition}, so new partitions do not get it"
        ),
        MaintainNote::PartitionExpired { partition, range, keep, rollback_possible } => {
            let kept = if *rollback_possible { "; it is kept while a rollback is possible" } else { "" };
            format!("partition {partition} for {range} is older than {keep}{kept}")
        }
        MaintainNote::PartitionDetached { partition, range } => {
            format!("detached partition {partition} for {range}; it is a separate table now")
        }
        MaintainNote::PartitionDropped { partition, range } => {
            format!("dropped partition {partition} for {range}")
        }
        MaintainNote::TriggerCreated { trigger, partition } => {
            format!("created trigger {trigger} of {partition}, which was created or attached by hand")
        }
        MaintainNote::TableAnalyzed { table } => format!("analyzed {table}"),
    }
}
