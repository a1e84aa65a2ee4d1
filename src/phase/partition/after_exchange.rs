//! The steps after an exchange, in either direction. No step needs a lock that blocks applications for long. The
//! foreign keys of the table in use already check every write; they are now validated if they were valid before.
//! Materialized views that still read the inactive table are rebuilt. Completed work is recognized, so any later
//! command can continue.

use std::cell::RefCell;

use tokio_postgres::Client;

use crate::error::Result;
use crate::event::{ConstraintWork, PhaseOutcome, Undone};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::dependent::Matview;
use crate::model::ident::{QualifiedName, plain, plain_list};
use crate::model::remade_keys;
use crate::model::state::State;
use crate::model::table::{ForeignKey, Table};
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::phase::job::foreign_keys::{ignore_lock_error_on_rollback, not_valid, reported, validate};
use crate::phase::job::matviews;
use crate::phase::job::meter::Meter;
use crate::phase::job::workers;
use crate::phase::partition::guard::{LATER_GUARD_WAITS, end_guard};
use crate::phase::partition::{PartitionJob, locks};
use crate::sql::{foreign_key as sql, matview, row_functions};

/// Drops the guard if it is no longer needed, validates the foreign keys of the table in use that were valid before,
/// and rebuilds materialized views to read that table. Objects that were dropped in the meantime remain dropped.
///
/// A step that fails is reported and skipped: the swap remains in effect, and the step delays neither a rollback nor
/// the end of the job. Returns the keys that could not be validated.
///
/// # Errors
/// A lock could not be acquired; or the connection was lost.
pub async fn complete(context: &PartitionJob) -> Result<Vec<ForeignKey>> {
    let b = context.blueprint();
    let partitioned = match context.state() {
        State::Swapped => true,
        State::RolledBack => false,
        _ => return Ok(Vec::new()),
    };
    end_guard(context, LATER_GUARD_WAITS).await?;
    let (open, mut tasks) = own_keys(context, &b, partitioned).await?;
    tasks.extend(child_keys(context, &b, partitioned).await?);
    let mut failed = Vec::new();
    if !tasks.is_empty() {
        failed = validate_all(context, &b, &tasks).await?;
    }
    if partitioned {
        for key in open {
            if failed.contains(key) {
                continue;
            }
            let undone = Undone::ForeignKeyOnPartitions { key: plain(key.name.as_str()) };
            let tied = on_parent(context, &b, key).await;
            if !reported(context, undone, tied)? {
                failed.push(key.clone());
            }
        }
    }
    former_functions(context, &b).await?;
    rebuild_matviews(context, &b).await?;
    Ok(failed)
}

/// [`complete`] before the next exchange. A lock that could not be acquired does not prevent a rollback.
///
/// # Errors
/// As [`complete`].
pub async fn complete_before_exchange(context: &PartitionJob) -> Result<()> {
    ignore_lock_error_on_rollback(context, complete(context).await.map(drop))
}

/// Changes the foreign keys and materialized views in `now`, the table in use, to those that [`complete`] would create,
/// so that incomplete work of [`complete`] does not count as a change.
///
/// # Errors
/// The server returned an error.
pub async fn ignore_expected_changes(context: &PartitionJob, b: &Blueprint, now: &mut Table) -> Result<()> {
    if now.relkind == "p" && b.keys_on_leaves {
        // A foreign key that could not be added to the parent exists on its partitions.
        let standing = own(&context.control, now.oid).await?;
        let on_leaf = |key: &&&ForeignKey| {
            standing.iter().any(|one| one.table != now.oid && one.name == key.name.as_str())
        };
        let missing = b.table.foreign_keys.iter().filter(|key| key.validated);
        let missing: Vec<&ForeignKey> =
            missing.filter(|key| now.foreign_keys.iter().all(|one| one.name != key.name)).collect();
        let standing: Vec<ForeignKey> = missing.iter().filter(on_leaf).map(|key| (*key).clone()).collect();
        now.foreign_keys.extend(standing);
        now.foreign_keys.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let ending = if now.relkind == "p" { Direction::Forward } else { Direction::Reverse };
    for key in b.own_keys_after(ending).iter().filter(|key| key.references == b.table.name && key.validated) {
        // A foreign key that references the table itself.
        if now.referenced_by.iter().all(|one| one.name != key.name || one.table != key.table) {
            let before = now.referenced_by.len();
            now.referenced_by.retain(|one| one.name != key.name || one.references != key.references);
            if now.referenced_by.len() < before {
                now.referenced_by.push(key.clone());
            }
        }
    }
    remade_keys::ignore_expected_changes(&b.table, now);
    for m in &b.table.dependents.matviews {
        // A view that could not be rebuilt still reads the inactive table.
        let views = &mut now.dependents.matviews;
        if views.iter().all(|one| one.view.name != m.view.name)
            && catalog::find(&context.control, &m.view.name).await?.is_some()
        {
            views.push(m.clone());
        }
    }
    Ok(())
}

/// Drops the functions for the row type of the inactive table, which the exchange replaced.
async fn former_functions(context: &PartitionJob, b: &Blueprint) -> Result<()> {
    let functions = &b.table.dependents.row_functions;
    let inactive = b.sides(context.direction()).target;
    let Some(inactive) = catalog::find(&context.control, &inactive).await?.filter(|_| !functions.is_empty())
    else {
        return Ok(());
    };
    for (n, function) in functions.iter().enumerate() {
        let QualifiedName { schema, name } = row_functions::former_name(b, function, n);
        let client = &context.control;
        let row =
            client.query_opt(row_functions::FORMER, &[&schema.as_str(), &name.as_str(), &inactive]).await?;
        let Some(row) = row else { continue };
        let drop = row_functions::drop(row.get(0));
        let undone = Undone::FormerFunction { function: function.name.clone() };
        reported(context, undone, client.batch_execute(&drop).await.map_err(Into::into))?;
    }
    Ok(())
}

/// Rebuilds the materialized views that still read the inactive table.
async fn rebuild_matviews(context: &PartitionJob, b: &Blueprint) -> Result<()> {
    for m in &b.table.dependents.matviews {
        let undone = Undone::MaterializedViewNotRebuilt { view: m.view.name.plain() };
        reported(context, undone, matview(context, b, m).await)?;
    }
    Ok(())
}

async fn matview(context: &PartitionJob, b: &Blueprint, m: &Matview) -> Result<()> {
    let client = &context.control;
    let table = catalog::must_find(client, &b.table.name).await?;
    // A view that was dropped in the meantime remains dropped.
    let Some(oid) = catalog::find(client, &m.view.name).await? else { return Ok(()) };
    if client.query_one(matview::READS, &[&oid, &table]).await?.get(0) {
        return Ok(());
    }
    matviews::rebuild(context, m, &b.table.operator_schemas).await
}

/// A table, and the keys that should be valid on it.
struct KeysToValidate<'a> {
    table: QualifiedName,
    oid: u32,
    keys: Vec<&'a ForeignKey>,
}

/// Returns the table's own keys that are not yet as before the exchange, and the tables on which to validate them.
async fn own_keys<'a>(
    context: &PartitionJob,
    b: &'a Blueprint,
    partitioned: bool,
) -> Result<(Vec<&'a ForeignKey>, Vec<KeysToValidate<'a>>)> {
    let client = &context.control;
    let oid = catalog::must_find(client, &b.table.name).await?;
    let own = own(client, oid).await?;
    // A leaf has its own key only until the parent has the key.
    let unfinished = |key: &Own| if partitioned && b.keys_on_leaves { key.table != oid } else { !key.valid };
    let open: Vec<&ForeignKey> = b
        .own_keys()
        .into_iter()
        .filter(|key| key.validated && own.iter().any(|o| o.name == key.name.as_str() && unfinished(o)))
        .collect();
    if open.is_empty() {
        return Ok((open, Vec::new()));
    }
    let task = |table: QualifiedName, oid: u32| KeysToValidate { table, oid, keys: open.clone() };
    let tasks = if partitioned {
        catalog::leaves(client, oid).await?.into_iter().map(|leaf| task(leaf.name, leaf.oid)).collect()
    } else {
        vec![task(b.table.name.clone(), oid)]
    };
    Ok((open, tasks))
}

/// Returns the keys of other tables that must still be validated.
async fn child_keys<'a>(
    context: &PartitionJob,
    b: &'a Blueprint,
    partitioned: bool,
) -> Result<Vec<KeysToValidate<'a>>> {
    let client = &context.control;
    let back = b.incoming_dropped.iter().filter(|_| !partitioned);
    let mut tasks = Vec::new();
    for key in b.child_keys().into_iter().chain(back).filter(|key| key.validated) {
        let Some(oid) = catalog::find(client, &key.table).await? else { continue };
        if own(client, oid).await?.iter().any(|o| o.table == oid && o.name == key.name.as_str() && !o.valid) {
            tasks.push(KeysToValidate { table: key.table.clone(), oid, keys: vec![key] });
        }
    }
    Ok(tasks)
}

/// An existing foreign key.
struct Own {
    table: u32,
    name: String,
    valid: bool,
}

/// The foreign keys of a relation and of its leaves.
async fn own(client: &Client, oid: u32) -> Result<Vec<Own>> {
    keys(client, sql::OWN, oid).await
}

async fn keys(client: &Client, statement: &str, oid: u32) -> Result<Vec<Own>> {
    let rows = client.query(statement, &[&oid]).await?;
    Ok(rows.iter().map(|r| Own { table: r.get(0), name: r.get(1), valid: r.get(2) }).collect())
}

/// Validates the keys, table by table; returns those that could not be validated.
async fn validate_all(
    context: &PartitionJob,
    b: &Blueprint,
    tasks: &[KeysToValidate<'_>],
) -> Result<Vec<ForeignKey>> {
    let work = ConstraintWork::ValidateForeignKeys { table: b.table.name.plain() };
    let mut meter = Meter::begin(context, work);
    meter.count("tables", tasks.len() as u64, 0);
    let meter = &meter;
    let failed = RefCell::new(Vec::new());
    let step = |task: &&KeysToValidate<'_>| {
        let keys = plain_list(task.keys.iter().map(|key| &key.name));
        format!("validate foreign keys {keys} of {}", task.table.plain())
    };
    workers::each(context, step, tasks, async |session, task| {
        one_table(context, session, task, &failed).await?;
        meter.add(1);
        meter.keep().await
    })
    .await?;
    let failed: Vec<ForeignKey> = failed.into_inner();
    meter.end(match failed.as_slice() {
        [] => PhaseOutcome::ConstraintsValid,
        some => PhaseOutcome::ForeignKeysNotValid { keys: some.len() as u64 },
    });
    Ok(failed)
}

async fn one_table(
    context: &PartitionJob,
    session: &Session,
    task: &KeysToValidate<'_>,
    failed: &RefCell<Vec<ForeignKey>>,
) -> Result<()> {
    let have = keys(session, sql::ON, task.oid).await?;
    let b = context.blueprint();
    let ending = if context.state() == State::Swapped { Direction::Forward } else { Direction::Reverse };
    for key in &task.keys {
        let have = have.iter().find(|o| o.name == key.name.as_str());
        if have.is_none() {
            // The partition was added after the swap.
            session.batch_execute(&sql::on(&task.table, &b.key_after(key, ending))).await?;
        }
        if have.is_none_or(|o| !o.valid) {
            let validated = validate(context, session, key, &task.table, task.oid).await;
            let first = !failed.borrow().contains(key);
            if !reported(context, not_valid(key, &task.table), validated)? && first {
                failed.borrow_mut().push((*key).clone());
            }
            failpoint!("settle.key");
        }
    }
    Ok(())
}

async fn on_parent(context: &PartitionJob, b: &Blueprint, key: &ForeignKey) -> Result<()> {
    let client = &context.control;
    let statements = sql::on_parent(b, key);
    let step = format!("add foreign key {} to {}", plain(key.name.as_str()), b.table.name.plain());
    locks::patiently(context, b, &step, async || {
        locks::look(context, b, Direction::Reverse).await?;
        transaction(client, READ_COMMITTED, async |client| {
            locks::begin(context, client, b, Direction::Reverse).await?;
            all(client, &statements).await
        })
        .await
    })
    .await?;
    failpoint!("settle.parent");
    Ok(())
}
