//! What preflight asks about a table whose rows are going to be updated, as data.

use serde::Deserialize;

use crate::model::ident::{Ident, QualifiedName};

/// What an update of each row sets in motion, in the table and its partitions.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Writing {
    /// The user's triggers that fire.
    pub triggers: Vec<UpdateTrigger>,
    /// Rules that rewrite an UPDATE.
    pub rules: Vec<Ident>,
    /// Partitions that are on another server.
    pub foreign: Vec<QualifiedName>,
    /// Tables of whose rows row-level security hides some from our role.
    pub hidden: Vec<QualifiedName>,
    /// Tables without SELECT.
    pub unreadable: Vec<QualifiedName>,
    /// Tables without UPDATE.
    pub unwritable: Vec<QualifiedName>,
    /// Schemas without USAGE.
    pub closed: Vec<Ident>,
    /// Columns that decide in which partition a row belongs.
    pub routing: Vec<Ident>,
    /// Publications that send updates of its rows.
    pub publications: Vec<Ident>,
    /// Tables of which an update is published, and the server refuses it: it has nothing that tells the row.
    pub unidentified: Vec<QualifiedName>,
    /// The table's indexes that an update may have to write to.
    pub indexes: Vec<OnColumns>,
    /// The table, or its partitions, on this server.
    pub leaves: Vec<Leaf>,
    /// Foreign keys that point to its columns.
    pub pointing: Vec<Pointing>,
    /// The server vacuums by itself.
    pub autovacuum: bool,
}

/// A foreign key of some table to this one.
#[derive(Debug, Clone, Deserialize)]
pub struct Pointing {
    /// Its name.
    pub name: Ident,
    /// Whose it is.
    pub table: QualifiedName,
    /// The columns here that it points to.
    pub columns: Vec<Ident>,
    /// An update here writes there too (ON UPDATE CASCADE, SET NULL, SET DEFAULT); else it is refused where a row points to it.
    pub writes: bool,
}

/// A trigger that fires on an update.
#[derive(Debug, Clone, Deserialize)]
pub struct UpdateTrigger {
    /// Its name.
    pub name: Ident,
    /// For each row; else for each statement.
    pub row: bool,
    /// Before the row is written; else after.
    pub before: bool,
    /// Only where one of these is set; empty: always.
    pub columns: Vec<Ident>,
    /// Its function, as SQL has it.
    pub function: String,
}

/// An index, by the columns whose values it knows: keys, INCLUDE, in expressions and conditions.
#[derive(Debug, Clone, Deserialize)]
pub struct OnColumns {
    /// Its name.
    pub name: Ident,
    /// The columns.
    pub columns: Vec<Ident>,
}

/// A table that holds rows.
#[derive(Debug, Clone, Deserialize)]
pub struct Leaf {
    /// Schema and name.
    pub name: QualifiedName,
    /// Rows by the statistics; -1 where there are none.
    pub rows: f64,
    /// Bytes of its heap.
    pub heap_bytes: f64,
    /// Bytes of its indexes.
    pub index_bytes: f64,
    /// Bytes that its rows take by the statistics; none without any.
    pub live_bytes: Option<f64>,
    /// How full an insert makes a page, in percent.
    pub fillfactor: i32,
    /// Autovacuum is not turned off for it.
    pub autovacuum: bool,
    /// As many dead rows bring a vacuum.
    pub vacuum_at: f64,
}
