//! Drops a CHECK constraint from the inactive table when it rejects a row of the table in use; the next swap or rollback adds it
//! again, as NOT VALID. A constraint that depends on more than the row can reject a row that satisfied it when it was written,
//! and the job must not stop for that.

use crate::error::{Error, Result};
use crate::event::PartitionNote;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::table::Table;
use crate::pg::{catalog, store};
use crate::phase::job::locks::briefly;
use crate::phase::partition::{PartitionJob, objects};
use crate::sql::drop_constraint;

/// Drops the CHECK constraint that rejected a row of the table in use from the inactive table; returns whether the error is
/// of that kind. The next exchange adds the constraint again, as NOT VALID. An error that a function raises says
/// nothing about a constraint, even if it names one.
///
/// # Errors
/// A lock could not be acquired; or the server returned an error.
pub async fn leave_out(context: &PartitionJob, error: &Error) -> Result<bool> {
    let mut b = context.blueprint();
    let Some(violated) = error.violated_check() else { return Ok(false) };
    let (of, check) =
        (QualifiedName::new(&violated.schema, &violated.table), Ident::new(violated.name.as_str()));
    let (client, side) = (&context.control, b.sides(context.direction()).target);
    let inactive = catalog::table(client, catalog::must_find(client, &side).await?).await?;
    // The error can also be about a row that a function of the application writes to another table.
    let of_inactive =
        of == side || catalog::leaves(client, inactive.oid).await?.iter().any(|leaf| leaf.name == of);
    let is_there = |table: &Table| table.checks.iter().any(|there| there.name == check);
    if !of_inactive || !is_there(&b.table) || !is_there(&inactive) {
        return Ok(false);
    }
    for list in [&mut b.violated_checks, &mut b.checks_left_out] {
        if !list.contains(&check) {
            list.push(check.clone());
        }
    }
    let step = format!("drop constraint {} of {}", plain(check.as_str()), side.plain());
    briefly(context, vec![side.clone()], &step, async || {
        // Only from the job's own table, or the one that it replaced.
        let locked = objects::lock_target(context, context.direction(), "access exclusive").await?;
        context.control.batch_execute(&format!("{locked}; {}", drop_constraint(&side, &check))).await?;
        store::extend(&context.control, context.job.id, &b).await
    })
    .await?;
    context.events.note(PartitionNote::CheckLeftOut {
        constraint: plain(check.as_str()),
        table: side.plain(),
        source: b.table.name.plain(),
    });
    context.blueprint.replace(b);
    Ok(true)
}
