//! A table as the catalog describes it: facts as data, read in one query by `pg::catalog`.

use serde::{Deserialize, Serialize};

use super::dependent::{Dependents, View};
use super::grant::Grant;
use super::ident::{Ident, QualifiedName};

/// Everything about one table that a copy of it must have too, or that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema and name.
    pub name: QualifiedName,
    /// `pg_class.relkind`: `r` table, `p` partitioned, `v` view, `f` foreign …
    pub relkind: String,
    /// `pg_class.relpersistence`: `p` permanent, `u` unlogged, `t` temporary.
    pub persistence: String,
    /// It is itself a partition.
    pub is_partition: bool,
    /// Tables that inherit from it.
    pub children: u32,
    /// Tables that it inherits from.
    pub parents: u32,
    /// It was made `OF` a composite type.
    pub typed: bool,
    /// The extension that owns it.
    pub extension: Option<String>,
    /// The owner.
    pub owner: Ident,
    /// `COMMENT ON TABLE`.
    pub comment: Option<String>,
    /// Storage parameters, each `name=value`.
    pub options: Vec<String>,
    /// Storage parameters of the TOAST table, each `name=value`, without the prefix `toast.`.
    pub toast_options: Vec<String>,
    /// How logical replication tells rows apart.
    #[serde(default)]
    pub replica_identity: ReplicaIdentity,
    /// How it is stored, if not as a heap.
    #[serde(default)]
    pub access_method: Option<Ident>,
    /// Where it lies, if not in the database's default.
    pub tablespace: Option<Ident>,
    /// Row-level security is on.
    pub row_security: bool,
    /// ... for the owner as well.
    pub force_row_security: bool,
    /// Live columns, in order.
    pub columns: Vec<Column>,
    /// Indexes, by name.
    pub indexes: Vec<Index>,
    /// CHECK constraints, by name.
    pub checks: Vec<Check>,
    /// NOT NULL constraints that are NO INHERIT (there are such from 18 on), by name.
    #[serde(default)]
    pub not_null_no_inherit: Vec<Ident>,
    /// Foreign keys of this table, by name.
    pub foreign_keys: Vec<ForeignKey>,
    /// Foreign keys of other tables (or its own) that point here.
    pub referenced_by: Vec<ForeignKey>,
    /// Privileges, in the order in which they build on each other; none where `default_privileges` hold.
    pub grants: Vec<Grant>,
    /// The owner has all privileges: they are not among `grants`.
    #[serde(default)]
    pub default_privileges: bool,
    /// Row-level security policies, by name.
    pub policies: Vec<Policy>,
    /// User triggers other than ours, by name.
    pub triggers: Vec<Trigger>,
    /// Views that read the table directly, by name.
    pub views: Vec<View>,
    /// Sequences that belong to columns.
    pub sequences: Vec<Sequence>,
    /// Comments on its constraints, triggers and policies.
    pub comments: Vec<Comment>,
    /// What the swap binds again.
    #[serde(default)]
    pub dependents: Dependents,
    /// Whatever else depends on the table, as `pg_describe_object` names it.
    pub others: Vec<String>,
}

/// What an update or delete tells subscribers of the old row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaIdentity {
    /// The primary key.
    #[default]
    Default,
    /// Nothing.
    Nothing,
    /// All of it.
    Full,
    /// The columns of a unique index.
    Index(Ident),
}

/// A comment on something that is named within the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// `constraint`, `trigger` or `policy`.
    pub kind: String,
    /// Its name.
    pub name: Ident,
    /// What it says.
    pub text: String,
}

/// A live column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name.
    pub name: Ident,
    /// The type as SQL writes it, with modifiers.
    pub sql_type: String,
    /// The type under all domains, without modifiers: what keys are cast to.
    pub base_type: String,
    /// The collation, where it is not the type's own; quoted and qualified.
    pub collation: Option<String>,
    /// False for a nondeterministic collation.
    pub deterministic: bool,
    /// Whether equal values hash equally with a built-in function, so that a row hash may take it as it is.
    pub hashable: bool,
    /// NOT NULL is declared.
    pub not_null: bool,
    /// `pg_attribute.attgenerated`: empty, `s` stored, `v` virtual.
    pub generated: String,
    /// `pg_attribute.attidentity`: empty, `a` always, `d` by default.
    pub identity: String,
    /// The default or generation expression.
    pub default: Option<String>,
    /// Statistics target, where set.
    pub statistics: Option<i32>,
    /// Column options (`n_distinct`), each `name=value`.
    #[serde(default)]
    pub options: Vec<String>,
    /// What else it has; none in the description of a version that did not ask.
    #[serde(default)]
    pub looks: Option<ColumnLooks>,
}

/// What a column has that rows do not depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnLooks {
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// `pg_attribute.attstorage`: `p` plain, `e` external, `x` extended, `m` main.
    pub storage: String,
    /// `pg_attribute.attcompression`: empty, `p` pglz, `l` lz4.
    pub compression: String,
    /// The NOT NULL constraint, where the server names them: from 18 on.
    pub not_null: Option<Ident>,
}

/// An index, and the constraint that it backs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The name.
    pub name: Ident,
    /// What stands behind `USING` in its definition: method, columns, INCLUDE, WITH, WHERE.
    pub tail: String,
    /// It is unique.
    pub unique: bool,
    /// The constraint behind it: empty, `p` primary key, `u` unique, `x` exclusion.
    pub constraint: String,
    /// The exclusion constraint: `EXCLUDE …` as SQL has it.
    #[serde(default)]
    pub exclusion: Option<String>,
    /// The columns that it compares by `=`.
    #[serde(default)]
    pub equated: Vec<Ident>,
    /// `INITIALLY …` and `DEFERRABLE`, as SQL has it behind a constraint; mostly empty.
    pub deferrable: String,
    /// It can be used (`indisvalid` and `indisready`).
    pub valid: bool,
    /// Key columns by name; none where one is an expression.
    pub columns: Option<Vec<Ident>>,
    /// Columns behind INCLUDE.
    pub include: Vec<Ident>,
    /// It has a WHERE clause.
    pub partial: bool,
    /// Every key column orders by its type's built-in default operators and its own collation, ascending.
    pub plain_order: bool,
    /// NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// Storage parameters, each `name=value`.
    pub options: Vec<String>,
    /// `COMMENT ON INDEX`.
    pub comment: Option<String>,
    /// Statistics targets of its columns, by number, where set.
    #[serde(default)]
    pub statistics: Vec<(i16, i32)>,
    /// CLUSTER goes by it.
    #[serde(default)]
    pub clustered: bool,
    /// Its tablespace, if not the database's default.
    #[serde(default)]
    pub tablespace: Option<Ident>,
}

/// A CHECK constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The name.
    pub name: Ident,
    /// `CHECK (…)`, as SQL has it, without NO INHERIT and NOT VALID.
    pub definition: String,
    /// Every row was checked.
    pub validated: bool,
    /// NO INHERIT.
    #[serde(default)]
    pub no_inherit: bool,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The name.
    pub name: Ident,
    /// The table that has it.
    pub table: QualifiedName,
    /// The table that it points to.
    pub references: QualifiedName,
    /// `FOREIGN KEY (…) REFERENCES …`, without NOT VALID.
    pub definition: String,
    /// Every row was checked.
    pub validated: bool,
    /// `COMMENT ON CONSTRAINT`.
    #[serde(default)]
    pub comment: Option<String>,
    /// The unique index of the table that it points to.
    #[serde(default)]
    pub index: Option<Ident>,
    /// The table that has it is partitioned.
    #[serde(default)]
    pub from_partitioned: bool,
}

/// A policy of row-level security.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The name.
    pub name: Ident,
    /// False for RESTRICTIVE.
    pub permissive: bool,
    /// `ALL`, `SELECT`, `INSERT`, `UPDATE`, `DELETE`.
    pub command: String,
    /// The roles; empty for PUBLIC.
    pub roles: Vec<Ident>,
    /// USING (…).
    pub using: Option<String>,
    /// WITH CHECK (…).
    pub check: Option<String>,
}

/// A trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The name.
    pub name: Ident,
    /// Its definition before the table's name: `CREATE TRIGGER … ON `.
    pub head: String,
    /// Its definition behind the table's name.
    pub tail: String,
    /// `pg_trigger.tgenabled`: `O` origin, `D` disabled, `R` replica, `A` always.
    pub enabled: String,
    /// FOR EACH ROW.
    pub row: bool,
    /// BEFORE INSERT.
    pub before_insert: bool,
    /// It reads transition tables.
    pub transition: bool,
}

impl Trigger {
    /// What stands behind the name in its definition: `BEFORE INSERT OR UPDATE ...`.
    pub fn fires(&self) -> &str {
        let behind = self.head.split_once("TRIGGER ").map_or("", |(_, behind)| behind);
        let name = self.name.to_string();
        behind
            .strip_prefix(&name)
            .or_else(|| behind.strip_prefix(self.name.as_str()))
            .map_or(behind, str::trim_start)
    }
}

/// A sequence that belongs to a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Schema and name.
    pub name: QualifiedName,
    /// The column.
    pub column: Ident,
    /// It is an identity column's, not a serial's.
    pub identity: bool,
    /// Privileges, the owner's own left out.
    pub grants: Vec<Grant>,
    /// How it counts; none in the description of a version that did not ask.
    #[serde(default)]
    pub options: Option<SequenceOptions>,
    /// What uses an identity's, other than the column; none for a serial's, and in the description of a version that did not ask.
    #[serde(default)]
    pub uses: Option<SequenceUses>,
}

/// What is bound to a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceUses {
    /// Views, functions, rules and the table's own defaults, as people name them; defaults of other tables are dependents of
    /// the table.
    pub by: Vec<String>,
}

/// How a sequence counts, and what else is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceOptions {
    /// `smallint`, `integer` or `bigint`.
    pub sql_type: String,
    /// START WITH.
    pub start: i64,
    /// INCREMENT BY.
    pub increment: i64,
    /// MINVALUE.
    pub min: i64,
    /// MAXVALUE.
    pub max: i64,
    /// CACHE.
    pub cache: i64,
    /// CYCLE.
    pub cycle: bool,
    /// `COMMENT ON SEQUENCE`.
    pub comment: Option<String>,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &Ident) -> Option<&Column> {
        self.columns.iter().find(|c| &c.name == name)
    }

    /// Columns that a copy writes: all but the generated ones.
    pub fn written_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.generated.is_empty())
    }
}
