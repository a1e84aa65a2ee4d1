//! Writes and reads the record of the objects that a job created.

use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::objects::{Object, Objects, Place, Role};
use crate::sql::objects as sql;

/// Records the relation with that name, in the transaction that created it.
///
/// # Errors
/// The server returned an error.
pub async fn record(client: &Client, job: i64, role: Role, name: &QualifiedName) -> Result<()> {
    let (schema, relation) = (name.schema.as_str(), name.name.as_str());
    client.execute(sql::RECORD_RELATION, &[&job, &role.as_str(), &name.plain(), &schema, &relation]).await?;
    if role == Role::Index {
        client.execute(sql::INDEX_IS_MADE, &[&job]).await?;
    }
    Ok(())
}

/// Records a function, in the transaction that created it.
///
/// # Errors
/// The server returned an error.
pub async fn record_function(client: &Client, job: i64, role: Role, name: &QualifiedName) -> Result<()> {
    let (schema, function) = (name.schema.as_str(), name.name.as_str());
    client.execute(sql::RECORD_FUNCTION, &[&job, &role.as_str(), &name.plain(), &schema, &function]).await?;
    Ok(())
}

/// Records that the job is about to create an index with that name outside a transaction.
///
/// # Errors
/// The server returned an error.
pub async fn intend_index(client: &Client, job: i64, name: &QualifiedName) -> Result<()> {
    client.execute(sql::INTEND_INDEX, &[&job, &name.plain()]).await?;
    Ok(())
}

/// Deletes the job's records of a role, because it creates a new object for it.
///
/// # Errors
/// The server returned an error.
pub async fn forget(client: &Client, job: i64, role: Role) -> Result<()> {
    client.execute(sql::FORGET, &[&job, &role.as_str()]).await?;
    Ok(())
}

/// Records a column of the relation with that oid.
///
/// # Errors
/// The server returned an error.
pub async fn record_column(client: &Client, job: i64, role: Role, table: u32, column: &Ident) -> Result<()> {
    let (name, made) = (column.as_str(), plain(column.as_str()));
    client.execute(sql::RECORD_COLUMN, &[&job, &role.as_str(), &made, &table, &name]).await?;
    Ok(())
}

/// Records a constraint of the relation with that oid.
///
/// # Errors
/// The server returned an error.
pub async fn record_constraint(client: &Client, job: i64, table: u32, name: &Ident) -> Result<()> {
    let (name, made) = (name.as_str(), plain(name.as_str()));
    let role = Role::Constraint.as_str();
    client.execute(sql::RECORD_CONSTRAINT, &[&job, &role, &made, &table, &name]).await?;
    Ok(())
}

/// The objects that the job recorded, and their current names.
///
/// # Errors
/// The server returned an error.
pub async fn recorded(client: &Client, job: i64) -> Result<Objects> {
    client.query(sql::RECORDED, &[&job]).await?.iter().map(object).collect::<Result<_>>().map(Objects)
}

fn object(row: &Row) -> Result<Object> {
    let role: &str = row.get(0);
    let schema: Option<String> = row.get(4);
    let place = schema.map(|schema| Place {
        relation: QualifiedName::new(schema, row.get::<_, String>(5)),
        part: row.get::<_, Option<String>>(6).map(Ident::new),
    });
    Ok(Object {
        role: Role::parse(role).ok_or_else(|| {
            Error::failed(format!(
                "a job recorded an object with the unknown role \
                {role}"
            ))
        })?,
        made: row.get(1),
        oid: row.get(2),
        column: row.get(3),
        now: place,
    })
}

/// The current name of the relation with that oid; none if it was dropped.
///
/// # Errors
/// The server returned an error.
pub async fn name(client: &Client, oid: u32) -> Result<Option<QualifiedName>> {
    let row = client.query_opt(sql::NAME, &[&oid]).await?;
    Ok(row.map(|row| QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1))))
}

/// Triggers that call our functions with those names, on any table; those on the relation `first` first.
///
/// # Errors
/// The server returned an error.
pub async fn triggers(
    client: &Client,
    functions: &[QualifiedName],
    first: u32,
) -> Result<Vec<(QualifiedName, Ident)>> {
    let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
    let rows = client.query(sql::TRIGGERS, &[&names, &first]).await?;
    let trigger = |row: &Row| {
        let table = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        (table, Ident::new(row.get::<_, String>(2)))
    };
    Ok(rows.iter().map(trigger).collect())
}

/// Which of these names do not belong to an object of the table with the given oid.
///
/// # Errors
/// The server returned an error.
pub async fn not_of(client: &Client, wanted: &[(QualifiedName, u32)]) -> Result<Vec<String>> {
    let schemas: Vec<&str> = wanted.iter().map(|(name, _)| name.schema.as_str()).collect();
    let names: Vec<&str> = wanted.iter().map(|(name, _)| name.name.as_str()).collect();
    let oids: Vec<u32> = wanted.iter().map(|(_, oid)| *oid).collect();
    let rows = client.query(sql::NOT_OF, &[&schemas, &names, &oids]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The first of these names that does not belong to the relation with the given oid.
///
/// # Errors
/// The server returned an error.
pub async fn misplaced(client: &Client, wanted: &[(QualifiedName, u32)]) -> Result<Option<usize>> {
    let schemas: Vec<&str> = wanted.iter().map(|(name, _)| name.schema.as_str()).collect();
    let names: Vec<&str> = wanted.iter().map(|(name, _)| name.name.as_str()).collect();
    let oids: Vec<u32> = wanted.iter().map(|(_, oid)| *oid).collect();
    let rows = client.query(sql::MISPLACED, &[&schemas, &names, &oids]).await?;
    Ok(rows.first().and_then(|row| usize::try_from(row.get::<_, i32>(0)).ok()?.checked_sub(1)))
}
