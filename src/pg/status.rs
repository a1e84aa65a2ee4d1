//! What `status` says of a job, from what the database keeps.

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::state::State;
use crate::model::status::Status;
use crate::sql::{drain, store as sql};

use super::latency;
use super::store::{Job, chunk_times, jobs};

/// What the server says where a table is gone.
const UNDEFINED_TABLE: &str = "42P01";

/// Where a job is now.
///
/// # Errors
/// What the server said.
pub async fn of(client: &Client, job: &Job) -> Result<Status> {
    match as_recorded(client, job).await {
        // It ended after its record was read, and took its log with it.
        Err(e) if e.sqlstate() == Some(UNDEFINED_TABLE) => {
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
    let times = chunk_times(client, job.id).await?;
    let copied = match job.state {
        // The ledger is gone by then.
        State::Finalized => job.rows_estimated,
        _ => times.iter().map(|(rows, _)| rows).sum(),
    };
    let latency = latency::summarize(&times)?;
    let driven = client.query_opt(sql::LEASE_HOLDER, &[&job.id]).await?.is_some();
    let copying = driven && job.state == State::Capturing;
    // Once everything is copied, what was copied is what there was.
    let rows_estimated =
        if logs_changes(job.state) && job.state != State::Capturing { copied } else { job.rows_estimated };
    let whole_ms = |ms: f64| (latency.chunks > 0).then_some(ms.round() as u64);
    let pending = if logs_changes(job.state) {
        let row = client.query_one(&drain::pending_count(&job.blueprint), &[]).await?;
        u64::try_from(row.get::<_, i64>(0)).ok()
    } else {
        None
    };
    Ok(Status {
        job: job.name.clone(),
        kind: job.kind.clone(),
        table: job.source.clone(),
        state: job.state,
        phase: driven.then(|| phase_after(job.state).to_owned()),
        rows_estimated: u64::try_from(rows_estimated).unwrap_or(0),
        rows_copied: u64::try_from(copied).unwrap_or(0),
        rows_per_second: job.rows_per_second.filter(|_| copying),
        eta_s: job.eta_s.filter(|_| copying).and_then(|s| u64::try_from(s).ok()),
        chunks_done: latency.chunks,
        chunk_rows: (latency.chunks > 0).then_some(latency.chunk_rows),
        chunk_ms_p50: whole_ms(latency.p50_ms),
        chunk_ms_p99: whole_ms(latency.p99_ms),
        chunk_ms_max: whole_ms(latency.max_ms),
        changes_pending: pending,
        replica_lag_s: None,
        hold: None,
        started_at: job.started_at,
        updated_at: job.updated_at,
        swapped_at: job.swapped_at,
        keep_old_until: job.keep_old_until,
    })
}

/// Whether there is a change log in that state.
fn logs_changes(state: State) -> bool {
    !matches!(state, State::Planned | State::Prepared | State::Finalized | State::Aborted)
}

/// The phase that a driver is in while the job has that state.
fn phase_after(state: State) -> &'static str {
    match state {
        State::Planned => "prepare",
        State::Prepared => "capture",
        State::Capturing => "copy",
        State::Copied => "index",
        State::Indexed => "drain",
        State::Synced | State::Verified | State::RolledBack => "verify",
        State::Swapped => "sync",
        State::Finalized | State::Aborted => "over",
    }
}
