//! The record of a copy that a job makes again.

use std::time::Duration;

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::resync::CopyCost;
use crate::sql::store as sql;

/// What the copy took.
///
/// # Errors
/// The server returned an error.
pub async fn copy_cost(client: &Client, job: i64) -> Result<CopyCost> {
    let row = client.query_one(sql::COPY_COST, &[&job]).await?;
    let number = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    let time = Duration::try_from_secs_f64(row.get(1)).unwrap_or_default();
    Ok(CopyCost { rows: number(0), time, resyncs: number(2) })
}

/// Deletes the ledger and the end of the copy, so that the copy begins again.
///
/// # Errors
/// The server returned an error.
pub async fn forget_copy(client: &Client, job: i64) -> Result<()> {
    client.execute(sql::FORGET_COPY, &[&job]).await?;
    Ok(())
}
