//! Keeps NULL out of nullable columns of the place until the swap, with a CHECK constraint of the job on the source. The
//! columns of the target are NOT NULL. If the plan has `null_as`, a trigger first fills every row that is written with
//! NULL, and a backfill fills the existing rows.
//!
//! The constraint and the trigger exist while the plain table is the table in use: from the start of the job until `abort` or a
//! rollback, and again from the next swap on. The constraint is valid before a row is copied and before each swap, so
//! every row has a partition.

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::event::{ColumnWork, ConstraintWork, PhaseOutcome};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::filling::Filling;
use crate::model::history::History;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::number;
use crate::model::objects::Role;
use crate::model::pace::Work;
use crate::model::shell::word;
use crate::model::state::State;
use crate::model::table::Table;
use crate::model::untrusted_code::Access;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{objects as pg, store};
use crate::phase::backfill;
use crate::phase::job::locks::briefly;
use crate::phase::job::meter::Meter;
use crate::phase::partition::PartitionJob;
use crate::plan::check::NULLS_COUNTED;
use crate::sql::finish::validate;
use crate::sql::{drop_constraint, fill, not_null as sql, objects, store as store_sql};

/// The lock for a validation blocks no reader or writer, so the job can wait for it long enough for the server to
/// cancel an autovacuum that holds a conflicting lock.
const PATIENT: &str = "set local lock_timeout = '5s'";
/// The time limit for a search for rows with NULL, which only gives an error earlier.
const LOOK_BRIEFLY: &str = "set local statement_timeout = '60s'";

/// The job's constraint.
struct NotNullCheck {
    /// Its current name.
    name: Ident,
    valid: bool,
}

/// Adds the constraint if it does not exist, and validates it; can be called again after an interruption. If rows contain NULL, the constraint is
/// dropped again: it would reject every update of such a row.
///
/// # Errors
/// Rows contain NULL; stopped; or the lock could not be acquired.
pub async fn establish(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let Some(name) = b.not_null_check().filter(|_| context.direction() == Direction::Forward) else {
        return Ok(());
    };
    keep_filled(context, &b).await?;
    let found = standing(context).await?;
    if found.as_ref().is_some_and(|one| one.valid) {
        return Ok(());
    }
    if found.is_none() && b.null_as.is_some() {
        backfill::fill(&context.filler).await?;
    }
    let (table, columns) = (b.table.name.plain(), b.not_null.iter().map(|c| plain(c.as_str())).collect());
    let meter = Meter::begin(context, ConstraintWork::KeepNullOut { table, columns });
    let standing = match found {
        Some(standing) => standing,
        None => add(context, &b, &name).await?,
    };
    validated(context, &b, &standing).await?;
    failpoint!("not_null.validated");
    meter.end(PhaseOutcome::ConstraintsValid);
    Ok(())
}

/// Creates the trigger that fills rows that are written with NULL, unless it exists.
async fn keep_filled(context: &PartitionJob, b: &Blueprint) -> Result<()> {
    let f = Filling::of_nulls(b);
    if !f.keep_filled {
        return Ok(());
    }
    let (client, trigger) = (&context.control, f.fill_trigger());
    if client.query_one(fill::KEEPS_FILLED, &[&b.table.oid, &trigger.as_str()]).await?.get(0) {
        return Ok(());
    }
    let table = b.table.name.plain();
    let step = format!("create the trigger of the job on {table}");
    let meter = Meter::begin(context, ColumnWork::FillByTrigger { table });
    let statements = fill::keep_filled(&f);
    briefly(context, vec![b.table.name.clone()], &step, async || all(client, &statements).await).await?;
    meter.end(PhaseOutcome::TriggersReady);
    Ok(())
}

/// Fails if rows contain NULL because the constraint does not exist after a rollback. Such rows are in no partition, and
/// would be reported as missing.
///
/// # Errors
/// The number of these rows; or the server returned an error.
pub async fn check(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    if b.not_null.is_empty()
        || context.direction() == Direction::Reverse
        || standing(context).await?.is_some()
    {
        return Ok(());
    }
    no_null(context, &b).await
}

/// Fails unless `table`, the source as it was just read, has the constraint, and it is valid.
///
/// # Errors
/// Another session dropped it; or the server returned an error.
pub async fn is_in_force(context: &PartitionJob, table: &Table) -> Result<()> {
    let b = context.blueprint();
    if b.not_null.is_empty() {
        return Ok(());
    }
    let name = name(context).await?;
    if table.checks.iter().any(|check| Some(&check.name) == name.as_ref() && check.validated) {
        return Ok(());
    }
    let constraint = b.not_null_check().map_or_else(String::new, |name| plain(name.as_str()));
    Err(Error::failed(format!("{} no longer has constraint {constraint}", b.table.name.plain()))
        .cause("another session dropped it; the job needs it to keep NULL out of the partition column and the key")
        .hint("run the same command again: it adds the constraint again"))
}

/// The statements with which an exchange that ends direction `ending` removes what the job has on the plain table: a swap
/// the trigger, a rollback the constraint.
///
/// # Errors
/// The server returned an error.
pub async fn removal(context: &PartitionJob, ending: Direction) -> Result<Vec<String>> {
    let b = context.blueprint();
    if ending == Direction::Reverse {
        let name = name(context).await?;
        return Ok(name.map(|name| drop_constraint(&b.old(), &name)).into_iter().collect());
    }
    let triggers = triggers(context, &b).await?;
    Ok(triggers.iter().map(|(table, trigger)| objects::drop_trigger(table, trigger)).collect())
}

/// Removes what the job has on the plain table from the definition of the table in use.
///
/// # Errors
/// The server returned an error.
pub async fn ignore_own(context: &PartitionJob, table: &mut Table) -> Result<()> {
    if let Some(own) = name(context).await? {
        table.checks.retain(|check| check.name != own);
    }
    let own = triggers(context, &context.blueprint()).await?;
    table.triggers.retain(|trigger| own.iter().all(|(_, one)| *one != trigger.name));
    Ok(())
}

/// The trigger that fills rows, under its current name.
async fn triggers(context: &PartitionJob, b: &Blueprint) -> Result<Vec<(QualifiedName, Ident)>> {
    if b.null_as.is_none() {
        return Ok(Vec::new());
    }
    pg::triggers(&context.control, &[Filling::of_nulls(b).fill_function()], b.table.oid).await
}

/// The current name of the constraint, if it exists.
async fn name(context: &PartitionJob) -> Result<Option<Ident>> {
    if context.blueprint.borrow().not_null.is_empty() {
        return Ok(None);
    }
    Ok(standing(context).await?.map(|one| one.name))
}

async fn standing(context: &PartitionJob) -> Result<Option<NotNullCheck>> {
    let client = &context.control;
    let recorded = pg::recorded(client, context.job.id).await?;
    let found =
        recorded.of(Role::Constraint).find_map(|one| Some((one.oid, one.now.as_ref()?.part.clone()?)));
    let Some((oid, name)) = found else { return Ok(None) };
    let row = client.query_opt(sql::IS_VALID, &[&oid]).await?;
    Ok(row.map(|row| NotNullCheck { name, valid: row.get(0) }))
}

async fn add(context: &PartitionJob, b: &Blueprint, name: &Ident) -> Result<NotNullCheck> {
    if b.null_as.is_none() {
        no_null(context, b).await?;
    }
    let (client, job) = (&context.control, context.job.id);
    let step = format!("add constraint {} to {}", plain(name.as_str()), b.table.name.plain());
    briefly(context, vec![b.table.name.clone()], &step, async || {
        client.batch_execute(&sql::add(b, name)).await?;
        pg::forget(client, job, Role::Constraint).await?;
        pg::record_constraint(client, job, b.table.oid, name).await?;
        if b.null_as.is_some() {
            // From now on, no row has NULL. After a rollback, all rows are looked at again.
            let filled = History::RowsSet { rows: store::rows_filled(client, job).await? };
            store::event(client, job, &filled).await?;
            client.execute(store_sql::FORGET_FILLED, &[&job]).await?;
        }
        Ok(())
    })
    .await?;
    failpoint!("not_null.added");
    let gone = || Error::failed(format!("constraint {} was dropped", plain(name.as_str())));
    standing(context).await?.ok_or_else(gone)
}

/// Validates the constraint. A stop request cancels the statement.
async fn validated(context: &PartitionJob, b: &Blueprint, standing: &NotNullCheck) -> Result<()> {
    if standing.valid {
        return Ok(());
    }
    let (client, table) = (&context.control, &b.table.name);
    let step = format!("validate constraint {} of {}", plain(standing.name.as_str()), table.plain());
    let validated = context.retrying(&step, async || {
        context.permitted_for(Work::Reads).await?;
        let cancel = client.cancel_token();
        let mut validated = std::pin::pin!(transaction(client, READ_COMMITTED, async |client| {
            context.hold_epoch(client).await?;
            client.batch_execute(PATIENT).await?;
            context.check_untrusted_code(client, std::slice::from_ref(table), Access::Copies).await?;
            Ok(client.batch_execute(&validate(table, &standing.name)).await?)
        }));
        tokio::select! {
            done = &mut validated => return done,
            () = context.interrupted() => {}
        }
        cancel.cancel().await?;
        let done = validated.await;
        context.check_stop()?;
        done
    });
    match validated.await {
        Err(e) if e.is(&SqlState::CHECK_VIOLATION) => {
            let step = format!("drop constraint {} from {}", plain(standing.name.as_str()), table.plain());
            let drop = drop_constraint(table, &standing.name);
            briefly(context, vec![table.clone()], &step, async || Ok(client.batch_execute(&drop).await?))
                .await?;
            no_null(context, b).await?;
            Err(e)
        }
        other => other,
    }
}

/// Fails if rows of the source contain NULL, as far as that is found in a limited time.
async fn no_null(context: &PartitionJob, b: &Blueprint) -> Result<()> {
    let table = std::slice::from_ref(&b.table.name);
    let counted = context.reading(&context.control, table, async |client| {
        client.batch_execute(LOOK_BRIEFLY).await?;
        Ok(client.query_one(&sql::count(b), &[]).await?.get::<_, i64>(0))
    });
    let rows = match counted.await {
        Err(e) if e.is(&SqlState::QUERY_CANCELED) => return Ok(()),
        counted => counted?,
    };
    if rows == 0 {
        return Ok(());
    }
    let more = if rows == NULLS_COUNTED { "at least " } else { "" };
    let rows = number::counted(rows.unsigned_abs(), "row");
    let table = b.table.name.plain();
    let columns: Vec<String> = b.not_null.iter().map(|c| plain(c.as_str())).collect();
    let condition = columns.iter().map(|c| format!("{c} is null")).collect::<Vec<_>>().join(" or ");
    let these = match columns.as_slice() {
        [one] => format!("column {one} of {table} contains"),
        more => format!("columns {} of {table} contain", more.join(", ")),
    };
    Err(Error::failed(format!("{these} NULL in {more}{rows}"))
        .cause("the partition column and the key identify a row, and rows with NULL belong in no partition")
        .hint(match b.null_as {
            Some(_) if context.state() == State::RolledBack => format!(
                "no row is lost; `pgstrata swap {}` first sets the value of null_as in these rows",
                word(&context.job.name)
            ),
            Some(_) => format!(
                "null_as returns NULL or fails for these rows; set a value in them (`select * from {table} where {condition}`), \
                 then run the same command again; or {}",
                context.way_out()
            ),
            None => format!(
                "they were written while the job did not yet reject NULL; nothing was swapped, and no row is lost; set a \
                 value in these rows (`select * from {table} where {condition}`), then run the same command again; or {}",
                context.way_out()
            ),
        }))
}
