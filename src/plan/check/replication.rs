//! Who gets the table's changes: subscribers, and others that decode the log.

use super::{Found, Published, Report, listed};
use crate::model::ident::{Ident, plain};
use crate::model::number;
use crate::model::table::{Index, ReplicaIdentity};
use crate::plan::Partitioning;

pub(super) fn check(report: &mut Report, plan: &Partitioning, found: &Found, key: Option<&Index>) {
    for publication in &found.around.publications {
        if publication.named {
            via_root(report, found, publication);
        } else {
            of_all_tables(report, found, publication);
        }
    }
    identity(report, plan, found, key);
    for slot in &found.around.decoding_slots {
        let (name, plugin) = (plain(&slot.name), &slot.plugin);
        report.warning(
            "logical_slot",
            &name,
            format!(
                "slot {name} (plugin {plugin}) decodes every table's changes: it will get the copy, and after the swap the \
                 partitions by their own names"
            ),
            "see that its reader passes over the copy and knows the partitions",
        );
    }
    sessions(report, found);
}

/// A publication of everything takes the target in as well, and the job's own tables: none of them can be updated before it
/// has a key, and subscribers need not have them.
fn of_all_tables(report: &mut Report, found: &Found, publication: &Published) {
    let (name, table) = (plain(publication.name.as_str()), found.table.name.plain());
    let slots = publication.slots.join(", ");
    let whose =
        format!("publication {name} has {table} for being one of all tables of the database or the schema");
    let hint = format!(
        "publish tables by name for the job: drop publication {name}; create publication {name} for table ..."
    );
    if publication.changes {
        let message = format!(
            "{whose}: PostgreSQL refuses updates and deletes of what the job makes, which has no key at first"
        );
        report.error("published", &name, message, hint);
    } else if publication.slots.is_empty() {
        let message =
            format!("{whose}: it will have the partitioned table too, and a subscriber that lacks it stops");
        report.warning(
            "published",
            &name,
            message,
            "create the partitioned table and its partitions on the subscribers first, or publish tables by name",
        );
    } else {
        let message =
            format!("{whose}: its subscriber (slot {slots}) lacks the partitioned table, and would stop");
        report.error("published", &name, message, hint);
    }
}

/// The swap sets `publish_via_partition_root`, which holds for all that the publication has.
fn via_root(report: &mut Report, found: &Found, publication: &Published) {
    if publication.partitions == 0 {
        return;
    }
    let name = plain(publication.name.as_str());
    let partitions = number::counted(publication.partitions.unsigned_abs(), "partition");
    report.warning(
        "publication_via_root",
        &name,
        format!(
            "publication {name} has {partitions} of other tables, by their own names: from the swap of {} on they are \
             published by their root's name",
            found.table.name.plain()
        ),
        "have a publication of its own for the table; or see that the subscribers know the roots",
    );
}

/// What tells subscribers of the old row gets the partition column with the key, or is given up.
fn identity(report: &mut Report, plan: &Partitioning, found: &Found, key: Option<&Index>) {
    let table = &found.table;
    let by = Ident::new(&plan.by);
    let index = match &table.replica_identity {
        ReplicaIdentity::Default => table.indexes.iter().find(|i| i.constraint == "p"),
        ReplicaIdentity::Index(name) => table.indexes.iter().find(|i| i.name == *name),
        ReplicaIdentity::Nothing | ReplicaIdentity::Full => None,
    };
    let Some(index) = index else { return };
    let (name, column) = (plain(index.name.as_str()), plain(by.as_str()));
    let chosen = matches!(table.replica_identity, ReplicaIdentity::Index(_));
    let published = found.around.publications.iter().any(|p| p.changes);
    if plan.drop_unique.iter().any(|n| n == index.name.as_str()) {
        if chosen || published {
            report.error(
                "replica_identity",
                &name,
                format!("drop_unique gives up {name}, by which subscribers tell rows apart"),
                format!(
                    "leave it out, or choose another: alter table {} replica identity using index ...",
                    table.name.plain()
                ),
            );
        }
        return;
    }
    if key.is_none_or(|k| k.name != index.name) {
        return;
    }
    for publication in &table.dependents.publications {
        let changes = found.around.publications.iter().any(|p| p.name == publication.name && p.changes);
        if let Some(columns) = publication.columns.as_ref().filter(|c| changes && !c.contains(&by)) {
            let publication = plain(publication.name.as_str());
            report.error(
                "publication_columns",
                &publication,
                format!(
                    "publication {publication} has only the columns ({}), without {column}, which the key will hold: \
                     updates and deletes would fail after the swap",
                    listed(columns)
                ),
                format!(
                    "alter publication {publication} set table {} ({}, {column}), and the other tables that it has",
                    table.name.plain(),
                    listed(columns)
                ),
            );
        }
    }
}

fn sessions(report: &mut Report, found: &Found) {
    let (around, table) = (&found.around, found.table.name.plain());
    if around.foreign_sessions > 0 {
        let sessions = number::counted(around.foreign_sessions.unsigned_abs(), "session");
        report.warning(
            "postgres_fdw",
            &table,
            format!(
                "{sessions} of postgres_fdw on another server: if it updates {table}, it does so by ctid, which is not \
                 unique across partitions"
            ),
            "see that no UPDATE or DELETE of the foreign table has a part that is not sent to this server",
        );
    }
    if !around.strict_isolation.is_empty() {
        report.warning(
            "strict_isolation",
            &table,
            format!(
                "transactions are REPEATABLE READ or SERIALIZABLE by default for {}: those that began before the swap and \
                 write after it get SQLSTATE 40001",
                around.strict_isolation.join(", ")
            ),
            "see that the application tries again, as it must at these levels anyway",
        );
    }
}
