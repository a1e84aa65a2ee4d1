//! What a backfill does, decided once before it starts and kept with it: its statements are rendered from this alone.

use serde::{Deserialize, Serialize};

use super::blueprint::SCHEMA;
use super::ident::{Ident, QualifiedName, part_index};
use super::plan_sql::{Join, PlanSql};
use super::table::{Column, Table};

/// A backfill, down to every name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// The job's name.
    pub job: String,
    /// The table as it was when the job was planned.
    pub table: Table,
    /// The key's columns, in their index's order.
    pub key: Vec<Ident>,
    /// Columns that are added where they are missing.
    pub add: Vec<NewColumn>,
    /// What the rows, called `t`, are joined with.
    pub from: Option<Join>,
    /// Columns and what they are set to.
    pub set: Vec<(Ident, String)>,
    /// Which rows, as the plan says; none: those where a column is not what it would be set to.
    pub filter: Option<String>,
    /// A trigger fills what is written meanwhile.
    pub keep_filled: bool,
    /// The trigger stays when the job is done.
    pub stays: bool,
    /// What is built in the end.
    pub finish: Finishing,
    /// The settings of the plan's SQL.
    pub sql: PlanSql,
}

/// A column to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewColumn {
    /// Its name.
    pub name: Ident,
    /// Its type, and collation.
    pub sql_type: String,
    /// Its default.
    pub default: Option<String>,
    /// The default is not the same for every row: rows that are there already do not get it, or each would be written anew
    /// while everybody waits.
    pub volatile: bool,
}

/// What is built when every row is filled, each under its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finishing {
    /// Columns that become NOT NULL.
    pub not_null: Vec<Ident>,
    /// CHECK constraints: name and condition.
    pub checks: Vec<(Ident, String)>,
    /// UNIQUE constraints: name and columns.
    pub unique: Vec<(Ident, Vec<Ident>)>,
    /// Indexes: name, and what stands behind the table's name.
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

/// A foreign key to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// The constraint's name.
    pub name: Ident,
    /// The columns that point.
    pub columns: Vec<Ident>,
    /// The table that they point to.
    pub references: QualifiedName,
    /// The plan names that table without a schema: if it is not in the table's, it is in `public`.
    pub unqualified: bool,
    /// The columns that they point to; none: the primary key's.
    pub referenced: Vec<Ident>,
    /// What stands behind: ON DELETE, MATCH, DEFERRABLE ...
    pub more: String,
}

impl NewKey {
    /// MATCH FULL: a row that has some of the columns and not all violates the key.
    pub fn is_full(&self) -> bool {
        let words: Vec<String> = self.more.split_whitespace().map(str::to_ascii_lowercase).collect();
        words.windows(2).any(|two| two == ["match", "full"])
    }
}

impl Filling {
    /// The key's columns as the catalog describes them.
    pub fn key_columns(&self) -> Vec<&Column> {
        self.key.iter().filter_map(|name| self.table.column(name)).collect()
    }

    /// Whether the table is partitioned: its partitions are filled one after the other.
    pub fn is_partitioned(&self) -> bool {
        self.table.relkind == "p"
    }

    /// Columns to be added that the table did not have when the job was planned.
    pub fn missing(&self) -> impl Iterator<Item = &NewColumn> {
        self.add.iter().filter(|c| self.table.column(&c.name).is_none())
    }

    /// Whether a column that is set is part of a unique index: others may hold such rows by it, as their foreign keys do.
    pub fn changes_unique(&self) -> bool {
        let unique = self.table.indexes.iter().filter(|i| i.unique);
        let set = |name: &Ident| self.set.iter().any(|(column, _)| column == name);
        unique.into_iter().any(|i| i.columns.as_ref().is_none_or(|all| all.iter().any(set)))
    }

    /// The function of the trigger that fills what is written meanwhile.
    pub fn fill_function(&self) -> QualifiedName {
        QualifiedName { schema: Ident::new(SCHEMA), name: Ident::derived(&format!("fill_{}", self.job)) }
    }

    /// The trigger's name: by name behind all others, so that it sees what they made of the row.
    pub fn fill_trigger(&self) -> Ident {
        Ident::derived(&format!("zz_pgstrata_fill_{}", self.job))
    }

    /// The name that a part of the table (`part`, or the table itself) has for its share of an index.
    pub fn index_name(&self, index: &Ident, part: &QualifiedName) -> QualifiedName {
        if *part == self.table.name {
            return part.sibling(index.clone());
        }
        part.sibling(part_index(&self.table.name.name, &part.name, index))
    }

    /// The CHECK that stands while a column becomes NOT NULL, so that the server need not read the rows under its lock.
    pub fn not_null_helper(&self, column: &Ident) -> Ident {
        Ident::derived(&format!("pgstrata_not_null_{}", column.as_str()))
    }
}
