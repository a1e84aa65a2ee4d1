//! Foreign keys that an exchange creates again: the job searches for violating rows before the exchange, and validates
//! the keys after it.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::{ConstraintWork, PartitionNote, PhaseOutcome, RunWarning, Undone};
use crate::model::ident::{QualifiedName, plain};
use crate::model::orphans::Orphans;
use crate::model::state::State;
use crate::model::table::ForeignKey;
use crate::pg::orphans;
use crate::sql::foreign_key as sql;

use super::driver::Driver;
use super::meter::Meter;

/// The time limit for the search for violating rows.
const KEYS: Duration = Duration::from_secs(60);

/// The time limit for the search for violating rows after a failed validation; the error names some of them.
const NAMED_WITHIN: Duration = Duration::from_secs(10);

/// Fails if rows violate a key that is marked as valid, because the key could not be validated after the swap.
///
/// # Errors
/// The rows; or the server returned an error.
pub async fn check_violations<'a>(
    driver: &Driver,
    keys: impl IntoIterator<Item = &'a ForeignKey>,
) -> Result<()> {
    let keys: Vec<&ForeignKey> = keys.into_iter().filter(|key| key.validated).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let meter = Meter::begin(driver, ConstraintWork::FindForeignKeyViolations);
    let looked = orphans::find_violations(&driver.control, keys, KEYS, driver.plan.trust()).await?;
    for (key, error) in looked.untested {
        driver.events.note(PartitionNote::ForeignKeyNotTested { key, error });
    }
    if looked.found.is_empty() {
        meter.end(PhaseOutcome::NoViolations);
        return Ok(());
    }
    meter.end(PhaseOutcome::Violations { constraints: looked.found.len() as u64 });
    let facts: Vec<String> = looked.found.iter().map(Orphans::fact).collect();
    let named: Vec<String> = looked.found.iter().map(Orphans::named).collect();
    Err(Error::new(Kind::Differs, facts.join("; ")).cause(format!("by key: {}", named.join("; "))).hint(
        "nothing was swapped, because the foreign key could not be validated after the swap: correct or \
         delete these rows, or insert the rows that they refer to, and run the same command again",
    ))
}

/// Ignores the error for a lock that could not be acquired if the job is being rolled back.
///
/// # Errors
/// Any other error in `settled`.
pub fn ignore_lock_error_on_rollback(driver: &Driver, settled: Result<()>) -> Result<()> {
    match settled {
        Err(e) if driver.state() == State::Swapped && e.kind() == Kind::Lock => {
            driver.events.warn(RunWarning::StepSkipped { error: e.brief() });
            Ok(())
        }
        other => other,
    }
}

/// Returns whether a step after a swap was done. A permanent failure is reported with its consequences.
///
/// # Errors
/// The step can be repeated, or was stopped.
pub fn reported(driver: &Driver, undone: Undone, done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.retry_class() == Retry::Never && matches!(e.kind(), Kind::Failed | Kind::Differs) => {
            let (job, hint) = (driver.job.name.clone(), e.hint_text().map(str::to_owned));
            driver.events.warn(RunWarning::StepUndone { job, undone, error: e.brief(), hint });
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

/// The consequence if a key could not be validated.
pub fn not_valid(key: &ForeignKey, table: &QualifiedName) -> Undone {
    Undone::ForeignKeyNotValid { key: plain(key.name.as_str()), table: table.plain() }
}

/// Validates a key on one table; if rows violate it, the error names some of them.
pub async fn validate(
    driver: &Driver,
    client: &Client,
    key: &ForeignKey,
    table: &QualifiedName,
    oid: u32,
) -> Result<()> {
    // The server reads both tables with the privileges of the session.
    let tables = [table.clone(), key.references.clone()];
    let validate = async |client: &Client| Ok(client.batch_execute(&sql::validate(table, key)).await?);
    let Err(error) = driver.reading(client, &tables, validate).await else { return Ok(()) };
    if !error.is(&SqlState::FOREIGN_KEY_VIOLATION) {
        return Err(error);
    }
    match orphans::one(client, key, (table, oid), NAMED_WITHIN, driver.plan.trust()).await {
        Ok(Some(found)) => Err(Error::failed(found.fact()).cause(format!("by key: {}", found.named()))),
        // The search found no rows, so return the server's error.
        Ok(None) => Err(error),
        Err(e) if e.retry_class() == Retry::Unknown => Err(e),
        Err(_) => Err(error),
    }
}

/// Reports the keys that no command of the job will validate, with the statements that validate them.
pub fn report_unvalidated(driver: &Driver, keys: &[ForeignKey], on_leaves: bool) {
    for key in keys {
        let (name, table) = (plain(key.name.as_str()), key.table.plain());
        let on_partitions = on_leaves && *driver.job.source == *table;
        let statements = if on_partitions {
            vec![
                format!("alter table ... validate constraint {name}"),
                format!("alter table {table} add constraint {name} {}", key.definition),
            ]
        } else {
            vec![format!("alter table {table} validate constraint {name}")]
        };
        driver.events.warn(RunWarning::ForeignKeyNotValid { key: name, table, statements, on_partitions });
    }
}
