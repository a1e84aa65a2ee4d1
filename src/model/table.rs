//! The definition of a table in the catalog, which `pg::catalog` reads with one query.

use serde::{Deserialize, Serialize};

use super::dependent::{Dependents, View};
use super::grant::{Grant, RowType};
use super::ident::{Ident, QualifiedName};

/// The properties of a table that a copy of it must also have, or that prevent a job.
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
    /// Whether it is itself a partition.
    pub is_partition: bool,
    /// The number of tables that inherit from it.
    pub children: u32,
    /// The number of tables from which it inherits.
    pub parents: u32,
    /// Whether it was created `OF` a composite type.
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
    /// The replica identity.
    #[serde(default)]
    pub replica_identity: ReplicaIdentity,
    /// Its access method, if not heap.
    #[serde(default)]
    pub access_method: Option<Ident>,
    /// Its tablespace, if not the database's default.
    pub tablespace: Option<Ident>,
    /// Whether row-level security is enabled.
    pub row_security: bool,
    /// Whether row-level security also applies to the owner.
    pub force_row_security: bool,
    /// Columns that are not dropped, in order.
    pub columns: Vec<Column>,
    /// Indexes, by name.
    pub indexes: Vec<Index>,
    /// CHECK constraints, by name.
    pub checks: Vec<Check>,
    /// NOT NULL constraints that are NO INHERIT (since PostgreSQL 18), by name.
    #[serde(default)]
    pub not_null_no_inherit: Vec<Ident>,
    /// Foreign keys of this table, by name.
    pub foreign_keys: Vec<ForeignKey>,
    /// Foreign keys that reference this table, including its own.
    pub referenced_by: Vec<ForeignKey>,
    /// Privileges, sorted by their dependencies.
    pub grants: Vec<Grant>,
    /// Whether the owner has all privileges. In that case, `grants` does not contain them.
    #[serde(default)]
    pub default_privileges: bool,
    /// Its row type; none in a description that an earlier version stored.
    #[serde(default)]
    pub row_type: Option<RowType>,
    /// Row-level security policies, by name.
    pub policies: Vec<Policy>,
    /// User triggers, except those of pgstrata, by name.
    pub triggers: Vec<Trigger>,
    /// Views that read the table directly, by name.
    pub views: Vec<View>,
    /// Sequences that its columns own.
    pub sequences: Vec<Sequence>,
    /// Comments on its constraints, triggers and policies.
    pub comments: Vec<Comment>,
    /// The providers of its security labels, and of those of its columns: `guard`, `guard on column c`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Objects that the swap redirects.
    #[serde(default)]
    pub dependents: Dependents,
    /// Schemas, other than `pg_catalog`, of the `=` operators in the definitions of the table and of these objects: the
    /// text of IS DISTINCT FROM, NULLIF, CASE and JOIN USING does not contain the schema. Schemas in which roles that are
    /// not trusted can create objects are left out. The plan decides which roles are trusted, so this is not read with the
    /// other definitions.
    #[serde(default)]
    pub operator_schemas: Vec<Ident>,
    /// All other objects that depend on the table, as described by `pg_describe_object`.
    pub others: Vec<String>,
}

/// The replica identity: the columns of the old row that subscribers receive for an update or delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaIdentity {
    /// The primary key.
    #[default]
    Default,
    /// No columns.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a unique index.
    Index(Ident),
}

/// A comment on an object whose name is local to the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// The kind of object: `constraint`, `trigger` or `policy`.
    pub kind: String,
    /// The name of the object.
    pub name: Ident,
    /// The text of the comment.
    pub text: String,
}

/// A column that is not dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name.
    pub name: Ident,
    /// The type in SQL syntax, with modifiers.
    pub sql_type: String,
    /// The base type, below all domains, without modifiers. Keys are cast to it.
    pub base_type: String,
    /// The collation, quoted and qualified, if it is not the default of the type.
    pub collation: Option<String>,
    /// Whether the collation is deterministic.
    pub deterministic: bool,
    /// Whether the type has a built-in hash function, so that the hash of a row can use the value directly.
    pub hashable: bool,
    /// Whether it is declared NOT NULL.
    pub not_null: bool,
    /// `pg_attribute.attgenerated`: empty, `s` stored, `v` virtual.
    pub generated: String,
    /// `pg_attribute.attidentity`: empty, `a` always, `d` by default.
    pub identity: String,
    /// The default or generation expression.
    pub default: Option<String>,
    /// The statistics target, if set.
    pub statistics: Option<i32>,
    /// Column options (`n_distinct`), each `name=value`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Other attributes; none in a definition that was stored by a version that did not read them.
    #[serde(default)]
    pub looks: Option<ColumnLooks>,
}

/// Attributes of a column that do not affect rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnLooks {
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// `pg_attribute.attstorage`: `p` plain, `e` external, `x` extended, `m` main.
    pub storage: String,
    /// `pg_attribute.attcompression`: empty, `p` pglz, `l` lz4.
    pub compression: String,
    /// The name of the NOT NULL constraint, if such constraints have names: since PostgreSQL 18.
    pub not_null: Option<Ident>,
}

/// An index, and its constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// The name.
    pub name: Ident,
    /// The part after `USING` in its definition: method, columns, INCLUDE, WITH, WHERE.
    pub tail: String,
    /// Whether it is unique.
    pub unique: bool,
    /// The kind of its constraint: empty, `p` primary key, `u` unique, `x` exclusion.
    pub constraint: String,
    /// The definition of the exclusion constraint in SQL syntax: `EXCLUDE …`.
    #[serde(default)]
    pub exclusion: Option<String>,
    /// The columns that the exclusion constraint compares with `=`.
    #[serde(default)]
    pub equated: Vec<Ident>,
    /// The clauses `INITIALLY …` and `DEFERRABLE` of the constraint in SQL syntax; usually empty.
    pub deferrable: String,
    /// Whether it is usable (`indisvalid` and `indisready`).
    pub valid: bool,
    /// The names of the key columns; none if one is an expression.
    pub columns: Option<Vec<Ident>>,
    /// INCLUDE columns.
    pub include: Vec<Ident>,
    /// Whether it has a WHERE clause.
    pub partial: bool,
    /// Whether every key column is ascending, with the built-in default operators of its type and the column's
    /// collation.
    pub plain_order: bool,
    /// Whether it is NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// Storage parameters, each `name=value`.
    pub options: Vec<String>,
    /// `COMMENT ON INDEX`.
    pub comment: Option<String>,
    /// Statistics targets of its columns, by number, if set.
    #[serde(default)]
    pub statistics: Vec<(i16, i32)>,
    /// Whether CLUSTER uses it.
    #[serde(default)]
    pub clustered: bool,
    /// Its tablespace, if not the database's default.
    #[serde(default)]
    pub tablespace: Option<Ident>,
}

impl Index {
    /// Whether its access method is `btree`, which the server may quote.
    pub fn is_btree(&self) -> bool {
        self.tail.trim_start_matches('"').starts_with("btree")
    }

    /// The same index without a constraint, and not unique.
    pub fn without_guarantee(&self) -> Self {
        Self { unique: false, constraint: String::new(), deferrable: String::new(), ..self.clone() }
    }
}

/// A CHECK constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The name.
    pub name: Ident,
    /// `CHECK (…)` in SQL syntax, without NO INHERIT and NOT VALID.
    pub definition: String,
    /// Whether it is validated.
    pub validated: bool,
    /// Whether it is NO INHERIT.
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
    /// The referenced table.
    pub references: QualifiedName,
    /// `FOREIGN KEY (…) REFERENCES …`, without NOT VALID.
    pub definition: String,
    /// Whether it is validated.
    pub validated: bool,
    /// `COMMENT ON CONSTRAINT`.
    #[serde(default)]
    pub comment: Option<String>,
    /// The unique index of the referenced table that it uses.
    #[serde(default)]
    pub index: Option<Ident>,
    /// Whether the referencing table is partitioned.
    #[serde(default)]
    pub from_partitioned: bool,
    /// Whether the referenced table is unlogged.
    #[serde(default)]
    pub to_unlogged: bool,
}

/// A policy of row-level security.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The name.
    pub name: Ident,
    /// Whether it is PERMISSIVE, not RESTRICTIVE.
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
    /// Its definition up to the table's name: `CREATE TRIGGER … ON `.
    pub head: String,
    /// Its definition after the table's name.
    pub tail: String,
    /// `pg_trigger.tgenabled`: `O` origin, `D` disabled, `R` replica, `A` always.
    pub enabled: String,
    /// Whether it is FOR EACH ROW.
    pub row: bool,
    /// Whether it fires BEFORE INSERT.
    pub before_insert: bool,
    /// Whether it uses transition tables.
    pub transition: bool,
}

impl Trigger {
    /// The part after the name in its definition: `BEFORE INSERT OR UPDATE ...`.
    pub fn fires(&self) -> &str {
        let behind = self.head.split_once("TRIGGER ").map_or("", |(_, behind)| behind);
        let name = self.name.to_string();
        behind
            .strip_prefix(&name)
            .or_else(|| behind.strip_prefix(self.name.as_str()))
            .map_or(behind, str::trim_start)
    }

    /// Whether its WHEN condition excludes the job's own updates, as the hint of `check` suggests: it is that condition,
    /// alone or with others that must also hold.
    pub fn ignores_fills(&self) -> bool {
        const HINTED: &str = "(current_setting('pgstrata.filling'::text, true) IS DISTINCT FROM 'on'::text)";
        let Some((_, when)) = self.tail.split_once(" WHEN (") else { return false };
        let condition = when.rsplit_once(") EXECUTE ").map_or(when, |(condition, _)| condition);
        condition == HINTED
            || condition.contains(HINTED)
                && ![" OR ", "NOT ", "CASE "].iter().any(|word| condition.contains(word))
    }
}

/// A sequence that a column owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Schema and name.
    pub name: QualifiedName,
    /// The column.
    pub column: Ident,
    /// Whether it belongs to an identity column, not to a serial column.
    pub identity: bool,
    /// Privileges, sorted by their dependencies.
    pub grants: Vec<Grant>,
    /// Whether the owner has all privileges. In that case, `grants` does not contain them.
    #[serde(default = "yes")]
    pub default_privileges: bool,
    /// The options; none in a definition that was stored by a version that did not read them.
    #[serde(default)]
    pub options: Option<SequenceOptions>,
    /// Objects that use an identity sequence, other than the column; none for a serial sequence, and in a definition
    /// that was stored by a version that did not read them.
    #[serde(default)]
    pub uses: Option<SequenceUses>,
}

fn yes() -> bool {
    true
}

/// Objects that depend on a sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceUses {
    /// Views, functions, rules and the table's own defaults, in readable form. Defaults of other tables are
    /// dependents of the table.
    pub by: Vec<String>,
}

/// The options and the comment of a sequence.
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
    /// The column with that name.
    pub fn column(&self, name: &Ident) -> Option<&Column> {
        self.columns.iter().find(|c| &c.name == name)
    }

    /// The columns that a copy writes: all except generated columns.
    pub fn written_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.generated.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_excludes_the_updates_of_a_job() {
        let ignores = |when: &str| {
            let trigger = Trigger {
                name: Ident::new("g"),
                head: "CREATE TRIGGER g AFTER UPDATE ON ".into(),
                tail: format!(" FOR EACH ROW {when}EXECUTE FUNCTION public.f('x) EXECUTE ')"),
                enabled: "O".into(),
                row: true,
                before_insert: false,
                transition: false,
            };
            trigger.ignores_fills()
        };
        let hinted = "(current_setting('pgstrata.filling'::text, true) IS DISTINCT FROM 'on'::text)";
        assert!(ignores(&format!("WHEN ({hinted}) ")));
        assert!(ignores(&format!("WHEN (((new.note <> old.note) AND {hinted})) ")));
        assert!(!ignores(""));
        assert!(!ignores("WHEN ((new.note <> old.note)) "));
        assert!(!ignores(&format!("WHEN (((new.note <> old.note) OR {hinted})) ")));
        assert!(!ignores(&format!("WHEN ((NOT {hinted})) ")));
    }
}
