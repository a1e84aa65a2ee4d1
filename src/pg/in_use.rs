//! The definition of the table in use as the job last recorded it: at the last exchange, with the changes that were
//! carried over since.

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::types::Json;

use crate::error::{Error, Result};
use crate::model::table::Table;
use crate::sql::store as sql;

/// The definition that was last recorded; none before the first exchange.
///
/// # Errors
/// The server returned an error.
pub async fn read(client: &Client, job: i64) -> Result<Option<Table>> {
    let stored: Option<Value> = client.query_one(sql::IN_USE, &[&job]).await?.get(0);
    let table = stored.map(serde_json::from_value).transpose();
    table.map_err(|e| Error::failed("a job's record of its table could not be parsed").caused_by(e))
}

/// Records the current definition of the table in use.
///
/// # Errors
/// The server returned an error.
pub async fn keep(client: &Client, job: i64, table: &Table) -> Result<()> {
    client.execute(sql::KEEP_IN_USE, &[&job, &Json(table)]).await?;
    Ok(())
}
