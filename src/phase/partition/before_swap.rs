//! Before a swap, finds what would make the steps after the swap fail: rows that violate a foreign key that is marked
//! as valid, and materialized views whose query fails. The search blocks no session and has a time limit.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result, Retry};
use crate::model::dependent::Matview;
use crate::pg::transaction::all;
use crate::phase::job::{foreign_keys, matviews};
use crate::phase::partition::PartitionJob;
use crate::sql::{matview, orphans as orphans_sql};

/// The time limit for filling each materialized view.
const MATVIEW: Duration = Duration::from_secs(30);
/// Errors that do not mean that the query fails: a lock of another session, the time limit, resources of the server.
const NOT_OF_THE_QUERY: [&SqlState; 3] =
    [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::QUERY_CANCELED, &SqlState::T_R_DEADLOCK_DETECTED];

/// Searches for both before the swap to the partitioned table.
///
/// # Errors
/// Rows violate a key, or a materialized view cannot be built; or the server returned an error.
pub async fn of_partition(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    foreign_keys::check_violations(context, b.own_keys().into_iter().chain(b.child_keys())).await?;
    for view in b.table.dependents.matviews.iter().filter(|m| m.populated) {
        materialized_view(context, view).await?;
    }
    Ok(())
}

/// Builds the materialized view under another name in a transaction that is rolled back.
async fn materialized_view(context: &PartitionJob, view: &Matview) -> Result<()> {
    let client = &context.control;
    // The step after the swap replaces what an interrupted command left behind under that name.
    if matviews::left_behind(context, view).await? {
        return Ok(());
    }
    let mut statements =
        vec!["begin isolation level read committed".to_owned(), orphans_sql::limit(MATVIEW.as_millis())];
    statements.extend(matview::build(
        view,
        &context.blueprint().table.operator_schemas,
        context.plan.trust(),
    ));
    let made = all(client, &statements).await;
    client.batch_execute("rollback").await?;
    match made {
        Err(e) if e.retry_class() == Retry::Unknown || e.sqlstate().is_none() => Err(e),
        Err(e) if !e.is_any(&NOT_OF_THE_QUERY) => {
            let name = view.view.name.plain();
            let said = e.cause_text().unwrap_or(e.message().into()).into_owned();
            Err(Error::failed(format!("materialized view {name} could not be created again after the swap"))
                .cause(said)
                .hint(
                    "nothing was swapped; correct its query or the functions that it calls, and run the \
                    same command again",
                ))
        }
        _ => Ok(()),
    }
}
