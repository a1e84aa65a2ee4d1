//! Foreign keys from and to the table. They exist only on the table in use. On the inactive table, a key would reject
//! what the application may do (delete a row, then the row that it referred to) until a drain has applied the first
//! step. The swap therefore moves them without reading the rows, and they are validated afterwards.
//!
//! Before PostgreSQL 18, a partitioned table does not accept a NOT VALID key, so each partition gets its own; the
//! parent's key is added once all of them are valid, and only attaches them. From 18 on, the parent gets the key, and
//! its partitions with it; they are still validated one by one. A key of another table takes one statement in either
//! case.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{QualifiedName, literal};
use crate::model::table::ForeignKey;

/// Drops the keys of the table that goes out of use, and those of other tables that refer to it. A key that is
/// dropped from the parent is dropped from its `leaves` as well; a leaf has a key of its own only until the parent
/// has it.
pub fn drop(b: &Blueprint, away: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let forward = away == Direction::Forward;
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

/// Adds the keys to the table that now has the name; `leaves` are its partitions if it is the partitioned one. Every
/// later write is checked. A comment is written with its key; if the key will become the parent's, the comment is
/// written then.
pub fn add(b: &Blueprint, away: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let forward = away == Direction::Forward;
    let one = |table: &QualifiedName, key: &ForeignKey, comment: bool| {
        [on(table, key)].into_iter().chain(comment_on(table, key).filter(|_| comment))
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

/// Adds the key of the parent once the key of every leaf is valid; no rows are read. If the parent has the key, it
/// becomes valid, with a weak lock. If the key and its comment are only added now, the table that it refers to is
/// locked for a moment, because one trigger replaces its triggers for the leaves.
pub fn on_parent(b: &Blueprint, key: &ForeignKey) -> Vec<String> {
    let table = &b.table.name;
    if !b.keys_on_leaves {
        return vec![validate(table, key)];
    }
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
