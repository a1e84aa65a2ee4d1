//! Tries a partition job before it starts: runs the statements that it will send in a transaction that is rolled back,
//! and evaluates the table's own expressions on some of its rows.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::dependent::View;
use crate::model::dependent::{Function, Matview, OtherDefault, OtherPolicy, RowFunction};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::table::{Check, Column};

use super::prepare::{self, Part};
use super::{
    copy, drop_constraint, from_source, index, key_table, matview, row_functions, row_trial, with_operators,
};

/// The partition for the trial, which accepts all rows.
pub fn leaf(b: &Blueprint) -> QualifiedName {
    b.default.clone().unwrap_or_else(|| b.table.name.sibling(b.target().name.with_suffix("_default")))
}

/// Creates the first partition of the plan.
pub fn first_partition(b: &Blueprint) -> Option<Part> {
    b.partitions.first().map(|p| Part::new("partition", &p.name.name, prepare::partition(b, p)))
}

/// Creates [`leaf`].
pub fn whole_partition(b: &Blueprint) -> Part {
    let leaf = leaf(b);
    Part::new("partition", &leaf.name, prepare::default_partition(b, &leaf))
}

/// Copies the sample to the partition that accepts every row, the only one that exists.
pub fn copy(b: &Blueprint, sampled: &str) -> String {
    match &b.null_as {
        // These rows are filled before they are copied.
        Some(_) => copy::insert(b, &format!("({sampled}) and {} is not null", b.by)),
        None => copy::insert(b, sampled),
    }
}

/// Builds the indexes of the partition; each is reported by the name of the table's index.
pub fn leaf_indexes(b: &Blueprint) -> Vec<Part> {
    let leaf = leaf(b);
    b.carried_indexes()
        .into_iter()
        .filter(index::by_leaf)
        .map(|index| {
            let constraint = index::leaf_constraint(b, &index, &leaf).map(|(_, statement)| statement);
            let statements = index::on_leaf(b, &index, &leaf).into_iter().chain(constraint);
            Part::new("index", &index.name, statements)
        })
        .collect()
}

/// The statements after the indexes of the partition: its replica identity and CLUSTER index, statistics, late
/// constraints, and the indexes of the parent.
pub fn finish(b: &Blueprint) -> Vec<Part> {
    let (leaf, name) = (leaf(b), &b.table.name.name);
    let mut analyze = Part::new("planner statistics of", name, index::analyze(b));
    // List all of them, because the server does not report which one failed.
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
        let attach = index::by_leaf(&index).then(|| index::attach(b, &index, &leaf));
        let statements = index::on_parent(b, &index).into_iter().chain(attach);
        all.push(Part::new("index", &index.name, statements));
    }
    for k in &b.key_tables {
        let mut statements = key_table::create(b, k);
        statements.extend(key_table::fill(b, k, &leaf));
        statements.extend(key_table::complete(b, k, std::slice::from_ref(&leaf)));
        all.push(Part::new("key table", &k.name.name, statements));
    }
    let identity = index::replica_identity(b, &b.target(), |index| index.with_suffix("_new"));
    all.push(Part::new("replica identity of", name, identity));
    all
}

/// Creates the view under another name, which is returned too, from the text that the swap uses.
pub fn view(b: &Blueprint, number: usize, view: &View) -> (QualifiedName, Part) {
    let name = b.table.name.sibling(b.target().name.with_suffix(&format!("_view{number}")));
    let query = view.query.trim_end().trim_end_matches(';');
    let create = format!("create view {name} as\n{query}");
    (name, Part::new("view", &view.name.name, with_operators(&b.table.operator_schemas, vec![create])))
}

/// Creates the function again, as the swap does. No session waits for this: a call does not lock the function.
pub fn function(b: &Blueprint, function: &Function) -> Part {
    let create = vec![function.definition.clone()];
    Part {
        what: format!("function {}", function.name),
        statements: with_operators(&b.table.operator_schemas, create),
    }
}

/// Creates a function on the row type again, as the swap does, but for the row type of the table in use.
pub fn row_function(b: &Blueprint, function: &RowFunction) -> Part {
    let mut statements = vec![row_functions::BODIES_UNCHECKED.to_owned()];
    statements.extend(row_functions::create_one(function, &b.table.operator_schemas));
    Part { what: format!("{} {}", row_functions::kind(function), function.name), statements }
}

/// Sets the default on an empty table with the columns of the table that has it.
pub fn other_default(b: &Blueprint, default: &OtherDefault) -> Part {
    let OtherDefault { table, column, expression } = default;
    let set = format!("alter table pg_temp.{} alter column {column} set default {expression}", table.name);
    Part {
        what: format!("default of column {} of {}", plain(column.as_str()), table.plain()),
        statements: with_operators(&b.table.operator_schemas, vec![set]),
    }
}

/// Creates an empty temporary table with the name and the columns of another table: a policy may qualify columns of its
/// table with the table's name.
pub fn empty_namesake(table: &QualifiedName) -> String {
    format!("create temporary table {} (like {table})", table.name)
}

/// Drops the table that [`empty_namesake`] created.
pub fn drop_namesake(table: &QualifiedName) -> String {
    format!("drop table pg_temp.{}", table.name)
}

/// Creates the policy of another table on an empty table with that table's name.
pub fn other_policy(b: &Blueprint, policy: &OtherPolicy) -> Part {
    let using = policy.using.as_ref().map_or(String::new(), |e| format!(" using ({e})"));
    let check = policy.check.as_ref().map_or(String::new(), |e| format!(" with check ({e})"));
    let create = format!("create policy {} on pg_temp.{}{using}{check}", policy.name, policy.table.name);
    Part {
        what: format!("policy {} on {}", plain(policy.name.as_str()), policy.table.plain()),
        statements: with_operators(&b.table.operator_schemas, vec![create]),
    }
}

/// Builds the materialized view as after the swap, within the time limit.
pub fn materialized_view(b: &Blueprint, m: &Matview, trust: &[String]) -> Part {
    let statements = matview::build(m, &b.table.operator_schemas, trust);
    let limit = "set local statement_timeout = '1s'".to_owned();
    Part::new("materialized view", &m.view.name.name, std::iter::once(limit).chain(statements))
}

/// Computes a generated column for the rows of the sample.
pub fn generate(b: &Blueprint, column: &Column, sampled: &str) -> Option<String> {
    let expression = column.default.as_ref().filter(|_| column.generated == "s")?;
    Some(format!("select count({expression}) from {} where {sampled}", source(b)))
}

/// The table, without tables that inherit from it.
pub fn source(b: &Blueprint) -> String {
    from_source(&b.sides(Direction::Forward))
}

/// Creates an index on the empty partition. The server rejects it if the CHECK depends on more than the row.
pub fn depends_on_row_alone(b: &Blueprint, check: &Check) -> String {
    format!("create index on {} ({})", leaf(b), row_trial::condition(check))
}

/// Drops a CHECK constraint of the target, so that its violations do not hide other errors.
pub fn without(b: &Blueprint, check: &Ident) -> String {
    drop_constraint(&b.target(), check)
}
