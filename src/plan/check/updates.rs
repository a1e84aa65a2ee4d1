//! Checks whether the job can update the rows, and what the updates cause: triggers, rules, cascades, replication.

use super::Report;
use super::writing::{Pointing, UpdateTrigger, Writing};
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::number;
use crate::model::table::Table;
use crate::plan::Backfill;

pub(super) fn check(report: &mut Report, backfill: &Backfill, table: &Table, writing: &Writing) {
    let set: Vec<Ident> = backfill.set.iter().map(|(name, _)| Ident::new(name)).collect();
    stays_in_place(report, table, writing, &set);
    for rule in &writing.rules {
        let rule = plain(rule.as_str());
        report.error(
            "update_rule",
            &rule,
            format!(
                "rule {rule} rewrites every UPDATE of {}: the job's UPDATE statements would not have the \
                 intended effect",
                table.name.plain()
            ),
            format!(
                "disable it until the job is finalized (alter table {} disable rule {rule}), or replace it by a \
                 trigger",
                table.name.plain()
            ),
        );
    }
    for trigger in writing.triggers.iter().filter(|trigger| fires(trigger, &set)) {
        triggered(report, table, trigger);
    }
    for key in &writing.pointing {
        pointed_to(report, table, key, &set);
    }
    published(report, table, writing);
}

/// Reports foreign keys that reference a column that the plan sets. The server checks or updates the referencing rows.
fn pointed_to(report: &mut Report, table: &Table, key: &Pointing, set: &[Ident]) {
    let Some(column) = key.columns.iter().find(|column| set.contains(column)) else { return };
    let (name, other, column) = (plain(key.name.as_str()), key.table.plain(), plain(column.as_str()));
    let here = table.name.plain();
    let (message, hint) = if key.writes {
        (
            format!(
                "foreign key {name} of {other} cascades updates of column {column} of {here}: filling a \
                 row also updates the rows of {other} that reference it"
            ),
            "create an index on the referencing columns, and keep chunks small (target_batch_ms): the \
             referencing rows are locked and updated with each chunk",
        )
    } else {
        (
            format!(
                "foreign key {name} of {other} references column {column} of {here}: a referenced row \
                 cannot get another value"
            ),
            "exclude such rows with `where`, or make the foreign key ON UPDATE CASCADE first",
        )
    };
    report.warning("set_column_pointed_to", &name, message, hint);
}

/// Reports columns that determine the partition, because a moved row would have another place, and foreign partitions,
/// because the job cannot lock their rows.
fn stays_in_place(report: &mut Report, table: &Table, writing: &Writing, set: &[Ident]) {
    for column in set.iter().filter(|column| writing.routing.contains(column)) {
        let column = plain(column.as_str());
        report.error(
            "sets_partition_column",
            &column,
            format!(
                "column {column} determines the partition of a row of {}: filled rows would have to move \
                 to another partition",
                table.name.plain()
            ),
            "move such rows by hand: insert and delete them in one transaction",
        );
    }
    for foreign in &writing.foreign {
        let foreign = foreign.plain();
        report.error(
            "foreign_partition",
            &foreign,
            format!("partition {foreign} is a foreign table: its rows are stored on another server"),
            "fill its rows on that server; on this server, write a separate plan for each of the other \
             partitions",
        );
    }
}

/// Whether the job's UPDATE fires the trigger.
fn fires(trigger: &UpdateTrigger, set: &[Ident]) -> bool {
    trigger.columns.is_empty() || trigger.columns.iter().any(|column| set.contains(column))
}

fn triggered(report: &mut Report, table: &Table, trigger: &UpdateTrigger) {
    let (name, function) = (plain(trigger.name.as_str()), &trigger.function);
    let when = if trigger.before { "before" } else { "after" };
    let how_often = match (trigger.row, trigger.before) {
        (true, true) => "for each filled row, which it can change or leave unfilled",
        (true, false) => "for each filled row",
        (false, _) => "for each chunk",
    };
    report.warning(
        "update_trigger",
        &name,
        format!("trigger {name} calls {function} {when} an update of {}: {how_often}", table.name.plain()),
        "check that it should fire for these writes too (audit tables grow, and columns such as \
         updated_at change); to exclude them, create it with: when (current_setting('pgstrata.filling', \
         true) is distinct from 'on')",
    );
}

/// Reports publications that publish each filled row.
fn published(report: &mut Report, table: &Table, writing: &Writing) {
    for unidentified in &writing.unidentified {
        let name = unidentified.plain();
        report.error(
            "no_replica_identity",
            &name,
            format!(
                "updates of {name} are published, but it has no replica identity: the server would reject \
                 them"
            ),
            format!("set a replica identity: alter table {name} replica identity using index ..., or full"),
        );
    }
    if writing.publications.is_empty() {
        return;
    }
    let name = table.name.plain();
    report.note(
        "filled_rows_published",
        &name,
        format!(
            "{} {} each filled row of {name} to subscribers: limit the WAL that their slots may retain \
             with [throttle] max_slot_retained_bytes",
            publications(writing),
            if writing.publications.len() == 1 { "sends" } else { "send" }
        ),
    );
}

fn publications(writing: &Writing) -> String {
    match writing.publications.len() {
        1 => format!("publication {}", plain_list(&writing.publications)),
        n => format!("{} ({})", number::counted(n as u64, "publication"), plain_list(&writing.publications)),
    }
}
