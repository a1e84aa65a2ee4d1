//! The two ends of a job: closing the rollback window, and taking everything back.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName};

use super::exchange::Exchange;
use super::{capture, objects, swap};

/// What goes at the end of a job, under the names that it has by then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The table that applications use.
    pub in_use: Option<QualifiedName>,
    /// Triggers that call the job's functions, and their tables.
    pub triggers: Vec<(QualifiedName, Ident)>,
    /// The table that is dropped, and its oid where it is known.
    pub table: Option<(QualifiedName, Option<u32>)>,
    /// The job's functions.
    pub functions: Vec<QualifiedName>,
    /// The functions of the exchange: the one that exchanges, and the one that reads the definition.
    pub exchange: Option<(QualifiedName, QualifiedName)>,
    /// The job's own tables.
    pub own: Vec<QualifiedName>,
}

impl Leaving {
    /// What goes if nobody renames anything: `finalize` in the reverse direction, `abort` in the forward one.
    pub fn planned(b: &Blueprint, direction: Direction, leaves: &[QualifiedName]) -> Self {
        let sides = b.sides(direction);
        let on = |table: &QualifiedName, name: &str| (table.clone(), Ident::new(name));
        let names = [capture::ROW_TRIGGER, capture::TRUNCATE_TRIGGER, swap::GUARD];
        let mut triggers: Vec<_> = names.iter().map(|name| on(&sides.source, name)).collect();
        triggers.extend(leaves.iter().map(|leaf| on(leaf, capture::TRUNCATE_TRIGGER)));
        Self {
            in_use: Some(sides.source),
            triggers,
            table: Some((sides.target, None)),
            functions: vec![b.capture_function(), b.guard_function()],
            exchange: Some((b.exchange_function(), b.definition_function())),
            own: vec![b.log(), b.truncations()],
        }
    }
}

/// The statements, in one transaction. `CASCADE` is never said: what still depends on the table is an error.
///
/// The lock of the table in use comes first: `DROP TRIGGER` would take the leaves' before it, and applications take the
/// parent's first, so that each would wait for the other.
pub fn end(leaving: &Leaving) -> Vec<String> {
    let lock = |table: &QualifiedName| format!("lock table {table} in access exclusive mode");
    let mut all: Vec<String> = leaving.in_use.iter().map(lock).collect();
    all.extend(leaving.triggers.iter().map(|(table, trigger)| objects::drop_trigger(table, trigger)));
    if let Some((table, oid)) = &leaving.table {
        all.extend(oid.map(|oid| objects::lock(table, oid, "access exclusive")));
        all.push(format!("drop table if exists {table}"));
    }
    all.extend(leaving.functions.iter().map(|function| format!("drop function if exists {function}()")));
    if let Some((exchange, definition)) = &leaving.exchange {
        all.extend(Exchange::drop(exchange, definition));
    }
    all.extend(leaving.own.iter().map(|table| format!("drop table if exists {table}")));
    all
}
