//! Looks for code of others on the tables that a job writes.

use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::model::lent::{self, Code};
use crate::sql::lent as sql;

use super::catalog;

/// Whether a table's owner is trusted: by the session's role, or by the plan.
///
/// # Errors
/// What the server said.
pub async fn owner_is_trusted(client: &Client, table: u32, trust: &[String]) -> Result<bool> {
    let row = client.query_opt(sql::OWNER_IS_TRUSTED, &[&table, &trust]).await?;
    Ok(row.is_none_or(|row| row.get(0)))
}

/// The code that would run; `updates`: triggers and rules are in force for what the job writes.
///
/// # Errors
/// What the server said.
pub async fn code(client: &Client, tables: &[u32], trust: &[String], updates: bool) -> Result<Vec<Code>> {
    let rows = client.query(sql::CODE, &[&tables, &trust, &updates]).await?;
    let one = |row: &Row| Code { by: row.get(0), function: row.get(1), owner: row.get(2) };
    Ok(rows.iter().map(one).collect())
}

/// Fails where there is any on `tables`, and keeps it away until the transaction ends. `updates` as for [`code`].
///
/// # Errors
/// What it is; or what the server said.
pub async fn none(
    client: &Client,
    tables: &[QualifiedName],
    trust: &[String],
    owner: &str,
    updates: bool,
) -> Result<()> {
    client.batch_execute(&sql::hold(tables)).await?;
    let mut oids = Vec::new();
    for table in tables {
        oids.push(catalog::must_find(client, table).await?);
    }
    let code = code(client, &oids, trust, updates).await?;
    if code.is_empty() {
        return Ok(());
    }
    let message = format!(
        "this would run code of other roles with the privileges of the job's role: {}",
        lent::described(&code)
    );
    Err(Error::failed(message).hint(lent::hint(&code, owner)))
}
