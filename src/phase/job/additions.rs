//! Detects additions by event triggers to the objects that a job creates. Additions that the job can remove are removed
//! when the object is created; this module verifies that none is left.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::model::difference::drift;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::table::Table;
use crate::pg::catalog;
use crate::phase::job::driver::Driver;
use crate::sql::preflight;

/// The number of additions that an error names.
const NAMED: usize = 10;

/// Reads the table before columns are added; none if no event trigger is enabled that could add anything.
///
/// # Errors
/// The server returned an error.
pub async fn before(client: &Client, table: &QualifiedName) -> Result<Option<Table>> {
    if event_triggers(client).await?.is_empty() {
        return Ok(None);
    }
    catalog::table(client, catalog::must_find(client, table).await?).await.map(Some)
}

/// The names of the enabled event triggers.
async fn event_triggers(client: &Client) -> Result<Vec<String>> {
    Ok(client.query(preflight::EVENT_TRIGGERS, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// Fails if the table has other changes than the new `columns`. `was` is the table earlier in the same transaction.
///
/// # Errors
/// The changes; or the server returned an error.
pub async fn check_only_columns_added(
    driver: &Driver,
    client: &Client,
    was: &Table,
    columns: &[&Ident],
) -> Result<()> {
    let mut now = catalog::table(client, was.oid).await?;
    now.columns.retain(|column| !columns.contains(&&column.name));
    now.grants.retain(|grant| !grant.column.as_ref().is_some_and(|column| columns.contains(&column)));
    refuse(driver, client, &was.name, &was.name, &drift(was, &now)).await
}

/// Fails if `found`, the additions to a table that the job created or to which it added columns, is not empty.
///
/// # Errors
/// The additions.
pub async fn refuse(
    driver: &Driver,
    client: &Client,
    made: &QualifiedName,
    model: &QualifiedName,
    found: &[String],
) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let triggers = event_triggers(client).await?;
    let more = found.len().saturating_sub(NAMED);
    let mut named = found.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if more > 0 {
        named.push_str(&format!("; and {more} more"));
    }
    let message = if made == model {
        format!("ALTER TABLE {} ADD COLUMN changed more than the new columns", made.plain())
    } else {
        format!("{} has objects or properties that {} does not have", made.plain(), model.plain())
    };
    let by = match triggers.as_slice() {
        [] => String::new(),
        names => format!("; enabled event triggers: {}", names.join(", ")),
    };
    Err(Error::failed(message).cause(format!("{named}{by}")).hint(format!(
        "undo these changes, disable the event trigger that makes them, and run the same command again; or {}",
        driver.way_out()
    )))
}
