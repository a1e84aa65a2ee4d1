//! The post-swap diff. The table in use must have the same definition after a swap as before, except for the changes
//! that partitioning requires. The actual definition is compared with that after the swap.

use serde::{Deserialize, Serialize};

use super::blueprint::{Blueprint, Direction};
use super::dependent::Matview;
use super::difference::{Between, Difference, at, descriptions, differences};
use super::ident::{Ident, plain};
use super::table::{Column, Comment, ForeignKey, Index, Table};

/// A change that a swap makes because partitioning requires it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names of the fields describe them")]
pub enum SwapChange {
    /// The table is partitioned.
    Partitioned { table: String, column: String, partitions: u64 },
    /// A column is NOT NULL.
    NotNull { column: String },
    /// The key also includes the partition column.
    KeyWidened { key: String, columns: Vec<String> },
    /// A key table enforces the uniqueness of an index.
    KeyTable { index: String, table: String },
    /// An index is no longer unique, because it does not include the partition column.
    UniqueGivenUp { index: String },
    /// Storage parameters are set on each partition.
    StorageParametersOnPartitions,
    /// The index that CLUSTER uses is set on each partition.
    ClusterOnPartitions,
    /// A CHECK constraint is NOT VALID, because rows violate it.
    CheckNotValid { constraint: String },
    /// Each partition has a NOT VALID foreign key, instead of the table.
    ForeignKeyOnPartitions { key: String },
    /// A foreign key of another table is dropped.
    IncomingForeignKeyDropped { key: String, table: String },
    /// A publication publishes changes under the name of the table.
    PublishedViaRoot { publication: String },
}

/// The changes that the swap makes because partitioning requires them.
pub fn changes(b: &Blueprint) -> Vec<SwapChange> {
    let table = &b.table;
    let leaves = b.partitions.len() + usize::from(b.default.is_some());
    let name = |ident: &Ident| plain(ident.as_str());
    let (partitioned, column) = (table.name.plain(), name(&b.by));
    let mut all = vec![SwapChange::Partitioned { table: partitioned, column, partitions: leaves as u64 }];
    all.extend(b.not_null.iter().map(|column| SwapChange::NotNull { column: name(column) }));
    if b.widened() {
        let columns = b.place_columns().iter().map(|c| name(&c.name)).collect();
        all.push(SwapChange::KeyWidened { key: name(&b.target_index_name(&b.key_index)), columns });
    }
    all.extend(
        b.key_tables.iter().map(|k| SwapChange::KeyTable { index: name(&k.index), table: k.name.plain() }),
    );
    all.extend(b.drop_unique.iter().map(|index| SwapChange::UniqueGivenUp { index: name(index) }));
    if !(table.options.is_empty() && table.toast_options.is_empty()) {
        all.push(SwapChange::StorageParametersOnPartitions);
    }
    if table.indexes.iter().any(|i| i.clustered) {
        all.push(SwapChange::ClusterOnPartitions);
    }
    all.extend(b.violated_checks.iter().map(|check| SwapChange::CheckNotValid { constraint: name(check) }));
    let unproven = table.foreign_keys.iter().filter(|key| !key.validated && b.keys_on_leaves);
    all.extend(unproven.map(|key| SwapChange::ForeignKeyOnPartitions { key: name(&key.name) }));
    all.extend(
        b.incoming_dropped.iter().map(|key| SwapChange::IncomingForeignKeyDropped {
            key: name(&key.name),
            table: key.table.plain(),
        }),
    );
    let published = table.dependents.publications.iter().filter(|p| !p.via_root);
    all.extend(published.map(|p| SwapChange::PublishedViaRoot { publication: name(&p.name) }));
    all
}

/// Unexpected differences in `now`, the table in use after a swap.
pub fn unexpected(b: &Blueprint, now: &Table) -> Vec<String> {
    let mut expected = b.table.clone();
    expected.indexes = b.carried_indexes();
    expected.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut expected = common(expected);
    "p".clone_into(&mut expected.relkind);
    expected.oid = now.oid;
    for index in expected.indexes.iter_mut().filter(|i| b.is_key(i) && b.widened()) {
        widen(b, index);
    }
    for column in expected.columns.iter_mut().filter(|c| !c.not_null && b.not_null.contains(&c.name)) {
        column.not_null = true;
        let name = now.column(&column.name).and_then(|now| now.looks.as_ref()?.not_null.clone());
        if let Some(looks) = &mut column.looks {
            looks.not_null = name;
        }
    }
    let to_key_table =
        |key: &ForeignKey| key.index.as_ref().is_some_and(|index| b.key_table(index).is_some());
    let own: Vec<ForeignKey> = b.incoming.iter().filter(|key| to_key_table(key)).cloned().collect();
    expected
        .referenced_by
        .retain(|key| !own.iter().any(|one| one.name == key.name && one.table == key.table));
    for key in &own {
        let after = b.key_after(key, Direction::Forward);
        let to_itself = key.table == b.table.name;
        if to_itself { &mut expected.foreign_keys } else { &mut expected.referenced_by }.push(after);
    }
    expected.referenced_by.sort_by(|a, b| (&a.table.name, &a.name).cmp(&(&b.table.name, &b.name)));
    expected.foreign_keys.sort_by(|a, b| a.name.cmp(&b.name));
    let given_up: Vec<&Ident> = b.incoming_dropped.iter().map(|key| &key.name).collect();
    expected.referenced_by.retain(|key| !given_up.contains(&&key.name));
    expected.foreign_keys.retain(|key| key.validated || !b.keys_on_leaves);
    for check in expected.checks.iter_mut().filter(|check| b.violated_checks.contains(&check.name)) {
        // The rows may have been corrected and the constraint validated in the meantime.
        check.validated = now.checks.iter().any(|there| there.name == check.name && there.validated);
    }
    // Otherwise, partitions would accept NULL.
    expected.not_null_no_inherit.clear();
    for key in &mut expected.foreign_keys {
        key.index = None;
    }
    let gone = |c: &Comment| c.kind == "constraint" && !has_constraint(&expected, &c.name);
    let gone: Vec<Comment> = expected.comments.iter().filter(|c| gone(c)).cloned().collect();
    expected.comments.retain(|c| !gone.contains(c));
    for publication in &mut expected.dependents.publications {
        publication.via_root = true;
    }
    let now = common(now.clone());
    descriptions(&differences(&expected, &now, Between::Tables))
}

/// Objects that `side`, the table that an exchange brings into use, lacks because they were dropped there.
pub fn missing(b: &Blueprint, ending: Direction, side: &Table) -> Vec<String> {
    let table = &b.table;
    let (indexes, suffix) = match ending {
        Direction::Forward => (b.carried_indexes(), "_new"),
        Direction::Reverse => (table.indexes.clone(), "_old"),
    };
    let mut all = Vec::new();
    let mut need = |there: bool, kind: &str, name: &Ident| {
        if !there {
            all.push(format!("{kind} {}", plain(name.as_str())));
        }
    };
    for column in &table.columns {
        let other = side.column(&column.name);
        need(other.is_some(), "column", &column.name);
        if let Some(other) = other {
            let required = match ending {
                Direction::Forward => b.target_column(column).not_null,
                Direction::Reverse => column.not_null,
            };
            need(other.not_null || !required, "NOT NULL of column", &column.name);
            need(other.default.is_some() || column.default.is_none(), "the default of column", &column.name);
        }
    }
    for check in table.checks.iter().filter(|check| !b.checks_left_out.contains(&check.name)) {
        need(side.checks.iter().any(|one| one.name == check.name), "check constraint", &check.name);
    }
    for index in indexes {
        let name = index.name.with_suffix(suffix);
        need(side.indexes.iter().any(|one| one.name == name), "index", &name);
    }
    for trigger in &table.triggers {
        need(side.triggers.iter().any(|one| one.name == trigger.name), "trigger", &trigger.name);
    }
    for policy in &table.policies {
        need(side.policies.iter().any(|one| one.name == policy.name), "policy", &policy.name);
    }
    all
}

/// Whether the job itself caused a difference since an exchange: new partitions for rows, foreign keys that the parent
/// gets after its partitions, materialized views that are built again.
pub fn is_own_change(b: &Blueprint, now: &Table, one: &Difference) -> bool {
    let added = one.was.is_none();
    match one.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["children"] => now.relkind == "p",
        // If a key references the table itself, each partition has its own key until the parent has the key.
        ["referenced_by", name]
            if b.own_keys().iter().any(|key| {
                let leaves = b.partitions.iter().map(|p| &p.name).chain(&b.default);
                leaves.into_iter().any(|leaf| *name == format!("{} of {}", key.name.as_str(), leaf.plain()))
            }) =>
        {
            true
        }
        ["foreign_keys" | "referenced_by", _] if added => {
            let field = |name: &str| one.now.as_ref().and_then(|now| now.get(name)).and_then(|v| v.as_str());
            let is = |key: &&ForeignKey| field("name") == Some(key.name.as_str());
            let ending = if now.relkind == "p" { Direction::Forward } else { Direction::Reverse };
            let keys = b.own_keys_after(ending);
            keys.iter().any(|key| is(&key) && field("definition") == Some(key.definition.as_str()))
        }
        ["comments", name] if added => {
            let comment = |key: &&ForeignKey| *name == format!("constraint {}", key.name.as_str());
            b.own_keys().into_iter().any(|key| comment(&key) && key.comment.is_some())
        }
        ["dependents", "matviews", _] if added => {
            let mut planned = b.table.dependents.matviews.iter();
            let now = one.now.as_ref().and_then(|now| Matview::deserialize(now).ok());
            now.is_some_and(|now| planned.any(|m| now.is_as(m)))
        }
        _ => false,
    }
}

/// Adds the foreign keys that were added after an exchange, and that `now` has as planned, to `was`, the definition
/// that the exchange recorded. The keys are then only compared by their comments.
pub fn with_late_keys(b: &Blueprint, now: &Table, was: &mut Table) {
    let partitioned = now.relkind == "p";
    let same = |one: &ForeignKey, key: &ForeignKey| {
        one.name == key.name && one.table == key.table && one.definition == key.definition
    };
    let late = |now: &[ForeignKey], was: &mut Vec<ForeignKey>| {
        let missing = |key: &&ForeignKey| {
            now.iter().any(|one| same(one, key)) && was.iter().all(|one| one.name != key.name)
        };
        let ending = if partitioned { Direction::Forward } else { Direction::Reverse };
        let keys = b.own_keys_after(ending);
        let added: Vec<ForeignKey> = keys.iter().filter(missing).cloned().collect();
        was.extend(added);
        was.sort_by(|a, b| a.name.cmp(&b.name));
    };
    late(&now.foreign_keys, &mut was.foreign_keys);
    late(&now.referenced_by, &mut was.referenced_by);
}

/// Foreign keys that were dropped from `now`, the partitioned table in use. The recorded definition does not contain
/// them, because the exchange adds them to the partitions.
pub fn dropped_keys(b: &Blueprint, now: &Table) -> Vec<String> {
    let has = |key: &&ForeignKey| {
        now.foreign_keys.iter().any(|one| one.name == key.name)
            || now.referenced_by.iter().any(|one| one.name == key.name && one.table == key.table)
    };
    let keys = b.own_keys().into_iter().filter(|key| key.validated && b.keys_on_leaves && !has(key));
    keys.map(|key| format!("foreign key {} was dropped", plain(key.name.as_str()))).collect()
}

/// The differences in `found` that `side`, the table to which they were carried over, does not have. Objects that have
/// another name there, or that the exchange creates, are not compared.
pub fn not_carried(found: &[Difference], side: &Table) -> Vec<Difference> {
    let fields = [
        "owner",
        "grants",
        "default_privileges",
        "row_type",
        "row_security",
        "comment",
        "policies",
        "checks",
    ];
    let Ok(side) = serde_json::to_value(side) else { return found.to_vec() };
    let shown = |one: &&Difference| {
        let by_itself = fields.iter().any(|field| one.is_in(&[field])) && one.path.len() < 3;
        let of_column = one.is_in(&["columns"]) && !one.path.iter().any(|field| field == "default");
        let whole = |path: &[String]| at(&side, path).is_some() == one.now.is_some();
        match one.path.first().map(String::as_str) {
            Some("policies" | "checks") => whole(&one.path),
            _ if by_itself || of_column => at(&side, &one.path) == one.now.as_ref(),
            _ => true,
        }
    };
    found.iter().filter(|one| !shown(one)).cloned().collect()
}

/// Whether the table has a constraint with that name.
fn has_constraint(table: &Table, name: &Ident) -> bool {
    table.indexes.iter().any(|i| i.name == *name && !i.constraint.is_empty())
        || table.checks.iter().any(|c| c.name == *name)
        || table.foreign_keys.iter().any(|key| key.name == *name)
        || table.referenced_by.iter().any(|key| key.name == *name && key.table == table.name)
        || table.columns.iter().filter_map(|c| c.looks.as_ref()).any(|l| l.not_null.as_ref() == Some(name))
}

fn widen(b: &Blueprint, index: &mut Index) {
    index.columns = Some(b.place_columns().iter().map(|c| c.name.clone()).collect());
    index.include.retain(|c| *c != b.by);
}

/// Reduces the definition to the properties that a plain and a partitioned table can have in common.
fn common(mut table: Table) -> Table {
    "p".clone_into(&mut table.persistence);
    table.options.clear();
    table.toast_options.clear();
    table.access_method = None;
    table.children = 0;
    for index in &mut table.indexes {
        // A constraint of a partitioned table does not support parameters; those of its partitions do.
        if !index.constraint.is_empty() {
            index.options.clear();
            index.tail.clear();
        }
    }
    for column in &mut table.columns {
        let Column { options, .. } = column;
        options.retain(|o| !o.starts_with("n_distinct_inherited="));
    }
    for rule in table.dependents.rules.iter_mut().filter(|r| r.table == table.name) {
        rule.relkind.clear();
    }
    for key in &mut table.referenced_by {
        key.index = None;
        // After the swap, the referencing table of a key that references the table itself is partitioned.
        key.from_partitioned &= key.table != table.name;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    fn swapped(b: &Blueprint) -> Table {
        let mut now = b.table.clone();
        now.oid += 1;
        "p".clone_into(&mut now.relkind);
        now.options.clear();
        now.toast_options.clear();
        now.indexes[0].columns = Some(vec![Ident::new("observation_id"), Ident::new("created_at")]);
        "btree (observation_id, created_at)".clone_into(&mut now.indexes[0].tail);
        now.dependents.publications[0].via_root = true;
        now
    }

    #[test]
    fn only_changes_that_partitioning_requires_are_expected() {
        let b = blueprint();
        assert_eq!(unexpected(&b, &swapped(&b)), Vec::<String>::new());
        let lines: Vec<String> = changes(&b).iter().map(|one| serde_json::to_string(one).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"what":"partitioned","table":"public.petri_observations","column":"created_at","partitions":3}
        {"what":"key_widened","key":"petri_observations_pkey","columns":["observation_id","created_at"]}
        {"what":"storage_parameters_on_partitions"}
        {"what":"published_via_root","publication":"lab_out"}
        "#);
        let mut now = swapped(&b);
        now.views.clear();
        "D".clone_into(&mut now.triggers[0].enabled);
        now.indexes[0].columns = Some(vec![Ident::new("observation_id")]);
        now.comments.clear();
        now.grants.pop();
        insta::assert_snapshot!(unexpected(&b, &now).join("\n"), @"
        comment on trigger touch was removed
        privilege UPDATE (note) of public (granted by lab) was revoked
        index petri_observations_pkey changed (columns)
        trigger touch changed (enabled)
        view public.petri_observations_with_names was dropped
        ");
    }
}
