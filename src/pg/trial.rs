//! Tries a backfill's SQL: the server plans it and says what it thinks of it. No row is read or written, no lock is taken
//! that anybody could notice.

use serde_json::Value;
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::model::filling::Filling;
use crate::plan::check::Trial;
use crate::sql::fill as sql;

use super::finish_trial;
use super::transaction::{READ_COMMITTED, transaction};

/// What the server says of the plan's SQL.
///
/// # Errors
/// The server is gone. What it refuses is in the trial.
pub async fn trial(client: &Client, f: &Filling) -> Result<Trial> {
    let mut trial = Trial::default();
    for column in f.missing() {
        if let Some(probe) = sql::probe_default(f, column) {
            match planned(client, f, &probe).await {
                Ok(volatile) if volatile => trial.defaults_volatile.push(column.name.clone()),
                Ok(_) => {}
                Err(e) => trial.defaults_refused.push((column.name.clone(), refusal(e)?.0)),
            }
        }
    }
    if trial.defaults_refused.is_empty() {
        match planned(client, f, &sql::probe(f)).await {
            Ok(volatile) => trial.volatile = volatile,
            Err(e) => trial.refused = Some(refusal(e)?),
        }
    }
    if trial.defaults_refused.is_empty() && !f.finish.is_empty() {
        trial.finish = Some(finish_trial::trial(client, f).await?);
    }
    Ok(trial)
}

/// Plans a query of a common table expression that the server takes into the query unless it calls volatile functions.
async fn planned(client: &Client, f: &Filling, probe: &str) -> Result<bool> {
    transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&sql::names(f)).await?;
        let plan: Value = client.query_one(probe, &[]).await?.get(0);
        Ok(scans_probe(&plan))
    })
    .await
}

fn scans_probe(plan: &Value) -> bool {
    match plan {
        Value::Object(node) => {
            node.get("CTE Name").and_then(Value::as_str) == Some(sql::PROBE) || node.values().any(scans_probe)
        }
        Value::Array(all) => all.iter().any(scans_probe),
        _ => false,
    }
}

/// What the server said of the SQL; other errors are ours.
pub(super) fn refusal(error: Error) -> Result<(String, Option<String>)> {
    if error.sqlstate().is_none() {
        return Err(error);
    }
    Ok((error.message().to_owned(), error.hint_text().map(str::to_owned)))
}
