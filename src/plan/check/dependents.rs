//! Checks objects that depend on the table and cannot be carried over, or that prevent the swap.

use std::collections::BTreeMap;

use super::words::Words;
use super::{Found, Report, key_tables};
use crate::model::dependent::OtherDefault;
use crate::model::ident::{Ident, literal, plain, plain_list};
use crate::model::key_table::KeyTable;
use crate::model::number;
use crate::model::table::{ForeignKey, Index, Sequence, Table};
use crate::plan::{IncomingKeys, Partitioning};

pub(super) fn check(report: &mut Report, found: &Found, by: &Ident, key: Option<&Index>) {
    let table = &found.table;
    views(report, table);
    for other in &table.others {
        others(report, table, other);
    }
    bound_to_key(report, table, by, key);
    for gid in &found.prepared {
        report.error(
            "prepared_transaction",
            gid,
            format!("prepared transaction {gid} holds a lock on {}", table.name.plain()),
            format!("run `commit prepared {0}` or `rollback prepared {0}`", literal(gid)),
        );
    }
}

/// Reports a dependent object that cannot be carried over, or that this version does not know.
fn others(report: &mut Report, table: &Table, other: &str) {
    let name = table.name.plain();
    if other.starts_with("function ") || other.starts_with("procedure ") {
        report.error(
            "row_type_function",
            other,
            format!(
                "{other} takes or returns the row type of {name}, and cannot be created again for the row type \
                 of the new table"
            ),
            "drop what depends on it, or list the columns explicitly (arguments, or returns table (...)), or drop it \
             before the run, and create it again once the job is finalized",
        );
    } else if ["column ", "table ", "type "].iter().any(|kind| other.starts_with(kind)) {
        report.error(
            "row_type_column",
            other,
            format!("{other} uses the row type of {name}, which remains the row type of the old table"),
            "use a separate composite type: create type ... as (...)",
        );
    } else if other.starts_with("subscription ") {
        report.error(
            "subscribed",
            other,
            format!(
                "{other} writes to {name}; after the swap it would silently skip the partitioned \
                table until it is refreshed"
            ),
            format!(
                "remove the table from the publication on the other server, then run: alter {other} \
                refresh publication"
            ),
        );
    } else if let Some((constraint, code, why, hint)) = constraint(other) {
        report.error(code, constraint, format!("{constraint} is {why}"), hint);
    } else {
        report.error(
            "unclassified_dependent",
            other,
            format!("{other} depends on {name}, and this version does not carry it over"),
            "drop it before the run, and create it again once the job is finalized",
        );
    }
}

/// Constraints of PostgreSQL 18 and later that cannot be carried over to a partitioned table. Returns the constraint,
/// the code, the reason, and the hint.
fn constraint(other: &str) -> Option<(&str, &'static str, &'static str, &'static str)> {
    const KINDS: [(&str, &str, &str, &str); 3] = [
        (
            " (over a period)",
            "over_a_period",
            "defined with WITHOUT OVERLAPS or PERIOD, and such constraints are not carried over",
            "drop it before the run",
        ),
        (
            " (NOT VALID)",
            "not_null_not_valid",
            "NOT VALID, but on the partitions it would be valid",
            "validate it: alter table ... validate constraint ...",
        ),
        (
            " (NOT ENFORCED)",
            "not_enforced",
            "NOT ENFORCED, but on the partitions it would be enforced",
            "drop it before the run, and add it again once the job is finalized",
        ),
    ];
    KINDS.into_iter().find_map(|(mark, code, why, hint)| Some((other.strip_suffix(mark)?, code, why, hint)))
}

/// Reports storage parameters that are not carried over.
pub(super) fn options(report: &mut Report, found: &Found) {
    // Group by parameter, because a parameter that the server itself sets is on every column.
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for option in &found.around.unknown_options {
        let (name, of) = option.split_once(" of ").unwrap_or((option, ""));
        unknown.entry(name).or_default().push(of);
    }
    let text = |(name, of): (&&str, &Vec<&str>)| match of.as_slice() {
        [first, more @ ..] if !more.is_empty() => {
            format!("{name} of {first} and {}", number::counted(more.len() as u64, "other"))
        }
        of => format!("{name} of {}", of.join(", ")),
    };
    if !unknown.is_empty() {
        report.note(
            "unknown_options",
            found.table.name.plain(),
            format!(
                "undocumented storage parameters are neither carried over nor compared: {}",
                unknown.iter().map(text).collect::<Vec<_>>().join(", ")
            ),
        );
    }
}

/// Reports users of an identity column's sequence that are not carried over. `defaults` are the defaults of other
/// tables that are not carried over either.
pub(super) fn sequences<'a>(
    report: &mut Report,
    sequences: impl Iterator<Item = &'a Sequence>,
    defaults: &[OtherDefault],
) {
    for sequence in sequences.filter(|sequence| sequence.identity) {
        let default =
            |d: &OtherDefault| format!("the default of {}.{}", d.table.plain(), plain(d.column.as_str()));
        let mut uses: Vec<String> = sequence.uses.iter().flat_map(|uses| uses.by.clone()).collect();
        uses.extend(defaults.iter().map(default));
        uses.sort();
        for name in uses {
            report.error(
                "sequence_in_use",
                &name,
                format!(
                    "{name} uses sequence {} of identity column {}, which the swap replaces with a new \
                     sequence of the same name",
                    sequence.name.plain(),
                    plain(sequence.column.as_str())
                ),
                format!("drop {name} before the run, and create it again once the job is finalized"),
            );
        }
    }
}

/// Reports functions and rules whose body PostgreSQL parses when they are created: it rejects a body that relies on the
/// key without the partition column.
fn bound_to_key(report: &mut Report, table: &Table, by: &Ident, key: Option<&Index>) {
    let columns = key.and_then(|k| k.columns.as_deref()).filter(|columns| !columns.contains(by));
    let Some(columns) = columns else { return };
    let d = &table.dependents;
    let functions = d.functions.iter().map(|f| (format!("function {}", f.name), &f.definition, f.needs_key));
    let of_rule = |name: &Ident, of: &str| format!("rule {} on {of}", plain(name.as_str()));
    let rules = d.rules.iter().map(|r| (of_rule(&r.name, &r.table.plain()), &r.definition, r.needs_key));
    for (name, definition, needs_key) in functions.chain(rules) {
        if needs_key || Words::of(definition).arbiter_is(&table.name, columns) {
            let (column, key) = (plain(by.as_str()), plain_list(columns));
            report.error(
                "bound_to_key",
                &name,
                format!(
                    "{name} groups by ({key}) alone or uses ON CONFLICT ({key}), but the key of the \
                    partitioned table also contains {column}"
                ),
                format!("list all columns in its GROUP BY, add {column} to its ON CONFLICT, or drop it"),
            );
        }
    }
}

/// Checks foreign keys that reference the table. Returns those that are carried over, and those that the plan drops.
pub(super) fn incoming(
    report: &mut Report,
    plan: &Partitioning,
    table: &Table,
    key_tables: &[KeyTable],
    version: i32,
) -> (Vec<ForeignKey>, Vec<ForeignKey>) {
    let by = Ident::new(&plan.by);
    let (mut carried, mut dropped) = (Vec::new(), Vec::new());
    for key in &table.referenced_by {
        let kept = plan.incoming_keys == IncomingKeys::Keep
            && key_tables.iter().any(|k| Some(&k.index) == key.index.as_ref());
        if kept {
            key_tables::deferrals(report, key);
        }
        let unfit =
            if kept { partitioned_child(key, version) } else { unfit(plan, table, &by, key, version) };
        let why = match unfit {
            None => {
                carried.push(key.clone());
                continue;
            }
            Some(why) => why,
        };
        let (name, from) = (plain(key.name.as_str()), key.table.plain());
        let whose =
            if key.table == table.name { "the table itself".to_owned() } else { format!("table {from}") };
        let message = format!("foreign key {name} of {whose} references {}: {why}", table.name.plain());
        let drop = format!("alter table {from} drop constraint {name}");
        if key.from_partitioned && version < NOT_VALID_ON_PARTITIONED {
            // A rollback could not restore it either without scanning all of its rows under a lock.
            report.error("incoming_foreign_key", &name, message, format!("drop it: {drop}"));
        } else if plan.incoming_keys == IncomingKeys::Drop {
            report.warning(
                "incoming_foreign_key_dropped",
                &name,
                format!("{message}; the swap drops it, and a rollback restores it"),
                "make sure that the application works without it",
            );
            dropped.push(key.clone());
        } else {
            report.error(
                "incoming_foreign_key",
                &name,
                message,
                format!(
                    "keep it with a key table: set [dependents] incoming_fk = \"keep\", and do not set keep_unique = false; or drop it at the swap with [dependents] incoming_fk = \"drop\", or drop it by hand: \
                     {drop}; or change it so that it also references {}",
                    plain(by.as_str())
                ),
            );
        }
    }
    (carried, dropped)
}

/// The first version in which a partitioned table can have a foreign key that is NOT VALID.
pub(super) const NOT_VALID_ON_PARTITIONED: i32 = 180_000;
/// The first version in which an update that moves a row to another partition does not delete the referencing rows.
const MOVES_DELETE_CHILDREN: i32 = 150_000;

/// The reason why the key cannot reference the partitioned table; none if it can.
fn unfit(plan: &Partitioning, table: &Table, by: &Ident, key: &ForeignKey, version: i32) -> Option<String> {
    let index = table.indexes.iter().find(|i| Some(&i.name) == key.index.as_ref());
    let columns = index.and_then(|i| i.columns.as_ref());
    let given_up = |i: &Index| plan.drop_unique.iter().any(|n| n == i.name.as_str());
    if !columns.is_some_and(|columns| columns.contains(by)) || index.is_some_and(given_up) {
        let columns = columns.map_or(String::new(), plain_list);
        return Some(format!("the partitioned table is not unique on ({columns}) alone"));
    }
    if version < MOVES_DELETE_CHILDREN {
        return Some(
            "before PostgreSQL 15, an update that moves a row to another partition deletes the rows that \
             reference it"
                .into(),
        );
    }
    partitioned_child(key, version)
}

/// The reason why a foreign key of a partitioned table cannot be moved; none if it can, or the table is not partitioned.
fn partitioned_child(key: &ForeignKey, version: i32) -> Option<String> {
    (key.from_partitioned && version < NOT_VALID_ON_PARTITIONED).then(|| {
        "before PostgreSQL 18, a foreign key of a partitioned table cannot be moved without a long lock"
            .into()
    })
}

fn views(report: &mut Report, table: &Table) {
    let matviews = &table.dependents.matviews;
    for view in table.views.iter().chain(matviews.iter().map(|m| &m.view)).filter(|view| view.bound_to_key) {
        let name = view.name.plain();
        report.error(
            "view_bound_to_key",
            &name,
            format!(
                "view {name} groups by the primary key alone or has a whole row as a column, so it cannot \
                 be redirected to another table"
            ),
            "list the columns explicitly in the view",
        );
    }
    for m in matviews {
        let name = m.view.name.plain();
        for other in &m.others {
            report.error(
                "materialized_view",
                &name,
                format!(
                    "{other} depends on materialized view {name}, which is created again after the \
                    swap"
                ),
                format!("drop {other} before the run, and create it again once the job is finalized"),
            );
        }
    }
}
