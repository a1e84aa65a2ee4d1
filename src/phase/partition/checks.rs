//! Drops a CHECK constraint from the inactive table when it rejects a row of the table in use; the next swap or rollback adds it
//! again, as NOT VALID. A constraint that depends on more than the row can reject a row that satisfied it when it was written,
//! and the job must not stop for that.

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::event::PartitionNote;
use crate::model::ident::plain;
use crate::pg::{catalog, store};
use crate::phase::job::locks::briefly;
use crate::phase::partition::{PartitionJob, objects};
use crate::sql::drop_constraint;

/// Drops the CHECK constraint that rejected a row of the table in use from the inactive table; returns whether the error is
/// of that kind. The next exchange adds the constraint again, as NOT VALID.
///
/// # Errors
/// A lock could not be acquired; or the server returned an error.
pub async fn leave_out(context: &PartitionJob, error: &Error) -> Result<bool> {
    let mut b = context.blueprint();
    let Some(name) = error.constraint().filter(|_| error.is(&SqlState::CHECK_VIOLATION)) else {
        return Ok(false);
    };
    let Some(check) = b.table.checks.iter().map(|check| &check.name).find(|check| check.as_str() == name)
    else {
        return Ok(false);
    };
    let (check, side) = (check.clone(), b.sides(context.direction()).target);
    let inactive =
        catalog::table(&context.control, catalog::must_find(&context.control, &side).await?).await?;
    if !inactive.checks.iter().any(|there| there.name == check) {
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
