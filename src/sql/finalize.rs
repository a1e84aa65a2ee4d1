//! The end of a job: `finalize` closes the rollback window, and `abort` removes everything.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::filling::Filling;
use crate::model::ident::{Ident, QualifiedName, literal};

use super::exchange::Exchange;
use super::key_table::triggers;
use super::{capture, dollar_quoted, drop_constraint, key_table, objects, swap};

/// The objects that the end of a job removes, with their current names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The table that applications use.
    pub in_use: Option<QualifiedName>,
    /// Constraints of the job on tables of the application, with their tables.
    pub constraints: Vec<(QualifiedName, Ident)>,
    /// Triggers that call the functions of the job, with their tables.
    pub triggers: Vec<(QualifiedName, Ident)>,
    /// The table to drop, and its oid if known.
    pub table: Option<(QualifiedName, Option<u32>)>,
    /// The job's functions.
    pub functions: Vec<QualifiedName>,
    /// The functions of the exchange: the one that performs it, and the one that reads the definition.
    pub exchange: Option<(QualifiedName, QualifiedName)>,
    /// The job's own tables in schema `pgstrata`.
    pub own: Vec<QualifiedName>,
    /// Key tables, with their oids if known.
    pub key_tables: Vec<(QualifiedName, Option<u32>)>,
    /// The signatures of the functions of key tables.
    pub key_functions: Vec<String>,
    /// Statements that give key tables, which stay, to the owner of the table.
    pub given_to_owner: Vec<String>,
}

impl Leaving {
    /// The objects to remove if nothing was renamed: by `finalize` in the reverse direction, by `abort` in the forward
    /// direction.
    pub fn planned(b: &Blueprint, direction: Direction, leaves: &[QualifiedName]) -> Self {
        let sides = b.sides(direction);
        let before_swap = direction == Direction::Forward;
        let on = |table: &QualifiedName, name: &str| (table.clone(), Ident::new(name));
        let null_as = b.null_as.as_ref().map(|_| Filling::of_nulls(b));
        let mut functions = vec![b.capture_function(), b.guard_function()];
        functions.extend(null_as.as_ref().map(Filling::fill_function));
        let names = [capture::ROW_TRIGGER, capture::TRUNCATE_TRIGGER, swap::GUARD];
        let mut triggers: Vec<_> = names.iter().map(|name| on(&sides.source, name)).collect();
        triggers.extend(null_as.filter(|_| before_swap).map(|f| (sides.source.clone(), f.fill_trigger())));
        triggers.extend(leaves.iter().map(|leaf| on(leaf, capture::TRUNCATE_TRIGGER)));
        Self {
            constraints: b
                .not_null_check()
                .filter(|_| before_swap)
                .map(|name| (sides.source.clone(), name))
                .into_iter()
                .collect(),
            in_use: Some(sides.source),
            triggers,
            table: Some((sides.target, None)),
            functions,
            exchange: Some((b.exchange_function(), b.definition_function())),
            own: vec![b.log(), b.truncations()],
            key_tables: b.key_tables.iter().filter(|_| before_swap).map(|k| (k.name.clone(), None)).collect(),
            given_to_owner: b
                .key_tables
                .iter()
                .filter(|_| !before_swap)
                .flat_map(|k| key_table::to_owner(b, k, &b.table.name))
                .collect(),
            key_functions: b
                .key_tables
                .iter()
                .filter(|_| before_swap)
                .flat_map(|k| triggers::signatures(b, k))
                .collect(),
        }
    }
}

/// The statements, in one transaction. They do not use CASCADE: an object that still depends on the table is an error.
///
/// The table is locked first: DROP TRIGGER would lock the leaves before the parent, but applications lock the parent
/// first, which could cause a deadlock.
pub fn end(leaving: &Leaving) -> Vec<String> {
    let lock = |table: &QualifiedName| format!("lock table {table} in access exclusive mode");
    let mut all: Vec<String> = leaving.in_use.iter().map(lock).collect();
    all.extend(leaving.triggers.iter().map(|(table, trigger)| objects::drop_trigger(table, trigger)));
    all.extend(leaving.constraints.iter().map(|(table, name)| drop_constraint(table, name)));
    if let Some((table, oid)) = &leaving.table {
        all.extend(oid.map(|oid| objects::lock(table, oid, "access exclusive")));
        all.push(format!("drop table if exists {table}"));
    }
    all.extend(leaving.given_to_owner.iter().cloned());
    for (table, oid) in &leaving.key_tables {
        all.extend(oid.map(|oid| objects::lock(table, oid, "access exclusive")));
        all.push(format!("drop table if exists {table}"));
    }
    all.extend((!leaving.key_functions.is_empty()).then(|| triggers_left(&leaving.key_functions)));
    all.extend(leaving.key_functions.iter().map(|signature| format!("drop function if exists {signature}")));
    all.extend(leaving.functions.iter().map(|function| format!("drop function if exists {function}()")));
    if let Some((exchange, definition)) = &leaving.exchange {
        all.extend(Exchange::drop(exchange, definition));
    }
    all.extend(leaving.own.iter().map(|table| format!("drop table if exists {table}")));
    all
}

/// Drops the triggers that still call these functions: a partition that was detached keeps its trigger for TRUNCATE.
fn triggers_left(signatures: &[String]) -> String {
    let functions: Vec<String> =
        signatures.iter().map(|one| format!("pg_catalog.to_regprocedure({})", literal(one))).collect();
    let body = format!(
        "declare
  statement text;
begin
  for statement in
    select format('drop trigger %I on %s', tgname, tgrelid::regclass) from pg_trigger
    where tgparentid = 0 and tgfoid = any (array[{}]::oid[])
  loop
    execute statement;
  end loop;
end",
        functions.join(", ")
    );
    format!("do {}", dollar_quoted(&body))
}
