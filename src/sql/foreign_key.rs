//! Foreign keys to other tables. They stand on the table in use and on no other: on a table that only follows, a key would
//! refuse what the application may do (delete a row, then the row that it pointed to) until a drain has brought the first
//! step over. So the swap moves them, without looking at the rows, and they are looked through afterwards.
//!
//! A partitioned table takes no NOT VALID key before PostgreSQL 18, so the partitions get it one by one; the parent's, added
//! once all of theirs are valid, only ties them together.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::ForeignKey;

/// Takes the keys from the table that goes out of use. What is dropped from the parent goes from its `leaves` too; a leaf
/// has a key of its own only until the parent got it.
pub fn drop(b: &Blueprint, away: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let source = b.sides(away).source;
    let drop = |table: &QualifiedName, key: &ForeignKey| {
        format!("alter table {table} drop constraint if exists {}", key.name)
    };
    b.table
        .foreign_keys
        .iter()
        .flat_map(|key| {
            let own = leaves.iter().filter(|_| away == Direction::Reverse).map(move |leaf| drop(leaf, key));
            [drop(&source, key)].into_iter().chain(own)
        })
        .collect()
}

/// Gives the keys to the table that comes into use, whose `leaves` are named where it is the partitioned one. Every write
/// from here on is checked. A comment goes with its key; one that will be the parent's waits for that.
pub fn add(b: &Blueprint, away: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let target = [b.sides(away).target];
    let tables = if away == Direction::Forward { leaves } else { &target };
    let one = |table: &QualifiedName, key: &ForeignKey| {
        let parents = away == Direction::Forward && key.validated;
        let comment = comment(b, table, key).filter(|_| !parents);
        [on(table, key)].into_iter().chain(comment)
    };
    b.table.foreign_keys.iter().flat_map(|key| tables.iter().flat_map(move |table| one(table, key))).collect()
}

/// One key on one table, without looking at the rows.
pub fn on(table: &QualifiedName, key: &ForeignKey) -> String {
    format!("alter table {table} add constraint {} {} not valid", key.name, key.definition)
}

/// Looks at the rows, with a lock that lets everybody write.
pub fn validate(table: &QualifiedName, key: &ForeignKey) -> String {
    format!("alter table {table} validate constraint {}", key.name)
}

/// The parent's key and its comment, once every leaf's is valid. Nothing is read; the table that it points to is locked for
/// that moment, because its triggers for the leaves give way to one for all.
pub fn on_parent(b: &Blueprint, key: &ForeignKey) -> Vec<String> {
    let table = &b.table.name;
    let mut all = vec![format!("alter table {table} add constraint {} {}", key.name, key.definition)];
    all.extend(comment(b, table, key));
    all
}

/// The key's comment on `table`, where it has one: it went with the key.
fn comment(b: &Blueprint, table: &QualifiedName, key: &ForeignKey) -> Option<String> {
    let text = &b.table.comments.iter().find(|c| is_of(c.kind.as_str(), &c.name, key))?.text;
    Some(format!("comment on constraint {} on {table} is {}", key.name, literal(text)))
}

/// Whether a comment on something of that kind and name is the key's.
pub fn is_of(kind: &str, name: &Ident, key: &ForeignKey) -> bool {
    kind == "constraint" && *name == key.name
}

/// Foreign keys that stand on the relation with oid `$1` or on a leaf of it and are nobody's part: table, name, whether the
/// rows were looked through.
pub const OWN: &str = "select k.conrelid, k.conname::text, k.convalidated from pg_catalog.pg_constraint k
where k.contype = 'f' and k.conparentid = 0
  and (k.conrelid = $1 or k.conrelid in (select inhrelid from pg_catalog.pg_inherits where inhparent = $1))";
