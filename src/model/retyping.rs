//! The design of a column type change. It is determined once, before the job starts, and stored with the job. Every
//! statement is rendered only from it.
//!
//! There are two columns: the column in use, with the name of the column, and the inactive column that is kept in sync
//! with it, with the suffix `_new` before the swap and `_old` after it. The invariant, with every snapshot after the
//! first check of every row: *the new column has the value that `using` returns for the old one; after the swap, the
//! old column may instead be NULL, if its type cannot represent the new value.*

use serde::{Deserialize, Serialize};

use super::blueprint::{Direction, SCHEMA};
use super::dependent::Matview;
use super::difference::{Between, Difference, differences};
use super::filling::{Filling, Finishing, NewColumn};
use super::grant::Grant;
use super::ident::{Ident, QualifiedName, plain};
use super::plan_sql::PlanSql;
use super::rebound::Rebound;
use super::remade_keys;
use super::table::{Column, ForeignKey, Index, Table};

/// The design of a column type change, including all names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retyping {
    /// The job's name.
    pub job: String,
    /// The table as it was when the job was planned.
    pub table: Table,
    /// The columns of the key, in the order of their index.
    pub key: Vec<Ident>,
    /// The column.
    pub column: Column,
    /// The new type, as in the plan.
    pub to: String,
    /// The new type, in the format of the catalog.
    pub new_type: String,
    /// The expression for the new value.
    pub using: String,
    /// The expression for a rollback.
    pub back: String,
    /// Other attributes of the column.
    pub looks: Looks,
    /// Indexes that include the column.
    pub indexes: Vec<Counterpart>,
    /// CHECK constraints that refer to the column.
    pub checks: Vec<CheckPair>,
    /// Foreign keys that include or reference the column.
    pub keys: Vec<ForeignKey>,
    /// The sequence that the column owns.
    pub counter: Option<Counter>,
    /// The column's default in the new type, if it has to be cast.
    pub default_new: Option<String>,
    /// Whether `using` is the default cast.
    pub casts: bool,
    /// Whether the new type has an `=` operator. Without one, values are compared in their binary representation.
    pub comparable: bool,
    /// The settings of the plan's SQL.
    pub sql: PlanSql,
    /// The objects that refer to the column by its number. An exchange uses those that exist then.
    #[serde(default)]
    pub rebound: Rebound,
}

/// Attributes of a column other than its type and constraints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looks {
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// The storage mode (`external`), if it was set and the new type supports it.
    pub storage: Option<String>,
    /// The compression method (`lz4`), if it was set and the new type supports it.
    pub compression: Option<String>,
}

/// An index of the column in use, and its definition on the other column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counterpart {
    /// The original index.
    pub index: Index,
    /// The part after USING in the definition for the new column while its name has the suffix `_new`.
    pub tail_new: String,
    /// The part after USING in the definition for the old column while its name has the suffix `_old`.
    pub tail_old: String,
}

/// A CHECK constraint of the column in use, and its definition on the other column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPair {
    /// Its name.
    pub name: Ident,
    /// Whether it is validated.
    pub validated: bool,
    /// `CHECK (…)` for the column, as in the catalog.
    pub definition: String,
    /// The definition for the new column while its name has the suffix `_new`.
    pub definition_new: String,
    /// The definition for the old column while its name has the suffix `_old`.
    pub definition_old: String,
}

/// A sequence that generates the column's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// Schema and name.
    pub name: QualifiedName,
    /// `smallint`, `integer` or `bigint`.
    pub sql_type: String,
    /// `START 1 INCREMENT 1 …`: everything except the type and the limits.
    pub options: String,
    /// The smallest number, if it is not that of the type.
    pub min: Option<String>,
    /// The largest number, if it is not that of the type.
    pub max: Option<String>,
    /// Privileges, without those of the owner.
    pub grants: Vec<Grant>,
    /// `COMMENT ON SEQUENCE`.
    pub comment: Option<String>,
}

/// Integer types, by size.
const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];

impl Retyping {
    /// The name of the inactive column.
    pub fn shadow(&self, direction: Direction) -> Ident {
        self.column.name.with_suffix(suffix(direction))
    }

    /// The name of the counterpart of an object on the column in use.
    pub fn counterpart(&self, name: &Ident, direction: Direction) -> Ident {
        name.with_suffix(suffix(direction))
    }

    /// The same, with CLUSTER using the index that it uses in `now`, and with the current objects that refer to the column.
    pub fn as_now(&self, now: &Table, rebound: &Rebound) -> Self {
        let mut changed = Self { rebound: rebound.clone(), ..self.clone() };
        for one in &mut changed.indexes {
            one.index.clustered = now.indexes.iter().any(|i| i.name == one.index.name && i.clustered);
        }
        changed
    }

    /// The current columns of the key, which can include the column whose type changes.
    pub fn key_columns(&self, direction: Direction) -> Vec<Column> {
        let now = |name: &Ident| {
            let column = self.table.column(name)?.clone();
            let retyped = direction == Direction::Reverse && *name == self.column.name;
            Some(if retyped { Column { base_type: self.new_type.clone(), ..column } } else { column })
        };
        self.key.iter().filter_map(now).collect()
    }

    /// Whether a column has the new type. If only the collation changes, it has another collation than before.
    pub fn is_converted(&self, column: &Column) -> bool {
        let same_type = self.column.sql_type == self.new_type;
        column.sql_type == self.new_type && (!same_type || column.collation != self.column.collation)
    }

    /// The name of the constraint that proves that every row has a value in the inactive column.
    pub fn proof(&self) -> Ident {
        Ident::derived(&format!("pgstrata_level_{}", self.job))
    }

    /// The function that keeps the inactive column in sync.
    pub fn function(&self) -> QualifiedName {
        self.own("fill")
    }

    /// The function that exchanges the two columns.
    pub fn exchange_function(&self) -> QualifiedName {
        self.own("exchange")
    }

    /// The function that returns the table's definition for the exchange.
    pub fn definition_function(&self) -> QualifiedName {
        self.own("definition")
    }

    fn own(&self, what: &str) -> QualifiedName {
        QualifiedName { schema: Ident::new(SCHEMA), name: Ident::derived(&format!("{what}_{}", self.job)) }
    }

    /// The backfill that fills the new column. The trigger has the name of that of a backfill, but another function.
    pub fn filling(&self) -> Filling {
        let name = self.shadow(Direction::Forward);
        let column =
            NewColumn { name: name.clone(), sql_type: self.to.clone(), default: None, volatile: false };
        Filling {
            job: self.job.clone(),
            table: self.table.clone(),
            key: self.key.clone(),
            nullable_key: Vec::new(),
            add: vec![column],
            from: None,
            set: vec![(name, self.using.clone())],
            filter: None,
            keep_filled: true,
            stays: false,
            finish: Finishing::default(),
            sql: self.sql.clone(),
        }
    }

    /// The sequence and its type after the swap, if it changes with that of the column: otherwise, the maximum of the
    /// old type would still limit its values.
    pub fn wider_counter(&self) -> Option<(&Counter, &str)> {
        let rank = |name: &str| INTEGERS.iter().position(|one| *one == name);
        let counter = self.counter.as_ref()?;
        (rank(&self.new_type)? > rank(&counter.sql_type)?).then_some((counter, self.new_type.as_str()))
    }

    /// Whether the type only becomes wider. If not, two values of the old type can be converted to the same new value,
    /// or a value can be converted to NULL.
    pub fn only_widens(&self) -> bool {
        let rank = |name: &str| INTEGERS.iter().position(|one| *one == name);
        let wider = match (rank(&self.column.sql_type), rank(&self.new_type)) {
            (Some(old), Some(new)) => old <= new,
            (Some(_), None) => self.new_type == "numeric",
            _ => false,
        };
        wider && self.casts
    }

    /// The tables that the swap locks, the table itself first.
    pub fn locked(&self) -> Vec<QualifiedName> {
        let mut all = vec![self.table.name.clone()];
        for key in &self.keys {
            for table in [&key.table, &key.references] {
                if !all.contains(table) {
                    all.push(table.clone());
                }
            }
        }
        all
    }

    /// The same, with the other tables and the views that refer to the column.
    pub fn locked_with_rebound(&self) -> Vec<QualifiedName> {
        let mut all = self.locked();
        all.extend(
            self.rebound.tables(&self.table.name).into_iter().filter(|table| !self.locked().contains(table)),
        );
        all.extend(self.rebound.view_names());
        all
    }

    /// The materialized views that refer to the column, as they were when the job was planned.
    pub fn matviews(&self) -> impl Iterator<Item = &Matview> {
        self.table.dependents.matviews.iter().filter(|m| self.rebound.matviews.contains(&m.view.name))
    }

    /// The table without the objects that the job created on it, and without the inactive column, which depends on
    /// the direction.
    pub fn without_own(&self, table: &Table, direction: Direction) -> Table {
        let mut table = table.clone();
        let shadow = self.shadow(direction);
        let trigger = self.filling().fill_trigger();
        let counterparts: Vec<Ident> =
            self.indexes.iter().map(|one| self.counterpart(&one.index.name, direction)).collect();
        let mut checks: Vec<Ident> =
            self.checks.iter().map(|check| self.counterpart(&check.name, direction)).collect();
        checks.push(self.proof());
        table.columns.retain(|c| c.name != shadow);
        table.grants.retain(|g| g.column.as_ref() != Some(&shadow));
        table.triggers.retain(|t| t.name != trigger);
        table.indexes.retain(|i| !counterparts.contains(&i.name));
        table.checks.retain(|c| !checks.contains(&c.name));
        table.labels.retain(|label| !is_label_of(label, &shadow));
        remade_keys::ignore_expected_changes(&self.table, &mut table);
        table
    }

    /// The differences between the table when the job was planned and `now`, if no exchange has recorded a definition.
    /// The column, its indexes and its checks in `now` can be those of the new type.
    pub fn since_plan(&self, now: &Table, direction: Direction) -> Vec<Difference> {
        let mut now = self.without_own(now, direction);
        let swapped = direction == Direction::Reverse;
        let there = now.columns.iter_mut().find(|c| c.name == self.column.name);
        if let Some(column) = there.filter(|c| swapped && self.is_converted(c)) {
            *column = self.column.clone();
        }
        for one in &self.indexes {
            let there = now.indexes.iter_mut().find(|i| i.name == one.index.name);
            if let Some(index) = there.filter(|i| swapped && i.valid) {
                *index = one.index.clone();
            }
        }
        for check in &self.checks {
            for c in now.checks.iter_mut().filter(|c| swapped && c.name == check.name) {
                c.definition.clone_from(&check.definition);
            }
        }
        differences(&self.table, &now, Between::Times)
    }

    /// The effect of the next exchange on a change that was made to the table during the job.
    pub fn follows(&self, one: &Difference) -> Follows {
        let path: Vec<&str> = one.path.iter().map(String::as_str).collect();
        let column = self.column.name.as_str();
        let of_column = |name: &&str| name.contains(&format!(" ({column}) of "));
        let is_remade = |name: &str| {
            let constraints =
                self.indexes.iter().map(|i| &i.index.name).chain(self.checks.iter().map(|c| &c.name));
            constraints.chain(self.keys.iter().map(|key| &key.name)).any(|one| one.as_str() == name)
        };
        match path.as_slice() {
            ["grants", name] | ["grants", name, ..] if of_column(name) => Follows::Carried,
            ["columns", name, "statistics" | "options"] if *name == column => Follows::Carried,
            ["columns", name, "looks", field] if *name == column && *field != "not_null" => Follows::Carried,
            [
                "columns",
                name,
                "looks" | "default" | "statistics" | "options" | "identity" | "not_null",
                ..,
            ] if *name != column => Follows::Stays,
            // The exchange reads which index CLUSTER uses.
            ["indexes", _, "clustered"] => Follows::Stays,
            ["indexes" | "checks", name, ..] if !is_remade(name) => Follows::Stays,
            ["foreign_keys" | "referenced_by", name, ..]
                if !is_remade(name.split(" of ").next().unwrap_or_default()) =>
            {
                Follows::Stays
            }
            ["comments", name] | ["comments", name, ..]
                if !name.strip_prefix("constraint ").is_some_and(is_remade) =>
            {
                Follows::Stays
            }
            ["sequences", name, ..] if self.counter.as_ref().is_none_or(|c| c.name.plain() != *name) => {
                Follows::Stays
            }
            // The trigger of the job must see the results of all others. A subscriber would not have the second column.
            ["triggers", name, ..] if one.now.is_some() && *name > self.filling().fill_trigger().as_str() => {
                Follows::Lost
            }
            ["dependents", "publications", ..] if one.now.is_some() => Follows::Lost,
            ["labels"] if !one.has_more_that(|label| is_label_of(label, &self.column.name)) => Follows::Stays,
            // An identity sequence cannot be created again if objects depend on it.
            ["sequences", _, "uses", ..] if !one.has_more() => Follows::Stays,
            ["dependents", "defaults", ..] if one.now.is_some() && !self.column.identity.is_empty() => {
                Follows::Lost
            }
            // The sequence of a serial column stays the same; that of an identity column is created again.
            ["sequences", _, "options" | "grants", ..] if self.column.identity.is_empty() => Follows::Stays,
            [
                "owner" | "comment" | "options" | "toast_options" | "grants" | "default_privileges"
                | "row_type" | "row_security" | "force_row_security" | "policies" | "triggers" | "views"
                | "dependents" | "replica_identity",
                ..,
            ] => Follows::Stays,
            _ => Follows::Lost,
        }
    }
}

fn is_label_of(label: &str, column: &Ident) -> bool {
    label.ends_with(&format!(" on column {}", plain(column.as_str())))
}

/// The effect of the next exchange of the columns on a change to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The change is to the table and stays, unless the changed object depends on the column.
    Stays,
    /// The change is to the column, and is carried over to the other column.
    Carried,
    /// The exchange would lose the change, or fail because of it.
    Lost,
}

fn suffix(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "_new",
        Direction::Reverse => "_old",
    }
}

/// The cast of a column to another type.
pub fn default_cast(column: &Ident, sql_type: &str) -> String {
    format!("t.{column}::{sql_type}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::difference::descriptions;
    use crate::model::fixture::petri;

    fn counter() -> Counter {
        Counter {
            name: QualifiedName::new("public", "orders_id_seq"),
            sql_type: "integer".into(),
            options: "START WITH 1 INCREMENT BY 1 CACHE 1 NO CYCLE".into(),
            min: None,
            max: None,
            grants: Vec::new(),
            comment: None,
        }
    }

    /// An integer key with an identity, a referencing table, a CHECK constraint and another index.
    pub(crate) fn retyping() -> Retyping {
        let mut table = petri();
        let column = Column {
            name: Ident::new("id"),
            sql_type: "integer".into(),
            base_type: "integer".into(),
            identity: "a".into(),
            not_null: true,
            default: None,
            ..table.columns[0].clone()
        };
        table.columns[0] = column.clone();
        let key = Index {
            name: Ident::new("orders_pkey"),
            tail: "btree (id)".into(),
            unique: true,
            constraint: "p".into(),
            columns: Some(vec![Ident::new("id")]),
            ..table.indexes[0].clone()
        };
        let plain = Index {
            name: Ident::new("orders_id_note"),
            tail: "btree (id, note)".into(),
            unique: false,
            constraint: String::new(),
            comment: Some("it's used".into()),
            ..key.clone()
        };
        let counterpart = |index: Index| Counterpart {
            tail_new: index.tail.replace("id", "id_new"),
            tail_old: index.tail.replace("id", "id_old"),
            index,
        };
        let child = ForeignKey {
            name: Ident::new("lines_order_id_fkey"),
            table: QualifiedName::new("public", "lines"),
            references: table.name.clone(),
            definition: format!("FOREIGN KEY (order_id) REFERENCES {}(id)", table.name.plain()),
            validated: true,
            comment: None,
            index: Some(key.name.clone()),
            from_partitioned: false,
            to_unlogged: false,
        };
        Retyping {
            job: "orders_id".into(),
            key: vec![column.name.clone()],
            looks: Looks { comment: Some("the number".into()), ..Looks::default() },
            to: "bigint".into(),
            new_type: "bigint".into(),
            using: default_cast(&column.name, "bigint"),
            back: default_cast(&column.name, "integer"),
            column,
            indexes: vec![counterpart(key), counterpart(plain)],
            checks: vec![CheckPair {
                name: Ident::new("positive"),
                validated: true,
                definition: "CHECK ((id > 0))".into(),
                definition_new: "CHECK ((id_new > 0))".into(),
                definition_old: "CHECK ((id_old > 0))".into(),
            }],
            keys: vec![child],
            counter: Some(counter()),
            default_new: None,
            casts: true,
            comparable: true,
            sql: crate::model::plan_sql::tests::resolved(),
            rebound: Rebound::default(),
            table,
        }
    }

    #[test]
    fn the_type_of_a_sequence_changes_only_with_its_column() {
        let mut r = retyping();
        assert_eq!(r.wider_counter().map(|(_, sql_type)| sql_type), Some("bigint"));
        assert!(r.only_widens());
        r.new_type = "text".into();
        assert_eq!(r.wider_counter(), None);
        assert!(!r.only_widens());
    }

    #[test]
    fn objects_of_the_job_are_not_differences() {
        let r = retyping();
        let mut now = r.table.clone();
        now.columns.push(Column { name: Ident::new("id_new"), ..r.column.clone() });
        now.indexes.push(Index { name: Ident::new("orders_pkey_new"), ..r.indexes[0].index.clone() });
        let drift = |now: &Table| descriptions(&r.since_plan(now, Direction::Forward));
        assert_eq!(drift(&now), Vec::<String>::new());
        now.columns.push(Column { name: Ident::new("batch"), ..r.column.clone() });
        assert_eq!(drift(&now), ["column batch was added"]);
    }
}
