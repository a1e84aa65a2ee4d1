//! Reads what `pgstrata plan` needs to know about a live table; [`crate::plan::survey`] writes the plan.

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::model::partition::Every;
use crate::plan::survey as plan;
use crate::sql::preflight as sql;

use super::preflight;

/// A commented plan that partitions the table by the column, in intervals of `every`, or of a length that suits its
/// size.
///
/// # Errors
/// The server returned an error; the table or the column does not exist; the column cannot be a partition column; or
/// the table has no usable key.
pub async fn survey(
    client: &Client,
    table: &QualifiedName,
    by: &str,
    every: Option<Every>,
) -> Result<String> {
    let (schema, name) = (table.schema.as_str(), table.name.as_str());
    let rows = client.query(sql::COLUMN_NAMES, &[&schema, &name]).await?;
    let by = plan::column_named(by, &rows.iter().map(|row| row.get(0)).collect::<Vec<_>>());
    let facts = preflight::facts(client, table, &by, None).await?;
    let row = client.query_opt(sql::HISTOGRAM, &[&schema, &name, &by]).await?;
    let histogram: Vec<String> = row.and_then(|row| row.get(0)).unwrap_or_default();
    plan::survey(&facts, &by, every, &histogram)
}
