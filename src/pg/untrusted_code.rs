//! Looks for code of other roles on the tables that a job writes.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::ident::{QualifiedName, plain};
use crate::model::untrusted_code::{self, Access, Code, Overload};
use crate::sql::{recreated, untrusted_code as sql};

use super::catalog;

/// An owner of `tables`, of their partitions, or of tables to which an update cascades, that neither the role that logged in nor
/// the plan trusts.
///
/// # Errors
/// The server returned an error.
pub async fn untrusted_owner(
    client: &Client,
    tables: &[QualifiedName],
    trust: &[String],
    access: Access,
) -> Result<Option<String>> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let cascades = access.cascades();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&schemas, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&trust, Type::TEXT_ARRAY),
        (&cascades, Type::BOOL),
    ];
    let row = client.query_typed_opt(sql::UNTRUSTED_OWNER, &parameters).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The code that would run.
///
/// # Errors
/// The server returned an error.
pub async fn code(client: &Client, tables: &[u32], trust: &[String], access: Access) -> Result<Vec<Code>> {
    let mut own: Vec<u32> = Vec::new();
    if client.query_one(sql::HAS_RECORDS, &[]).await?.get(0) {
        own.extend(client.query(sql::OWN_FUNCTIONS, &[]).await?.iter().map(|row| row.get::<_, u32>(0)));
    }
    let parameters: [&(dyn ToSql + Sync); 5] = [&tables, &trust, &access.fires(), &access.cascades(), &own];
    let rows = client.query(sql::CODE, &parameters).await?;
    Ok(rows.iter().map(found).collect())
}

/// Code that runs, and calls that could mean another function, when a job creates definitions of the tables again from their
/// text. Unless `all`, only default values count.
///
/// # Errors
/// The server returned an error.
pub async fn recreated(
    client: &Client,
    tables: &[u32],
    trust: &[String],
    all: bool,
) -> Result<(Vec<Code>, Vec<Overload>)> {
    let rows = client.query(recreated::OVERLOADS, &[&tables, &trust, &all]).await?;
    let overload = |row: &Row| Overload {
        by: row.get(0),
        function: row.get(1),
        schema: row.get(2),
        creators: row.get(3),
    };
    let overloads = rows.iter().map(overload).collect();
    let rows = client.query(recreated::DOMAINS, &[&tables, &trust, &all]).await?;
    Ok((rows.iter().map(found).collect(), overloads))
}

fn found(row: &Row) -> Code {
    Code { by: row.get(0), function: row.get(1), owner: row.get(2) }
}

/// Fails if there is such code, or such a call.
///
/// # Errors
/// What was found; or the server returned an error.
pub async fn check_recreated(client: &Client, tables: &[u32], trust: &[String]) -> Result<()> {
    let (code, overloads) = recreated(client, tables, trust, true).await?;
    if !code.is_empty() {
        let message = format!(
            "creating definitions again would run code of other roles with the privileges of the job's role: {}",
            untrusted_code::described(&code)
        );
        return Err(Error::failed(message).hint("drop what refers to the type, or list its owner in `trust`"));
    }
    let Some(Overload { by, function, schema, creators }) = overloads.first() else { return Ok(()) };
    Err(Error::failed(format!(
        "{by} calls {function}, which is polymorphic or VARIADIC, and {} can create a better match",
        creators.join(", ")
    ))
    .hint(format!("revoke CREATE on schema {} from these roles", plain(schema))))
}

/// Fails if `tables` have such code, and prevents others from altering them until the transaction ends. Code on tables whose
/// owners are trusted is not looked at.
///
/// # Errors
/// The code that was found; or the server returned an error.
pub async fn check(
    client: &Client,
    tables: &[QualifiedName],
    trust: &[String],
    access: Access,
) -> Result<()> {
    let Some(owner) = untrusted_owner(client, tables, trust, access).await? else { return Ok(()) };
    client.batch_execute(&sql::hold(tables, access)).await?;
    let mut oids = Vec::new();
    for table in tables {
        oids.push(catalog::must_find(client, table).await?);
    }
    let code = code(client, &oids, trust, access).await?;
    if code.is_empty() {
        return Ok(());
    }
    let message = format!(
        "this would run code of other roles with the privileges of the job's role: {}",
        untrusted_code::described(&code)
    );
    Err(Error::failed(message).hint(untrusted_code::hint(&code, &plain(&owner))))
}
