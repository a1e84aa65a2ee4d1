//! Reads what `pgstrata plan` needs to know of a live table; [`crate::plan::survey`] makes the plan of it.

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::model::partition::Every;
use crate::plan::survey as plan;
use crate::sql::preflight as sql;

use super::preflight;

/// A commented plan for partitioning the table by the column, in intervals of `every` or of what suits its size.
///
/// # Errors
/// What the server said; or there is no such table or column, the column cannot be partitioned by, or no key can be had.
pub async fn survey(
    client: &Client,
    table: &QualifiedName,
    by: &str,
    every: Option<Every>,
) -> Result<String> {
    let facts = preflight::facts(client, table, by, None).await?;
    let row = client.query_opt(sql::HISTOGRAM, &[&table.schema.as_str(), &table.name.as_str(), &by]).await?;
    let histogram: Vec<String> = row.and_then(|row| row.get(0)).unwrap_or_default();
    plan::survey(&facts, by, every, &histogram)
}
