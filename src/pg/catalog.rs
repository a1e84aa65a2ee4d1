//! Reads definitions from the catalog.

use tokio_postgres::{Client, Statement};

use crate::error::{Error, Result};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::rebound::Rebound;
use crate::model::table::Table;
use crate::plan::check::ColumnFacts;
use crate::sql::catalog as sql;
use crate::sql::retype::facts;
use crate::sql::retype::rebound::objects;

/// The hint for an object that no longer exists.
const DROPPED: &str =
    "it was dropped or renamed while the job was open; restore it, and run the same command again";

/// A leaf of a partitioned table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Schema and name.
    pub name: QualifiedName,
    /// Its oid.
    pub oid: u32,
    /// Whether it is the default partition.
    pub default: bool,
}

/// The oid of a relation; none if no relation has that name.
///
/// # Errors
/// The server returned an error.
pub async fn find(client: &Client, name: &QualifiedName) -> Result<Option<u32>> {
    let row = client.query_opt(sql::FIND, &[&name.schema.as_str(), &name.name.as_str()]).await?;
    Ok(row.map(|r| r.get(0)))
}

/// The oid of a relation that must exist.
///
/// # Errors
/// No relation has that name.
pub async fn must_find(client: &Client, name: &QualifiedName) -> Result<u32> {
    find(client, name)
        .await?
        .ok_or_else(|| Error::failed(format!("table {} no longer exists", name.plain())).hint(DROPPED))
}

/// Everything attached to the relation with that oid, except for [`operator_schemas`].
///
/// # Errors
/// The relation does not exist, or the catalog returned something unexpected.
pub async fn table(client: &Client, oid: u32) -> Result<Table> {
    table_by(client, &client.prepare(&sql::table()).await?, oid).await
}

/// [`table`] with its statement already prepared: planning takes ten times as long as execution.
///
/// # Errors
/// As [`table`].
pub async fn table_by(client: &Client, statement: &Statement, oid: u32) -> Result<Table> {
    let row = client.query_opt(statement, &[&oid]).await?.ok_or_else(|| {
        Error::failed(format!("the relation with oid {oid} no longer exists")).hint(DROPPED)
    })?;
    let json: serde_json::Value = row.get(0);
    serde_json::from_value(json).map_err(|e| unexpected().caused_by(e))
}

/// [`Table::operator_schemas`] of the relation with that oid; `trust` are the roles that the plan trusts.
///
/// # Errors
/// The server returned an error.
pub async fn operator_schemas(client: &Client, oid: u32, trust: &[String]) -> Result<Vec<Ident>> {
    let rows = client.query(sql::OPERATOR_SCHEMAS, &[&oid, &trust]).await?;
    Ok(rows.iter().map(|row| Ident::new(row.get::<_, &str>(0))).collect())
}

/// What depends on a column of the relation with that oid.
///
/// # Errors
/// The relation does not exist, or the catalog returned something unexpected.
pub async fn column(client: &Client, oid: u32, name: &Ident) -> Result<ColumnFacts> {
    let facts = existing_column(client, oid, name).await?;
    facts.ok_or_else(|| {
        Error::failed(format!("column {} no longer exists", plain(name.as_str()))).hint(DROPPED)
    })
}

/// As [`column()`]; none if there is no such column.
///
/// # Errors
/// As [`column()`].
pub async fn existing_column(client: &Client, oid: u32, name: &Ident) -> Result<Option<ColumnFacts>> {
    let Some(row) = client.query_opt(facts::COLUMN, &[&oid, &name.as_str()]).await? else { return Ok(None) };
    let facts: ColumnFacts = serde_json::from_value(row.get(0)).map_err(|e| unexpected().caused_by(e))?;
    Ok(Some(ColumnFacts { rebound: rebound(client, oid, name).await?, ..facts }))
}

/// The objects that refer to a column by its number.
///
/// # Errors
/// As [`column()`].
pub async fn rebound(client: &Client, oid: u32, name: &Ident) -> Result<Rebound> {
    let row = client.query_one(&objects(name), &[&oid]).await?;
    serde_json::from_value(row.get(0)).map_err(|e| unexpected().caused_by(e))
}

fn unexpected() -> Error {
    Error::failed("the result of a catalog query could not be parsed")
}

/// Leaves of a partitioned table, by name, the default one last.
///
/// # Errors
/// The server returned an error.
pub async fn leaves(client: &Client, oid: u32) -> Result<Vec<Leaf>> {
    let rows = client.query(sql::LEAVES, &[&oid]).await?;
    Ok(rows
        .iter()
        .map(|r| Leaf {
            name: QualifiedName {
                schema: Ident::new(r.get::<_, String>(0)),
                name: Ident::new(r.get::<_, String>(1)),
            },
            oid: r.get(2),
            default: r.get(3),
        })
        .collect())
}

/// The estimated rows and the size in bytes (total, heap) of a relation.
///
/// # Errors
/// The server returned an error.
pub async fn size(client: &Client, oid: u32) -> Result<(i64, i64, i64)> {
    let row = client.query_one(sql::SIZE, &[&oid]).await?;
    Ok((row.get(0), row.get(1), row.get(2)))
}
