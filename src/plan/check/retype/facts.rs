//! The facts about the column that preflight queries.

use serde::Deserialize;

use super::super::{Named, TableTrial};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::rebound::Rebound;
use crate::model::retyping::Counter;

/// What depends on the column.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ColumnFacts {
    /// The storage mode, if it was set.
    pub storage: Option<String>,
    /// The compression method, if it was set.
    pub compression: Option<String>,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// Indexes that contain the column.
    pub indexes: Vec<Ident>,
    /// CHECK constraints that use it.
    pub checks: Vec<Ident>,
    /// Foreign keys that contain or reference it.
    pub keys: Vec<KeyFacts>,
    /// The sequence that it owns.
    pub counter: Option<Counter>,
    /// Objects that the swap cannot carry over.
    pub uses: Vec<Use>,
    /// Objects that refer to it by its number.
    #[serde(default)]
    pub rebound: Rebound,
}

/// A foreign key.
#[derive(Debug, Clone, Deserialize)]
pub struct KeyFacts {
    /// Its name.
    pub name: Ident,
    /// The table that has it.
    pub table: QualifiedName,
    /// The job's role has the privileges of that table's owner.
    pub owned: bool,
    /// The owner of that table.
    pub owner: Ident,
    /// The types of its columns, in the order of the key.
    pub columns: Vec<String>,
    /// The types of the referenced columns, in the same order.
    pub referenced: Vec<String>,
    /// The position of the changed column among its columns, counted from 1.
    pub retyped: Option<usize>,
    /// The position of the changed column among the referenced columns, counted from 1.
    pub retyped_referenced: Option<usize>,
}

impl KeyFacts {
    /// The types of its columns and of the referenced columns, after the column has the new type.
    pub fn types(&self, new_type: &str) -> (Vec<String>, Vec<String>) {
        let with = |types: &[String], at: Option<usize>| {
            let new = |(i, old): (usize, &String)| {
                if at == Some(i + 1) { new_type.to_owned() } else { old.clone() }
            };
            types.iter().enumerate().map(new).collect()
        };
        (with(&self.columns, self.retyped), with(&self.referenced, self.retyped_referenced))
    }
}

/// An object that refers to the column by its number.
#[derive(Debug, Clone, Deserialize)]
pub struct Use {
    /// Its catalog, or its kind.
    pub kind: String,
    /// Its description, for messages.
    pub name: String,
}

/// The result of testing the plan's SQL, and the definitions with the new type, on the server.
#[derive(Debug, Clone, Default)]
pub struct Rehearsal {
    /// The job's role cannot create the temporary table on which definitions are tested.
    pub no_scratch: bool,
    /// The column already has the type and the collation in the plan.
    pub same_type: bool,
    /// The server rejects the type in the plan: its message.
    pub type_refused: Option<String>,
    /// The server rejects `using` or `back`: the name of the setting, and the message.
    pub sql_refused: Vec<(&'static str, String)>,
    /// `using` or `back`, if it returns a different value at each evaluation.
    pub volatile: Vec<&'static str>,
    /// The objects that the plan's SQL uses.
    pub named: Named,
    /// Indexes, constraints and the default that are not possible with the new type, with the server's message.
    pub refused: Vec<(String, String)>,
    /// Foreign keys that are not possible between the new type and the type of the other side: the key, and the types
    /// of both sides.
    pub keys_refused: Vec<(KeyFacts, Vec<String>, Vec<String>)>,
    /// The result of testing the indexes of the column on rows of the table.
    pub rows: TableTrial,
}
