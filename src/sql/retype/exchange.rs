//! The swap and the rollback of a column type change: one transaction each, with the same statements and the columns
//! exchanged. No statement reads a row.

use crate::model::blueprint::Direction;
use crate::model::ident::{Ident, literal};
use crate::model::retyping::{Counter, Counterpart, Retyping};
use crate::model::state::State;
use crate::model::table::ForeignKey;

use super::super::exchange::Exchange;
use super::super::fill::KEEPS_FILLED;
use super::super::{foreign_key, not_null, prepare};
use super::{drop_constraint, rebound, sync_function};

/// A weak lock that makes autovacuum cancel itself and blocks no reader or writer.
pub fn first_lock(r: &Retyping) -> String {
    format!("lock table {} in share update exclusive mode", r.table.name)
}

/// The exchange in one direction. There are no pending changes: each row has both values.
pub fn exchange(r: &Retyping, ending: Direction) -> Exchange {
    Exchange {
        function: r.exchange_function(),
        definition: r.definition_function(),
        table: r.table.name.clone(),
        to: match ending {
            Direction::Forward => State::Swapped,
            Direction::Reverse => State::RolledBack,
        },
        locks: locks(r, true),
        locks_in_turn: locks(r, false),
        pending: None,
        captured: KEEPS_FILLED.replace("$2", &literal(r.filling().fill_trigger().as_str())),
        further_locks: Vec::new(),
        statements: statements(r, ending),
        last: Vec::new(),
        functions: Vec::new(),
    }
}

/// Acquires the locks: a foreign key requires locks on both of its tables. Writers lock these two tables in either
/// order, so attempts alternate between the two orders.
fn locks(r: &Retyping, table_first: bool) -> Vec<String> {
    let mut tables = r.locked();
    if !table_first {
        tables.reverse();
    }
    let tables = tables.iter().map(|table| format!("lock table {table} in access exclusive mode"));
    // As in a swap of tables, transactions lock a view and its table in either order.
    let dependents = rebound::locks(&r.rebound, &r.table.name);
    if table_first {
        tables.chain(dependents).collect()
    } else {
        dependents.into_iter().chain(tables).collect()
    }
}

/// The statements under the lock, in order. They drop objects that depend on the column in use, exchange the names, and
/// create the same objects on the column that comes into use. `ending` is the direction that ends.
fn statements(r: &Retyping, ending: Direction) -> Vec<String> {
    let (table, column) = (&r.table.name, &r.column.name);
    let now = opposite(ending);
    let (comes, goes) = (r.shadow(ending), r.shadow(now));
    let mut all = rebound::take(&r.rebound);
    all.extend(r.keys.iter().map(|key| format!("alter table {} drop constraint {}", key.table, key.name)));
    all.extend(r.indexes.iter().map(|one| take_index(r, one, now)));
    all.extend(r.checks.iter().map(|check| format!("alter table {table} drop constraint {}", check.name)));
    all.extend(take_default(r));
    if r.column.not_null {
        all.push(format!("alter table {table} alter column {column} drop not null"));
    }
    all.push(format!("alter table {table} rename column {column} to {goes}"));
    all.push(format!("alter table {table} rename column {comes} to {column}"));
    if r.column.not_null {
        all.push(format!("alter table {table} alter column {column} set not null"));
        if let Some(name) = r.column.looks.as_ref().and_then(|looks| looks.not_null.as_ref()) {
            all.extend(not_null::rename(table, &r.column));
            all.extend(comment(r, name));
        }
    }
    all.push(drop_constraint(table, &r.proof()));
    all.extend(r.indexes.iter().flat_map(|one| give_index(r, one, ending)));
    for check in &r.checks {
        let name = r.counterpart(&check.name, ending);
        all.push(format!("alter table {table} rename constraint {name} to {}", check.name));
        all.extend(comment(r, &check.name));
    }
    all.extend(give_default(r, now));
    all.push(sync_function(r, now));
    all.extend(r.keys.iter().flat_map(give_key));
    all.extend(rebound::give(&r.rebound, table, &r.table.operator_schemas));
    all
}

/// The other direction.
pub fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Forward => Direction::Reverse,
        Direction::Reverse => Direction::Forward,
    }
}

/// Frees the name of an index. The index of a constraint is dropped with the constraint, and its counterpart for a
/// rollback is built later. Any other index is only renamed.
fn take_index(r: &Retyping, one: &Counterpart, now: Direction) -> String {
    let name = &one.index.name;
    if one.index.constraint.is_empty() {
        let counterpart = r.counterpart(name, now);
        return format!("alter index {} rename to {counterpart}", r.table.name.sibling(name.clone()));
    }
    format!("alter table {} drop constraint {name}", r.table.name)
}

fn give_index(r: &Retyping, one: &Counterpart, ending: Direction) -> Vec<String> {
    let (table, name) = (&r.table.name, &one.index.name);
    let built = r.counterpart(name, ending);
    let kind = match one.index.constraint.as_str() {
        "p" => "primary key",
        "u" => "unique",
        _ => "",
    };
    let mut all = if kind.is_empty() {
        vec![format!("alter index {} rename to {name}", table.sibling(built))]
    } else {
        let add = format!("alter table {table} add constraint {name} {kind} using index {built}");
        [add].into_iter().chain(comment(r, name)).collect()
    };
    if one.index.clustered {
        all.push(format!("alter table {table} cluster on {name}"));
    }
    all
}

/// The comment on a constraint that is created again.
fn comment(r: &Retyping, constraint: &Ident) -> Option<String> {
    let one = r.table.comments.iter().find(|c| c.kind == "constraint" && c.name == *constraint)?;
    Some(format!("comment on constraint {constraint} on {} is {}", r.table.name, literal(&one.text)))
}

fn give_key(key: &ForeignKey) -> Vec<String> {
    let comment = key
        .comment
        .iter()
        .map(|text| format!("comment on constraint {} on {} is {}", key.name, key.table, literal(text)));
    [foreign_key::on(&key.table, key)].into_iter().chain(comment).collect()
}

/// The setting that stores the current value of an identity sequence until the new sequence exists.
const COUNTER_SETTING: &str = "pgstrata.counter";

fn take_default(r: &Retyping) -> Vec<String> {
    let (table, column) = (&r.table.name, &r.column.name);
    match (&r.counter, r.column.identity.as_str()) {
        (Some(counter), "a" | "d") => vec![
            // Locks the sequence, so that nobody can put a view in its place before it is read.
            format!("alter sequence {} {}", counter.name, counter.options.to_lowercase()),
            format!(
                "select pg_catalog.set_config('{COUNTER_SETTING}', last_value || ' ' || is_called, true) from {}",
                counter.name
            ),
            format!("alter table {table} alter column {column} drop identity"),
        ],
        _ if r.column.default.is_some() => {
            vec![format!("alter table {table} alter column {column} drop default")]
        }
        _ => Vec::new(),
    }
}

fn give_default(r: &Retyping, now: Direction) -> Vec<String> {
    let (table, column) = (&r.table.name, &r.column.name);
    let mut all = Vec::new();
    match (&r.counter, r.column.identity.as_str()) {
        (Some(counter), kind @ ("a" | "d")) => all.extend(identity(r, counter, kind)),
        (counter, _) => {
            all.extend(
                (r.default_new.as_ref().filter(|_| now == Direction::Reverse))
                    .or(r.column.default.as_ref())
                    .into_iter()
                    .map(|d| format!("alter table {table} alter column {column} set default {d}")),
            );
            if let Some((counter, wider)) = r.wider_counter() {
                let sql_type = if now == Direction::Reverse { wider } else { &counter.sql_type };
                all.push(format!("alter sequence {} as {sql_type}", counter.name));
            }
            all.extend(
                counter.iter().map(|c| format!("alter sequence {} owned by {table}.{column}", c.name)),
            );
        }
    }
    all
}

/// An identity sequence belongs to its column, so it is created again with the same name, and continues from its
/// previous value.
fn identity(r: &Retyping, counter: &Counter, kind: &str) -> Vec<String> {
    let (table, column, name) = (&r.table.name, &r.column.name, &counter.name);
    let kind = if kind == "a" { "always" } else { "by default" };
    let limit = |what: &str, value: &Option<String>| {
        value.as_ref().map_or(String::new(), |value| format!(" {what} {value}"))
    };
    let mut all = vec![
        format!(
            "alter table {table} alter column {column} add generated {kind} as identity (sequence name {name} {}{}{})",
            counter.options.to_lowercase(),
            limit("minvalue", &counter.min),
            limit("maxvalue", &counter.max),
        ),
        format!(
            "select pg_catalog.setval({}::regclass, pg_catalog.split_part(v, ' ', 1)::bigint, pg_catalog.split_part(v, ' ', 2)::boolean)
from pg_catalog.current_setting('{COUNTER_SETTING}') v",
            literal(&name.to_string())
        ),
    ];
    all.push(prepare::revoke(name));
    all.extend(counter.grants.iter().flat_map(|g| prepare::grant(&r.table.owner, name, g)));
    all.extend(counter.comment.iter().map(|text| format!("comment on sequence {name} is {}", literal(text))));
    all
}
