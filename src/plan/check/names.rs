//! Checks names, and other jobs. The names that the job needs must be free, and different from each other.

use std::collections::{BTreeMap, HashMap};

use super::{OpenJob, Report};
use crate::model::blueprint::Blueprint;
use crate::model::commands::ending;
use crate::model::ident::{Ident, plain};
use crate::model::number;
use crate::model::table::Table;
use crate::plan::Plan;

/// The maximum number of unavailable names to report individually.
const MAX_NAMED: u64 = 10;

/// Reports open jobs that conflict with the plan. Returns whether any job, this one or another, is open on the table.
pub(super) fn jobs(report: &mut Report, plan: &Plan, table: &Table, jobs: &[OpenJob]) -> bool {
    let source = table.name.plain();
    for OpenJob { name, source: theirs, state, is_swapped } in jobs {
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
            // The swap creates foreign keys again.
            (false, false) if *is_swapped && plan.task().purpose().is_swapped() => {
                if let Some(key) = connecting_key(table, theirs) {
                    report.error(
                        "table_in_other_job",
                        &source,
                        format!(
                            "job {name} is open on {theirs} ({state}), which foreign key {key} \
                            connects to {source}"
                        ),
                        format!(
                            "the swap of either job changes the foreign key on which the other \
                            relies; finish job {name} first, or end it: {}",
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

/// The name of the first foreign key between the table and another table.
fn connecting_key(table: &Table, other: &str) -> Option<String> {
    let to = table.foreign_keys.iter().find(|key| key.references.plain() == other);
    let from = table.referenced_by.iter().find(|key| key.table.plain() == other);
    to.or(from).map(|key| plain(key.name.as_str()))
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
        let of_leaf =
            |leaf: &&Ident| (b.leaf_index_name(leaf, &index.name), format!("index {shown} of a partition"));
        // The server chooses free names for the indexes of an exclusion constraint.
        all.extend(leaves.iter().filter(|_| index.exclusion.is_none()).map(of_leaf));
    }
    for sequence in b.table.sequences.iter().filter(|s| s.identity) {
        let shown = plain(sequence.name.name.as_str());
        for suffix in ["_new", "_old"] {
            all.push((sequence.name.name.with_suffix(suffix), format!("sequence {shown} during the swap")));
        }
    }
    all
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
                    format!("{what} has the name {shown}, which {purpose} needs"),
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
