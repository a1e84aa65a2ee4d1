//! What hangs on the table and would not come along, or holds it fast.

use super::{Found, Report};
use crate::model::ident::{literal, plain};
use crate::model::table::Table;

pub(super) fn check(report: &mut Report, found: &Found) {
    let table = &found.table;
    foreign_keys(report, table);
    views(report, table);
    triggers(report, table);
    publications(report, found);
    for other in &table.others {
        report.error(
            "unclassified_dependent",
            other,
            format!("{other} depends on {}, and this version does not carry it over", table.name.plain()),
            "drop it before the run and create it again after the swap",
        );
    }
    for gid in &found.prepared {
        report.error(
            "prepared_transaction",
            gid,
            format!("prepared transaction {gid} holds a lock on {}", table.name.plain()),
            format!("commit prepared {0}, or rollback prepared {0}", literal(gid)),
        );
    }
}

/// A publication of everything takes the target in as well, and its subscribers need not have it.
fn publications(report: &mut Report, found: &Found) {
    let name = found.table.name.plain();
    for publication in &found.publications {
        let publication = plain(publication);
        report.warning(
            "published",
            &publication,
            format!(
                "publication {publication} has {name} for being one of all tables of the database or the schema: \
                 it will have the partitioned table too, and a subscriber that lacks it stops"
            ),
            "create the partitioned table and its partitions on the subscribers first, or publish tables by name",
        );
    }
}

fn foreign_keys(report: &mut Report, table: &Table) {
    for key in &table.referenced_by {
        let (name, from) = (plain(key.name.as_str()), key.table.plain());
        let from_itself = key.table == table.name;
        let whose = if from_itself { "the table itself".to_owned() } else { format!("table {from}") };
        report.error(
            "incoming_foreign_key",
            &name,
            format!("foreign key {name} of {whose} points to {}", table.name.plain()),
            format!(
                "drop it: alter table {from} drop constraint {name}; after the swap one can only point to the \
                 key with the partition column in it"
            ),
        );
    }
}

fn views(report: &mut Report, table: &Table) {
    for view in &table.views {
        let name = view.name.plain();
        if view.relkind == "m" {
            report.error(
                "materialized_view",
                &name,
                format!("materialized view {name} reads the table, and would go on reading the old one"),
                format!("drop materialized view {name}, and create it again after the swap"),
            );
        } else if view.bound_to_key {
            report.error(
                "view_bound_to_key",
                &name,
                format!(
                    "view {name} groups by the primary key alone or has a whole row as a column: \
                     it cannot be pointed to another table"
                ),
                "write out in it the columns that it groups by, or those of the row",
            );
        }
    }
}

fn triggers(report: &mut Report, table: &Table) {
    for trigger in &table.triggers {
        let name = plain(trigger.name.as_str());
        if trigger.row && trigger.transition {
            report.error(
                "trigger_with_transition_table",
                &name,
                format!("row trigger {name} reads a transition table, which a partitioned table cannot have"),
                "make it a statement trigger, or do without the transition table",
            );
        }
        if trigger.row && trigger.before_insert {
            report.warning(
                "before_insert_trigger",
                &name,
                format!(
                    "row trigger {name} fires before an insert: on a partitioned table it must not change the \
                     partition column so that the row belongs elsewhere"
                ),
                "look at its function",
            );
        }
    }
}
