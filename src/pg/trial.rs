//! Tries a backfill's SQL: the server plans it and reports errors. No row is written, few rows are read (some keys,
//! at the ends of chunks), and no lock is acquired that could block another session.

use serde_json::Value;
use tokio_postgres::Client;

use crate::error::Result;
use crate::model::filling::Filling;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::key::{Key, KeyRange};
use crate::plan::check::{EveryChunk, Refusal, Trial, Writing};
use crate::sql::{copy as copy_sql, fill as fill_sql, trial as sql};

use super::refused::{refusal, scans_probe};
use super::transaction::{READ_COMMITTED, query_text, transaction};
use super::{finish_trial, resolve};

/// The sizes of the two chunks that are compared: the cost that both have in common is the cost of every chunk.
const CHUNK_ROWS: [u64; 2] = [1_000, 20_000];
/// The share of a chunk's cost, and the cost (about a tenth of a second), from which on this is reported.
const SAME_SHARE: f64 = 0.5;
const SAME_COST: f64 = 5_000.0;

/// The responses of the server to the plan's SQL, whose names it resolves. `trust` lists the roles that the plan
/// trusts.
///
/// # Errors
/// The connection was lost. What the server rejects is in the trial.
pub async fn trial(
    client: &Client,
    filling: &mut Filling,
    writing: &Writing,
    trust: &[String],
) -> Result<Trial> {
    let mut plan = filling.sql.clone();
    resolve::settings(client, &mut plan, &filling.key_columns()).await?;
    filling.sql = plan;
    if filling.only_finishes() {
        return finishes(client, filling, trust).await;
    }
    let mut resolved = filling.clone();
    // Before anything is planned: the planner calls IMMUTABLE functions whose arguments are constants.
    let named = resolve::backfill(client, &mut resolved, trust).await?;
    if let Some(named) = named.as_ref().ok().filter(|named| named.is_refused(&resolved.sql)) {
        filling.sql = resolved.sql;
        return Ok(Trial { named: named.clone(), ..Trial::default() });
    }
    let mut trial = analysed(client, filling).await?;
    if trial.refused.is_some() || trial.not_assignable.is_some() || !trial.defaults_refused.is_empty() {
        return Ok(trial);
    }
    if !filling.finish.is_empty() {
        let finish = finish_trial::trial(client, filling, trust).await?;
        trial.named.add(finish.named.clone());
        trial.finish = Some(finish);
    }
    match named {
        Ok(named) => trial.named.add(named),
        Err(refusal) => {
            trial.refused = Some(refusal);
            return Ok(trial);
        }
    }
    *filling = resolved;
    if !trial.named.is_refused(&filling.sql) {
        planned(client, filling, writing, &mut trial).await?;
        resolve::search_path(client, &mut filling.sql, trust).await?;
    }
    Ok(trial)
}

/// The same for a plan that only adds constraints and indexes.
async fn finishes(client: &Client, filling: &mut Filling, trust: &[String]) -> Result<Trial> {
    let finish = finish_trial::trial(client, filling, trust).await?;
    let trial = Trial { named: finish.named.clone(), finish: Some(finish), ..Trial::default() };
    if !trial.named.is_refused(&filling.sql) {
        resolve::search_path(client, &mut filling.sql, trust).await?;
    }
    Ok(trial)
}

/// The responses of the server to the SQL as it is in the plan, when the server parses it and looks up its names;
/// nothing is planned.
async fn analysed(client: &Client, f: &Filling) -> Result<Trial> {
    let mut trial = Trial::default();
    for column in f.missing() {
        if let Some(probe) = sql::probe_default(f, column)
            && let Err(refusal) = parsed(client, f, &probe).await?
        {
            trial.defaults_refused.push((column.name.clone(), refusal.message));
        }
    }
    if !trial.defaults_refused.is_empty() {
        return Ok(trial);
    }
    trial.refused = parsed(client, f, &sql::probe(f)).await?.err();
    if trial.refused.is_some() {
        return Ok(trial);
    }
    if let Some(assigned) = sql::assigned(f) {
        trial.not_assignable = parsed(client, f, &assigned).await?.err();
    }
    types(client, f, &mut trial).await?;
    Ok(trial)
}

/// The responses of the server when it plans the resolved SQL.
async fn planned(client: &Client, f: &Filling, writing: &Writing, trial: &mut Trial) -> Result<()> {
    for column in f.missing() {
        if let Some(probe) = sql::probe_default(f, column) {
            match explained(client, f, &probe).await? {
                Ok(plan) if scans_probe(&plan) => trial.defaults_volatile.push(column.name.clone()),
                Ok(_) => {}
                Err(refusal) => trial.defaults_refused.push((column.name.clone(), refusal.message)),
            }
        }
    }
    if !trial.defaults_refused.is_empty() {
        return Ok(());
    }
    // SQL functions are inlined when the statement is planned, under its search path.
    match explained(client, f, &sql::probe(f)).await? {
        Ok(plan) => trial.volatile = scans_probe(&plan),
        Err(refusal) => {
            trial.refused = Some(refusal);
            return Ok(());
        }
    }
    trial.filter_volatile =
        explained(client, f, &sql::probe_filter(f)).await?.is_ok_and(|plan| scans_probe(&plan));
    if let Some(assigned) = sql::assigned(f) {
        trial.not_assignable = explained(client, f, &assigned).await?.err();
    }
    trial.to_fill = explained(client, f, &sql::to_fill(f))
        .await?
        .ok()
        .and_then(|plan| plan[0]["Plan"]["Plan Rows"].as_f64());
    trial.every_chunk = every_chunk(client, f, writing).await?;
    Ok(())
}

/// The types of the columns to add.
async fn types(client: &Client, f: &Filling, trial: &mut Trial) -> Result<()> {
    transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&fill_sql::names(f)).await?;
        let set = client.prepare(&sql::typed(f)).await?;
        for column in f.missing() {
            let (name, _) = sql::type_and_collation(column);
            let at = f.set.iter().position(|(name, _)| *name == column.name);
            // A column that is not set counts as NULL.
            let is = at.and_then(|at| set.columns().get(at)).map_or(0, |value| value.type_().oid());
            let row = client.query_one(sql::TAKEN, &[&is, &name]).await?;
            if !row.get::<_, bool>(0) {
                trial.of_another_type.push((column.name.clone(), row.get(2)));
            }
            if row.get(1) {
                trial.constrained.push(column.name.clone());
            }
        }
        Ok(())
    })
    .await
}

/// What a chunk reads, however few rows it has.
async fn every_chunk(client: &Client, f: &Filling, writing: &Writing) -> Result<Option<EveryChunk>> {
    let largest = writing.leaves.iter().max_by(|a, b| a.rows.total_cmp(&b.rows));
    let (Some(leaf), Some(_)) = (largest.filter(|leaf| leaf.rows >= CHUNK_ROWS[1] as f64), &f.from) else {
        return Ok(None);
    };
    let mut plans = Vec::new();
    for rows in CHUNK_ROWS {
        let Some(range) = first_rows(client, f, &leaf.name, rows).await? else { return Ok(None) };
        let (statement, ends) = sql::chunk(f, &leaf.name, &range);
        let plan: Result<Value> = transaction(client, READ_COMMITTED, async |client| {
            client.batch_execute(&fill_sql::names(f)).await?;
            let rows = query_text(client, &statement, &ends).await?;
            Ok(rows.first().map_or(Value::Null, |row| row.get(0)))
        })
        .await;
        plans.push(plan?[0]["Plan"].take());
    }
    let cost = |plan: &Value| plan["Total Cost"].as_f64().unwrap_or(0.0);
    let [few, many] = [&plans[0], &plans[1]];
    let times = (CHUNK_ROWS[1] / CHUNK_ROWS[0]) as f64;
    let same = (times * cost(few) - cost(many)) / (times - 1.0);
    let share = (same / cost(few).max(1.0)).min(1.0);
    let biggest = biggest_scan(few, &leaf.name.name);
    Ok(biggest
        .filter(|(_, rows)| share >= SAME_SHARE && same >= SAME_COST && *rows > CHUNK_ROWS[0] as f64)
        .map(|(reads, rows)| EveryChunk { reads, rows, share, chunk_rows: CHUNK_ROWS[0] }))
}

/// The key range of the first rows; none if there are not that many.
async fn first_rows(
    client: &Client,
    f: &Filling,
    leaf: &QualifiedName,
    rows: u64,
) -> Result<Option<KeyRange>> {
    let whole = KeyRange { after: None, through: None };
    let from = format!("only {leaf}");
    let (statement, values) = copy_sql::boundary(&from, &f.key_columns(), &whole, rows);
    let found = query_text(client, &statement, &values).await?;
    let key = found.first().map(|row| (0..row.len()).map(|i| row.get(i)).collect::<Key>());
    Ok(key.map(|key| KeyRange { after: None, through: Some(key) }))
}

/// The scan with the most rows, of anything except the table itself.
fn biggest_scan(node: &Value, table: &Ident) -> Option<(String, f64)> {
    let below = node["Plans"].as_array().into_iter().flatten().filter_map(|plan| biggest_scan(plan, table));
    let name = ["Relation Name", "Function Name"].iter().find_map(|key| node[*key].as_str());
    let rows = node["Plan Rows"].as_f64().unwrap_or(0.0);
    let own = name.filter(|name| *name != table.as_str()).map(|name| (name.to_owned(), rows));
    below.chain(own).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Plans a statement; returns the plan, or the server's error.
async fn explained(
    client: &Client,
    f: &Filling,
    statement: &str,
) -> Result<std::result::Result<Value, Refusal>> {
    let plan = transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&fill_sql::names(f)).await?;
        Ok(client.query_one(statement, &[]).await?.get(0))
    });
    refused(plan.await)
}

/// Parses a statement and looks up its names without planning it; returns the server's error.
async fn parsed(client: &Client, f: &Filling, statement: &str) -> Result<std::result::Result<(), Refusal>> {
    let parsed = transaction(client, READ_COMMITTED, async |client| {
        client.batch_execute(&fill_sql::names(f)).await?;
        client.prepare(statement).await?;
        Ok(())
    });
    refused(parsed.await)
}

/// The server's error about the SQL; other errors are returned as errors.
fn refused<T>(result: Result<T>) -> Result<std::result::Result<T, Refusal>> {
    match result {
        Ok(it) => Ok(Ok(it)),
        Err(e) => refusal(e).map(Err),
    }
}
