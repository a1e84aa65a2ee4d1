//! The facts that preflight queries about a table whose rows the job will update.

use serde::Deserialize;

use crate::model::ident::{Ident, QualifiedName};

/// What an update of a row triggers or requires, in the table and its partitions.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Writing {
    /// The user's triggers that fire on an update.
    pub triggers: Vec<UpdateTrigger>,
    /// Rules that rewrite an UPDATE.
    pub rules: Vec<Ident>,
    /// Partitions that are foreign tables.
    pub foreign: Vec<QualifiedName>,
    /// Tables in which row-level security hides rows from the job's role.
    pub hidden: Vec<QualifiedName>,
    /// Tables on which the role lacks SELECT.
    pub unreadable: Vec<QualifiedName>,
    /// Tables on which the role lacks UPDATE.
    pub unwritable: Vec<QualifiedName>,
    /// Schemas on which the role lacks USAGE.
    pub closed: Vec<Ident>,
    /// Columns that determine the partition of a row.
    pub routing: Vec<Ident>,
    /// Publications that publish updates of its rows.
    pub publications: Vec<Ident>,
    /// Tables whose updates are published but have no replica identity, so that the server rejects updates.
    pub unidentified: Vec<QualifiedName>,
    /// The indexes that an update may have to write to.
    pub indexes: Vec<OnColumns>,
    /// The table itself, or its partitions on this server.
    pub leaves: Vec<LeafFacts>,
    /// Foreign keys that reference its columns.
    pub pointing: Vec<Pointing>,
    /// Whether autovacuum is on.
    pub autovacuum: bool,
}

/// A foreign key that references this table.
#[derive(Debug, Clone, Deserialize)]
pub struct Pointing {
    /// Its name.
    pub name: Ident,
    /// The table that has it.
    pub table: QualifiedName,
    /// The referenced columns.
    pub columns: Vec<Ident>,
    /// Whether an update of a referenced row also updates the referencing rows (ON UPDATE CASCADE, SET NULL, SET
    /// DEFAULT). Otherwise the server rejects the update.
    pub writes: bool,
}

/// A trigger that fires on an update.
#[derive(Debug, Clone, Deserialize)]
pub struct UpdateTrigger {
    /// Its name.
    pub name: Ident,
    /// Whether it fires for each row. Otherwise it fires for each statement.
    pub row: bool,
    /// Whether it fires before the update. Otherwise it fires after the update.
    pub before: bool,
    /// It fires only if one of these columns is set; empty: always.
    pub columns: Vec<Ident>,
    /// Its function, as SQL.
    pub function: String,
}

/// An index, with all columns that it depends on: keys, INCLUDE columns, columns in expressions and predicates.
#[derive(Debug, Clone, Deserialize)]
pub struct OnColumns {
    /// Its name.
    pub name: Ident,
    /// The columns.
    pub columns: Vec<Ident>,
}

/// A plain table or a partition, which contains rows.
#[derive(Debug, Clone, Deserialize)]
pub struct LeafFacts {
    /// Its schema and name.
    pub name: QualifiedName,
    /// The number of rows, according to the statistics; -1 without statistics.
    pub rows: f64,
    /// The size of its heap, in bytes.
    pub heap_bytes: f64,
    /// The size of its indexes, in bytes.
    pub index_bytes: f64,
    /// The size of its live rows in bytes, according to the statistics; none without statistics.
    pub live_bytes: Option<f64>,
    /// The fillfactor, in percent.
    pub fillfactor: i32,
    /// Whether autovacuum is enabled for it.
    pub autovacuum: bool,
    /// The number of dead rows at which autovacuum starts.
    pub vacuum_at: f64,
}
