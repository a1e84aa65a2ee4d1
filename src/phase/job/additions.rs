//! What an event trigger adds to the objects that a job makes. What can be taken away was, where the object was made; here it
//! is made sure that nothing is left.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::model::difference::drift;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::table::Table;
use crate::pg::catalog;
use crate::phase::job::driver::Driver;
use crate::sql::preflight;

/// So many are named in an error.
const NAMED: usize = 10;

/// The table as it is before it gets columns; none where there is no event trigger that could do more to it.
///
/// # Errors
/// What the server said.
pub async fn before(client: &Client, table: &QualifiedName) -> Result<Option<Table>> {
    if event_triggers(client).await?.is_empty() {
        return Ok(None);
    }
    catalog::table(client, catalog::must_find(client, table).await?).await.map(Some)
}

/// Event triggers in force, by name.
async fn event_triggers(client: &Client) -> Result<Vec<String>> {
    Ok(client.query(preflight::EVENT_TRIGGERS, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// Fails where more was done to a table than that it got these columns: `was` is what it was in the same transaction.
///
/// # Errors
/// What it is; or what the server said.
pub async fn none_beside_columns(
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

/// Refuses what was found on a table that the job made, or to which it added columns.
///
/// # Errors
/// What it is.
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
        format!("adding columns to {} had further effects", made.plain())
    } else {
        format!("{} has objects or properties that {} does not have", made.plain(), model.plain())
    };
    let by = match triggers.as_slice() {
        [] => String::new(),
        names => format!("; enabled event triggers: {}", names.join(", ")),
    };
    Err(Error::failed(message).cause(format!("{named}{by}")).hint(format!(
        "remove them, disable the event trigger that adds them, and run the same command again; or {}",
        driver.way_out()
    )))
}
