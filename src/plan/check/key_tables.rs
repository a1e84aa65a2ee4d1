//! Decides which unique indexes get a key table, and reports what follows from it.

use super::{Found, Report, nearest};
use crate::model::ident::{Ident, QualifiedName, plain, plain_list};
use crate::model::key_table::{self, KeyTable, UniqueIndex};
use crate::model::table::{ForeignKey, Index, Table, Trigger};
use crate::plan::{IncomingKeys, KeepUnique, Partitioning};

/// BEFORE UPDATE triggers whose names sort after it fire after the key table has recorded a move.
const LAST_BEFORE: &str = "~pgstrata_move_";
/// AFTER triggers whose names sort before it fire before the key table has the row's key.
const FIRST_AFTER: &str = "!pgstrata_";

/// The facts about a table from which its key tables follow.
#[derive(Debug, Clone, Default)]
pub struct UniqueFacts {
    /// The unique B-tree indexes.
    pub indexes: Vec<UniqueIndex>,
    /// Foreign keys that reference the table and whose name another constraint in their schema also has.
    pub ambiguous: Vec<Ident>,
    /// Tables that reference the table and whose owners are not trusted.
    pub untrusted: Vec<UntrustedChild>,
    /// Whether the owner of the table has USAGE on its schema.
    pub owner_has_usage: bool,
}

/// A table whose AFTER triggers would run with the privileges of a role that does not trust its owner.
#[derive(Debug, Clone)]
pub struct UntrustedChild {
    /// The unique index of the referenced table.
    pub index: Ident,
    /// The table, or a partition of it.
    pub table: QualifiedName,
    /// Its owner.
    pub owner: String,
    /// The role with whose privileges its triggers would run.
    pub role: String,
}

impl UntrustedChild {
    /// What the owner could do.
    pub fn message(&self, key_table: &QualifiedName) -> String {
        format!(
            "the triggers of {} would run with the privileges of role {} when key table {} deletes or updates a \
             referenced key, and the owner of that table, {}, is not trusted",
            self.table.plain(),
            plain(&self.role),
            key_table.plain(),
            plain(&self.owner)
        )
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        format!(
            "list {} in `trust`, or run the job as the owner of the tables; in PostgreSQL 18 and later, the \
             triggers do not run with these privileges",
            plain(&self.owner)
        )
    }
}

/// Returns the key tables of the plan.
pub(super) fn check(
    report: &mut Report,
    plan: &Partitioning,
    found: &Found,
    key: Option<&Index>,
) -> Vec<KeyTable> {
    let table = &found.table;
    if let KeepUnique::Listed(names) = &plan.keep_unique {
        unknown(report, table, names);
    }
    let wanted = table.indexes.iter().filter(|index| is_wanted(plan, table, key, index));
    let mut all = Vec::new();
    for index in wanted {
        let name = plain(index.name.as_str());
        match of_index(plan, found, index) {
            Ok(k) => {
                kept(report, plan, found, index, &k);
                rights(report, plan, found, index, &k);
                all.push(k);
            }
            Err(why) => report.error(
                "key_table_impossible",
                &name,
                format!("unique index {name} cannot be kept by a key table: {why}"),
                "give up the guarantee: list it under [partition] drop_unique",
            ),
        }
    }
    all
}

/// Whether a unique index lacks the partition column, and the plan keeps it.
pub(super) fn is_wanted(plan: &Partitioning, table: &Table, key: Option<&Index>, index: &Index) -> bool {
    let listed = |names: &[String]| names.iter().any(|name| name == index.name.as_str());
    let lacks = index.columns.as_ref().is_none_or(|columns| !columns.contains(&Ident::new(&plan.by)));
    if !index.unique
        || !index.valid
        || !index.is_btree()
        || index.exclusion.is_some()
        || !lacks
        || listed(&plan.drop_unique)
    {
        return false;
    }
    match &plan.keep_unique {
        KeepUnique::All => true,
        KeepUnique::None => false,
        KeepUnique::Listed(names) => listed(names),
        KeepUnique::Needed => {
            key.is_none_or(|key| key.name != index.name) || references(plan, table, index).next().is_some()
        }
    }
}

/// The foreign keys that reference a unique index, if the plan keeps them.
fn references<'a>(
    plan: &Partitioning,
    table: &'a Table,
    index: &'a Index,
) -> impl Iterator<Item = &'a ForeignKey> {
    let kept = plan.incoming_keys == IncomingKeys::Keep;
    table.referenced_by.iter().filter(move |key| kept && key.index.as_ref() == Some(&index.name))
}

fn of_index(plan: &Partitioning, found: &Found, index: &Index) -> Result<KeyTable, String> {
    let table = &found.table;
    let unique = found.keys.indexes.iter().find(|one| one.index == index.name);
    let unique = unique.ok_or("its columns could not be read")?;
    let comment = table.comments.iter().find(|c| c.kind == "constraint" && c.name == index.name);
    let comment = comment.map(|c| c.text.clone()).or_else(|| index.comment.clone());
    let referenced = references(plan, table, index).next().is_some();
    let generated = |column: &&Ident| table.column(column).is_some_and(|c| !c.generated.is_empty());
    let generated = index.columns.iter().flatten().find(generated);
    let late = table.triggers.iter().find(|t| changes_after_note(t));
    let keeps_moves = index.deferrable.is_empty() && generated.is_none() && late.is_none();
    let k = KeyTable::new(&table.name, &table.columns, index, unique, comment, keeps_moves)?;
    if !referenced {
        return Ok(k);
    }
    if let Some(column) = generated {
        return Err(format!(
            "foreign keys reference it, and column {} is a generated column",
            plain(column.as_str())
        ));
    }
    if let Some(trigger) = late {
        return Err(format!(
            "foreign keys reference it, and trigger {0} fires after the job's trigger that records that a row moves to \
             another partition; rename {0} so that its name sorts before {LAST_BEFORE}",
            plain(trigger.name.as_str())
        ));
    }
    Ok(k)
}

/// Whether a BEFORE UPDATE trigger could still change the partition column after the move was recorded.
fn changes_after_note(trigger: &Trigger) -> bool {
    let fires = trigger.fires().to_ascii_uppercase();
    let events = fires.split(" ON ").next().unwrap_or_default().to_owned();
    trigger.row
        && events.starts_with("BEFORE")
        && events.contains("UPDATE")
        && trigger.name.as_str() > LAST_BEFORE
}

fn unknown(report: &mut Report, table: &Table, names: &[String]) {
    let unique = || table.indexes.iter().filter(|i| i.unique).map(|i| i.name.as_str());
    for name in names.iter().filter(|name| !unique().any(|one| one == name.as_str())) {
        let hint = match nearest(name, unique()) {
            Some(near) => format!("did you mean {}?", plain(near)),
            None => "remove it from the list".to_owned(),
        };
        let message =
            format!("keep_unique lists {}, but {} has no such unique index", plain(name), table.name.plain());
        report.error("keep_unique", plain(name), message, hint);
    }
}

/// Reports owners of referencing tables that could use privileges of another role, and an owner that lacks a privilege.
fn rights(report: &mut Report, plan: &Partitioning, found: &Found, index: &Index, k: &KeyTable) {
    let table = &found.table;
    if references(plan, table, index).next().is_some() {
        for child in found.keys.untrusted.iter().filter(|child| child.index == index.name) {
            report.error("key_table_trust", child.table.plain(), child.message(&k.name), child.hint());
        }
    }
    if !found.keys.owner_has_usage {
        let (schema, owner) = (plain(table.name.schema.as_str()), plain(table.owner.as_str()));
        report.error(
            "key_table_usage",
            &owner,
            format!(
                "after finalize, the functions of key table {} run as {owner}, the owner of {}, which lacks USAGE on \
                 schema {schema}: every write would fail",
                k.name.plain(),
                table.name.plain()
            ),
            format!("grant usage on schema {schema} to {owner}"),
        );
    }
}

/// Reports that a key table keeps a unique index, and what it costs.
fn kept(report: &mut Report, plan: &Partitioning, found: &Found, index: &Index, k: &KeyTable) {
    let (name, keys) = (plain(index.name.as_str()), k.name.plain());
    let table = found.table.name.plain();
    let count = references(plan, &found.table, index).count();
    let and = match count {
        0 => String::new(),
        1 => ", and 1 foreign key references it".to_owned(),
        n => format!(", and {n} foreign keys reference it"),
    };
    report.note(
        "key_table",
        &name,
        format!(
            "{name} stays unique: key table {keys} has the constraint{and}; each insert into {table} also writes a row \
             there, which takes about {} microseconds, and the index of {table} itself becomes {}",
            if count == 0 { 6 } else { 14 },
            plain(key_table::local(&index.name).as_str())
        ),
    );
    if count == 0 {
        return;
    }
    for key in references(plan, &found.table, index).filter(|key| found.keys.ambiguous.contains(&key.name)) {
        let (key, from) = (plain(key.name.as_str()), key.table.plain());
        report.error(
            "key_table_name",
            &key,
            format!(
                "foreign key {key} of {from} has the same name as another constraint in its schema: SET CONSTRAINTS, \
                 which defers the foreign key to the end of each statement, would apply to both"
            ),
            format!("rename it: alter table {from} rename constraint {key} to ..."),
        );
    }
    let early = |t: &&Trigger| {
        let fires = t.fires().to_ascii_uppercase();
        t.row && fires.starts_with("AFTER") && t.name.as_str() < FIRST_AFTER
    };
    for trigger in found.table.triggers.iter().filter(early) {
        let trigger = plain(trigger.name.as_str());
        report.warning(
            "key_table_trigger",
            &trigger,
            format!("trigger {trigger} fires before key table {keys} has the key of a new row: it must not insert rows that reference the new row"),
            format!("rename it, so that its name sorts after {FIRST_AFTER}"),
        );
    }
}

/// Reports a foreign key that behaves differently when it references a key table.
pub(super) fn deferrals(report: &mut Report, key: &ForeignKey) {
    if key.table == key.references && key.definition.to_ascii_uppercase().contains("ON UPDATE CASCADE") {
        let name = plain(key.name.as_str());
        report.warning(
            "key_table_cascade",
            &name,
            format!(
                "foreign key {name} of {} references its own table ON UPDATE CASCADE: with a key table, an UPDATE that \
                 changes the referenced key and moves the row to another partition fails if it also reaches a row that \
                 references it",
                key.table.plain()
            ),
            "change the key and the partition column in two statements",
        );
    }
    if key_table::is_deferrable(key) && !key.definition.to_ascii_uppercase().contains("INITIALLY DEFERRED") {
        let name = plain(key.name.as_str());
        report.warning(
            "key_table_deferrable",
            &name,
            format!(
                "foreign key {name} of {} is DEFERRABLE INITIALLY IMMEDIATE: with a key table, NO ACTION is checked for \
                 each row, not at the end of the statement",
                key.table.plain()
            ),
            "if a statement deletes a row together with the rows that reference it, make the foreign key NOT DEFERRABLE or INITIALLY DEFERRED",
        );
    }
}

/// The columns of the key tables, for messages.
pub(super) fn columns(index: &Index) -> String {
    index
        .columns
        .as_ref()
        .map_or_else(|| "the values of its expression".to_owned(), |c| format!("({})", plain_list(c)))
}
