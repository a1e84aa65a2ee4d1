//! Adds the constraints and indexes of the filled columns without a long lock, and then ends the job.
//!
//! The job searches for violating rows before it adds anything. Objects are identified by name, and existing ones are
//! kept, so that a later run can continue. The trigger that fills written rows is dropped last.

mod constraints;
mod indexes;
mod violations;

use std::collections::{HashMap, HashSet};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result};
use crate::event::{BackfillNote, EndWork, PhaseOutcome};
use crate::model::filling::NewKey;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::objects::Role;
use crate::model::state::{State, Step};
use crate::pg::{catalog, finish_trial, objects as pg};
use crate::phase::job::meter::Meter;
use crate::sql::finish as sql;

use super::{BackfillJob, end, in_force, stop_filling};

/// Adds the missing constraints and indexes, and ends the job.
///
/// # Errors
/// Rows violate a constraint; or the server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "finish"))]
pub async fn finish(filler: &BackfillJob) -> Result<State> {
    let f = &filler.filling;
    in_force(filler).await?;
    names_are_free(filler).await?;
    let open = Open::of(filler).await?;
    if !open.is_empty() {
        match violations::none(filler, &open).await {
            // All violations may be rows that were written since the second pass: fill them, and search again.
            Err(e) if e.kind() == Kind::Differs && super::check_every_row(filler).await? > 0 => {
                violations::none(filler, &open).await?;
            }
            other => other?,
        }
        constraints::checks(filler, &open).await?;
        indexes::build(filler, &open).await?;
        constraints::foreign_keys(filler, &open).await?;
    }
    let meter = Meter::begin(filler, EndWork::EndBackfill { table: f.table.name.plain() });
    let ends = f.keep_filled && !f.stays;
    let (tables, statements) = if ends { stop_filling(filler).await? } else { Default::default() };
    let state = end(filler, Step::Finish, tables, &statements).await?;
    crate::failpoint!("finish.done");
    meter.end(PhaseOutcome::Completed);
    Ok(state)
}

/// Fails if another object has the name of a planned object: the job would mistake it for its own.
async fn names_are_free(filler: &BackfillJob) -> Result<()> {
    let f = &filler.filling;
    if f.finish.is_empty() {
        return Ok(());
    }
    let taken = finish_trial::taken(&filler.control, f, filler.plan.trust()).await?;
    let Some(name) = taken.first() else { return Ok(()) };
    Err(Error::failed(format!(
        "{} exists in schema {}, and is not what the plan describes under that name",
        plain(name.as_str()),
        plain(f.table.name.schema.as_str())
    ))
    .cause("it was created or changed after the check")
    .hint("rename or drop it, then run again"))
}

/// Returns the statements with which an aborted job removes objects that were begun but not completed. Completed
/// objects remain and are reported. Objects that existed before the job also remain.
///
/// # Errors
/// The server returned an error.
pub async fn leftovers(filler: &BackfillJob) -> Result<Vec<String>> {
    let (f, client) = (&filler.filling, &filler.control);
    if f.finish.is_empty() || catalog::find(client, &f.table.name).await?.is_none() {
        return Ok(Vec::new());
    }
    let open = Open::of(filler).await?;
    let ours = |name: &Ident| {
        f.table.checks.iter().all(|c| c.name != *name)
            && f.table.foreign_keys.iter().all(|k| k.name != *name)
            && f.table.indexes.iter().all(|i| i.name != *name)
    };
    let helpers = f.finish.not_null.iter().map(|c| f.not_null_helper(c));
    let begun: Vec<Ident> = helpers
        .chain(open.checks.iter().copied().cloned())
        .chain(open.keys.iter().map(|key| key.name.clone()))
        .filter(ours)
        .collect();
    let indexes: Vec<&Ident> = open.indexes.iter().copied().filter(|name| ours(name)).collect();
    let mut gone = Vec::new();
    let made = pg::recorded(client, filler.job.id).await?;
    let recorded = |role: Role, oid: u32| !filler.job.records || made.made(role, oid);
    // Dropping an object of the whole table also drops those of the parts, except those that are not yet attached.
    for part in tree(filler).await? {
        let constraints = constraints_of(client, part.oid).await?;
        let made_here = |name: &&Ident| {
            constraints.get(name.as_str()).is_some_and(|one| recorded(Role::Constraint, one.oid))
        };
        let own = begun.iter().filter(made_here);
        gone.extend(own.map(|name| sql::drop_constraint(&part.name, name)));
        let standing = indexes_of(client, part.oid).await?;
        let names = indexes.iter().map(|name| f.index_name(name, &part.name));
        let index_made = |index: &QualifiedName| {
            let there = standing.get(index.name.as_str());
            there.is_some_and(|one| recorded(Role::Index, one.oid) || made.intended(index))
        };
        for index in names.filter(index_made) {
            gone.push(sql::drop_constraint(&part.name, &index.name));
            gone.push(sql::drop_index(&index));
        }
    }
    let table = f.table.name.plain();
    for name in open.done(filler).into_iter().filter(|name| ours(name)) {
        let (table, name) = (table.clone(), plain(name.as_str()));
        filler.events.note(BackfillNote::BuiltAndKept { table, name });
    }
    Ok(gone)
}

/// Objects that the plan requires and the table does not yet have.
#[derive(Debug)]
struct Open<'a> {
    /// Columns that are not NOT NULL.
    not_null: Vec<&'a Ident>,
    /// CHECK constraints that are missing or not valid.
    checks: HashSet<&'a Ident>,
    /// Indexes, including those of UNIQUE constraints, that are missing or not usable.
    indexes: HashSet<&'a Ident>,
    /// Foreign keys that are missing or not valid.
    keys: Vec<&'a NewKey>,
}

impl<'a> Open<'a> {
    async fn of(filler: &'a BackfillJob) -> Result<Self> {
        let (client, wanted) = (&filler.control, &filler.filling.finish);
        let oid = catalog::must_find(client, &filler.filling.table.name).await?;
        let rows = client.query(sql::NOT_NULL, &[&oid]).await?;
        let not_null: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let (constraints, indexes) = (constraints_of(client, oid).await?, indexes_of(client, oid).await?);
        let valid = |name: &Ident| constraints.get(name.as_str()).is_some_and(|one| one.valid);
        let usable = |name: &Ident| indexes.get(name.as_str()).is_some_and(|index| index.valid);
        let checks = wanted.checks.iter().map(|(name, _)| name).filter(|name| !valid(name));
        let unique = wanted.unique.iter().map(|(name, _)| name).filter(|name| !(valid(name) && usable(name)));
        let plain = wanted.indexes.iter().map(|(name, _)| name).filter(|name| !usable(name));
        Ok(Self {
            not_null: wanted.not_null.iter().filter(|c| !not_null.contains(c.as_str())).collect(),
            checks: checks.collect(),
            indexes: unique.chain(plain).collect(),
            keys: wanted.foreign_keys.iter().filter(|key| !valid(&key.name)).collect(),
        })
    }

    fn is_empty(&self) -> bool {
        self.not_null.is_empty() && self.checks.is_empty() && self.indexes.is_empty() && self.keys.is_empty()
    }

    /// The names of the required objects that exist.
    fn done(&self, filler: &'a BackfillJob) -> Vec<&'a Ident> {
        let wanted = &filler.filling.finish;
        let unique = wanted.unique.iter().map(|(name, _)| name);
        let indexes = unique.chain(wanted.indexes.iter().map(|(name, _)| name));
        let checks = wanted.checks.iter().map(|(name, _)| name).filter(|name| !self.checks.contains(name));
        let keys = wanted.foreign_keys.iter().filter(|key| !self.keys.contains(key)).map(|key| &key.name);
        checks.chain(indexes.filter(|name| !self.indexes.contains(name))).chain(keys).collect()
    }
}

/// A partition of the table, or the table itself.
#[derive(Debug)]
struct TablePart {
    name: QualifiedName,
    oid: u32,
    /// Its parent.
    parent: Option<QualifiedName>,
    /// Whether it stores rows.
    leaf: bool,
}

/// The table and all its partitions, parents first.
async fn tree(filler: &BackfillJob) -> Result<Vec<TablePart>> {
    let oid = catalog::must_find(&filler.control, &filler.filling.table.name).await?;
    let rows = filler.control.query(sql::TREE, &[&oid]).await?;
    let parts = rows.iter().map(|row| {
        let schema: Option<String> = row.get(3);
        TablePart {
            name: QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
            oid: row.get(2),
            parent: schema.map(|schema| QualifiedName::new(schema, row.get::<_, String>(4))),
            leaf: row.get(5),
        }
    });
    Ok(parts.collect())
}

/// An existing constraint.
#[derive(Debug, Clone, Copy)]
struct Constraint {
    /// Whether it is validated.
    valid: bool,
    oid: u32,
}

/// The constraints of a relation, by name.
async fn constraints_of(client: &Client, oid: u32) -> Result<HashMap<String, Constraint>> {
    let rows = client.query(sql::CONSTRAINTS, &[&oid]).await?;
    let one = |row: &tokio_postgres::Row| Constraint { valid: row.get(1), oid: row.get(2) };
    Ok(rows.iter().map(|row| (row.get(0), one(row))).collect())
}

/// An existing index.
#[derive(Debug, Clone, Copy)]
struct FoundIndex {
    valid: bool,
    attached: bool,
    oid: u32,
}

async fn indexes_of(client: &Client, oid: u32) -> Result<HashMap<String, FoundIndex>> {
    let rows = client.query(sql::INDEXES, &[&oid]).await?;
    let standing =
        |row: &tokio_postgres::Row| FoundIndex { valid: row.get(1), attached: row.get(2), oid: row.get(3) };
    Ok(rows.iter().map(|row| (row.get(0), standing(row))).collect())
}

/// Converts the error for a violating row that was written after the search to the error that the search returns.
async fn with_violations(filler: &BackfillJob, open: &Open<'_>, error: Error) -> Error {
    if !error.is_any(&[
        &SqlState::NOT_NULL_VIOLATION,
        &SqlState::FOREIGN_KEY_VIOLATION,
        &SqlState::UNIQUE_VIOLATION,
        &SqlState::CHECK_VIOLATION,
    ]) {
        return error;
    }
    match violations::none(filler, open).await {
        Err(told) if told.kind() == Kind::Differs => told.hint(
            "these rows were written during the build; correct them, then run again: the job continues \
             from here",
        ),
        _ => error,
    }
}
