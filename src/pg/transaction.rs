//! Short transactions: either committed or rolled back before the session is used for anything else.

use std::error;
use std::pin::pin;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use futures_util::future::join_all;

use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Row, Statement};

use crate::error::{Error, Result};

/// Each statement sees its own snapshot.
pub const READ_COMMITTED: &str = "begin isolation level read committed";
/// One snapshot, taken by the first statement that needs one; `LOCK TABLE` does not.
pub const REPEATABLE_READ: &str = "begin isolation level repeatable read";

/// Runs `work` in a transaction that `begin` starts.
///
/// # Errors
/// The error of `work` or of the commit. After an error of `work`, the transaction is rolled back; after a lost
/// connection, it is unknown whether the commit took effect.
pub async fn transaction<T>(
    client: &Client,
    begin: &str,
    work: impl AsyncFnOnce(&Client) -> Result<T>,
) -> Result<T> {
    client.batch_execute(begin).await?;
    match work(client).await {
        Ok(value) => {
            client.batch_execute("commit").await?;
            Ok(value)
        }
        Err(error) => {
            // A session in which even the rollback fails is broken, and the pool will detect that.
            let _ = client.batch_execute("rollback").await;
            Err(error)
        }
    }
}

/// Runs statements in order, as one transaction if the caller has begun one. They are sent without waiting for each
/// other's answers: under a lock, every round trip is time that applications wait.
///
/// # Errors
/// The first statement that fails, named in the error; in a transaction, the statements after it have no effect.
pub async fn all(client: &Client, statements: &[String]) -> Result<()> {
    let sent = statements.iter().map(|statement| client.batch_execute(statement));
    for (statement, result) in statements.iter().zip(join_all(sent).await) {
        result.map_err(|e| {
            let first = statement.lines().next().unwrap_or_default();
            Error::from(e).context(format!("failed to run `{first}`"))
        })?;
    }
    Ok(())
}

/// A value as text, whatever the type of the parameter: the server parses it once, like a literal. A cast from text
/// to timestamptz, for example, would be evaluated for every row, and would hide the value from the planner.
#[derive(Debug)]
struct TextValue<'a>(&'a str);

impl ToSql for TextValue<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// The server infers the type of a parameter from its context.
fn untyped<'a>(values: &'a [TextValue<'a>]) -> impl Iterator<Item = (&'a TextValue<'a>, Type)> {
    values.iter().map(|value| (value, Type::UNKNOWN))
}

fn as_text(values: &[String]) -> Vec<TextValue<'_>> {
    values.iter().map(|value| TextValue(value)).collect()
}

/// Runs a query with text parameters in one round trip, without preparing it.
///
/// # Errors
/// The server returned an error.
pub async fn query_text(client: &Client, sql: &str, values: &[String]) -> Result<Vec<Row>> {
    Ok(client.query_typed_raw(sql, untyped(&as_text(values))).await?.try_collect().await?)
}

/// Runs a statement with text parameters in one round trip; returns the number of changed rows.
///
/// # Errors
/// The server returned an error.
pub async fn execute_text(client: &Client, sql: &str, values: &[String]) -> Result<u64> {
    let mut rows = pin!(client.query_typed_raw(sql, untyped(&as_text(values))).await?);
    while rows.try_next().await?.is_some() {}
    Ok(rows.rows_affected().unwrap_or(0))
}

/// The same with a prepared statement.
///
/// # Errors
/// The server returned an error.
pub async fn execute_prepared(client: &Client, statement: &Statement, values: &[String]) -> Result<u64> {
    Ok(client.execute_raw(statement, as_text(values)).await?)
}
