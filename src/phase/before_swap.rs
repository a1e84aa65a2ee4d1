//! What the steps after a swap would fail on, looked for before it: rows that violate a foreign key which counts as valid,
//! and materialized views whose query fails. Nobody waits for the look, and the time for it is bounded.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result, Retry};
use crate::model::dependent::Matview;
use crate::model::orphans::Orphans;
use crate::model::table::ForeignKey;
use crate::pg::orphans;
use crate::pg::transaction::all;
use crate::sql::{matview, orphans as orphans_sql};

use super::context::PartitionJob;
use super::driver::Driver;
use super::meter::Meter;
use super::settle;

/// All foreign keys together are tested for so long.
const KEYS: Duration = Duration::from_secs(60);
/// Each materialized view is filled for so long.
const MATVIEW: Duration = Duration::from_secs(30);
/// Errors that say nothing of the query: a lock that others hold, the time, what the server has left.
const NOT_OF_THE_QUERY: [&SqlState; 3] =
    [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::QUERY_CANCELED, &SqlState::T_R_DEADLOCK_DETECTED];

/// Looks for all of it before the swap to the partitioned table.
///
/// # Errors
/// Rows violate a key, or a materialized view cannot be made; or what the server said.
pub async fn of_partition(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    keys(context, b.own_keys().into_iter().chain(b.child_keys())).await?;
    for view in b.table.dependents.matviews.iter().filter(|m| m.populated) {
        materialized_view(context, view).await?;
    }
    Ok(())
}

/// Fails where rows violate one of the keys that were valid: none of them would become valid after the swap.
///
/// # Errors
/// The rows; or what the server said.
pub async fn keys<'a>(driver: &Driver, keys: impl IntoIterator<Item = &'a ForeignKey>) -> Result<()> {
    let keys: Vec<&ForeignKey> = keys.into_iter().filter(|key| key.validated).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let meter = Meter::begin(driver, "verify", "looking for rows that violate foreign keys");
    let looked = orphans::look(&driver.control, keys, KEYS).await?;
    for (key, why) in &looked.untested {
        driver.events.note(format!("rows were not tested against foreign key {key}: {why}"));
    }
    if looked.found.is_empty() {
        meter.end("no row is known that does");
        return Ok(());
    }
    meter.end("there are such rows");
    let facts: Vec<String> = looked.found.iter().map(Orphans::fact).collect();
    let named: Vec<String> = looked.found.iter().map(Orphans::named).collect();
    Err(Error::new(Kind::Differs, facts.join("; ")).cause(format!("by key: {}", named.join("; "))).hint(
        "after the swap the key could not become valid again; nothing was swapped: correct or delete these rows, or insert \
         the ones that they refer to, and run the same command again",
    ))
}

/// Makes the materialized view under another name, and takes that back.
async fn materialized_view(context: &PartitionJob, view: &Matview) -> Result<()> {
    let client = &context.control;
    // What an interrupted command left under that name is replaced after the swap, not here.
    if settle::left_behind(context, view).await? {
        return Ok(());
    }
    let mut statements =
        vec!["begin isolation level read committed".to_owned(), orphans_sql::limit(MATVIEW.as_millis())];
    statements.extend(matview::build(view));
    let made = all(client, &statements).await;
    client.batch_execute("rollback").await?;
    match made {
        Err(e) if e.retry_class() == Retry::Unknown || e.sqlstate().is_none() => Err(e),
        Err(e) if !e.is_any(&NOT_OF_THE_QUERY) => {
            let name = view.view.name.plain();
            let said = e.cause_text().unwrap_or(e.message()).to_owned();
            Err(Error::failed(format!("materialized view {name} cannot be made anew after the swap"))
                .cause(said)
                .hint("nothing was swapped: correct its query or the functions that it calls, and run the same command again"))
        }
        _ => Ok(()),
    }
}
