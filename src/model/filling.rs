//! What a backfill does: decided once before it starts, and stored with it. Its statements are rendered from it
//! alone.

use serde::{Deserialize, Serialize};

use super::blueprint::SCHEMA;
use super::ident::{Ident, QualifiedName, part_index};
use super::plan_sql::{Join, PlanSql};
use super::table::{Column, Table};

/// A backfill, including every name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// The job's name.
    pub job: String,
    /// The table as it was when the job was planned.
    pub table: Table,
    /// The columns of the key, in the order of their index.
    pub key: Vec<Ident>,
    /// Columns to add if they do not exist.
    pub add: Vec<NewColumn>,
    /// What the rows, called `t`, are joined with.
    pub from: Option<Join>,
    /// Columns and their new values.
    pub set: Vec<(Ident, String)>,
    /// The plan's condition on rows; none: rows in which a column differs from its new value.
    pub filter: Option<String>,
    /// Whether a trigger fills rows that are written during the job.
    pub keep_filled: bool,
    /// Whether the trigger remains after the job.
    pub stays: bool,
    /// What is built at the end.
    pub finish: Finishing,
    /// The settings of the plan's SQL.
    pub sql: PlanSql,
}

/// A column to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewColumn {
    /// Its name.
    pub name: Ident,
    /// Its type, with collation.
    pub sql_type: String,
    /// Its default.
    pub default: Option<String>,
    /// Whether the default is not the same for every row. Existing rows then do not get it, because each would have
    /// to be rewritten under an exclusive lock.
    pub volatile: bool,
}

/// Constraints and indexes to build when every row is filled, with their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finishing {
    /// Columns that become NOT NULL.
    pub not_null: Vec<Ident>,
    /// CHECK constraints: name and condition.
    pub checks: Vec<(Ident, String)>,
    /// UNIQUE constraints: name and columns.
    pub unique: Vec<(Ident, Vec<Ident>)>,
    /// Indexes: name, and the part of the definition after the table's name.
    pub indexes: Vec<(Ident, String)>,
    /// Foreign keys.
    pub foreign_keys: Vec<NewKey>,
}

impl Finishing {
    /// Whether there is nothing to build.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A foreign key to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// The constraint's name.
    pub name: Ident,
    /// The referencing columns.
    pub columns: Vec<Ident>,
    /// The referenced table.
    pub references: QualifiedName,
    /// Whether the plan names that table without a schema: if it is not in the schema of the table, it is in
    /// `public`.
    pub unqualified: bool,
    /// The referenced columns; none: those of the primary key.
    pub referenced: Vec<Ident>,
    /// The rest of the definition: ON DELETE, MATCH, DEFERRABLE ...
    pub more: String,
}

impl NewKey {
    /// Whether it is MATCH FULL: a row in which only some of the columns are NULL violates the key.
    pub fn is_full(&self) -> bool {
        let words: Vec<String> = self.more.split_whitespace().map(str::to_ascii_lowercase).collect();
        words.windows(2).any(|two| two == ["match", "full"])
    }
}

impl Filling {
    /// The columns of the key, as in the catalog.
    pub fn key_columns(&self) -> Vec<&Column> {
        self.key.iter().filter_map(|name| self.table.column(name)).collect()
    }

    /// Whether the table is partitioned; its partitions are filled one after the other.
    pub fn is_partitioned(&self) -> bool {
        self.table.relkind == "p"
    }

    /// Columns to add that the table did not have when the job was planned.
    pub fn missing(&self) -> impl Iterator<Item = &NewColumn> {
        self.add.iter().filter(|c| self.table.column(&c.name).is_none())
    }

    /// Whether a column that is set is part of a unique index: other sessions may lock such rows because of it, as
    /// foreign keys do.
    pub fn changes_unique(&self) -> bool {
        let unique = self.table.indexes.iter().filter(|i| i.unique);
        let set = |name: &Ident| self.set.iter().any(|(column, _)| column == name);
        unique.into_iter().any(|i| i.columns.as_ref().is_none_or(|all| all.iter().any(set)))
    }

    /// The function of the trigger that fills rows that are written during the job.
    pub fn fill_function(&self) -> QualifiedName {
        QualifiedName { schema: Ident::new(SCHEMA), name: Ident::derived(&format!("fill_{}", self.job)) }
    }

    /// The name of the trigger: it sorts after all others, so that the trigger sees their results.
    pub fn fill_trigger(&self) -> Ident {
        Ident::derived(&format!("zz_pgstrata_fill_{}", self.job))
    }

    /// The name of the index of a part of the table (`part`, or the table itself) that belongs to `index`.
    pub fn index_name(&self, index: &Ident, part: &QualifiedName) -> QualifiedName {
        if *part == self.table.name {
            return part.sibling(index.clone());
        }
        part.sibling(part_index(&self.table.name.name, &part.name, index))
    }

    /// The CHECK that exists while a column becomes NOT NULL, so that the server does not have to read the rows under
    /// its lock.
    pub fn not_null_helper(&self, column: &Ident) -> Ident {
        Ident::derived(&format!("pgstrata_not_null_{}", column.as_str()))
    }
}
