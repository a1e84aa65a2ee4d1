//! The status of a job, from what the database stores.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::model::history;
use crate::model::pace::Behind;
use crate::model::state::State;
use crate::model::status::{Status, StoredHold};
use crate::sql::{drain, pace, store as sql, swap};

use super::store::{self, Job, chunk_times, jobs};
use super::{catalog, latency, lease};

/// The age in seconds from which on the stored progress of a driver is considered outdated.
const FRESH_S: f64 = 20.0;
/// The number of samples to show: ten minutes.
const SAMPLES: i64 = 60;

/// The current status of a job.
///
/// # Errors
/// The server returned an error.
pub async fn of(client: &Client, job: &Job) -> Result<Status> {
    match as_recorded(client, job).await {
        // The job ended after its record was read, and its log was dropped.
        Err(e) if e.is(&SqlState::UNDEFINED_TABLE) => {
            match jobs(client, Some(&job.name)).await?.iter().find(|j| j.id == job.id && j.state != job.state)
            {
                Some(now) => as_recorded(client, now).await,
                None => Err(e),
            }
        }
        other => other,
    }
}

async fn as_recorded(client: &Client, job: &Job) -> Result<Status> {
    // Before the chunks, so that the number of rows filled does not exceed the number of rows processed.
    let planned = job.design.planned();
    let filled = match planned.fills_rows(job.state) {
        true if job.state.is_final() => {
            let row = client.query_opt(sql::ROWS_FILLED_IN_ALL, &[&job.id]).await?;
            row.and_then(|row| history::rows_set(row.get(0)))
        }
        true => Some(store::rows_filled(client, job.id).await?),
        false => None,
    };
    let times = chunk_times(client, job.id).await?;
    let copied = match job.state {
        // The ledger has been deleted by then.
        State::Finalized => job.rows_estimated,
        _ => times.iter().map(|(rows, _)| rows).sum(),
    };
    let latency = latency::summarize(&times)?;
    let current = store::installed(client).await? == Some(sql::VERSION);
    let driven = current && lease::is_driven(client, job.id).await?;
    let copying = driven && job.state == State::Capturing;
    // Once everything is copied, the total is the number of copied rows.
    let rows_estimated =
        if job.state.is_captured() && job.state != State::Capturing { copied } else { job.rows_estimated };
    let whole_ms = |ms: f64| (latency.chunks > 0).then_some(ms.round() as u64);
    let pending = match job.design.blueprint().filter(|_| planned.logs_changes(job.state)) {
        Some(blueprint) => {
            let row = client.query_one(&drain::pending_count(blueprint), &[]).await?;
            u64::try_from(row.get::<_, i64>(0)).ok()
        }
        None => None,
    };
    let running = if current { running(client, job, driven).await? } else { Running::default() };
    let guarded = guarded(client, job).await?;
    let slowest = running.replicas.iter().map(|one| one.lag_s).max_by(f64::total_cmp);
    Ok(Status {
        job: job.name.clone(),
        kind: job.kind.clone(),
        table: job.source.clone(),
        state: job.state,
        phase: driven.then(|| planned.phase(job.state).to_owned()),
        rows_estimated: u64::try_from(rows_estimated).unwrap_or(0),
        rows_copied: u64::try_from(copied).unwrap_or(0),
        rows_set: filled,
        rows_per_second: job.rows_per_second.filter(|_| copying),
        eta_s: job.eta_s.filter(|_| copying).and_then(|s| u64::try_from(s).ok()),
        chunks_done: latency.chunks,
        chunk_rows: (latency.chunks > 0).then_some(latency.chunk_rows),
        chunk_ms_p50: whole_ms(latency.p50_ms),
        chunk_ms_p99: whole_ms(latency.p99_ms),
        chunk_ms_max: whole_ms(latency.max_ms),
        changes_pending: pending,
        replica_lag_s: slowest,
        guarded,
        hold: running.holds.first().cloned(),
        holds: running.holds,
        replicas: running.replicas,
        workers: running.workers,
        settings: running.settings,
        rates: running.rates,
        started_at: job.started_at,
        updated_at: job.updated_at,
        swapped_at: job.swapped_at,
        keep_old_until: job.keep_old_until,
    })
}

/// Whether the table in use has the guard of a swap.
async fn guarded(client: &Client, job: &Job) -> Result<bool> {
    let Some(blueprint) = job.design.blueprint() else { return Ok(false) };
    match catalog::find(client, &blueprint.table.name).await? {
        Some(oid) if !job.state.is_final() => Ok(client.query_one(swap::GUARDED, &[&oid]).await?.get(0)),
        _ => Ok(false),
    }
}

/// The progress of a job, and its settings.
#[derive(Debug, Default)]
struct Running {
    workers: Option<u32>,
    holds: Vec<StoredHold>,
    replicas: Vec<Behind>,
    settings: BTreeMap<String, String>,
    rates: Vec<f64>,
}

async fn running(client: &Client, job: &Job, driven: bool) -> Result<Running> {
    let mut running = Running { settings: store::settings(client, job.id).await?, ..Running::default() };
    if !driven {
        return Ok(running);
    }
    if let Some(row) = client.query_opt(pace::PACE, &[&job.id, &FRESH_S]).await? {
        running.workers = row.get::<_, Option<i32>>(0).and_then(|n| u32::try_from(n).ok());
        let understood = |e: serde_json::Error| {
            Error::failed(
                "the job's recorded progress could not be \
                parsed",
            )
            .caused_by(e)
        };
        running.holds = serde_json::from_value(row.get(1)).map_err(understood)?;
        running.replicas = serde_json::from_value(row.get(2)).map_err(understood)?;
    }
    let samples = client.query(pace::SAMPLES, &[&job.id, &SAMPLES]).await?;
    let rate = |detail: &str| serde_json::from_str::<serde_json::Value>(detail).ok()?["per_second"].as_f64();
    running.rates = samples.iter().rev().filter_map(|row| rate(row.get(0))).collect();
    Ok(running)
}
