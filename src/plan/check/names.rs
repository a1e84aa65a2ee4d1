//! Checks names, and other jobs. The names that the job needs must be free, and different from each other.

use std::collections::{BTreeMap, HashMap};

use super::{Facts, OpenJob, Report};
use crate::model::blueprint::Blueprint;
use crate::model::commands::ending;
use crate::model::filling::Filling;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::number;
use crate::model::table::Table;
use crate::plan::Plan;

/// The maximum number of unavailable names to report individually.
const MAX_NAMED: u64 = 10;

/// Reports open jobs that conflict with the plan. Returns whether any job, this one or another, is open on the table.
pub(super) fn jobs(report: &mut Report, plan: &Plan, table: &Table, jobs: &[OpenJob]) -> bool {
    let source = table.name.plain();
    for job @ OpenJob { name, source: theirs, state, is_swapped, .. } in jobs {
        match (name == plan.name(), *theirs == source) {
            (true, true) => {
                report.note(
                    "job_under_way",
                    name,
                    format!("job {name} has already started ({state}): `run` continues it"),
                );
            }
            (true, false) => report.error(
                "job_name_taken",
                name,
                format!("another job with the name {name} is open on table {theirs} ({state})"),
                "choose another name: name = \"...\" at the top of the plan",
            ),
            (false, true) => report.error(
                "table_in_other_job",
                &source,
                format!("job {name} is open on the same table ({state})"),
                format!("continue that job, or end it: {}", ending(name, *state)),
            ),
            // The swap creates the objects again that connect the tables.
            (false, false) if *is_swapped && plan.task().purpose().is_swapped() => {
                if let Some(link) = connection(plan, table, job) {
                    report.error(
                        "table_in_other_job",
                        &source,
                        format!(
                            "{link} connects {source} to {theirs}, on which job {name} is open ({state})"
                        ),
                        format!(
                            "each swap would create it again; finish job {name} first, or end it: {}",
                            ending(name, *state)
                        ),
                    );
                }
            }
            (false, false) => {}
        }
    }
    jobs.iter().any(|job| job.source == source)
}

/// Reports a trigger that a finished backfill with the name of the plan left on a table, because `keep_filled` is
/// `"always"`: the job would replace the trigger's function. The same backfill of the same table may do so.
pub(super) fn kept_trigger(report: &mut Report, plan: &Plan, table: &Table, facts: &Facts) {
    let name = plan.name();
    if facts.jobs.iter().any(|job| job.name == name) {
        return;
    }
    let trigger = Filling::trigger_of(name);
    let same = |on: &QualifiedName| *on == table.name && !plan.task().purpose().is_swapped();
    let mut kept = facts.fill_triggers.iter().filter(|(one, _)| *one == trigger).map(|(_, on)| on).peekable();
    let Some(first) = kept.peek().copied() else { return };
    if !kept.any(same) {
        let (trigger, on) = (plain(trigger.as_str()), first.plain());
        report.error(
            "job_name_taken",
            name,
            format!("trigger {trigger} on {on}, which an earlier backfill with the name {name} left in place, calls a function that this job would replace"),
            format!("choose another name: name = \"...\" at the top of the plan; or drop the trigger: drop trigger {trigger} on {on}"),
        );
    }
}

/// The first object that connects the table with the table of another job and that a swap creates again: a foreign key
/// between them, or an object of the one that uses the other, if the one is partitioned.
fn connection(plan: &Plan, table: &Table, job: &OpenJob) -> Option<String> {
    let to = table.foreign_keys.iter().find(|key| key.references.plain() == job.source);
    let from = table.referenced_by.iter().find(|key| key.table.plain() == job.source);
    if let Some(key) = to.or(from) {
        return Some(format!("foreign key {}", plain(key.name.as_str())));
    }
    let source = table.name.plain();
    let on = |all: &[(String, QualifiedName)], other: &str| {
        let object = all.iter().find(|(_, of)| of.plain() == other)?;
        Some(format!("{} of {other}", object.0))
    };
    let theirs = job.partitions.then(|| on(&table.dependents.of_other_tables(), &job.source)).flatten();
    let partitions = !plan.task().purpose().updates_rows();
    theirs.or_else(|| partitions.then(|| on(&job.used_by, &source)).flatten())
}

/// Every name that the job needs in the table's schema, with its purpose.
fn wanted(b: &Blueprint) -> Vec<(Ident, String)> {
    let mut all = vec![
        (b.target().name, "the partitioned table (until the swap)".to_owned()),
        (b.old().name, "the old table (after the swap)".to_owned()),
    ];
    let leaves: Vec<&Ident> =
        b.partitions.iter().map(|p| &p.name.name).chain(b.default.as_ref().map(|d| &d.name)).collect();
    all.extend(leaves.iter().map(|leaf| ((*leaf).clone(), "a partition".to_owned())));
    for index in &b.table.indexes {
        all.push((
            index.name.with_suffix("_old"),
            format!("index {} (after the swap)", plain(index.name.as_str())),
        ));
    }
    for index in b.carried_indexes() {
        let shown = plain(index.name.as_str());
        all.push((index.name.with_suffix("_new"), format!("index {shown} of the partitioned table")));
        if b.table.indexes.iter().all(|own| own.name != index.name) {
            all.push((
                index.name.clone(),
                format!("index {shown} of the partitioned table (after the swap)"),
            ));
        }
        let of_leaf =
            |leaf: &&Ident| (b.leaf_index_name(leaf, &index.name), format!("index {shown} of a partition"));
        // The server chooses free names for the indexes of an exclusion constraint.
        all.extend(leaves.iter().filter(|_| index.exclusion.is_none()).map(of_leaf));
    }
    for k in &b.key_tables {
        let shown = plain(k.index.as_str());
        all.push((k.name.name.clone(), format!("the key table of {shown}")));
        all.push((k.index.with_suffix("_new"), format!("the constraint of the key table of {shown}")));
    }
    for sequence in b.table.sequences.iter().filter(|s| s.identity) {
        let shown = plain(sequence.name.name.as_str());
        for suffix in ["_new", "_old"] {
            all.push((sequence.name.name.with_suffix(suffix), format!("sequence {shown} during the swap")));
        }
    }
    all
}

/// Reports a constraint that has the name of the job's own constraint on the table.
pub(super) fn constraint(report: &mut Report, b: &Blueprint) {
    let Some(name) = b.not_null_check() else { return };
    let keys = b.table.foreign_keys.iter().map(|key| &key.name);
    let indexes =
        b.table.indexes.iter().filter(|index| !index.constraint.is_empty()).map(|index| &index.name);
    if b.table.checks.iter().map(|check| &check.name).chain(keys).chain(indexes).any(|one| *one == name) {
        let (name, table) = (plain(name.as_str()), b.table.name.plain());
        report.error(
            "name_taken",
            &name,
            format!(
                "the job needs the name {name} for a constraint of {table}, but another constraint has it"
            ),
            format!("rename it: alter table {table} rename constraint {name} to ..."),
        );
    }
}

/// Reports names that collide or are taken. `taken` is none if a job is open on the table, because that job may use
/// such names.
pub(super) fn check(report: &mut Report, b: &Blueprint, taken: Option<&BTreeMap<Ident, String>>) {
    let schema = plain(b.table.name.schema.as_str());
    let mut uses: HashMap<&Ident, &str> = HashMap::new();
    let wanted = wanted(b);
    let mut unavailable = 0;
    for (name, purpose) in &wanted {
        let shown = format!("{schema}.{}", plain(name.as_str()));
        let (code, message, hint) =
            match (uses.insert(name, purpose), taken.and_then(|taken| taken.get(name))) {
                (Some(other), _) => (
                    "names_collide",
                    format!("{purpose} and {other} would have the same name, {shown}"),
                    "rename the index, or change `names` under [partition]",
                ),
                (None, Some(what)) => (
                    "name_taken",
                    format!("the job needs the name {shown} for {purpose}, but {what} has it"),
                    "rename or drop it",
                ),
                (None, None) => continue,
            };
        unavailable += 1;
        if unavailable <= MAX_NAMED {
            report.error(code, &shown, message, hint);
        }
    }
    if unavailable > MAX_NAMED {
        let more = number::counted(unavailable - MAX_NAMED, "more name");
        let message = format!("{more} in schema {schema} are not available");
        report.error(
            "name_taken",
            schema,
            message,
            "rename or drop the objects that have these names, or change `names` under [partition]",
        );
    }
}
