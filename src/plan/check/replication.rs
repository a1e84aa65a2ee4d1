//! Checks the recipients of the table's changes: subscribers, and other consumers of logical decoding.

use super::{Found, Published, Report, key_tables};
use crate::model::ident::{Ident, plain, plain_list};
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
                "slot {name} (plugin {plugin}) decodes the changes of every table: it receives the copy \
                 and, after the swap, the changes of the partitions under their own names"
            ),
            "make sure that the consumer of the slot skips the copy and recognizes the partitions",
        );
    }
    sessions(report, found);
}

/// Checks a publication of all tables, which also publishes the target and the tables of the job. These cannot be
/// updated before they have a key, and may not exist on the subscribers.
fn of_all_tables(report: &mut Report, found: &Found, publication: &Published) {
    let (name, table) = (plain(publication.name.as_str()), found.table.name.plain());
    let slots = publication.slots.join(", ");
    let whose = format!(
        "publication {name} publishes all tables of the database or of a schema, including \
            {table}"
    );
    let hint = format!(
        "until the job is finalized, publish tables by name: drop publication {name}; create publication {name} for \
         table ..."
    );
    if publication.changes {
        let message = format!(
            "{whose}: PostgreSQL would reject updates and deletes on the tables that the job creates, \
             until they have a key"
        );
        report.error("published", &name, message, hint);
    } else if publication.slots.is_empty() {
        let message = format!(
            "{whose}: it will also publish the partitioned table, and a subscriber without that \
                table stops"
        );
        report.warning(
            "published",
            &name,
            message,
            "first create the partitioned table and its partitions on the subscribers, or publish tables \
             by name",
        );
    } else {
        let message = format!(
            "{whose}: its subscriber (slot {slots}) does not have the partitioned table and would \
                stop"
        );
        report.error("published", &name, message, hint);
    }
}

/// Warns about `publish_via_partition_root`, which the swap sets, because it applies to every table of the publication.
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
            "publication {name} contains {partitions} of other tables: after the swap of {}, their \
             changes are published under the name of their root table",
            found.table.name.plain()
        ),
        "use a separate publication for the table, or make sure that the subscribers have the root tables",
    );
}

/// Checks the replica identity: with the key, it gets the partition column, or `drop_unique` drops it.
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
    let kept = chosen
        && key.is_none_or(|key| key.name != index.name)
        && key_tables::is_wanted(plan, table, key, index);
    if kept {
        report.error(
            "replica_identity",
            &name,
            format!(
                "{name} is the replica identity, but a key table keeps it unique, not the partitioned table"
            ),
            format!(
                "choose another replica identity: alter table {} replica identity using index ...",
                table.name.plain()
            ),
        );
        return;
    }
    if plan.drop_unique.iter().any(|n| n == index.name.as_str()) {
        if chosen || published {
            report.error(
                "replica_identity",
                &name,
                format!("drop_unique lists {name}, which is the replica identity"),
                format!(
                    "remove it from drop_unique, or choose another replica identity: alter table {} \
                     replica identity using index ...",
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
                    "publication {publication} publishes only the columns ({}), without {column}, which \
                     the key will contain: updates and deletes would fail after the swap",
                    plain_list(columns)
                ),
                format!(
                    "alter publication {publication} set table {} ({}, {column}), followed by its other \
                     tables",
                    table.name.plain(),
                    plain_list(columns)
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
                "postgres_fdw of another server has {sessions} here: postgres_fdw may update \
                 rows of {table} by ctid, which is not unique across partitions"
            ),
            "make sure that every UPDATE and DELETE of the foreign table is pushed down to this server as \
             a whole",
        );
    }
    if !around.strict_isolation.is_empty() {
        report.warning(
            "strict_isolation",
            &table,
            format!(
                "the default isolation level is REPEATABLE READ or SERIALIZABLE for {}: transactions that \
                 begin before the swap and write after it fail with SQLSTATE 40001",
                around.strict_isolation.join(", ")
            ),
            "make sure that the application retries, as it must at these isolation levels anyway",
        );
    }
}
