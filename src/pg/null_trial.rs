//! NULLs in the partition column and the key: counts them, and tries the plan's `null_as` before a partition job starts, as a
//! backfill of the rows with NULL.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::model::blueprint::NullFilling;
use crate::model::filling::Filling;
use crate::model::finding::Finding;
use crate::model::table::Table;
use crate::model::untrusted_code::Access;
use crate::plan::check::{self, Facts, NullCount, Writes, Writing};
use crate::plan::{Backfill, Plan};
use crate::sql::{fill, not_null};

use super::refused::{PLANS_SQL, has_errors, passed};
use super::transaction::{READ_COMMITTED, transaction};
use super::{refused, row_trial, untrusted_code};

/// The time limit for counting the NULLs in a column.
const COUNT_NULLS: Duration = Duration::from_secs(5);

/// Counts the NULLs in columns of the unique index that would be the key if they were NOT NULL; estimates them if the role
/// may not `read` the rows, or if counting takes too long.
///
/// # Errors
/// The server returned an error.
pub(super) async fn key_nulls(client: &Client, table: &Table, read: bool) -> Result<Vec<NullCount>> {
    let mut all = Vec::new();
    for column in check::nullable_columns(table) {
        let counted = transaction(client, READ_COMMITTED, async |client| {
            client
                .batch_execute(&format!("set local statement_timeout = '{}'", COUNT_NULLS.as_millis()))
                .await?;
            Ok(client.query_one(&not_null::in_column(&table.name, column), &[]).await?.get(0))
        });
        let counted = match read {
            true => counted.await,
            false => Err(Error::failed("not read").code(SqlState::QUERY_CANCELED.code())),
        };
        let (rows, estimated) = match counted {
            Ok(rows) => (rows, false),
            Err(e) if e.is(&SqlState::QUERY_CANCELED) => {
                let row = client.query_one(not_null::ESTIMATED, &[&table.oid, &column.as_str()]).await?;
                (row.get::<_, Option<i64>>(0).unwrap_or(0), true)
            }
            Err(e) => return Err(e),
        };
        all.push(NullCount { column: column.clone(), rows, estimated });
    }
    Ok(all)
}

/// Tries the plan's `null_as`; returns none if it could not be tried, or if a finding is an error.
///
/// # Errors
/// The server returned an error. Problems with the table or the plan are findings, not errors.
pub(super) async fn trial(
    client: &Client,
    plan: &Plan,
    backfill: &Backfill,
    (facts, writing): (&Facts, &Writing),
    findings: &mut Vec<Finding>,
) -> Result<Option<NullFilling>> {
    let (mut more, filling) = check::backfill(plan, backfill, facts, writing);
    // The partition job keeps NULL out of the key.
    more.retain(|one| one.code != "nullable_key");
    check::add_new(findings, more);
    let Some(mut filling) = filling else { return Ok(None) };
    let trial = super::trial::trial(client, &mut filling, writing, plan.trust()).await;
    let Some(trial) = passed(trial, PLANS_SQL, &filling.table, findings)? else { return Ok(None) };
    let mut more = check::tried(&mut filling, &trial, &facts.server.user);
    more.extend(check::space(plan, &filling, writing, trial.to_fill));
    check::add_new(findings, check::of_null_as(more));
    if has_errors(findings) {
        return Ok(None);
    }
    findings.extend(null_values(client, &filling).await?);
    let from = format!("only {}", filling.table.name);
    let trial = row_trial::of_updates(client, &filling.table, &from, &filling.key, &filling.sql).await;
    if let Some(trial) = passed(trial, "a row", &filling.table, findings)? {
        check::add_new(findings, check::table_tried(&filling.table, &trial, Writes::Updates));
    }
    let value = filling.set.into_iter().next().map(|(_, value)| value);
    Ok(value.zip(filling.filter).map(|(value, filter)| NullFilling { value, filter, sql: filling.sql }))
}

/// The finding that the plan's `null_as` fails or is NULL for some of the rows with NULL.
async fn null_values(client: &Client, f: &Filling) -> Result<Option<Finding>> {
    let table = std::slice::from_ref(&f.table.name);
    let asked = transaction(client, READ_COMMITTED, async |client| {
        let limit = format!("{}; set local statement_timeout = '5s'", fill::names(f));
        client.batch_execute(&limit).await?;
        untrusted_code::check(client, table, &f.sql.trust, Access::Reads).await?;
        Ok(client.query_one(&not_null::yields_null(f), &[]).await?)
    });
    match asked.await {
        Ok(row) => Ok(check::null_as_null(f, row.get(0), row.get(1))),
        Err(e) if e.is(&SqlState::QUERY_CANCELED) => Ok(None),
        Err(e) => refused::refusal(e).map(|refusal| Some(check::null_as_refused(f, &refusal))),
    }
}
