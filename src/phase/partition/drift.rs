//! Handles changes to the table in use since the plan was made, or since the last exchange. Before the next exchange,
//! they are carried over to the inactive table, or the exchange fails with an error that names them.

use tokio_postgres::Client;

use crate::error::{Error, Result, Retry};
use crate::event::PartitionNote;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::difference::{self, Between, Difference, descriptions, differences};
use crate::model::ident::QualifiedName;
use crate::model::post_swap_diff;
use crate::model::remade_keys;
use crate::model::table::Table;
use crate::model::untrusted_code::Access;
use crate::pg::transaction::all;
use crate::pg::{catalog, in_use, references, store};
use crate::phase::job::exchange::{Definition, drop_added_users};
use crate::phase::job::locks::briefly;
use crate::phase::partition::{PartitionJob, after_exchange, not_null};
use crate::sql::carry as sql;

/// Carries over changes if possible; returns whether there were any. `target` is the oid of the inactive table.
///
/// # Errors
/// Changes that cannot be carried over, by name; or the server returned an error.
pub async fn carry(
    context: &PartitionJob,
    ending: Direction,
    definition: &Definition,
    target: u32,
) -> Result<bool> {
    let (client, job, b) = (&context.control, context.job.id, context.blueprint());
    let mut now = definition.table.clone();
    after_exchange::ignore_expected_changes(context, &b, &mut now).await?;
    without_copies(&b, ending, &mut now);
    not_null::ignore_own(context, &mut now).await?;
    let known = in_use::read(client, job).await?;
    let Some(mut was) = known.or_else(|| (ending == Direction::Forward).then(|| b.table.clone())) else {
        // An earlier version did the swap, and did not store the definition after it.
        let found = post_swap_diff::unexpected(&b, &now);
        return if found.is_empty() { Ok(false) } else { Err(lost(&b, ending, &found)) };
    };
    remade_keys::ignore_expected_changes(&b.table, &mut was);
    post_swap_diff::with_late_keys(&b, &now, &mut was);
    without_copies(&b, ending, &mut was);
    // A partition has its own foreign key until the parent has the key. If no partition has one, a key that the parent
    // lacks was dropped.
    if ending == Direction::Reverse && definition.leaves.iter().all(|leaf| leaf.keys == 0) {
        let dropped = post_swap_diff::dropped_keys(&b, &definition.table);
        if !dropped.is_empty() {
            return Err(lost(&b, ending, &dropped));
        }
    }
    let mut found = differences(&was, &now, Between::Times);
    found.retain(|one| !post_swap_diff::is_own_change(&b, &now, one));
    if found.is_empty() {
        return Ok(false);
    }
    let mut with = b.clone();
    with.table = difference::with(&b.table, &found)
        .map_err(|e| Error::failed("a change of the table could not be parsed").caused_by(e))?;
    with.table.operator_schemas = catalog::operator_schemas(client, now.oid, context.plan.trust()).await?;
    let leaves: Vec<QualifiedName> = match ending {
        Direction::Forward => definition.leaves.iter().map(|leaf| leaf.name.clone()).collect(),
        Direction::Reverse => Vec::new(),
    };
    let statements =
        sql::carry(&with, &was, ending, &found, &leaves).map_err(|found| refused(&b, ending, &found))?;
    let side = b.sides(ending).target;
    let step = format!("carry changes over to {}", side.plain());
    let done = briefly(context, vec![side.clone()], &step, async || {
        // CHECK constraints are validated with the privileges of the job's role.
        context.check_untrusted_code(client, &[b.sides(ending).source], Access::Copies).await?;
        all(client, &statements).await?;
        store::extend(client, job, &with).await?;
        in_use::keep(client, job, &now).await?;
        // An event trigger may have undone or changed it.
        let left = post_swap_diff::not_carried(&found, &catalog::table(client, target).await?);
        if left.is_empty() { Ok(()) } else { Err(lost(&b, ending, &descriptions(&left))) }
    });
    done.await.map_err(|e| match (e.retry_class(), e.sqlstate()) {
        (Retry::Never, Some(_)) => failed(&b, ending, &found, &e),
        _ => e,
    })?;
    context.blueprint.replace(with);
    context.events.note(PartitionNote::CarriedOver { target: side.plain(), changes: descriptions(&found) });
    Ok(true)
}

/// Fails if `side`, the table that the exchange brings into use, lacks an object that the job created on it.
///
/// # Errors
/// The missing objects.
pub fn nothing_is_missing(b: &Blueprint, ending: Direction, side: &Table) -> Result<()> {
    let missing = post_swap_diff::missing(b, ending, side);
    if missing.is_empty() {
        return Ok(());
    }
    let name = b.sides(ending).target.plain();
    let or = match ending {
        Direction::Forward => "or abort the job and run it again",
        Direction::Reverse => "or keep the partitioned table and finalize the job",
    };
    Err(Error::failed(format!("{name} no longer has {}", missing.join(", ")))
        .cause("it was dropped there, and the swap or rollback would lose it")
        .hint(format!("create it again on {name}, and run the same command again; {or}")))
}

/// Fails if a definition of the table that comes into use refers to other functions, operators or types than that of the table
/// in use; both tables are given by oid. The text of a definition can have another meaning when it is parsed again.
///
/// # Errors
/// The definitions; or the server returned an error.
pub async fn nothing_changed_its_meaning(
    client: &Client,
    b: &Blueprint,
    ending: Direction,
    tables: [u32; 2],
) -> Result<()> {
    let changed = references::changed(client, b, ending, tables).await?;
    if changed.is_empty() {
        return Ok(());
    }
    let name = b.sides(ending).target.plain();
    let described: Vec<String> =
        changed.iter().map(|(what, difference)| format!("{what}: {difference}")).collect();
    Err(Error::failed(format!("definitions of {name} differ from those of {}", b.table.name.plain()))
        .cause(described.join("; "))
        .hint("write them with explicit operators, and run the same command again; see `pgstrata explain meaning_changes`"))
}

/// Removes the job's own copies of policies, which belong to the inactive table.
fn without_copies(b: &Blueprint, ending: Direction, table: &mut Table) {
    let other = b.sides(ending).target;
    table.dependents.policies.retain(|policy| policy.table != other);
}

fn lost(b: &Blueprint, ending: Direction, found: &[String]) -> Error {
    let table = b.table.name.plain();
    let found = found.join("; ");
    match ending {
        Direction::Forward => Error::failed(format!(
            "{table} has changed since this job was planned: {found}"
        ))
        .hint(
            "undo the change, or abort the job and run it again from the new definition; nothing was swapped",
        ),
        Direction::Reverse => Error::failed(format!(
            "{table} was changed after the swap, and a rollback would lose the change: {found}"
        ))
        .hint("undo the change, then roll back; or keep the partitioned table and finalize the job"),
    }
}

/// [`lost`], for changes that cannot be carried over.
fn refused(b: &Blueprint, ending: Direction, found: &[Difference]) -> Error {
    let error = lost(b, ending, &descriptions(found));
    if difference::are_added_users(found) {
        error.hint(drop_added_users(ending, "the partitioned table"))
    } else {
        error
    }
}

fn failed(b: &Blueprint, ending: Direction, found: &[Difference], error: &Error) -> Error {
    lost(b, ending, &descriptions(found)).cause(format!(
        "the same change could not be made to {}: {}",
        b.sides(ending).target.plain(),
        error.message()
    ))
}

/// The unexpected changes that the last exchange made.
pub fn unexpected(b: &Blueprint, now: &Table) -> Vec<String> {
    descriptions(&differences(&b.table, now, Between::Tables))
}
