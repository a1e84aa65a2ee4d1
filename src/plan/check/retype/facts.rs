//! What preflight asks of the column, as data.

use serde::Deserialize;

use super::super::{Named, TableTrial};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::retyping::Counter;

/// What depends on the column.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ColumnFacts {
    /// How values are stored, where that was set.
    pub storage: Option<String>,
    /// How values are compressed, where that was set.
    pub compression: Option<String>,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// Indexes that have the column.
    pub indexes: Vec<Ident>,
    /// CHECK constraints that name it.
    pub checks: Vec<Ident>,
    /// Foreign keys from it and to it.
    pub keys: Vec<Key>,
    /// The sequence that belongs to it.
    pub counter: Option<Counter>,
    /// What the swap does not carry.
    pub uses: Vec<Use>,
}

/// A foreign key.
#[derive(Debug, Clone, Deserialize)]
pub struct Key {
    /// Its name.
    pub name: Ident,
    /// The table that has it.
    pub table: QualifiedName,
    /// We have the rights of that table's owner.
    pub owned: bool,
    /// Who owns it.
    pub owner: Ident,
    /// The types of its columns, in its order.
    pub columns: Vec<String>,
    /// The types of the columns that it refers to, in the same order.
    pub referenced: Vec<String>,
    /// Which of its columns is retyped, counted from 1.
    pub retyped: Option<usize>,
    /// Which of the columns that it refers to is retyped, counted from 1.
    pub retyped_referenced: Option<usize>,
}

impl Key {
    /// The types of its columns and of those that it refers to, once the column has the new type.
    pub fn types(&self, new_type: &str) -> (Vec<String>, Vec<String>) {
        let with = |types: &[String], at: Option<usize>| {
            let new = |(i, one): (usize, &String)| {
                if at == Some(i + 1) { new_type.to_owned() } else { one.clone() }
            };
            types.iter().enumerate().map(new).collect()
        };
        (with(&self.columns, self.retyped), with(&self.referenced, self.retyped_referenced))
    }
}

/// Something that names the column by its number.
#[derive(Debug, Clone, Deserialize)]
pub struct Use {
    /// The catalog that has it, or what it is.
    pub kind: String,
    /// Its name, as people read it.
    pub name: String,
}

/// What the server says of the plan's SQL and of the definitions in the new type, without a row.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal {
    /// Our role may not make the temporary table that definitions are tried on.
    pub no_scratch: bool,
    /// The type that the plan names cannot be had: the server's message.
    pub type_refused: Option<String>,
    /// `using` or `back`, by name, cannot be run: the server's message.
    pub sql_refused: Vec<(&'static str, String)>,
    /// `using` or `back` gives another value each time.
    pub volatile: Vec<&'static str>,
    /// What the plan's SQL names.
    pub named: Named,
    /// Indexes, constraints, the default: what the new type cannot have, and why.
    pub refused: Vec<(String, String)>,
    /// Foreign keys that cannot be between the new type and the other side's: the key, and the types of both sides.
    pub keys_refused: Vec<(Key, Vec<String>, Vec<String>)>,
    /// What the server says of the column's indexes on rows of the table.
    pub rows: TableTrial,
}
