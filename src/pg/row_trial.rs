//! Tries a table's own expressions on some of its rows, under the settings of the job: CHECK constraints, index
//! expressions, generated columns, and the functions that they call.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::blueprint::Blueprint;
use crate::model::ident::{Ident, plain};
use crate::model::plan_sql::PlanSql;
use crate::model::table::{Check, Column, Table};
use crate::model::untrusted_code::Access;
use crate::plan::check::{How, Refused, TableTrial, Violated};
use crate::sql::{partition_trial as partition_sql, plan_sql, row_trial as sql};

use super::refused::{is_passing, passing};
use super::transaction::{READ_COMMITTED, transaction};
use super::untrusted_code;

/// The result of some statements.
pub(super) enum Attempt {
    /// All of them succeeded.
    Done,
    /// One failed; none took effect.
    Refused(Refused),
}

/// Runs statements that may fail; a failure is part of the result. With `back`, they are rolled back in any case.
pub(super) async fn attempt(client: &Client, statements: &[String], back: bool) -> Result<Attempt> {
    client.batch_execute("savepoint attempt").await?;
    for statement in statements {
        if let Err(error) = client.batch_execute(statement).await {
            let refused = refused(error)?;
            client.batch_execute("rollback to attempt; release attempt").await?;
            return Ok(Attempt::Refused(refused));
        }
    }
    client
        .batch_execute(if back { "rollback to attempt; release attempt" } else { "release attempt" })
        .await?;
    Ok(Attempt::Done)
}

/// Runs a query that may fail; a failure is part of the result.
pub(super) async fn queried(client: &Client, statement: &str) -> Result<std::result::Result<Row, Refused>> {
    client.batch_execute("savepoint attempt").await?;
    match client.query_one(statement, &[]).await {
        Ok(row) => {
            client.batch_execute("release attempt").await?;
            Ok(Ok(row))
        }
        Err(error) => {
            let refused = refused(error)?;
            client.batch_execute("rollback to attempt; release attempt").await?;
            Ok(Err(refused))
        }
    }
}

/// The server's error, and the function of the application that raised it; other errors are returned as errors.
fn refused(error: tokio_postgres::Error) -> Result<Refused> {
    let context = error.as_db_error().and_then(|db| {
        let line = |line: &&str| line.starts_with("PL/") || line.starts_with("SQL function");
        db.where_().and_then(|text| text.lines().find(line)).map(str::to_owned)
    });
    // The error about a definition; an error of another class contains values of rows.
    let definition = |db: &&tokio_postgres::error::DbError| db.code().code().starts_with("42");
    let detail = error.as_db_error().filter(definition).and_then(|db| db.detail()).map(str::to_owned);
    let error = Error::from(error);
    match error.sqlstate() {
        Some(code) => {
            let detail =
                detail.map_or(String::new(), |detail| format!(" ({})", detail.trim_end_matches('.')));
            Ok(Refused { message: format!("{}{detail}", error.message()), code: code.to_owned(), context })
        }
        None => Err(error),
    }
}

/// Records an error.
pub(super) fn failed(trial: &mut TableTrial, how: How, what: String, refused: Refused) {
    if is_passing(&refused.code) {
        trial.untried.push((what, refused.message));
    } else {
        trial.refused.push((how, what, refused));
    }
}

/// The length of the heap.
pub(super) async fn blocks(client: &Client, oid: u32) -> Result<i64> {
    Ok(client.query_one(sql::HEAP_BLOCKS, &[&oid]).await?.get(0))
}

/// CHECK constraints of the table that call functions or operators other than the server's own.
pub(super) async fn made_by_users(client: &Client, oid: u32) -> Result<Vec<Ident>> {
    let rows = client.query(sql::MADE_BY_USERS, &[&oid]).await?;
    Ok(rows.iter().map(|row| Ident::new(row.get::<_, String>(0))).collect())
}

/// Tests a CHECK on every row of a partition job's table, in a separate transaction.
pub(super) async fn violations(
    client: &Client,
    b: &Blueprint,
    check: &Check,
    depends_on_more: bool,
    trust: &[String],
    trial: &mut TableTrial,
) -> Result<()> {
    let counted = transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&sql::limit()).await?;
        untrusted_code::check(client, std::slice::from_ref(&b.table.name), trust, Access::Copies).await?;
        queried(client, &sql::violations(&partition_sql::source(b), &b.key, check, None)).await
    });
    let what = format!("constraint {}", plain(check.name.as_str()));
    let Some(counted) = passing(counted.await, &what, trial)? else { return Ok(()) };
    match counted {
        Ok(row) => trial.violated.push(Violated {
            check: check.clone(),
            rows: row.get(0),
            key: row.get(1),
            depends_on_more,
            whole: true,
        }),
        Err(refused) => failed(trial, How::Computed, what, refused),
    }
    Ok(())
}

/// Evaluates what an update of the table's rows evaluates: CHECK constraints, generated columns and index
/// expressions, on a temporary table. `sql` has the settings of the job's batches, and the search path for the
/// application's functions.
///
/// # Errors
/// The connection was lost. What the server rejects is in the trial.
pub async fn of_updates(
    client: &Client,
    table: &Table,
    from: &str,
    key: &[Ident],
    sql: &PlanSql,
) -> Result<TableTrial> {
    let mut trial = TableTrial::default();
    client.batch_execute(READ_COMMITTED).await?;
    let tried = async {
        untrusted_code::check(
            client,
            std::slice::from_ref(&table.name),
            &sql.trust,
            Access::Updates { cascades: false },
        )
        .await?;
        updates(client, table, from, key, sql, &mut trial).await
    }
    .await;
    client.batch_execute("rollback").await?;
    tried?;
    Ok(trial)
}

async fn updates(
    client: &Client,
    table: &Table,
    from: &str,
    key: &[Ident],
    plan: &PlanSql,
    trial: &mut TableTrial,
) -> Result<()> {
    client.batch_execute(&plan_sql::settings(plan)).await?;
    client.batch_execute(sql::SAMPLE_LIMIT).await?;
    let sampled = sql::sampled(blocks(client, table.oid).await?);
    let sampled = format!("{}({sampled})", plan_sql::applications_path(plan));
    let mut with_checks = Vec::new();
    for check in &table.checks {
        let what = format!("constraint {}", plain(check.name.as_str()));
        match queried(client, &sql::violations(from, key, check, Some(&sampled))).await? {
            Ok(row) if row.get::<_, i64>(0) > 0 => trial.violated.push(Violated {
                check: check.clone(),
                rows: row.get(0),
                key: row.get(1),
                depends_on_more: false,
                whole: false,
            }),
            Ok(_) => with_checks.push(check),
            Err(refused) => failed(trial, How::Computed, what, refused),
        }
    }
    let all_hold = with_checks.len() == table.checks.len();
    // A CHECK on the whole row cannot be copied; if no table can be created, only the CHECK constraints are evaluated
    // on the rows.
    for checks in if all_hold { &[true, false][..] } else { &[false] } {
        if let Attempt::Done = attempt(client, &[sql::empty(&table.name, *checks)], false).await? {
            let columns = table.columns.iter().filter(|c| c.generated.is_empty()).map(|c| &c.name);
            let fill = sql::fill(sql::ROWS, from, columns, &sampled);
            // Existing rows may violate a NOT NULL constraint that is not valid; in the copy, it is valid.
            if let Attempt::Refused(refused) = attempt(client, &[fill], false).await?
                && refused.code != SqlState::NOT_NULL_VIOLATION.code()
                && !by_index(client, table, from, &sampled, trial).await?
            {
                failed(trial, How::Computed, "a row".to_owned(), refused);
            }
            break;
        }
    }
    Ok(())
}

/// Analyzes a temporary table with the extended statistics of the table, as the job will analyze the table.
///
/// # Errors
/// The connection was lost. What the server rejects is in the trial.
pub async fn analyzed(
    client: &Client,
    table: &Table,
    from: &str,
    trust: &[String],
    trial: &mut TableTrial,
) -> Result<()> {
    let statistics = &table.dependents.statistics;
    if statistics.is_empty() {
        return Ok(());
    }
    client.batch_execute(READ_COMMITTED).await?;
    let tried = async {
        untrusted_code::check(client, std::slice::from_ref(&table.name), trust, Access::Copies).await?;
        client.batch_execute(sql::SAMPLE_LIMIT).await?;
        let sampled = sql::sampled(blocks(client, table.oid).await?);
        let columns = table.columns.iter().filter(|c| c.generated.is_empty()).map(|c| &c.name);
        let filled = [sql::with_statistics(&table.name), sql::fill(sql::ROWS, from, columns, &sampled)];
        // What rows are rejected for has been reported.
        if let Attempt::Refused(_) = attempt(client, &filled, false).await? {
            return Ok(());
        }
        if let Attempt::Refused(refused) = attempt(client, &[sql::ANALYZE.to_owned()], false).await? {
            // List all of them, because the server does not report which one failed.
            let names: Vec<String> =
                statistics.iter().map(|s| format!("statistics {}", plain(s.name.name.as_str()))).collect();
            failed(trial, How::Computed, names.join(", "), refused);
        }
        Ok(())
    }
    .await;
    client.batch_execute("rollback").await?;
    tried
}

/// Finds out whether rows are rejected because of an index, and names it. The table without indexes then accepts the
/// rows.
async fn by_index(
    client: &Client,
    table: &Table,
    from: &str,
    sampled: &str,
    trial: &mut TableTrial,
) -> Result<bool> {
    let columns = table.columns.iter().filter(|c| c.generated.is_empty()).map(|c| &c.name);
    let filled = [sql::without_indexes(&table.name), sql::fill(sql::ROWS, from, columns, sampled)].concat();
    if !matches!(attempt(client, &[filled], false).await?, Attempt::Done) {
        return Ok(false);
    }
    let before = trial.refused.len();
    // An index on columns only calls no function of the application.
    for index in table.indexes.iter().filter(|index| index.columns.is_none() || index.partial) {
        let create = format!("create index on {} using {}", sql::ROWS, index.tail);
        if let Attempt::Refused(refused) = attempt(client, &[create], true).await? {
            let what = format!("index {}", plain(index.name.as_str()));
            failed(trial, How::Computed, what, refused);
        }
    }
    Ok(trial.refused.len() > before)
}

/// Rows whose key cannot be read as text; none if the database's encoding excludes such text.
///
/// # Errors
/// The server returned an error.
pub async fn unreadable_keys(client: &Client, from: &str, key: &[&Column]) -> Result<Option<i64>> {
    let any_bytes: bool = client.query_one(sql::ANY_BYTES, &[]).await?.get(0);
    let texts = |column: &&&Column| {
        ["text", "character varying", "character", "name"].contains(&column.base_type.as_str())
    };
    let key: Vec<&Column> = key.iter().filter(texts).copied().collect();
    if !any_bytes || key.is_empty() {
        return Ok(None);
    }
    Ok(Some(client.query_one(&sql::not_utf8(from, &key), &[]).await?.get(0)))
}
