//! Foreign keys, of the table and to it. They stand on the table in use and on no other: on a table that only follows, a key
//! would refuse what the application may do (delete a row, then the row that it pointed to) until a drain has brought the
//! first step over. So the swap moves them, without looking at the rows, and they are looked through afterwards.
//!
//! A partitioned table takes no NOT VALID key before PostgreSQL 18, so the partitions get it one by one; the parent's, added
//! once all of theirs are valid, only ties them together. From 18 on the parent gets it, and its partitions with it; they are
//! looked through one by one all the same. A key of another table is one statement either way.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{QualifiedName, literal};
use crate::model::table::ForeignKey;

/// Takes the keys from the table that goes out of use, and those of other tables to it. What is dropped from the parent goes
/// from its `leaves` too; a leaf has a key of its own only until the parent got it.
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

/// Gives the keys to the table that bears the name by now, whose `leaves` are named where it is the partitioned one. Every
/// write from here on is checked. A comment goes with its key; one that will be the parent's waits for that.
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

/// One key on one table, without looking at the rows.
pub fn on(table: &QualifiedName, key: &ForeignKey) -> String {
    format!("alter table {table} add constraint {} {} not valid", key.name, key.definition)
}

/// Looks at the rows, with a lock that lets everybody write.
pub fn validate(table: &QualifiedName, key: &ForeignKey) -> String {
    format!("alter table {table} validate constraint {}", key.name)
}

/// The parent's key, once every leaf's is valid: nothing is read. Where it has it already it becomes valid, with a weak lock;
/// where it gets it only now, with its comment, the table that it points to is locked for that moment, because its triggers
/// for the leaves give way to one for all.
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

/// Foreign keys on the relation with oid `$1`: table, name, whether the rows were looked through.
pub const ON: &str = "select k.conrelid, k.conname::text, k.convalidated from pg_catalog.pg_constraint k
where k.contype = 'f' and k.conrelid = $1";

/// Foreign keys that stand on the relation with oid `$1` or on a leaf of it and are nobody's part: table, name, whether the
/// rows were looked through.
pub const OWN: &str = "select k.conrelid, k.conname::text, k.convalidated from pg_catalog.pg_constraint k
where k.contype = 'f' and k.conparentid = 0
  and (k.conrelid = $1 or k.conrelid in (select inhrelid from pg_catalog.pg_inherits where inhparent = $1))";
