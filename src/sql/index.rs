//! Indexes: workers build one for each leaf. Then the index of the parent is created, and those of the leaves are
//! attached to it.

use crate::model::blueprint::Blueprint;
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::{Check, Index, ReplicaIdentity};

use super::{definition, in_tablespace, list, with_operators};

/// The part after USING for the target: that of the source, or the key with the partition column added.
fn tail(b: &Blueprint, index: &Index) -> String {
    if !b.is_key(index) || !b.widened() {
        return index.tail.clone();
    }
    let mut sql = format!("btree ({})", list("", b.place_columns().iter().map(|c| &c.name)));
    let include: Vec<&Ident> = index.include.iter().filter(|c| **c != b.by).collect();
    if !include.is_empty() {
        sql.push_str(&format!(" include ({})", list("", include)));
    }
    if !index.options.is_empty() {
        let options: Vec<String> = index.options.iter().map(|o| super::prepare::option(o)).collect();
        sql.push_str(&format!(" with ({})", options.join(", ")));
    }
    sql
}

fn create(b: &Blueprint, index: &Index, name: &Ident, table: &str) -> String {
    let unique = if index.unique { "unique " } else { "" };
    format!("create {unique}index {name} on {table} using {}", tail(b, index))
}

/// Whether the index of the parent is created by `ADD CONSTRAINT`.
fn is_constraint(index: &Index) -> bool {
    index.constraint == "p" || index.constraint == "u"
}

fn constraint(table: &str, name: &Ident, index: &Index, what: &str) -> String {
    let kind = if index.constraint == "p" { "primary key" } else { "unique" };
    format!("alter table {table} add constraint {name} {kind} {what}{}", index.deferrable)
}

/// Whether the index is built for each leaf separately. The index of an exclusion constraint is not: the server cannot
/// attach such an index to that of the parent, so the statement for the parent builds all of them.
pub fn by_leaf(index: &Index) -> bool {
    index.exclusion.is_none()
}

/// Builds one index of one leaf. One transaction.
///
/// Parallel index builds of the server are off: the worker pool already builds several indexes at once, limited to the
/// workers of the plan.
pub fn on_leaf(b: &Blueprint, index: &Index, leaf: &QualifiedName) -> Vec<String> {
    let name = b.leaf_index_name(&leaf.name, &index.name);
    let built = with_operators(&b.table.operator_schemas, vec![create(b, index, &name, &leaf.to_string())]);
    let mut all = vec!["set local max_parallel_maintenance_workers = 0".to_owned()];
    all.extend(in_tablespace(index.tablespace.as_ref(), built));
    all.extend(statistics(index, &leaf.sibling(name)));
    all
}

/// Keys of rows of a leaf with duplicate values in an index; see [`super::repeated`]. None if the definition of the index
/// cannot be parsed. Runs the functions in that definition.
pub fn repeated(b: &Blueprint, index: &Index, leaf: &QualifiedName) -> Option<String> {
    repeated_in(&index.tail, &b.key, leaf)
}

/// As [`repeated`], for the rows of a table in an index with that definition after `USING`.
pub fn repeated_in(tail: &str, key: &[Ident], table: &QualifiedName) -> Option<String> {
    let (of, condition) = definition::index_key(tail)?;
    Some(super::repeated(&format!("only {table}"), &table.name, key, &of, condition.as_deref()))
}

/// Statistics targets of the columns of the index. The index of a leaf does not inherit them from that of the parent.
fn statistics(index: &Index, name: &QualifiedName) -> Vec<String> {
    let set =
        |(column, n): &(i16, i32)| format!("alter index {name} alter column {column} set statistics {n}");
    index.statistics.iter().map(set).collect()
}

/// Sets the replica identity of the target or a leaf; none if it is the primary key, which is the default. `name` maps
/// the name of an index of the source to its name on that table.
pub fn replica_identity(
    b: &Blueprint,
    table: &QualifiedName,
    name: impl Fn(&Ident) -> Ident,
) -> Option<String> {
    let identity = match &b.table.replica_identity {
        ReplicaIdentity::Default => return None,
        ReplicaIdentity::Nothing => "nothing".to_owned(),
        ReplicaIdentity::Full => "full".to_owned(),
        ReplicaIdentity::Index(index) => format!("using index {}", name(&b.target_index_name(index))),
    };
    Some(format!("alter table {table} replica identity {identity}"))
}

/// Settings of a leaf that refer to its indexes: the replica identity, and the index that CLUSTER uses.
pub fn leaf_marks(b: &Blueprint, leaf: &QualifiedName) -> Vec<String> {
    let name = |index: &Ident| b.leaf_index_name(&leaf.name, index);
    replica_identity(b, leaf, name).into_iter().chain(cluster_on(b, leaf)).collect()
}

/// Sets the index that CLUSTER uses on a leaf; nothing if the source has none.
pub fn cluster_on(b: &Blueprint, leaf: &QualifiedName) -> Option<String> {
    let index = b.carried_indexes().into_iter().find(|i| i.clustered && by_leaf(i))?;
    Some(format!("alter table {leaf} cluster on {}", b.leaf_index_name(&leaf.name, &index.name)))
}

/// Turns the index of a leaf into a constraint if the source has one. Not in the transaction of the build: it needs an
/// exclusive lock on the leaf, so two concurrent builds would be in a deadlock.
pub fn leaf_constraint(b: &Blueprint, index: &Index, leaf: &QualifiedName) -> Option<(Ident, String)> {
    let name = b.leaf_index_name(&leaf.name, &index.name);
    let statement = constraint(&leaf.to_string(), &name, index, &format!("using index {name}"));
    is_constraint(index).then_some((name, statement))
}

/// Creates the index of the parent, which is invalid until the index of every leaf is attached. For an exclusion
/// constraint, the statement also builds the indexes of the leaves. The swap replaces its name with that of the
/// source's index.
pub fn on_parent(b: &Blueprint, index: &Index) -> Vec<String> {
    let name = index.name.with_suffix("_new");
    let only = format!("only {}", b.target());
    let mut all = Vec::new();
    if let Some(definition) = &index.exclusion {
        all.push(format!("alter table {} add constraint {name} {definition}", b.target()));
    } else if is_constraint(index) {
        let columns = if b.is_key(index) {
            list("", b.place_columns().iter().map(|c| &c.name))
        } else {
            list("", index.columns.iter().flatten())
        };
        let distinct = if index.nulls_not_distinct { "nulls not distinct " } else { "" };
        let include: Vec<&Ident> = index.include.iter().filter(|c| !b.is_key(index) || **c != b.by).collect();
        let include =
            if include.is_empty() { String::new() } else { format!(" include ({})", list("", include)) };
        all.push(constraint(&only, &name, index, &format!("{distinct}({columns}){include}")));
    } else {
        all.push(create(b, index, &name, &only));
    }
    let all = with_operators(&b.table.operator_schemas, all);
    let mut all = in_tablespace(index.tablespace.as_ref(), all);
    let name = b.table.name.sibling(name);
    all.extend(statistics(index, &name));
    if let Some(comment) = &index.comment {
        all.push(format!("comment on index {name} is {}", literal(comment)));
    }
    all
}

/// Attaches a leaf's index to the parent's.
pub fn attach(b: &Blueprint, index: &Index, leaf: &QualifiedName) -> String {
    let parent = b.table.name.sibling(index.name.with_suffix("_new"));
    format!(
        "alter index {parent} attach partition {}",
        leaf.sibling(b.leaf_index_name(&leaf.name, &index.name))
    )
}

/// Indexes on the leaves of the relation with oid `$1`: schema, leaf, name, whether it is attached, whether it is
/// valid.
pub const LEAF_INDEXES: &str = "select n.nspname, l.relname, i.relname, p.inhparent is not null, x.indisvalid
from pg_catalog.pg_inherits h
  join pg_catalog.pg_class l on l.oid = h.inhrelid
  join pg_catalog.pg_index x on x.indrelid = l.oid
  join pg_catalog.pg_class i on i.oid = x.indexrelid
  join pg_catalog.pg_namespace n on n.oid = l.relnamespace
  left join pg_catalog.pg_inherits p on p.inhrelid = i.oid
where h.inhparent = $1";

/// The leaves of the relation with oid `$1`, and their size in bytes.
pub const LEAF_SIZES: &str = "select inhrelid, pg_catalog.pg_relation_size(inhrelid)
from pg_catalog.pg_inherits where inhparent = $1";

/// Updates the visibility map of one leaf, for index-only scans, and its statistics. Not in a transaction.
pub fn vacuum(leaf: &QualifiedName) -> String {
    format!("vacuum (analyze) {leaf}")
}

/// Updates the statistics of the parent, which autovacuum never analyzes. One transaction.
///
/// Before PostgreSQL 18, ANALYZE of the parent always also analyzes the leaves, one after another, with full samples:
/// with 24 leaves, that takes twenty times as long as the parent alone. The default statistics target is therefore set
/// to 1 for this transaction, and the usual target is set explicitly for the columns of the parent. [`vacuum`] then
/// computes the statistics of the leaves, several at a time.
pub fn analyze(b: &Blueprint) -> Vec<String> {
    let target = b.target();
    let usual: Vec<&Ident> = b
        .table
        .columns
        .iter()
        // A virtual column has no statistics, and the server rejects a target for it.
        .filter(|c| c.statistics.is_none() && c.generated != "v")
        .map(|c| &c.name)
        .collect();
    if usual.is_empty() {
        return vec!["set local default_statistics_target = 1".to_owned(), format!("analyze {target}")];
    }
    let body = format!(
        "begin
  execute format('alter table only %s %s', {}, (
    select string_agg(format('alter column %I set statistics %s', name, current_setting('default_statistics_target')), ', ')
    from unnest(array[{}]) name));
end",
        literal(&target.to_string()),
        usual.iter().map(|name| literal(name.as_str())).collect::<Vec<_>>().join(", ")
    );
    let back: Vec<String> =
        usual.iter().map(|name| format!("alter column {name} set statistics -1")).collect();
    vec![
        format!("do {}", super::dollar_quoted(&body)),
        "set local default_statistics_target = 1".to_owned(),
        format!("analyze {target}"),
        format!("alter table only {target} {}", back.join(", ")),
    ]
}

/// CHECK constraints that rows may violate. They are added after the copy, without reading the rows.
pub fn late_checks(b: &Blueprint) -> Vec<String> {
    let target = b.target();
    let add =
        |c: &Check| format!("alter table {target} add constraint {} {} not valid", c.name, c.definition);
    with_operators(&b.table.operator_schemas, b.late_checks().into_iter().map(add).collect())
}

/// Constraints of the leaf with oid `$1`, by name.
pub const LEAF_CONSTRAINTS: &str =
    "select conname::text from pg_catalog.pg_constraint where conrelid = $1 and contype in ('p', 'u')";
