//! What a partition job is tried with before it starts: the statements that it will send, in a transaction that is rolled
//! back, and the table's own expressions on some of its rows.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::dependent::View;
use crate::model::dependent::{Function, Matview, OtherPolicy};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::table::{Check, Column};

use super::prepare::{self, Part};
use super::{copy, from_source, index, matview, row_trial};

/// The partition that rows are tried on: one that takes all of them.
pub fn leaf(b: &Blueprint) -> QualifiedName {
    b.default.clone().unwrap_or_else(|| b.table.name.sibling(b.target().name.with_suffix("_default")))
}

/// The plan's first partition.
pub fn first_partition(b: &Blueprint) -> Option<Part> {
    b.partitions.first().map(|p| Part::new("partition", &p.name.name, prepare::partition(b, p)))
}

/// [`leaf`].
pub fn whole_partition(b: &Blueprint) -> Part {
    let leaf = leaf(b);
    Part::new("partition", &leaf.name, prepare::default_partition(b, &leaf))
}

/// Copies the sample. Only the partition that takes every row is there.
pub fn copy(b: &Blueprint, sampled: &str) -> String {
    copy::insert(b, sampled)
}

/// Indexes of the partition, by the name that the table has for each.
pub fn leaf_indexes(b: &Blueprint) -> Vec<Part> {
    let leaf = leaf(b);
    let of_leaf = |index: &&crate::model::table::Index| index::by_leaf(index);
    b.carried_indexes()
        .into_iter()
        .filter(of_leaf)
        .map(|index| {
            let constraint = index::leaf_constraint(b, index, &leaf).map(|(_, statement)| statement);
            let statements = index::on_leaf(b, index, &leaf).into_iter().chain(constraint);
            Part::new("index", &index.name, statements)
        })
        .collect()
}

/// What comes behind the indexes of the partition: its marks, statistics, late constraints and the parent's indexes.
pub fn finish(b: &Blueprint) -> Vec<Part> {
    let (leaf, name) = (leaf(b), &b.table.name.name);
    let mut analyze = Part::new("planner statistics of", name, index::analyze(b));
    // Which of them it was the server does not say.
    for statistics in &b.table.dependents.statistics {
        analyze.what.push_str(&format!(", statistics {}", plain(statistics.name.name.as_str())));
    }
    let mut all = vec![Part::new("replica identity of", name, index::leaf_marks(b, &leaf)), analyze];
    all.extend(
        b.late_checks()
            .into_iter()
            .zip(index::late_checks(b))
            .map(|(check, add)| Part::new("constraint", &check.name, [add])),
    );
    for index in b.carried_indexes() {
        let attach = index::by_leaf(index).then(|| index::attach(b, index, &leaf));
        let statements = index::on_parent(b, index).into_iter().chain(attach);
        all.push(Part::new("index", &index.name, statements));
    }
    let identity = index::replica_identity(b, &b.target(), |index| index.with_suffix("_new"));
    all.push(Part::new("replica identity of", name, identity));
    all
}

/// The view from the text that the swap creates it from, under another name.
pub fn view(b: &Blueprint, number: usize, view: &View) -> Part {
    let name = b.target().name.with_suffix(&format!("_view{number}"));
    let query = view.query.trim_end().trim_end_matches(';');
    let create = format!("create view {} as\n{query}", b.table.name.sibling(name));
    Part::new("view", &view.name.name, [create])
}

/// The function as the swap creates it again. Nobody waits for it: a call locks no function.
pub fn function(function: &Function) -> Part {
    Part { what: format!("function {}", function.name), statements: vec![function.definition.clone()] }
}

/// An empty temporary table with the name and the columns of another table. A policy may name its table's columns by the
/// table's name.
pub fn empty_namesake(table: &QualifiedName) -> String {
    format!("create temporary table {} (like {table})", table.name)
}

/// Drops it.
pub fn drop_namesake(table: &QualifiedName) -> String {
    format!("drop table pg_temp.{}", table.name)
}

/// The policy of another table, on an empty table of that name.
pub fn other_policy(policy: &OtherPolicy) -> Part {
    let using = policy.using.as_ref().map_or(String::new(), |e| format!(" using ({e})"));
    let check = policy.check.as_ref().map_or(String::new(), |e| format!(" with check ({e})"));
    Part {
        what: format!("policy {} on {}", plain(policy.name.as_str()), policy.table.plain()),
        statements: vec![format!(
            "create policy {} on pg_temp.{}{using}{check}",
            policy.name, policy.table.name
        )],
    }
}

/// The materialized view as it will be made; it is filled until the time is up.
pub fn materialized_view(m: &Matview) -> Part {
    let statements = matview::build(m);
    let limit = "set local statement_timeout = '1s'".to_owned();
    Part::new("materialized view", &m.view.name.name, std::iter::once(limit).chain(statements))
}

/// Computes a generated column of the sample's rows.
pub fn generate(b: &Blueprint, column: &Column, sampled: &str) -> Option<String> {
    let expression = column.default.as_ref().filter(|_| column.generated == "s")?;
    Some(format!("select count({expression}) from {} where {sampled}", source(b)))
}

/// The table, without what inherits from it.
pub fn source(b: &Blueprint) -> String {
    from_source(&b.sides(Direction::Forward))
}

/// An index that the server refuses where the CHECK depends on more than the row. The partition is empty.
pub fn depends_on_row_alone(b: &Blueprint, check: &Check) -> String {
    format!("create index on {} ({})", leaf(b), row_trial::condition(check))
}

/// Takes a CHECK off the target, so that the rows that it refuses do not hide what else is refused.
pub fn without(b: &Blueprint, check: &Ident) -> String {
    format!("alter table {} drop constraint if exists {check}", b.target())
}
