//! Looks for rows that violate a foreign key that is marked as valid.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Error, Result, Retry};
use crate::model::ident::{QualifiedName, plain};
use crate::model::orphans::Orphans;
use crate::model::table::ForeignKey;
use crate::model::untrusted_code::Access;
use crate::sql::orphans as sql;

use super::transaction::{READ_COMMITTED, transaction};
use super::{catalog, untrusted_code};

/// The result of the search.
#[derive(Debug, Default)]
pub struct KeysChecked {
    /// Keys with rows that violate them.
    pub found: Vec<Orphans>,
    /// Keys that could not be tested, with the reasons.
    pub untested: Vec<(String, String)>,
}

/// Tests foreign keys on the rows of their tables, all of them together within `budget`. `trust` lists the roles that the plan
/// trusts: a key of which a table has code of other roles is not tested.
///
/// # Errors
/// The connection was lost. Other errors of the server are in the result.
pub async fn find_violations<'a>(
    client: &Client,
    keys: impl IntoIterator<Item = &'a ForeignKey>,
    budget: Duration,
    trust: &[String],
) -> Result<KeysChecked> {
    let (begun, mut looked) = (Instant::now(), KeysChecked::default());
    for key in keys {
        let Some(oid) = catalog::find(client, &key.table).await? else { continue };
        let left = budget.saturating_sub(begun.elapsed());
        match one(client, key, (&key.table, oid), left, trust).await {
            Ok(found) => looked.found.extend(found),
            // The server could not answer, or must not be asked, and the session is still usable.
            Err(e)
                if e.retry_class() == Retry::Never
                    || e.sqlstate().is_some() && e.retry_class() != Retry::Unknown =>
            {
                looked.untested.push((plain(key.name.as_str()), e.message().to_owned()));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(looked)
}

/// Tests a key on a table that has it: the key's own table, or a partition of it.
///
/// # Errors
/// The server returned an error.
pub async fn one(
    client: &Client,
    key: &ForeignKey,
    (table, oid): (&QualifiedName, u32),
    limit: Duration,
    trust: &[String],
) -> Result<Option<Orphans>> {
    let Some(row) = client.query_opt(sql::QUERY, &[&oid, &key.name.as_str()]).await? else {
        return Ok(None);
    };
    let statement: String = row.get(0);
    let rows = transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&sql::limit(limit.as_millis())).await?;
        untrusted_code::check(client, &[table.clone(), key.references.clone()], trust, Access::Reads).await?;
        client.query(&statement, &[]).await.map_err(Error::from)
    })
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let example =
        |row: &tokio_postgres::Row| format!("{} ({})", row.get::<_, &str>(1), row.get::<_, &str>(2));
    Ok(Some(Orphans {
        key: key.name.as_str().to_owned(),
        table: table.clone(),
        rows: first.get(0),
        examples: rows.iter().map(example).collect(),
    }))
}
