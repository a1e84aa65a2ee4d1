//! A table as the catalog describes it: facts as data, read in one query by `pg::catalog`.

use serde::{Deserialize, Serialize};

use super::dependent::Dependents;
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
    /// Nobody ever granted or revoked a thing: the owner may do all, others nothing.
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

/// One privilege of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role; none for PUBLIC.
    pub role: Option<Ident>,
    /// Who gave it.
    pub grantor: Ident,
    /// `SELECT`, `INSERT` …
    pub privilege: String,
    /// The column, where it is for one column only.
    pub column: Option<Ident>,
    /// WITH GRANT OPTION.
    pub grantable: bool,
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

/// A view that reads the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Schema and name.
    pub name: QualifiedName,
    /// Its owner.
    pub owner: Ident,
    /// Its query, every name qualified.
    pub query: String,
    /// Its options, each `name=value`.
    pub options: Vec<String>,
    /// It groups by the primary key alone, or has a whole row as a column: such a view cannot be pointed elsewhere.
    pub bound_to_key: bool,
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

    /// What differs in `now`, the partitioned table in use, so that the way back would lose it: columns that a drain does
    /// not know, and dependents that came after the swap.
    /// Keys of other tables that the swap dropped (`given_up`) are known to be gone.
    pub fn drift_since_swap(&self, now: &Table, given_up: &[ForeignKey]) -> Vec<String> {
        let mut found = Vec::new();
        let columns = |t: &Table| -> Vec<(String, String, String)> {
            let shape = |c: &Column| (c.name.as_str().to_owned(), c.sql_type.clone(), c.generated.clone());
            t.columns.iter().map(shape).collect()
        };
        named(&mut found, "column", &columns(self), &columns(now), |(name, _, _)| name.clone());
        // One that was not valid is the partitions' alone.
        let known = |f: &&ForeignKey| self.foreign_keys.iter().all(|was| was.name != f.name || was.validated);
        let keys = |t: &Table| -> Vec<(String, String)> {
            let shape = |f: &ForeignKey| (f.name.as_str().to_owned(), f.definition.clone());
            t.foreign_keys.iter().filter(known).map(shape).collect()
        };
        named(&mut found, "foreign key", &keys(self), &keys(now), |(name, _)| name.clone());
        let views = |t: &Table| -> Vec<String> { t.views.iter().map(|v| v.name.plain()).collect() };
        named(&mut found, "view", &views(self), &views(now), Clone::clone);
        let children = |t: &Table| -> Vec<String> {
            let gone = |f: &&ForeignKey| given_up.iter().any(|g| g.name == f.name && g.table == f.table);
            let standing = t.referenced_by.iter().filter(|f| !gone(f));
            standing.map(|f| format!("{} of {}", f.name.as_str(), f.table.plain())).collect()
        };
        named(&mut found, "foreign key to it", &children(self), &children(now), Clone::clone);
        named(&mut found, "dependent", &self.others, &now.others, Clone::clone);
        found
    }

    /// Comments on constraints, triggers and policies that differ in `now`.
    pub fn changed_comments(&self, now: &Table) -> Vec<String> {
        let mut found = Vec::new();
        let carried = |t: &Table| -> Vec<(String, String)> {
            let known = |c: &&Comment| {
                c.kind != "constraint" || self.indexes.iter().chain(&now.indexes).any(|i| i.name == c.name)
            };
            let named = |c: &Comment| (format!("{} {}", c.kind, c.name.as_str()), c.text.clone());
            t.comments.iter().filter(known).map(named).collect()
        };
        named(&mut found, "comment on", &carried(self), &carried(now), |(name, _)| name.clone());
        if self.comment != now.comment {
            found.push("comment on the table changed".to_owned());
        }
        found
    }

    /// What differs in `now` from this definition, each in words; empty where a job planned from this may go on.
    pub fn drift(&self, now: &Table) -> Vec<String> {
        let mut found = Vec::new();
        named(&mut found, "column", &self.columns, &now.columns, |c| c.name.as_str().to_owned());
        // Somebody may CLUSTER the table at any time.
        let indexes = |t: &Table| -> Vec<Index> {
            t.indexes.iter().cloned().map(|index| Index { clustered: false, ..index }).collect()
        };
        named(&mut found, "index", &indexes(self), &indexes(now), |i| i.name.as_str().to_owned());
        named(&mut found, "check constraint", &self.checks, &now.checks, |c| c.name.as_str().to_owned());
        named(&mut found, "foreign key", &self.foreign_keys, &now.foreign_keys, |f| {
            f.name.as_str().to_owned()
        });
        named(&mut found, "foreign key", &self.referenced_by, &now.referenced_by, |f| {
            format!("{} of {}", f.name.as_str(), f.table.plain())
        });
        named(&mut found, "policy", &self.policies, &now.policies, |p| p.name.as_str().to_owned());
        named(&mut found, "trigger", &self.triggers, &now.triggers, |t| t.name.as_str().to_owned());
        named(&mut found, "view", &self.views, &now.views, |v| v.name.plain());
        named(&mut found, "sequence", &self.sequences, &now.sequences, |s| s.name.plain());
        named(&mut found, "dependent", &self.others, &now.others, Clone::clone);
        named(&mut found, "dependent", &self.dependents.each(), &now.dependents.each(), |(name, _)| {
            name.clone()
        });
        named(&mut found, "privilege", &self.grants, &now.grants, |g| {
            let role = g.role.as_ref().map_or("public", Ident::as_str);
            let column = g.column.as_ref().map_or(String::new(), |c| format!(" ({})", c.as_str()));
            format!("{}{column} of {role}, by {}", g.privilege, g.grantor.as_str())
        });
        let mut one = |what: &str, same: bool| {
            if !same {
                found.push(format!("{what} changed"));
            }
        };
        one("the owner", self.owner == now.owner);
        one("row-level security", self.row_security == now.row_security);
        one("forced row-level security", self.force_row_security == now.force_row_security);
        one("the storage parameters", self.options == now.options && self.toast_options == now.toast_options);
        one("the replica identity", self.replica_identity == now.replica_identity);
        one("the kind of table", self.relkind == now.relkind && self.persistence == now.persistence);
        one("the table itself (dropped and made again)", self.oid == now.oid);
        one("inheritance", self.children == now.children && self.parents == now.parents);
        found
    }
}

/// Compares two lists of named things and says which were added, dropped or changed.
fn named<T: PartialEq>(
    found: &mut Vec<String>,
    what: &str,
    was: &[T],
    is: &[T],
    name: impl Fn(&T) -> String,
) {
    for old in was {
        let key = name(old);
        match is.iter().find(|new| name(new) == key) {
            None => found.push(format!("{what} {key} was dropped")),
            Some(new) if new != old => found.push(format!("{what} {key} changed")),
            Some(_) => {}
        }
    }
    for new in is {
        let key = name(new);
        if !was.iter().any(|old| name(old) == key) {
            found.push(format!("{what} {key} was added"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::petri;

    #[test]
    fn drift_names_what_changed() {
        let was = petri();
        assert_eq!(was.drift(&was), Vec::<String>::new());
        let mut now = petri();
        now.columns.remove(3);
        now.columns[0].not_null = false;
        let mut added = now.columns[1].clone();
        added.name = Ident::new("batch");
        now.columns.push(added);
        now.owner = Ident::new("other");
        assert_eq!(
            was.drift(&now),
            [
                "column observation_id changed",
                "column note was dropped",
                "column batch was added",
                "the owner changed"
            ]
        );
    }
}
