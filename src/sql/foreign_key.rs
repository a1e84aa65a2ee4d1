//! Foreign keys from and to the table. They exist only on the table in use. On the inactive table, a foreign key would
//! reject valid changes of the application (it deletes a row, then the row that it referenced) until a drain has
//! applied the first change. The swap therefore moves the foreign keys without reading rows, and they are validated
//! afterwards.
//!
//! Before PostgreSQL 18, a partitioned table does not support NOT VALID foreign keys, so each partition gets its own.
//! When all of them are valid, the foreign key of the parent is added, which only attaches them. Since PostgreSQL 18,
//! the parent gets the foreign key, which its partitions inherit; they are still validated one by one. A foreign key of
//! another table takes one statement in both cases.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{QualifiedName, literal};
use crate::model::table::ForeignKey;

/// Drops the keys of the table that goes out of use, and those of other tables that reference it. A key that is dropped
/// from the parent is also dropped from its `leaves`; a leaf has its own key only until the parent has the key.
pub fn drop(b: &Blueprint, ending: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let forward = ending == Direction::Forward;
    let drop = |table: &QualifiedName, key: &ForeignKey| {
        format!("alter table {table} drop constraint if exists {}", key.name)
    };
    let mut all = Vec::new();
    for key in b.own_keys() {
        all.push(drop(&b.table.name, key));
        all.extend(leaves.iter().filter(|_| !forward).map(|leaf| drop(leaf, key)));
    }
    let given_up = b.incoming_dropped.iter().filter(|_| forward);
    all.extend(b.child_keys().into_iter().chain(given_up).map(|key| drop(&key.table, key)));
    all
}

/// Adds the keys to the table that now has the name; `leaves` are its partitions if it is partitioned. Every later
/// write is checked. The comment is created with the key; if the parent gets the key later, the comment is also created
/// later.
pub fn add(b: &Blueprint, ending: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let forward = ending == Direction::Forward;
    let one = |table: &QualifiedName, key: &ForeignKey, comment: bool| {
        [on(table, &b.key_after(key, ending))].into_iter().chain(comment_on(table, key).filter(|_| comment))
    };
    let mut all = Vec::new();
    for key in b.own_keys() {
        let plain = [b.table.name.clone()];
        let by_leaf = forward && b.keys_on_leaves;
        let tables = if by_leaf { leaves } else { &plain };
        all.extend(tables.iter().flat_map(|table| one(table, key, !by_leaf || !key.validated)));
    }
    let back = b.incoming_dropped.iter().filter(|_| !forward);
    all.extend(b.child_keys().into_iter().chain(back).flat_map(|key| one(&key.table, key, true)));
    all
}

/// Adds one key to one table, without reading the rows.
pub fn on(table: &QualifiedName, key: &ForeignKey) -> String {
    format!("alter table {table} add constraint {} {} not valid", key.name, key.definition)
}

/// Checks all rows, with a lock that does not block writers.
pub fn validate(table: &QualifiedName, key: &ForeignKey) -> String {
    format!("alter table {table} validate constraint {}", key.name)
}

/// Adds the key of the parent when the key of every leaf is valid, without reading rows. If the parent already has the
/// key, validates it, with a weak lock. If it does not, also creates the comment; this locks the referenced table for a
/// short time, because one trigger replaces the triggers for the leaves.
pub fn on_parent(b: &Blueprint, key: &ForeignKey) -> Vec<String> {
    let table = &b.table.name;
    if !b.keys_on_leaves {
        return vec![validate(table, key)];
    }
    let key = &b.key_after(key, Direction::Forward);
    let mut all = vec![format!("alter table {table} add constraint {} {}", key.name, key.definition)];
    all.extend(comment_on(table, key));
    all
}

fn comment_on(table: &QualifiedName, key: &ForeignKey) -> Option<String> {
    let text = key.comment.as_ref()?;
    Some(format!("comment on constraint {} on {table} is {}", key.name, literal(text)))
}

/// Foreign keys on the relation with oid `$1`: table, name, whether it is validated.
pub const ON: &str = "select k.conrelid, k.conname::text, k.convalidated from pg_catalog.pg_constraint k
where k.contype = 'f' and k.conrelid = $1";

/// Foreign keys on the relation with oid `$1` or its leaves that are not inherited from a parent: table, name,
/// whether it is validated.
pub const OWN: &str = "select k.conrelid, k.conname::text, k.convalidated from pg_catalog.pg_constraint k
where k.contype = 'f' and k.conparentid = 0
  and (k.conrelid = $1 or k.conrelid in (select inhrelid from pg_catalog.pg_inherits where inhparent = $1))";
