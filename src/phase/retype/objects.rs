//! The objects of a column type change, identified by oid and column number. No object is dropped or exchanged on the
//! basis of its name alone.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::event::KeptWarning;
use crate::model::blueprint::Direction;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::objects::{Objects, Role};
use crate::model::retyping::Counterpart;
use crate::model::state::State;
use crate::pg::{catalog, objects as pg};
use crate::phase::job::matviews;
use crate::sql::matview;
use crate::sql::objects as objects_sql;
use crate::sql::retype as sql;

use super::RetypeJob;

/// An existing index or CHECK of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundObject {
    /// Its oid.
    pub oid: u32,
    /// Whether it is usable, or validated.
    pub valid: bool,
}

/// Indexes or CHECK constraints by name, according to `statement`: [`sql::INDEXES`] or [`sql::CHECKS`].
pub(super) async fn standing(retyper: &RetypeJob, statement: &str) -> Result<HashMap<String, FoundObject>> {
    let rows = retyper.control.query(statement, &[&super::table(retyper).await?]).await?;
    let one = |row: &tokio_postgres::Row| FoundObject { oid: row.get(2), valid: row.get(1) };
    Ok(rows.iter().map(|row| (row.get(0), one(row))).collect())
}

/// The objects that the job recorded. A job of an earlier version has no records, so its objects are found by name.
///
/// # Errors
/// The server returned an error.
pub(super) async fn recorded(retyper: &RetypeJob) -> Result<Objects> {
    let (client, job) = (&retyper.control, retyper.job.id);
    let objects = pg::recorded(client, job).await?;
    let begun = !matches!(retyper.state(), State::Planned | State::Finalized | State::Aborted);
    if retyper.job.records || !begun || objects.only(Role::Column).is_some() {
        return Ok(objects);
    }
    let r = &retyper.retyping;
    let direction = retyper.direction();
    for (name, valid_too) in [(sql::INDEXES, true), (sql::CHECKS, false)] {
        let there = standing(retyper, name).await?;
        let names = r.indexes.iter().map(|one| &one.index.name).chain(r.checks.iter().map(|one| &one.name));
        for name in names.map(|name| r.counterpart(name, direction)).chain([r.proof()]) {
            match there.get(name.as_str()) {
                Some(_) if valid_too => {
                    pg::record(client, job, Role::Index, &r.table.name.sibling(name)).await?;
                }
                Some(_) => pg::record_constraint(client, job, r.table.oid, &name).await?,
                None => {}
            }
        }
    }
    record_columns(retyper, client).await?;
    pg::recorded(client, job).await
}

/// Records the two columns, under their current names.
pub(super) async fn record_columns(retyper: &RetypeJob, client: &Client) -> Result<()> {
    let (r, job) = (&retyper.retyping, retyper.job.id);
    let direction = retyper.direction();
    let shadow = r.shadow(direction);
    let (added, replaced) = match direction {
        Direction::Forward => (&shadow, &r.column.name),
        Direction::Reverse => (&r.column.name, &shadow),
    };
    pg::record_column(client, job, Role::Replaced, r.table.oid, replaced).await?;
    pg::record_column(client, job, Role::Column, r.table.oid, added).await
}

/// Fails if the table, a column, an index or a constraint that the job uses was replaced.
///
/// # Errors
/// The object; or the server returned an error.
pub(super) async fn in_place(retyper: &RetypeJob) -> Result<()> {
    let r = &retyper.retyping;
    let table = &r.table.name;
    if pg::misplaced(&retyper.control, &[(table.clone(), r.table.oid)]).await?.is_some() {
        let now = pg::name(&retyper.control, r.table.oid).await?;
        let now = now.map_or("was dropped".to_owned(), |now| format!("is now named {}", now.plain()));
        return Err(foreign(retyper, "table", &table.plain())
            .cause(format!("the job's table has oid {} and {now}", r.table.oid)));
    }
    let objects = recorded(retyper).await?;
    let direction = retyper.direction();
    let shadow = r.shadow(direction);
    let names = match direction {
        Direction::Forward => [(Role::Column, &shadow), (Role::Replaced, &r.column.name)],
        Direction::Reverse => [(Role::Column, &r.column.name), (Role::Replaced, &shadow)],
    };
    for (role, name) in names {
        let now = objects.only(role).and_then(|object| object.now.as_ref()).and_then(|now| now.part.as_ref());
        if now != Some(name) {
            let what =
                now.map_or("was dropped".to_owned(), |now| format!("is now named {}", plain(now.as_str())));
            return Err(
                foreign(retyper, "column", &plain(name.as_str())).cause(format!("the job's column {what}"))
            );
        }
    }
    Ok(())
}

fn foreign(retyper: &RetypeJob, kind: &str, name: &str) -> Error {
    Error::failed(format!("{kind} {name} is not the {kind} of job {}", retyper.job.name))
        .hint(format!("rename it back, and run the same command again; or {}", retyper.way_out()))
}

/// Whether the index with the name of a counterpart is the counterpart: the job created it, or it belonged to the
/// column that is now inactive.
pub(super) fn is_counterpart(
    retyper: &RetypeJob,
    objects: &Objects,
    one: &Counterpart,
    direction: Direction,
    oid: u32,
) -> bool {
    is_recorded(objects, one, direction, oid) || objects.intended(&counterpart(retyper, one, direction))
}

/// As [`is_counterpart`], but an index for which the job only recorded an intention does not count.
pub(super) fn is_recorded(objects: &Objects, one: &Counterpart, direction: Direction, oid: u32) -> bool {
    let was_in_use = direction == Direction::Reverse && one.index.constraint.is_empty();
    was_in_use || objects.made(Role::Index, oid)
}

fn counterpart(retyper: &RetypeJob, one: &Counterpart, direction: Direction) -> QualifiedName {
    let r = &retyper.retyping;
    r.table.name.sibling(r.counterpart(&one.index.name, direction))
}

/// Fails if the name for a counterpart belongs to an index that the job did not create.
///
/// # Errors
/// The name; or the server returned an error.
pub(super) async fn name_is_free(
    retyper: &RetypeJob,
    one: &Counterpart,
    direction: Direction,
    objects: &Objects,
) -> Result<()> {
    let name = counterpart(retyper, one, direction);
    match catalog::find(&retyper.control, &name).await? {
        Some(oid) if !is_counterpart(retyper, objects, one, direction, oid) => Err(taken(retyper, &name)),
        _ => Ok(()),
    }
}

/// Fails if an index or a CHECK constraint that the swap uses is not the job's own.
///
/// # Errors
/// The object; or the server returned an error.
pub(super) async fn counterparts(retyper: &RetypeJob, direction: Direction) -> Result<()> {
    let r = &retyper.retyping;
    let objects = recorded(retyper).await?;
    let indexes = standing(retyper, sql::INDEXES).await?;
    let now = catalog::table(&retyper.control, super::table(retyper).await?).await?;
    for one in &r.indexes {
        let name = r.counterpart(&one.index.name, direction);
        let ours = |there: &FoundObject| is_counterpart(retyper, &objects, one, direction, there.oid);
        let tail = if direction == Direction::Forward { &one.tail_new } else { &one.tail_old };
        let as_planned = now
            .indexes
            .iter()
            .any(|index| index.name == name && index.tail == *tail && index.unique == one.index.unique);
        if !as_planned || !indexes.get(name.as_str()).is_some_and(ours) {
            return Err(taken(retyper, &r.table.name.sibling(name)));
        }
    }
    let checks = standing(retyper, sql::CHECKS).await?;
    for one in &r.checks {
        let name = r.counterpart(&one.name, direction);
        if !checks.get(name.as_str()).is_some_and(|there| objects.made(Role::Constraint, there.oid)) {
            return Err(taken(retyper, &r.table.name.sibling(name)));
        }
    }
    Ok(())
}

pub(super) fn taken(retyper: &RetypeJob, name: &QualifiedName) -> Error {
    Error::failed(format!(
        "{} is not the object that job {} created under that name",
        name.plain(),
        retyper.job.name
    ))
    .cause("the job's object was dropped, or another object was created under its name")
    .hint("rename or drop it, and run the same command again")
}

/// The names of the constraints that the job created on the table.
pub(super) async fn own_constraints(retyper: &RetypeJob) -> Result<Vec<Ident>> {
    let objects = recorded(retyper).await?;
    let there = objects.of(Role::Constraint).filter_map(|object| object.now.as_ref()?.part.clone());
    Ok(there.collect())
}

/// Returns the tables to lock and the statements that end the job: they drop the trigger, its function, and the
/// inactive column.
///
/// # Errors
/// The server returned an error.
pub(super) async fn removal(retyper: &RetypeJob) -> Result<(Vec<QualifiedName>, Vec<String>)> {
    let r = &retyper.retyping;
    let client = &retyper.control;
    let objects = recorded(retyper).await?;
    let functions = [r.function()];
    let triggers = pg::triggers(client, &functions, r.table.oid).await?;
    let mut tables: Vec<QualifiedName> = pg::name(client, r.table.oid).await?.into_iter().collect();
    let mut all: Vec<String> = tables
        .iter()
        .map(|table| objects_sql::lock(table, r.table.oid, "access exclusive"))
        .chain(triggers.iter().map(|(table, trigger)| objects_sql::drop_trigger(table, trigger)))
        .chain([sql::drop_function(r)])
        .chain(sql::drop_exchange(r))
        .collect();
    for m in r.matviews() {
        if matviews::left_behind(retyper, m).await.unwrap_or(false) {
            all.push(matview::drop(&matview::new_name(m)));
        }
    }
    tables.extend(triggers.into_iter().map(|(table, _)| table));
    tables.dedup();
    let (direction, shadow) = (retyper.direction(), r.shadow(retyper.direction()));
    let role = match direction {
        Direction::Forward => Role::Column,
        Direction::Reverse => Role::Replaced,
    };
    let now = objects.only(role).and_then(|object| object.now.as_ref());
    let column = now.and_then(|now| Some((&now.relation, now.part.as_ref()?)));
    match column {
        // The old column belonged to the application: a user who renamed it intends to keep it.
        Some((_, name)) if direction == Direction::Reverse && *name != shadow => {
            let (column, now) = (plain(shadow.as_str()), plain(name.as_str()));
            retyper.events.warn(KeptWarning::ColumnRenamed { column, now });
        }
        Some((table, name)) => all.push(sql::drop_column(table, name)),
        None => {}
    }
    let there = pg::name(client, r.table.oid).await?.is_some()
        && catalog::table(client, r.table.oid).await?.column(&shadow).is_some();
    if there && column.is_none_or(|(_, name)| *name != shadow) {
        retyper.events.warn(KeptWarning::ColumnNotOwn { column: plain(shadow.as_str()) });
    }
    Ok((tables, all))
}
