//! Looks for code of other roles on the tables that a job writes.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::ident::{QualifiedName, plain};
use crate::model::lent::{self, Code};
use crate::sql::lent as sql;

use super::catalog;

/// An owner of `tables` or of their partitions that neither the session's role nor the plan trusts.
///
/// # Errors
/// The server returned an error.
pub async fn untrusted_owner(
    client: &Client,
    tables: &[QualifiedName],
    trust: &[String],
) -> Result<Option<String>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY), (&trust, Type::TEXT_ARRAY)];
    let row = client.query_typed_opt(sql::UNTRUSTED_OWNER, &parameters).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The code that would run; `updates`: enabled triggers and rules fire for the job's writes.
///
/// # Errors
/// The server returned an error.
pub async fn code(client: &Client, tables: &[u32], trust: &[String], updates: bool) -> Result<Vec<Code>> {
    let rows = client.query(sql::CODE, &[&tables, &trust, &updates]).await?;
    let one = |row: &Row| Code { by: row.get(0), function: row.get(1), owner: row.get(2) };
    Ok(rows.iter().map(one).collect())
}

/// Fails if `tables` have such code, and prevents others from adding any until the transaction ends. Code on tables whose
/// owners are trusted is not looked at. `updates` as for [`code`].
///
/// # Errors
/// The code that was found; or the server returned an error.
pub async fn nothing(
    client: &Client,
    tables: &[QualifiedName],
    trust: &[String],
    updates: bool,
) -> Result<()> {
    let Some(owner) = untrusted_owner(client, tables, trust).await? else { return Ok(()) };
    client.batch_execute(&sql::hold(tables)).await?;
    none_on(client, tables, trust, updates, &owner).await
}

/// The same for a transaction that only reads `table`, and has a lock on it. A cast to the type of another table's
/// column could call code of the type's owner.
///
/// # Errors
/// The code that was found; or the server returned an error.
pub async fn nothing_read(client: &Client, table: &QualifiedName, trust: &[String]) -> Result<()> {
    let tables = std::slice::from_ref(table);
    match untrusted_owner(client, tables, trust).await? {
        None => Ok(()),
        Some(owner) => none_on(client, tables, trust, false, &owner).await,
    }
}

async fn none_on(
    client: &Client,
    tables: &[QualifiedName],
    trust: &[String],
    updates: bool,
    owner: &str,
) -> Result<()> {
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
    Err(Error::failed(message).hint(lent::hint(&code, &plain(owner))))
}
