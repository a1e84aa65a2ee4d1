//! The result that a partition job builds. It is determined once, before the job starts, and stored with the job. Every
//! statement is rendered only from it.

use serde::{Deserialize, Serialize};

use super::ident::{Ident, QualifiedName, not_null_check, part_index};
use super::key_table::{self, KeyTable};
use super::plan_sql::PlanSql;
use super::table::{Check, Column, ForeignKey, Index, Table};

/// The schema with the tables of pgstrata.
pub const SCHEMA: &str = "pgstrata";

/// The design of a partition job, including all names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blueprint {
    /// The job's name.
    pub job: String,
    /// The source as it was when the job was planned.
    pub table: Table,
    /// The partition column.
    pub by: Ident,
    /// Nullable columns of the source that the job keeps NULL out of: the partition column, and columns of the key.
    #[serde(default)]
    pub not_null: Vec<Ident>,
    /// How NULL in the partition column is filled until the swap, if the plan has `null_as`.
    #[serde(default)]
    pub null_as: Option<NullFilling>,
    /// The index whose columns are the key.
    pub key_index: Ident,
    /// The columns of the key, in the order of the index.
    pub key: Vec<Ident>,
    /// Partitions, in order, without gaps.
    pub partitions: Vec<Partition>,
    /// The default partition, if the plan has one.
    pub default: Option<QualifiedName>,
    /// Unique indexes whose guarantee the plan gives up.
    pub drop_unique: Vec<Ident>,
    /// The key tables of unique indexes without the partition column.
    #[serde(default)]
    pub key_tables: Vec<KeyTable>,
    /// Foreign keys that reference the table, and that can also reference the partitioned table.
    #[serde(default)]
    pub incoming: Vec<ForeignKey>,
    /// Foreign keys that cannot reference the partitioned table, and that the plan drops. A rollback restores them.
    #[serde(default)]
    pub incoming_dropped: Vec<ForeignKey>,
    /// Whether each partition gets the foreign keys, because partitioned tables do not support NOT VALID foreign keys
    /// (before PostgreSQL 18).
    #[serde(default = "yes")]
    pub keys_on_leaves: bool,
    /// CHECK constraints that rows of the source violated when the job was planned. The target gets them as NOT VALID,
    /// after the copy.
    #[serde(default)]
    pub violated_checks: Vec<Ident>,
    /// Those that the job dropped from the inactive table, because a row that it copied violated them. An exchange adds them to
    /// the table that comes into use.
    #[serde(default)]
    pub checks_left_out: Vec<Ident>,
}

fn yes() -> bool {
    true
}

/// How rows with NULL in the partition column are filled, with the names in the plan's SQL resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NullFilling {
    /// The value, an expression over the row `t`.
    pub value: String,
    /// The condition for these rows.
    pub filter: String,
    /// The settings of the SQL.
    pub sql: PlanSql,
}

/// One partition: `[from, to)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The name of its table.
    pub name: QualifiedName,
    /// The lower bound, in the server's format.
    pub from: String,
    /// The upper bound, exclusive; `maxvalue` is the keyword.
    pub to: String,
}

/// The direction in which changes are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Before the swap: from the plain table to the partitioned one.
    Forward,
    /// After the swap: from the partitioned table to the old one.
    Reverse,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// The two tables of a direction. The source is always the table in use, which has the name that applications use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sides {
    /// The table to which applications write.
    pub source: QualifiedName,
    /// The table that is kept in sync with it.
    pub target: QualifiedName,
    /// Whether the source is the plain table: `ONLY` excludes child tables, which must not exist.
    pub plain_source: bool,
}

impl Blueprint {
    /// The partitioned table's name before the swap.
    pub fn target(&self) -> QualifiedName {
        self.table.name.sibling(self.table.name.name.with_suffix("_new"))
    }

    /// The plain table's name after the swap.
    pub fn old(&self) -> QualifiedName {
        self.table.name.sibling(self.table.name.name.with_suffix("_old"))
    }

    /// The source and the target in a direction.
    pub fn sides(&self, direction: Direction) -> Sides {
        let source = self.table.name.clone();
        match direction {
            Direction::Forward => Sides { source, target: self.target(), plain_source: true },
            Direction::Reverse => Sides { source, target: self.old(), plain_source: false },
        }
    }

    /// CHECK constraints that the target gets as NOT VALID, after the copy: those that are not valid on the source, and
    /// those that its rows violate.
    pub fn late_checks(&self) -> Vec<&Check> {
        self.table.checks.iter().filter(|check| self.is_late(check)).collect()
    }

    /// CHECK constraints that the target has from the start.
    pub fn early_checks(&self) -> Vec<&Check> {
        self.table.checks.iter().filter(|check| !self.is_late(check)).collect()
    }

    fn is_late(&self, check: &Check) -> bool {
        !check.validated || self.violated_checks.contains(&check.name)
    }

    /// The change log.
    pub fn log(&self) -> QualifiedName {
        self.own("changes")
    }

    /// The list of truncations that the capture logged.
    pub fn truncations(&self) -> QualifiedName {
        self.own("truncations")
    }

    /// The trigger function of the capture.
    pub fn capture_function(&self) -> QualifiedName {
        self.own("capture")
    }

    /// The function of the mirror, which exists while the mirror is on.
    pub fn mirror_function(&self) -> QualifiedName {
        self.own("mirror")
    }

    /// The trigger function of the guard.
    pub fn guard_function(&self) -> QualifiedName {
        self.own("guard")
    }

    /// The function that exchanges the two tables.
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

    /// The CHECK constraint that keeps NULL out of columns of the source, if the job needs one.
    pub fn not_null_check(&self) -> Option<Ident> {
        self.not_null.first().map(not_null_check)
    }

    /// A column of the source as the target has it.
    pub fn target_column(&self, column: &Column) -> Column {
        let not_null = column.not_null || self.not_null.contains(&column.name);
        Column { not_null, ..column.clone() }
    }

    /// The columns of the key, as in the catalog.
    pub fn key_columns(&self) -> Vec<&Column> {
        self.key.iter().filter_map(|name| self.table.column(name)).collect()
    }

    /// The columns of a place: the key and, if it is not part of the key, the partition column. They are the key of the
    /// target, and the change log records their values.
    pub fn place_columns(&self) -> Vec<&Column> {
        let mut place = self.key_columns();
        if !self.key.contains(&self.by) {
            place.extend(self.table.column(&self.by));
        }
        place
    }

    /// Whether the partition column had to be added to the key.
    pub fn widened(&self) -> bool {
        !self.key.contains(&self.by)
    }

    /// The partition column, as in the catalog. The check ensures that it exists.
    pub fn by_column(&self) -> Option<&Column> {
        self.table.column(&self.by)
    }

    /// Indexes that the target gets. That of the key is first: a duplicate is found early, and the drain needs only
    /// this index. A unique index that the plan gives up, or that has a key table, becomes one that is not unique, so that
    /// queries can still use it.
    pub fn carried_indexes(&self) -> Vec<Index> {
        let of_target = |index: &Index| {
            let name = self.target_index_name(&index.name);
            let unique =
                index.name == self.key_index || name == index.name && !self.drop_unique.contains(&name);
            Index { name, ..if unique { index.clone() } else { index.without_guarantee() } }
        };
        let mut all: Vec<Index> = self.table.indexes.iter().map(of_target).collect();
        all.sort_by_key(|i| !self.is_key(i));
        all
    }

    /// The name that an index of the source has on the partitioned table when that is in use. The constraint of a key
    /// table takes the name of its index.
    pub fn target_index_name(&self, index: &Ident) -> Ident {
        match self.key_table(index) {
            Some(_) => key_table::local(index),
            None => index.clone(),
        }
    }

    /// Whether an index, as [`Blueprint::carried_indexes`] returns it, is that of the key.
    pub fn is_key(&self, carried: &Index) -> bool {
        carried.name == self.target_index_name(&self.key_index)
    }

    /// The key table of a unique index of the source.
    pub fn key_table(&self, index: &Ident) -> Option<&KeyTable> {
        self.key_tables.iter().find(|k| k.index == *index)
    }

    /// The foreign keys that reference a key table after the swap.
    pub fn keys_to<'a>(&'a self, k: &'a KeyTable) -> impl Iterator<Item = &'a ForeignKey> {
        self.incoming.iter().filter(|key| key.index.as_ref() == Some(&k.index))
    }

    /// A foreign key as it is after an exchange that ends direction `ending`.
    pub fn key_after(&self, key: &ForeignKey, ending: Direction) -> ForeignKey {
        let key_table = key.index.as_ref().and_then(|index| self.key_table(index));
        match key_table.filter(|_| ending == Direction::Forward && key.references == self.table.name) {
            Some(k) => key_table::referencing(key, &k.name),
            None => key.clone(),
        }
    }

    /// Foreign keys of the table that exist only on the table in use: those that reference other tables, and those that
    /// reference the table itself and that the partitioned table can have.
    pub fn own_keys(&self) -> Vec<&ForeignKey> {
        let to_itself = self.incoming.iter().filter(|key| key.table == self.table.name);
        self.table.foreign_keys.iter().chain(to_itself).collect()
    }

    /// The keys of [`Blueprint::own_keys`] as they are after an exchange that ends direction `ending`.
    pub fn own_keys_after(&self, ending: Direction) -> Vec<ForeignKey> {
        self.own_keys().into_iter().map(|key| self.key_after(key, ending)).collect()
    }

    /// Foreign keys of other tables that reference only the table in use.
    pub fn child_keys(&self) -> Vec<&ForeignKey> {
        self.incoming.iter().filter(|key| key.table != self.table.name).collect()
    }

    /// Tables other than the two sides that the swap alters.
    pub fn other_altered_tables(&self) -> Vec<&QualifiedName> {
        let children = self.incoming.iter().chain(&self.incoming_dropped).map(|key| &key.table);
        let mut all = self.table.dependents.tables(&self.table.name);
        all.extend(children.filter(|name| **name != self.table.name));
        all.sort();
        all.dedup();
        all
    }

    /// The name of the index of a leaf that belongs to `index`: the name of the table in it is replaced by that of the
    /// leaf.
    pub fn leaf_index_name(&self, leaf: &Ident, index: &Ident) -> Ident {
        part_index(&self.table.name.name, leaf, index)
    }

    /// The names that an exchange which ends direction `ending` changes, other than those of the tables: for the table
    /// that goes out of use, and for the table that comes into use.
    pub fn moved_names(&self, ending: Direction) -> (Vec<QualifiedName>, Vec<QualifiedName>) {
        let of = |name: Ident| self.table.name.sibling(name);
        let sequences = self.table.sequences.iter().filter(|s| s.identity).map(|s| s.name.clone());
        let statistics = self.table.dependents.statistics.iter().map(|s| s.name.clone());
        let others: Vec<QualifiedName> = sequences.chain(statistics).collect();
        let with = |indexes: Vec<Ident>| -> Vec<QualifiedName> {
            indexes.into_iter().map(of).chain(others.clone()).collect()
        };
        let (out, come) = (with(self.index_names(ending)), with(self.index_names(ending.opposite())));
        let from = if ending == Direction::Forward { "_new" } else { "_old" };
        let waiting = |name: QualifiedName| name.sibling(name.name.with_suffix(from));
        (out, come.into_iter().map(waiting).collect())
    }

    /// The names of the indexes, when in use, of the table that is in use in a direction.
    pub fn index_names(&self, direction: Direction) -> Vec<Ident> {
        let of_source = self.table.indexes.iter().map(|i| i.name.clone());
        match direction {
            Direction::Forward => of_source.collect(),
            Direction::Reverse => of_source.map(|name| self.target_index_name(&name)).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::fixture::petri;

    /// The blueprint of scenario 1, for two months.
    pub(crate) fn blueprint() -> Blueprint {
        let part = |month: &str, from: &str, to: &str| Partition {
            name: QualifiedName::new("public", format!("petri_observations_{month}")),
            from: from.into(),
            to: to.into(),
        };
        Blueprint {
            job: "petri_observations".into(),
            table: petri(),
            by: Ident::new("created_at"),
            not_null: vec![],
            null_as: None,
            key_index: Ident::new("petri_observations_pkey"),
            key: vec![Ident::new("observation_id")],
            partitions: vec![
                part("y2024m01", "2024-01-01 00:00:00+00", "2024-02-01 00:00:00+00"),
                part("y2024m02", "2024-02-01 00:00:00+00", "2024-03-01 00:00:00+00"),
            ],
            default: Some(QualifiedName::new("public", "petri_observations_default")),
            drop_unique: vec![],
            key_tables: vec![],
            incoming: vec![],
            incoming_dropped: vec![],
            keys_on_leaves: true,
            violated_checks: vec![],
            checks_left_out: vec![],
        }
    }

    #[test]
    fn the_key_is_widened_if_it_lacks_the_partition_column() {
        let mut b = blueprint();
        assert!(b.widened());
        let names =
            |b: &Blueprint| b.place_columns().iter().map(|c| c.name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&b), ["observation_id", "created_at"]);
        b.key.push(b.by.clone());
        assert!(!b.widened());
        assert_eq!(names(&b), ["observation_id", "created_at"]);
    }

    #[test]
    fn leaf_indexes_are_named_after_their_leaf() {
        let b = blueprint();
        let leaf = Ident::new("petri_observations_y2024m01");
        let name = |index: &str| b.leaf_index_name(&leaf, &Ident::new(index)).as_str().to_owned();
        assert_eq!(name("petri_observations_pkey"), "petri_observations_y2024m01_pkey");
        assert_eq!(name("petri_created"), "petri_observations_y2024m01_petri_created");
        assert!(name(&"x".repeat(60)).len() <= 63);
    }
}
