//! The design of a backfill. It is determined once, before the job starts, and stored with the job. Every statement is
//! rendered only from it.

use serde::{Deserialize, Serialize};

use super::blueprint::{Blueprint, SCHEMA};
use super::ident::{Ident, QualifiedName, not_null_check, part_index};
use super::plan_sql::{Join, PlanSql};
use super::table::{Column, Table};

/// The design of a backfill, including all names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filling {
    /// The job's name.
    pub job: String,
    /// The table as it was when the job was planned.
    pub table: Table,
    /// The columns of the key, in the order of their index.
    pub key: Vec<Ident>,
    /// Nullable columns of the key. They contained no NULL when the job was planned.
    #[serde(default)]
    pub nullable_key: Vec<Ident>,
    /// Columns to add if they do not exist.
    pub add: Vec<NewColumn>,
    /// The join of the rows, called `t`, with other tables.
    pub from: Option<Join>,
    /// Columns and their new values. If there are none, the job only adds constraints and indexes.
    pub set: Vec<(Ident, String)>,
    /// The plan's condition on rows; if none, the rows in which a column differs from its new value.
    pub filter: Option<String>,
    /// Whether a trigger fills rows that are written during the job.
    pub keep_filled: bool,
    /// Whether the trigger remains after the job.
    pub stays: bool,
    /// The constraints and indexes to build at the end.
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
    /// Whether the default is volatile. Existing rows do not get such a default, because the table would have to be
    /// rewritten under an exclusive lock.
    pub volatile: bool,
}

/// Constraints and indexes to build when every row is filled, including their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finishing {
    /// Columns to set NOT NULL.
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
    /// Whether the plan does not specify the schema of that table: if it is not in the schema of the table, it is in
    /// `public`.
    pub unqualified: bool,
    /// The referenced columns; if empty, those of the primary key.
    pub referenced: Vec<Ident>,
    /// The rest of the definition: ON DELETE, MATCH, DEFERRABLE and so on.
    pub more: String,
}

impl NewKey {
    /// Whether it is MATCH FULL: then a row in which only some of the columns are NULL violates the key.
    pub fn is_full(&self) -> bool {
        let words: Vec<String> = self.more.split_whitespace().map(str::to_ascii_lowercase).collect();
        words.windows(2).any(|two| two == ["match", "full"])
    }
}

impl Filling {
    /// The filling of rows with NULL in the partition column; without such rows, a filling that sets nothing.
    pub fn of_nulls(b: &Blueprint) -> Self {
        let null_as = b.null_as.as_ref();
        Self {
            job: b.job.clone(),
            table: b.table.clone(),
            key: b.key.clone(),
            nullable_key: Vec::new(),
            add: Vec::new(),
            from: None,
            set: null_as.map(|one| (b.by.clone(), one.value.clone())).into_iter().collect(),
            filter: null_as.map(|one| one.filter.clone()),
            keep_filled: null_as.is_some(),
            stays: false,
            finish: Finishing::default(),
            sql: null_as.map_or_else(PlanSql::default, |one| one.sql.clone()),
        }
    }

    /// Whether the job only adds constraints and indexes.
    pub fn only_finishes(&self) -> bool {
        self.set.is_empty()
    }

    /// The columns of the key, as in the catalog.
    pub fn key_columns(&self) -> Vec<&Column> {
        self.key.iter().filter_map(|name| self.table.column(name)).collect()
    }

    /// Whether the table is partitioned. In that case, its partitions are filled one after another.
    pub fn is_partitioned(&self) -> bool {
        self.table.relkind == "p"
    }

    /// Columns to add that the table did not have when the job was planned.
    pub fn missing(&self) -> impl Iterator<Item = &NewColumn> {
        self.add.iter().filter(|c| self.table.column(&c.name).is_none())
    }

    /// Whether a column that the job sets is part of a unique index. Such an update conflicts with the row locks that
    /// foreign keys take.
    pub fn changes_unique(&self) -> bool {
        let unique = self.table.indexes.iter().filter(|i| i.unique);
        let set = |name: &Ident| self.set.iter().any(|(column, _)| column == name);
        unique.into_iter().any(|i| i.columns.as_ref().is_none_or(|all| all.iter().any(set)))
    }

    /// The function of the trigger that fills rows that are written during the job.
    pub fn fill_function(&self) -> QualifiedName {
        QualifiedName { schema: Ident::new(SCHEMA), name: Ident::derived(&format!("fill_{}", self.job)) }
    }

    /// The name of the trigger. It sorts after those of all other triggers, so that the trigger sees their results.
    pub fn fill_trigger(&self) -> Ident {
        Self::trigger_of(&self.job)
    }

    /// The name of the trigger of a job.
    pub fn trigger_of(job: &str) -> Ident {
        Ident::derived(&format!("zz_pgstrata_fill_{job}"))
    }

    /// The name of the index that belongs to `index` on a partition, or on the table itself (`part`).
    pub fn index_name(&self, index: &Ident, part: &QualifiedName) -> QualifiedName {
        if *part == self.table.name {
            return part.sibling(index.clone());
        }
        part.sibling(part_index(&self.table.name.name, &part.name, index))
    }

    /// The CHECK constraint that exists until a column is NOT NULL, so that the server does not have to read the rows
    /// under the lock.
    pub fn not_null_helper(&self, column: &Ident) -> Ident {
        not_null_check(column)
    }
}
